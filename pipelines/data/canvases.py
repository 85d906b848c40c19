"""The training people of a data set, any of whom can be had at once.

Decoding and cutting are paid once a stage where the canvases fit somewhere: on the
accelerator, in the host's memory, or in a file beside the records. Else every person is
read and decoded again each time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import mmap
import os
import pathlib
import shutil
import struct
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeppose_tf import files
from deeppose_tf.pipelines.cli import progress
from deeppose_tf.pipelines.data import inputs, records
from deeppose_tf.pipelines.data.config import CACHES, InputConfig

# `auto` keeps what takes no more than this share of what is free.
SHARE = 0.5
FORMAT = 1
_BATCH = 64
_INDEX = "index.json"


class Labeled(NamedTuple):
    """Canvases and labels of N people.

    Attributes:
      canvases: [N, C, C, 3] uint8.
      keypoints: [N, K, 2] float32, pixels of the canvas.
      labeled: [N, K] bool.
      boxes: [N, 4] float32 first boxes, pixels of the canvas.
    """

    canvases: np.ndarray
    keypoints: np.ndarray
    labeled: np.ndarray
    boxes: np.ndarray


@dataclasses.dataclass(frozen=True)
class People:
    """Those whom a stage is trained on.

    Attributes:
      weights: [N], how often each of them is shown in an epoch.
      joints: K.
      cache: where they are: one of `CACHES`, but for `auto`.
      kept: their canvases; None where they are read again each time.
      records: their records, else.
    """

    weights: np.ndarray
    joints: int
    cache: str
    kept: Labeled | None = None
    records: Records | None = None

    def gather(self, chosen: tf.Tensor, draws: tf.Tensor) -> tuple:
        """Numbers [B] of people -> their columns of `Labeled`, and the draws."""
        columns = tf.numpy_function(
            lambda some: tuple(column[some] for column in self.kept),
            [chosen],
            [column.dtype for column in self.kept],
            stateful=False,
        )
        for column, found in zip(self.kept, columns, strict=True):
            found.set_shape([chosen.shape[0], *column.shape[1:]])
        return *columns, draws


class Records:
    """The records of a split in any order: index [n] -> n serialized records."""

    def __init__(self, index: records.Index, split: str, limit: int | None = None):
        self._shards, places = index.shards[split], []
        for number, shard in enumerate(self._shards):
            with (
                open(shard, "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                at = 0
                # A length and its checksum, as many bytes, and their checksum.
                while at + 16 <= len(content) and len(places) < (limit or np.inf):
                    (length,) = struct.unpack_from("<Q", content, at)
                    places.append((number, at + 12, length))
                    at += length + 16
                if at != len(content) and len(places) != limit:
                    raise ValueError(
                        f"{shard}: record {len(places)} of the split is damaged. "
                        f"Delete {index.directory} and run deeppose-prepare again"
                    )
        self._places = np.array(places, np.int64)

    def __call__(self, chosen: np.ndarray) -> np.ndarray:
        found = np.empty(len(chosen), object)
        for i, (number, start, length) in enumerate(self._places[chosen]):
            with open(self._shards[number], "rb") as file:
                file.seek(start)
                found[i] = file.read(length)
        return found


def open_people(
    index: records.Index,
    config: InputConfig,
    cache: str = "auto",
    limit: int | None = None,
    shown: int | None = None,
    verbose: int = 0,
) -> People:
    """Opens the training people of a data set and decodes them where they are kept.

    Args:
      index: of the prepared data set.
      config: of the canvases.
      cache: one of `CACHES`. `auto` takes the first that fits: see `choose`.
      limit: the first people only.
      shown: how many people training will look at: `auto` keeps none who would not be
        looked at twice.
      verbose: 0 hides progress, and what `auto` chose.

    Raises:
      ValueError: `cache` is none of them, or there is no room.
    """
    weights = index.weights["train"][:limit]
    joints, side = len(index.skeleton.joints), config.canvas
    needed = len(weights) * side**2 * 3
    if cache == "auto":
        often = shown is None or shown >= 2 * weights.sum()
        folder = _folder(index, config, limit)
        cache, why = choose(needed, folder) if often else ("none", "")
        if verbose and often:
            print(f"{len(weights)} canvases of {side} pixels: {why}", flush=True)
    if cache == "none":
        people = Records(index, "train", limit)
        return People(weights, joints, cache, records=people)
    if cache == "disk":
        kept = _on_disk(index, config, limit, verbose)
    elif cache in CACHES:
        if needed > free_memory():
            raise ValueError(
                f"--cache={cache}: {needed / 1e9:.1f} GB of canvases, and "
                f"{free_memory() / 1e9:.1f} GB of memory are free: give --cache=disk "
                "or none"
            )
        canvases = np.empty([len(weights), side, side, 3], np.uint8)
        kept = _fill(canvases, index, config, verbose)
    else:
        raise ValueError(f"cache {cache!r} is none of {', '.join(CACHES)}")
    return People(weights, joints, cache, kept)


def choose(needed: int, folder: pathlib.Path) -> tuple[str, str]:
    """Where so many bytes are kept: the first of `CACHES` of whose free room they take
    no more than `SHARE`, or the folder for them, where it is there already. Returns its
    name, and a line that says why."""
    memory = free_memory()
    # On the way to a device they are in memory.
    rooms = {"device": min(_room_on_devices(), memory), "memory": memory}
    if folder.exists():
        rooms["disk"] = needed / SHARE
    elif os.access(folder.parent, os.W_OK):
        rooms["disk"] = shutil.disk_usage(folder.parent).free
    for name, room in rooms.items():
        if needed <= SHARE * room:
            return name, (
                f"{needed / 1e9:.2f} GB, kept as --cache={name} does, where "
                f"{room / 1e9:.1f} GB are free"
            )
    return (
        "none",
        f"{needed / 1e9:.2f} GB, more than half of any free room: decoded anew",
    )


def free_memory() -> int:
    """Bytes that this process may still take; without limit where that is not told."""
    free = np.iinfo(np.int64).max
    try:
        for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
        group = pathlib.Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            used = int((group / "memory.current").read_text())
            # What was read of files and is not in use is given back when needed.
            kept = dict(x.split() for x in (group / "memory.stat").open())
            free = min(free, int(most) - used + int(kept["inactive_file"]))
    except (OSError, ValueError, KeyError):
        pass
    return free


def _room_on_devices() -> int:
    """Bytes that TensorFlow may take on each GPU; 0 without one."""
    if not tf.config.list_physical_devices("GPU"):
        return 0
    from tensorflow.python.client import device_lib

    gpus = [d for d in device_lib.list_local_devices() if d.device_type == "GPU"]
    return min(gpu.memory_limit for gpu in gpus)


def _fill(canvases, index, config, verbose) -> Labeled:
    """Decodes the first people into `canvases`, in parallel."""
    count, joints = len(canvases), len(index.skeleton.joints)
    kept = Labeled(
        canvases,
        np.empty([count, joints, 2], np.float32),
        np.empty([count, joints], bool),
        np.empty([count, 4], np.float32),
    )
    dataset = inputs.evaluation_dataset(index, "train", config, _BATCH, count)
    done = 0
    with progress.bar(count, "Decoding", "person", shown=bool(verbose)) as bar:
        for batch in dataset.as_numpy_iterator():
            for column, part in zip(kept, batch, strict=True):
                column[done : done + len(part)] = part
            done += len(batch[0])
            bar.update(len(batch[0]))
    return kept


def _on_disk(index, config, limit, verbose) -> Labeled:
    """Canvases in a folder beside the records, made where there are none yet: by one of
    those who want it at once, for whom the others wait."""
    folder = _folder(index, config, limit)
    if not (folder / _INDEX).is_file():
        with files.alone(index.directory, "run", wait=True):
            if not (folder / _INDEX).is_file():
                partial = folder.with_name(f".{folder.name}.partial")
                partial.mkdir(exist_ok=True)
                _write(partial, index, config, limit, verbose)
                shutil.rmtree(folder, ignore_errors=True)
                os.replace(partial, folder)
    expected = files.read_json(folder / _INDEX, (FORMAT,)).get("sha256", {})
    for name in Labeled._fields:
        path = folder / f"{name}.npy"
        if not path.is_file() or records.sha256(path) != expected.get(path.name):
            raise ValueError(
                f"{path}: its content has changed (SHA-256 differs). Delete {folder}: "
                "it is made anew"
            )
    columns = (
        np.load(folder / f"{name}.npy", mmap_mode="r" if name == "canvases" else None)
        for name in Labeled._fields
    )
    return Labeled(*columns)


def _folder(index, config, limit) -> pathlib.Path:
    """Where canvases of these people and of this kind are, if they are anywhere."""
    count = len(index.weights["train"][:limit])
    key = [FORMAT, index.checksums["train"], config.canvas, config.context, count]
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    return pathlib.Path(index.directory) / f"canvases-{name}"


def _write(folder, index, config, limit, verbose) -> None:
    count = len(index.weights["train"][:limit])
    shape = count, config.canvas, config.canvas, 3
    path = folder / "canvases.npy"
    canvases = np.lib.format.open_memmap(path, "w+", np.uint8, shape)
    if hasattr(os, "posix_fallocate"):  # Else a full disk ends the process.
        with open(path, "r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                raise OSError(error.errno, os.strerror(error.errno), path) from error
    kept = _fill(canvases, index, config, verbose)
    canvases.flush()
    for name, column in zip(Labeled._fields[1:], kept[1:], strict=True):
        np.save(folder / f"{name}.npy", column)
    names = [f"{name}.npy" for name in Labeled._fields]
    checksums = {name: records.sha256(folder / name) for name in names}
    files.write_json(
        folder / _INDEX, {"format": FORMAT, "sha256": checksums}, digest=True
    )
