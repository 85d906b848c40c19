"""Leeds Sports Pose, its extension, and Image Parse: three sets of the same 14 joints.

One labeled person an image; the images are numbered from one. All three files count
pixels from one (MATLAB), so half a pixel is taken off.

    LSP     Johnson and Everingham, BMVC 2010   images 1-1000 train, 1001-2000 test
    LSPET   Johnson and Everingham, CVPR 2011   all for training
    Parse   Ramanan, NIPS 2006                  images 1-100 train, 101-305 test
"""

from __future__ import annotations

import pathlib

import numpy as np

from deeppose_tf import skeleton
from deeppose_tf.datasets import Annotations, matlab, require_folder

TRAIN_IMAGES, PARSE_TRAIN_IMAGES = 1000, 100

# Left and right are the person's own in LSP's official file. The other convention, by
# sides of the image, is a later relabeling that comes as its own file.
OBSERVER_FILES = ("joints-OC.mat", "lsp-joints-OC.mat", "LSP-joints-OC.mat")

# Both files have the same points; left and right alone are exchanged. So each point is
# within this many pixels of its own or its partner's place in the other file, of at
# least this share of the people.
SAME_PIXELS, SAME_SHARE = 1.0, 0.95

Splits = dict[str, Annotations]


def read_splits(root: str, convention: str = "person") -> Splits:
    """LSP (Sec. 4.1): the train and test part of a folder of `joints.mat` and `images`.

    An occluded joint is labeled all the same; one that is NaN comes back as such and
    not labeled.

    Args:
      root: the folder; its images are `images/im0001.jpg` and on.
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
    folder = pathlib.Path(root) / "images"
    return _splits(folder, "lsp/im{:04d}", keypoints, True, TRAIN_IMAGES)


def read_extended(root: str) -> Splits:
    """LSPET: a folder of `joints.mat` and `images/im00001.jpg` and on; no test part.

    Its flag means the opposite of LSP's: 1 is labeled, and where it is 0 the
    coordinates mean nothing; they come back as zeros. A labeled joint that is NaN stays
    NaN and is not labeled.

    Raises:
      ValueError: a file is missing, damaged or of a wrong shape; names it.
    """
    path = pathlib.Path(root) / "joints.mat"
    hint = {(3, 14): ": that is LSP, read it as lsp"}
    joints = _load(path, "joints", (14, 3), hint).transpose(2, 0, 1)  # [N, 14, 3]
    labeled = joints[:, :, 2] == 1
    keypoints = np.where(labeled[:, :, None], joints[:, :, :2] - 0.5, 0.0)
    folder = pathlib.Path(root) / "images"
    return _splits(folder, "lspet/im{:05d}", keypoints, labeled, len(keypoints))


def read_parse(root: str) -> Splits:
    """Image Parse, which Sec. 4.2 tests a model of LSP on.

    Its folder holds `labels.mat` and, beside it, `im0001.jpg` and on.

    Left and right are those of the image: the ankle on the image's left comes first,
    where LSP has the right one. So sides are as of someone who faces the camera, and
    for those who do they are the person's own. Nothing converts them: it is not labeled
    who faces the camera.

    Raises:
      ValueError: a file is missing, damaged or of a wrong shape; names it.
    """
    folder = pathlib.Path(root)
    points = _load(folder / "labels.mat", "ptsAll", (14, 2))
    keypoints = points.transpose(2, 0, 1) - 0.5  # [N, 14, 2]
    return _splits(folder, "parse/im{:04d}", keypoints, True, PARSE_TRAIN_IMAGES)


def _points(path: pathlib.Path) -> np.ndarray:
    """Keypoints [N, 14, 2], pixels, of a file of LSP's form."""
    hint = {(14, 3): ": that is LSPET, read it as lspet"}
    joints = _load(path, "joints", (3, 14), hint, also=(2, 14))
    return joints[:2].transpose(2, 1, 0) - 0.5


def _load(path, name, shape, hints=None, also=None) -> np.ndarray:
    """A variable of this shape, or also that one, and N people; of another a hint may
    say what it is."""
    array = matlab.load(path, name)
    if array.ndim == 3 and array.shape[:2] in (shape, also):
        return array
    hint = (hints or {}).get(array.shape[:2], "")
    a, b = shape
    raise ValueError(
        f"{path}: {name!r} has shape {array.shape}, expected ({a}, {b}, N){hint}"
    )


def _splits(folder, pattern, keypoints, labeled, count) -> Splits:
    """Everyone of a folder of images, [N, 14, 2] and [N, 14], labeled where finite; the
    first so many are for training. `pattern` is that of the ids, and an image is named
    as the last part of its id."""
    require_folder(folder)
    ids = tuple(pattern.format(i + 1) for i in range(len(keypoints)))
    people = Annotations(
        skeleton=skeleton.LSP,
        images=tuple(str(folder / f"{name.split('/')[1]}.jpg") for name in ids),
        keypoints=keypoints.astype(np.float32),
        labeled=labeled & np.isfinite(keypoints).all(axis=2),
        boxes=np.zeros((len(ids), 4), np.float32),
        ids=ids,
    )
    return {
        "train": people.take(slice(count)),
        "test": people.take(slice(count, None)),
    }


def _file(root: pathlib.Path, convention: str) -> pathlib.Path:
    if convention == "person":
        return root / "joints.mat"
    for name in OBSERVER_FILES:
        if (root / name).is_file():
            return root / name
    raise ValueError(
        f"{root / OBSERVER_FILES[0]}: no such file. It is a relabeling that is not in "
        "the LSP download ('joints', 3 x 14 x N, in pixels of these images): put it "
        "there, or take the person-centric joints"
    )


def _require_same_people(path: pathlib.Path, observer: np.ndarray) -> None:
    """Checks that observer-centric joints [N, 14, 2] belong to the images beside them:
    by the person-centric ones of `joints.mat`, or else by their number."""
    official, person = path.with_name("joints.mat"), None
    if official.is_file():
        person = _points(official)
        count, where = len(person), f"{official.name} beside it {len(person)}"
    else:
        numbers = [file.stem[2:] for file in path.parent.glob("images/im*.jpg")]
        count = max((int(one) for one in numbers if one.isdecimal()), default=0)
        where = f"the last image in images is number {count}"
    needed = "It has to label every image of the folder in their order, in their pixels"
    if len(observer) != count:
        raise ValueError(
            f"{path}: labels {len(observer)} people, and {where}. {needed}"
        )
    if person is None:
        return
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
            "are exchanged"
        )
