"""Buffy Stickmen (Ferrari et al., CVPR 2008), which Sec. 4.2 tests a model of FLIC on.

The official folder: `data/buffy_s5e2_sticks.txt` and so on for each episode, and
`images/buffy_s5e2_original/000063.jpg`. The upper body of one person a frame is labeled
by six sticks, which are turned into the joints of `skeleton.BUFFY`.
"""

from __future__ import annotations

import pathlib
import re

import numpy as np

from deeppose_tf import skeleton
from deeppose_tf.datasets import Annotations, Missing, require_folder

# Those that results are reported on; the others are for training.
TEST_EPISODES = (2, 5, 6)
_STICKS = 6


def read_splits(root: str) -> dict[str, Annotations]:
    """The episodes of the folder `root` that are for training, and those for testing.

    Left and right are those of the image: the arm on the image's left becomes the right
    one. So sides are as of someone who faces the camera, and for those who do they are
    the person's own. Nothing converts them: it is not labeled who faces the camera.

    The files count pixels from one (MATLAB), so half a pixel is taken off.

    Raises:
      ValueError: a file is missing or damaged; names it and the line.
    """
    folder = pathlib.Path(root)
    rows = []
    for number, file in _episodes(folder):
        name = file.name.removesuffix("_sticks.txt")
        pictures = require_folder(folder / "images" / f"{name}_original")
        for frame, sticks in _read_frames(file).items():
            image = str(pictures / f"{frame:06d}.jpg")
            person = f"buffy/{name.removeprefix('buffy_')}-{frame:06d}"
            rows.append((number, sticks, image, person))
    episodes, sticks, images, ids = zip(*rows, strict=True)
    keypoints = joints_of(np.array(sticks)) - 0.5
    people = Annotations(
        skeleton=skeleton.BUFFY,
        images=images,
        keypoints=keypoints.astype(np.float32),
        labeled=np.isfinite(keypoints).all(axis=2),
        boxes=np.zeros((len(ids), 4), np.float32),
        ids=ids,
    )
    test = np.isin(episodes, TEST_EPISODES)
    return {"train": people.take(~test), "test": people.take(test)}


def joints_of(sticks: np.ndarray) -> np.ndarray:
    """[N, 6, 2, 2] sticks as in the files -> [N, 9, 2] joints of `skeleton.BUFFY`.

    The two ends of a stick come in any order. The torso's end that is nearer to the
    shoulders is the neck, and the head's end that is farther from the neck is its top.
    """
    # Each [N, 2, 2]: its ends.
    torso, left_upper, right_upper, *lower, head = np.moveaxis(sticks, 1, 0)
    left_lower, right_lower = lower
    # The image's right is the left of someone who faces the camera.
    left, right = _arm(right_upper, right_lower), _arm(left_upper, left_lower)
    shoulders = (left[0] + right[0]) / 2
    neck, pelvis = _nearer_first(torso, shoulders)
    _, top = _nearer_first(head, neck)
    return np.stack([*left, *right, neck, pelvis, top], axis=1)


def _arm(upper, lower):
    """Shoulder, elbow and wrist, [N, 2] each, of an arm's two sticks [N, 2, 2].

    The elbow is the middle of the two ends that are nearest to each other: they are
    points of their own, as a rule about 4 pixels apart.
    """
    gaps = upper[:, :, np.newaxis] - lower[:, np.newaxis]  # [N, 2, 2, 2]
    nearest = np.linalg.norm(gaps, axis=-1).reshape(-1, 4).argmin(axis=1)
    n, (i, j) = np.arange(len(upper)), divmod(nearest, 2)
    return upper[n, 1 - i], (upper[n, i] + lower[n, j]) / 2, lower[n, 1 - j]


def _nearer_first(stick, point):
    """The ends of sticks [N, 2, 2] by their distance to points [N, 2]."""
    distances = np.linalg.norm(stick - point[:, np.newaxis], axis=-1)  # [N, 2]
    order = np.argsort(distances, axis=1)[..., np.newaxis]
    return np.moveaxis(np.take_along_axis(stick, order, axis=1), 1, 0)


def _episodes(folder: pathlib.Path) -> list[tuple[int, pathlib.Path]]:
    """(number, file of sticks) of the episodes that are there."""
    matches = [
        (re.fullmatch(r"buffy_s5e(\d+)_sticks\.txt", file.name), file)
        for file in (folder / "data").glob("*")
    ]
    found = sorted((int(match[1]), file) for match, file in matches if match)
    if not found:
        raise Missing(
            f"{folder / 'data'}: no buffy_s5e2_sticks.txt or the like there. Give the "
            "folder of the official release, with data and images"
        )
    return found


def _read_frames(path: pathlib.Path) -> dict[int, np.ndarray]:
    """[6, 2, 2] sticks by frame: a line with its number, then six lines of numbers."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as text ({error})") from error
    rows = [(i + 1, line.split()) for i, line in enumerate(lines) if line.strip()]
    frames = {}
    for start in range(0, len(rows), 1 + _STICKS):
        (at, head), *body = rows[start : start + 1 + _STICKS]
        if len(head) != 1 or not head[0].isdecimal() or int(head[0]) in frames:
            raise ValueError(
                f"{path}, line {at}: {' '.join(head)!r}, expected the number of a "
                "frame that was not there before"
            )
        if len(body) != _STICKS:
            raise ValueError(
                f"{path}: ends within frame {head[0]}, after {len(body)} of its "
                f"{_STICKS} sticks. Get it again"
            )
        frames[int(head[0])] = np.stack([_stick(path, *row) for row in body])
    return frames


def _stick(path, at, words) -> np.ndarray:
    try:
        return np.array(words, np.float64).reshape(2, 2)
    except ValueError as error:
        raise ValueError(
            f"{path}, line {at}: {' '.join(words)!r}, expected a stick: x1 y1 x2 y2"
        ) from error
