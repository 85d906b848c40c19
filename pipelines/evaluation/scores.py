"""The scores of a split: the floor, every stage, and what they mean, as JSON and table.

Every fraction is written with the counts that it is made of.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deeppose_tf import geometry, metrics
from deeppose_tf.pipelines.data import first_boxes, records
from deeppose_tf.pipelines.data.records import People, fingerprint
from deeppose_tf.skeleton import Skeleton

FORMAT = "deeppose-tf metrics 1"
THRESHOLDS = (0.1, 0.2, 0.5)
MEANINGS = {
    "pcp_strict": "both ends of a limb within 0.5 of its true length of their places",
    "pcp_loose": "the mean distance of a limb's two ends within 0.5 of its true length",
    "mean4": "mean over those of upper and lower arms and legs that the skeleton has "
    "and anyone has labeled, left and right pooled",
    "mean10": "mean over all sticks of the skeleton that anyone has labeled, each "
    "counting once",
    "pdj": "joints within a share of the true torso diameter of their places",
    "area": "mean of PDJ over 51 shares from 0 to 0.5",
    "floor": "the mean of each joint relative to the first box, over the people of the "
    "split floor_from, placed into everyone's first box",
    "counts": "labeled joints only; a prediction that is missing or not finite is "
    "wrong",
}
HELD_OUT = " (held out of the training part, not the official one)"
UNKNOWN = "not said by the data"
CONVENTIONS = {
    "person": "person-centric: left is the person's own left",
    "observer": "observer-centric: left is that of someone who faces the camera",
}


def floor(people: People, train: People) -> np.ndarray:
    """[N, K, 2] pixels: the mean pose of the training people, in each first box.

    Both with the same kind of first box.
    """
    normalized = geometry.normalize(
        tf.constant(train.keypoints), tf.constant(train.first_boxes)
    ).numpy()
    mean = metrics.mean_pose(normalized, train.labeled).astype(np.float32)
    boxes = tf.constant(people.first_boxes)
    return geometry.denormalize(tf.constant(mean[np.newaxis]), boxes).numpy()


def floor_split(index: records.Index, split: str) -> str:
    """Whose labels the floor is made of: `train`, if there is anyone."""
    return "train" if index.counts.get("train") else split


def scores(predicted: np.ndarray, people: People, skeleton: Skeleton) -> dict:
    """All scores of one set of predictions [N, K, 2], pixels, as a JSON value."""
    arguments = predicted, people.keypoints, people.labeled, skeleton
    result = {}
    for name, strict in (("pcp_strict", True), ("pcp_loose", False)):
        fractions = metrics.pcp(*arguments, strict=strict)
        counts = metrics.pcp_counts(*arguments, strict=strict)
        result[name] = {
            limb: _entry(fraction, *counts[limb])
            for limb, fraction in fractions.items()
        }
    detected, scored = metrics.pdj_counts(*arguments, THRESHOLDS)
    result["pdj"] = {
        str(threshold): _pdj_entry(found, scored, skeleton)
        for threshold, found in zip(THRESHOLDS, detected, strict=True)
    }
    area = metrics.pdj_area(*arguments)
    result["area"] = {
        "mean": _number(_mean(area)),
        "joints": dict(zip(skeleton.joints, map(_number, area), strict=True)),
    }
    return result


def protocol(index: records.Index, split: str, people: People) -> dict:
    """What every number has to be read with, as a JSON value."""
    arguments = index.provenance.get("arguments", {})
    return {
        "data": index.directory,
        "datasets": list(arguments.get("dataset", [])),
        "split": split,
        "people": len(people.ids),
        "of": index.counts[split],
        "fingerprint": fingerprint(people),
        "held_out": split == "test" and split in index.provenance.get("held_out", []),
        "skeleton": index.skeleton.name,
        "first_box": _first_box(people, index, split),
        "floor_from": floor_split(index, split),
        "labels": convention(arguments),
        "meanings": MEANINGS | {"diameter": yardstick(index.skeleton)},
    }


def convention(arguments: dict) -> str:
    """Whose left is left, from the arguments that data was prepared with."""
    return CONVENTIONS.get(arguments.get("convention"), UNKNOWN)


def yardstick(skeleton: Skeleton) -> str:
    """What `metrics.torso_diameters` measures on this skeleton, in words."""
    if not skeleton.diagonals:
        return "the longer side of the box around the labeled joints"
    first, *others = [
        " to ".join(skeleton.joints[joint].replace("_", " ") for joint in diagonal)
        for diagonal in skeleton.diagonals[1:] + skeleton.diagonals[:1]
    ]
    if not others:
        return f"from {first}"
    return f"from {first}, or {', or '.join(others)} where one of them has no label"


def table(content: dict) -> str:
    """`metrics.json` as Markdown: a row for the floor and one for every stage, in per
    cent, and how many limbs and joints each column is made of."""
    said = content["protocol"]
    first = content["rows"][0]["scores"]
    types = first["pcp_strict"]
    paper = [limb for limb in metrics.PAPER_TYPES if limb in types]
    limbs = paper + [limb for limb in types if limb not in paper]
    header = ["", *limbs, "mean4 loose", *(f"PDJ@{t}" for t in first["pdj"])]
    rows = [
        [row["name"], *map(_percent, _columns(row["scores"], limbs, "fraction"))]
        for row in content["rows"]
    ]
    rows.append(["counted", *map(str, _columns(first, limbs, "scored"))])
    return "\n".join(
        [
            heading(said),
            "",
            markdown([header, *rows]),
            "",
            "Per cent. Limbs, mean4 and mean10: PCP strict at 0.5, "
            f"{MEANINGS['pcp_strict']}; loose: {MEANINGS['pcp_loose']}. mean4: "
            f"{MEANINGS['mean4']}. mean10: {MEANINGS['mean10']}. PDJ: "
            f"{MEANINGS['pdj']}, the diameter being {said['meanings']['diameter']}; "
            f"mean over joints. Floor: {floor_meaning(said)}. Counted: "
            f"{MEANINGS['counts']}.",
        ]
    )


def heading(said: dict) -> str:
    """Who was scored and from which first boxes, a line from `protocol`."""
    people = said["people"]
    number = f"{people}" if people == said["of"] else f"The first {people}"
    return (
        f"{number} people of the split {said['split']}"
        f"{HELD_OUT if said.get('held_out') else ''} of "
        f"{' + '.join(said['datasets']) or said['data']}. First box: "
        f"{said['first_box']}. Labels: {said['labels']}."
    )


def floor_meaning(said: dict) -> str:
    """What the floor is, from `protocol`."""
    return MEANINGS["floor"].replace("floor_from", said["floor_from"])


def markdown(lines: list[list[str]]) -> str:
    """A table of cells, the first line its head."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    rows = [lines[0], rule, *lines[1:]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def _columns(one: dict, limbs: list[str], key: str) -> list:
    entries = [one["pcp_strict"][limb] for limb in limbs]
    return [e[key] for e in [*entries, one["pcp_loose"]["mean4"], *one["pdj"].values()]]


