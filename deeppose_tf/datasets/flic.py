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
from deeppose_tf.datasets import Annotations, matlab

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

    Raises:
      ValueError: a file is missing, damaged or of a wrong form; names it, and the
        element by its number from one.
    """
    path = pathlib.Path(root) / "examples.mat"
    examples = matlab.load_structs(path, "examples", FIELDS)
    people = _people(path, examples)
    if convention == "observer":
        people = observer_centric(people)
    elif convention != "person":
        raise ValueError(f"convention {convention!r}: expected person or observer")
    test = _marked(path, examples, "istest")
    train = _plus_rows(pathlib.Path(plus), len(people)) if plus else None
    if train is None:
        train = _marked(path, examples, "istrain")
    both = np.intersect1d(train, test)
    if len(both):
        raise ValueError(
            f"{plus or path}: {len(both)} examples are for training and for testing, "
            f"such as number {both[0] + 1}. Are both files of the same release?"
        )
    return {"train": people.take(train), "test": people.take(test)}


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


def _people(path: pathlib.Path, examples: list[dict]) -> Annotations:
    """Everyone of the file, in its order."""
    folder = path.parent / "images"
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; the images belong there")
    files = [example["filepath"] for example in examples]
    for i, file in enumerate(files):
        if not isinstance(file, str) or not file:
            raise ValueError(f"{path}: example {i + 1}: 'filepath' names no file")
    keypoints = _arrays(path, examples, "coords", (2, 29))[:, :, COLUMNS] - 0.5
    keypoints = keypoints.transpose(0, 2, 1)  # [N, 10, 2]
    labeled = ~np.isnan(keypoints).any(axis=2)
    torsos = _arrays(path, examples, "torsobox", (4,)) - 0.5
    sound = np.isfinite(torsos).all(axis=1) & (torsos[:, 2:] > torsos[:, :2]).all(
        axis=1
    )
    return Annotations(
        skeleton=skeleton.FLIC,
        images=tuple(str(folder / file) for file in files),
        keypoints=np.where(labeled[..., np.newaxis], keypoints, 0).astype(np.float32),
        labeled=labeled,
        boxes=np.zeros((len(files), 4), np.float32),
        ids=_ids(files),
        torsos=np.where(sound[:, np.newaxis], torsos, 0).astype(np.float32),
    )


def _ids(files: list[str]) -> tuple[str, ...]:
    """Frames with a number: people of one frame are told apart by their order."""
    seen = collections.Counter()
    ids = []
    for file in files:
        seen[file] += 1
        ids.append(f"flic/{pathlib.PurePosixPath(file).stem}-{seen[file]}")
    return tuple(ids)


def _arrays(path, examples, field, shape) -> np.ndarray:
    """One field of all elements, [N, *shape] float64."""
    arrays = []
    for i, example in enumerate(examples):
        array = np.asarray(example[field])
        if array.dtype.kind not in "fiub" or array.shape != shape:
            raise ValueError(
                f"{path}: example {i + 1}: {field!r} is {array.dtype} of shape "
                f"{array.shape}, expected numbers of shape {shape}"
            )
        arrays.append(array.astype(np.float64))
    return np.stack(arrays)


def _marked(path, examples, field) -> np.ndarray:
    """Indices of the elements whose field is 1."""
    return np.flatnonzero(_arrays(path, examples, field, ()))


def _plus_rows(path: pathlib.Path, count: int) -> np.ndarray:
    """Indices from zero of the training examples of FLIC-plus, each once."""
    numbers = matlab.load(path, PLUS).ravel()
    whole = np.isfinite(numbers) & (numbers == np.round(numbers))
    good = whole & (numbers >= 1) & (numbers <= count)
    if not good.all():
        raise ValueError(
            f"{path}: {PLUS!r} holds {numbers[~good][0]:g}, expected numbers from 1 to "
            f"{count}, of the examples of FLIC-full (examples.mat of that release)"
        )
    return np.unique(numbers.astype(np.int64)) - 1
