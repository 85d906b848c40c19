"""`deeppose-client` end to end: what it writes is what `deeppose-predict` would."""

import io
import json

import cv2
import numpy as np
import pytest
import serving_peer
import toy_run
import toy_served
from PIL import Image

from deeppose_tf import detect, skeleton
from deeppose_tf.datasets import images
from deeppose_tf.export.serving import client, serving
from deeppose_tf.pipelines.predict import media, predict

LSP = skeleton.LSP


class Here:
    """The toy cascade without a server."""

    skeleton = LSP

    def predict(self, image, boxes):
        people = [toy_served.expected(image, box) for box in boxes]
        return {name: np.stack([one[name] for one in people]) for name in people[0]}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "1"
    toy_served.save(folder)
    with serving_peer.serving(folder) as peer:
        yield peer


@pytest.fixture
def peer(running):
    running.seen.clear()
    running.faults.clear()
    return running


@pytest.fixture
def photos(tmp_path):
    """A photo as it is usual, one that EXIF turns, and two in other ways unusual."""
    folder = tmp_path / "photos"
    folder.mkdir()
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8)
    image = Image.fromarray(pixels)
    image.save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    image.save(folder / "b.jpg", exif=exif)
    image.convert("L").save(folder / "c.png")
    image.save(folder / "d.webp")
    return folder


def call(peer, source, output, *arguments, server=None):
    toy_run.call(
        client,
        *(f"--server={server or peer.rest}", f"--input={source}", f"--output={output}"),
        *("--skeleton=lsp", *arguments),
    )


def saved(output):
    return json.loads((output / "predictions.json").read_text())


def decoded(content):
    return np.array(Image.open(io.BytesIO(content)))


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_it_writes_what_predict_would(peer, photos, tmp_path, protocol, capsys):
    server = getattr(peer, protocol)
    if not server:
        pytest.skip("tensorflow-serving-api is not installed")
    boxes = tmp_path / "boxes.json"
    people = [[1, 2, 30, 40.5], [-2000, 0, 10, 10], [0, 0, 0, 0]]
    boxes.write_text(json.dumps({"a.png": people, "b.jpg": people, "c.png": []}))
    there, here = tmp_path / "there", tmp_path / "here"
    call(peer, photos, there, f"--boxes={boxes}", server=server)
    finder = detect.make_finder(str(boxes), LSP)
    content = predict.predict_files(
        Here(), media.find_files(str(photos)), str(here), finder, {}
    )
    answer = saved(there)
    assert answer["info"].pop("settings")["server"] == server
    assert answer == saved(here) | {"info": answer["info"]}
    assert len(content["annotations"]) == 3 + 3 + 0 + 1
    drawn = sorted(path.name for path in here.glob("*.png"))
    assert len(drawn) == 4
    for name in drawn:
        assert (there / name).read_bytes() == (here / name).read_bytes()
    assert "7 people on 4 images" in capsys.readouterr().out


def test_files_are_sent_as_they_are_or_upright(peer, photos, tmp_path):
    call(peer, photos, tmp_path / "out")
    sent = [list(seen[0]) for seen in peer.seen]
    assert sent[0] == [(photos / "a.png").read_bytes()]
    for (content,), name in zip(sent[1:], ("b.jpg", "c.png", "d.webp"), strict=True):
        np.testing.assert_array_equal(
            decoded(content), images.read_image(str(photos / name))
        )
    assert decoded(sent[1][0]).shape == (90, 60, 3)


def test_frames_of_a_video_are_sent_without_loss(peer, tmp_path):
    path = tmp_path / "clip.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 5, (90, 60))
    for i in range(3):
        writer.write(np.full((60, 90, 3), 40 * i, np.uint8))
    writer.release()
    call(peer, path, tmp_path / "out", "--nooverlays")
    with media.open_film(str(path)) as video:
        for frame, seen in zip(video.frames, peer.seen, strict=True):
            np.testing.assert_array_equal(decoded(seen[0][0]), frame)
    assert [image["frame"] for image in saved(tmp_path / "out")["images"]] == [0, 1, 2]


