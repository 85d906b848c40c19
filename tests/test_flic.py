"""FLIC: known counts of the real release, its conversion, and what broken files say."""

import collections
import re

import numpy as np
import pytest
import scipy.io
from toy_film import flic_example, flic_plus, make_flic
from toy_matlab import save

from deeppose_tf.datasets import flic
from deeppose_tf.skeleton import FLIC

LEFT, RIGHT = (FLIC.joints.index(f"{side}_shoulder") for side in ("left", "right"))


def test_real_flic(shared_data):
    """1979 and 867 people, 220 of them the second or third on one of 216 frames."""
    raw = scipy.io.loadmat(shared_data / "flic" / "examples.mat")["examples"][0]
    splits = flic.read_splits(str(shared_data / "flic"))
    train, test = splits["train"], splits["test"]
    assert (len(train), len(test)) == (1979, 867)
    frames = train.images + test.images
    assert len(set(frames)) == 2626 == len(frames) - 220
    assert sum(count > 1 for count in collections.Counter(frames).values()) == 216
    assert train.labeled.all() and test.labeled.all()
    # The first element is for training; columns 0 and 9: left shoulder, right hip.
    first = raw[0]["coords"]
    np.testing.assert_allclose(train.keypoints[0, 0], first[:, 0] - 0.5, rtol=1e-6)
    hip = FLIC.joints.index("right_hip")
    np.testing.assert_allclose(train.keypoints[0, hip], first[:, 9] - 0.5, rtol=1e-6)
    np.testing.assert_allclose(train.torsos[0], raw[0]["torsobox"][0] - 0.5, rtol=1e-6)
    assert not train.boxes.any() and train.skeleton == FLIC
    keypoints = np.concatenate([train.keypoints, test.keypoints])
    # Beyond the centres of the outermost pixels are ten joints of five people (one of
    # them by less than half a pixel), hips up to 45 px below the frame.
    outside = (keypoints < 0.5) | (keypoints > (431.5, 287.5))
    assert outside.any(axis=2).sum() == 10
    assert outside.any(axis=(1, 2)).sum() == 5
    assert 40 < (keypoints[..., 1] - 288).max() < 46


def test_real_flic_is_person_centric_and_converts(shared_data):
    """41 of the 867 test people are seen from behind, and 96 of the others."""
    person = flic.read_splits(str(shared_data / "flic"))
    observer = flic.read_splits(str(shared_data / "flic"), "observer")
    for split, away in (("train", 96), ("test", 41)):
        one, other = person[split].keypoints, observer[split].keypoints
        changed = (one != other).any(axis=(1, 2))
        assert changed.sum() == away
        np.testing.assert_array_equal(one[changed], other[changed][:, FLIC.mirror])
        assert (other[:, LEFT, 0] > other[:, RIGHT, 0]).all()


def test_people_of_one_frame_have_ids_of_their_own(tmp_path):
    files = ["a-1.jpg", "b-1.jpg", "a-1.jpg"]
    people = flic.read_splits(
        make_flic(
            tmp_path, [flic_example(i, filepath=file) for i, file in enumerate(files)]
        )
    )["train"]
    assert people.ids == ("flic/a-1-1", "flic/b-1-1", "flic/a-1-2")
    assert people.images[0] == people.images[2] == str(tmp_path / "images" / "a-1.jpg")


def test_a_joint_that_is_nan_has_no_label(tmp_path):
    missing = flic_example(4)
    missing["coords"][1, 9] = np.nan
    people = flic.read_splits(make_flic(tmp_path, [missing]))["train"]
    hip = FLIC.joints.index("right_hip")
    assert np.flatnonzero(~people.labeled[0]).tolist() == [hip]
    assert not people.keypoints[0, hip].any()
    # Column 5 is the right wrist, at (6, 5); pixel 6 from one has its centre at 5.5.
    wrist = FLIC.joints.index("right_wrist")
    np.testing.assert_allclose(people.keypoints[0, wrist], (5.5, 4.5))
    np.testing.assert_allclose(people.torsos[0], (9.5, 19.5, 29.5, 49.5))


