"""The generated data set: clothed, articulated figures over cluttered backgrounds.

Drawn with OpenCV from (seed, split, index) alone: nothing to download, exact joints.
It shows that the whole cascade works; it says nothing about photographs of people.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping

import cv2
import numpy as np

from deeppose_tf import files
from deeppose_tf.datasets import Annotations
from deeppose_tf.datasets import generated_person as people
from deeppose_tf.skeleton import LSP

# Of the pictures: raise it when `render` draws anything differently.
FORMAT = "deeppose-tf generated 2"
SPLITS = ("train", "validation", "test")
COUNTS = {"train": 2000, "validation": 50, "test": 200}
QUALITY = 92  # of the JPEG files, of 100
DULL = (0.0, 0.4)  # saturation: surroundings are duller than clothes
MOST_COVERED = 4  # joints under one occluder: more would leave nothing to infer from


def render(seed: int, split: str, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws one person; the same arguments give the same picture.

    The joints come from NumPy alone. The pixels also depend on how the installed
    OpenCV rounds.

    Returns:
      image: [H, W, 3] uint8 RGB, sizes vary.
      keypoints: [14, 2] float32, pixels of the image, person-centric, `skeleton.LSP`.

    Raises:
      ValueError: unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    entropy = np.random.SeedSequence([seed, SPLITS.index(split), index])
    rng = np.random.Generator(np.random.PCG64(entropy))
    person = people.sample_person(rng)
    image = background(rng, *person.size)
    people.paint_person(image, person, people.sample_look(rng))
    add_occluders(image, rng, person.keypoints)
    return photograph(image, rng), person.keypoints


def read(
    root: str,
    split: str,
    counts: Mapping[str, int] = COUNTS,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Annotations:
    """Reads a split from `root`/`split`, drawing what is not there or is damaged.

    Each image's joints and SHA-256 are kept in `manifest.json` beside the images.
    After a kill, the same call goes on where the last one stopped.

    Args:
      progress: called with (images done, images in all) after each image.

    Raises:
      ValueError: unknown split, or `manifest.json` is not one of ours.
    """
    if split not in SPLITS:
        raise ValueError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    folder = pathlib.Path(root) / split
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i + 1:05d}.jpg" for i in range(counts[split])]
    entries = _manifest(folder, seed)
    with files.kept(lambda: _save_manifest(folder, seed, entries)) as keep:
        for index, name in enumerate(names):
            if not _intact(folder / name, entries.get(name)):
                entries[name] = _draw(folder / name, seed, split, index)
                keep()
            progress(index + 1, len(names))
    keypoints = [entries[name]["keypoints"] for name in names]
    return Annotations(
        skeleton=LSP,
        images=tuple(str(folder / name) for name in names),
        keypoints=np.asarray(keypoints, np.float32).reshape(-1, 14, 2),
        labeled=np.ones((len(names), 14), bool),
        boxes=np.zeros((len(names), 4), np.float32),
        ids=tuple(f"generated/{split}/{name[:-4]}" for name in names),
    )


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """[H, W, 3] uint8: gradients, boxes, ellipses, lines, limb-like distractors."""
    cells = rng.uniform(-30, 30, (rng.integers(2, 7), rng.integers(2, 7), 3))
    small = np.clip(people.color(rng, DULL) + cells, 0, 255).astype(np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    size = np.array([width, height])
    for _ in range(rng.integers(3, 9)):
        _thing(image, rng, rng.uniform(0, 1, 2) * size, rng.uniform(8, 60, 2))
    for _ in range(rng.integers(0, 5)):
        start, end = rng.uniform(-0.2, 1.2, (2, 2)) * size
        thick = rng.uniform(0.5, 2)
        line = people.capsule(start, end, thick, thick)
        people.paint(image, line, people.color(rng, DULL))
    for _ in range(rng.integers(0, 4)):
        _limb_like(image, rng, rng.uniform(0, 1, 2) * size)
    # Some backgrounds are as loud as the person, most are flatter.
    strength, tone = rng.uniform(0.3, 0.9), rng.uniform(40, 215)
    image[...] = cv2.convertScaleAbs(image, None, strength, (1 - strength) * tone)
    return image


def add_occluders(
    image: np.ndarray, rng: np.random.Generator, keypoints: np.ndarray
) -> None:
    """Puts up to two things in front of a body, in place."""
    length = float(np.ptp(keypoints, axis=0).max())
    for _ in range(rng.choice(3, p=[0.65, 0.27, 0.08])):
        center = keypoints[rng.integers(len(keypoints))]
        center = center + rng.uniform(-0.12, 0.12, 2) * length
        half = rng.uniform(0.05, 0.14, 2) * length
        _thing(image, rng, center, half, keypoints)


def photograph(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """[H, W, 3] uint8 with a camera's blur, contrast and noise."""
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (3, 3), 0.8)
    gain, offset = rng.uniform(0.8, 1.1), rng.uniform(-15, 20)
    height, width = image.shape[:2]
    y, x = rng.integers(0, 512 - height), rng.integers(0, 512 - width)
    grain = _noise()[y : y + height, x : x + width]
    image = image.astype(np.float32)
    return cv2.addWeighted(
        image, gain, grain, rng.uniform(2, 7), offset, dtype=cv2.CV_8U
    )


