"""Looks at every image and label before any is stored, and says what is wrong."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import pathlib
import sys
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeppose_tf.datasets import Annotations, images
from deeppose_tf.pipelines.cli import progress

# A label may lie outside its image, such as feet below the edge of a photo, but not
# further than the image is wide or high: that is a wrong scale or a slip.
MAX_OUTSIDE = 1.0
SUSPICIOUS_SHARE = 0.05
MISSING = "no such file"  # As `images` says it.

Problem = tuple[str, str]  # What, and what is wrong with it.
Sizes = dict[str, tuple[int, int]]  # (height, width) by path.


@dataclasses.dataclass(frozen=True)
class CheckedImages:
    """What the look at all images found.

    Attributes:
      sizes: of the good images, as stored.
      errors: what is wrong with the others, by path.
      converted: the good images that cannot be stored as found.
      unusual: the number of errors that converting would cure.
    """

    sizes: Sizes
    errors: dict[str, str]
    converted: list[str]
    unusual: int


@dataclasses.dataclass(frozen=True)
class Checked:
    """What the look at all data sets found.

    Attributes:
      parts: by data set, by split, without what is wrong.
      problems: what is wrong.
      converted, unusual: see `CheckedImages`.
    """

    parts: list[dict[str, Annotations]]
    problems: list[Problem]
    converted: list[str]
    unusual: int


def check(
    sets: list[tuple[str, dict[str, Annotations]]], max_pixels: int, convert: bool
) -> Checked:
    """Looks at every image and label of data sets, each a name and its parts; tells at
    once what is suspicious about one as a whole, though no error."""
    people = [part for _, parts in sets for part in parts.values()]
    paths = list(dict.fromkeys(path for part in people for path in part.images))
    bar = progress.reporter(len(paths), "Checking", "image")
    found = check_images(paths, max_pixels, convert, bar)
    good, problems = [], []
    for name, parts in sets:
        kept = {}
        problems += _image_problems(parts.values(), found.errors)
        for split, part in parts.items():
            indices, wrong = check_people(part, found.sizes)
            kept[split] = part.take(indices)
            problems += [*part.damaged, *wrong]
            share = outside_share(part, found.sizes)
            if share > SUSPICIOUS_SHARE:
                print(
                    f"WARNING {name} {split}: {share:.0%} of the joints are outside "
                    "their images. Are labels and images of the same release and size?",
                    file=sys.stderr,
                )
        good.append(kept)
    return Checked(good, problems, found.converted, found.unusual)


def check_images(
    paths: list[str],
    max_pixels: int = images.MAX_PIXELS,
    convert: bool = False,
    report: Callable[[int], None] | None = None,
) -> CheckedImages:
    """Decodes each image once, on all cores.

    Args:
      convert: images that are sound but unusual are good.
      report: called with the number of images done.
    """
    sizes, errors, converted, unusual = {}, {}, [], 0
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        results = pool.map(lambda path: _check_image(path, max_pixels, convert), paths)
        for i, (path, (size, error)) in enumerate(zip(paths, results, strict=True)):
            odd = isinstance(error, images.Unusual)
            if size:
                sizes[path] = size
                converted += [path] * odd
            else:
                errors[path] = str(error).removeprefix(f"{path}: ")
                unusual += odd
            if report:
                report(i + 1)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for all the rest.
    return CheckedImages(sizes, errors, converted, unusual)


def check_people(people: Annotations, sizes: Sizes) -> tuple[np.ndarray, list[Problem]]:
    """Which people can be stored.

    Args:
      sizes: of the good images; people on other images are left out without a word.

    Returns:
      Indices of the good people, and (who, reason) for each of the others.
    """
    good, problems = [], []
    for i, path in enumerate(people.images):
        if path not in sizes:
            continue
        reason = _reason(people, i, *sizes[path])
        if reason:
            problems.append((f"{people.ids[i]} ({path})", reason))
        else:
            good.append(i)
    return np.array(good, np.int64), problems


def outside_share(people: Annotations, sizes: Sizes) -> float:
    """Share of the labeled joints on good images that lie outside, by any distance."""
    people = people.take([i for i, path in enumerate(people.images) if path in sizes])
    limits = np.array([sizes[path][::-1] for path in people.images]).reshape(-1, 1, 2)
    outside = ((people.keypoints < 0) | (people.keypoints > limits)).any(axis=2)
    return float(np.sum(outside & people.labeled) / max(1, people.labeled.sum()))


def report(fatal: list[Problem], problems: list[Problem], unusual: int) -> str:
    """Everything that is wrong, a line each, and what to do about it."""
    lines = [f"  {what}: {reason}" for what, reason in fatal + problems]
    lines.insert(0, f"nothing was written, {len(lines)} problem(s):")
    if problems:
        lines.append(
            "Mend them, or pass --skip_bad to leave those out and list them in "
            "dataset.json."
        )
    if unusual:
        lines.append(
            f"--convert takes the {unusual} image(s) that are sound but unusual: "
            "grayscale, CMYK, palette, 16-bit, turned by EXIF, another format."
        )
    missing = sum(MISSING in reason for _, reason in problems)
    if missing:
        lines.append(
            f"{missing} image(s) are missing: was everything unpacked, and are labels "
            "and images of the same release?"
        )
    if fatal and problems:
        lines.append(f"--skip_bad does not help with the first {len(fatal)}.")
    return "\n".join(lines)


def _image_problems(parts: list[Annotations], errors: dict[str, str]) -> list[Problem]:
    """(image, reason and whom it leaves out) for every bad image of the parts."""
    ids = {}
    for people in parts:
        for path, person in zip(people.images, people.ids, strict=True):
            if path in errors:
                ids.setdefault(path, []).append(person)
    return [
        (path, f"{errors[path]} (leaves out {', '.join(ids[path])})") for path in ids
    ]


def _check_image(path, max_pixels, convert):
    """(size, None), or (None, error); a converted image has both."""
    try:
        size = images.inspect(path, max_pixels)
        # Training decodes with TensorFlow, which is stricter now and then: a PNG
        # without its end, for one.
        content = pathlib.Path(path).read_bytes()
        tf.io.decode_image(content, channels=3, expand_animations=False)
        return size, None
    except images.Unusual as error:
        if not convert:
            return None, error
        try:
            return images.read_image(path, max_pixels).shape[:2], error
        except ValueError as worse:
            return None, worse
    except (ValueError, OSError) as error:
        return None, error
    except tf.errors.OpError:
        return None, ValueError("damaged, TensorFlow cannot decode it")


def _reason(people: Annotations, i: int, height: int, width: int) -> str | None:
    """What is wrong with the labels of one person, or None."""
    keypoints, labeled, box = people.keypoints[i], people.labeled[i], people.boxes[i]
    names = people.skeleton.joints
    broken = ~np.isfinite(keypoints).all(axis=1)
    if broken.any():
        return f"joint {names[np.argmax(broken)]} is NaN or infinite"
    if not labeled.any():
        return "no joint is labeled"
    if not np.isfinite(box).all():
        return f"its box {box.tolist()} is not finite"
    if box.any() and (box[0] >= box[2] or box[1] >= box[3]):
        return f"its box {box.tolist()} is empty; expected x0 < x1 and y0 < y1"
    if box.any() and (min(box[2:]) <= 0 or box[0] >= width or box[1] >= height):
        return f"its box {box.tolist()} is outside the {width} x {height} image"
    size = np.array([width, height])
    far = (keypoints < -MAX_OUTSIDE * size) | (keypoints > (1 + MAX_OUTSIDE) * size)
    far = far.any(axis=1) & labeled
    if far.any():
        x, y = keypoints[np.argmax(far)]
        return (
            f"joint {names[np.argmax(far)]} at ({x:.0f}, {y:.0f}) is far outside the "
            f"{width} x {height} image"
        )
    return None
