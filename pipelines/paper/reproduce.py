"""`deeppose-reproduce`: the tables and figures of Sec. 4, beside the paper's numbers.

Of each experiment it writes a table (Markdown and JSON) and a picture. Predictions are
kept beside them, so that a stopped command goes on where it was.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
from collections.abc import Sequence

import numpy as np
from absl import flags

import deeppose_tf
from deeppose_tf import draw, files
from deeppose_tf.cascade import Cascade
from deeppose_tf.pipelines.cli import command, outputs
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.evaluation import scores
from deeppose_tf.pipelines.evaluation import split_predictions as poses
from deeppose_tf.pipelines.paper import (
    comparisons,
    experiment,
    pose_sheets,
    published,
    report,
    running_time,
    transfer,
)

_ARMS, _LEGS = ("elbow", "wrist"), ("knee", "ankle")
# Figs. 3 and 7 end at 0.2 torso diameters, Figs. 4 and 5 at 0.5.
_NEAR = functools.partial(
    comparisons.joints_by_stage, groups=_ARMS, shares=(0.05, 0.1, 0.2), farthest=0.2
)
_MAKERS = {
    "table1": comparisons.limbs,
    "table2": comparisons.limbs,
    "fig3": _NEAR,
    "fig4": functools.partial(
        comparisons.joints_of_limbs,
        panels={"arms": _ARMS, "legs": _LEGS},
        shares=(0.1, 0.2, 0.5),
    ),
    "fig5": functools.partial(
        comparisons.joints_by_stage,
        groups=_ARMS,
        shares=(0.1, 0.15, 0.2, 0.5),
        farthest=0.5,
    ),
    "fig6": pose_sheets.refinement,
    "fig7": _NEAR,
    "fig8": pose_sheets.examples,
    "fig9": pose_sheets.examples,
}


def reproduce(
    name: str,
    cascade: Cascade,
    run: str,
    index: records.Index,
    split: str,
    output: str,
    limit: int | None = None,
    settings: dict | None = None,
    verbose: int = 1,
) -> dict:
    """Makes one table or figure and writes it.

    Args:
      name: of `published.EXPERIMENTS`.
      cascade: the model.
      run: the directory that it was loaded from.
      index: the prepared data.
      split: of it.
      output: the folder for `<name>.md`, `<name>.json`, `<name>.png` and predictions.
      limit: the first people of the split only.
      settings: JSON value to keep in the JSON file: what was asked for.
      verbose: 0 hides the progress bar.

    Returns:
      What the JSON file holds; `report.markdown` prints it.

    Raises:
      ValueError: the split is empty, or the joints of model and data do not allow it.
    """
    paper = published.EXPERIMENTS[name]
    folder = pathlib.Path(output)
    if name == "runtime":
        limit = limit or running_time.IMAGES
    people = read_people(index, split, limit)
    said = scores.protocol(index, split, people)
    said["other_boxes"] = transfer.other_boxes(cascade, index.provenance)
    if name == "runtime":
        folder.mkdir(parents=True, exist_ok=True)
        count = len(people.ids)
        result = running_time.result(cascade, index, split, count, paper, verbose)
    else:
        kept = folder / f"poses-{_fingerprint(run, index, split)}.npz"
        measured = experiment.Measured(
            model=cascade.skeleton,
            skeleton=index.skeleton,
            people=people,
            images=functools.partial(poses.read_image, index, split),
            said=said,
            predict=lambda: _predict(
                cascade, index, split, people, said, kept, verbose
            ),
        )
        result = _MAKERS[name](measured, paper)
    content = report.content(name, paper, result, said, run, cascade, settings)
    # The record of whose files these are comes first, for `outputs.require_free`.
    text = json.dumps(content, indent=1).encode() + b"\n"
    files.write_bytes(folder / f"{name}.json", text)
    draw.write_image(folder / f"{name}.png", result.picture)
    text = report.markdown(content).encode() + b"\n"
    files.write_bytes(folder / f"{name}.md", text)
    return content


def _predict(cascade, index, split, people, said, kept, verbose):
    """`Measured.named`; says in the protocol who was not answered."""
    # Not before model and data are known to fit, and before what takes its time.
    kept.parent.mkdir(parents=True, exist_ok=True)
    found, _ = poses.kept_poses(
        cascade, index, split, len(people.ids), kept, verbose
    )  # [N, S, K of the model, 2]
    said["unanswered"] = int(np.sum(~np.isfinite(found).all(axis=(1, 2, 3))))
    found = transfer.onto(found, cascade.skeleton, index.skeleton)
    source = read_people(index, scores.floor_split(index, split))
    named = [("floor", scores.floor(people, source))]
    named += [(f"stage {s + 1}", found[:, s]) for s in range(found.shape[1])]
    return named


def _fingerprint(run, index, split):
    """Of all that predictions depend on."""
    folder = pathlib.Path(run)
    names = json.loads((folder / "cascade.json").read_text())["stages"]
    kept = "stage.json", "weights.safetensors"
    stages = [folder / name / file for name in names for file in kept]
    parts = [deeppose_tf.__version__, index.checksums[split]]
    parts += [records.sha256(path) for path in stages]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def define_flags() -> None:
    """Flags of this script."""
    flags.DEFINE_list(
        "experiment",
        None,
        f"What to make: one or more of {', '.join(published.EXPERIMENTS)}, joined by "
        "commas. table1, fig4 and fig8 are the paper's of LSP, table2 of a model "
        "of LSP on Image Parse, fig3, fig5 and fig9 of FLIC, fig7 of a model of FLIC "
        "on Buffy; whose fig6 and runtime are it does not say. Other data with the "
        "same kinds of joints will do; the output says what was taken.",
    )
    flags.DEFINE_string(
        "model", None, "The run directory of a cascade that deeppose-train wrote."
    )
    flags.DEFINE_string(
        "data",
        None,
        "The prepared data to score on: a folder that deeppose-prepare wrote. Joints "
        "of model and data are matched by name.",
    )
    flags.DEFINE_enum(
        "split", "test", records.SPLITS, "Which part of the data to score on."
    )
    flags.DEFINE_string(
        "output",
        None,
        "The folder for EXPERIMENT.md, EXPERIMENT.json and EXPERIMENT.png, and for "
        "predictions, which all experiments in the same folder share. It is made where "
        "it is missing.",
    )
    flags.DEFINE_integer(
        "limit",
        None,
        "The first people of the split only, for a quick look. By default all, and for "
        f"runtime {running_time.IMAGES}.",
        lower_bound=1,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replace files in --output that are there already. The same command may "
        "always replace what it wrote itself.",
    )
    flags.mark_flags_as_required(["experiment", "model", "data", "output"])


def main(argv: list[str]) -> None:
    """Makes the experiments that the flags name and prints their tables."""
    del argv
    values = flags.FLAGS
    asked = {name: _settings(name, values) for name in _known(values.experiment)}
    for name, settings in asked.items():
        if not values.overwrite:
            _require_free(values.output, name, settings)
    paper = published.EXPERIMENTS[values.experiment[0]]
    index = report.with_advice(records.read_index, values.data, paper, False)
    cascade = report.with_advice(Cascade.load, values.model, paper, True)
    for name, settings in asked.items():
        content = reproduce(
            name,
            cascade,
            values.model,
            index,
            values.split,
            values.output,
            values.limit,
            settings,
        )
        print(report.markdown(content), end="\n\n")


def _known(names: Sequence[str]) -> list[str]:
    wrong = [name for name in names if name not in published.EXPERIMENTS]
    if wrong or not names:
        raise ValueError(
            f"--experiment={','.join(names)}: expected one or more of "
            f"{', '.join(published.EXPERIMENTS)}"
        )
    return list(names)


def _settings(name, values):
    given = {
        flag: getattr(values, flag) for flag in ("model", "data", "split", "limit")
    }
    return {"experiment": name} | given


def _require_free(folder, name, settings):
    written = [f"{name}.{ending}" for ending in ("json", "md", "png")]
    outputs.require_free(folder, written[0], report.FORMAT, settings, written)


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__, folder="output")


if __name__ == "__main__":
    run()
