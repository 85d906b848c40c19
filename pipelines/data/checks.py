"""Looks at every image and label before any is stored, and says what is wrong."""

from __future__ import annotations

import collections
import concurrent.futures
import os
import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeppose_tf import metrics
from deeppose_tf.datasets import Annotations, images
from deeppose_tf.pipelines.cli import progress

# A label may lie outside its image, such as feet below the edge of a photo, but not
# further than the image is wide or high: that is a wrong scale or a slip.
MAX_OUTSIDE = 1.0
SUSPICIOUS_SHARE = 0.05
# Of real data 3 % of the joints are outside of their person's box.
SUSPICIOUS_OF_BOXES = 0.2
# In sizes of the image; of someone of whom only the head is in it, say.
LARGEST_BOX = 10
# Places in per cent are told by images larger than this.
PER_CENT = 100
MISSING = "no such file"  # As `images` says it.

Problem = tuple[str, str]  # What, and what is wrong with it.
Sizes = dict[str, tuple[int, int]]  # (height, width) by path.


class Looked(NamedTuple):
    """What the look at an image found.

    Attributes:
      size: height and width, as stored; None where it is damaged.
      wrong: what is wrong with it, empty for nothing.
      unusual: whether converting would cure that.
    """

    size: tuple[int, int] | None
    wrong: str = ""
    unusual: bool = False


class Checked(NamedTuple):
    """What the look at all data sets found.

    Attributes:
      parts: by data set, by split, without what is wrong.
      problems: what is wrong.
      sizes: of the good images.
      converted: those of them that cannot be stored as found.
      unusual: how many of the others converting would cure.
    """

    parts: list[dict[str, Annotations]]
    problems: list[Problem]
    sizes: Sizes
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
    looked = check_images(paths, max_pixels, bar)
    looked |= _of_other_sizes(people, looked)
    unusual = [path for path, one in looked.items() if one.unusual]
    converted = unusual if convert else []
    sizes = {path: one.size for path, one in looked.items() if not one.wrong}
    sizes |= {path: looked[path].size for path in converted}
    turned = [path for path in converted if images.TURNED in looked[path].wrong]
    if turned:
        _warn(
            f"{len(turned)} image(s), such as {turned[0]}, are turned by EXIF, and "
            "their labels are taken as those of the upright image"
        )
    good, problems = [], []
    for name, parts in sets:
        kept = {}
        problems += _image_problems(parts.values(), looked, sizes)
        for line in _doubts_of_skeleton(parts["train"].skeleton):
            _warn(f"{name}: {line}")
        for split, part in parts.items():
            indices, wrong = check_people(part, sizes)
            kept[split] = part.take(indices)
            problems += [*part.damaged, *wrong]
            lines = [*part.understood, *_doubts(part, sizes)]
            again = {*part.images} & {*parts["train"].images}
            if again and split != "train":
                lines.append(
                    f"{len(again)} image(s), such as {min(again)}, are also in train: "
                    "scores on what was trained on say nothing"
                )
            for line in lines:
                _warn(f"{name} {split}: {line}")
        good.append(kept)
    return Checked(good, problems, sizes, converted, len(unusual) - len(converted))


def check_images(
    paths: list[str],
    max_pixels: int = images.MAX_PIXELS,
    report: Callable[[int], None] = lambda done: None,
) -> dict[str, Looked]:
    """Decodes each image once, on all cores; calls `report` with the number done."""
    found = {}
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    try:
        results = pool.map(lambda path: _check_image(path, max_pixels), paths)
        for path, one in zip(paths, results, strict=True):
            found[path] = one
            report(len(found))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for all the rest.
    return found


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


def places(people: Annotations, sizes: Sizes) -> dict[str, float]:
    """Shares of the labeled joints on good images that lie `outside` of their image, by
    any distance, and in its `first pixel`."""
    people = people.take([i for i, path in enumerate(people.images) if path in sizes])
    limits = np.array([sizes[path][::-1] for path in people.images]).reshape(-1, 1, 2)
    outside = ((people.keypoints < 0) | (people.keypoints > limits)).any(axis=2)
    first = ((people.keypoints >= 0) & (people.keypoints <= 1)).all(axis=2)
    total = max(1, people.labeled.sum())
    return {
        name: float(np.sum(those & people.labeled) / total)
        for name, those in (("outside", outside), ("first pixel", first))
    }


