"""What a stage was asked to be, kept beside it: a run goes on with the same or not.

A stage may be asked for more steps than it has. Everything else has to be the same.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Sequence

import tensorflow as tf

from deeppose_tf import files
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.train import recipes
from deeppose_tf.pipelines.train.loop import Options
from deeppose_tf.stage import Stage

FILE = "settings.json"
STEPS = "recipe.train.steps"
BEFORE = "steps_before"


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


def missing_steps(folder: pathlib.Path, kept: dict, asked: dict) -> int:
    """How many more steps are asked for than a finished stage has; 0 for no more.

    Args:
      folder: of the stage, for the error.
      kept: what it was made with, by this version or an earlier one.
      asked: what it is asked to be now.

    Raises:
      ValueError: something else differs, but for TensorFlow's version, or fewer steps
        are asked for; says what.
    """
    _check_same(folder, kept, asked | {"tensorflow": kept.get("tensorflow")})
    return _steps(asked) - _steps(kept)


def continued(workdir: pathlib.Path, asked: dict) -> dict:
    """What is asked for, with the numbers of steps that the training in a folder had
    been asked for before, as `steps_before`.

    A training that never came to a checkpoint has nothing to go on with, and may be
    begun anew with whatever was wrong put right.

    Raises:
      ValueError: it was begun with other settings; says what differs.
    """
    path = workdir / FILE
    if not path.exists() or not any(workdir.glob("checkpoints/*.index")):
        return asked
    kept = files.read_json(path)
    _check_same(workdir, kept, asked)
    before = kept.get(BEFORE, [])
    if _steps(kept) < _steps(asked):
        before = [*before, _steps(kept)]
    return asked | ({BEFORE: before} if before else {})


def keep(workdir: pathlib.Path, asked: dict) -> None:
    """Writes the settings into the folder of a training."""
    workdir.mkdir(parents=True, exist_ok=True)
    files.write_json(workdir / FILE, asked, digest=True)


def _steps(settings):
    return settings["recipe"]["train"]["steps"]


def _check_same(folder, kept, asked):
    differ = list(_differences(_comparable(folder, kept), _comparable(folder, asked)))
    if differ:
        run, number = folder.parent, folder.name.rpartition("_")[2]
        raise ValueError(
            f"{folder} was made with other settings: {'; '.join(differ)}. Give the "
            "same flags and data to go on, another --run, or start the stage again "
            f"after rm -r {run / f'stage_{number}'} {run / f'training_{number}'}"
        )


def _comparable(folder, settings):
    """With the names and defaults of this version, and without what says where the data
    came from: it is the same if its checksum is."""
    try:
        data = {name: x for name, x in settings["data"].items() if name != "provenance"}
        recipe = recipes.from_json(settings["recipe"])
    except ValueError as error:
        raise ValueError(f"{folder} was made with {error}") from error
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: what it was made with is damaged") from error
    known = json.loads(json.dumps(dataclasses.asdict(recipe)))
    return settings | {"data": data, "recipe": known, BEFORE: None}


def _differences(kept, asked, name="") -> Iterator[str]:
    if isinstance(kept, dict) and isinstance(asked, dict):
        for key in sorted(kept.keys() | asked.keys()):
            yield from _differences(
                kept.get(key), asked.get(key), f"{name}.{key}" if name else key
            )
    elif kept != asked and name == "data.checksum":
        yield "the data set has other training images, labels or weights"
    elif kept != asked and name == "displacements":
        yield (
            "the stage before it has been trained anew or on since, and leaves other "
            "displacements"
        )
    elif kept != asked and not (name == STEPS and asked > kept):
        short = len(str(kept)) + len(str(asked)) < 80
        yield f"{name} was {kept}, is {asked}" if short else f"another {name}"
