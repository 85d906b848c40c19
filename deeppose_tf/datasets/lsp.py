"""Leeds Sports Pose (Johnson and Everingham, BMVC 2010), Sec. 4.1.

The official folder: `joints.mat` and `images/im0001.jpg` ... `im2000.jpg`, one
labeled person an image, images 1-1000 for training and 1001-2000 for testing. All
14 joints always have a label; an occluded one is flagged, and labeled all the same.
"""

from __future__ import annotations

import pathlib

import numpy as np

from deeppose_tf import skeleton
from deeppose_tf.datasets import Annotations, Missing, matlab

TRAIN_IMAGES = 1000

# Left and right are the person's own in the official file. The other convention, by
# sides of the image, is a later relabeling that comes as its own file.
OBSERVER_FILES = ("joints-OC.mat", "lsp-joints-OC.mat", "LSP-joints-OC.mat")

# Both files have the same points; left and right alone are exchanged. So each point is
# within this many pixels of its own or its partner's place in the other file, of at
# least this share of the people.
SAME_PIXELS, SAME_SHARE = 1.0, 0.95


def read(root: str, split: str, convention: str = "person") -> Annotations:
    """The train or test split of the LSP folder `root`.

    The files count pixels from one (MATLAB), so half a pixel is taken off. A joint
    that is NaN comes back as such and not labeled.

    Args:
      root: the folder that holds `joints.mat` and `images`.
      split: `train` (images 1-1000) or `test` (those from 1001 on that are there).
      convention: `person`: left is the person's own left, as in `joints.mat`;
        `observer`: sides as of someone who faces the camera, whose right is at the
        image's left, from `joints-OC.mat` (also found under its other name,
        `lsp-joints-OC.mat`) beside it, in pixels of these images.

    Raises:
      ValueError: a file is missing, damaged or of a wrong shape, or observer-centric
        joints are not of these images; names it.
    """
    path = _file(pathlib.Path(root), convention)
    keypoints = _points(path)
    if convention == "observer":
        _require_same_people(path, keypoints)
    labeled = np.isfinite(keypoints).all(axis=2)
    folder = pathlib.Path(root) / "images"
    people = build(folder, "lsp/im{:04d}", keypoints, labeled)
    return people.take(_indices(split, len(people)))


def _points(path: pathlib.Path) -> np.ndarray:
    """Keypoints [N, 14, 2], pixels, of a file of LSP's form."""
    joints = matlab.load(path, "joints")
    if joints.ndim != 3 or joints.shape[0] not in (2, 3) or joints.shape[1] != 14:
        hint = (
            ": that is LSPET, read it as lspet" if joints.shape[:2] == (14, 3) else ""
        )
        raise ValueError(
            f"{path}: 'joints' has shape {joints.shape}, expected (3, 14, N){hint}"
        )
    return joints[:2].transpose(2, 1, 0) - 0.5


def build(
    folder: pathlib.Path, pattern: str, keypoints: np.ndarray, labeled: np.ndarray
) -> Annotations:
    """Annotations [N, 14, 2], [N, 14] of a folder of images numbered from one.

    Args:
      folder: of the images.
      pattern: of the ids; the image is named as their last part.

    Raises:
      Missing: there is no such folder.
    """
    if not folder.is_dir():
        raise Missing(f"{folder}: no such folder; the images belong there")
    ids = tuple(pattern.format(i + 1) for i in range(len(keypoints)))
    names = [name.split("/")[1] + ".jpg" for name in ids]
    return Annotations(
        skeleton=skeleton.LSP,
        images=tuple(str(folder / name) for name in names),
        keypoints=keypoints.astype(np.float32),
        labeled=labeled,
        boxes=np.zeros((len(ids), 4), np.float32),
        ids=ids,
    )


def _file(root: pathlib.Path, convention: str) -> pathlib.Path:
    if convention == "person":
        return root / "joints.mat"
    if convention != "observer":
        raise ValueError(f"convention {convention!r}: expected person or observer")
    for name in OBSERVER_FILES:
        if (root / name).is_file():
            return root / name
    raise ValueError(
        f"{root / OBSERVER_FILES[0]}: no such file. The observer-centric joints are a "
        "relabeling that is not in the LSP download: put it there under this name "
        "('joints', 3 x 14 x N, in pixels of these images), or take the person-centric"
    )


def _require_same_people(path: pathlib.Path, observer: np.ndarray) -> None:
    """Checks that observer-centric joints [N, 14, 2] belong to the images beside them:
    by the person-centric ones of `joints.mat`, or else by their number.

    Raises:
      ValueError: they do not; says what is different.
    """
    needed = (
        "It has to label every image of the folder in their order, those for training "
        "(1-1000) too, in their pixels"
    )
    official = path.with_name("joints.mat")
    if not official.is_file():
        numbers = [file.stem[2:] for file in path.parent.glob("images/im*.jpg")]
        last = max((int(number) for number in numbers if number.isdecimal()), default=0)
        if len(observer) != last:
            raise ValueError(
                f"{path}: labels {len(observer)} people, and the last image in images "
                f"is number {last}. {needed}"
            )
        return
    person = _points(official)
    if len(observer) != len(person):
        raise ValueError(
            f"{path}: labels {len(observer)} people, and {official.name} beside it "
            f"{len(person)}. {needed}"
        )
    places = person, person[:, list(skeleton.LSP.mirror)]
    own, partner = (np.linalg.norm(observer - place, axis=2) for place in places)
    missing = np.isfinite(person).all(axis=2) & np.isnan(observer).any(axis=2)
    other = (missing | (np.fmin(own, partner) > SAME_PIXELS)).any(axis=1)
    if other.sum() > (1 - SAME_SHARE) * len(other):
        tall = [np.ptp(points[other][..., 1], axis=1) for points in (observer, person)]
        raise ValueError(
            f"{path}: the points of {other.sum()} of {len(other)} people are not those "
            f"of {official.name} beside it with left and right exchanged; they are "
            f"{np.nanmedian(tall[0] / tall[1]):.2f} times as tall. {needed}"
        )
    if not (own > partner + SAME_PIXELS).any():
        raise ValueError(
            f"{path}: is {official.name} under another name: nobody's left and right "
            "are exchanged, as they are of 192 of the 500 test people"
        )


def _indices(split: str, count: int) -> np.ndarray:
    if split == "train":
        return np.arange(min(TRAIN_IMAGES, count))
    if split == "test":
        return np.arange(TRAIN_IMAGES, max(TRAIN_IMAGES, count))
    raise ValueError(f"LSP has no split {split!r}, only train and test")