def summary(people: Annotations, sizes: Sizes) -> dict:
    """What a person can check at a glance: how many `people` on how many `images`,
    their labeled `joints` (fewest, mean, most), how many have an `extent`, how many are
    `measured` by PDJ, and `places`."""
    joints = people.labeled.sum(axis=1)
    diameters = metrics.torso_diameters(
        people.keypoints, people.labeled, people.skeleton
    )
    return {
        "people": len(people),
        "images": len(set(people.images)),
        "joints": [int(joints.min()), float(joints.mean()), int(joints.max())],
        "extent": _with_extent(people),
        "measured": int(np.sum(~np.isnan(diameters))),
        **places(people, sizes),
    }


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


def _warn(line: str) -> None:
    print(f"WARNING {line}", file=sys.stderr)


def _of_other_sizes(parts: list[Annotations], looked) -> dict[str, Looked]:
    """Images that are not of the size that they were labeled at."""
    wrong = {}
    for people in parts:
        for path, stated in zip(people.images, people.stated, strict=True):
            size, (h, w) = looked[path].size, map(int, stated)
            if size and (h, w) not in (size, (0, 0)):
                turned = " when it is turned as EXIF says, or x and y are exchanged"
                why = f"labeled at {w} x {h}, the file has {size[1]} x {size[0]}"
                wrong[path] = Looked(None, why + turned * ((w, h) == size))
    return wrong


def _doubts_of_skeleton(skeleton) -> list[str]:
    names = ", ".join(skeleton.joints)
    pairs = (
        f"no pairs of left and right are understood from the joints {names}. Training "
        "mirrors people and would confuse their sides, if they have any"
    )
    torso = (
        f"no torso, such as left_shoulder to right_hip, is understood from the joints "
        f"{names}. Scores are measured in the extent of a pose and compare with no "
        "others"
    )
    wanted = [(skeleton.pairs, pairs), (skeleton.diagonals, torso)]
    told = [line for there, line in wanted if not there]
    return [f"{line}. Otherwise give a --skeleton" for line in told]


def _doubts(people: Annotations, sizes: Sizes) -> list[str]:
    """What is suspicious of a part as a whole."""
    people = people.take([i for i, path in enumerate(people.images) if path in sizes])
    if not people.labeled.any():
        return []
    shares, doubts = places(people, sizes), []
    if not _with_extent(people):
        doubts.append(
            "nobody has two labeled joints at different places: nothing can be "
            "trained, as poses are measured by their extent"
        )
    if shares["outside"] > SUSPICIOUS_SHARE:
        doubts.append(
            f"{shares['outside']:.0%} of the joints are outside their images. Are "
            "labels and images of the same release and size?"
        )
    if shares["first pixel"] > SUSPICIOUS_SHARE:
        doubts.append(
            f"{shares['first pixel']:.0%} of the joints are in the first pixel of "
            "their images. Are they not labeled at all?"
        )
    beside = _beside(people.keypoints, people.boxes[:, np.newaxis], 0.0)
    beside &= people.boxes.any(axis=1)[:, np.newaxis]
    share = beside[people.labeled].mean()
    if share > SUSPICIOUS_OF_BOXES:
        doubts.append(
            f"{share:.0%} of the joints are outside of their "
            "people's boxes. Are these x, y, width, height, from the top-left corner, "
            "and are joints and boxes measured in pixels of the image?"
        )
    points = people.keypoints[..., 0] + 1j * people.keypoints[..., 1]
    points = np.sort(np.where(people.labeled, points, np.nan), axis=1)
    shared = np.sum(points[:, 1:] == points[:, :-1]) / people.labeled.sum()
    if shared > SUSPICIOUS_SHARE:
        doubts.append(
            f"{shared:.0%} of the joints are where another joint of the same person "
            "is. Is that a place for those that are not labeled at all?"
        )
    small = np.median([min(sizes[path]) for path in people.images])
    if people.keypoints[people.labeled].max() <= PER_CENT + 1 < small / 2:
        doubts.append(
            f"all joints are within the first {PER_CENT} pixels of images of "
            f"{small:.0f} and more. Are they in per cent? Expected pixels"
        )
    return doubts


