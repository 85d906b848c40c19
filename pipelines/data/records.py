"""Annotations <-> TFRecord shards with a checked index, `dataset.json`.

A record is one person: the image file's bytes as found, and the labels. A data set is
written in `.NAME.partial` beside its place and renamed when it is whole. The partial
folder has its own `dataset.json`, which grows by an entry for each finished shard: the
same call after a kill keeps those whose checksums hold.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeppose_tf import files, geometry
from deeppose_tf import skeleton as skeletons
from deeppose_tf.datasets import Annotations, images

FORMAT = "deeppose-tf records 1"
KEYS = "counts finished fingerprint provenance shards skeleton skipped".split()
INDEX = "dataset.json"
FACES = "faces.json"  # In the partial folder, while first boxes are looked for.
SPLITS = ("train", "validation", "test")
SHARD_BYTES = 64 << 20
MIN_SHARDS = 16  # Of a big split, so that shards can be read in parallel and mixed.
MIN_SHARD_RECORDS = 128
_PARSED_AT_ONCE = 1024
_LABELS = ("keypoints", "labeled", "box")


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
      checksums: by split, SHA-256 of those of its shards and of its weights;
        hexadecimal.
      weights: by split, [N] int64 in the order of its records: how often an epoch shows
        each person.
    """

    directory: str
    skeleton: skeletons.Skeleton
    counts: dict[str, int]
    shards: dict[str, tuple[str, ...]]
    provenance: dict
    skipped: tuple[tuple[str, str], ...]
    checksums: dict[str, str]
    weights: dict[str, np.ndarray] = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class People:
    """The labels of a split, without images.

    Attributes:
      ids: N, of the records.
      keypoints: [N, K, 2] float32, pixels.
      labeled: [N, K] bool.
      boxes: [N, 4] float32 first boxes, pixels; zeros for the whole image.
      sizes: [N, 2] int32 height and width of the images.
      weights: [N] int64, see `Index`.
    """

    ids: tuple[str, ...]
    keypoints: np.ndarray
    labeled: np.ndarray
    boxes: np.ndarray
    sizes: np.ndarray
    weights: np.ndarray

    @property
    def first_boxes(self) -> np.ndarray:
        """[N, 4] pixels, the whole image spelled out."""
        return geometry.whole_image_boxes(
            tf.constant(self.boxes), tf.constant(self.sizes)
        ).numpy()


def write(
    splits: dict[str, Annotations],
    output: str,
    provenance: dict | None = None,
    skipped: tuple[tuple[str, str], ...] = (),
    fingerprint: str | None = None,
    seed: int = 0,
    convert: bool = False,
    progress: Callable[[int], None] | None = None,
    weights: np.ndarray | None = None,
) -> Index:
    """Writes a data set, or continues or confirms one written by the same call.

    The records of `train` are shuffled once, by `seed`.

    Args:
      splits: by name (`train`, `validation`, `test`), all with the same skeleton.
      output: the directory to make; its parent is made too.
      provenance: JSON value to keep: how the data set was made; its `arguments`, by
        name, are those that a later run compares.
      skipped: (what, reason) of what had been left out, kept in the index.
      fingerprint: identity of the data set; by default that of the other arguments.
      convert: stores odd images as upright 8-bit RGB PNG instead of refusing them.
      progress: called with the number of records done.
      weights: [N] positive integers, how often an epoch shows each person of `train`;
        by default once.

    Raises:
      ValueError: `output` (or what a killed run left of it) is something else; or an
        image cannot be stored. Names it and says what to do.
    """
    if len({people.skeleton for people in splits.values()}) != 1:
        raise ValueError("there must be splits, all of one skeleton")
    provenance = provenance or {}
    if fingerprint is None:
        fingerprint = identity(
            splits, [provenance, seed, convert, np.array(weights).tolist()]
        )
    if finished(output, fingerprint, provenance.get("arguments", {})):
        return verify(output)
    partial = partial_directory(output)
    with files.alone(partial, "run"):
        content = _begin(partial, splits, provenance, fingerprint)
        _write_shards(partial, content, splits, weights, seed, convert, progress)
        content |= {
            "finished": True,
            "skipped": [{"what": what, "reason": why} for what, why in skipped],
        }
        files.write_json(partial / INDEX, content, digest=True)
        (partial / FACES).unlink(missing_ok=True)
        os.replace(partial, pathlib.Path(output).resolve())
        files.sync(partial.parent)
    return read_index(output)


