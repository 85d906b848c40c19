"""Gathers the people of a file of labels, whatever its format; finds their images.

What a reader cannot believe is kept with its reason: what is rightly left out, such as
a crowd, apart from what is broken. Labels are compared with their images in
`pipelines.data.checks`, where these are opened.
"""

from __future__ import annotations

import collections
import contextlib
import filecmp
import os
import pathlib
import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np

from deeppose_tf.datasets import Annotations
from deeppose_tf.skeleton import Skeleton

# What tools write for a joint that is not there, in the coordinates of the file.
NOWHERE = ((0.0, 0.0), (-1.0, -1.0))


class LeftOut(ValueError):
    """Somebody who is rightly left out."""


class People:
    """Everyone of a file, one after the other.

    Attributes:
      understood: a line for everything that was read otherwise than it is written.
    """

    def __init__(self, skeleton: Skeleton):
        self.skeleton, self.understood = skeleton, []
        self._rows, self._skipped, self._damaged = {}, [], []
        self._lost = collections.defaultdict(list)
        self._counts = collections.Counter()

    @contextlib.contextmanager
    def reading(self, who: str, image: str | None = None) -> Iterator[None]:
        """Leaves somebody out, with the reason and the image, whose labels raise
        ValueError inside; `LeftOut` is no damage."""
        try:
            yield
        except LeftOut as reason:
            self._skipped.append((who, str(reason)))
        except ValueError as reason:
            on = f" (on {image})" if image else ""
            self._damaged.append((who, f"{reason}{on}"))

    def lose(self, image: str, reason: str, who: str) -> None:
        """Leaves out somebody for what is wrong with the image: a line for everyone."""
        self._lost[image, reason].append(who)

    def add(
        self,
        name: str,
        image: str,
        joints: np.ndarray,
        offset: float,
        box: np.ndarray,
        size: tuple[int, int] = (0, 0),
    ) -> None:
        """Adds somebody.

        Args:
          name: unique.
          joints: [K, 3], x, y as in the file and v, positive where there is a label.
          offset: what is added to x and y.
          box: [4] corners, pixels; zeros, the whole image.
          size: height and width that the file says the image has; zeros if it does not.

        Raises:
          LeftOut: no joint is labeled.
          ValueError: the name is there already, or the joints contradict themselves.
        """
        points, visible = joints[:, :2], joints[:, 2]
        if name in self._rows:
            raise ValueError("an earlier one has the same id")
        if not np.isfinite(visible).all():
            joint = self.skeleton.joints[np.argmin(np.isfinite(visible))]
            raise ValueError(f"the visibility of joint {joint} is NaN or infinite")
        finite, labeled = np.isfinite(points).all(axis=1), visible > 0
        nowhere = np.any([(points == place).all(axis=1) for place in NOWHERE], axis=0)
        placed, nowhere = finite & ~nowhere & ~labeled, nowhere & labeled
        if not labeled.any() and not placed.any():
            raise LeftOut("no joint is labeled")
        if not labeled.any():
            raise ValueError("its joints have places, but all are marked not labeled")
        if nowhere.all(where=labeled):
            raise ValueError("all its labeled joints are at (0, 0) or (-1, -1)")
        self._counts["at (0, 0) or (-1, -1), marked as labeled,"] += nowhere.sum()
        self._counts["with a place, marked as not labeled,"] += placed.sum()
        labeled &= ~nowhere
        keypoints = np.where(labeled[:, np.newaxis], points + offset, 0.0)
        labeled &= finite  # What is not stays in `keypoints`, to be told as broken.
        self._rows[name] = (image, keypoints, labeled, box, size)

    def annotations(self) -> Annotations:
        """All of them."""
        images, keypoints, labeled, boxes, sizes = (
            zip(*self._rows.values(), strict=True) if self._rows else [()] * 5
        )
        k = len(self.skeleton.joints)
        lost = [
            (image, f"{reason} (leaves out {', '.join(who)})")
            for (image, reason), who in self._lost.items()
        ]
        counted = ((count, what) for what, count in self._counts.items() if count)
        counts = [
            f"{n} joint(s) {what} are taken as not labeled" for n, what in counted
        ]
        return Annotations(
            skeleton=self.skeleton,
            images=images,
            keypoints=np.array(keypoints, np.float32).reshape(-1, k, 2),
            labeled=np.array(labeled, bool).reshape(-1, k),
            boxes=np.array(boxes, np.float32).reshape(-1, 4),
            ids=tuple(self._rows),
            skipped=tuple(self._skipped),
            damaged=tuple(lost + self._damaged),
            stated=np.array(sizes, np.int64).reshape(-1, 2),
            understood=tuple(self.understood + counts),
        )


def are_objects(value: object) -> bool:
    """Whether a JSON value is a list of objects."""
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def numbers(value, shape: tuple[int, ...], name: str, meaning: str = "") -> np.ndarray:
    """A JSON value as float64 numbers that fit into float32; null is NaN.

    Raises:
      ValueError: it is none of these, or of another shape than that of the `meaning`;
        calls it by its `name`.
    """
    try:
        array = np.asarray(value, np.float64)
    except OverflowError as error:
        raise ValueError(f"its {name!r} has a number that is too large") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"its {name!r} are not all numbers") from error
    if array.shape != shape:
        wanted = meaning or shape
        raise ValueError(f"its {name!r} has shape {array.shape}, expected {wanted}")
    return array.clip(-1e9, 1e9)  # What is nonsense stays nonsense.


def locate(folders: Sequence[pathlib.Path], name: str) -> str | None:
    """The file of an image; None if it is in no folder.

    A name is written in either of Unicode's normal forms, and by Windows too.

    Raises:
      ValueError: two folders have different files of that name.
    """
    name = name.replace("\\", "/")
    forms = [name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))]
    found = []
    for folder in folders:
        there = [p for p in (str(folder / one) for one in forms) if os.path.isfile(p)]
        found += there[:1]
    for other in found[1:]:
        same = os.path.samefile(found[0], other)
        if not same and not filecmp.cmp(found[0], other, shallow=False):
            raise ValueError(f"{name} is {found[0]} or {other}, two different files")
    return found[0] if found else None