def _beside(keypoints, box, margin):
    """Which joints [..., 2] are outside of a box [..., 4], enlarged by so much of its
    size on all sides."""
    reach = margin * (box[..., 2:] - box[..., :2])
    low, high = box[..., :2] - reach, box[..., 2:] + reach
    return ((keypoints < low) | (keypoints > high)).any(axis=-1)


def _with_extent(people):
    return int(np.sum(metrics.extents(people.keypoints, people.labeled) > 0))


def _image_problems(parts: list[Annotations], looked, sizes: Sizes) -> list[Problem]:
    """(image, reason and whom it leaves out) for every bad image of the parts."""
    ids = collections.defaultdict(list)
    for people in parts:
        for path, person in zip(people.images, people.ids, strict=True):
            if path not in sizes:
                ids[path].append(person)
    return [
        (path, f"{looked[path].wrong} (leaves out {', '.join(those)})")
        for path, those in ids.items()
    ]


def _check_image(path, max_pixels) -> Looked:
    try:
        size = images.inspect(path, max_pixels)
        # Training decodes with TensorFlow, which is stricter now and then: a PNG
        # without its end, for one.
        content = pathlib.Path(path).read_bytes()
        tf.io.decode_image(content, channels=3, expand_animations=False)
        return Looked(size)
    except images.Unusual as unusual:
        wrong = unusual
    except (ValueError, OSError) as error:
        return Looked(None, str(error).removeprefix(f"{path}: "))
    except tf.errors.OpError:
        return Looked(None, "damaged, TensorFlow cannot decode it")
    try:
        size = images.read_image(path, max_pixels).shape[:2]
        return Looked(size, str(wrong).removeprefix(f"{path}: "), unusual=True)
    except ValueError as error:
        return Looked(None, str(error).removeprefix(f"{path}: "))


def _reason(people: Annotations, i: int, height: int, width: int) -> str | None:
    """What is wrong with the labels of one person, or None."""
    keypoints, labeled, box = people.keypoints[i], people.labeled[i], people.boxes[i]
    names, size = people.skeleton.joints, np.array([width, height])
    broken = ~np.isfinite(keypoints).all(axis=1)
    if broken.any():
        return f"joint {names[np.argmax(broken)]} is NaN or infinite"
    if not labeled.any():
        return "no joint is labeled"
    if (np.abs(keypoints[labeled] - 0.5) <= 1).all():
        return (
            "all its joints are in the first pixel. Are they shares of the image, "
            "0 to 1? Expected pixels"
        )
    if box.any() and (wrong := _wrong_box(box, size)):
        return f"its box {box.tolist()} is {wrong}"
    far = (keypoints < -MAX_OUTSIDE * size) | (keypoints > (1 + MAX_OUTSIDE) * size)
    far = far.any(axis=1) & labeled
    if far.any():
        x, y = keypoints[np.argmax(far)]
        return (
            f"joint {names[np.argmax(far)]} at ({x:.0f}, {y:.0f}) is far outside the "
            f"{width} x {height} image"
        )
    if box.any() and _beside(keypoints, box, 0.5)[labeled].mean() > 0.5:
        return f"most of its joints are far outside of its box {box.tolist()}"
    return None


def _wrong_box(box: np.ndarray, size: np.ndarray) -> str | None:
    """What a box is that is none of a person on an image of this width and height."""
    low, high = box[:2], box[2:]
    image = f"the {size[0]} x {size[1]} image"
    if not np.isfinite(box).all():
        return "not finite"
    if (low >= high).any():
        return "empty; expected x0 < x1 and y0 < y1"
    if (high <= 0).any() or (low >= size).any():
        return f"outside {image}"
    if (high - low < 1).any():
        return "smaller than a pixel"
    if (high - low > LARGEST_BOX * size).any():
        return f"far larger than {image}"
    return None