@functools.lru_cache(maxsize=1)
def _noise() -> np.ndarray:
    """[512, 512, 3] float32 normal noise, the same for every image (it is dear)."""
    rng = np.random.Generator(np.random.PCG64(0))
    return rng.standard_normal((512, 512, 3)).astype(np.float32)


def _thing(image, rng, center, half, keypoints=None) -> None:
    """A turned box or ellipse, half of them striped, unless it would cover too many
    joints."""
    turn = rng.normal(0, 0.4)
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    box, base, other = rng.random() < 0.6, people.color(rng, DULL), None
    if rng.random() < 0.5:
        other, stripes = people.color(rng, DULL), rng.integers(2, 6)
    if keypoints is not None:
        inside = np.abs((keypoints - center) @ axes.T) < half
        if inside.all(axis=1).sum() > MOST_COVERED:
            return
    shape = corners if box else people.disc((0, 0), 1)
    people.paint(image, center + shape * half @ axes, base)
    if other is not None:
        for at in (np.arange(stripes) + 0.5) / stripes * 2 - 1:
            reach = 1.0 if box else np.sqrt(1 - at**2)
            stripe = corners * [reach, 0.5 / stripes] + [0, at]
            people.paint(image, center + stripe * half @ axes, other)


def _limb_like(image, rng, start) -> None:
    """One or two joined capsules in skin or cloth that belong to nobody."""
    shade, light = people.color(rng, DULL), rng.uniform(-0.7, 0.7, 2)
    for _ in range(rng.integers(1, 3)):
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(4, 9)
        end = start + rng.uniform(20, 50) * np.array([np.cos(angle), np.sin(angle)])
        radii = radius, 0.75 * radius
        for part in people.rounded(0, (start, end), radii, shade, light):
            people.paint(image, part.outline, part.color)
        start = end


def _draw(path: pathlib.Path, seed: int, split: str, index: int) -> dict:
    """Draws an image into a file; returns its entry of the manifest."""
    image, keypoints = render(seed, split, index)
    flags = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    data = cv2.imencode(".jpg", image[..., ::-1], flags)[1].tobytes()
    # As `files.write_bytes`, but not synced, which costs more than drawing the image:
    # one that a power cut empties fails its SHA-256 and is drawn again.
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    beside.write_bytes(data)
    os.replace(beside, path)
    return {
        "sha256": hashlib.sha256(data).hexdigest(),
        "keypoints": keypoints.tolist(),
    }


def _intact(path: pathlib.Path, entry: dict | None) -> bool:
    """Whether the file is the one that the manifest speaks of."""
    if entry is None or not path.is_file():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == entry["sha256"]


def _manifest(folder: pathlib.Path, seed: int) -> dict:
    """Entries by file name; none if there is no manifest, or it is of another seed."""
    path = folder / "manifest.json"
    if not path.is_file():
        return {}
    try:
        manifest = files.read_json(path)
        form = manifest.get("format", f"version {manifest.get('version')}")
        entries = manifest["images"] if manifest["seed"] == seed else {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: not a manifest of the generated data set; remove it, or choose "
            "another folder"
        ) from error
    if form != FORMAT:
        raise ValueError(
            f"{path}: pictures of {form!r}, this version draws {FORMAT!r}. Remove "
            "that folder, or choose another one"
        )
    return entries


def _save_manifest(folder: pathlib.Path, seed: int, entries: dict) -> None:
    manifest = {
        "format": FORMAT,
        "seed": seed,
        "skeleton": LSP.name,
        "made_with": {"numpy": np.__version__, "opencv": cv2.__version__},
        "images": entries,
    }
    files.write_json(folder / "manifest.json", manifest, digest=True)
