"""First boxes of prepared data: what they are made of, and what is said of them."""

import dataclasses
import json
import math
import os
import re
import types

import numpy as np
import pytest
from toy_film import flic_data

from deeppose_tf import detect, files
from deeppose_tf.datasets import Annotations, flic, merge
from deeppose_tf.pipelines.data import first_boxes, records
from deeppose_tf.pipelines.data.prepare import prepare
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.evaluation import scores
from deeppose_tf.skeleton import from_json

ENDS = from_json(
    {
        "name": "ends",
        "joints": ["foot", "chin", "hair"],
        "limbs": [{"name": "head", "start": ["chin"], "end": ["hair"]}],
    }
)


def people(keypoints, torsos=None, boxes=None, name="a", labeled=None):
    """People of three joints: foot, chin and hair."""
    keypoints = np.array(keypoints, np.float32).reshape(-1, 3, 2)
    n = len(keypoints)
    return Annotations(
        ENDS,
        tuple(f"{name}{i}.png" for i in range(n)),
        keypoints,
        np.ones((n, 3), bool) if labeled is None else labeled,
        np.zeros((n, 4), np.float32) if boxes is None else np.array(boxes, np.float32),
        tuple(f"toy/{name}{i}" for i in range(n)),
        torsos=None if torsos is None else np.array(torsos, np.float32),
    )


def standing(x):
    """Chin and hair at (x, 20) and (x, 10), the foot at (x + 6, 100)."""
    return [(x + 6, 100), (x, 20), (x, 10)]


@pytest.fixture
def seen(monkeypatch):
    """Faces by image instead of detected ones: box and number."""

    def install(found):
        asked = []

        def likeliest(image, torso):
            asked.append(image)
            box, number = found.get(image, ((0, 0, 0, 0), 0))
            return np.array(box, np.float32), number

        monkeypatch.setattr(detect, "likeliest_face", likeliest)
        monkeypatch.setattr(first_boxes.images, "read_image", lambda path, _: path)
        return asked

    return install


def test_a_face_box_contains_the_labels_of_the_training_people(seen):
    """Both faces are 10 wide about (50, 15): 0.6 widths to the side, 8.5 down to the
    foot, 0.5 up. The third face is nobody's of the labeled, and not fitted on."""
    face = (45, 10, 55, 20)
    seen({"a0.png": (face, 1), "a1.png": (face, 3), "a2.png": (face, 1)})
    train = people([standing(50), standing(50), standing(90)])
    test = people([standing(50)], name="b")
    splits, said = first_boxes.choose({"train": train, "test": test}, ("face",))
    assert said["enlargements"]["face"] == pytest.approx([0.6, 0.5, 8.5])
    np.testing.assert_allclose(splits["train"].boxes[0], [44, 10, 56, 100])
    assert not splits["test"].boxes.any()
    assert said["splits"] == {
        # The third person's three joints are all outside.
        "train": {
            "face": 3,
            "no face": 0,
            "several faces": 1,
            "joints inside": pytest.approx(6 / 9),
        },
        "test": {
            "full": 1,
            "no face": 1,
            "several faces": 0,
            "joints inside": None,
        },
    }


def test_kinds_in_order_of_preference(seen):
    """One has a face, one a torso, one the box of the data set, one nothing."""
    seen({"a0.png": ((45, 10, 55, 20), 1)})
    torsos = [[40, 30, 60, 60]] * 2 + [[0] * 4] * 2
    boxes = [[0, 0, 0, 0]] * 2 + [[1, 2, 99, 98], [0] * 4]
    train = people([standing(50)] * 4, torsos, boxes)
    given = {"face": (1.0, 1.0, 1.0), "torso": (1.0, 2.0, 3.0)}
    splits, said = first_boxes.choose(
        {"train": train}, ("face", "torso", "own"), given=given
    )
    np.testing.assert_allclose(
        splits["train"].boxes,
        [[40, 5, 60, 25], [30, 5, 70, 105], [1, 2, 99, 98], [0, 0, 0, 0]],
    )
    counts = {k: said["splits"]["train"][k] for k in ("face", "torso", "own", "full")}
    assert set(counts.values()) == {1}
    assert said["enlargements"] == {"face": [1, 1, 1], "torso": [1, 2, 3]}
    text = first_boxes.describe({"first_boxes": said}, "train")
    assert text.count("(1 person)") == 4 and "the whole image (1 person)" in text
    assert first_boxes.describe({"first_boxes": said}, "train", 4) == text
    some = first_boxes.describe({"first_boxes": said}, "train", 3)
    assert some.count("(1 of the 4 people of the split)") == 4


