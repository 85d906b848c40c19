"""`deeppose-evaluate`: scores a cascade, or anyone's predictions, on prepared data.

Writes `metrics.json`, the same as a table, PDJ curves, sheets of poses, and predictions
as a COCO results file. The floor, what the mean pose would get, stands beside all.
"""

from __future__ import annotations

import functools
import json
import pathlib

import numpy as np
from absl import flags

from deeppose_tf import draw, files
from deeppose_tf.datasets import coco_results
from deeppose_tf.pipelines.cli import command, outputs
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.evaluation import figures, scores
from deeppose_tf.pipelines.evaluation import split_predictions as poses

METRICS = "metrics.json"
TABLE = "table.md"
RESULTS = "coco_results.json"
# People on `poses.png`.
SHOWN = 6
PICTURES = ("pdj_stages.png", "pdj_joints.png", "poses.png", "cases.png")


def evaluate(
    cascade,
    index: records.Index,
    split: str,
    output: str | None = None,
    limit: int | None = None,
    settings: dict | None = None,
    verbose: int = 1,
) -> dict:
    """Scores every stage of a cascade, beside the floor.

    Args:
      cascade: `cascade.Cascade`, or anything with its `skeleton` and `predict`.
      index: the prepared data.
      split: of it, `test` as a rule.
      output: the folder for all files; nothing is written without one.
      limit: score the first people of the split only.
      settings: JSON value to keep in `metrics.json`: what was asked for.
      verbose: 0 hides the progress bar.

    Returns:
      What `metrics.json` holds: `protocol`, and `rows` of `name` and `scores`, first
      the floor, then the stages. See `scores.scores`; `scores.table` prints it.

    Raises:
      ValueError: the split is empty, or of another skeleton than the cascade.
    """
    if cascade.skeleton.joints != index.skeleton.joints:
        raise ValueError(
            f"the model predicts the joints {', '.join(cascade.skeleton.joints)}; "
            f"{index.directory} has {', '.join(index.skeleton.joints)}. "
            "deeppose-reproduce scores what both have"
        )
    people = read_people(index, split, limit)
    if output is not None:  # A folder that cannot be made is no news for the end.
        pathlib.Path(output).mkdir(parents=True, exist_ok=True)
    found, weights = poses.predict_people(
        cascade, index, split, len(people.ids), verbose
    )
    named = [(f"stage {s + 1}", found[:, s]) for s in range(found.shape[1])]
    return _report(named, weights, people, index, split, output, settings)


def evaluate_results(
    path: str,
    index: records.Index,
    split: str,
    output: str | None = None,
    limit: int | None = None,
    settings: dict | None = None,
) -> dict:
    """As `evaluate`, for predictions in a COCO results file; see `coco_results`."""
    people = read_people(index, split, limit)
    found = coco_results.read(path, people.ids, len(index.skeleton.joints))
    named = [("predictions", found)]
    return _report(named, None, people, index, split, output, settings)


def _report(named, weights, people, index, split, output, settings) -> dict:
    """Scores named predictions and the floor; writes all of it where asked to."""
    source = read_people(index, scores.floor_split(index, split))
    rows = [("floor", scores.floor(people, source)), *named]
    last = named[-1][1]
    said = scores.protocol(index, split, people)
    said["unanswered"] = int(np.sum(~np.isfinite(last).all(axis=(1, 2))))
    if weights is None:
        said["first_box"] += " for the floor; that of the predictions is not known"
    content = {
        "format": scores.FORMAT,
        "settings": settings or {},
        "protocol": said,
        "rows": [
            {"name": name, "scores": scores.scores(found, people, index.skeleton)}
            for name, found in rows
        ],
        "provenance": index.provenance,
    }
    if output is None:
        return content
    folder = pathlib.Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    # The record of whose files these are comes first, for `outputs.require_free`.
    text = json.dumps(content, indent=1).encode() + b"\n"
    files.write_bytes(folder / METRICS, text)
    if weights is not None:
        coco_results.write(folder / RESULTS, people.ids, last, weights)
    _write_pictures(folder, rows, people, index, said)
    files.write_bytes(folder / TABLE, scores.table(content).encode() + b"\n")
    return content


def _write_pictures(folder, rows, people, index, said) -> None:
    skeleton, stages = index.skeleton, rows[1:]
    title = figures.title(said)
    last = stages[-1][1]
    image = functools.lru_cache(64)(
        functools.partial(poses.read_image, index, said["split"])
    )
    # Spread evenly over the split, not chosen.
    some = figures.evenly(len(people.ids), SHOWN)
    pictures = (
        figures.stage_curves(rows, people, skeleton, title),
        figures.joint_curves(rows[0], stages[-1], people, skeleton, title),
        figures.stage_sheet(stages, people, skeleton, image, some),
        figures.case_sheet(last, people, skeleton, image),
    )
    for file, picture in zip(PICTURES, pictures, strict=True):
        draw.write_image(folder / file, picture)


def define_flags() -> None:
    """Flags of this script."""
    flags.DEFINE_string(
        "data", None, "The prepared data: a folder that deeppose-prepare wrote."
    )
    flags.DEFINE_enum(
        "split", "test", records.SPLITS, "Which part of the data to score on."
    )
    flags.DEFINE_string(
        "model",
        None,
        "The run directory of a cascade that deeppose-train wrote. Either this or "
        "--predictions.",
    )
    flags.DEFINE_string(
        "predictions",
        None,
        "Anyone's predictions instead of a model: the predictions.json of "
        "deeppose-predict, or a COCO results file, a JSON list of "
        '{"image_id": "lsp/im1001", "keypoints": [x, y, score, ...], "score": 1}. '
        "image_id is the id of a record or its last part; as in COCO, (0, 0) is the "
        "centre of the first pixel. Whom it leaves out counts as wrong.",
    )
    flags.DEFINE_string(
        "output",
        None,
        f"The folder for {METRICS}, {TABLE}, {RESULTS} (predictions of a model, to be "
        f"given to --predictions) and {', '.join(PICTURES)}. It is made where it is "
        "missing.",
    )
    flags.DEFINE_integer(
        "limit",
        None,
        "Score the first people of the split only, for a quick look. By default all.",
        lower_bound=1,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replace files in --output that are there already. The same command may "
        "always replace what it wrote itself.",
    )
    flags.mark_flags_as_required(["data", "output"])


def main(argv: list[str]) -> None:
    """Scores what the flags describe and prints the table."""
    del argv
    values = flags.FLAGS
    if (values.model is None) == (values.predictions is None):
        raise ValueError("give either --model or --predictions")
    names = ("data", "split", "model", "predictions", "limit")
    settings = {name: getattr(values, name) for name in names}
    if not values.overwrite:
        written = (METRICS, TABLE, RESULTS, *PICTURES)
        outputs.require_free(values.output, METRICS, scores.FORMAT, settings, written)
    index = records.read_index(values.data)
    arguments = index, values.split, values.output, values.limit, settings
    if values.model is None:
        content = evaluate_results(values.predictions, *arguments)
    else:
        from deeppose_tf.cascade import Cascade

        content = evaluate(Cascade.load(values.model), *arguments)
    print(scores.table(content))


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__, folder="output")


if __name__ == "__main__":
    run()
