"""Annotations -> a directory of TFRecord shards; killed at any moment, it continues.

Everything is written in `.NAME.partial` beside the output and renamed at the end. The
partial directory carries its own `dataset.json`, which grows by one entry per finished
shard; a run that finds it keeps those shards if their checksums hold.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeppose_tf import files
from deeppose_tf import skeleton as skeletons
from deeppose_tf.datasets import Annotations, images
from deeppose_tf.pipelines.data import found_faces, records

SHARD_BYTES = 64 << 20
MIN_SHARDS = 16  # Of a big split, so that shards can be read in parallel and mixed.
MIN_SHARD_RECORDS = 128


def write(
    splits: dict[str, Annotations],
    output: str,
    provenance: dict | None = None,
    skipped: tuple[tuple[str, str], ...] = (),
    fingerprint: str | None = None,
    seed: int = 0,
    convert: bool = False,
    progress: Callable[[int], None] | None = None,
) -> records.Index:
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

    Raises:
      ValueError: `output` (or what a killed run left of it) is something else; or an
        image cannot be stored. Names it and says what to do.
    """
    if len({people.skeleton for people in splits.values()}) != 1:
        raise ValueError("there must be splits, all of one skeleton")
    provenance = provenance or {}
    if fingerprint is None:
        fingerprint = identity(splits, [provenance, seed, convert])
    if finished(output, fingerprint, provenance.get("arguments", {})):
        return records.verify(output)
    partial = partial_directory(output)
    partial.mkdir(parents=True, exist_ok=True)
    with files.alone(partial, "run"):
        content = _begin(partial, splits, provenance, fingerprint)
        _write_shards(partial, content, splits, seed, convert, progress)
        content |= {
            "finished": True,
            "skipped": [{"what": what, "reason": why} for what, why in skipped],
        }
        _write_json(partial / records.INDEX, content)
        (partial / found_faces.KEPT).unlink(missing_ok=True)
        os.replace(partial, pathlib.Path(output).resolve())
        files.sync(partial.parent)
    return records.read_index(output)


def identity(splits: dict[str, Annotations], arguments) -> str:
    """A fingerprint of labels, image files (size and time) and other arguments."""
    digest = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode())
    for split, people in sorted(splits.items()):
        head = [records.FORMAT, split, skeletons.to_json(people.skeleton)]
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
    if not (folder / records.INDEX).is_file():
        raise ValueError(
            f"{output}: exists and is no prepared data set; nothing was written. Give "
            "another --output"
        )
    content = records.load(output)
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


def _begin(partial, splits, provenance, fingerprint) -> dict:
    """The index of the partial directory: the one found there, or a new one."""
    for left in partial.glob(".*.partial"):  # an index, by a kill
        left.unlink()
    if (partial / records.INDEX).is_file():
        content = records.load(str(partial))
        if content["fingerprint"] == fingerprint:
            return content
        difference = _difference(content, provenance.get("arguments", {}))
        raise ValueError(
            f"{partial}: left by a run that was stopped, of another data set "
            f"({difference}). Repeat that command to finish it, or delete that folder"
        )
    content = {
        "format": records.FORMAT,
        "finished": False,
        "fingerprint": fingerprint,
        "skeleton": skeletons.to_json(next(iter(splits.values())).skeleton),
        "counts": {split: len(annotations) for split, annotations in splits.items()},
        "shards": {split: [] for split in splits},
        "provenance": provenance,
        "skipped": [],
    }
    _write_json(partial / records.INDEX, content)
    return content


def _difference(content: dict, arguments: dict) -> str:
    """Which arguments are others now; if none, the files are."""
    old, new = content["provenance"].get("arguments", {}), _plain(arguments)
    changed = [
        f"{name} was {old.get(name)}, is {new.get(name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    return "; ".join(changed) or "the same flags, but labels or images have changed"


def _write_shards(partial, content, splits, seed, convert, progress) -> None:
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
                    "sha256": records.sha256(partial / name),
                }
                listed[name] = shard
                content["shards"][split] = [listed[key] for key in sorted(listed)]
                _write_json(partial / records.INDEX, content)
            done += len(chunk)
            if progress:
                progress(done)


def _write_shard(path, people, convert, progress) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with tf.io.TFRecordWriter(str(temporary)) as writer:
            for i, image_path in enumerate(people.images):
                image, height, width = images.encoded(image_path, convert)
                writer.write(records.serialize(people, i, image, (height, width)))
                if progress:
                    progress(i + 1)
    except tf.errors.OpError as error:  # A full disk, for one.
        raise OSError(f"{temporary}: cannot be written ({error.message})") from error
    files.sync(temporary)
    os.replace(temporary, path)


def _shard_count(annotations: Annotations) -> int:
    size = sum(max(0, _stat(path)[0]) for path in annotations.images)
    spread = min(MIN_SHARDS, -(-len(annotations) // MIN_SHARD_RECORDS))
    return max(spread, -(-size // SHARD_BYTES))


def _intact(path: pathlib.Path, shard: dict) -> bool:
    return path.is_file() and records.sha256(path) == shard["sha256"]


def _stat(path: str) -> tuple[int, int]:
    """Size and time of change; (-1, -1) for a missing file."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _write_json(path: pathlib.Path, content: dict) -> None:
    files.write_bytes(path, json.dumps(content, indent=1).encode())


def _plain(value: dict) -> dict:
    """As it comes back from JSON: lists for tuples."""
    return json.loads(json.dumps(value))