def test_who_has_several_faces_is_said():
    splits = {"test": {"face": 7, "no face": 0, "several faces": 2}}
    provenance = {"first_boxes": {"splits": splits}}
    text = first_boxes.describe(provenance, "test")
    assert text.endswith("enlarged (7 people); of the faces, 2 were one of several")
    text = first_boxes.describe(provenance, "test", 5)
    assert text.endswith("of the faces, 2 were one of several")


def test_boxes_of_the_labels_themselves():
    """A person with one labeled joint has no box."""
    labeled = np.array([[True] * 3, [True, False, False]])
    train = people([standing(50)] * 2, labeled=labeled)
    splits, said = first_boxes.choose({"train": train}, ("truth",))
    np.testing.assert_allclose(splits["train"].boxes, [[50, 10, 56, 100], [0] * 4])
    assert said["splits"]["train"] == {"full": 1, "truth": 1, "joints inside": 1.0}
    splits, said = first_boxes.choose({"train": train}, ("full", "truth"))
    assert said["splits"]["train"] == {"full": 2, "joints inside": None}


def test_copies_of_a_person_are_looked_at_once(seen):
    asked = seen({"a0.png": ((45, 10, 55, 20), 1)})
    train = people([standing(50)])
    done = []
    both = {"train": train, "test": dataclasses.replace(train, ids=("toy/b0",))}
    first_boxes.choose(both, ("face",), progress=done.append)
    assert asked == ["a0.png"] and done == [2]


def test_nobody_to_fit_on(seen):
    seen({})
    train = people([standing(50)])
    test = people([standing(50)], [[40, 30, 60, 60]], name="b")
    both = {"train": train, "test": test}
    for kind in ("face", "torso"):
        with pytest.raises(
            ValueError, match=f"--boxes={kind}: no training .*boxes_from"
        ):
            first_boxes.choose(both, (kind,))
    with pytest.raises(ValueError, match="torso: the data set comes without torso bo"):
        first_boxes.choose({"train": train}, ("torso",), given={"torso": (1, 1, 1)})
    with pytest.raises(ValueError, match="--boxes=hat: expected some of own, full"):
        first_boxes.require_known(["face", "hat"])
    with pytest.raises(ValueError, match="--boxes_from and --coverage are for --boxes"):
        first_boxes.require_known(["own"], coverage=0.9)
    with pytest.raises(ValueError, match="--boxes=full,face: full, the whole image"):
        first_boxes.require_known(["full", "face"])
    first_boxes.require_known(["torso", "face", "full"])


def test_enlargements_that_other_data_has_not(tmp_path):
    """They would be fitted on people whom a model of that data has never seen so."""
    other = prepare(**flic_data(tmp_path, boxes=("torso",))).directory
    assert list(first_boxes.require_known(["torso", "own"], other)) == ["torso"]
    with pytest.raises(ValueError, match="--boxes=face: --boxes_from has torso"):
        first_boxes.require_known(["torso", "face"], other)
    with pytest.raises(ValueError, match="--coverage is for what is fitted"):
        prepare(**flic_data(tmp_path, boxes_from=str(tmp_path)))