def identity(splits: dict[str, Annotations], arguments) -> str:
    """A fingerprint of labels, image files (size and time) and other arguments."""
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode())
    for split, people in sorted(splits.items()):
        head = [FORMAT, split, skeletons.to_json(people.skeleton)]
        stats = [(path, *_stat(path)) for path in people.images]
        digest.update(json.dumps([head, people.ids, stats]).encode())
        for array in (people.keypoints, people.labeled, people.boxes, people.torsos):
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def finished(output: str, fingerprint: str, arguments: dict) -> bool:
    """Whether `output` already is the data set of this fingerprint.

    Args:
      arguments: how it is to be made, to tell what is different.

    Raises:
      ValueError: something else is there.
    """
    folder = pathlib.Path(output)
    if not folder.exists() or folder.is_dir() and not any(folder.iterdir()):
        return False
    if not (folder / INDEX).is_file():
        raise ValueError(
            f"{output}: exists and is no prepared data set; nothing was written. Give "
            "another --output"
        )
    content = load(output)
    if content["fingerprint"] == fingerprint:
        return True
    raise ValueError(
        f"{output}: holds another data set ({_difference(content, arguments)}). "
        "Nothing was written; give another --output, or delete that folder first"
    )


def partial_directory(output: str) -> pathlib.Path:
    """Where a data set is while it is being written."""
    target = pathlib.Path(output).resolve()
    return target.parent / f".{target.name}.partial"


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
        weights={
            split: np.array([x for s in shards for x in _weights(folder, s)], np.int64)
            for split, shards in content["shards"].items()
        },
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


