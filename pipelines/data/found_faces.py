"""The faces of a data set's people, looked for on all cores and kept in a file.

It takes a tenth of a second to half of one for each person, so a stopped run must not
lose it: `find` writes what it has from time to time, and when it is stopped.
"""

from __future__ import annotations

import collections
import concurrent.futures
import json
import os
import pathlib
from collections.abc import Callable

import cv2
import numpy as np

import deeppose_tf
from deeppose_tf import faces, files
from deeppose_tf.datasets import Annotations, images

KEPT = "faces.json"

# What a damaged file raises; the last two of an endless number or nesting.
_UNREADABLE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)

Face = tuple[list[float], int]  # Its box, zeros for none; how many there were.


def find(
    splits: dict[str, Annotations],
    kept: pathlib.Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Everyone's face [N, 4], pixels, zeros for none, and how many there were to choose
    from, [N], by split. How the face is chosen: `faces.likeliest_face`.

    Copies of a person, as `--repeat` makes them, are looked at once.

    Args:
      kept: a folder for the file; made where it is missing. None for no file.
      progress: called with the number of people done.

    Raises:
      ValueError, OSError: an image cannot be read; see `images.read_image`.
    """
    keys, wanted = {}, {}
    for split, people in splits.items():
        keys[split] = []
        for path, torso in zip(people.images, torsos(people), strict=True):
            key = _key(path, torso, kept)
            keys[split].append(key)
            wanted[key] = path, torso
    found = _read(kept) if kept else {}
    _look(found, wanted, collections.Counter(sum(keys.values(), [])), kept, progress)
    return {
        split: (
            np.array([found[key][0] for key in own], np.float32).reshape(-1, 4),
            np.array([found[key][1] for key in own], int),
        )
        for split, own in keys.items()
    }


def torsos(people: Annotations) -> np.ndarray:
    """The torso boxes [N, 4] that come with the data set, pixels; zeros for none."""
    nothing = np.zeros((len(people), 4), np.float32)
    return nothing if people.torsos is None else people.torsos


def _look(found, wanted, people, kept, progress) -> None:
    """Adds to `found` what is wanted and not there yet; `people` have each key."""
    missing = [key for key in wanted if key not in found]
    done = sum(people[key] for key in wanted if key in found)
    if done and progress:
        progress(done)
    threads = cv2.getNumThreads()
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    cv2.setNumThreads(1)  # Or one thread in `faces` would restore it under another.
    with files.kept(lambda: _write(kept, found)) as keep:
        try:
            results = pool.map(lambda key: _face(*wanted[key]), missing)
            for key, face in zip(missing, results, strict=True):
                found[key] = face
                done += people[key]
                if progress:
                    progress(done)
                keep()
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for all the rest.
            cv2.setNumThreads(threads)


def _face(path: str, torso: np.ndarray) -> Face:
    box, number = faces.likeliest_face(images.read_image(path), torso)
    return box.tolist(), number


def _key(path: str, torso: np.ndarray, kept: pathlib.Path | None) -> str:
    """What a face depends on: the image file, as it is now, and the torso below it."""
    try:
        status = os.stat(path)
        now = [status.st_size, status.st_mtime_ns]
    except OSError:
        now = []  # Whoever reads it says why.
    return json.dumps([os.path.relpath(path, kept), *now, torso.tolist()])


def _made_by() -> list[str]:
    return [deeppose_tf.__version__, cv2.__version__]


def _read(kept: pathlib.Path) -> dict[str, Face]:
    """Nothing where there is no file, a damaged one, or one of another version."""
    try:
        content = json.loads((kept / KEPT).read_text())
        if content["made_by"] == _made_by():
            return {
                key: (np.asarray(box, float).reshape(4).tolist(), int(number))
                for key, (box, number) in content["faces"].items()
            }
    except _UNREADABLE:
        pass
    return {}


def _write(kept: pathlib.Path | None, found: dict[str, Face]) -> None:
    if not kept:
        return
    kept.mkdir(parents=True, exist_ok=True)
    content = {"made_by": _made_by(), "faces": found}
    files.write_bytes(kept / KEPT, json.dumps(content).encode())
