"""`deeppose-reproduce`: one table or figure of Sec. 4, as JSON, Markdown and a picture.

It stands beside the paper's numbers, with all that is needed to read both.
"""

from __future__ import annotations

import functools
import hashlib
import pathlib
import string

import numpy as np

import deeppose_tf
from deeppose_tf import config, draw, files
from deeppose_tf.cascade import Cascade
from deeppose_tf.pipelines.cli.outputs import counted
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.evaluation import evaluate, figures, scores
from deeppose_tf.pipelines.paper import experiments, published

UNKNOWN_DATA = "data not stated"

_ARMS, _LEGS = ("elbow", "wrist"), ("knee", "ankle")
# Figs. 3 and 7 end at 0.2 torso diameters, Figs. 4 and 5 at 0.5.
_NEAR = functools.partial(
    experiments.joints, groups=_ARMS, shares=(0.05, 0.1, 0.2), largest=0.2
)
_LIMBS = functools.partial(
    experiments.joints,
    groups=_ARMS + _LEGS,
    shares=(0.1, 0.2, 0.5),
    panels={"arms": _ARMS, "legs": _LEGS},
)
_FAR = functools.partial(experiments.joints, groups=_ARMS, shares=(0.1, 0.15, 0.2, 0.5))
_MAKERS = {
    "table1": experiments.limbs,
    "table2": experiments.limbs,
    "fig3": _NEAR,
    "fig4": _LIMBS,
    "fig5": _FAR,
    "fig6": experiments.refinement,
    "fig7": _NEAR,
    "fig8": experiments.examples,
    "fig9": experiments.examples,
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
      run: the folder that it was loaded from.
      output: the folder for `<name>.md`, `<name>.json`, `<name>.png` and predictions.
      settings: JSON value to keep in the JSON file: what was asked for.

    Returns:
      What the JSON file holds; `markdown` prints it.

    Raises:
      ValueError: the split is empty, or the joints of model and data do not allow it.
    """
    paper = published.EXPERIMENTS[name]
    folder = pathlib.Path(output)
    if name == "runtime":
        limit = limit or published.TIMED_IMAGES
    people = read_people(index, split, limit)
    protocol = scores.protocol(index, split, people)
    protocol["other_boxes"] = experiments.other_boxes(cascade, index.provenance)
    if name == "runtime":
        folder.mkdir(parents=True, exist_ok=True)
        count = len(people.ids)
        result = experiments.running_time(cascade, index, split, count, paper, verbose)
    else:
        images = functools.partial(records.read_image, index, split)
        kept = folder / f"poses-{_fingerprint(run, index, split)}.npz"
        given = cascade, index, split, people, protocol, kept, verbose
        predict = functools.partial(_predict, *given)
        truth = figures.Truth(people, index.skeleton, images)
        found = experiments.Measured(cascade.skeleton, truth, protocol, predict)
        result = _MAKERS[name](found, paper)
    said = ("trained", "scored", "whole", "says")
    content = {
        "format": published.FORMAT,
        "settings": settings or {},
        "experiment": name,
        "title": paper.title,
        "protocol": protocol,
        "model": _model(run, cascade),
        "paper": {part: getattr(paper, part) for part in said},
        "unit": result.unit,
        "columns": list(result.columns),
        "rows": list(result.rows),
        "meanings": list(result.meanings),
    }
    # The record of whose files these are comes first, for `outputs.require_free`.
    files.write_json(folder / f"{name}.json", content)
    draw.write_image(folder / f"{name}.png", result.picture)
    text = markdown(content).encode() + b"\n"
    files.write_bytes(folder / f"{name}.md", text)
    return content


def markdown(content: dict) -> str:
    """What `reproduce` returns as Markdown: the table, and how to read it."""
    protocol, model, paper = content["protocol"], content["model"], content["paper"]
    lines = [
        f"# {content['title']}",
        "",
        scores.heading(protocol),
        f"Model: {model['run']}, network {model['network']}, stages {model['stages']}, "
        f"trained on {model['trained']}, labels {model['labels']}.",
        *_warnings(content),
        "",
        scores.markdown(_table(content)),
        "",
        f"In {content['unit']}.",
        *(f"- {meaning}." for meaning in content["meanings"]),
    ]
    names = {row["name"] for row in content["rows"]} | set(content["columns"])
    if scores.BASELINE in names:
        lines.append(f"- {scores.BASELINE}: {scores.baseline_meaning(protocol)}.")
    if content["unit"] == experiments.PER_CENT:
        lines.append(f"- counted: {protocol['meanings']['counts']}.")
    lines += [f"- ({mark}) {source}." for source, mark in _marks(content).items()]
    return "\n".join([*lines, "", f"The paper: {_whose(paper)}. {paper['says']}"])


def _predict(cascade, index, split, people, protocol, kept, verbose):
    """`Measured.named`; says in the protocol who was not answered."""
    # Not before model and data are known to fit, and before what takes its time.
    kept.parent.mkdir(parents=True, exist_ok=True)
    found, _ = evaluate.kept_poses(
        cascade, index, split, len(people.ids), kept, verbose
    )  # [N, S, K of the model, 2]
    protocol["unanswered"] = int(np.sum(~np.isfinite(found).all(axis=(1, 2, 3))))
    found = experiments.onto(found, cascade.skeleton, index.skeleton)
    source = read_people(index, scores.baseline_split(index, split))
    named = [(scores.BASELINE, scores.mean_pose_baseline(people, source))]
    named += [(f"stage {s + 1}", found[:, s]) for s in range(found.shape[1])]
    return named


def _fingerprint(run, index, split):
    """Of all that predictions depend on."""
    parts = [deeppose_tf.__version__, index.checksums[split]]
    for stage in map(pathlib.Path, config.check_run(run)):
        parts += [records.sha256(stage / "stage.json")]
        parts += [records.sha256(stage / "weights.safetensors")]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:12]


def _whose(paper):
    """The paper's model and people, as far as it names them."""
    if not paper["trained"]:  # nor "scored"
        return "of which model and which people is not stated"
    return f"a model of {paper['trained'].upper()} on {paper['scored'].upper()}"


def _model(run, cascade):
    arguments = scores.learned(cascade)
    return {
        "run": run,
        "stages": cascade.count,
        "network": cascade.stages[0].config.network,
        "trained": " + ".join(arguments.get("dataset", [])) or UNKNOWN_DATA,
        "labels": scores.convention(arguments),
    }


def _warnings(content):
    protocol, model = content["protocol"], content["model"]
    warnings, both = [], {model["labels"], protocol["labels"]}
    if scores.UNKNOWN in both:
        warnings.append("Whether left and right mean the same to both is not known.")
    elif len(both) > 1:
        warnings.append(scores.OTHER_SIDES)
    if protocol.get("other_boxes"):
        warnings.append(
            "First boxes are enlarged otherwise than those that the model learned "
            "from: prepare the data with --boxes and --boxes_from as for the model."
        )
    if content["unit"] == experiments.PER_CENT and _is_elsewhere(content):
        warnings.append(
            "The paper has another model or other people here: its numbers do not "
            "compare with these."
        )
    scored = content["paper"]["scored"]
    if content["paper"]["whole"] and protocol["datasets"] == [scored]:
        warnings.append(_part(scored, protocol["split"]))
    if number := protocol.get("unanswered"):
        people = counted(number, "person")
        warnings.append(f"There is no answer for {people}, which counts as wrong.")
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
    known = [] if trained == UNKNOWN_DATA else trained.split(" + ")
    pairs = (known, paper["trained"]), (scored, paper["scored"])
    elsewhere = any(ours and its not in (None, *ours) for ours, its in pairs)
    return bool(_marks(content)) and elsewhere


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
        place = sum(row["source"] == experiments.MEASURED for row in content["rows"])
        rows.insert(1 + place, ["counted", *map(str, counts)])
    return rows


def _marks(content):
    """A letter for each source of published rows, in order."""
    sources = dict.fromkeys(row["source"] for row in content["rows"])
    sources.pop(experiments.MEASURED, None)
    return dict(zip(sources, string.ascii_lowercase, strict=False))


def _cell(row, column, unit):
    """Published values with as many digits as they have."""
    value = row["values"].get(column, {}).get("value")
    if value is None:
        return "-"
    scale = 100 if unit == experiments.PER_CENT else 1
    if row["source"] != experiments.MEASURED:
        return f"{scale * value:g}"
    return f"{value * scale:.1f}" if scale > 1 else f"{value:.3f}"