def read_people(index: Index, split: str, limit: int | None = None) -> People:
    """The labels of a split, in the order of its records.

    Raises:
      ValueError: the data set has no such split, or nobody in it.
    """
    if not index.counts.get(split):
        having = ", ".join(name for name, count in index.counts.items() if count)
        raise ValueError(f"{index.directory}: nobody in its {split}; it has {having}")
    joints = len(index.skeleton.joints)

    def labels(serialized):
        record = parse(serialized, joints)
        return [record[name] for name in ("id", *_LABELS, "size")]

    dataset = tf.data.TFRecordDataset(list(index.shards[split]))
    dataset = dataset.take(-1 if limit is None else limit).map(labels)
    batches = dataset.batch(_PARSED_AT_ONCE).as_numpy_iterator()
    ids, *arrays = map(np.concatenate, zip(*batches, strict=True))
    names = tuple(name.decode() for name in ids)
    return People(names, *arrays, index.weights[split][: len(names)])


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
    again = f"Delete {directory} and run deeppose-prepare again"
    try:
        content = files.read_json(path)
    except ValueError as error:
        raise ValueError(f"{error}. {again}") from error
    if content.get("format", FORMAT) != FORMAT:
        raise ValueError(
            f"{path}: format {content['format']!r}, this version reads {FORMAT!r}. Run "
            "deeppose-prepare again into another folder"
        )
    try:
        if missing := ", ".join(sorted(set(KEYS) - content.keys())):
            raise ValueError(missing)
        _require_sound(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}). {again}") from error
    return content


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, hexadecimal."""
    with open(path, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        return digest.hexdigest()


def _begin(partial, splits, provenance, fingerprint) -> dict:
    """The index of the partial directory: the one found there, or a new one."""
    for left in partial.glob(".*.partial"):  # an index, by a kill
        left.unlink()
    counts = {split: len(annotations) for split, annotations in splits.items()}
    if (partial / INDEX).is_file():
        content = load(str(partial))
        # Earlier versions wrote copies of people, and counted these.
        if content["fingerprint"] == fingerprint and content["counts"] == counts:
            return content
        difference = _difference(content, provenance.get("arguments", {}))
        raise ValueError(
            f"{partial}: left by a run that was stopped, of another data set "
            f"({difference}). Repeat that command to finish it, or delete that folder"
        )
    content = {
        "format": FORMAT,
        "finished": False,
        "fingerprint": fingerprint,
        "skeleton": skeletons.to_json(next(iter(splits.values())).skeleton),
        "counts": counts,
        "shards": {split: [] for split in splits},
        "provenance": provenance,
        "skipped": [],
    }
    files.write_json(partial / INDEX, content, digest=True)
    return content


def _difference(content: dict, arguments: dict) -> str:
    """Which arguments are others now; if none, the files are."""
    old, new = (
        content["provenance"].get("arguments", {}),
        json.loads(json.dumps(arguments)),
    )
    changed = [
        f"{name} was {old.get(name)}, is {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    return "; ".join(changed) or "the same flags, but labels or images have changed"


def _write_shards(partial, content, splits, weights, seed, convert, progress) -> None:
    """Writes the shards that `content` does not list yet, and adds them to it."""
    done = 0
    for split, people in splits.items():
        order = np.arange(len(people))
        if split == "train":
            order = np.random.default_rng(seed).permutation(order)
        chunks = np.array_split(order, _shard_count(people)) if len(people) else []
        listed = {shard["file"]: shard for shard in content["shards"][split]}
        for i, chunk in enumerate(chunks):
            name = f"{split}-{i:05d}-of-{len(chunks):05d}.tfrecord"
            shard = listed.get(name)
            if not shard or not _intact(partial / name, shard):
                report = progress and (lambda n, done=done: progress(done + n))
                _write_shard(partial / name, people.take(chunk), convert, report)
                shard = {
                    "file": name,
                    "records": len(chunk),
                    "bytes": (partial / name).stat().st_size,
                    "sha256": sha256(partial / name),
                }
                if split == "train" and weights is not None and max(weights[chunk]) > 1:
                    # As text: a list of JSON takes a line for each number.
                    shard["weights"] = " ".join(map(str, weights[chunk]))
                listed[name] = shard
                content["shards"][split] = [listed[key] for key in sorted(listed)]
                files.write_json(partial / INDEX, content, digest=True)
            done += len(chunk)
            if progress:
                progress(done)


def _write_shard(path, people, convert, progress) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for i, image_path in enumerate(people.images):
                image, height, width = images.encoded(image_path, convert)
                writer.write(serialize(people, i, image, (height, width)))
                if progress:
                    progress(i + 1)
    except tf.errors.OpError as error:  # A full disk, for one.
        raise OSError(f"{temporary}: cannot be written ({error.message})") from error
    files.sync(temporary)
    os.replace(temporary, path)
    files.sync(path.parent)


def _shard_count(annotations: Annotations) -> int:
    size = sum(max(0, _stat(path)[0]) for path in annotations.images)
    spread = min(MIN_SHARDS, -(-len(annotations) // MIN_SHARD_RECORDS))
    return max(spread, -(-size // SHARD_BYTES))


def _intact(path: pathlib.Path, shard: dict) -> bool:
    return path.is_file() and sha256(path) == shard["sha256"]


def _stat(path: str) -> tuple[int, int]:
    """Size and time of change; (-1, -1) for a missing file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _checksum(shards: list[dict]) -> str:
    content = "".join(s["sha256"] + s.get("weights", "") for s in shards)
    return hashlib.sha256(content.encode()).hexdigest()


def _require_sound(content: dict) -> None:
    """That shards are files of this folder with as many records as are counted, none of
    which, with its length and checksums, is shorter than 16 bytes."""
    skeletons.from_json(content["skeleton"])
    for split, shards in content["shards"].items():
        count = 0
        for shard in shards:
            name, records = shard["file"], shard["records"]
            if name != os.path.basename(name) or not name.startswith(f"{split}-"):
                raise ValueError(f"{name!r} is no shard of {split}")
            if not 0 <= records <= shard["bytes"] // 16:
                raise ValueError(f"{records} records in {shard['bytes']} bytes")
            count += records
        if content["finished"] and count != content["counts"][split]:
            raise ValueError(f"the shards of {split} have {count} records")


def _weights(folder: pathlib.Path, shard: dict) -> list[int]:
    stored = shard.get("weights", "1 " * shard["records"]).split()
    weights = [int(x) for x in stored if x.isdecimal() and len(x) < 6]
    if len(weights) != shard["records"] or 0 in weights:
        raise ValueError(
            f"{folder / INDEX}: 'weights' of {shard['file']} must be its "
            f"{shard['records']} positive whole numbers"
        )
    return weights


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
