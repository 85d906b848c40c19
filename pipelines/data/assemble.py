"""Reads, checks and arranges data sets and has them written, for deeppose-prepare."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import shutil

import deeppose_tf
from deeppose_tf.datasets import images
from deeppose_tf.pipelines.cli import progress
from deeppose_tf.pipelines.data import checks as check_data
from deeppose_tf.pipelines.data import (
    data_sets,
    first_boxes,
    record_writer,
    records,
    splits,
)
from deeppose_tf.pipelines.data.checks import Problem
from deeppose_tf.pipelines.data.splits import Splits

# Options that came later than the first data sets, see `_arguments`.
LATER = ("flic_plus", "boxes", "boxes_from", "coverage")


@dataclasses.dataclass(frozen=True)
class Options:
    """What to prepare; the fields are the flags of deeppose-prepare."""

    dataset: tuple[str, ...]
    source: tuple[str, ...]
    output: str
    validation: int = 50
    test: int | None = None
    repeat: tuple[int, ...] = ()
    seed: int = 0
    convention: str = "person"
    flic_plus: str = ""
    boxes: tuple[str, ...] = ()
    boxes_from: str = ""
    coverage: float | None = None
    skeleton: str = ""
    skip_bad: bool = False
    convert: bool = False
    max_pixels: int = images.MAX_PIXELS


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set that was read: its name and its parts."""

    name: str
    parts: Splits


def prepare(options: Options) -> records.Index:
    """Reads, checks, holds out and writes a data set, or confirms a finished one.

    Raises:
      ValueError: everything that is wrong, a line each. Nothing was written.
    """
    options = _absolute(options)
    fitted = bool(options.boxes_from or options.coverage)
    if options.boxes_from and options.coverage:
        raise ValueError("--coverage is for what is fitted, and --boxes_from is not")
    given = first_boxes.read_enlargements(options.boxes_from)
    first_boxes.require_known(options.boxes, fitted, given)
    arguments = _arguments(options) | ({"enlargements": given} if given else {})
    sources, fatal = read_sources(options)
    fingerprint = record_writer.identity(
        {f"{i} {s}": p for i, one in enumerate(sources) for s, p in one.parts.items()},
        arguments,
    )
    if not fatal and record_writer.finished(options.output, fingerprint, arguments):
        print(f"{options.output}: already prepared, comparing checksums", flush=True)
        return records.verify(options.output)
    good, problems, converted, unusual = check(sources, options)
    if fatal or problems and not options.skip_bad:
        raise ValueError(check_data.report(fatal, problems, unusual))
    result = splits.arrange(
        good, options.validation, options.test, options.seed, options.repeat
    )
    held_out = splits.held_out(good, result)
    result, provenance = _with_boxes(result, options, given)
    harmless = [s for one in sources for p in one.parts.values() for s in p.skipped]
    _require_space(result, options.output)
    total = sum(map(len, result.values()))
    return record_writer.write(
        result,
        options.output,
        {
            "arguments": arguments,
            "version": deeppose_tf.__version__,
            "converted": converted,
            "held_out": held_out,
            **provenance,
        },
        skipped=tuple(harmless + problems),
        fingerprint=fingerprint,
        seed=options.seed,
        convert=options.convert,
        progress=progress.reporter(total, "Writing", "person"),
    )


def _with_boxes(result: Splits, options: Options, given) -> tuple[Splits, dict]:
    """The first boxes that were asked for, and what provenance says of them."""
    if not options.boxes:
        return result, {}
    total = sum(map(len, result.values()))
    bar = None
    if "face" in options.boxes:
        bar = progress.reporter(total, "Looking for faces", "person")
    coverage = 1.0 if options.coverage is None else options.coverage
    kept = record_writer.partial_directory(options.output)
    result, how = first_boxes.choose(result, options.boxes, coverage, given, bar, kept)
    return result, {"first_boxes": how}


