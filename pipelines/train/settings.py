"""What a stage was asked to be, kept beside it: a run goes on with the same or not."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from deeppose_tf import files
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.train import recipes
from deeppose_tf.pipelines.train.training_flags import Options
from deeppose_tf.stage import Stage

FILE = "settings.json"


def of(
    recipe: recipes.Recipe,
    options: Options,
    index: records.Index,
    earlier: Sequence[Stage],
) -> dict:
    """Everything that the result of training a stage depends on, as a JSON value."""
    settings = {
        "recipe": dataclasses.asdict(recipe),
        "seed": options.seed,
        "overfit": options.overfit,
        "weights": options.weights,
        "tensorflow": tf.__version__,
        "data": {
            "counts": index.counts,
            "provenance": index.provenance,
            "checksum": index.checksums["train"],
        },
    }
    if options.start_from:
        start = pathlib.Path(options.start_from) / f"stage_{len(earlier) + 1}"
        settings["start_from"] = records.sha256(start / "weights.safetensors")
    if earlier:
        last = earlier[-1]
        settings["displacements"] = [last.mean.tolist(), last.covariance.tolist()]
    return json.loads(json.dumps(settings))


def check_finished(folder: pathlib.Path, kept: dict, asked: dict) -> None:
    """Refuses to pass off a finished stage as one of other settings.

    Raises:
      ValueError: says what differs. TensorFlow's version may.
    """
    _check_same(folder, kept, asked | {"tensorflow": kept.get("tensorflow")})


def check_begun(folder: pathlib.Path, asked: dict) -> None:
    """Refuses to go on with a training that was begun with other settings.

    One that never came to a checkpoint has nothing to go on with, and may be begun anew
    with whatever was wrong put right.

    Raises:
      ValueError: says what differs.
    """
    path = folder / FILE
    if path.exists() and any(folder.glob("checkpoints/*.index")):
        _check_same(folder, json.loads(path.read_text()), asked)


def keep(folder: pathlib.Path, asked: dict) -> None:
    """Writes the settings into the folder of a training."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_bytes(folder / FILE, json.dumps(asked, indent=2).encode() + b"\n")


def _check_same(folder, kept, asked):
    differ = list(_differences(kept, asked))
    if differ:
        raise ValueError(
            f"{folder} was made with other settings: {'; '.join(differ)}. Give the "
            "same flags and data to go on, another --run, or remove that folder to "
            "start again"
        )


def _differences(kept, asked, name="") -> Iterator[str]:
    if isinstance(kept, dict) and isinstance(asked, dict):
        for key in sorted(kept.keys() | asked.keys()):
            yield from _differences(
                kept.get(key), asked.get(key), f"{name}.{key}" if name else key
            )
    elif kept != asked and name == "data.checksum":
        yield "the data set has other training images or labels"
    elif kept != asked:
        short = len(str(kept)) + len(str(asked)) < 80
        yield f"{name} was {kept}, is {asked}" if short else f"another {name}"
