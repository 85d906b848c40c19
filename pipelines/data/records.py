"""Annotations <-> TFRecord shards with a checked index, `dataset.json`.

A record is one person: the image file's bytes as found, and the labels. A data set is
written beside its place and renamed when whole, so a killed run leaves nothing half
done and the same call continues it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib

import numpy as np
import tensorflow as tf

from deeppose_tf import skeleton as skeletons
from deeppose_tf.datasets import Annotations

FORMAT = "deeppose-tf records 1"
KEYS = "counts finished fingerprint provenance shards skeleton skipped".split()
INDEX = "dataset.json"
SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Index:
    """What a prepared data set holds.

    Attributes:
      directory: where it is.
      skeleton: names the K joints.
      counts: records by split.
      shards: absolute paths of the TFRecord files by split.
      provenance: how it was made.
      skipped: (what, reason) for everything that was left out.
      checksums: by split, SHA-256 of those of its shards; hexadecimal.
    """

    directory: str
    skeleton: skeletons.Skeleton
    counts: dict[str, int]
    shards: dict[str, tuple[str, ...]]
    provenance: dict
    skipped: tuple[tuple[str, str], ...]
    checksums: dict[str, str]


def read_index(directory: str) -> Index:
    """The index of a prepared data set; checks that all its shards are there.

    Compares sizes only; `verify` reads every byte.

    Raises:
      ValueError: not a finished data set, or a shard is missing or of a wrong size;
        names the file and what to do.
    """
    content = load(directory)
    if not content["finished"]:
        raise ValueError(
            f"{directory}: an unfinished data set. Run the same deeppose-prepare again "
            "to finish it"
        )
    folder = pathlib.Path(directory).resolve()
    for shard in _shards(content):
        file = folder / shard["file"]
        size = file.stat().st_size if file.is_file() else None
        if size != shard["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise ValueError(
                f"{file}: {found}, expected {shard['bytes']} bytes. Delete {folder} "
                "and run deeppose-prepare again"
            )
    return Index(
        directory=str(folder),
        skeleton=skeletons.from_json(content["skeleton"]),
        counts=dict(content["counts"]),
        shards={
            split: tuple(str(folder / shard["file"]) for shard in shards)
            for split, shards in content["shards"].items()
        },
        provenance=content["provenance"],
        skipped=tuple((s["what"], s["reason"]) for s in content["skipped"]),
        checksums={s: _checksum(shards) for s, shards in content["shards"].items()},
    )


def verify(directory: str) -> Index:
    """As `read_index`, and compares the SHA-256 of every shard.

    Raises:
      ValueError: as `read_index`, or a shard's content has changed.
    """
    index = read_index(directory)
    for shard in _shards(load(directory)):
        file = pathlib.Path(index.directory) / shard["file"]
        if sha256(file) != shard["sha256"]:
            raise ValueError(
                f"{file}: its content has changed (SHA-256 differs). Delete "
                f"{index.directory} and run deeppose-prepare again"
            )
    return index


def serialize(
    people: Annotations, i: int, image: bytes, size: tuple[int, int]
) -> bytes:
    """The record of person i; `parse` is the way back.

    Args:
      image: encoded JPEG or PNG, 8-bit RGB, upright.
      size: its height and width.
    """
    # Never NaN where not labeled: not even times zero would keep it out of a loss.
    keypoints = np.where(people.labeled[i][:, None], people.keypoints[i], 0.0)
    features = {
        "image": _bytes(image),
        "keypoints": _floats(keypoints),
        "labeled": _integers(people.labeled[i]),
        "box": _floats(people.boxes[i]),
        "id": _bytes(people.ids[i].encode()),
        "size": _integers(size),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString(deterministic=True)


def parse(serialized: tf.Tensor, joints: int) -> dict[str, tf.Tensor]:
    """One record, the image still encoded.

    Args:
      serialized: scalar string.
      joints: K, the number of joints of the skeleton.

    Returns:
      image: scalar string, a JPEG or PNG, 8-bit RGB, upright.
      keypoints: [K, 2] float32, pixels; zeros where not labeled.
      labeled: [K] bool.
      box: [4] float32, pixels; all zeros for the whole image.
      id: scalar string, unique in the data set.
      size: [2] int32, height and width of the image.
    """
    parsed = tf.io.parse_single_example(
        serialized,
        {
            "image": tf.io.FixedLenFeature([], tf.string),
            "keypoints": tf.io.FixedLenFeature([joints, 2], tf.float32),
            "labeled": tf.io.FixedLenFeature([joints], tf.int64),
            "box": tf.io.FixedLenFeature([4], tf.float32),
            "id": tf.io.FixedLenFeature([], tf.string),
            "size": tf.io.FixedLenFeature([2], tf.int64),
        },
    )
    parsed["labeled"] = tf.cast(parsed["labeled"], tf.bool)
    parsed["size"] = tf.cast(parsed["size"], tf.int32)
    return parsed


def load(directory: str) -> dict:
    """`dataset.json` as it is, finished or not.

    Raises:
      ValueError: it is missing, damaged or of another version.
    """
    path = pathlib.Path(directory) / INDEX
    if not path.is_file():
        raise ValueError(
            f"{directory}: no {INDEX} there, so no prepared data set. Make one with "
            "deeppose-prepare"
        )
    try:
        content = json.loads(path.read_text())
        form, missing = content.get("format"), set(KEYS) - content.keys()
    except (ValueError, AttributeError) as error:
        form, missing = FORMAT, {str(error)}
    if form != FORMAT:
        raise ValueError(
            f"{path}: format {form!r}, this version reads {FORMAT!r}. Run "
            "deeppose-prepare again into another folder"
        )
    if missing:
        raise ValueError(
            f"{path}: damaged ({', '.join(sorted(missing))}). Delete {directory} and "
            "run deeppose-prepare again"
        )
    return content


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _checksum(shards: list[dict]) -> str:
    return hashlib.sha256("".join(s["sha256"] for s in shards).encode()).hexdigest()


def _shards(content: dict) -> list[dict]:
    return [shard for shards in content["shards"].values() for shard in shards]


def _bytes(value: bytes) -> tf.train.Feature:
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))


def _floats(values) -> tf.train.Feature:
    values = np.asarray(values, np.float32).ravel()
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def _integers(values) -> tf.train.Feature:
    values = np.asarray(values, np.int64)
    return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
