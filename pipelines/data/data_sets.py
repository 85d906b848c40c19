"""A data set, by its name and folder -> the parts that it has, as `Annotations`."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

from deeppose_tf.datasets import (
    Missing,
    buffy,
    coco,
    flic,
    generated,
    lsp,
    lspet,
    mpii,
    parse,
)
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.splits import Splits

# The data sets, and whose left is left in the labels that each can give: the person's
# own, or as of someone who faces the camera. No rule makes one of the other but that of
# FLIC; the observer-centric labels of LSP are a file of their own.
DATASETS = {
    "lsp": ("person", "observer"),
    "lspet": ("person",),
    "flic": ("person", "observer"),
    "parse": ("observer",),
    "buffy": ("observer",),
    "mpii": ("person",),
    "coco": ("person",),
    "generated": ("person",),
}
# Where their authors offer them; README's table says more.
ADDRESSES = {
    "lsp": "http://sam.johnson.io/research/lsp.html",
    "lspet": "http://sam.johnson.io/research/lspet.html",
    "flic": "https://bensapp.github.io/flic-dataset.html (the index file of FLIC-plus: "
    "https://cims.nyu.edu/~tompson/flic_plus.htm)",
    "parse": "https://www.cs.cmu.edu/~deva/papers/parse/index.html",
    "buffy": "https://www.robots.ox.ac.uk/~vgg/data/stickmen/",
    "mpii": "http://human-pose.mpi-inf.mpg.de",
}


def read(
    name: str,
    source: str,
    convention: str = "person",
    skeleton: str = "",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    flic_plus: str = "",
) -> Splits:
    """All parts that a data set has; a part it lacks has nobody.

    Args:
      name: one of DATASETS.
      source: its folder; for `coco` and `mpii` also a single JSON file, all of it for
        training.
      convention: `person` or `observer`, see DATASETS.
      skeleton: of COCO, a skeleton JSON file or the name of a built-in one.
      seed: of the generated pictures.
      progress: called with (pictures done, pictures in all) while they are drawn.
      flic_plus: of FLIC, the index file of FLIC-plus.

    Raises:
      ValueError: whatever is wrong with the files; names them.
    """
    root = pathlib.Path(source).expanduser()
    if name not in DATASETS:
        raise ValueError(f"--dataset={name}: unknown, expected {', '.join(DATASETS)}")
    if convention not in DATASETS[name]:
        raise ValueError(
            f"--convention={convention}: {name} has {DATASETS[name][0]}-centric labels "
            f"only, and no rule makes others; give --convention={DATASETS[name][0]}"
        )
    if name == "generated":
        return {
            split: generated.read(str(root), split, seed=seed, progress=progress)
            for split in records.SPLITS
        }
    if not root.exists():
        raise ValueError(f"--source={source}: no such folder{_address(name)}")
    if root.is_file() and name not in ("coco", "mpii"):
        raise ValueError(
            f"--source={source}: a file; give the folder it was unpacked to"
        )
    try:
        parts = _read_official(name, str(root), convention, skeleton, flic_plus)
    except Missing as error:
        raise ValueError(f"{error}{_address(name)}") from error
    nobody = parts["train"].take([])
    return {"validation": dataclasses.replace(nobody, skipped=(), damaged=()), **parts}


def _address(name: str) -> str:
    """The end of an error about missing files of a data set."""
    return f". {name} is at {ADDRESSES[name]}" if name in ADDRESSES else ""


def _read_official(name, root, convention, skeleton, flic_plus) -> Splits:
    if name == "lsp":
        return {s: lsp.read(root, s, convention) for s in ("train", "test")}
    if name == "lspet":
        return {s: lspet.read(root, s) for s in ("train", "test")}
    if name == "flic":
        return flic.read_splits(root, convention, flic_plus or None)
    if name == "parse":
        return parse.read_splits(root, convention)
    if name == "buffy":
        return buffy.read_splits(root, convention)
    if name == "mpii":
        return mpii.read_splits(root)
    return coco.read_splits(root, skeleton or None)
