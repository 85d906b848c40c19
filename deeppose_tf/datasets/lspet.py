"""Leeds Sports Pose Extended (Johnson and Everingham, CVPR 2011).

The official folder: `joints.mat` (axes in another order than LSP's) and
`images/im00001.jpg` ... `im10000.jpg`; all of it is training data. The flag means the
opposite of LSP's: 1 is labeled, and where it is 0 the coordinates mean nothing.
"""

from __future__ import annotations

import pathlib

import numpy as np

from deeppose_tf.datasets import Annotations, lsp, matlab


def read(root: str, split: str) -> Annotations:
    """The LSPET folder `root`; its `test` split is empty.

    The file counts pixels from one (MATLAB), so half a pixel is taken off. Joints
    without a label come back as zeros; a labeled one that is NaN stays NaN and is not
    labeled.

    Raises:
      ValueError: a file is missing, damaged or of a wrong shape; names it.
    """
    if split not in ("train", "test"):
        raise ValueError(f"LSPET has no split {split!r}, only train and test")
    path = pathlib.Path(root) / "joints.mat"
    joints = matlab.load(path, "joints")
    if joints.ndim != 3 or joints.shape[:2] != (14, 3):
        hint = ": that is LSP, read it as lsp" if joints.shape[:2] == (3, 14) else ""
        raise ValueError(
            f"{path}: 'joints' has shape {joints.shape}, expected (14, 3, N){hint}"
        )
    joints = joints.transpose(2, 0, 1)  # [N, 14, 3]
    labeled = joints[:, :, 2] == 1
    keypoints = np.where(labeled[:, :, None], joints[:, :, :2] - 0.5, 0.0)
    labeled = labeled & np.isfinite(keypoints).all(2)
    folder = pathlib.Path(root) / "images"
    people = lsp.build(folder, "lspet/im{:05d}", keypoints, labeled)
    return people if split == "train" else people.take([])
