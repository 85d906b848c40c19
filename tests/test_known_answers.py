"""Every data set at hand held to what is known of it, from its labels alone.

Counts, splits, joint order and flags are those of the README beside the data, where
they were taken from the files by other means and looked at with the joints drawn in.
`test_datasets`, `test_flic`, `test_mpii` and `test_parse_and_buffy` hold single labels
of each to the files.
"""

import csv
import itertools
import pathlib

import numpy as np
import pytest
import scipy.io
from PIL import Image

from deeppose_tf import metrics, skeleton
from deeppose_tf.datasets import coco, mpii
from deeppose_tf.pipelines.data import prepare

OBSERVER = ("parse", "buffy")
COUNTS = {
    "lsp": (1000, 500),
    "lspet": (9000, 0),
    "flic": (1979, 867),
    "parse": (100, 150),
    "buffy": (96, 184),
}
LEG, ARM = ("ankle", "knee", "hip"), ("wrist", "elbow", "shoulder")
# From the right ankle up and down again, the right arm up and the left one down.
BODY = [f"right_{joint}" for joint in LEG] + [f"left_{joint}" for joint in LEG[::-1]]
BODY += [f"right_{joint}" for joint in ARM] + [f"left_{joint}" for joint in ARM[::-1]]
BODY += ["neck", "head_top"]
ORDER = {
    "lsp": BODY,
    "lspet": BODY,
    "parse": BODY,  # By its names, which are sides of the image: see below.
    "flic": [f"{side}_{joint}" for side in ("left", "right") for joint in ARM[::-1]]
    + ["left_hip", "right_hip", "left_eye", "right_eye"],
    "buffy": [f"{side}_{joint}" for side in ("left", "right") for joint in ARM[::-1]]
    + ["neck", "pelvis", "head_top"],
}


@pytest.fixture(scope="module")
def read(shared_data):
    """Name of a data set -> its parts, which are read once."""
    known = {}

    def once(name):
        if name not in known:
            convention = "observer" if name in OBSERVER else "person"
            known[name] = prepare.read(name, str(shared_data / name), convention)
        return known[name]

    return once


def everyone(parts):
    return prepare.merge([parts["train"], parts["test"]])


def outside(people, sizes, first=0):
    """(person, joint) of labeled joints outside images of these sizes (x, y), as the
    files count: more than the size, less than `first`, which is 1 in MATLAB."""
    counted = people.keypoints + 0.5
    high = counted > np.reshape(sizes, (-1, 1, 2))
    there = ((counted < first) | high).any(axis=2) & people.labeled
    found = np.argwhere(there)
    return [(people.ids[i], people.skeleton.joints[joint]) for i, joint in found]


def columns(path, *names):
    """[N, names] numbers of a CSV file."""
    with open(path) as file:
        return np.array(
            [[row[n] for n in names] for row in csv.DictReader(file)], float
        )


def size_of(path):
    """(x, y) of an image, of which no more than the header is read."""
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("name", COUNTS)
def test_counts_joints_and_files(read, name):
    parts = read(name)
    assert (len(parts["train"]), len(parts["test"])) == COUNTS[name]
    assert not len(parts["validation"])
    people = everyone(parts)
    assert list(people.skeleton.joints) == ORDER[name]
    assert not people.skipped and not people.damaged and not people.boxes.any()
    assert np.isfinite(people.keypoints).all()
    assert people.labeled.all() == (name != "lspet")
    folders = {pathlib.Path(path).parent for path in people.images}
    there = {str(file) for folder in folders for file in folder.iterdir()}
    assert set(people.images) <= there


def test_lsp(read, shared_data):
    """The flag is 1 of the 7.3 % that are occluded, and labeled all the same."""
    people = everyone(read("lsp"))
    flags = scipy.io.loadmat(shared_data / "lsp" / "joints.mat")["joints"][2]
    assert np.unique(flags).tolist() == [0, 1]
    assert flags.mean() == pytest.approx(0.073, abs=0.0005)
    sizes = columns(shared_data / "lsp" / "crops.csv", "width", "height")
    assert len(outside(people, sizes)) == 1  # By 0.1 px.
    ends = [BODY.index(joint) for joint in ("left_shoulder", "right_hip")]
    diameters = np.linalg.norm(np.diff(people.keypoints[:, ends], axis=1), axis=2)
    assert np.median(diameters) == pytest.approx(93, abs=0.5)
    assert diameters.min() == pytest.approx(5, abs=0.5)
    heads = np.linalg.norm(people.keypoints[:, 12] - people.keypoints[:, 13], axis=1)
    assert heads.min() == pytest.approx(9, abs=0.5)


def test_lspet(read, shared_data):
    """The flag is 1 of joints that are annotated; 12 % are not."""
    people = read("lspet")["train"]
    flags = scipy.io.loadmat(shared_data / "lspet" / "joints.mat")["joints"][:, 2]
    np.testing.assert_array_equal(people.labeled, flags.T == 1)
    assert np.mean(~people.labeled) == pytest.approx(0.12, abs=0.0005)
    complete = people.labeled.all(axis=1)
    assert complete.sum() == 3559 and complete[:4500].sum() == 1761
    assert people.labeled.sum(axis=1).min() == 4
    assert not people.keypoints[~people.labeled].any()
    ends = [BODY.index(joint) for joint in ("left_shoulder", "right_hip")]
    share = people.labeled[:, ends].all(axis=1).mean()
    assert share == pytest.approx(0.72, abs=0.005)
    sizes = columns(shared_data / "lspet" / "crops.csv", "crop_w", "crop_h")
    assert [name for name, _ in outside(people, sizes)] == [
        "lspet/im00024", "lspet/im00712", "lspet/im03363", "lspet/im04837",
        "lspet/im06367", "lspet/im07393", "lspet/im08075", "lspet/im08099",
    ]  # fmt: skip


