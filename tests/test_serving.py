"""The client of TensorFlow Serving against a server of the same protocols, which is
told to fail in every way that servers and proxies do; and `deeppose-client` end to end:
what it writes is what `deeppose-predict` would."""

import io
import json
import pathlib
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import serving_peer
import tensorflow as tf
import toy_cascade
import toy_run
import toy_served
from PIL import Image

from deeppose_tf import detect, skeleton
from deeppose_tf.datasets import images
from deeppose_tf.export import serving
from deeppose_tf.export.saved_model import export as saved_model
from deeppose_tf.export.serving import client, commands
from deeppose_tf.pipelines.predict import media, predict

LSP = skeleton.LSP
SCRIPT = toy_run.script(commands, "client")
BOX = [3.5, 4, 20, 30]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "1"
    toy_served.save(folder)
    with serving_peer.serving(folder, most_bytes=200_000) as peer:
        yield peer


@pytest.fixture
def peer(running):
    """With nothing left of other tests."""
    running.faults.clear()
    running.seen.clear()
    running.states = {1: "AVAILABLE"}
    return running


@pytest.fixture(params=["rest", "grpc"])
def address(request, peer):
    """Of the server, in turn by either protocol."""
    if not getattr(peer, request.param):
        pytest.skip("tensorflow-serving-api is not installed")
    return getattr(peer, request.param)


@pytest.fixture
def pauses(monkeypatch):
    """The seconds that the client would have waited."""
    waited = []
    monkeypatch.setattr(client.time, "sleep", waited.append)
    return waited


def png(height=20, width=30, red=51):
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = red
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return image, file.getvalue()


def assert_same(answer, pairs):
    expected = [toy_served.expected(image, box) for image, box in pairs]
    assert set(answer) == set(expected[0])
    for name, values in answer.items():
        wanted = np.stack([one[name] for one in expected])
        assert values.dtype == (bool if name == "valid" else np.float32)
        np.testing.assert_allclose(values, wanted, rtol=1e-6)


def test_images_of_different_sizes_in_one_request(address, peer):
    (small, first), (large, second) = png(), png(50, 40, 255)
    boxes = np.array([BOX, [0, 0, 0, 0]])
    answer = serving.Client(address).predict([first, second], boxes)
    assert_same(answer, [(small, BOX), (large, np.zeros(4))])
    np.testing.assert_allclose(answer["keypoints"][1, 0], [20, 25])  # of 40 x 50
    assert len(peer.seen) == 1 and list(peer.seen[0][0]) == [first, second]
    whole = serving.Client(address).predict([second])
    np.testing.assert_array_equal(whole["keypoints"], answer["keypoints"][1:])


def test_many_people_are_sent_in_portions(address, peer):
    image, content = png()
    boxes = np.arange(19)[:, None] + np.array([[1, 2, 30, 40]])
    answer = serving.Client(address).predict([content] * 19, boxes)
    assert [len(seen[0]) for seen in peer.seen] == [8, 8, 3]
    assert_same(answer, [(image, box) for box in boxes])
    nobody = serving.Client(address).predict([])
    assert len(peer.seen) == 3  # it was not asked
    assert {name: value.shape for name, value in nobody.items()} == {
        **{"keypoints": (0, 14, 2), "keypoints_by_stage": (0, 2, 14, 2)},
        **{"scores": (0, 14), "valid": (0,)},
    }


def test_portions_hold_so_many_images_and_bytes():
    whole = client.BYTES_AT_ONCE
    cuts = [(p.start, p.stop) for p in client.portions([9, whole, 1, 2, whole + 1, 1])]
    assert cuts == [(0, 1), (1, 2), (2, 4), (4, 5), (5, 6)]
    assert list(client.portions([])) == []


