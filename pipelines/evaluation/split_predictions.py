"""The poses of a split's people by stage, predicted from the whole images.

`kept_poses` keeps them in a file, so that a stopped run goes on where it was and what
is predicted once serves every table and figure.
"""

from __future__ import annotations

import functools
import io
import pathlib
import zipfile
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from deeppose_tf import files
from deeppose_tf.pipelines.data import inputs, records

keras = tf.keras

Pose = tuple[np.ndarray, np.ndarray]

# What NumPy raises of a file that is no archive of arrays, besides zipfile's own.
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,  # an encrypted part, or NotImplementedError: another compression
)


def predict_people(
    cascade, index: records.Index, split: str, count: int, verbose: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """The poses of the first people of a split.

    Returns:
      [N, S, K, 2] pixels, NaN for those who cannot be answered; [N, K] scores.
    """
    return _stacked(list(_predict(cascade, index, split, 0, count, verbose)))


def kept_poses(
    cascade,
    index: records.Index,
    split: str,
    count: int,
    path: pathlib.Path,
    verbose: int = 1,
) -> tuple[np.ndarray, np.ndarray]:
    """As `predict_people`, but predicts only those whom a file does not have yet.

    Args:
      path: the file, of this cascade and split alone; written as `files.kept` does.
    """
    found = _read(path, cascade.count, len(cascade.skeleton.joints))
    with files.kept(lambda: _write(path, found)) as done:
        for pose in _predict(cascade, index, split, len(found), count, verbose):
            found.append(pose)
            done()
    return _stacked(found[:count])


def read_image(index: records.Index, split: str, person: int) -> np.ndarray:
    """One image of a split, [H, W, 3] uint8 RGB, read again: keeping all of them would
    take memory by the size of the set."""
    record = next(iter(read_records(index, split).skip(person).take(1)))
    return inputs.decode(record["image"]).numpy()


def read_records(index: records.Index, split: str) -> tf.data.Dataset:
    """The records of a split in order; see `records.parse`."""
    parse = functools.partial(records.parse, joints=len(index.skeleton.joints))
    return tf.data.TFRecordDataset(list(index.shards[split])).map(parse)


def _predict(cascade, index, split, first, count, verbose) -> Iterator[Pose]:
    """[S, K, 2] pixels and [K] scores of the people from `first` to before `count`."""
    if first >= count:
        return
    bar = keras.utils.Progbar(count, verbose=verbose, unit_name="person")
    dataset = read_records(index, split).skip(first).take(count - first)
    dataset = dataset.map(lambda r: (inputs.decode(r["image"]), r["box"]))
    for i, (image, box) in enumerate(dataset.prefetch(8), start=first):
        answer = cascade.predict(image.numpy(), box.numpy()[np.newaxis])
        poses, valid = answer["keypoints_by_stage"][0], answer["valid"][0]
        yield np.where(valid, poses, np.nan), answer["scores"][0]
        bar.update(i + 1)


def _stacked(found: list[Pose]) -> tuple[np.ndarray, np.ndarray]:
    poses, weights = zip(*found, strict=True)
    return np.stack(poses), np.stack(weights)


def _read(path, stages, joints) -> list[Pose]:
    """Nobody where there is no file, or a damaged one or one of other shapes."""
    try:
        # By way of bytes: of a damaged file NumPy would leave the handle open.
        with np.load(io.BytesIO(path.read_bytes())) as content:
            poses, weights = content["poses"], content["scores"]
    except (*_UNREADABLE, zipfile.BadZipFile):
        return []
    count = len(poses) if poses.ndim else 0
    fits = poses.shape == (count, stages, joints, 2)
    fits = fits and weights.shape == (count, joints)
    fits = fits and poses.dtype.kind == weights.dtype.kind == "f"
    return list(zip(poses, weights, strict=True)) if fits else []


def _write(path, found) -> None:
    poses, weights = _stacked(found)
    content = io.BytesIO()
    np.savez(content, poses=poses, scores=weights)
    files.write_bytes(path, content.getvalue())