def test_prepared_boxes_are_stored_said_and_taken_elsewhere(tmp_path, monkeypatch):
    """Everyone's face is 20 wide about (19.5, 34.5), as their torso. Their joints are
    at (c + 0.5, number + 0.5), the farthest 71 px to the right."""
    monkeypatch.setattr(first_boxes, "_is_own", lambda found, people: found[:, 0] > 0)
    monkeypatch.setattr(detect, "likeliest_face", lambda image, torso: (torso, 2))
    index = prepare(**flic_data(tmp_path))
    assert index.counts == {"train": 3, "validation": 1, "test": 1}
    said = index.provenance["first_boxes"]
    assert said["kinds"] == ["face", "torso"] and said["coverage"] == 0.99
    side, up, down = said["enlargements"]["face"]
    # The left hip at 91 from one: 90.5 - 19.5 in widths of 20; nobody is below.
    assert side == pytest.approx(71 / 20) and down < 0 < up
    people = read_people(index, "test")
    width = 2 * 20 * side
    np.testing.assert_allclose(
        people.boxes[:, 2] - people.boxes[:, 0], width, rtol=1e-5
    )
    assert "detected above" in scores.protocol(index, "test", people)["first_box"]


@pytest.mark.parametrize(
    ("provenance", "how", "says"),
    [
        ({"arguments": {"dataset": ["coco"]}}, "full", "--boxes=people, or boxes in a"),
        ({"arguments": {"dataset": ["coco"]}}, "hog", None),
        ({"arguments": {"dataset": ["lsp", "lspet"]}}, "full", None),
        ({"arguments": {"dataset": ["lsp"]}}, "face", "--boxes=full is what it knows"),
        ({"arguments": {"dataset": ["lsp", "coco"]}}, "full", None),  # who knows
        ({"first_boxes": {"splits": {"train": {"face": 9, "full": 3}}}}, "hog", None),
        (
            {"first_boxes": {"splits": {"train": {"face": 9, "full": 3}}}},
            *("full", "a face, detected .*: --boxes=face, or"),
        ),
        (
            {"first_boxes": {"splits": {"train": {"face": 3, "full": 9}}}},
            *("boxes.json", "--boxes=boxes.json is for several people on a photo"),
        ),
        ({}, "full", None),
    ],
)
def test_boxes_of_another_kind_than_the_model_s(provenance, how, says):
    """Tight boxes for a model of whole images, or the reverse, gave wrong poses without
    a word."""
    training = {"data": {"provenance": provenance}}
    model = types.SimpleNamespace(stages=[types.SimpleNamespace(training=training)])
    said = first_boxes.mismatch(model, how)
    assert re.search(says, said) if says else said is None


def test_nothing_new_is_in_data_without_such_boxes(tmp_path):
    """So that data prepared before is known again."""
    index = prepare(**flic_data(tmp_path, boxes=(), coverage=None))
    assert "first_boxes" not in index.provenance
    assert (
        not {"boxes", "coverage", "boxes_from"} & index.provenance["arguments"].keys()
    )
    assert first_boxes.describe(index.provenance, "train") is None


def test_enlargements_of_data_and_of_a_model(tmp_path):
    index = prepare(**flic_data(tmp_path, boxes=("torso",)))
    found = first_boxes.read_enlargements(index.directory)
    assert list(found) == ["torso"] and len(found["torso"]) == 3
    training = {"data": {"counts": index.counts, "provenance": index.provenance}}
    (tmp_path / "run" / "stage_1").mkdir(parents=True)
    stage = tmp_path / "run" / "stage_1" / "stage.json"
    stage.write_text(json.dumps({"training": training}))
    assert first_boxes.read_enlargements(str(tmp_path / "run")) == found
    model = types.SimpleNamespace(stages=[types.SimpleNamespace(training=training)])
    assert first_boxes.of_model(model) == found
    other = prepare(
        **flic_data(
            tmp_path,
            boxes=("torso",),
            coverage=None,
            boxes_from=str(tmp_path / "run"),
            output=str(tmp_path / "other"),
        )
    )
    assert first_boxes.read_enlargements(other.directory) == found
    assert other.provenance["arguments"]["enlargements"] == {
        "torso": list(found["torso"])
    }
    assert read_people(other, "test").boxes.any()


@pytest.mark.parametrize(
    "make, says",
    [
        (lambda folder: None, "neither a finished data set nor a trained model"),
        (
            lambda folder: prepare(**flic_data(folder, boxes=(), coverage=None)),
            "made without --boxes=face or --boxes=torso",
        ),
    ],
)
def test_nothing_to_take_enlargements_from(tmp_path, make, says):
    make(tmp_path)
    with pytest.raises(ValueError, match=says):
        first_boxes.read_enlargements(str(tmp_path / "out"))


