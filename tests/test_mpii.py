"""MPII: the official file, written here as MATLAB would, and the usual JSON."""

import json

import numpy as np
import pytest
from toy_matlab import save, structs

from deeppose_tf.datasets import mpii
from deeppose_tf.skeleton import MPII

EMPTY = np.zeros((0, 0))


def person(**changes):
    """As in the JSON: joint k is at (k + 1, 2 k + 1), the first one is missing."""
    joints = [[k + 1, 2 * k + 1] for k in range(16)]
    return {
        "image": "1.jpg",
        "joints": joints,
        "joints_vis": [0] + [1] * 15,
        "center": [100.5, 80.5],
        "scale": 0.4,
    } | changes


def write(path, people):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(people))
    return str(path)


def struct(one):
    """A person of the JSON as in the official file, joint 5 occluded."""
    points = [
        {"x": x, "y": y, "id": k, "is_visible": 0 if k == 5 else 1}
        for k, (x, y) in enumerate(one["joints"])
        if one["joints_vis"][k]
    ]
    return {
        "x1": 3,
        "scale": one["scale"],
        "objpos": structs([dict(zip("xy", one["center"], strict=True))]),
        "annopoints": structs([{"point": structs(points)}]),
    }


def release(path, images):
    """Writes (name, for training, people) of images as the official file."""
    annolist = [
        {"image": structs([{"name": name}]), "annorect": structs(people)}
        for name, _, people in images
    ]
    marks = np.array([[train for _, train, _ in images]])
    value = {"annolist": structs(annolist), "img_train": marks, "version": "12"}
    save(path, "RELEASE", [value])


def test_real_json(shared_data):
    """Known answers: five people; the ankles of two are missing."""
    path = shared_data / "mmpose_samples" / "mpii" / "test_mpii.json"
    splits = mpii.read_splits(str(path))
    people = splits["train"]
    assert len(people) == 5 and not len(splits["test"])
    assert people.skeleton == MPII and not people.damaged
    assert people.labeled.sum(axis=1).tolist() == [16, 16, 14, 14, 16]
    assert people.ids[0] == "mpii/005808361-1"
    assert people.images[0] == str(path.parent / "005808361.jpg")
    # The right ankle of the first is at (804, 711), counted from one.
    np.testing.assert_allclose(people.keypoints[0, 0], (803.5, 710.5))
    # Its right wrist, index 10, and the left wrist, index 15.
    np.testing.assert_allclose(people.keypoints[0, [10, 15], 0], (868.5, 1141.5))
    for keypoints, labeled, box in zip(
        people.keypoints, people.labeled, people.boxes, strict=True
    ):
        assert (keypoints[labeled] > box[:2]).all()
        assert (keypoints[labeled] < box[2:]).all()


def test_json_labels_and_box(tmp_path):
    people = mpii.read_splits(write(tmp_path / "one.json", [person()]))["train"]
    np.testing.assert_array_equal(people.labeled[0], [False] + [True] * 15)
    np.testing.assert_allclose(people.keypoints[0, :2], [[0, 0], [1.5, 2.5]])
    # 200 * 0.4 = 80 px high, enlarged to 100, about (100, 80 + 15 * 0.4).
    np.testing.assert_allclose(people.boxes, [[50, 36, 150, 136]])


def test_json_folder(tmp_path):
    write(tmp_path / "annot" / "train.json", [person(), person()])
    write(tmp_path / "annot" / "valid.json", [person(image="2.jpg")])
    (tmp_path / "images").mkdir()
    splits = mpii.read_splits(str(tmp_path))
    assert splits["train"].ids == ("mpii/1-1", "mpii/1-2")
    assert splits["test"].images == (str(tmp_path / "images" / "2.jpg"),)


def test_official_file_says_the_same_as_the_json(tmp_path):
    """Two people on an image, one on another, one without labels; a test image."""
    people = [person(), person(scale=0.5), person(image="2.jpg")]
    blank = struct(people[0]) | {"annopoints": EMPTY}
    release(
        tmp_path / mpii.OFFICIAL,
        [
            ("1.jpg", 1, [struct(people[0]), struct(people[1])]),
            ("2.jpg", 1, [struct(people[2]), blank]),
            ("3.jpg", 0, [{"x1": 4}]),
            ("4.jpg", 1, []),
        ],
    )
    splits = mpii.read_splits(str(tmp_path))
    official = splits["train"]
    expected = mpii.read_splits(write(tmp_path / "x.json", people))["train"]
    assert official.ids == expected.ids == ("mpii/1-1", "mpii/1-2", "mpii/2-1")
    assert official.images == expected.images
    for name in ("keypoints", "labeled", "boxes"):
        np.testing.assert_array_equal(getattr(official, name), getattr(expected, name))
    assert [reason for _, reason in official.skipped] == ["no joint is labeled"]
    assert not len(splits["test"]) and not splits["test"].skipped


def test_people_without_a_scale(tmp_path):
    """Alone the whole image is the box; of several it is not known who is meant."""
    lost = {"center": [-1, -1], "scale": -1}
    people = [person(**lost), person(image="2.jpg", **lost), person(image="2.jpg")]
    read = mpii.read_splits(write(tmp_path / "x.json", people))["train"]
    assert read.ids == ("mpii/1-1", "mpii/2-2")
    assert not read.boxes[0].any()
    assert "not alone on its image" in read.skipped[0][1]
    rectangle = struct(person()) | {"scale": EMPTY, "objpos": EMPTY}
    release(tmp_path / mpii.OFFICIAL, [("1.jpg", 1, [rectangle])])
    assert not mpii.read_splits(str(tmp_path))["train"].boxes.any()


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"image": None}, "its 'image' names no file"),
        (
            {"joints": [[1, 2]] * 15},
            r"'joints' has shape \(15, 2\), expected \(16, 2\)",
        ),
        ({"joints": [["a", "b"]] * 16}, "not all numbers"),
        ({"center": 3}, "'center' has shape"),
    ],
)
def test_what_is_wrong_with_one_person_is_told(tmp_path, changes, says):
    path = write(tmp_path / "x.json", [person(), person(**changes)])
    people = mpii.read_splits(path)["train"]
    assert len(people) == 1
    ((who, reason),) = people.damaged
    assert who == f"{path}: person 2"
    with pytest.raises(ValueError, match=says):
        raise ValueError(reason)


def test_files_of_another_form(tmp_path):
    with pytest.raises(ValueError, match="has nothing to read, expected one of mpii_h"):
        mpii.read_splits(str(tmp_path))
    path = write(tmp_path / "train.json", {"images": [], "annotations": []})
    with pytest.raises(ValueError, match="train.json: not a list .* read it as coco"):
        mpii.read_splits(path)
    release(tmp_path / mpii.OFFICIAL, [("1.jpg", 1, []), ("2.jpg", 0, [{"x1": 4}])])
    with pytest.raises(ValueError, match=r"has mpii_human.*\.mat and train.json, expe"):
        mpii.read_splits(str(tmp_path))
    (tmp_path / "train.json").unlink()
    with pytest.raises(ValueError, match="nobody is annotated on its 1 images for tr"):
        mpii.read_splits(str(tmp_path))
    one = struct(person())
    one["annopoints"][0, 0]["point"][0, 3]["id"] = 16
    release(tmp_path / mpii.OFFICIAL, [("0.jpg", 1, []), ("1.jpg", 1, [one])])
    with pytest.raises(ValueError, match="image 2 of 'annolist' is not of the offic"):
        mpii.read_splits(str(tmp_path))
