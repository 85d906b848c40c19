"""The benchmark measures the parts of training, and reports what it was asked to."""

import json

import numpy as np
import pytest
import toy_run
import toy_training as toy

from deeppose_tf.pipelines.profiling import benchmark, memory, timing
from deeppose_tf.pipelines.train import recipes


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return toy.make_index(tmp_path_factory.mktemp("figures"))


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(timing, "TURN_SECONDS", 0.0)


@pytest.mark.parametrize("number", [1, 2])
def test_parts_are_measured_in_turns(index, number):
    found = timing.measure(index, toy.recipe_for(number), number, rounds=2)
    assert found["seconds"].keys() == found["cpu_seconds"].keys()
    assert list(found["seconds"]) == list(timing.ROWS)
    assert all(seconds > 0 for seconds in found["seconds"].values())
    # A full step does all that a bare one does.
    assert found["seconds"]["full"] > 0.5 * found["seconds"]["network"]
    assert found["overhead"] > 0.5 and found["input_speed"] > 0


def test_the_whole_report(index, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipes, "recipe_for", lambda name, stage: toy.recipe_for(1))
    monkeypatch.setattr(
        memory, "peak_memory", lambda directory, recipe, number, repeats: 7 * repeats
    )
    output = tmp_path / "result.json"
    arguments = f"--data={index.directory}", "--rounds=1", f"--output={output}"
    toy_run.call(benchmark, *arguments)
    printed = capsys.readouterr().out
    result = json.loads(output.read_text())
    assert result["memory"] == {"batch": 128, "once": 7, "repeated": 70}
    assert "batch 128; 70 with 10 times the records" in printed
    assert "at most 1.25" in printed and "at least" not in printed
    assert "compact, stage 1, batch 6" in printed


def test_a_data_set_is_listed_several_times(index):
    thrice = memory.repeated(index, 3)
    assert thrice.counts["train"] == 3 * index.counts["train"]
    assert thrice.shards["train"] == 3 * index.shards["train"]
    np.testing.assert_equal(index.counts["train"], 16)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(index):
    """Of a process of its own, whatever this one has used: a hundred MiB more here
    would show there. An epoch of 320 people instead of 16."""
    ballast = np.ones(200 << 20, np.uint8)
    once, often = (
        memory.peak_memory(index.directory, toy.recipe_for(1), 1, repeats)
        for repeats in (1, 20)
    )
    assert ballast.any() and 200 < once < 2000
    assert often < 1.05 * once
