"""The benchmark of exported cascades times every way, and reports what it measured."""

import dataclasses
import json

import numpy as np
import pytest
import toy_export
import toy_run

from deeppose_tf import sampling
from deeppose_tf.export import benchmark, commands
from deeppose_tf.export.saved_model import checks, cropping
from deeppose_tf.pipelines.train import recipes

WAYS = [
    "bare networks",
    "bare networks, 15 single crops",
    "unrolled graph",
    "loop",
    "SavedModel",
    "SavedModel, from a JPEG",
    "SavedModel, 3 people",
]
script = toy_run.script(commands, "benchmark_export")


@pytest.fixture
def halved_once(monkeypatch):
    """An image of 40 x 60 is halved no more often for crops of 32 pixels."""
    monkeypatch.setattr(cropping.framed, "__defaults__", (2,))
    monkeypatch.setattr(sampling, "LEVELS", 2)


def test_the_whole_report(tmp_path, capsys, halved_once):
    toy_export.save_run(tmp_path / "run", stages=2)
    model, output = f"--model={tmp_path / 'run'}", tmp_path / "new" / "found.json"
    size = "--height=60", "--width=40"
    more = "--rounds=3", "--batches=3", "--people_at_once=2", f"--output={output}"
    toy_run.call(script, model, *size, *more)
    found = json.loads(output.read_text())
    assert list(found) == WAYS
    bare = found["bare networks"]
    assert bare["ratio"] == bare["cpu_ratio"] == 1.0
    # 15 calls of one crop are more work than 2 calls of 15 crops in all.
    assert found["bare networks, 15 single crops"]["cpu_ratio"] > 1.2
    assert 0.05 < found["SavedModel"]["megabytes"] < 5
    printed = capsys.readouterr().out
    assert "image 40 x 60" in printed
    assert {
        name: one["people"] for name, one in found.items() if one["people"] > 1
    } == {"SavedModel, 3 people": 3}
    rate = 3 / found["SavedModel, 3 people"]["seconds"]
    assert f"| {rate:.1f} |  |" in printed.splitlines()[-1]
    assert f"| loop | {1000 * found['loop']['seconds']:.1f} |" in printed


def test_an_untrained_pose_has_an_extent(monkeypatch):
    """Joints in one place would be crops of nothing, which cost nothing."""
    paper = recipes.recipe_for("paper", 1)
    small = dataclasses.replace(paper, stage=dataclasses.replace(paper.stage, size=64))
    monkeypatch.setattr(recipes, "recipe_for", lambda name, number: small)
    cascade = benchmark.untrained(stages=1)
    poses = cascade.predict(checks.picture(60, 40))["keypoints_by_stage"][0]
    assert (np.ptp(poses, axis=1) > 20).all()


@pytest.mark.parametrize("batches", ["0", "many", "8,-1"])
def test_batches_that_are_none(batches):
    with pytest.raises(ValueError, match="--batches=.*numbers of people"):
        toy_run.call(script, f"--batches={batches}")


def test_files_of_no_model():
    with pytest.raises(ValueError, match="--tflite needs --model"):
        toy_run.call(script, "--tflite=pose.tflite")
