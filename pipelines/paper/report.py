"""An experiment as JSON and Markdown, with all that is needed to read its numbers."""

from __future__ import annotations

import pathlib
import string
from collections.abc import Callable

from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.evaluation import scores
from deeppose_tf.pipelines.paper import experiment, published

FORMAT = "deeppose-tf experiment 1"
NOT_SAID = "data not said"
# What to get where the paper does not say whose an experiment is.
ANY = "lsp"


def content(
    name: str,
    paper: published.Experiment,
    result: experiment.Result,
    said: dict,
    run: str,
    cascade,
    settings: dict | None,
) -> dict:
    """What the JSON file of an experiment holds.

    Args:
      name: of the experiment.
      paper: what was published.
      result: what was made.
      said: see `scores.protocol`.
      run: directory of the model.
      cascade: the model.
      settings: JSON value: what was asked for.
    """
    return {
        "format": FORMAT,
        "settings": settings or {},
        "experiment": name,
        "title": paper.title,
        "protocol": said,
        "model": _model(run, cascade),
        "paper": {
            "trained": paper.trained,
            "scored": paper.scored,
            "whole": paper.whole,
            "says": paper.says,
        },
        "unit": result.unit,
        "columns": list(result.columns),
        "rows": list(result.rows),
        "meanings": list(result.meanings),
    }


def markdown(content: dict) -> str:
    """`content` as Markdown: the table, and how to read it."""
    said, model, paper = content["protocol"], content["model"], content["paper"]
    lines = [
        f"# {content['title']}",
        "",
        scores.heading(said),
        f"Model: {model['run']}, network {model['network']}, stages {model['stages']}, "
        f"trained on {model['trained']}, labels {model['labels']}.",
        *_warnings(content),
        "",
        scores.markdown(_table(content)),
        "",
        f"In {content['unit']}.",
        *(f"- {meaning}." for meaning in content["meanings"]),
    ]
    if "floor" in {row["name"] for row in content["rows"]} | set(content["columns"]):
        lines.append(f"- floor: {scores.floor_meaning(said)}.")
    if content["unit"] == experiment.PER_CENT:
        lines.append(f"- counted: {said['meanings']['counts']}.")
    lines += [f"- ({mark}) {source}." for source, mark in _marks(content).items()]
    return "\n".join([*lines, "", f"The paper: {_whose(paper)}. {paper['says']}"])


def with_advice(
    read: Callable, folder: str, paper: published.Experiment, is_model: bool
):
    """`read(folder)`; where it is not there, the error says what to get and to run.

    Args:
      read: of a prepared data set, or of a trained run.
      folder: its argument.
      paper: what the experiment is in the paper.
      is_model: whether it is a run.

    Raises:
      ValueError: as `read`, with the advice. What is there and damaged is not to be
        begun from nothing.
    """
    there = pathlib.Path(folder) / ("cascade.json" if is_model else records.INDEX)
    try:
        return read(folder)
    except ValueError as error:
        if there.exists():
            again = f"\nGet a whole copy of {folder}, or delete it and train it again"
            raise ValueError(f"{error}{again if is_model else ''}") from error
        needed = (paper.trained if is_model else paper.scored) or ANY
        what, prepare = published.DATA[needed]
        steps = [f"get {what} from its authors", f"run {prepare}"]
        if is_model:
            steps.append(
                "run deeppose-train --data=DATA --recipe=compact --stages=3 "
                f"--run={folder}"
            )
        order = "; then ".join(steps)
        raise ValueError(f"{error}\nFor {paper.title}: {order}") from error


def _whose(paper):
    """The paper's model and people, as far as it names them."""
    if not paper["trained"]:  # nor "scored"
        return "of which model and which people is not said"
    return f"a model of {paper['trained'].upper()} on {paper['scored'].upper()}"


def _model(run, cascade):
    training = cascade.stages[0].training
    arguments = training.get("data", {}).get("provenance", {}).get("arguments", {})
    config = cascade.stages[0].config
    return {
        "run": run,
        "stages": cascade.count,
        "network": config.network,
        "trained": " + ".join(arguments.get("dataset", [])) or NOT_SAID,
        "labels": scores.convention(arguments),
    }


def _warnings(content):
    said, model = content["protocol"], content["model"]
    warnings, both = [], {model["labels"], said["labels"]}
    if scores.UNKNOWN in both:
        warnings.append("Whether left and right mean the same to both is not known.")
    elif len(both) > 1:
        warnings.append(
            "Left and right do not mean the same to both: where they differ, as for "
            "people seen from behind, correct predictions count as wrong."
        )
    if said.get("other_boxes"):
        warnings.append(
            "First boxes are enlarged otherwise than those that the model learned "
            "from: prepare the data with --boxes and --boxes_from as for the model."
        )
    if content["unit"] == experiment.PER_CENT and _is_elsewhere(content):
        warnings.append(
            "The paper has another model or other people here: its numbers do not "
            "compare with these."
        )
    if content["paper"]["whole"] and said["datasets"] == [content["paper"]["scored"]]:
        warnings.append(_part(content["paper"]["scored"], said["split"]))
    if said.get("unanswered"):
        number = said["unanswered"]
        warnings.append(f"{number} people have no answer, which counts as wrong.")
    return warnings


def _part(dataset, split):
    which = f": {published.PARTS[dataset]}" if split == "test" else ""
    return (
        f"The paper scored all of {dataset.upper()}; these people are the split "
        f"{split} alone{which}."
    )


def _is_elsewhere(content):
    """Whether there are published rows, and of other data as far as it is known."""
    paper, scored = content["paper"], content["protocol"]["datasets"]
    trained = content["model"]["trained"]
    return bool(_marks(content)) and (
        trained != NOT_SAID
        and paper["trained"] not in (None, *trained.split(" + "))
        or bool(scored)
        and paper["scored"] not in (None, *scored)
    )


def _table(content):
    marks = _marks(content)
    rows = [["", *(name.replace("_", " ") for name in content["columns"])]]
    for row in content["rows"]:
        cells = [_cell(row, column, content["unit"]) for column in content["columns"]]
        mark = marks.get(row["source"])
        rows.append([row["name"] + (f" ({mark})" if mark else ""), *cells])
    first = content["rows"][0]["values"]
    counts = [first[column].get("scored") for column in content["columns"]]
    if None not in counts:
        place = sum(row["source"] == experiment.MEASURED for row in content["rows"])
        rows.insert(1 + place, ["counted", *map(str, counts)])
    return rows


def _marks(content):
    """A letter for each source of published rows, in order."""
    sources = dict.fromkeys(row["source"] for row in content["rows"])
    sources.pop(experiment.MEASURED, None)
    return dict(zip(sources, string.ascii_lowercase, strict=False))


def _cell(row, column, unit):
    """Published values with as many digits as they have."""
    value = row["values"].get(column, {}).get("value")
    if value is None:
        return "-"
    scale = 100 if unit == experiment.PER_CENT else 1
    if row["source"] != experiment.MEASURED:
        return f"{scale * value:g}"
    return f"{value * scale:.1f}" if scale > 1 else f"{value:.3f}"
