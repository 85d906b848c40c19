"""The generated data set: clothed, articulated figures over cluttered backgrounds.

Drawn with OpenCV from (seed, split, index) alone: nothing to download, exact joints.
It shows that the whole cascade works; it says nothing about photographs of people.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping

import cv2
import numpy as np

from deeppose_tf import files
from deeppose_tf.datasets import Annotations
from deeppose_tf.datasets.generated_body import hidden, paint_figure
from deeppose_tf.datasets.generated_figure import sample_figure
from deeppose_tf.datasets.generated_outfit import sample_outfit
from deeppose_tf.datasets.generated_scene import (
    add_occluders,
    background,
    photograph,
)
from deeppose_tf.skeleton import LSP

VERSION = 1  # of the pictures: raise it when `render` draws anything differently
SPLITS = ("train", "validation", "test")
COUNTS = {"train": 2000, "validation": 50, "test": 200}
QUALITY = 92  # of the JPEG files, of 100
SAVE_EVERY = 100  # images that a killed run may have to draw again


def render(
    seed: int, split: str, index: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Draws one person; the same arguments give the same picture.

    The joints come from NumPy alone. The pixels also depend on how the installed
    OpenCV rounds.

    Returns:
      image: [H, W, 3] uint8 RGB, sizes vary.
      keypoints: [14, 2] float32, pixels of the image, person-centric, `skeleton.LSP`.
      labeled: [14] bool, all true: a covered joint is labeled too.
      occluded: [14] bool: the joint is behind something, or behind the body.

    Raises:
      ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    entropy = np.random.SeedSequence([seed, SPLITS.index(split), index])
    rng = np.random.Generator(np.random.PCG64(entropy))
    figure = sample_figure(rng)
    keypoints = figure.keypoints
    canvas = background(rng, *figure.size)
    parts = paint_figure(canvas, figure, sample_outfit(rng))
    length = float(np.ptp(keypoints, axis=0).max())
    add_occluders(canvas, rng, keypoints, length)
    image = photograph(canvas.image, rng)
    labeled = np.ones(len(LSP.joints), bool)
    return image, keypoints, labeled, hidden(canvas, figure, parts)


def read(
    root: str,
    split: str,
    counts: Mapping[str, int] = COUNTS,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Annotations:
    """Reads a split from `root`/`split`, drawing what is not there or is damaged.

    Each image's joints and SHA-256 are kept in `manifest.json` beside the images.
    After a kill, the same call goes on where the last one stopped.

    Args:
      counts: images by split.
      progress: called with (images done, images in all) after each image.

    Raises:
      ValueError: unknown split, or `manifest.json` is not one of ours.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    folder = pathlib.Path(root) / split
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i + 1:05d}.jpg" for i in range(counts[split])]
    entries, drawn = _manifest(folder, seed), 0
    for index, name in enumerate(names):
        if not _intact(folder / name, entries.get(name)):
            entries[name] = _draw(folder / name, seed, split, index)
            drawn += 1
            if drawn % SAVE_EVERY == 0:
                _save_manifest(folder, seed, entries)
        if progress:
            progress(index + 1, len(names))
    if drawn:
        _save_manifest(folder, seed, entries)
    keypoints = [entries[name]["keypoints"] for name in names]
    return Annotations(
        skeleton=LSP,
        images=tuple(str(folder / name) for name in names),
        keypoints=np.asarray(keypoints, np.float32).reshape(-1, 14, 2),
        labeled=np.ones((len(names), 14), bool),
        boxes=np.zeros((len(names), 4), np.float32),
        ids=tuple(f"generated/{split}/{name[:-4]}" for name in names),
    )


def _draw(path: pathlib.Path, seed: int, split: str, index: int) -> dict:
    """Draws an image into a file; returns its entry of the manifest."""
    image, keypoints, _, occluded = render(seed, split, index)
    flags = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    _, data = cv2.imencode(".jpg", image[..., ::-1], flags)
    _write_image(path, data.tobytes())
    return {
        "sha256": hashlib.sha256(data.tobytes()).hexdigest(),
        "keypoints": keypoints.tolist(),
        "occluded": occluded.tolist(),
    }


def _intact(path: pathlib.Path, entry: dict | None) -> bool:
    """Whether the file is the one that the manifest speaks of."""
    if entry is None or not path.is_file():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]


def _manifest(folder: pathlib.Path, seed: int) -> dict:
    """Entries by file name; none if there is no manifest, or of other pictures."""
    path = folder / "manifest.json"
    if not path.is_file():
        return {}
    try:
        manifest = json.loads(path.read_text())
        if (manifest["version"], manifest["seed"]) != (VERSION, seed):
            return {}
        return manifest["images"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path}: not a manifest of the generated data set; remove it, or choose "
            "another folder"
        ) from error


def _save_manifest(folder: pathlib.Path, seed: int, entries: dict) -> None:
    manifest = {
        "version": VERSION,
        "seed": seed,
        "skeleton": LSP.name,
        "made_with": {"numpy": np.__version__, "opencv": cv2.__version__},
        "images": entries,
    }
    files.write_bytes(folder / "manifest.json", json.dumps(manifest).encode())


def _write_image(path: pathlib.Path, data: bytes) -> None:
    """As `files.write_bytes`, but not synced, which costs more than drawing the image:
    one that a power cut empties fails its SHA-256 and is drawn again."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    beside.write_bytes(data)
    os.replace(beside, path)