@pytest.fixture
def asked(monkeypatch):
    """The torsos of people whose face was looked for; the torso is said to be one.
    Whoever is in `asked.stop` gets Ctrl-C."""

    class Asked(list):
        stop = None

    asked = Asked()

    def likeliest(image, torso):
        if asked.stop == len(asked):
            raise KeyboardInterrupt
        asked.append(torso.tolist())
        return np.array(torso, np.float32), 1

    monkeypatch.setattr(detect, "likeliest_face", likeliest)
    monkeypatch.setattr(first_boxes.os, "cpu_count", lambda: 1)
    monkeypatch.setattr(first_boxes, "_is_own", lambda found, people: found[:, 0] > 0)
    return asked


def film(tmp_path):
    """Five people on as many images, and the folder that faces are kept in."""
    options = flic_data(tmp_path)
    people = merge(list(flic.read_splits(str(tmp_path)).values()))
    return people, records.partial_directory(options["output"])


def kept_faces(folder):
    return json.loads((folder / records.FACES).read_text())["faces"]


def test_a_stopped_run_goes_on_where_it_was(tmp_path, asked):
    options, whole = flic_data(tmp_path), tmp_path / "whole"
    asked.stop = 3
    with pytest.raises(KeyboardInterrupt):
        prepare(**options)
    assert len(asked) == 3
    asked.stop = None
    index = prepare(**options)
    assert len(asked) == 5
    assert not (tmp_path / "out" / records.FACES).exists()
    assert sorted(os.listdir(tmp_path)) == ["examples.mat", "images", "out"]
    # The same as of a run that was not stopped.
    whole.mkdir()
    again = prepare(**flic_data(whole))
    assert again.provenance["first_boxes"] == index.provenance["first_boxes"]
    assert len(asked) == 10


def test_a_kill_costs_little(tmp_path, asked, monkeypatch):
    """Written after everyone, as if looking took that long."""
    monkeypatch.setattr(files, "SAVE_SECONDS", -1.0)
    people, folder = film(tmp_path)
    seen = []

    def look(done):
        there = (folder / records.FACES).exists()
        seen.append((done, len(kept_faces(folder)) if there else 0))

    first_boxes.find_faces(people, folder, look)
    assert seen == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
    assert len(kept_faces(folder)) == 5


def test_faces_come_back_as_they_were(tmp_path, asked):
    people, folder = film(tmp_path)
    first, done = first_boxes.find_faces(people, folder), []
    again = first_boxes.find_faces(people, folder, done.append)
    assert len(asked) == 5 and done == [5]
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype


def test_whatever_a_face_depends_on_has_it_looked_for_again(tmp_path, asked):
    people, folder = film(tmp_path)
    first_boxes.find_faces(people, folder)
    os.utime(people.images[0], (1, 1))
    people.torsos[1] += 1
    first_boxes.find_faces(people, folder)
    assert len(asked) == 5 + 2


@pytest.mark.parametrize("spoil", ["damage", "nothing", "endless", "another version"])
def test_faces_that_do_not_count(tmp_path, asked, spoil, monkeypatch):
    people, folder = film(tmp_path)
    first_boxes.find_faces(people, folder)
    file = folder / records.FACES
    if spoil == "damage":
        file.write_bytes(file.read_bytes()[:-9])
    elif spoil == "nothing":
        file.write_text("[]")
    elif spoil == "endless":
        content = json.loads(file.read_text())
        faces = {key: [box, math.inf] for key, (box, _) in content["faces"].items()}
        file.write_text(json.dumps(content | {"faces": faces}))
    else:
        monkeypatch.setattr(first_boxes.cv2, "__version__", "0")
    first_boxes.find_faces(people, folder)
    assert len(asked) == 10


def test_real_faces_do_not_depend_on_threads(shared_data, monkeypatch):
    people = flic.read_splits(str(shared_data / "flic"))["test"].take(range(12))
    found = []
    for cores in (1, 3):
        monkeypatch.setattr(first_boxes.os, "cpu_count", lambda cores=cores: cores)
        found.append(first_boxes.find_faces(people))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])
    assert found[0][0].any(axis=1).sum() > 6
