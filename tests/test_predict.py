"""`deeppose-predict` end to end: with a cascade that answers what is known, and a real
one of two tiny untrained stages."""

import errno
import json
import os
import pathlib
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import toy_run
from PIL import Image, features

from deeppose_tf import detect, draw, files, skeleton
from deeppose_tf.pipelines.predict import commands, media, predict

LSP = skeleton.LSP
SETTINGS = {"model": "run"}
SCRIPT = toy_run.script(commands, "predict")


class FakeCascade:
    """Answers joint k of a person at the middle of the box plus (k, 2 k) pixels."""

    skeleton = LSP
    count = 2

    def __init__(self):
        self.seen, self.traced = [], []

    def predict(self, image, boxes, trace=True):
        self.seen.append((image, boxes))
        self.traced.append(trace)
        height, width = image.shape[:2]
        whole = ~boxes.any(axis=1, keepdims=True)
        boxes = np.where(whole, [0, 0, width, height], boxes)
        steps = np.arange(14)[:, None] * [1, 2]  # [K, 2]
        last = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2 + steps  # [N, K, 2]
        return {
            "keypoints": last.astype(np.float32),
            "keypoints_by_stage": np.stack([last - 1, last], axis=1),
            "scores": np.full(last.shape[:2], 0.75, np.float32),
            "valid": boxes[:, 0] > -1000,
        }


