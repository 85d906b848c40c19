"""The people of a split: their labels, and who is in it more than once."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import tensorflow as tf

from deeppose_tf import geometry
from deeppose_tf.pipelines.data import records

# Records parsed at a time.
_BATCH = 1024
_LABELS = ("keypoints", "labeled", "box")
_FIELDS = ("id", *_LABELS, "size")


@dataclasses.dataclass(frozen=True)
class People:
    """The labels of a split, without images.

    Attributes:
      ids: N, of the records.
      keypoints: [N, K, 2] float32, pixels.
      labeled: [N, K] bool.
      boxes: [N, 4] float32 first boxes, pixels; zeros for the whole image.
      sizes: [N, 2] int32 height and width of the images.
    """

    ids: tuple[str, ...]
    keypoints: np.ndarray
    labeled: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray

    @property
    def first_boxes(self) -> np.ndarray:
        """[N, 4] pixels, the whole image spelled out."""
        return geometry.whole_image_boxes(
            tf.constant(self.boxes), tf.constant(self.sizes)
        ).numpy()


def read_people(index: records.Index, split: str, limit: int | None = None) -> People:
    """The labels of a split, in the order of its records.

    Raises:
      ValueError: the data set has no such split, or nobody in it.
    """
    if not index.counts.get(split):
        having = ", ".join(name for name, count in index.counts.items() if count)
        raise ValueError(f"{index.directory}: nobody in its {split}; it has {having}")
    joints = len(index.skeleton.joints)

    def labels(serialized):
        record = records.parse(serialized, joints)
        return [record[name] for name in _FIELDS]

    dataset = tf.data.TFRecordDataset(list(index.shards[split]))
    dataset = dataset.take(-1 if limit is None else limit).map(labels)
    batches = dataset.batch(_BATCH).as_numpy_iterator()
    ids, *arrays = map(np.concatenate, zip(*batches, strict=True))
    return People(tuple(name.decode() for name in ids), *arrays)


def fingerprint(people: People) -> str:
    """Of ids and labels, whatever their order, first boxes and images: the same for the
    same people alone."""
    parts = []
    for person, keypoints, labeled in zip(
        people.ids, people.keypoints, people.labeled, strict=True
    ):
        # What is not labeled is no label, whatever is stored there.
        labels = np.where(labeled[:, None], keypoints, 0).astype("<f4").tobytes()
        content = person.encode() + b"\0" + labeled.astype("u1").tobytes() + labels
        parts.append(hashlib.sha256(content).digest())
    return hashlib.sha256(b"".join(sorted(parts))).hexdigest()[:16]


def copies(
    index: records.Index, split: str, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Who is in a split more than once, as `--repeat` has it: image and labels tell.

    Returns:
      [N] bool, in the order of the records: the first of a person. And for each of
      these, how many records are the same.
    """
    joints = len(index.skeleton.joints)

    def key(serialized):
        record = records.parse(serialized, joints)
        labels = [tf.io.serialize_tensor(record[name]) for name in _LABELS]
        content = tf.strings.join([record["image"], *labels])
        return tf.strings.to_hash_bucket_fast(content, 2**63 - 1)

    dataset = tf.data.TFRecordDataset(list(index.shards[split]))
    dataset = dataset.take(-1 if limit is None else limit).map(key, tf.data.AUTOTUNE)
    keys = np.concatenate(list(dataset.batch(_BATCH).as_numpy_iterator()))
    _, places, counts = np.unique(keys, return_index=True, return_counts=True)
    return np.isin(np.arange(len(keys)), places), counts[np.argsort(places)]