def read_sources(options: Options) -> tuple[list[Source], list[Problem]]:
    """The data sets, and (which, reason) for each that cannot be read at all.

    Raises:
      ValueError: the flags do not say which data sets.
    """
    names, roots = options.dataset, options.source
    if len(names) != len(roots) or not names:
        raise ValueError(
            f"{len(names)} --dataset ({', '.join(names)}) but {len(roots)} --source "
            f"({', '.join(roots)}); each needs its own, in the same order"
        )
    for flag, name in (("flic_plus", "flic"), ("skeleton", "coco")):
        if getattr(options, flag) and name not in names:
            raise ValueError(f"--{flag} is for --dataset={name}, which is not given")
    sources, fatal = [], []
    for i, (name, root) in enumerate(zip(names, roots, strict=True)):
        if (name, root) in list(zip(names[:i], roots[:i], strict=True)):
            raise ValueError(f"--dataset={name} --source={root} is given twice")
        try:
            parts = data_sets.read(
                name,
                root,
                options.convention,
                options.skeleton,
                options.seed,
                _drawing(),
                options.flic_plus,
            )
        except (ValueError, OSError) as error:
            fatal.append((name, str(error)))
            continue
        if names.count(name) > 1:
            parts = splits.renamed(parts, f"{i + 1}/")
        sources.append(Source(name, parts))
    try:
        if sources:
            splits.merge([p for one in sources for p in one.parts.values()])
    except ValueError as error:
        fatal.append((", ".join(names), str(error)))
    return sources, fatal


def check(sources: list[Source], options: Options):
    """Looks at every image and label.

    Returns:
      The parts without what is wrong, by data set; (what, reason) for what is wrong;
      the images to be converted; the number of those that could be.
    """
    people = [p for one in sources for p in one.parts.values()]
    paths = list(dict.fromkeys(path for p in people for path in p.images))
    checked = check_data.check_images(
        paths,
        options.max_pixels,
        options.convert,
        progress.reporter(len(paths), "Checking", "image"),
    )
    good, problems = [], []
    for one in sources:
        parts = {}
        problems += check_data.image_problems(one.parts.values(), checked.errors)
        for split, part in one.parts.items():
            indices, found = check_data.check_people(part, checked.sizes)
            parts[split] = part.take(indices)
            problems += [*part.damaged, *found]
        good.append(parts)
        check_data.warn(one.name, one.parts, checked.sizes)
    return good, problems, checked.converted, checked.unusual


def _arguments(options: Options) -> dict:
    """Those that make a data set what it is. The ones in LATER are left out where they
    are empty, so that data sets made before there were any are known again."""
    arguments = dataclasses.asdict(options)
    del arguments["output"]
    return {name: x for name, x in arguments.items() if x or name not in LATER}


def _absolute(options: Options) -> Options:
    """Paths spelled out: a shell leaves the ~ of --source=~/data as it is."""

    def full(path):
        return os.path.realpath(os.path.expanduser(path))

    skeleton = options.skeleton
    return dataclasses.replace(
        options,
        source=tuple(full(path) for path in options.source),
        output=full(options.output),
        skeleton=full(skeleton) if skeleton.endswith(".json") else skeleton,
        flic_plus=options.flic_plus and full(options.flic_plus),
        boxes_from=options.boxes_from and full(options.boxes_from),
    )


def _require_space(result: Splits, output: str) -> None:
    needed = sum(
        os.path.getsize(path) for people in result.values() for path in people.images
    )
    folder = pathlib.Path(output).parent
    while not folder.exists():
        folder = folder.parent
    partial = record_writer.partial_directory(output)
    if partial.is_dir():
        needed -= sum(file.stat().st_size for file in partial.iterdir())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ValueError(
            f"{folder}: {free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed. Make "
            "room, or give another --output"
        )


def _drawing():
    """One bar after the other: the pictures of each split are counted anew."""
    bars = {}

    def update(done: int, total: int) -> None:
        if done == 1:
            bars["now"] = progress.reporter(total, "Drawing", "image")
        bars["now"](done)

    return update
