"""Trains, scores and packs the cascades that ship with the package.

All of it is done by what the other commands do, in folders below one, and goes on where
it was stopped: data is prepared once, a stage that is finished is taken as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence

from deeppose_tf import files, stage
from deeppose_tf.cascade import Cascade
from deeppose_tf.pipelines.data import prepare, records
from deeppose_tf.pipelines.evaluation import evaluate
from deeppose_tf.pipelines.train import cascade, loop, recipes

SCORES = "scores.json"
# What is told of how the data was made, but for where it was.
KEPT = ("taught", "first_boxes")


@dataclasses.dataclass(frozen=True)
class Preset:
    """How a cascade that ships is made.

    Attributes:
      recipe: see `recipes.RECIPES`.
      datasets: what it is trained on, the first to be tested on too.
      arguments: more of `prepare.prepare`.
      changes: of the recipe.
      size: of the first stage's crops once it is trained; None leaves them. On larger
        crops than it learned from, Lightning finds joints more sharply.
      stages: S.
    """

    recipe: str
    datasets: tuple[str, ...]
    arguments: Mapping
    changes: Mapping = dataclasses.field(default_factory=dict)
    size: int | None = None
    stages: int = 2


_BODY = {"repeat": (4, 1), "validation": 100, "skip_bad": True}
_FACES = {"convention": "person", "boxes": ("face", "torso"), "coverage": 0.99}


def _changes(steps, freeze, learning_rate, later):
    """Larger batches and more crops than the recipes have, for a GPU or an hour."""
    return {
        "1.inputs.batch": 64,
        "1.train.steps": steps,
        "1.train.freeze": freeze,
        "1.train.learning_rate": learning_rate,
        "train.ema": 0.998,
        "2.train.steps": later,
    }


PRESETS = {
    "full_body_small": Preset(
        "lightning",
        ("lsp", "lspet"),
        _BODY,
        # Joints as large as on crops of 96 and sigma 1.2, at half the work.
        changes=_changes(800, "block_2_project", 6e-4, 1400)
        | {"2.stage.size": 64, "2.stage.sigma": 0.8},
        size=256,
    ),
    "full_body": Preset(
        "thunder",
        ("lsp", "lspet"),
        _BODY,
        changes=_changes(800, "block_5_project", 5e-4, 1400),
        size=288,
    ),
    "upper_body": Preset(
        "thunder",
        ("flic",),
        _FACES,
        changes=_changes(340, "block_5_project", 4e-4, 340),
    ),
}


def make(
    name: str,
    work: str,
    sources: Mapping[str, str],
    teachers: Mapping[str, str],
    weights: str,
    steps: int | None,
    output: str,
) -> dict:
    """Makes one preset.

    Args:
      name: of `PRESETS`.
      work: the folder for prepared data, runs and evaluations.
      sources: name of a data set -> its folder.
      teachers: name of a data set -> a teacher's answers, see `teacher.teach`.
      weights: MoveNet's, see `weights.start`.
      steps: of every stage; None for the recipe's.
      output: the folder of presets.

    Returns:
      As `evaluate.evaluate`, with a row of MoveNet as its first stage begins.

    Raises:
      ValueError: a data set is missing, or see `prepare`, `train_cascade`.
    """
    preset = PRESETS[name]
    missing = [one for one in preset.datasets if one not in sources]
    if missing:
        raise ValueError(f"{name} is trained on {', '.join(missing)}: give its folder")
    data = pathlib.Path(work) / f"data_{'_'.join(preset.datasets)}"
    arguments = dict(preset.arguments)
    given = [teachers.get(one, "") for one in preset.datasets]
    if any(given):
        arguments["teacher"] = given
    folders = [sources[one] for one in preset.datasets]
    index = prepare.prepare(preset.datasets, folders, str(data), **arguments)
    run = pathlib.Path(work) / name
    numbers = range(1, preset.stages + 1 if steps else 1)
    changes = {**preset.changes, **{f"{n}.train.steps": steps for n in numbers}}
    options = loop.Options(weights=weights)
    recipe_for = functools.partial(recipes.recipe_for, preset.recipe, changes=changes)
    trained = cascade.train_cascade(str(run), index, recipe_for, preset.stages, options)
    if preset.size:
        first, *later = trained.stages
        trained = Cascade([sized(first, preset.size), *later])
    report = evaluate.evaluate(trained, index, output=str(run / "evaluation"))
    begun = evaluate.evaluate(_begun(trained.stages[0], weights), index)
    report["rows"].insert(1, begun["rows"][1] | {"name": "MoveNet as begun"})
    pack(trained, index, report, str(pathlib.Path(output) / name))
    return report


def pack(trained: Cascade, index: records.Index, report: Mapping, folder: str) -> None:
    """Writes a cascade to ship: its stages in float16, and their scores.

    Args:
      trained: the cascade.
      index: of the data that it was trained on.
      report: of `evaluate.evaluate`.
      folder: the preset's; its last part is the name.
    """
    for number, one in enumerate(trained.stages, start=1):
        # What a reader can use; not the folders of whoever trained it.
        recipe = one.training["recipe"]
        arguments = index.provenance["arguments"]
        provenance = {
            "arguments": {x: arguments.get(x) for x in ("dataset", "convention")},
            **{x: index.provenance[x] for x in KEPT if x in index.provenance},
        }
        data = {"counts": index.counts, "provenance": provenance}
        training = {"recipe": recipe, "data": data}
        one = dataclasses.replace(one, training=training)
        stage.save_stage(one, f"{folder}/stage_{number}", "float16")
    trained.save_index(folder)
    rows = [
        {
            "name": row["name"],
            "pcp_mean4": row["scores"]["pcp_strict"]["mean4"],
            "pdj": row["scores"]["pdj"],
        }
        for row in report["rows"]
    ]
    protocol = {name: x for name, x in report["protocol"].items() if name != "data"}
    content = {"format": 1, "protocol": protocol, "rows": rows}
    files.write_json(pathlib.Path(folder) / SCORES, content)


def sized(one: stage.Stage, size: int, **changes) -> stage.Stage:
    """A stage whose network looks at crops of another size.

    Args:
      one: as trained; it stays as it is.
      size: side of the crops in pixels.
      **changes: of its configuration, such as sigma, that leave the weights as they
        are.

    Raises:
      ValueError: see `StageConfig` and `stage.build_stage`.
    """
    config = dataclasses.replace(one.config, size=size, **changes)
    model = stage.build_stage(config, one.skeleton)
    stage.copy_weights(one.model, model)
    return dataclasses.replace(one, config=config, model=model)


def _begun(first: stage.Stage, weights: str) -> Cascade:
    """A cascade of the first stage before its training."""
    model = stage.build_stage(first.config, first.skeleton, weights=weights)
    return Cascade([dataclasses.replace(first, model=model)])


def order(names: Sequence[str]) -> list[str]:
    """Presets of these names, in the order in which they are made.

    Raises:
      ValueError: there is none of a name.
    """
    unknown = [name for name in names if name not in PRESETS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is none of {', '.join(PRESETS)}")
    return [name for name in PRESETS if name in names]