def _first_box(people, index, split):
    said = first_boxes.describe(index.provenance, split, len(people.ids))
    if said:
        return said
    whole = int(np.sum(~people.boxes.any(axis=1)))
    if whole == len(people.ids):
        return "the whole image"
    if not whole:
        return "the box of the record"
    given = len(people.ids) - whole
    return f"the box of the record ({given} people) or the whole image ({whole})"


def _pdj_entry(detected, scored, skeleton):
    """PDJ at one threshold from [K] counts: the mean over joints, and each of them."""
    fractions = [d / s if s else np.nan for d, s in zip(detected, scored, strict=True)]
    joints = zip(fractions, detected, scored, strict=True)
    return _entry(_mean(fractions), detected.sum(), scored.sum()) | {
        "joints": {
            name: _entry(*values)
            for name, values in zip(skeleton.joints, joints, strict=True)
        }
    }


def _entry(fraction, correct, scored):
    return {
        "fraction": _number(fraction),
        "correct": int(correct),
        "scored": int(scored),
    }


def _mean(values):
    known = [value for value in values if not np.isnan(value)]
    return np.mean(known) if known else np.nan


def _number(value):
    """JSON knows no NaN."""
    return None if np.isnan(value) else float(value)


def _percent(fraction):
    return "-" if fraction is None else f"{100 * fraction:.1f}"
