"""`deeppose-compare`: several evaluations of the same people in one table.

Such as of one model from different first boxes, with and without what nobody has
beforehand; or of different models. Each has its floor and its last stage.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

from absl import flags

from deeppose_tf import files
from deeppose_tf.pipelines.cli import command, outputs
from deeppose_tf.pipelines.evaluation import evaluate, scores

FORMAT = "deeppose-tf comparison 1"
TABLE, CONTENT = "comparison.md", "comparison.json"
# What has to be the same in the protocols of evaluations that share a table.
SAME = ("datasets", "split", "people", "of", "skeleton", "labels", "fingerprint")
# The share of the torso diameter that single joints are compared at.
SHARE = "0.2"


def compare(folders: Sequence[str]) -> dict:
    """The floor and the last stage of each evaluation.

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
    contents = {folder: _read(folder) for folder in folders}
    unknown = [
        folder
        for folder, content in contents.items()
        if "fingerprint" not in content["protocol"]
    ]
    common = _common({f: content["protocol"] for f, content in contents.items()})
    rows, short = [], [pathlib.Path(folder).name for folder in contents]
    for folder, content in contents.items():
        name = pathlib.Path(folder).name
        name = folder if short.count(name) > 1 else name
        floor, *_, last = content["rows"]
        rows += [
            {
                "name": f"{name}, {row['name']}",
                "first_box": content["protocol"]["first_box"],
                "values": _values(row["scores"]),
            }
            for row in (floor, last)
        ]
    return {"protocol": common, "rows": rows, "unknown": unknown}


def table(content: dict) -> str:
    """A comparison as Markdown, in per cent."""
    said, rows = content["protocol"], content["rows"]
    columns = list(rows[0]["values"])
    lines = [["", *columns]]
    for row in rows:
        values = [row["values"].get(column) for column in columns]
        cells = ["-" if value is None else f"{100 * value:.1f}" for value in values]
        lines.append([row["name"], *cells])
    boxes = [f"- {row['name']}: first box: {row['first_box']}." for row in rows]
    return "\n".join(
        [
            f"{said['people']} people of the split {said['split']} of "
            f"{' + '.join(said['datasets'])}. Labels: {said['labels']}.",
            "",
            scores.markdown(lines),
            "",
            f"Per cent. PDJ: {scores.MEANINGS['pdj']}, mean over joints; single joints "
            f"at {SHARE}, left and right together. PCP: strict, mean over limbs: "
            f"{scores.MEANINGS['mean4']}.",
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
    for folder, said in protocols.items():
        for key in SAME:
            if key == "fingerprint" and key not in said:
                continue
            value = said.get(key)
            if value != common.setdefault(key, value):
                what = f"its {key} is {value}, that of {of[key]} is {common[key]}"
                if key == "fingerprint":
                    what = f"other people or labels than those of {of[key]}"
                raise ValueError(
                    f"{folder}: {what}; only scores of the same people are comparable"
                )
            of.setdefault(key, folder)
    return common


def _read(folder: str) -> dict:
    path = pathlib.Path(folder) / evaluate.METRICS
    try:
        content = json.loads(path.read_text())
        form = content.get("format")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{folder}: no {evaluate.METRICS} that can be read; give folders that "
            "deeppose-evaluate wrote"
        ) from error
    if form != scores.FORMAT:
        raise ValueError(f"{path}: its format is {form!r}, expected {scores.FORMAT!r}")
    return content


def _values(one: dict) -> dict:
    """Fractions by column from the scores of one row of `metrics.json`."""
    values = {f"PDJ@{t}": entry["fraction"] for t, entry in one["pdj"].items()}
    groups: dict[str, list[dict]] = {}
    for joint, entry in one["pdj"][SHARE]["joints"].items():
        name = joint.removeprefix("left_").removeprefix("right_").replace("_", " ")
        groups.setdefault(name, []).append(entry)
    for name, entries in groups.items():
        scored = sum(entry["scored"] for entry in entries)
        correct = sum(entry["correct"] for entry in entries)
        values[f"{name}@{SHARE}"] = correct / scored if scored else None
    return values | {"PCP mean4": one["pcp_strict"]["mean4"]["fraction"]}


def define_flags() -> None:
    """Flags of this script."""
    flags.DEFINE_list(
        "evaluations",
        None,
        "Folders that deeppose-evaluate wrote (its --output), joined by commas, all of "
        "the same people: the same data set, part and labels.",
    )
    flags.DEFINE_string(
        "output", None, f"The folder for {TABLE} and {CONTENT}. It is made if missing."
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replace files in --output that are there already. The same command may "
        "always replace what it wrote itself.",
    )
    flags.mark_flags_as_required(["evaluations", "output"])


def main(argv: list[str]) -> None:
    """Compares what the flags name and prints the table."""
    del argv
    values = flags.FLAGS
    settings = {"evaluations": values.evaluations}
    if not values.overwrite:
        names = (CONTENT, TABLE)
        outputs.require_free(values.output, CONTENT, FORMAT, settings, names)
    content = {"format": FORMAT, "settings": settings} | compare(values.evaluations)
    folder = pathlib.Path(values.output)
    folder.mkdir(parents=True, exist_ok=True)
    # The record of whose files these are comes first, for `outputs.require_free`.
    text = json.dumps(content, indent=1).encode() + b"\n"
    files.write_bytes(folder / CONTENT, text)
    files.write_bytes(folder / TABLE, table(content).encode() + b"\n")
    print(table(content))


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__, folder="output")


if __name__ == "__main__":
    run()
