"""What few people with joints of one's own come to: from a preset, and from scratch.

    python tests/measure_own_joints.py OUT --flic=FLIC [--only=full_body_100]

Writes COCO annotations of 30, 100 and 300 people of FLIC's training part, whose joints
have other names, another order and another count than LSP's, and of 250 from films that
none of them are from. Then it prepares, trains and evaluates by the commands of
docs/own_joints.md, one at a time; OUT/report.json has seconds, seconds of the
processors, peak memory and scores as they come. With --choosing the people to score are
those of a third part of the films, by which settings were chosen. Needs Linux.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np

from deeppose_tf.datasets import matlab

PEOPLE = (30, 100, 300)
SCORED = 250
# A joint of ours, and its column of FLIC's 29. full_body has none of the face.
JOINTS = {
    "nose": 16, "l_eye": 12, "r_eye": 13, "l_shoulder": 0, "r_shoulder": 3,
    "l_elbow": 1, "r_elbow": 4, "l_hand": 2, "r_hand": 5, "l_hip": 6, "r_hip": 9,
}  # fmt: skip
LIMBS = (
    "nose l_eye, nose r_eye, l_shoulder r_shoulder, l_shoulder l_hip, r_shoulder r_hip,"
    " l_shoulder l_elbow, l_elbow l_hand, r_shoulder r_elbow, r_elbow r_hand"
)
# Films to be scored on, and to choose settings by; all others are for training.
TESTED = ("hitch", "ten-commandments-disc1", "monster-in-law-d1", "the-departed")
CHOSEN = (
    "american-wedding-unrated6x9", "basic-instinct", "italian-job", "mi2",
    "daredevil-disc1", "bend-of-the-river", "diehard2-dts",
)  # fmt: skip
# What follows `deeppose-train --data=... --run=...`: five minutes of processor time.
WAYS = {
    "full_body": "--recipe=thunder --start_from=full_body --stages=1 --steps=100",
    "full_body_small": "--recipe=lightning --start_from=full_body_small --stages=1 "
    "--steps=250",
    "scratch": "--recipe=compact --stages=1 --batch={batch} --steps=150",
}


def people_of(flic, films, most):
    """Some people of the training part from films that `films` holds of, at random."""
    fields = ("filepath", "moviename", "coords", "torsobox", "istrain")
    examples = matlab.load_structs(flic / "examples.mat", "examples", fields)
    found = [x for x in examples if x["istrain"] and films(str(x["moviename"]))]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order[:most]]


def annotations(people):
    """COCO keypoints of examples of FLIC, whose pixels count from one. The box is made
    of the torso that a detector found, and never of labels."""
    names = {str(person["filepath"]): None for person in people}
    numbers = {name: i for i, name in enumerate(names, start=1)}
    found = []
    for i, person in enumerate(people, start=1):
        x0, y0, x1, y1 = np.asarray(person["torsobox"], float) - 0.5
        x, y, side = (x0 + x1) / 2, (y0 + y1) / 2, y1 - y0
        low = np.maximum([x - 1.3 * side, y - 1.2 * side], 0)
        high = np.minimum([x + 1.3 * side, y + 1.45 * side], [432, 288])
        joints = np.asarray(person["coords"], float)[:, list(JOINTS.values())].T - 1
        found.append(
            {
                "id": i,
                "image_id": numbers[str(person["filepath"])],
                "category_id": 1,
                "keypoints": np.insert(joints, 2, 2, axis=1).ravel().round(2).tolist(),
                "bbox": np.concatenate([low, high - low]).round(2).tolist(),
            }
        )
    sticks = [
        [list(JOINTS).index(joint) + 1 for joint in limb.split()]
        for limb in LIMBS.split(", ")
    ]
    category = {"id": 1, "name": "actor", "keypoints": list(JOINTS), "skeleton": sticks}
    return {
        "images": [{"id": n, "file_name": name} for name, n in numbers.items()],
        "annotations": found,
        "categories": [category],
    }


def write_data(out, flic, choosing):
    """A folder for each number of people: train.json, test.json and images."""
    known = TESTED + CHOSEN
    training = people_of(flic, lambda film: film not in known, max(PEOPLE))
    tested = CHOSEN if choosing else TESTED
    test = people_of(flic, lambda film: film in tested, SCORED)
    for count in PEOPLE:
        folder = out / f"people_{count}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, people in (("train", training[:count]), ("test", test)):
            (folder / f"{name}.json").write_text(json.dumps(annotations(people)))
        if not (folder / "images").exists():
            (folder / "images").symlink_to((flic / "images").resolve())


def measured(log, arguments):
    """Runs a command: its seconds, those of the processors, MiB at its peak."""
    began = time.monotonic()
    with open(log, "a") as file:
        program = [sys.executable, "-m", "deeppose_tf.pipelines", *arguments]
        process = subprocess.Popen(program, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: see {log}")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "of_processors": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_mib": usage.ru_maxrss // 1024,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--flic", type=pathlib.Path, required=True)
    parser.add_argument("--only", default="", help="some rows, joined by commas")
    parser.add_argument("--choosing", action="store_true")
    parser.add_argument("--more", default="", help="flags of deeppose-train")
    options = parser.parse_args()
    out = options.out
    write_data(out, options.flic, options.choosing)
    path = out / "report.json"
    report = json.loads(path.read_text()) if path.exists() else {}
    for count in PEOPLE:
        for way, words in WAYS.items():
            words = words.format(batch=min(32, count))
            name = f"{way}_{count}"
            if options.only and name not in options.only.split(","):
                continue
            log, data, run = out / f"{name}.log", out / f"data_{count}", out / name
            if not data.exists():
                source = f"--source={out / f'people_{count}'}"
                measured(
                    log,
                    ["prepare", "--dataset=coco", source, "--validation=0",
                     f"--output={data}"],
                )  # fmt: skip
            said = ["train", f"--data={data}", f"--run={run}", *words.split()]
            row = measured(log, [*said, *options.more.split()])
            scores = out / f"scores_{name}"
            measured(
                log, ["evaluate", f"--data={data}", f"--model={run}",
                      f"--output={scores}"],
            )  # fmt: skip
            metrics = json.loads((scores / "metrics.json").read_text())
            row["pdj"] = {
                x["name"]: {at: y["fraction"] for at, y in x["scores"]["pdj"].items()}
                for x in metrics["rows"]
            }
            report[name] = row
            path.write_text(json.dumps(report, indent=2) + "\n")
            print(name, json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
