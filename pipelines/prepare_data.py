"""deeppose-prepare: one or several data sets -> one directory of checked records."""

from __future__ import annotations

import pathlib

import numpy as np
from absl import app, flags, logging
from tensorflow import keras

from deeppose_tf.datasets import Annotations, lsp, lspet
from deeppose_tf.pipelines import record_writer, records

DATASETS = ("lsp", "lspet")


def define_flags() -> None:
    flags.DEFINE_list(
        "dataset",
        None,
        "What to read: lsp or lspet. Several, joined by commas, become one data set.",
    )
    flags.DEFINE_list(
        "source",
        None,
        "The folder of each --dataset, in the same order, joined by commas.",
    )
    flags.DEFINE_string("output", None, "The folder to make.")
    flags.DEFINE_integer(
        "validation",
        50,
        "How many images of the first data set's training part are held out for "
        "validation (Sec. 4.1: 50).",
        lower_bound=0,
    )
    flags.DEFINE_integer("seed", 0, "Chooses the held-out images and the order.")
    flags.mark_flags_as_required(["dataset", "source", "output"])


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; flags start with --")
    values = flags.FLAGS
    try:
        index = prepare(
            values.dataset,
            values.source,
            values.output,
            validation=values.validation,
            seed=values.seed,
        )
    except ValueError as error:
        logging.error("%s", error)
        raise SystemExit(1) from error
    print(f"{values.output}: {index.counts}")


def prepare(
    datasets: list[str],
    sources: list[str],
    output: str,
    validation: int = 50,
    seed: int = 0,
) -> records.Index:
    """Reads the data sets, holds out validation images and writes the records."""
    if len(datasets) != len(sources):
        raise ValueError(f"{len(datasets)} --dataset but {len(sources)} --source")
    parts = {
        split: [
            _read(name, root, split)
            for name, root in zip(datasets, sources, strict=True)
        ]
        for split in ("train", "test")
    }
    held_out, parts["train"][0] = hold_out(parts["train"][0], validation, seed)
    splits = {
        "train": merge(parts["train"]),
        "validation": held_out,
        "test": merge(parts["test"]),
    }
    bar = keras.utils.Progbar(sum(map(len, splits.values())))
    provenance = {
        "datasets": list(datasets),
        "sources": [str(pathlib.Path(source).resolve()) for source in sources],
        "validation": validation,
        "seed": seed,
    }
    return record_writer.write(
        splits, output, provenance, seed=seed, progress=bar.update
    )


def hold_out(
    train: Annotations, images: int, seed: int
) -> tuple[Annotations, Annotations]:
    """Takes that many images, with everyone on them, out of a training part."""
    names = np.unique(train.images)
    if images >= len(names):
        raise ValueError(
            f"cannot hold out {images} of {len(names)} training images; give a smaller "
            "--validation"
        )
    chosen = np.random.default_rng(seed).permutation(names)[:images]
    out = np.isin(train.images, chosen)
    return train.take(np.flatnonzero(out)), train.take(np.flatnonzero(~out))


def merge(parts: list[Annotations]) -> Annotations:
    """Everyone of several data sets of one skeleton."""
    if len({part.skeleton for part in parts}) > 1:
        raise ValueError("the data sets have different skeletons")
    return Annotations(
        skeleton=parts[0].skeleton,
        images=sum((part.images for part in parts), ()),
        keypoints=np.concatenate([part.keypoints for part in parts]),
        labeled=np.concatenate([part.labeled for part in parts]),
        boxes=np.concatenate([part.boxes for part in parts]),
        ids=sum((part.ids for part in parts), ()),
        skipped=sum((part.skipped for part in parts), ()),
    )


def _read(name: str, root: str, split: str) -> Annotations:
    if name == "lsp":
        return lsp.read(root, split)
    if name == "lspet":
        return lspet.read(root, split)
    raise ValueError(f"no data set {name!r}, only {', '.join(DATASETS)}")


def run() -> None:
    define_flags()
    app.run(main)


if __name__ == "__main__":
    run()
