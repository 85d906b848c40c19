"""Thirty pictures of one's own joints, the whole way, by the words of the docs."""

import importlib
import json
import pathlib
import re
import shlex

import cv2
import numpy as np
import pytest
import toy_run

from deeppose_tf.pipelines.cli import scripts

DOCUMENT = pathlib.Path(__file__).parents[1] / "docs" / "own_joints.md"
JOINTS = ("head", "left_hand", "right_hand", "waist")
# Networks that learn nothing, in seconds.
SMALL = ["--set=stage.size=32,inputs.canvas=64", "--steps=3"]
COMPACT = ["--set=stage.widths=4,8,stage.blocks=0,1"]


def draw(folder, count):
    """Puppets on pictures of several sizes, and their COCO annotations."""
    chance = np.random.default_rng(0)
    (folder / "new").mkdir()
    images, annotations = [], []
    for i in range(1, count + 1):
        height, width = map(int, chance.integers(80, 120, 2))
        picture = np.full((height, width, 3), chance.integers(100, 256, 3), np.uint8)
        middle = np.array([width, height]) * chance.uniform(0.4, 0.6, 2)
        places = np.array([[0, -20], [25, 0], [-25, 0], [0, 20]])
        points = np.rint(middle + places * chance.uniform(0.6, 1, (4, 2))).astype(int)
        for point, color in zip(points, np.eye(4, 3) * 200, strict=True):
            cv2.line(picture, points[0].tolist(), point.tolist(), (0, 0, 0), 2)
            cv2.circle(picture, point.tolist(), 5, color.tolist(), -1)
        cv2.imwrite(str(folder / "new" / f"{i}.jpg"), picture)
        size = {"width": width, "height": height}
        images.append({"id": i, "file_name": f"new/{i}.jpg"} | size)
        keypoints = [int(n) for point in points for n in (*point, 2)]
        box = [0, 0, width, height]
        person = {"id": i, "image_id": i, "category_id": 1}
        annotations.append(person | {"keypoints": keypoints, "bbox": box})
    sticks = [[1, 2], [1, 3], [1, 4]]
    puppet = {"id": 1, "name": "puppet", "keypoints": JOINTS, "skeleton": sticks}
    content = {"images": images, "annotations": annotations, "categories": [puppet]}
    (folder / "annotations.json").write_text(json.dumps(content))


def follow(line):
    """Does what a line of the document says, but with a small network."""
    name, *words = shlex.split(line)
    name = name.removeprefix("deeppose-")
    folder = scripts.COMMANDS[name][0]
    commands = importlib.import_module(f"deeppose_tf.{folder}.commands")
    if name == "train":
        words += SMALL + COMPACT * ("--recipe=compact" in words)
    toy_run.call(toy_run.script(commands, name), *words)


@pytest.mark.slow
def test_every_command_of_the_document(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path, 30)
    lines = re.findall(r"^deeppose-.*$", DOCUMENT.read_text(), re.M)
    assert len(lines) == 6 and "--start_from=full_body" in lines[1]
    for line in lines:
        follow(line)
    said = capsys.readouterr().out
    assert "train 21, validation 6, test 3 people" in said
    assert "4 joints, 1 pairs of left and right; not paired: head, waist" in said
    assert "batches of 21 crops instead of 64, for 21 people" in said
    new = "head as head_top; left_hand as left_wrist; right_hand as right_wrist"
    assert f"begin as others: {new}; waist as all" in said
    for run, stages in (("mine", 1), ("overfit", 1), ("scratch", 3)):
        named = json.loads((tmp_path / "runs" / run / "cascade.json").read_text())
        assert len(named["stages"]) == stages
    content = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert [row["name"] for row in content["rows"]][1:] == ["stage 1"]
    assert content["protocol"]["people"] == 3
    found = json.loads((tmp_path / "poses" / "predictions.json").read_text())
    assert found["categories"][0]["keypoints"] == list(JOINTS)
    assert len(found["annotations"]) == 30
    assert all(len(person["keypoints"]) == 3 * 4 for person in found["annotations"])
