"""Frames Labeled In Cinema (Sapp and Taskar, CVPR 2013), Sec. 4.1.

The official folder: `examples.mat`, a struct array with an element for each labeled
person, and `images/`. Several people may be on one frame. Of the 29 columns of joints
11 are filled in, all others NaN; the paper's "10 upper body joints" are taken to be
those of arms and hips and the two eyes, which leaves out the nose.
"""

from __future__ import annotations

import collections
import dataclasses
import pathlib

import numpy as np

from deeppose_tf import skeleton
from deeppose_tf.datasets import Annotations, matlab, require_folder

# Columns of `coords`, counted from zero, in the order of `skeleton.FLIC`: the left and
# the right shoulder, elbow and wrist; the hips; the eyes.
COLUMNS = (0, 1, 2, 3, 4, 5, 6, 9, 12, 13)
FIELDS = ("filepath", "coords", "torsobox", "istrain", "istest")
PLUS = "tr_plus_indices"


def read_splits(
    root: str, convention: str = "person", plus: str | None = None
) -> dict[str, Annotations]:
    """The official train and test part of FLIC; with `plus`, of FLIC-full.

    The file counts pixels from one (MATLAB), so half a pixel is taken off. A joint that
    is NaN has no label. Hips may lie below the frame. `torsos` are the boxes of the
    automatic detector by which the people were chosen.

    Args:
      root: the folder that holds `examples.mat` and `images`.
      convention: `person`: left is the person's own left, as in the file; `observer`:
        see `observer_centric`.
      plus: the index file of FLIC-plus, `tr_plus_indices.mat`: the elements of
        FLIC-full that are for training, counted from one.

    An element of another form is one person who is left out: it is `damaged`, of the
    training part, by its number from one.

    Raises:
      ValueError: a file is missing, damaged or of a wrong form; names it.
    """
    path = pathlib.Path(root) / "examples.mat"
    examples = matlab.load_structs(path, "examples", FIELDS)
    people, marks, numbers = _people(path, examples)
    if convention == "observer":
        people = observer_centric(people)
    train, test = marks.T
    if plus:
        train = np.isin(numbers, _plus_numbers(pathlib.Path(plus), len(examples)))
    both = numbers[train & test]
    if len(both):
        raise ValueError(
            f"{plus or path}: {len(both)} examples are for training and for testing, "
            f"such as number {both[0]}. Are both files of the same release?"
        )
    tested = dataclasses.replace(people.take(test), damaged=())
    return {"train": people.take(train), "test": tested}


def observer_centric(people: Annotations) -> Annotations:
    """Sides as of someone who faces the camera: whoever faces away changes sides.

    The conversion behind the published scores, by the rule of the data set's authors:
    where the left shoulder and the left hip are both further left in the image than
    the right ones, left and right of all joints change places (of the eyes too, which
    published scores leave out).
    """
    joints, mirror = people.skeleton.joints, list(people.skeleton.mirror)
    left = [joints.index("left_shoulder"), joints.index("left_hip")]
    right = [mirror[joint] for joint in left]
    x = people.keypoints[..., 0]
    away = (x[:, left] < x[:, right]).all(axis=1)
    away &= people.labeled[:, left + right].all(axis=1)
    keypoints, labeled = people.keypoints.copy(), people.labeled.copy()
    keypoints[away] = keypoints[away][:, mirror]
    labeled[away] = labeled[away][:, mirror]
    return dataclasses.replace(people, keypoints=keypoints, labeled=labeled)


def _people(
    path: pathlib.Path, examples: list[dict]
) -> tuple[Annotations, np.ndarray, np.ndarray]:
    """Everyone of the file, in its order, but for those with something wrong; whether
    they are marked for training and for testing, [N, 2] bool; and the numbers of their
    elements, counted from one, [N]."""
    folder = require_folder(path.parent / "images")
    seen, rows, damaged = collections.Counter(), [], []
    for number, example in enumerate(examples, start=1):
        file = str(example["filepath"])
        seen[file] += 1
        # People of one frame are told apart by their order.
        name = f"flic/{pathlib.PurePosixPath(file).stem}-{seen[file]}"
        try:
            coords, torso, marks = _labels(example)
            rows.append((str(folder / file), coords, torso, marks, name, number))
        except ValueError as error:
            damaged.append((f"{path}: example {number}", str(error)))
    images, coords, torsos, marks, ids, numbers = (
        zip(*rows, strict=True) if rows else [()] * 6
    )
    coords = np.reshape(coords, (-1, 2, 29))[:, :, COLUMNS] - 0.5
    keypoints = coords.transpose(0, 2, 1)  # [N, 10, 2]
    labeled = ~np.isnan(keypoints).any(axis=2)
    torsos = np.reshape(torsos, (-1, 4)) - 0.5
    sound = np.isfinite(torsos).all(axis=1)
    sound &= (torsos[:, 2:] > torsos[:, :2]).all(axis=1)
    people = Annotations(
        skeleton=skeleton.FLIC,
        images=images,
        keypoints=np.where(labeled[..., np.newaxis], keypoints, 0).astype(np.float32),
        labeled=labeled,
        boxes=np.zeros((len(ids), 4), np.float32),
        ids=ids,
        damaged=tuple(damaged),
        torsos=np.where(sound[:, np.newaxis], torsos, 0).astype(np.float32),
    )
    return people, np.array(marks, bool).reshape(-1, 2), np.array(numbers, np.int64)


def _labels(example: dict) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """`coords` [2, 29], `torsobox` [4], `istrain` and `istest` of an element."""
    if not isinstance(example["filepath"], str) or not example["filepath"]:
        raise ValueError("'filepath' names no file")
    shapes = {"coords": (2, 29), "torsobox": (4,), "istrain": (), "istest": ()}
    arrays = []
    for field, shape in shapes.items():
        array = np.asarray(example[field])
        if array.dtype.kind not in "fiub" or array.shape != shape:
            found = f"{array.dtype} of shape {array.shape}"
            raise ValueError(f"{field!r} is {found}, expected numbers of shape {shape}")
        arrays.append(array.astype(np.float64))
        if not shape and not np.isfinite(array):
            raise ValueError(f"{field!r} is {array}, expected a finite number")
    return arrays[0], arrays[1], arrays[2:]


def _plus_numbers(path: pathlib.Path, count: int) -> np.ndarray:
    """Numbers from one of the training examples of FLIC-plus."""
    numbers = matlab.load(path, PLUS).ravel()
    whole = np.isfinite(numbers) & (numbers == np.round(numbers))
    good = whole & (numbers >= 1) & (numbers <= count)
    if not good.all():
        raise ValueError(
            f"{path}: {PLUS!r} holds {numbers[~good][0]:g}, expected numbers from 1 to "
            f"{count}, of the examples of FLIC-full (examples.mat of that release)"
        )
    return numbers.astype(np.int64)
