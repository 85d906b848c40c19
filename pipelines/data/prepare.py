"""Data sets of labeled people -> one folder of checked records, for deeppose-prepare.

Which data sets there are, reading them, holding images out, and the order of the work:
read, check, arrange, find boxes, write.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Sequence

import numpy as np

import deeppose_tf
from deeppose_tf.datasets import (
    CONVENTIONS,
    Annotations,
    Missing,
    buffy,
    coco,
    flic,
    generated,
    images,
    lsp,
    merge,
    mpii,
    where_from,
)
from deeppose_tf.pipelines.cli import progress
from deeppose_tf.pipelines.data import checks, first_boxes, records
from deeppose_tf.pipelines.data import sheet as sheets
from deeppose_tf.pipelines.data import teacher as taught

# Sec. 4.1 holds out fifty.
VALIDATION = 50
TEST_SHARE = 0.1  # Held out for testing where no data set has a test part.

Splits = dict[str, Annotations]


def prepare(
    dataset: Sequence[str],
    source: Sequence[str],
    output: str,
    *,
    validation: int | None = None,
    test: int | None = None,
    repeat: Sequence[int] = (),
    seed: int = 0,
    convention: str = "person",
    skeleton: str = "",
    flic_plus: str = "",
    boxes: Sequence[str] = (),
    boxes_from: str = "",
    coverage: float | None = None,
    skip_bad: bool = False,
    convert: bool = False,
    max_pixels: int = images.MAX_PIXELS,
    teacher: Sequence[str] = (),
    sheet: bool = False,
) -> records.Index:
    """Reads, checks, holds out and writes a data set, or confirms a finished one.

    The arguments are the flags of deeppose-prepare, which explain themselves there.

    Raises:
      ValueError: everything that is wrong, a line each. Nothing was written.
    """
    source, output = tuple(map(_full, source)), _full(output)
    skeleton = _full(skeleton) if skeleton.endswith(".json") else skeleton
    flic_plus = flic_plus and _full(flic_plus)
    boxes_from = boxes_from and _full(boxes_from)
    given = first_boxes.require_known(boxes, boxes_from, coverage)
    if teacher and len(teacher) != len(dataset):
        raise ValueError(
            f"--teacher={','.join(teacher)}: give one for each --dataset, joined by "
            "commas, and nothing for one without"
        )
    arguments = {
        "dataset": list(dataset),
        "source": list(source),
        "validation": VALIDATION if validation is None else validation,
        "test": test,
        "repeat": list(repeat),
        "seed": seed,
        "convention": convention,
        "skeleton": skeleton,
        "skip_bad": skip_bad,
        "convert": convert,
        "max_pixels": max_pixels,
    }
    # What came later is left out where it is not used, so that data prepared before
    # there was any is known again.
    later = {
        "flic_plus": flic_plus,
        "boxes": list(boxes),
        "boxes_from": boxes_from,
        "coverage": coverage,
        "enlargements": given,
        "teacher": [path and records.sha256(path) for path in teacher],
    }
    arguments |= {name: value for name, value in later.items() if value}

    parts, fatal = read_all(dataset, source, convention, skeleton, flic_plus, seed)
    fingerprint = records.identity(
        {f"{i} {s}": p for i, (_, one) in enumerate(parts) for s, p in one.items()},
        arguments,
    )
    if not fatal and records.finished(output, fingerprint, arguments):
        print(f"{output}: already prepared, comparing checksums", flush=True)
        return records.verify(output)
    checked = checks.check(parts, max_pixels, convert)
    if fatal or checked.problems and not skip_bad:
        raise ValueError(checks.report(fatal, checked.problems, checked.unusual))
    splits, weights = arrange(checked.parts, validation, test, seed, repeat)
    held = held_out(checked.parts, splits)
    summary = {
        split: checks.summary(people, checked.sizes)
        for split, people in splits.items()
        if len(people)
    }
    provenance = {}
    if teacher:
        splits, provenance["taught"] = _taught(splits, source, teacher, output, sheet)
    if boxes:
        splits, provenance["first_boxes"] = _boxed(
            splits, boxes, coverage, given, output
        )
    _require_space(splits, output)
    harmless = [
        s for _, one in parts for people in one.values() for s in people.skipped
    ]
    return records.write(
        splits,
        output,
        {
            "arguments": arguments,
            "version": deeppose_tf.__version__,
            "converted": checked.converted,
            "held_out": held,
            "summary": summary,
            **provenance,
        },
        skipped=tuple(harmless + checked.problems),
        fingerprint=fingerprint,
        seed=seed,
        convert=convert,
        progress=progress.reporter(sum(map(len, splits.values())), "Writing", "person"),
        weights=weights,
    )


def read_all(
    names: Sequence[str],
    roots: Sequence[str],
    convention: str = "person",
    skeleton: str = "",
    flic_plus: str = "",
    seed: int = 0,
) -> tuple[list[tuple[str, Splits]], list[checks.Problem]]:
    """Name and parts of each data set; (which, reason) for each that cannot be read.

    Raises:
      ValueError: the flags do not say which data sets.
    """
    if len(names) != len(roots) or not names:
        raise ValueError(
            f"{len(names)} --dataset ({', '.join(names)}) but {len(roots)} --source "
            f"({', '.join(roots)}); each needs its own, in the same order"
        )
    if flic_plus and "flic" not in names:
        raise ValueError("--flic_plus is for --dataset=flic, which is not given")
    if skeleton and "coco" not in names:
        raise ValueError("--skeleton is for --dataset=coco, which is not given")
    found, fatal = [], []
    sets = list(zip(names, roots, strict=True))
    for i, (name, root) in enumerate(sets):
        if (name, root) in sets[:i]:
            raise ValueError(f"--dataset={name} --source={root} is given twice")
        try:
            parts = read(name, root, convention, skeleton, flic_plus, seed, _drawing())
        except (ValueError, OSError) as error:
            fatal.append((name, str(error)))
            continue
        if list(names).count(name) > 1:  # Their ids are told apart.
            parts = {s: _numbered(p, i + 1) for s, p in parts.items()}
        found.append((name, parts))
    try:
        if found:
            merge([p for _, one in found for p in one.values()])
    except ValueError as error:
        fatal.append((", ".join(names), str(error)))
    return found, fatal


def read(
    name: str,
    source: str,
    convention: str = "person",
    skeleton: str = "",
    flic_plus: str = "",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Splits:
    """All parts that a data set has; a part it lacks has nobody. The arguments are
    flags of deeppose-prepare.

    Args:
      source: its folder; for `coco` and `mpii` also a single JSON file, all of it for
        training.
      progress: called with (pictures done, pictures in all) while they are drawn.

    Raises:
      ValueError: whatever is wrong with the files; names them.
    """
    root = os.path.expanduser(source)
    if name not in CONVENTIONS:
        raise ValueError(
            f"--dataset={name}: unknown, expected {', '.join(CONVENTIONS)}"
        )
    own = CONVENTIONS[name]
    if convention not in own:
        raise ValueError(
            f"--convention={convention}: {name} has {own[0]}-centric labels only, and "
            f"no rule makes others; give --convention={own[0]}"
        )
    if name == "generated":
        return {
            split: generated.read(root, split, seed=seed, progress=progress)
            for split in records.SPLITS
        }
    address = where_from(name)
    if not os.path.exists(root):
        raise ValueError(f"--source={source}: no such folder{address}")
    if os.path.isfile(root) and name not in ("coco", "mpii"):
        raise ValueError(
            f"--source={source}: a file; give the folder it was unpacked to"
        )
    readers = {
        "lsp": lambda: lsp.read_splits(root, convention),
        "lspet": lambda: lsp.read_extended(root),
        "flic": lambda: flic.read_splits(root, convention, flic_plus or None),
        "parse": lambda: lsp.read_parse(root),
        "buffy": lambda: buffy.read_splits(root),
        "mpii": lambda: mpii.read_splits(root),
        "coco": lambda: coco.read_splits(root, skeleton or None),
    }
    try:
        parts = readers[name]()
    except Missing as error:
        raise ValueError(f"{error}{address}") from error
    return {"validation": parts["train"].nobody(), **parts}


def arrange(
    parts: Sequence[Splits],
    validation: int | None = None,
    test: int | None = None,
    seed: int = 0,
    repeat: Sequence[int] = (),
) -> tuple[Splits, np.ndarray | None]:
    """One data set of several: the parts of each joined, and what lacks held out.

    Validation images come out of the training part of the first data set (Sec. 4.1)
    unless one has a validation part; likewise test images unless one has a test part.

    Args:
      validation: number of images to hold out for validation; None for `VALIDATION`,
        or a fifth where that is fewer.
      test: number of images to hold out for testing; None for a tenth.
      seed: chooses them.
      repeat: by data set, how often an epoch shows its training part; once by default.

    Returns:
      The splits; and how often an epoch shows each person of `train`, [N], None for
      everyone once.

    Raises:
      ValueError: nobody to train on nor to test on, too few images to hold that many
        out, or not one positive repeat for each data set.
    """
    repeat = repeat or [1] * len(parts)
    if len(repeat) != len(parts) or not 0 < min(repeat) <= max(repeat) < 10**5:
        given = ",".join(map(str, repeat))
        raise ValueError(f"--repeat={given}: give a positive number for each --dataset")
    if not any(len(part["train"]) for part in parts):
        if not any(len(part["test"]) for part in parts):
            raise ValueError("the training part is empty: nobody to train on")
        validation = 0  # Data to test on alone.
    first, out = parts[0]["train"], {}
    count = len(set(first.images))
    if test is None:
        test = round(TEST_SHARE * count)
    if validation is None:
        validation = min(VALIDATION, count // 5)
    for split, number in (("test", test), ("validation", validation)):
        found = merge([part[split] for part in parts])
        if not len(found) and number:
            count = len(set(first.images))
            if 2 * number > count:
                raise ValueError(
                    f"cannot hold out {number} of the first data set's {count} "
                    f"training images for {split}: give a smaller --{split}"
                )
            found, first = hold_out(first, number, seed)
        out[split] = found
    train = [first] + [part["train"] for part in parts[1:]]
    weights = np.repeat(repeat, list(map(len, train))) if max(repeat) > 1 else None
    out = {"train": merge(train), "validation": out["validation"], "test": out["test"]}
    return out, weights


def held_out(parts: Sequence[Splits], result: Splits) -> list[str]:
    """Which splits that `arrange` made are of training images, no data set's own."""
    return [
        split
        for split in ("validation", "test")
        if len(result[split]) and not any(len(part[split]) for part in parts)
    ]


