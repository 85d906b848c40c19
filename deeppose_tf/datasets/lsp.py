"""Leeds Sports Pose (Johnson and Everingham, BMVC 2010), Sec. 4.1.

The official folder: `joints.mat` and `images/im0001.jpg` ... `im2000.jpg`, one
labeled person an image, images 1-1000 for training and 1001-2000 for testing. All
14 joints always have a label; an occluded one is flagged, and labeled all the same.
"""

from __future__ import annotations

import pathlib

import numpy as np

from deeppose_tf import skeleton
from deeppose_tf.datasets import Annotations, matlab

TRAIN_IMAGES = 1000

# Left and right are the person's own in the official file. The other convention, left
# and right as seen in the image, is a later relabeling that comes as its own file.
FILES = {"person": "joints.mat", "observer": "joints-OC.mat"}


def read(root: str, split: str, convention: str = "person") -> Annotations:
    """The train or test split of the LSP folder `root`.

    The files count pixels from one (MATLAB), so half a pixel is taken off. A joint
    that is NaN comes back as such and not labeled.

    Args:
      root: the folder that holds `joints.mat` and `images`.
      split: `train` (images 1-1000) or `test` (those from 1001 on that are there).
      convention: `person`: left is the person's own left, as in `joints.mat`;
        `observer`: left is left in the image, from `joints-OC.mat` beside it.

    Raises:
      ValueError: a file is missing, damaged or of a wrong shape; names it.
    """
    path = pathlib.Path(root) / FILES[convention]
    if convention == "observer" and not path.is_file():
        raise ValueError(
            f"{path}: no such file. The observer-centric joints are not part of the "
            f"LSP download: put the file of that relabeling (variable 'joints', 3 x 14 "
            f"x N or 2 x 14 x N) there as {path.name}, or use the person-centric ones"
        )
    joints = matlab.load(path, "joints")
    if joints.ndim != 3 or joints.shape[0] not in (2, 3) or joints.shape[1] != 14:
        hint = ". This is the shape of LSPET" if joints.shape[:2] == (14, 3) else ""
        raise ValueError(
            f"{path}: 'joints' has shape {joints.shape}, expected (3, 14, N){hint}"
        )
    keypoints = joints[:2].transpose(2, 1, 0) - 0.5  # [N, 14, 2]
    return build(root, "lsp/im{:04d}", keypoints, np.isfinite(keypoints).all(2)).take(
        _indices(split, len(keypoints))
    )


def build(root, pattern, keypoints, labeled) -> Annotations:
    """Annotations of the image folder of LSP or LSPET; the number is index + 1."""
    ids = tuple(pattern.format(i + 1) for i in range(len(keypoints)))
    folder = pathlib.Path(root) / "images"
    return Annotations(
        skeleton=skeleton.LSP,
        images=tuple(str(folder / (name.split("/")[1] + ".jpg")) for name in ids),
        keypoints=keypoints.astype(np.float32),
        labeled=labeled,
        boxes=np.zeros((len(ids), 4), np.float32),
        ids=ids,
    )


def _indices(split: str, count: int) -> np.ndarray:
    if split == "train":
        return np.arange(min(TRAIN_IMAGES, count))
    if split == "test":
        return np.arange(TRAIN_IMAGES, max(TRAIN_IMAGES, count))
    raise ValueError(f"LSP has no split {split!r}, only train and test")
