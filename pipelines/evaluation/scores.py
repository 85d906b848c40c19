"""The scores of a split, and what they mean, as JSON and table.

Every fraction is written with the counts that it is made of. TensorFlow is imported
where it is needed: reading and printing scores needs none.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from deeppose_tf import datasets, files, metrics
from deeppose_tf.pipelines.cli.outputs import counted
from deeppose_tf.skeleton import Skeleton

if TYPE_CHECKING:
    from deeppose_tf.pipelines.data import records
    from deeppose_tf.pipelines.data.records import People

METRICS = "metrics.json"
FORMAT = "deeppose-tf metrics 2"
# The baseline was called floor in it.
OLD_FORMAT = "deeppose-tf metrics 1"
BASELINE = "mean-pose baseline"
THRESHOLDS = (0.05, 0.1, 0.2, 0.5)
MEANINGS = {
    "pcp_strict": "both ends of a limb within 0.5 of its true length of their places",
    "pcp_loose": "the mean distance of a limb's two ends within 0.5 of its true length",
    "mean4": "mean over those of upper and lower arms and legs that the skeleton has "
    "and anyone has labeled, left and right pooled",
    "mean10": "mean over all sticks of the skeleton that anyone has labeled, each "
    "counting once",
    "pdj": "joints within a share of the true torso diameter of their places",
    "pck": "joints within a share of the extent of the true pose of their places; not "
    "PDJ, as the skeleton has no torso",
    "area": "mean of PDJ (or PCK) over 51 shares from 0 to 0.5",
    "pckh": "joints within 0.5 of the length of the true head segment, from upper neck "
    "to head top, of their places; the mean is over all such joints but pelvis and "
    "thorax",
    "oks": "average precision (AP) and recall (AR) over thresholds of object keypoint "
    "similarity from 0.5 to 0.95, AP50 and AP75 at single ones, by pycocotools with "
    "COCO's sigmas; of known person boxes",
    "baseline": "the mean of each joint relative to the first box, over the people of "
    "the split baseline_from, placed into everyone's first box",
    "counts": "labeled joints only; a prediction that is missing or not finite is "
    "wrong",
}
HELD_OUT = " (held out of the training part, not the official one)"
UNKNOWN = "not stated by the data"
OTHER_SIDES = (
    "Left and right do not mean the same to model and labels: where they differ, as "
    "for people seen from behind, correct predictions count as wrong."
)


def mean_pose_baseline(people: People, train: People) -> np.ndarray:
    """[N, K, 2] pixels: the mean pose of the training people, in each first box.

    Both with the same kind of first box.
    """
    from deeppose_tf import geometry

    normalized = geometry.normalize(train.keypoints, train.first_boxes).numpy()
    mean = metrics.mean_pose(normalized, train.labeled, train.weights)
    mean = mean.astype(np.float32)
    return geometry.denormalize(mean[np.newaxis], people.first_boxes).numpy()


def require_joints(skeleton: Skeleton, index: records.Index) -> None:
    """Raises ValueError where a model predicts other joints than the data has."""
    if skeleton.canonical != index.skeleton.canonical:
        raise ValueError(
            f"the model predicts the joints {', '.join(skeleton.joints)}; "
            f"{index.directory} has {', '.join(index.skeleton.joints)}. "
            "deeppose-reproduce scores what both have"
        )


def baseline_split(index: records.Index, split: str) -> str:
    """Whose labels the baseline is made of: `train`, if there is anyone."""
    return "train" if index.counts.get("train") else split


def scores(predicted: np.ndarray, people: People, skeleton: Skeleton) -> dict:
    """All scores of one set of predictions [N, K, 2], pixels, as a JSON value."""
    arguments = predicted, people.keypoints, people.labeled, skeleton
    result = {}
    for name, strict in (("pcp_strict", True), ("pcp_loose", False)):
        entries = metrics.pcp(*arguments, strict=strict)
        result[name] = {
            limb: _entry(*entry)
            for limb, entry in entries.items()
            if limb != "mean4" or set(metrics.PAPER_TYPES) & set(entries)
        }
    detected, scored = metrics.pdj_counts(*arguments, THRESHOLDS)
    result["pdj"] = {
        str(threshold): _pdj_entry(found, scored, skeleton)
        for threshold, found in zip(THRESHOLDS, detected, strict=True)
    }
    area = metrics.pdj_area(*arguments)
    result["area"] = {
        "mean": _number(metrics.mean_known(area)),
        "joints": dict(zip(skeleton.joints, map(_number, area), strict=True)),
    }
    if set(metrics.HEAD) <= set(skeleton.canonical):
        result["pckh"] = _pckh(*metrics.pckh_counts(*arguments), skeleton)
    return result


def protocol(index: records.Index, split: str, people: People) -> dict:
    """What every number has to be read with, as a JSON value."""
    from deeppose_tf.pipelines.data.records import fingerprint

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
        "sticks": len(index.skeleton.limbs),
        "joint_score": "PDJ" if index.skeleton.diagonals else "PCK",
        "first_box": _first_box(people, index, split),
        "baseline_from": baseline_split(index, split),
        "labels": convention(arguments),
        "meanings": MEANINGS | {"diameter": metrics.yardstick(index.skeleton)},
    }


def convention(arguments: dict) -> str:
    """Whose left is left, from the arguments that data was prepared with."""
    return datasets.CENTRIC.get(arguments.get("convention"), UNKNOWN)


def learned(cascade) -> dict:
    """The arguments that a cascade's training data was prepared with, as far as known;
    also of anything that predicts."""
    stages = getattr(cascade, "stages", ())
    data = stages[0].training.get("data", {}) if stages else {}
    return data.get("provenance", {}).get("arguments", {})


def read(folder: str) -> dict:
    """The `metrics.json` in a folder of `deeppose-evaluate`, of any version, as that of
    this one.

    Raises:
      ValueError: there is none, or one of an unknown format.
    """
    path = pathlib.Path(folder) / METRICS
    if not path.is_file():
        raise ValueError(
            f"{folder}: no {METRICS} that can be read; give folders that "
            "deeppose-evaluate wrote"
        )
    content = files.read_json(path, (FORMAT, OLD_FORMAT))
    if content["format"] == OLD_FORMAT:
        content["rows"][0]["name"] = BASELINE
        protocol = content["protocol"]
        protocol["baseline_from"] = protocol.pop("floor_from")
        protocol["meanings"]["baseline"] = MEANINGS["baseline"]
        del protocol["meanings"]["floor"]
    return content


def joint_score(protocol: dict) -> str:
    """What the scores of joints are called, from `protocol`: PDJ is measured in a
    torso; in the extent of a pose it is PCK (Yang & Ramanan, PAMI 2013)."""
    return protocol.get("joint_score", "PDJ")


def table(content: dict) -> str:
    """`metrics.json` as Markdown: a row for the baseline and for every stage, in per
    cent, and how many limbs and joints each column is made of."""
    protocol, first = content["protocol"], content["rows"][0]["scores"]
    columns = [_columns(row["scores"], protocol) for row in content["rows"]]
    lines = [["", *(name for name, _ in columns[0])]]
    for row, entries in zip(content["rows"], columns, strict=True):
        lines.append([row["name"], *(percent(one["fraction"]) for _, one in entries)])
    lines.append(["counted", *(str(one["scored"]) for _, one in columns[0])])
    joints, meanings = joint_score(protocol), protocol["meanings"]
    notes = []
    if sticks := protocol.get("sticks", 10):
        notes += [
            f"Limbs and their means: PCP strict at 0.5, {MEANINGS['pcp_strict']}; "
            f"loose: {MEANINGS['pcp_loose']}",
            *(
                [f"mean4: {MEANINGS['mean4']}"]
                if "mean4" in first["pcp_strict"]
                else []
            ),
            f"mean{sticks}: {MEANINGS['mean10']}",
        ]
    notes += [
        f"{joints}: {MEANINGS[joints.lower()]}, which is {meanings['diameter']}; mean "
        "over joints",
        *([f"PCKh: {MEANINGS['pckh']}"] if "pckh" in first else []),
        *([f"AP, AR: {MEANINGS['oks']}"] if "oks" in first else []),
        *([f"OKS: {protocol['oks']}"] if "oks" in protocol else []),
        f"{BASELINE.capitalize()}: {baseline_meaning(protocol)}",
        f"Counted: {MEANINGS['counts']}",
        *_reliability(content.get("reliability")),
    ]
    text = "Per cent. " + " ".join(f"{note}." for note in notes)
    labels = {protocol["labels"], protocol.get("model_labels", UNKNOWN)} - {UNKNOWN}
    head = [heading(protocol), *([OTHER_SIDES] if len(labels) > 1 else [])]
    return "\n".join([*head, "", markdown(lines), "", text])


def _columns(scores, protocol) -> list[tuple[str, dict]]:
    """Headings of the table, and what stands below each in a row of these scores."""
    strict = scores["pcp_strict"]
    paper = [limb for limb in metrics.PAPER_TYPES if limb in strict]
    found = [(limb, strict[limb]) for limb in dict.fromkeys([*paper, *strict])]
    # The mean over all sticks is kept as mean10, as of LSP, and shown as what it is.
    sticks, (_, mean) = protocol.get("sticks", 10), found.pop()
    found += [(f"mean{sticks}", mean)] if sticks else []
    if "mean4" in strict:
        found.append(("mean4 loose", scores["pcp_loose"]["mean4"]))
    joints = joint_score(protocol)
    found += [(f"{joints}@{share}", entry) for share, entry in scores["pdj"].items()]
    found += [("PCKh@0.5", scores["pckh"])] if "pckh" in scores else []
    if "oks" in scores:
        for name in ("AP", "AP50", "AP75", "AR"):
            entry = {"fraction": scores["oks"][name], "scored": protocol["people"]}
            found.append((name, entry))
    return found


def heading(protocol: dict) -> str:
    """Who was scored and from which first boxes, a line from `protocol`."""
    people = counted(protocol["people"], "person")
    return (
        f"{'' if protocol['people'] == protocol['of'] else 'The first '}{people} of "
        f"the split {protocol['split']}{HELD_OUT * bool(protocol.get('held_out'))} of "
        f"{' + '.join(protocol['datasets']) or protocol['data']}. First box: "
        f"{protocol['first_box']}. Labels: {protocol['labels']}."
    )


def baseline_meaning(protocol: dict) -> str:
    """What the mean-pose baseline is, from `protocol`."""
    return MEANINGS["baseline"].replace("baseline_from", protocol["baseline_from"])


def markdown(lines: list[list[str]]) -> str:
    """A table of cells, the first line its head."""
    rule = ["---", *["---:"] * (len(lines[0]) - 1)]
    rows = [lines[0], rule, *lines[1:]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


def percent(fraction: float | None) -> str:
    """A cell of a table."""
    return "-" if fraction is None else f"{100 * fraction:.1f}"


def _reliability(found):
    if not found or found["rank_correlation"] is None:
        return []
    return [
        "Scores of joints: Spearman's rank correlation with small errors "
        f"{found['rank_correlation']:.2f} (1: the higher the score, the smaller the "
        "error; 0: scores say nothing)"
    ]


def _first_box(people, index, split):
    from deeppose_tf.pipelines.data import first_boxes

    if known := first_boxes.describe(index.provenance, split, len(people.ids)):
        return known
    given = int(people.boxes.any(axis=1).sum())
    whole = len(people.ids) - given
    if given and whole:
        people = counted(given, "person")
        return f"the box of the record ({people}) or the whole image ({whole})"
    return "the box of the record" if given else "the whole image"


def _pdj_entry(detected, scored, skeleton):
    """PDJ at one threshold from [K] counts: the mean over joints, and each of them."""
    fractions = metrics.fraction(detected, scored)
    joints = zip(fractions, detected, scored, strict=True)
    return _entry(metrics.mean_known(fractions), detected.sum(), scored.sum()) | {
        "joints": {
            name: _entry(*values)
            for name, values in zip(skeleton.joints, joints, strict=True)
        }
    }


def _pckh(detected, scored, skeleton):
    entry = _pdj_entry(detected, scored, skeleton)
    counted = [joint not in metrics.NOT_IN_PCKH for joint in skeleton.canonical]
    correct, total = detected[counted].sum(), scored[counted].sum()
    return entry | _entry(metrics.fraction(correct, total), correct, total)


def _entry(fraction, correct, scored):
    return {
        "fraction": _number(fraction),
        "correct": int(correct),
        "scored": int(scored),
    }


def _number(value):
    """JSON knows no NaN."""
    return None if np.isnan(value) else float(value)
