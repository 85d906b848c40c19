"""One reader per data set; the only place that knows file formats.

Readers turn an official release into `Annotations` in the project's coordinate
convention (see `deeppose_tf.geometry`). No TensorFlow.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from deeppose_tf.skeleton import Skeleton

# The data sets, and whose left is left in the labels that each can give: the person's
# own, or as of someone who faces the camera. No rule makes one of the other but that of
# FLIC; the observer-centric labels of LSP are a file of their own.
CONVENTIONS = {
    "lsp": ("person", "observer"),
    "lspet": ("person",),
    "flic": ("person", "observer"),
    "parse": ("observer",),
    "buffy": ("observer",),
    "mpii": ("person",),
    "coco": ("person",),
    "generated": ("person",),
}
CENTRIC = {
    "person": "person-centric: left is the person's own left",
    "observer": "observer-centric: left is that of someone who faces the camera",
}
# Where their authors offer them.
ADDRESSES = {
    "lsp": "http://sam.johnson.io/research/lsp.html",
    "lspet": "http://sam.johnson.io/research/lspet.html",
    "flic": "https://bensapp.github.io/flic-dataset.html (the index file of FLIC-plus: "
    "https://cims.nyu.edu/~tompson/flic_plus.htm)",
    "parse": "https://www.cs.cmu.edu/~deva/papers/parse/index.html",
    "buffy": "https://www.robots.ox.ac.uk/~vgg/data/stickmen/",
    "mpii": "http://human-pose.mpi-inf.mpg.de",
}


def where_from(name: str) -> str:
    """The end of an error about missing files of a data set: where its authors offer
    it, if they do."""
    return f". {name} is at {ADDRESSES[name]}" if name in ADDRESSES else ""


class Missing(ValueError):
    """A file or folder of the official release is not there."""


@dataclasses.dataclass(frozen=True)
class Annotations:
    """N labeled people.

    Attributes:
      skeleton: names the K joints.
      images: [N] paths of image files; one file may hold several people.
      keypoints: [N, K, 2] float32, pixels of the original image. Meaningless where
        not labeled.
      labeled: [N, K] bool: the joint has a label; an occluded one may have.
      boxes: [N, 4] float32 first boxes (x0, y0, x1, y1), pixels. All zeros means
        the whole image.
      ids: [N] unique names of the people.
      skipped: (what, reason) for everything that was rightly left out.
      damaged: (what, reason) for everything left out because it is broken.
      torsos: [N, 4] float32 boxes of torsos by an automatic detector, pixels, for data
        sets that come with them; all zeros for a person without.
      stated: [N, 2] height and width that the labels' file says each image has; zeros
        where it does not.
      understood: a line for everything that was read otherwise than it is written.
    """

    skeleton: Skeleton
    images: tuple[str, ...]
    keypoints: np.ndarray
    labeled: np.ndarray
    boxes: np.ndarray
    ids: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()
    torsos: np.ndarray | None = None
    stated: np.ndarray | None = None
    understood: tuple[str, ...] = ()

    def __post_init__(self):
        n, k = len(self.images), len(self.skeleton.joints)
        shapes = (
            ("keypoints", self.keypoints, (n, k, 2)),
            ("labeled", self.labeled, (n, k)),
            ("boxes", self.boxes, (n, 4)),
            ("torsos", self.torsos, (n, 4)),
            ("stated", self.stated, (n, 2)),
        )
        for name, array, shape in shapes:
            if array is not None and array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
        if len(self.ids) != n or len(set(self.ids)) != n:
            raise ValueError(f"ids must be {n} different names")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices) -> Annotations:
        """The people at these indices, in this order."""
        indices = np.asarray(indices, np.int64)
        return dataclasses.replace(
            self,
            images=tuple(self.images[i] for i in indices),
            keypoints=self.keypoints[indices],
            labeled=self.labeled[indices],
            boxes=self.boxes[indices],
            ids=tuple(self.ids[i] for i in indices),
            torsos=None if self.torsos is None else self.torsos[indices],
            stated=None if self.stated is None else self.stated[indices],
        )

    def without_notes(self) -> Annotations:
        """The same people, and nothing of what was left out."""
        return dataclasses.replace(self, skipped=(), damaged=(), understood=())

    def nobody(self) -> Annotations:
        """A part of the data set that has nobody."""
        return self.take([]).without_notes()
