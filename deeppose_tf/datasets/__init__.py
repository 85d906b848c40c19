"""One reader per data set; the only place that knows file formats.

Readers turn an official release into `Annotations` in the project's coordinate
convention (see `deeppose_tf.geometry`). No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

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

# Of `Annotations`, a row for each person.
ARRAYS = ("keypoints", "labeled", "boxes", "torsos", "stated")


def where_from(name: str) -> str:
    """The end of an error about missing files of a data set: where its authors offer
    it, if they do."""
    return f". {name} is at {ADDRESSES[name]}" if name in ADDRESSES else ""


class Missing(ValueError):
    """A file or folder of the official release is not there."""


def require_folder(folder: pathlib.Path) -> pathlib.Path:
    """The folder of a data set's images.

    Raises:
      Missing: it is not there; names it.
    """
    if not folder.is_dir():
        raise Missing(f"{folder}: no such folder; the images belong there")
    return folder


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
        shapes = (n, k, 2), (n, k), (n, 4), (n, 4), (n, 2)
        for name, shape in zip(ARRAYS, shapes, strict=True):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(shape, np.float32))
            if getattr(self, name).shape != shape:
                found = getattr(self, name).shape
                raise ValueError(f"{name} has shape {found}, expected {shape}")
        if len(self.ids) != n or len(set(self.ids)) != n:
            raise ValueError(f"ids must be {n} different names")

    def __len__(self) -> int:
        return len(self.images)

    def take(self, chosen) -> Annotations:
        """The people at these indices, in this order, or those of a mask [N]."""
        indices = np.arange(len(self))[chosen]
        return dataclasses.replace(
            self,
            **{name: getattr(self, name)[indices] for name in ARRAYS},
            images=tuple(self.images[i] for i in indices),
            ids=tuple(self.ids[i] for i in indices),
        )

    def nobody(self) -> Annotations:
        """A part of the data set that has nobody, and nothing was left out of."""
        nobody = self.take(slice(0))
        return dataclasses.replace(nobody, skipped=(), damaged=(), understood=())


def merge(parts: Sequence[Annotations]) -> Annotations:
    """Everyone of several data sets, in their order.

    Raises:
      ValueError: they have different skeletons, or share an id.
    """
    first = parts[0].skeleton
    for part in parts[1:]:
        if part.skeleton != first:
            raise ValueError(
                f"data sets with different skeletons ({first.name}: "
                f"{', '.join(first.joints)}; {part.skeleton.name}: "
                f"{', '.join(part.skeleton.joints)}) cannot become one; prepare each "
                "into its own --output, or give both the same --skeleton"
            )
    rows = {name: [getattr(part, name) for part in parts] for name in ARRAYS}
    listed = ("images", "ids", "skipped", "damaged")
    return Annotations(
        skeleton=first,
        **{name: np.concatenate(arrays) for name, arrays in rows.items()},
        **{name: sum((getattr(p, name) for p in parts), ()) for name in listed},
    )