@pytest.fixture
def photos(tmp_path):
    """A folder with two photos (90 x 60) and things that are none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, value in (("a.jpg", 60), ("b.PNG", 120)):
        cv2.imwrite(str(folder / name), np.full((60, 90, 3), value, np.uint8))
    (folder / "notes.txt").write_text("not a photo")
    (folder / "below").mkdir()
    return folder


def write_video(path, frames, size=(60, 90), rate=12.5):
    code = cv2.VideoWriter_fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), code, rate, size[::-1])
    for i in range(frames):
        writer.write(np.full((*size, 3), 40 * i % 256, np.uint8))
    writer.release()


def run(source, output, boxes="full", cascade=None, settings=SETTINGS, **options):
    cascade = cascade or FakeCascade()
    finder = detect.make_finder(str(boxes), LSP)
    found = media.find_files(str(source))
    return predict.predict_files(
        LSP, lambda: (cascade, finder), found, str(output), settings, **options
    )


def saved(output):
    return json.loads((output / "predictions.json").read_text())


def test_a_folder_gives_poses_and_overlays(photos, tmp_path):
    content = run(photos, tmp_path / "out")
    output = tmp_path / "out"
    assert sorted(path.name for path in output.iterdir()) == [
        *("a.jpg.pose.png", "b.PNG.pose.png", "predictions.json")
    ]
    assert saved(output) == content and content["finished"] is True
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.PNG"]
    assert content["images"][0]["width"] == 90 and content["images"][0]["height"] == 60
    person = content["annotations"][0]
    assert person["image_id"] == content["images"][0]["id"]
    assert person["bbox"] == person["box"] == [0, 0, 90, 60] and person["valid"]
    # Joint k is at (45 + k, 30 + 2 k), in COCO's coordinates half a pixel less.
    keypoints = np.reshape(person["keypoints"], (14, 3))
    np.testing.assert_allclose(keypoints[:, 0], 45 + np.arange(14) - 0.5)
    np.testing.assert_allclose(keypoints[:, 1], 30 + 2 * np.arange(14) - 0.5)
    np.testing.assert_allclose(keypoints[:, 2], 0.75)
    assert len(person["keypoints_by_stage"]) == 2
    np.testing.assert_allclose(
        np.reshape(person["keypoints_by_stage"][0], (14, 2)), keypoints[:, :2] - 1
    )
    overlay = cv2.imread(str(output / "a.jpg.pose.png"))[..., ::-1]
    assert overlay.shape == (60, 90, 3)
    neck = (30 + 2 * 12, 45 + 12)
    assert np.abs(overlay[neck].astype(int) - draw.COLORS["middle"]).max() < 40
    assert np.abs(overlay[5, 5].astype(int) - 60).max() < 3


@pytest.mark.parametrize("count, eager", [(1, True), (2, True), (3, False)])
def test_of_few_photos_no_graph_is_made(tmp_path, count, eager):
    """To make the graph of two stages takes seconds."""
    for i in range(count):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.zeros((60, 90, 3), np.uint8))
    assert run_eagerly(tmp_path, tmp_path / "out") == [eager] * count


def test_of_many_people_on_a_photo_a_graph_is_made(photos, tmp_path):
    """40 people on one photo took 25 s in place of 18."""
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps({"a.jpg": [[0, 0, 9, 9]] * 5, "b.PNG": [[0] * 4] * 4}))
    assert run_eagerly(photos, tmp_path / "out", boxes) == [False, True]


def test_of_a_film_a_graph_is_made_whatever_its_header_says(tmp_path, monkeypatch):
    """Some say nothing, such as that of a recording of a browser."""
    write_video(tmp_path / "clip.mp4", 3)
    monkeypatch.setattr(media, "count_images", lambda file: 1)
    assert run_eagerly(tmp_path / "clip.mp4", tmp_path / "out") == [False] * 3


def run_eagerly(source, output, boxes="full"):
    """Whether the model was asked to make no graph, for each image."""
    cascade = FakeCascade()
    run(source, output, boxes, cascade)
    return [not traced for traced in cascade.traced]


def test_overlays_say_whose_left_is_which(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((200, 300, 3), 60, np.uint8))
    run(tmp_path / "a.png", tmp_path / "out")
    overlay = cv2.imread(str(tmp_path / "out" / "a.png.pose.png"))[..., ::-1]
    for side, words in (("left", overlay[180:, :40]), ("right", overlay[180:, 44:84])):
        distance = np.abs(words.astype(int) - draw.COLORS[side]).sum(axis=-1)
        assert distance.min() < 60
    assert (overlay[5:22, 4:40] != 60).any()  # the score


def test_several_people_of_a_file_of_boxes(photos, tmp_path):
    boxes = tmp_path / "boxes.json"
    people = [[0, 0, 20, 40], [40.5, 10, 80, 50], [-2000, 0, 10, 10]]
    boxes.write_text(json.dumps({"a.jpg": people, "b.PNG": []}))
    cascade = FakeCascade()
    content = run(photos, tmp_path / "out", boxes, cascade)
    assert len(cascade.seen) == 1  # nobody is on the second image
    np.testing.assert_allclose(cascade.seen[0][1], people)
    assert [person["image_id"] for person in content["annotations"]] == [1, 1, 1]
    assert [person["valid"] for person in content["annotations"]] == [True, True, False]
    assert content["annotations"][1]["keypoints"][:2] == [59.75, 29.5]
    assert content["annotations"][1]["bbox"] == [40.5, 10, 39.5, 40]
    assert [image["found"] for image in content["images"]] == [True, True]
    overlay = cv2.imread(str(tmp_path / "out" / "a.jpg.pose.png"))[..., ::-1]
    assert overlay[45, 40, 2] < 60 < 150 < overlay[45, 40, 0]  # the yellow box's edge


@pytest.mark.parametrize("boxes", ["face", "hog", "file"])
def test_the_whole_image_stands_in_where_nobody_is_found(
    photos, tmp_path, boxes, capsys
):
    if boxes == "file":
        boxes = tmp_path / "boxes.json"
        boxes.write_text('{"other.jpg": [[0, 0, 5, 5]]}')
    content = run(photos, tmp_path / "out", boxes)
    assert [image["found"] for image in content["images"]] == [False, False]
    assert [p["box"] for p in content["annotations"]] == [[0, 0, 90, 60]] * 2
    predict.report(content, str(boxes))
    file = f"that {boxes} does not name"
    why = file if "json" in str(boxes) else f"on which {boxes} found nobody"
    assert f"2 images {why}: the whole image was" in capsys.readouterr().out


def test_exif_turns_the_image(tmp_path):
    image = Image.fromarray(np.full((60, 90, 3), 99, np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    cascade = FakeCascade()
    content = run(tmp_path / "turned.jpg", tmp_path / "out", cascade=cascade)
    assert cascade.seen[0][0].shape == (90, 60, 3)
    assert content["images"][0]["width"] == 60
    assert cv2.imread(str(tmp_path / "out" / "turned.jpg.pose.png")).shape[:2] == (
        90,
        60,
    )


def test_what_cannot_be_read_is_reported_and_passed_over(photos, tmp_path, capsys):
    (photos / "0.jpg").write_bytes(b"")
    (photos / "1.jpg").write_bytes((photos / "a.jpg").read_bytes()[:400])
    (photos / "2.mp4").write_bytes(b"no video")
    content = run(photos, tmp_path / "out")
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.PNG"]
    reasons = {file["file_name"]: file["reason"] for file in content["unreadable"]}
    assert list(reasons) == ["0.jpg", "1.jpg", "2.mp4"]
    assert "empty" in reasons["0.jpg"] and str(photos / "0.jpg") in reasons["0.jpg"]
    assert "not a video" in reasons["2.mp4"]
    assert predict.report(content, "full") == 3
    assert "passed over: " in capsys.readouterr().out
    assert not (tmp_path / "out" / "2.mp4.pose.mp4").exists()


@pytest.mark.parametrize("extra", ["film", "nothing"])
def test_a_video_gives_poses_by_frame_and_a_film(tmp_path, extra, monkeypatch, capfd):
    """Browsers and notebooks did not play the films, which were MPEG-4 part 2."""
    if extra == "film":
        pytest.importorskip("imageio_ffmpeg")
    else:
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    write_video(tmp_path / "clip.mp4", frames=5)
    content = run(tmp_path / "clip.mp4", tmp_path / "out")
    assert [image["frame"] for image in content["images"]] == [0, 1, 2, 3, 4]
    assert content["images"][2]["seconds"] == 2 / 12.5
    assert content["images"][2]["file_name"] == "clip.mp4"
    assert len(content["annotations"]) == 5
    output = tmp_path / "out"
    assert sorted(path.name for path in output.iterdir()) == [
        *("clip.mp4.pose.mp4", "predictions.json")
    ]
    is_h264 = b"avc1" in (output / "clip.mp4.pose.mp4").read_bytes()
    printed = capfd.readouterr()
    assert is_h264 != ("pip install 'deeppose-tf[film]'" in printed.out)
    assert is_h264 or extra == "nothing"  # where OpenCV alone may have it, or not
    predict.report(content, "full")
    assert "5 poses on 5 frames\n" in capfd.readouterr().out
    assert not printed.err  # OpenCV and FFmpeg complained about what they cannot do
    with media.open_film(str(output / "clip.mp4.pose.mp4")) as film:
        assert film.rate == 12.5
        frames = [frame for _, frame in film.frames()]
    assert len(frames) == 5 and frames[0].shape == (60, 90, 3)
    # The third frame is grey 80, but where the pose is: the right ankle, the first
    # joint and blue, in the middle of the box.
    assert np.abs(frames[2][5, 5].astype(int) - 80).max() < 12
    red, _, blue = frames[2][30, 45].astype(int)
    assert blue > red + 60


def test_a_video_is_written_whole_or_not_at_all(tmp_path):
    target = tmp_path / "out.mp4"
    with pytest.raises(RuntimeError, match="in the middle"):
        with media.film_writer(target, 10) as write:
            write(np.zeros((40, 40, 3), np.uint8))
            raise RuntimeError("in the middle")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="cannot write a frame of 41 x 40"):
        with media.film_writer(target, 10) as write:
            write(np.zeros((40, 40, 3), np.uint8))
            write(np.zeros((40, 41, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("extra", ["film", "nothing"])
def test_a_film_that_cannot_be_written_whole_is_an_error(tmp_path, extra, monkeypatch):
    """A disk that was full left half a film and no word, or FFmpeg's command line."""
    if extra == "nothing":
        monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setattr(media, "_count", lambda capture: 2)
    with pytest.raises(OSError, match="out.mp4: the film cannot be .* disk full"):
        with media.film_writer(tmp_path / "out.mp4", 10) as write:
            for _ in range(3):
                write(np.zeros((40, 40, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_odd_sizes_become_even_and_nothing_moves(tmp_path):
    """H.264 has even sizes, to which FFmpeg would stretch the frame."""
    frame = np.zeros((61, 91, 3), np.uint8)
    frame[40:44, 70:74] = 255
    with media.film_writer(tmp_path / "out.mp4", 30000 / 1001) as write:
        for _ in range(3):
            write(frame)
    with media.open_film(str(tmp_path / "out.mp4")) as film:
        assert film.rate == pytest.approx(29.97, abs=0.001)
        frames = [frame for _, frame in film.frames()]
    assert len(frames) == 3 and frames[0].shape == (62, 92, 3)
    y, x = np.nonzero(frames[1][..., 0] > 128)
    assert (y.min(), y.max(), x.min(), x.max()) == (40, 43, 70, 73)


def test_a_broken_video_leaves_no_people_behind(photos, tmp_path, monkeypatch):
    write_video(photos / "clip.mp4", frames=3)
    frames = media.Film.frames

    def breaking(film):
        yield next(frames(film))
        raise ValueError("broken in the middle")

    monkeypatch.setattr(media.Film, "frames", breaking)
    content = run(photos, tmp_path / "out")
    assert [image["file_name"] for image in content["images"]] == ["a.jpg", "b.PNG"]
    assert len(content["annotations"]) == 2
    assert content["unreadable"][0]["reason"] == "broken in the middle"


def test_nothing_of_others_is_overwritten_in_silence(photos, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "a.jpg.pose.png").write_text("mine")
    with pytest.raises(ValueError, match=r"a.jpg.pose.png: .*--overwrite"):
        run(photos, output)
    assert [path.name for path in output.iterdir()] == ["a.jpg.pose.png"]
    assert (output / "a.jpg.pose.png").read_text() == "mine"
    run(photos, output, overwrite=True)
    assert (output / "a.jpg.pose.png").stat().st_size > 100
    # The same command again keeps what it wrote; another one replaces nothing.
    run(photos, output)
    before = (output / "predictions.json").read_bytes()
    with pytest.raises(ValueError, match="predictions.json and 2 more: there already"):
        run(photos, output, settings={"model": "another"})
    assert (output / "predictions.json").read_bytes() == before


class Killed(FakeCascade):
    """Is stopped after so many images."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def predict(self, image, boxes, trace=True):
        if len(self.seen) == self.after:
            raise KeyboardInterrupt
        return super().predict(image, boxes, trace)


def test_a_stopped_run_goes_on(photos, tmp_path):
    """601 photos were begun anew."""
    write_video(photos / "clip.mp4", frames=5)
    whole = run(photos, tmp_path / "whole")
    # Photos a and b, then five frames: stopped in the second and in the fourth frame.
    for after, kept in ((1, 1), (2, 3), (2, 5)):
        with pytest.raises(KeyboardInterrupt):
            run(photos, tmp_path / "out", cascade=Killed(after))
        assert saved(tmp_path / "out")["finished"] is False
        assert len(saved(tmp_path / "out")["annotations"]) == kept
    cascade = FakeCascade()
    content = run(photos, tmp_path / "out", cascade=cascade)
    assert len(cascade.seen) == 2 and content == whole == saved(tmp_path / "out")
    with media.open_film(str(tmp_path / "out" / "clip.mp4.pose.mp4")) as film:
        frames = [frame for _, frame in film.frames()]
    with media.open_film(str(tmp_path / "whole" / "clip.mp4.pose.mp4")) as film:
        for frame, (_, expected) in zip(frames, film.frames(), strict=True):
            np.testing.assert_array_equal(frame, expected)
    again = FakeCascade()
    assert run(photos, tmp_path / "out", cascade=again) == whole and not again.seen


def test_a_kill_costs_what_little_came_after_the_last_writing(photos, tmp_path):
    """Nothing was there before the end, whatever had been predicted."""
    for i in range(40):
        cv2.imwrite(str(photos / f"c{i}.png"), np.zeros((9, 9, 3), np.uint8))
    seen = []

    class Slow(FakeCascade):
        def predict(self, image, boxes):
            time.sleep(0.02)
            seen.append(len(saved(tmp_path / "out")["images"]))
            return super().predict(image, boxes)

    run(photos, tmp_path / "out", cascade=Slow(), overlays=False)
    assert seen[0] == 0 and seen[-1] > 0


def test_kills_leave_nothing_behind(photos, tmp_path):
    """Whatever is under way when the process is killed goes with the next run."""
    output = tmp_path / "out"
    output.mkdir()
    for name in (
        *(".predictions.json.partial", ".a.jpg.pose.png.partial"),
        *(".clip.mp4.pose.mp4.partial.mp4", ".mine.partial"),
    ):
        (output / name).write_text("half")
    run(photos, output)
    assert sorted(path.name for path in output.iterdir()) == [
        *(".mine.partial", "a.jpg.pose.png", "b.PNG.pose.png", "predictions.json")
    ]


def test_photos_are_added(photos, tmp_path):
    """A second photo was refused."""
    output, names = tmp_path / "out", ["a.jpg", "b.PNG"]
    for name in names:
        cascade = FakeCascade()
        content = run(photos / name, output, cascade=cascade)
        assert len(cascade.seen) == 1
    assert [image["file_name"] for image in content["images"]] == names
    assert [image["id"] for image in content["images"]] == [1, 2]
    assert [person["image_id"] for person in content["annotations"]] == [1, 2]
    # Of a photo that was changed the old poses go.
    cv2.imwrite(str(photos / "a.jpg"), np.zeros((30, 40, 3), np.uint8))
    content = run(photos, output)
    assert [image["width"] for image in content["images"]] == [90, 40]
    assert len(content["annotations"]) == 2
    # Another photo of the same name replaces nothing.
    cv2.imwrite(str(photos / "below" / "a.jpg"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="photos/a.jpg, of the same name.*--overwrite"):
        run(photos / "below", output)
    content = run(photos / "below", output, overwrite=True)
    assert [image["width"] for image in content["images"]] == [90, 9]


def test_poses_depend_on_more_than_the_photo(photos, tmp_path):
    model = tmp_path / "weights"
    model.write_text("1")
    for content, seen in (("1", 2), ("1", 0), ("two", 2)):
        if model.read_text() != content:
            model.write_text(content)
        cascade = FakeCascade()
        run(photos, tmp_path / "out", cascade=cascade, made_with=[str(model)])
        assert len(cascade.seen) == seen


def test_overlays_are_drawn_later_without_looking_again(photos, tmp_path):
    run(photos, tmp_path / "out", overlays=False)
    cascade = FakeCascade()
    run(photos, tmp_path / "out", cascade=cascade)
    run(photos, tmp_path / "whole")
    assert not cascade.seen
    for name in ("a.jpg.pose.png", "b.PNG.pose.png"):
        later, once = (
            (tmp_path / folder / name).read_bytes() for folder in ("out", "whole")
        )
        assert later == once


def test_results_that_were_changed_are_not_believed(photos, tmp_path):
    output = tmp_path / "out"
    whole = run(photos, output, overlays=False)
    text = (output / "predictions.json").read_text()
    for old, new in (
        ('"bbox": [0.0,', '"bbox": [1.0,'),
        ('"width": 90', '"width": 91'),
        ('"a.jpg", "width"', '"c.jpg", "width"'),
        ('"files": {"a.jpg"', '"files": {"c.jpg"'),
    ):
        assert old in text
        (output / "predictions.json").write_text(text.replace(old, new, 1))
        cascade = FakeCascade()
        content = run(photos, output, cascade=cascade, overlays=False)
        assert len(cascade.seen) == 1
        for part in ("images", "annotations"):
            assert len(content[part]) == len(whole[part]) == 2
        assert {i["file_name"] for i in content["images"]} == {"a.jpg", "b.PNG"}


def test_long_names(photos, tmp_path):
    """Nobody's poses were kept where one overlay could not be written."""
    names = ["n" * 230 + ".jpg", "m" * 250 + ".jpg"]
    for name in names:
        (photos / name).write_bytes((photos / "a.jpg").read_bytes())
    write_video(photos / "clip.mp4", frames=2)
    (photos / "clip.mp4").rename(photos / ("f" * 230 + ".mp4"))
    content = run(photos, tmp_path / "out")
    assert len(content["images"]) == 5 and content["finished"]
    assert (tmp_path / "out" / f"{names[0]}.pose.png").exists()
    (unwritten,) = content["unreadable"]
    assert unwritten["file_name"] == names[1] and "too long" in unwritten["reason"]
    assert predict.report(content, "full") == 1


def test_a_full_disk_stops_the_run(photos, tmp_path, monkeypatch):
    def full(path, image):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(draw, "write_image", full)
    with pytest.raises(OSError, match="No space left .*a.jpg.pose.png"):
        run(photos, tmp_path / "out")
    monkeypatch.undo()
    assert len(run(photos, tmp_path / "out")["annotations"]) == 2


def test_two_runs_do_not_write_into_one_folder(photos, tmp_path):
    (tmp_path / "out").mkdir()
    with files.alone(tmp_path / "out", "deeppose-predict"):
        with pytest.raises(ValueError, match="another deeppose-predict is writing"):
            run(photos, tmp_path / "out")


def test_a_finished_run_writes_nothing(photos, tmp_path):
    """It wrote its results again, and was refused where another was looking, too."""
    output = tmp_path / "out"
    content, written = run(photos, output), (output / "predictions.json").stat()
    with files.alone(output, "deeppose-predict"):
        assert run(photos, output) == content
    assert (output / "predictions.json").stat().st_ino == written.st_ino
    # Stopped after the last photo, before it was said to be the last.
    files.write_json(output / "predictions.json", content | {"finished": False})
    assert run(photos, output) == content == saved(output)


def test_photos_of_phones_and_other_programs(tmp_path, capsys):
    """Five of these six were passed over without a word."""
    photos = tmp_path / "photos"
    photos.mkdir()
    image = Image.fromarray(np.full((60, 90, 3), 99, np.uint8))
    image.save(photos / "0", "JPEG")  # as browsers store some
    for name in ("1.gif", "2.jfif", "3.jp2", "4.jpe"):
        image.save(photos / name)
    read = ["0", "1.gif", "2.jfif", "3.jp2", "4.jpe"]
    if features.check("avif"):
        image.save(photos / "5.AVIF")
        read.append("5.AVIF")
    (photos / "6.heic").write_bytes(b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(99))
    (photos / "7.jpg").write_bytes((photos / "6.heic").read_bytes())
    (photos / "8.jxl").write_bytes(b"\xff\x0a" + bytes(99))
    image.save(photos / "9.nef", "TIFF")  # a thumbnail, as Pillow reads them
    (photos / "notes.txt").write_text("no photo")
    (photos / "below").mkdir()
    content = run(photos, tmp_path / "out")
    assert "no photo or film: " in (printed := capsys.readouterr().out)
    assert "photos/below, " in printed and "photos/notes.txt\n" in printed
    assert [image["file_name"] for image in content["images"]] == read
    reasons = {file["file_name"]: file["reason"] for file in content["unreadable"]}
    assert list(reasons) == ["6.heic", "7.jpg", "8.jxl", "9.nef"]
    for name, reason in (
        *(("6.heic", "pillow-heif"), ("7.jpg", "pillow-heif")),
        *(("8.jxl", "JPEG XL"), ("9.nef", "rawpy")),
    ):
        assert reason in reasons[name]
    assert predict.report(content, "full") == 4


def test_heic_is_read_with_its_package(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    image = Image.fromarray(np.full((64, 96, 3), 99, np.uint8))
    heif.from_pillow(image).save(tmp_path / "a.heic")
    content = run(tmp_path / "a.heic", tmp_path / "out")
    assert content["images"][0]["width"] == 96


def test_large_photos(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((60, 90, 3), np.uint8))
    content = run(tmp_path / "a.png", tmp_path / "out", max_pixels=5399)
    assert (
        "90 x 60 is more than 5399 pixels, see --max_pixels"
        in (content["unreadable"][0]["reason"])
    )
    content = run(tmp_path / "a.png", tmp_path / "out", max_pixels=5400)
    assert len(content["images"]) == 1 and not content["unreadable"]


def test_a_film_that_breaks_off_says_so(tmp_path, capsys):
    """Frames that were missing at the end were no news."""
    pytest.importorskip("imageio_ffmpeg")  # its films begin with their number of frames
    path = tmp_path / "clip.mp4"
    noise = np.random.default_rng(0)
    with media.film_writer(path, 10) as write:
        for _ in range(40):
            write(noise.integers(0, 255, (60, 90, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    content = run(path, tmp_path / "out")
    count = len(content["images"])
    assert 5 < count < 35
    said = f"clip.mp4 breaks off: {count} of 40 frames can be read"
    assert said in content["unreadable"][0]["reason"]
    assert predict.report(content, "full") == 1 and said in capsys.readouterr().out
    with media.open_film(str(tmp_path / "out" / "clip.mp4.pose.mp4")) as film:
        assert len(list(film.frames())) == count
    # It is kept as far as it goes.
    assert run(path, tmp_path / "out", cascade=Killed(0)) == content


def test_times_are_those_of_the_film(tmp_path):
    """Phones film at rates that vary: here 0.1 s apart, then 1 s."""
    ffmpeg = pytest.importorskip("imageio_ffmpeg").get_ffmpeg_exe()
    write_video(tmp_path / "even.mp4", frames=8, rate=10)
    times = "setpts='if(lt(N,4),N/10,(N-4)+4/10)/TB'"
    out = [*("-vf", times, "-fps_mode", "vfr"), str(tmp_path / "clip.mp4")]
    subprocess.run(
        [ffmpeg, "-v", "error", "-i", str(tmp_path / "even.mp4"), *out], check=True
    )
    content = run(tmp_path / "clip.mp4", tmp_path / "out")
    seconds = [image["seconds"] for image in content["images"]]
    np.testing.assert_allclose(seconds, [0, 0.1, 0.2, 0.3, 0.4, 1.4, 2.4, 3.4])
    assert not content["unreadable"]


def test_films_without_time_stamps():
    class Capture:
        left = 3

        def read(self):
            self.left -= 1
            return self.left >= 0, np.zeros((4, 4, 3), np.uint8)

        def get(self, name):
            return 0.0

    film = media.Film("clip", Capture(), rate=4.0, count=3)
    assert [seconds for seconds, _ in film.frames()] == [0, 0.25, 0.5]
    assert film.broken == ""


def test_inputs_are_found(photos, tmp_path):
    def names(source):
        return [file.name for file in media.find_files(str(source))]

    assert names(photos) == ["a.jpg", "b.PNG"]
    assert names(photos / "a.jpg") == ["a.jpg"]
    assert names(photos / "*.jpg") == ["a.jpg"]
    cv2.imwrite(str(photos / "below" / "a.jpg"), np.zeros((9, 9, 3), np.uint8))
    cv2.imwrite(str(photos / "a.jpg.pose.png"), np.zeros((9, 9, 3), np.uint8))
    assert names(photos) == ["a.jpg", "b.PNG"]  # our own drawings are no input
    assert names(photos / "**" / "*.jpg") == ["a.jpg", "below/a.jpg"]
    overlays = [file.overlay for file in media.find_files(str(photos / "**/*.jpg"))]
    assert overlays == ["a.jpg.pose.png", "below/a.jpg.pose.png"]
    run(photos / "**" / "*.jpg", tmp_path / "out")
    assert (tmp_path / "out" / "below" / "a.jpg.pose.png").exists()
    cv2.imwrite(str(photos / "odd[1].jpg"), np.zeros((9, 9, 3), np.uint8))
    assert names(photos / "odd[1].jpg") == ["odd[1].jpg"]
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")  # whose reader would wait without end
    none = tmp_path / "empty", tmp_path / "nothing.jpg", photos / "*.gif"
    for source in (*none, tmp_path / "pipe.mp4"):
        with pytest.raises(ValueError, match="no image or video there"):
            media.find_files(str(source))


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    """A run of two small untrained stages."""
    folder = tmp_path_factory.mktemp("run")
    toy_run.save_run(folder, LSP)
    return folder


def test_the_script_with_a_real_cascade(tiny_run, photos, tmp_path, capsys):
    output = tmp_path / "out"
    boxes = tmp_path / "boxes.json"
    boxes.write_text('{"a.jpg": [[10, 10, 50, 50], [500, 5, 600, 50]], "b.PNG": []}')
    common = [f"--model={tiny_run}", f"--output={output}"]
    toy_run.call(SCRIPT, *common, f"--input={photos}", f"--boxes={boxes}")
    content = saved(output)
    assert len(content["annotations"]) == 2
    keypoints = np.array(content["annotations"][0]["keypoints"])
    assert np.isfinite(keypoints).all() and len(keypoints) == 3 * 14
    assert len(content["annotations"][0]["keypoints_by_stage"]) == 2
    assert "2 people on 2 images" in capsys.readouterr().out
    with pytest.MonkeyPatch.context() as patch:  # it took seconds to say so
        patch.setattr("deeppose_tf.cascade.Cascade.load", None)
        toy_run.call(SCRIPT, *common, f"--input={photos}", f"--boxes={boxes}")
    told = capsys.readouterr().out
    assert "2 of 2 files were done before" in told and "2 people on 2 images" in told
    assert saved(output) == content
    (output / "a.jpg.pose.png").unlink()
    toy_run.call(SCRIPT, *common, f"--input={photos}", f"--boxes={boxes}")
    assert (output / "a.jpg.pose.png").exists()
    assert "1 of 2 files were done before" in capsys.readouterr().out
    flipped = [*common, f"--input={photos}", f"--boxes={boxes}", "--flip_test"]
    with pytest.raises(ValueError, match="there already, and of another run"):
        toy_run.call(SCRIPT, *flipped)
    flipped.append(f"--output={tmp_path / 'flipped'}")
    toy_run.call(SCRIPT, *flipped)
    other = saved(tmp_path / "flipped")
    assert other["info"]["settings"]["flip_test"] is True
    assert other["annotations"][0]["keypoints"] != keypoints.tolist()
    (photos / "a.jpg").write_bytes(b"broken")
    with pytest.raises(SystemExit) as stopped:
        toy_run.call(SCRIPT, *common, f"--input={photos}", f"--boxes={boxes}")
    assert stopped.value.code == 1
    assert "passed over" in capsys.readouterr().out
    assert len(saved(output)["annotations"]) == 0


def test_the_script_names_what_is_wrong_with_its_flags(tiny_run, photos, tmp_path):
    common = [f"--input={photos}", f"--output={tmp_path / 'out'}"]
    with pytest.raises(ValueError, match="has no cascade.json"):
        toy_run.call(SCRIPT, *common, f"--model={photos}")
    with pytest.raises(ValueError, match="--boxes=fcae: not full, face, hog or people"):
        toy_run.call(SCRIPT, *common, f"--model={tiny_run}", "--boxes=fcae")
    with pytest.raises(ValueError, match="--detector is for --boxes=people"):
        toy_run.call(SCRIPT, *common, f"--model={tiny_run}", f"--detector={photos}")
    people = ["--boxes=people", "--detector=nothing.onnx"]
    with pytest.raises(ValueError, match="--detector=nothing.onnx: no such file"):
        toy_run.call(SCRIPT, *common, f"--model={tiny_run}", *people)
    with pytest.raises(ValueError, match="--enlargement=1,2: expected three"):
        face = ["--boxes=face", "--enlargement=1,2"]
        toy_run.call(SCRIPT, *common, f"--model={tiny_run}", *face)
    assert not pathlib.Path(tmp_path / "out").exists()