def test_only_whoever_faces_away_with_shoulders_and_hips_changes_sides(tmp_path):
    """The three: facing, shoulders and hips turned, shoulders alone turned."""
    people = [flic_example(i) for i in range(3)]
    for person in people[1:]:
        person["coords"][0, [0, 3]] = person["coords"][0, [3, 0]]
    people[1]["coords"][0, [6, 9]] = people[1]["coords"][0, [9, 6]]
    root = make_flic(tmp_path, people)
    person = flic.read_splits(root)["train"].keypoints
    observer = flic.read_splits(root, "observer")["train"].keypoints
    np.testing.assert_array_equal(observer[[0, 2]], person[[0, 2]])
    np.testing.assert_array_equal(observer[1], person[1][list(FLIC.mirror)])


def test_a_torso_box_without_a_size_is_none(tmp_path):
    boxes = [[np.nan] * 4, [30, 20, 10, 50]]
    people = [flic_example(i, torsobox=np.array(box)) for i, box in enumerate(boxes)]
    assert not flic.read_splits(make_flic(tmp_path, people))["train"].torsos.any()


def test_flic_plus_counts_from_one(tmp_path):
    """Elements 1 and 3 of the file are those at 0 and 2; `istrain` says otherwise."""
    people = [flic_example(i, istrain=0, istest=int(i == 3)) for i in range(5)]
    root = make_flic(tmp_path, people)
    splits = flic.read_splits(root, plus=flic_plus(tmp_path, [3, 1]))
    assert splits["train"].ids == ("flic/film-00000000-1", "flic/film-00000002-1")
    assert splits["test"].ids == ("flic/film-00000003-1",)


@pytest.mark.parametrize(
    "numbers, says",
    [
        ([1, 0], "holds 0, expected numbers from 1 to 5"),
        ([1, 6], "holds 6, expected numbers from 1 to 5, of the examples of FLIC-full"),
        ([1, 1.5], r"holds 1.5, expected"),
        ([1, 4], "1 examples are for training and for testing, such as number 4"),
    ],
)
def test_wrong_index_files_of_flic_plus(tmp_path, numbers, says):
    root = make_flic(tmp_path, [flic_example(i, istest=int(i == 3)) for i in range(5)])
    with pytest.raises(ValueError, match=f"tr_plus_indices.mat: .*{says}"):
        flic.read_splits(root, plus=flic_plus(tmp_path, numbers))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"coords": np.ones((2, 28))}, r"'coords' is .* expected .* shape \(2, 29\)"),
        ({"coords": "none"}, "'coords' is <U4 of shape"),
        ({"torsobox": np.ones(3)}, r"'torsobox' is .* expected .* shape \(4,\)"),
        ({"filepath": 7}, "'filepath' names no file"),
        ({"istest": np.ones(2)}, r"'istest' is .* expected .* shape \(\)"),
        ({"istest": np.nan}, "'istest' is nan, expected a finite number"),
    ],
)
def test_a_wrong_element_is_one_person(tmp_path, changes, says):
    """The others keep their names and numbers: those of FLIC-plus are 1, 2 and 3."""
    people = [flic_example(i, filepath="one.jpg") for i in range(3)]
    people[1] |= changes
    people.append(flic_example(3, istrain=0, istest=1))
    root = make_flic(tmp_path, people)
    for plus in (None, flic_plus(tmp_path, [1, 2, 3])):
        splits = flic.read_splits(root, plus=plus)
        last = 2 if "filepath" in changes else 3
        names = ("flic/one-1", f"flic/one-{last}")
        assert splits["train"].ids == names and len(splits["test"]) == 1
        ((what, reason),) = splits["train"].damaged
        assert what == f"{tmp_path / 'examples.mat'}: example 2"
        assert re.match(says, reason)
        assert not splits["test"].damaged


def test_a_file_of_nothing_but_wrong_elements(tmp_path):
    root = make_flic(tmp_path, [flic_example(0, coords=np.ones(3))] * 2)
    splits = flic.read_splits(root)
    assert len(splits["train"].damaged) == 2
    assert len(splits["train"]) == len(splits["test"]) == 0


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(ValueError, match="examples.mat: no such file"):
        flic.read_splits(str(tmp_path))
    save(tmp_path / "examples.mat", "examples", [flic_example(0)])
    with pytest.raises(ValueError, match="images: no such folder"):
        flic.read_splits(str(tmp_path))
    incomplete = flic_example(0)
    del incomplete["coords"]
    with pytest.raises(ValueError, match="no field 'coords', only: poselet_hit_idx, "):
        flic.read_splits(make_flic(tmp_path, [incomplete]))
    scipy.io.savemat(tmp_path / "examples.mat", {"examples": np.ones(3)})
    with pytest.raises(ValueError, match="'examples' holds no structs"):
        flic.read_splits(str(tmp_path))
