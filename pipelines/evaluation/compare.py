"""Several evaluations of the same people in one table. No TensorFlow.

Such as of one model from different first boxes, with and without what nobody has
beforehand; or of different models. Each has its baseline and its last stage.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from deeppose_tf.pipelines.cli.outputs import counted
from deeppose_tf.pipelines.evaluation import scores
from deeppose_tf.skeleton import canonical_names

FORMAT = "deeppose-tf comparison 2"
TABLE, CONTENT = "comparison.md", "comparison.json"
# What has to be the same in the protocols of evaluations that share a table.
SAME = ("datasets", "split", "people", "of", "skeleton", "labels", "fingerprint")
# The share of the torso diameter that single joints are compared at.
SHARE = "0.2"


def compare(folders: Sequence[str]) -> dict:
    """The baseline and the last stage of each evaluation.

    Args:
      folders: of `deeppose-evaluate`.

    Returns:
      A JSON value: `protocol`, what they have in common; `rows` of `name`, the folder's
      (all of its path where the last part is that of another) and the stage's,
      `first_box`, and `values` by column, fractions or None; `unknown`, the folders of
      earlier versions, which do not say which people they scored.

    Raises:
      ValueError: a folder holds no evaluation, or one of other people.
    """
    if not folders:
        raise ValueError("--evaluations names no folder")
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"--evaluations names {folder} more than once")
    contents = {folder: scores.read(folder) for folder in folders}
    protocols = {folder: content["protocol"] for folder, content in contents.items()}
    rows, short = [], [pathlib.Path(folder).name for folder in folders]
    for folder, content in contents.items():
        name = pathlib.Path(folder).name
        name = folder if short.count(name) > 1 else name
        baseline, *_, last = content["rows"]
        rows += [
            {
                "name": f"{name}, {row['name']}",
                "first_box": protocols[folder]["first_box"],
                "values": _values(row["scores"], scores.joint_score(protocols[folder])),
            }
            for row in (baseline, last)
        ]
    unknown = [name for name, one in protocols.items() if "fingerprint" not in one]
    return {"protocol": _common(protocols), "rows": rows, "unknown": unknown}


def table(content: dict) -> str:
    """A comparison as Markdown, in per cent."""
    protocol, rows = content["protocol"], content["rows"]
    mean4 = f"PCP: strict, mean over limbs: {scores.MEANINGS['mean4']}."
    columns = list(dict.fromkeys(c for row in rows for c in row["values"]))
    joints = columns[0].partition("@")[0]
    lines = [["", *columns]]
    for row in rows:
        values = [row["values"].get(column) for column in columns]
        lines.append([row["name"], *map(scores.percent, values)])
    boxes = [f"- {row['name']}: first box: {row['first_box']}." for row in rows]
    return "\n".join(
        [
            f"{counted(protocol['people'], 'person')} of the split "
            f"{protocol['split']} of "
            f"{' + '.join(protocol['datasets'])}. Labels: {protocol['labels']}.",
            "",
            scores.markdown(lines),
            "",
            f"Per cent. {joints}: {scores.MEANINGS[joints.lower()]}, mean over joints; "
            f"single joints at {SHARE}, left and right together."
            + (f" {mean4}" if "PCP mean4" in columns else "")
            + (f" PCKh: {scores.MEANINGS['pckh']}." if "PCKh@0.5" in columns else "")
            + (f" OKS AP: {scores.MEANINGS['oks']}." if "OKS AP" in columns else ""),
            "",
            *boxes[1::2],
            *(
                f"- {folder}: whether these are the same people is not known; it is of "
                "an earlier version. deeppose-evaluate makes it anew."
                for folder in content["unknown"]
            ),
        ]
    )


def _common(protocols: dict[str, dict]) -> dict:
    """What the protocols, by folder, have to share and do; that one of a version before
    fingerprints has none is not held against it."""
    common, of = {}, {}
    for folder, protocol in protocols.items():
        for key in SAME:
            if key == "fingerprint" and key not in protocol:
                continue
            value = protocol.get(key)
            if value != common.setdefault(key, value):
                what = f"its {key} is {value}, that of {of[key]} is {common[key]}"
                if key == "fingerprint":
                    what = f"other people or labels than those of {of[key]}"
                raise ValueError(
                    f"{folder}: {what}; only scores of the same people are comparable"
                )
            of.setdefault(key, folder)
    return common


def _values(one: dict, name: str) -> dict:
    """Fractions by column from the scores of one row of `metrics.json`, whose joints
    are scored by what has this name."""
    values = {f"{name}@{t}": entry["fraction"] for t, entry in one["pdj"].items()}
    groups: dict[str, list[dict]] = {}
    joints = one["pdj"][SHARE]["joints"]
    for joint, entry in zip(canonical_names(joints), joints.values(), strict=True):
        name = joint.removeprefix("left_").removeprefix("right_").replace("_", " ")
        groups.setdefault(name, []).append(entry)
    for name, entries in groups.items():
        scored = sum(entry["scored"] for entry in entries)
        correct = sum(entry["correct"] for entry in entries)
        values[f"{name}@{SHARE}"] = correct / scored if scored else None
    if "mean4" in one["pcp_strict"]:
        values["PCP mean4"] = one["pcp_strict"]["mean4"]["fraction"]
    if "pckh" in one:
        values["PCKh@0.5"] = one["pckh"]["fraction"]
    if "oks" in one:
        values["OKS AP"] = one["oks"]["AP"]
    return values