@pytest.mark.parametrize("fault", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_a_busy_server_is_asked_again(address, peer, pauses, fault):
    one = serving.Client(address)
    _ = one.shapes
    peer.faults.extend([fault, fault])
    image, content = png()
    assert_same(one.predict([content]), [(image, np.zeros(4))])
    assert len(pauses) == 2
    assert 0.25 <= pauses[0] <= 0.5 <= pauses[1] <= 1
    peer.faults.extend([fault] * 3)
    impatient = serving.Client(address, retries=1)
    with pytest.raises(serving.ServerError, match=f"{fault}.*Tried 2 times"):
        impatient.predict([content])
    assert len(pauses) == 3


def test_pauses_grow_up_to_a_limit(address, peer, pauses, monkeypatch):
    monkeypatch.setattr(client.random, "uniform", lambda low, high: high)
    peer.faults.extend(["UNAVAILABLE"] * 6)
    assert serving.Client(address, retries=6).shapes["valid"] == (-1,)
    assert pauses == [0.5, 1, 2, 4, 8, 8]


@pytest.mark.parametrize(
    "fault, error",
    [
        ("INVALID_ARGUMENT", serving.Refused),
        ("INTERNAL", serving.ServerError),
        ("PERMISSION_DENIED", serving.ServerError),
    ],
)
def test_other_refusals_are_final(address, peer, pauses, fault, error):
    one = serving.Client(address)
    _ = one.shapes
    peer.faults.append(fault)
    with pytest.raises(error, match=f"{address}.*a fault of the test: {fault}"):
        one.predict([png()[1]])
    assert not pauses
    one.predict([png()[1]])  # the next is answered


def test_bytes_that_are_no_image_are_refused(address, pauses):
    with pytest.raises(serving.Refused, match="Unknown image|decode|INVALID"):
        serving.Client(address).predict([b"no image"])
    assert not pauses


def test_a_request_that_is_too_large_is_refused(address, pauses):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")  # 270 kB
    with pytest.raises(serving.Refused, match=r"[Ll]arge.*a request of 0\.\d MB"):
        serving.Client(address).predict([file.getvalue()])
    assert not pauses


def test_a_server_that_hangs_is_waited_for_so_long(address, peer, pauses):
    one = serving.Client(address, timeout=0.3)
    _ = one.shapes
    peer.faults.append("hang")
    with pytest.raises(serving.ServerError, match="no answer in 0.3 s"):
        one.predict([png()[1]])
    assert not pauses


@pytest.mark.parametrize("part", ["drip", "drip headers"])
def test_an_answer_that_drips_is_waited_for_so_long(peer, pauses, part):
    """Each byte comes in time, and the last never."""
    one = serving.Client(peer.rest, timeout=0.3)
    _ = one.shapes
    peer.faults.append(part)
    with pytest.raises(serving.ServerError, match="no answer in 0.3 s"):
        one.predict([png()[1]])
    assert not pauses


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_no_server_is_there(peer, pauses, scheme):
    if scheme == "grpc" and not peer.grpc:
        pytest.skip("tensorflow-serving-api is not installed")
    one = serving.Client(f"{scheme}://127.0.0.1:9", retries=2)  # port "discard"
    with pytest.raises(serving.ServerError, match="127.0.0.1:9.*refused.*Tried 3.*850"):
        one.predict([png()[1]])
    assert len(pauses) == 2


def test_the_model_is_not_there(address, peer, pauses):
    other = serving.Client(address, "other")
    with pytest.raises(serving.ServerError, match="'other' it has: no version"):
        other.predict([png()[1]])
    peer.states = {1: "END", 2: "LOADING"}
    with pytest.raises(serving.ServerError, match="1 is END, version 2 is LOADING"):
        serving.Client(address).predict([png()[1]])
    assert not pauses


def test_the_signature_is_not_there(tmp_path):
    toy_served.save(tmp_path / "1", ["serving_default"])
    with serving_peer.serving(tmp_path / "1") as running:
        for address in filter(None, (running.rest, running.grpc)):
            with pytest.raises(
                serving.ServerError, match="'jpeg' but.*serving_default"
            ):
                serving.Client(address).predict([png()[1]])


def without_scores(answer):
    return {name: value for name, value in answer.items() if name != "scores"}


SPOILED = [
    (lambda a: a | {"keypoints": a["keypoints"][:, 1:]}, r"\(1, 13, 2\), expected"),
    (lambda a: a | {"keypoints": a["keypoints"] * np.nan}, "not finite"),
    (lambda a: a | {"scores": a["scores"] * np.inf}, "not finite"),
    (lambda a: a | {"scores": a["scores"] + 1.5}, "scores has numbers beyond 0..1"),
    (lambda a: a | {"keypoints": a["keypoints"] - 2e9}, "keypoints has numbers beyond"),
    (lambda a: a | {"valid": np.array([1])}, r"valid is int64 \(1,\)"),
    (without_scores, "scores is object"),
]


@pytest.mark.parametrize("spoil, words", SPOILED)
def test_answers_are_checked(address, peer, pauses, spoil, words):
    one = serving.Client(address)
    _ = one.shapes
    peer.faults.append(spoil)
    with pytest.raises(serving.ServerError, match=f"not TensorFlow Serving's.*{words}"):
        one.predict([png()[1]])
    assert not pauses


BODIES = [b"<html>It works!</html>", b"[" * 100_000, b"null", b'{"predictions": []}']
BODIES += [b'{"predictions": [{"keypoints": [[1, 2], [3]]}]}', b'{"predictions": 3}']


# A shape beyond every number.
BODIES += [
    b'{"metadata": {"signature_def": {"signature_def": {"jpeg": {"outputs": {"scores":'
    b' {"tensor_shape": {"dim": [{"size": 1e999}]}}}}}}}, "predictions": 0}'
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body[:20])
def test_nonsense_over_rest_is_called_so(peer, pauses, body):
    peer.faults.clear()
    one = serving.Client(peer.rest)
    _ = one.shapes
    peer.faults.append(body)
    with pytest.raises(serving.ServerError, match="not TensorFlow Serving's"):
        one.predict([png()[1]])
    peer.faults.append(body)
    with pytest.raises(serving.ServerError, match="not TensorFlow Serving's"):
        _ = serving.Client(peer.rest).shapes
    assert not pauses


def test_an_answer_that_breaks_off_is_asked_for_again(peer, pauses):
    one = serving.Client(peer.rest)
    _ = one.shapes
    peer.faults.append("truncated")
    image, content = png()
    assert_same(one.predict([content]), [(image, np.zeros(4))])
    assert len(pauses) == 1


def test_an_answer_without_end_is_not_read(peer, monkeypatch):
    one = serving.Client(peer.rest)
    _ = one.shapes
    monkeypatch.setattr(client, "MOST_BYTES", 1000)
    peer.faults.append(b"[" * 1001)
    with pytest.raises(serving.ServerError, match="an answer of over 1000 bytes"):
        one.predict([png()[1]])


def test_an_answer_over_grpc_has_an_end_too(peer, pauses, monkeypatch):
    module = pytest.importorskip("deeppose_tf.export.serving.grpc_transport")
    options = [("grpc.max_receive_message_length", 100)]
    monkeypatch.setattr(module, "OPTIONS", options)
    with pytest.raises(serving.ServerError, match="an answer of over"):
        _ = serving.Client(peer.grpc).shapes
    assert not pauses
    # One number, to be repeated into terabytes.
    shape = tf.TensorShape([1, 10**12]).as_proto()
    bomb = tf.make_tensor_proto([1.0])
    bomb.tensor_shape.CopyFrom(shape)
    with pytest.raises(ValueError, match="an output of over"):
        module._array(bomb)


def test_what_a_server_says_is_no_command_to_a_terminal(address, peer):
    """It could change the title, or what was printed before."""

    def refuse(answer):
        raise serving_peer.Error("INVALID_ARGUMENT", "a\x1b]0;b\x07\r\u202ec")

    one = serving.Client(address)
    _ = one.shapes
    peer.faults.append(refuse)
    with pytest.raises(serving.Refused, match=r"a\\x1b]0;b\\x07 \\u202ec"):
        one.predict([png()[1]])


def test_a_redirection_is_not_followed(peer):
    """Nothing but the server asked may get the images and headers."""
    one = serving.Client(peer.rest)
    _ = one.shapes
    serving_peer.CODES["MOVED"] = 301
    peer.faults.append("MOVED")
    with pytest.raises(serving.ServerError, match="answered 301"):
        one.predict([png()[1]])


def test_headers_are_sent_along(address, peer):
    headers = {"Authorization": "Bearer abc"}
    serving.Client(address, headers=headers).predict([png()[1]])
    sent = {name.lower(): value for name, value in peer.seen[0][2].items()}
    assert sent["authorization"] == "Bearer abc"


def test_servers_are_named_as_expected(address):
    for server in ("localhost:8501", "ftp://host:1", "http://", ""):
        with pytest.raises(ValueError, match="http://localhost:8501 or"):
            serving.Client(server)
    with pytest.raises(ValueError, match="Port"):
        serving.Client("http://host:abc")
    for server in ("http://me:secret@host:1", "grpc://me@host:1", "http://host?a=b"):
        with pytest.raises(ValueError, match="belongs into headers") as refused:
            serving.Client(server)
        assert "secret" not in str(refused.value)
    for server in ("grpc://host", "grpc://host:8500/path"):
        with pytest.raises(ValueError, match="host and port, nothing else"):
            serving.Client(server)
    assert serving.Client(f"{address}/").predict([png()[1]])["valid"].all()


def test_times_that_nobody_can_wait():
    for timeout in (0, -1, np.nan, np.inf, 1e30):
        with pytest.raises(ValueError, match="timeout is .*; expected seconds"):
            serving.Client("http://localhost:1", timeout=timeout)
    with pytest.raises(ValueError, match="retries are -1"):
        serving.Client("http://localhost:1", retries=-1)


def test_arguments_are_checked_before_anything_is_sent(address, peer):
    one = serving.Client(address)
    content = png()[1]
    with pytest.raises(ValueError, match="not a list of files' contents"):
        one.predict(content)
    with pytest.raises(ValueError, match=r"boxes are \(4,\), expected \[1, 4\]"):
        one.predict([content], BOX)
    with pytest.raises(ValueError, match="not finite"):
        one.predict([content], [[0, 0, np.nan, 1]])
    assert not peer.seen


def test_shapes_of_other_models_are_no_poses():
    pose = {
        "keypoints": (-1, 5, 2),
        "keypoints_by_stage": (-1, 3, 5, 2),
        "scores": (-1, 5),
        "valid": (-1,),
    }

    def shapes(outputs):
        """By way of what a server says."""
        sizes = {n: [{"size": str(d)} for d in s] for n, s in outputs.items()}
        said = {n: {"tensor_shape": {"dim": dims}} for n, dims in sizes.items()}
        return client._output_shapes("server", {"jpeg": {"outputs": said}})

    assert shapes(pose | {"more": ()}) == pose
    wrong = [("scores", (-1, 4)), ("valid", (-1, 1)), ("keypoints", (-1, 5))]
    wrong += [("keypoints_by_stage", shape) for shape in ((), (-1, 3), (-1, -1, 5, 2))]
    wrong += [("keypoints_by_stage", (-1, 10**18, 5, 2))]
    for name, shape in wrong:
        with pytest.raises(serving.ServerError, match="no pose"):
            shapes(pose | {name: shape})


@pytest.mark.slow
def test_an_exported_cascade_is_served(tmp_path):
    """Both protocols give what the SavedModel's own check compares with the cascade."""
    cascade = toy_cascade.make(skeleton.LSP)
    limits = saved_model.Limits()
    saved_model.write(cascade, limits, {}, tmp_path / "1")
    pictures, boxes = saved_model.checks.examples()
    boxes = boxes[[0, 1, 0]]
    files = []
    for picture in pictures[:2]:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        files.append(file.getvalue())
    expected = cascade.predict_batch(pictures[:2], boxes[:2])
    with serving_peer.serving(tmp_path / "1") as running:
        for address in filter(None, (running.rest, running.grpc)):
            answer = serving.Client(address).predict([*files, b"no picture"], boxes)
            assert answer["valid"].tolist() == [True, True, False]
            for name in ("keypoints", "keypoints_by_stage"):
                np.testing.assert_allclose(answer[name][:2], expected[name], atol=1e-3)
                assert not answer[name][2].any()
            np.testing.assert_allclose(answer["scores"][:2], expected["scores"], 1e-4)


def test_rest_needs_nothing_and_grpc_says_what_it_needs():
    program = """
import sys
from deeppose_tf.export import serving
serving.Client("http://localhost:1")
assert not {"tensorflow", "grpc"} & set(sys.modules)
sys.modules["grpc"] = None
serving.Client("grpc://localhost:1")
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    last = ran.stderr.strip().splitlines()[-1]
    assert last.startswith("ValueError: grpc://localhost:1 needs gRPC: pip install"), (
        ran.stderr
    )
    assert "'deeppose-tf[serving]'" in last


class Here:
    """The toy cascade without a server."""

    skeleton = LSP

    def predict(self, image, boxes):
        people = [toy_served.expected(image, box) for box in boxes]
        return {name: np.stack([one[name] for one in people]) for name in people[0]}


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
        SCRIPT,
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
    found = media.find_files(str(photos))
    content = predict.predict_files(LSP, lambda: (Here(), finder), found, str(here), {})
    answer = saved(there)
    assert answer["info"].pop("settings")["server"] == server
    assert answer == saved(here) | {name: answer[name] for name in ("info", "files")}
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
        for (_, frame), seen in zip(video.frames(), peer.seen, strict=True):
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


def test_the_program_in_the_documentation_runs(peer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(png()[1])
    text = pathlib.Path(__file__).parents[1].joinpath("docs/export.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    names = {}
    exec(program.replace("http://localhost:8501", peer.rest), names)
    assert names["pose"]["keypoints"].shape == (1, 14, 2)


def test_skeletons_come_by_name_or_file_or_as_numbers(peer, photos, tmp_path):
    unknown = commands.skeleton_of(serving.Client(peer.rest), None)
    assert unknown.joints[:2] == ("joint_1", "joint_2") and not unknown.limbs
    plain, nested = tmp_path / "plain.json", tmp_path / "nested.json"
    plain.write_text(json.dumps(skeleton.to_json(LSP)))
    nested.write_text(json.dumps({"skeleton": skeleton.to_json(LSP), "sigma": 1}))
    assert skeleton.load("lsp") == LSP
    assert skeleton.load(str(plain)) == skeleton.load(str(nested)) == LSP
    with pytest.raises(ValueError, match="has 16 joints, .* answers 14"):
        call(peer, photos, tmp_path / "out", "--skeleton=mpii")
    # Before the server is asked, of which there is none.
    with pytest.raises(ValueError, match="'lps': no such file, and none of lsp, flic"):
        call(None, photos, tmp_path / "out", "--skeleton=lps", server="http://no:9")
    exported = {"format": 7, "skeleton": skeleton.to_json(LSP)}
    nested.write_text(json.dumps(exported))
    with pytest.raises(ValueError, match="json has format 7, and .* reads 1: it was"):
        call(
            None, photos, tmp_path / "out", f"--skeleton={nested}", server="http://no:9"
        )
    nested.write_text(json.dumps(exported | {"format": 1}))
    assert skeleton.load(str(nested), (1,)) == LSP
    for content in ("{", "[]", '{"skeleton": {"name": "x"}}'):
        plain.write_text(content)
        with pytest.raises(ValueError, match="plain.json: "):
            skeleton.load(str(plain))


def test_headers_are_read_from_a_file(peer, photos, tmp_path):
    path = tmp_path / "headers"
    path.write_text("Authorization: Bearer a:b\n\nX-Client : me \n")
    assert commands.read_headers(str(path)) == {
        **{"Authorization": "Bearer a:b", "X-Client": "me"}
    }
    call(peer, photos / "a.png", tmp_path / "out", f"--header_file={path}")
    assert peer.seen[0][2]["Authorization"] == "Bearer a:b"
    with pytest.raises(ValueError, match="--header_file=nowhere: no such file"):
        call(peer, photos, tmp_path / "out", "--header_file=nowhere")
    path.write_text("X-Client: me\nsecret")
    with pytest.raises(ValueError, match="headers, line 2: expected") as refused:
        commands.read_headers(str(path))
    assert "secret" not in str(refused.value)
    for wrong in ("My Client: me", "X-Client: mé", ": me", "X-Client: €"):
        path.write_text(wrong, encoding="utf-8")
        with pytest.raises(ValueError, match="line 1: expected 'Name: value', in"):
            commands.read_headers(str(path))


def test_faces_need_to_know_whether_the_model_has_legs(peer, photos, tmp_path):
    common = [f"--server={peer.rest}", f"--input={photos}", f"--output={tmp_path}"]
    with pytest.raises(ValueError, match="--boxes=face needs --skeleton"):
        toy_run.call(SCRIPT, *common, "--boxes=face")
