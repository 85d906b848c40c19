"""The people of a data set, any of whose canvases can be had at once.

A canvas is a fixed uint8 square around a person with some context. Cutting moves whole
pixels: only a person larger than the canvas is halved, by the same average as the
resampler's own levels. Where canvases fit somewhere, an image is decoded once a stage,
when the first person on it is asked for: they are kept on the accelerator, in the
host's memory, or in a file beside the data. Else they are made anew each time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import mmap
import os
import pathlib
import shutil
import threading
import zlib
from concurrent import futures
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeppose_tf import geometry, sampling
from deeppose_tf.pipelines.cli import progress
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.config import CACHES, InputConfig

MOST_HALVINGS = 8
# `auto` keeps what takes no more than this share of what is free.
SHARE = 0.5
FORMAT = 2
SUMS = "crc32"
OUTDATED = "*canvases-*/canvases.npy"  # of earlier versions, whole or under way
# Bytes of images that are decoded at the same time, whatever the number of people.
AT_ONCE = 512 << 20
_BATCH = 64


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
    """Those whom a stage is trained on or judged by.

    Attributes:
      index, split: whose first people they are.
      weights: [N], how often each of them is shown in an epoch.
      cache: where their canvases are: one of `CACHES`, but for `auto`.
      kept: their labels and, where they are kept, their canvases, as far as they are
        `ready`.
      halvings, origins: [N] and [N, 2] (x, y), where each canvas is cut.
      images: [N], the same number for people of one image.
      ready: [N], whose canvases are there.
      sums: [N] uint32, of those in a file their CRC-32, by which it is seen who is
        there from an earlier run.
    """

    index: records.Index
    split: str
    weights: np.ndarray
    cache: str
    kept: Labeled
    halvings: np.ndarray
    origins: np.ndarray
    images: np.ndarray
    ready: np.ndarray
    sums: np.ndarray | None

    def gather(self, chosen: tf.Tensor) -> Labeled:
        """Numbers [B] of people -> their canvases and labels."""
        types = [tf.uint8, tf.float32, tf.bool, tf.float32]
        columns = tf.numpy_function(self.take, [chosen], types, stateful=False)
        joints, side = self.kept.keypoints.shape[1], self.kept.canvases.shape[1]
        shapes = [side, side, 3], [joints, 2], [joints], [4]
        for column, shape in zip(columns, shapes, strict=True):
            column.set_shape([chosen.shape[0], *shape])
        return Labeled(*columns)

    def take(self, chosen: np.ndarray) -> Labeled:
        """The same of and as arrays."""
        canvases, *labels = self.kept
        if self.cache == "none":
            found = np.empty([len(chosen), *canvases.shape[1:]], np.uint8)
            self._decode(chosen, found)
        else:
            self._fill(chosen)
            found = canvases[chosen]
            if self.cache == "disk" and hasattr(mmap, "MADV_DONTNEED"):
                # What was read of the file would count as memory of this process.
                canvases.base.madvise(mmap.MADV_DONTNEED)
        return Labeled(found, *(column[chosen] for column in labels))

    def fill(self, verbose: int) -> None:
        """Makes all canvases at once."""
        count = len(self.ready)
        with progress.bar(count, "Decoding", "person", shown=bool(verbose)) as bar:
            for start in range(0, count, _BATCH):
                self._fill(np.arange(start, min(start + _BATCH, count)))
                bar.update(min(_BATCH, count - start))

    def _fill(self, chosen):
        """Makes the canvases that are missing, and those of others on the same images.
        Who else does so at the same time, here or in another process, writes the same.
        """
        missing = chosen[~self.ready[chosen]]
        if not len(missing):
            return
        decoded = np.zeros(len(self.ready), bool)
        decoded[self.images[missing]] = True
        missing = np.flatnonzero(decoded[self.images] & ~self.ready)
        canvases = self.kept.canvases
        if self.sums is not None:
            there = [zlib.crc32(canvases[i]) == self.sums[i] for i in missing]
            self.ready[missing[there]] = True
            missing = missing[np.logical_not(there)]
        self._decode(missing, canvases, missing)
        if self.sums is not None:  # After the canvases: a kill may come in between.
            self.sums[missing] = [zlib.crc32(canvases[i]) for i in missing]
        self.ready[missing] = True

    def _decode(self, people, canvases, places=None):
        """Makes canvases of people [n] at `places` [n], by default in their order;
        decodes each of their images once, several at a time."""
        places = np.arange(len(people)) if places is None else places
        order = np.argsort(self.images[people], kind="stable")
        ends = np.flatnonzero(np.diff(self.images[people[order]])) + 1
        sides = self.kept.canvases.shape[1]

        def decode(group):
            first = people[group[0]]
            size = self.index.people[self.split].sizes[first]
            # Halving takes as much again.
            with _ROOM.taken(2 * 3 * int(size[0]) * int(size[1])):
                content = records.read(self.index, self.split, first)
                image = records.decode(content)
                for i in group:
                    where = self.halvings[people[i]], self.origins[people[i]]
                    canvases[places[i]] = cut(image, *where, sides)

        groups = np.split(order, ends) if len(order) else []
        list(_threads(os.getpid()).map(decode, groups))


def open_people(
    index: records.Index,
    config: InputConfig,
    cache: str = "auto",
    limit: int | None = None,
    shown: int | None = None,
    verbose: int = 0,
    split: str = "train",
) -> People:
    """Opens people of a data set; decodes them where they are kept on a device.

    Args:
      cache: one of `CACHES`. `auto` takes the first that fits: see `choose`.
      limit: the first people only.
      shown: how many people training will look at: `auto` keeps none who would not be
        looked at twice.
      verbose: 0 hides progress, and what `auto` chose.

    Raises:
      ValueError: `cache` is none of them, there is no room, or nobody in the split.
    """
    people, side = records.read_people(index, split, limit), config.canvas
    count = len(people.ids)
    needed, folder = count * side**2 * 3, _folder(index, config, count, split)
    if cache == "auto":
        often = shown is None or shown >= 2 * people.weights.sum()
        cache, why = choose(needed, folder) if often else ("none", "")
        if verbose and often:
            print(f"{count} canvases of {side} pixels: {why}", flush=True)
    if cache not in CACHES:
        raise ValueError(f"cache {cache!r} is none of {', '.join(CACHES)}")
    if cache in ("device", "memory") and needed > (free := free_memory()):
        raise ValueError(
            f"--cache={cache}: {needed / 1e9:.1f} GB of canvases, and {free / 1e9:.1f} "
            "GB of memory are free: give --cache=disk or none"
        )
    shape, sums = [0 if cache == "none" else count, side, side, 3], None
    if cache == "none":
        canvases = np.empty(shape, np.uint8)
    elif cache == "disk":
        for old in folder.parent.glob(OUTDATED):
            shutil.rmtree(old.parent, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        canvases = _mapped(folder / "canvases", np.uint8, shape)
        sums = _mapped(folder / SUMS, np.uint32, [count])
    else:
        # Takes memory as it is written; NumPy asks for pages of two megabytes, each of
        # which would come for one canvas.
        memory = mmap.mmap(-1, needed, access=mmap.ACCESS_COPY)
        canvases = np.ndarray(shape, np.uint8, memory)
    boxes = people.first_boxes
    halvings, origins = place(boxes, config)
    scale = np.ldexp(np.float32(1), -halvings)[:, None]
    moved = origins.astype(np.float32)
    labels = (
        people.keypoints * scale[:, None] - moved[:, None],
        people.labeled,
        boxes * scale - np.tile(moved, 2),
    )
    _, images = np.unique(people.images, axis=0, return_inverse=True)
    opened = People(
        *(index, split, people.weights, cache, Labeled(canvases, *labels)),
        *(halvings, origins, images.reshape(-1), np.zeros(count, bool), sums),
    )
    if cache == "device":
        opened.fill(verbose)
    return opened


def place(boxes: np.ndarray, config: InputConfig) -> tuple[np.ndarray, np.ndarray]:
    """Where canvases are cut, for boxes [N, 4] in pixels of the image.

    Returns:
      halvings [N] int and origins [N, 2] int (x, y): a point of the image lies at
      y / 2^halvings - origin.
    """
    sides = np.asarray(geometry.box_size(boxes)).max(1) * np.float32(1 + config.context)
    halvings = np.zeros(len(boxes), int)
    for _ in range(MOST_HALVINGS):
        halvings += np.ldexp(sides, -halvings) > config.canvas
    middles = np.ldexp(np.asarray(geometry.box_center(boxes)), -halvings[:, None])
    origins = np.round(middles - np.float32(config.canvas / 2))
    return halvings, origins.astype(np.int32)


def cut(image: np.ndarray, halvings: int, origin: np.ndarray, side: int) -> np.ndarray:
    """Cuts a canvas: whole pixels of the image, or averages of 2 x 2 of them and so on.

    Args:
      image: [H, W, 3] uint8.
      halvings, origin, side: of the canvas, see `place`.

    Returns:
      [C, C, 3] uint8, grey outside of the image.
    """
    step, origin = 1 << int(halvings), origin[::-1].astype(int)  # y, x
    size = -(-np.array(image.shape[:2]) // step)
    start, end = np.clip(origin, 0, size), np.clip(origin + side, 0, size)
    (top, left), (bottom, right) = start * step, end * step
    part = image[top:bottom, left:right]
    if halvings:
        # All is exact, in whatever order bytes are added; 256 of them fit into 16 bits.
        for level in range(halvings):
            kind = np.uint16 if level < 4 else np.uint32
            part = _pairs(_pairs(part, kind).swapaxes(0, 1), kind).swapaxes(0, 1)
        part = np.round(part / np.float32(4**halvings))
    canvas = np.full([side, side, 3], sampling.PADDING, np.uint8)
    (top, left), (bottom, right) = start - origin, end - origin
    canvas[top:bottom, left:right] = part
    return canvas


def _pairs(sums, kind):
    """Sums of pairs of rows; the last of an odd number is its own pair, as the average
    of what there is."""
    out = sums[::2].astype(kind)
    second = sums[1::2]
    out[: len(second)] += second
    out[len(second) :] *= 2
    return out


def choose(needed: int, folder: pathlib.Path) -> tuple[str, str]:
    """Where so many bytes are kept: the first of `CACHES` of whose free room they take
    no more than `SHARE`, or the folder for them, where it is there already. Returns its
    name, and a line that says why."""
    memory = free_memory()
    # On the way to a device they are in memory.
    rooms = {"device": min(_room_on_devices(), memory), "memory": memory}
    if os.access(folder / SUMS, os.W_OK):  # which comes last
        rooms["disk"] = needed / SHARE
    elif os.access(folder.parent, os.W_OK):
        rooms["disk"] = shutil.disk_usage(folder.parent).free
    size = f"{needed / 1e9:.2f} GB"
    for name, room in rooms.items():
        if needed <= SHARE * room:
            free = f"{room / 1e9:.1f} GB are free"
            return name, f"{size}, kept as --cache={name} does, where {free}"
    return "none", f"{size}, more than half of any free room: decoded anew"


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


def _folder(index, config, count, split) -> pathlib.Path:
    """Where canvases of these people and of this kind are, if they are anywhere."""
    key = [FORMAT, index.checksums[split], config.canvas, config.context, count]
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:16]
    return pathlib.Path(index.directory) / f"canvases-{name}"


def _mapped(path, kind, shape) -> np.ndarray:
    """The array that a file is, zeros where it has not been written.

    Raises:
      OSError: there is no room for it.
    """
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    with open(path, "ab") as file:
        try:
            # Without it a full disk would end the process, as a map is written.
            lacking = os.fstat(file.fileno()).st_blocks * 512 < size
            if lacking and hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            os.truncate(path, size)
        except OSError as error:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it is not empty
                path.parent.rmdir()
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
    return np.memmap(path, kind, "r+", shape=tuple(shape))


@functools.cache
def _threads(process: int) -> futures.Executor:
    """Those of a process, which a fork does not inherit: always the same ones, because
    the C library keeps memory for each thread that ever took some."""
    return futures.ThreadPoolExecutor(os.cpu_count())


class _Room:
    """Bytes that several take at the same time; who needs more than there are takes all
    of them."""

    def __init__(self, size: int):
        self._all = self._free = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: int):
        size = min(size, self._all)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= size)
            self._free -= size
        try:
            yield
        finally:
            with self._changed:
                self._free += size
                self._changed.notify_all()


_ROOM = _Room(AT_ONCE)