def test_flic(read, shared_data):
    """Eleven columns are never NaN, the others always; who is where and how large."""
    raw = scipy.io.loadmat(shared_data / "flic" / "examples.mat")["examples"][0]
    coords = np.stack([example["coords"] for example in raw])
    known = ~np.isnan(coords).all(axis=(0, 1))
    assert np.flatnonzero(known).tolist() == [0, 1, 2, 3, 4, 5, 6, 9, 12, 13, 16]
    assert not np.isnan(coords[:, :, known]).any()
    people = everyone(read("flic"))
    assert len(people) - len(set(people.images)) == 220
    films = {person.rsplit("-", 2)[0] for person in people.ids}
    assert len(films) == 24
    beyond = outside(people, np.tile([432, 288], (len(people), 1)), first=1)
    assert (len(beyond), len({person for person, _ in beyond})) == (10, 5)
    # Left shoulder to right hip.
    diameters = np.linalg.norm(people.keypoints[:, 0] - people.keypoints[:, 7], axis=1)
    assert np.median(diameters) == pytest.approx(95, abs=0.5)
    assert diameters.min() == pytest.approx(40, abs=0.5)
    assert diameters.max() == pytest.approx(218, abs=0.5)
    left, right = people.keypoints[:, 0, 0], people.keypoints[:, 3, 0]
    assert np.mean(left < right) == pytest.approx(1 / 20, abs=0.005)
    # The detected torso's middle and the labeled one's, in diameters.
    middle = people.torsos.reshape(-1, 2, 2).mean(axis=1)
    labels = people.keypoints[:, [0, 3, 6, 7]].mean(axis=1)
    error = np.linalg.norm(middle - labels, axis=1) / diameters
    assert np.quantile(error, 0.9) < 0.3 and error.max() == pytest.approx(0.8, abs=0.05)


def test_flic_has_hardly_two_people_on_a_frame(read):
    """Of the pairs of examples on one frame nine of ten are one person, labeled twice
    within a third of a diameter, two of them once for training and once for testing."""
    parts = read("flic")
    known = [(s, i) for s in ("train", "test") for i in range(len(parts[s]))]
    frames = {}
    for split, i in known:
        frames.setdefault(parts[split].images[i], []).append((split, i))
    same, torn, pairs = 0, 0, 0
    for people in frames.values():
        for (one, i), (other, j) in itertools.combinations(people, 2):
            a, b = parts[one].keypoints[i], parts[other].keypoints[j]
            apart = np.median(np.linalg.norm(a - b, axis=1))
            twice = apart < 0.3 * np.linalg.norm(a[0] - a[7])
            pairs, same = pairs + 1, same + twice
            torn += twice and one != other
    assert (pairs, same, torn) == (224, 198, 2)


def test_parse(read, shared_data):
    """Three joints are just outside; the names of the file say left of the image."""
    people = everyone(read("parse"))
    sizes = np.array([size_of(path) for path in people.images])
    assert [person for person, _ in outside(people, sizes, first=1)] == [
        "parse/im0015", "parse/im0045", "parse/im0135"
    ]  # fmt: skip
    names = scipy.io.loadmat(shared_data / "parse" / "labels.mat")["segmentTypes"]
    names = [str(name[0]) for name in names.ravel()]
    assert names == (
        "lank lkne lhip rhip rkne rank lwr lelb lsho rsho relb rwr hbot htop".split()
    )
    # What is left in the image is the right of someone who faces the camera.
    for name, joint in zip(names[:12], BODY, strict=False):
        assert joint.startswith({"l": "right_", "r": "left_"}[name[0]])


def test_buffy(read):
    """76, 96 and 108 frames; a few ends lie one or two pixels outside the frame."""
    parts = read("buffy")
    people = everyone(parts)
    frames = [person.split("/s5e")[1][0] for person in people.ids]
    assert {e: frames.count(e) for e in "245"} == {"2": 76, "4": 96, "5": 108}
    assert {person.split("/s5e")[1][0] for person in parts["train"].ids} == {"4"}
    beyond = outside(people, np.tile([720, 405], (len(people), 1)))
    assert 1 <= len(beyond) < 10
    low, high = people.keypoints.min(), (people.keypoints - [720, 405]).max()
    assert -2 < low and high < 2
    diameters = metrics.torso_diameters(
        people.keypoints, people.labeled, people.skeleton
    )
    assert diameters.min() > 30


def test_coco_and_mpii_samples(shared_data):
    """14 people of COCO, two without a label; five of MPII."""
    folder = shared_data / "mmpose_samples"
    people = coco.read(str(folder / "coco" / "test_coco.json"))
    assert (len(people), len(people.skipped), len(set(people.images))) == (12, 2, 4)
    assert people.skeleton.joints == skeleton.COCO.joints
    eyes = [people.skeleton.joints.index(f"{side}_eye") for side in ("left", "right")]
    facing = people.labeled[:, eyes].all(axis=1)
    x = people.keypoints[facing][:, eyes, 0]
    assert np.mean(x[:, 0] > x[:, 1]) > 0.8
    parts = mpii.read_splits(str(folder / "mpii" / "test_mpii.json"))
    people = parts["train"]
    assert (len(people), len(set(people.images)), len(parts["test"])) == (5, 5, 0)
    assert list(people.skeleton.joints[:6]) == BODY[:6]
    assert people.skeleton.joints[6:10] == (
        "pelvis", "thorax", "upper_neck", "head_top"
    )  # fmt: skip
    assert list(people.skeleton.joints[10:]) == BODY[6:12]
    assert people.labeled.sum() == 76 and people.boxes.any(axis=1).all()
