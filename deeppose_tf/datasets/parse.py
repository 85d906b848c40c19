"""Image Parse (Ramanan, NIPS 2006), which Sec. 4.2 tests a model of LSP on.

The official folder: `labels.mat` and, beside it, `im0001.jpg` ... `im0305.jpg`, one
labeled person an image, images 1-100 for training and 101-305 for testing. All 14
joints of LSP, in its order, always have a label.
"""

from __future__ import annotations

import pathlib

import numpy as np

from deeppose_tf.datasets import Annotations, lsp, matlab

TRAIN_IMAGES = 100


def read_splits(root: str, convention: str = "observer") -> dict[str, Annotations]:
    """The train and test part of the folder `root`.

    Left and right are those of the image: the ankle on the image's left comes first,
    where LSP has the right one. So sides are as of someone who faces the camera, and
    for those who do they are the person's own.

    The file counts pixels from one (MATLAB), so half a pixel is taken off. A joint
    that is NaN comes back as such and not labeled.

    Args:
      root: the folder that holds `labels.mat` and the images.
      convention: `observer`; there is no other, and no conversion.

    Raises:
      ValueError: a file is missing, damaged or of a wrong shape; names it.
    """
    if convention != "observer":
        raise ValueError(
            f"Image Parse has no {convention}-centric labels, and no rule makes them: "
            "it is not labeled who faces the camera. Take the observer-centric ones"
        )
    folder = pathlib.Path(root)
    path = folder / "labels.mat"
    points = matlab.load(path, "ptsAll")
    if points.ndim != 3 or points.shape[:2] != (14, 2):
        raise ValueError(
            f"{path}: 'ptsAll' has shape {points.shape}, expected (14, 2, N)"
        )
    keypoints = points.transpose(2, 0, 1) - 0.5  # [N, 14, 2]
    labeled = np.isfinite(keypoints).all(axis=2)
    people = lsp.build(folder, "parse/im{:04d}", keypoints, labeled)
    first = min(TRAIN_IMAGES, len(people))
    return {
        "train": people.take(np.arange(first)),
        "test": people.take(np.arange(first, len(people))),
    }