def test_what_is_unreadable_or_refused_is_passed_over(peer, photos, tmp_path, capsys):
    (photos / "0.jpg").write_bytes(b"no image")
    # The first is asked what the model is; then a.png is refused, and b.jpg is not.
    peer.faults.extend([None, "INVALID_ARGUMENT"])
    with pytest.raises(SystemExit) as stopped:
        call(peer, photos, tmp_path / "out")
    assert stopped.value.code == 1
    content = saved(tmp_path / "out")
    assert [file["file_name"] for file in content["unreadable"]] == ["0.jpg", "a.png"]
    assert "answered 400" in content["unreadable"][1]["reason"]
    assert [one["file_name"] for one in content["images"]] == [
        *("b.jpg", "c.png", "d.webp")
    ]
    assert capsys.readouterr().out.count("passed over: ") == 2


def test_a_server_that_goes_away_ends_it(peer, photos, tmp_path):
    peer.faults.extend([None, "INTERNAL"])
    with pytest.raises(serving.ServerError, match="answered 500"):
        call(peer, photos, tmp_path / "out")
    assert not saved(tmp_path / "out")["finished"]
    call(peer, photos, tmp_path / "out")  # the same command goes over it
    assert saved(tmp_path / "out")["finished"]


def test_nothing_is_written_without_a_server(photos, tmp_path):
    for server in ("http://127.0.0.1:9", "127.0.0.1:9"):
        with pytest.raises((OSError, ValueError), match="127.0.0.1:9"):
            call(None, photos, tmp_path / "out", "--retries=0", server=server)
    assert not (tmp_path / "out").exists()


def test_skeletons_come_by_name_or_file_or_as_numbers(tmp_path):
    assert client.find_skeleton("lsp", 14) == LSP
    unknown = client.find_skeleton(None, 2)
    assert unknown.joints == ("joint_1", "joint_2") and not unknown.limbs
    plain, nested = tmp_path / "plain.json", tmp_path / "nested.json"
    plain.write_text(json.dumps(skeleton.to_json(LSP)))
    nested.write_text(json.dumps({"skeleton": skeleton.to_json(LSP), "sigma": 1}))
    assert client.find_skeleton(str(plain), 14) == LSP
    assert client.find_skeleton(str(nested), 14) == LSP
    with pytest.raises(ValueError, match="=lsp has 14 joints, .* answers 16"):
        client.find_skeleton("lsp", 16)
    with pytest.raises(ValueError, match="lps: no such file, and none of lsp, flic"):
        client.find_skeleton("lps", 14)
    for content in ("{", "[]", '{"skeleton": {"name": "x"}}'):
        plain.write_text(content)
        with pytest.raises(ValueError, match="plain.json: "):
            client.find_skeleton(str(plain), 14)


def test_headers_are_read_from_a_file(peer, photos, tmp_path):
    path = tmp_path / "headers"
    path.write_text("Authorization: Bearer a:b\n\nX-Client : me \n")
    assert client.read_headers(str(path)) == {
        **{"Authorization": "Bearer a:b", "X-Client": "me"}
    }
    call(peer, photos / "a.png", tmp_path / "out", f"--header_file={path}")
    assert peer.seen[0][2]["Authorization"] == "Bearer a:b"
    path.write_text("X-Client: me\nsecret")
    with pytest.raises(ValueError, match="headers, line 2: expected") as refused:
        client.read_headers(str(path))
    assert "secret" not in str(refused.value)
    for wrong in ("My Client: me", "X-Client: mé", ": me", "X-Client: €"):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(ValueError, match="line 1: expected 'Name: value', in"):
            client.read_headers(str(path))


def test_faces_need_to_know_whether_the_model_has_legs(peer, photos, tmp_path):
    common = [f"--server={peer.rest}", f"--input={photos}", f"--output={tmp_path}"]
    with pytest.raises(ValueError, match="--boxes=face needs --skeleton"):
        toy_run.call(client, *common, "--boxes=face")