def hold_out(
    people: Annotations, count: int, seed: int
) -> tuple[Annotations, Annotations]:
    """That many images with everyone on them, chosen by `seed`; and the others."""
    names = np.unique(people.images)
    chosen = np.random.default_rng(seed).permutation(names)[:count]
    out = np.isin(people.images, chosen)
    return people.take(out), people.take(~out)


def _taught(splits, source, teacher, output, sheet):
    """The splits with the training labels by a teacher, and what was changed."""
    people = splits["train"]
    better, told = taught.teach(people, source, teacher)
    if sheet:
        folder = records.partial_directory(output)
        sheets.write_taught(people, better, told["worst"], folder)
    return splits | {"train": better}, told


def _boxed(splits, boxes, coverage, given, output):
    """The splits with the first boxes that were asked for, and how they were found."""
    kept = records.partial_directory(output)
    total = sum(map(len, splits.values())) if "face" in boxes else 0
    bar = progress.reporter(total, "Looking for faces", "person")
    return first_boxes.choose(splits, boxes, coverage or 1.0, given, kept, bar)


def _numbered(people: Annotations, number: int) -> Annotations:
    ids = tuple(f"{number}/{person}" for person in people.ids)
    return dataclasses.replace(people, ids=ids)


def _full(path: str) -> str:
    """A path spelled out: a shell leaves the ~ of --source=~/data as it is."""
    return os.path.realpath(os.path.expanduser(path))


def _require_space(splits: Splits, output: str) -> None:
    paths = {(s, path) for s, people in splits.items() for path in people.images}
    needed = sum(os.path.getsize(path) for _, path in paths)
    folder = pathlib.Path(output).parent
    while not folder.exists():
        folder = folder.parent
    partial = records.partial_directory(output)
    if partial.is_dir():
        needed -= sum(file.stat().st_size for file in partial.iterdir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed. Make "
            "room, or give another --output"
        )


def _drawing() -> Callable[[int, int], None]:
    """One bar after the other: the pictures of each split are counted anew."""
    bars = {}

    def update(done: int, total: int) -> None:
        if done == 1:
            bars["now"] = progress.reporter(total, "Drawing", "image")
        bars["now"](done)

    return update
