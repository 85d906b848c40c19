"""`deeppose-evaluate` and `deeppose-compare`: their flags, and what they do with them.

TensorFlow is imported after flags and paths were checked.
"""

from __future__ import annotations

import pathlib

from absl import flags

from deeppose_tf import files
from deeppose_tf.pipelines.cli import command, outputs
from deeppose_tf.pipelines.cli.command import Flag
from deeppose_tf.pipelines.evaluation import compare, scores

EVALUATE = """deeppose-evaluate: scores a cascade, or anyone's predictions.

Writes `metrics.json`, the same as a table, PDJ curves, sheets of poses, whether scores
of joints can be believed, and predictions as a COCO results file. The mean-pose
baseline, what a network that has learned nothing would get, stands beside all. Data of
COCO is scored by OKS average precision too, that of MPII by PCKh."""
COMPARE = """deeppose-compare: several evaluations of the same people in one table.

Each has its mean-pose baseline and its last stage."""


SPLIT = Flag(
    "test",
    "Which part of the data to score on.",
    choices=("train", "validation", "test"),
)
OVERWRITE = Flag(
    False,
    "Replace files in --output that are there already. The same command may always "
    "replace what it wrote itself.",
)
EVALUATE_FLAGS = {
    "data": Flag(str, "The prepared data: a folder that deeppose-prepare wrote."),
    "split": SPLIT,
    "model": Flag(str, f"{command.MODEL} Either this or --predictions."),
    "predictions": Flag(
        str,
        "Anyone's predictions instead of a model: a predictions.json, or COCO results: "
        '[{"image_id": "lsp/im1001", "keypoints": [x, y, score, ...], "score": 1}, '
        "...]. image_id is the id of a record or its last part, or the number of an "
        "image of COCO; (0, 0) is the centre of the first pixel, as there. Whom it "
        "leaves out counts as wrong.",
    ),
    "flip_test": command.FLIP_TEST,
    "annotations": Flag(
        str,
        "The COCO annotation file that this split was made of: OKS then takes areas "
        "and the others on an image from there, as COCO's own evaluation does. By "
        "default a share of the person box stands for the area.",
    ),
    "output": Flag(
        str,
        "The folder for metrics.json, table.md, coco_results.json (to be given to "
        "--predictions), curves and sheets of poses.",
    ),
    "overwrite": OVERWRITE,
    "limit": Flag(
        int,
        "Score the first people of the split only, for a quick look. By default all.",
        low=1,
    ),
}


@command.command(
    EVALUATE,
    EVALUATE_FLAGS,
    required=("data", "output"),
    folder="output",
    goes_on=False,
)
def run_evaluate(values: flags.FlagValues) -> None:
    """Scores what the flags describe and prints the table."""
    if (values.model is None) == (values.predictions is None):
        raise ValueError("give either --model or --predictions")
    if values.flip_test and values.model is None:
        raise ValueError("--flip_test is for a --model")
    names = ("data", "split", "model", "predictions", "annotations", "limit")
    # Named where it is set, so that evaluations before there was any are known again.
    names += ("flip_test",) * values.flip_test
    settings = {name: getattr(values, name) for name in names}
    command.require_paths("data", "predictions", "annotations")
    command.require_run("model")

    from deeppose_tf.pipelines.data import records
    from deeppose_tf.pipelines.evaluation import evaluate

    if not values.overwrite:
        written = scores.METRICS, scores.FORMAT, settings, evaluate.WRITTEN
        outputs.require_free(values.output, *written)
    index = records.read_index(values.data)
    given = index, values.split, values.output, values.limit, values.annotations
    if values.model is None:
        content = evaluate.evaluate_results(values.predictions, *given, settings)
    else:
        from deeppose_tf.cascade import Cascade

        cascade = Cascade.load(values.model)
        cascade = cascade.flipped if values.flip_test else cascade
        content = evaluate.evaluate(cascade, *given, settings)
    print(scores.table(content))


COMPARE_FLAGS = {
    "evaluations": Flag(
        list,
        "Folders that deeppose-evaluate wrote (its --output), joined by commas, all of "
        "the same people: the same data set, part and labels.",
    ),
    "output": Flag(
        str,
        f"The folder for {compare.TABLE} and {compare.CONTENT}. It is made if missing.",
    ),
    "overwrite": OVERWRITE,
}


@command.command(
    COMPARE,
    COMPARE_FLAGS,
    required=("evaluations", "output"),
    folder="output",
    goes_on=False,
)
def run_compare(values: flags.FlagValues) -> None:
    """Compares what the flags name and prints the table."""
    settings = {"evaluations": values.evaluations}
    if not values.overwrite:
        names = (compare.CONTENT, compare.TABLE)
        outputs.require_free(
            values.output, compare.CONTENT, compare.FORMAT, settings, names
        )
    content = compare.compare(values.evaluations)
    text = compare.table(content)
    folder = pathlib.Path(values.output)
    # The record of whose files these are comes first, for `outputs.require_free`.
    record = {"format": compare.FORMAT, "settings": settings} | content
    with files.alone(folder, "comparison"):
        files.write_json(folder / compare.CONTENT, record)
        files.write_bytes(folder / compare.TABLE, text.encode() + b"\n")
    print(text)
