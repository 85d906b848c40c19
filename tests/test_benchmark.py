"""The benchmark measures the parts of training, and reports what it was asked to."""

import functools
import importlib.util
import json
import time
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
import toy_run
import toy_training as toy

from deeppose_tf import networks
from deeppose_tf.config import StageConfig
from deeppose_tf.pipelines.data import augment
from deeppose_tf.pipelines.profiling import (
    commands,
    pytorch,
    roofline,
    timer,
    training_step,
)
from deeppose_tf.pipelines.train import recipes
from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.skeleton import LSP
from deeppose_tf.stage import build_stage

keras = tf.keras


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return toy.make_index(tmp_path_factory.mktemp("figures"))


measured_once = functools.cache(roofline.measure_rates)


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(training_step, "TURN_SECONDS", 0.0)
    monkeypatch.setattr(roofline, "measure_rates", measured_once)


def test_parts_are_timed_in_turns_and_the_first_time_is_not_counted():
    """By waiting, 20 and 40 ms: seconds pass, and the processor does nothing."""
    calls = []

    def wait(name, seconds):
        calls.append(name)
        # What compiles takes longer the first time.
        time.sleep(seconds if calls.count(name) > 1 else 0.5)

    parts = {"a": lambda: wait("a", 0.02), "b": lambda: wait("b", 0.04)}
    taken = timer.in_turns(parts, range(3), shown=False)
    assert "".join(calls) == "aabb" + "ab" + "ab"
    assert taken["a"].shape == (3, 2)
    found = timer.medians(taken, "a")
    assert 0.02 <= found["a"]["seconds"] < 0.04 <= found["b"]["seconds"] < 0.4
    assert found["b"]["cpu_seconds"] < 0.02
    assert found["a"]["ratio"] == 1 and found["b"]["ratio"] > 1
    assert timer.medians(taken)["b"].keys() == {"seconds", "cpu_seconds"}


def test_medians_and_ratios_by_hand():
    """Ratios are medians of the ratios of each turn: 2, 5 and 3."""
    taken = {
        "base": np.array([[1, 2], [1, 2], [4, 2]]),
        "part": np.array([[2, 4], [5, 1], [12, 6]]),
    }
    expected = {"seconds": 5, "cpu_seconds": 4, "ratio": 3, "cpu_ratio": 2}
    assert timer.medians(taken, "base")["part"] == expected


def test_what_is_prepared_is_not_timed():
    def prepare(part, turn):
        time.sleep(0.05)
        return lambda: part(turn)

    seen = []
    taken = timer.in_turns({"a": seen.append}, "xy", prepare, shown=False)
    assert seen == ["x", "x", "y"] and taken["a"][:, 0].max() < 0.04


def plain(*batch):
    return augment.Examples(*toy.plain(*batch))


@pytest.mark.parametrize("number, cache", [(1, "none"), (1, "device"), (2, "auto")])
def test_parts_are_measured_in_turns(index, number, cache, monkeypatch):
    """Wherever canvases are: of those kept nowhere there was no batch to begin with."""
    if number == 1:  # To compile the crops of one stage is enough.
        monkeypatch.setattr(training_step.cascade, "make_examples", lambda *_: plain)
    recipe = toy.recipe_for(number)
    found = training_step.measure(index, recipe, number, 3, cache)
    assert found["seconds"].keys() == found["cpu_seconds"].keys()
    assert list(found["seconds"]) == list(commands.ROWS)
    assert all(seconds > 0 for seconds in found["seconds"].values())
    # A full step does all that a bare one does.
    assert found["seconds"]["full"] > 0.5 * found["seconds"]["network"]
    assert found["overhead"] > 0.5 and found["input_speed"] > 0
    assert found["bound"].keys() == found["work"].keys() == found["seconds"].keys()
    assert found["bound"]["input"] == "input"
    assert found["work"]["full"]["flop"] == found["work"]["network"]["flop"] > 0


def test_the_whole_report(index, tmp_path, monkeypatch, capsys):
    """Crops and people are told apart: "images/s" counted crops, of which a person of
    this stage gives two (of the recipe compact, sixteen)."""
    parts = {name: 0.5 for name in commands.ROWS}
    measured = {"steps_per_turn": 1, "seconds": parts, "cpu_seconds": parts} | {
        "overhead": 1.0,
        "cpu_overhead": 1.0,
        "input_speed": 1.0,
    }
    measured |= {
        "bound": dict.fromkeys(parts, "memory"),
        "rates": {"flop": 4e9, "bytes": 1e9, "operations": 1e6},
        "work": {"network": {"flop": 5e8, "bytes": 4e8, "operations": 9}},
    }
    monkeypatch.setattr(recipes, "recipe_for", lambda name, stage: toy.REFINER)
    monkeypatch.setattr(training_step, "measure", lambda *arguments: measured)
    monkeypatch.setattr(
        training_step,
        "peak_memory",
        lambda directory, recipe, number, repeats, cache: 7 * repeats,
    )
    output = tmp_path / "result.json"
    arguments = f"--data={index.directory}", "--rounds=1", f"--output={output}"
    script = toy_run.script(commands, "benchmark")
    toy_run.call(script, *arguments, "--stage=2")
    printed = capsys.readouterr().out
    result = json.loads(output.read_text())
    assert result["memory"] == {"batch": 128, "once": 7, "repeated": 70}
    assert "batch 128; 70 with 10 times the records" in printed
    assert "at most 1.25" in printed and "at least" not in printed
    assert "compact, stage 2, batch of 12 crops of 6 people" in printed
    (full,) = [line for line in printed.splitlines() if line.startswith("full tr")]
    assert full.split()[3:] == ["500.0", "24", "12", "500.0", "memory"]
    assert "0.50 GFLOP, 1.0 GFLOP/s: 25% of the 4.0 of large matrix prod" in printed
    assert "0.40 GB, 0.8 GB/s: 80% of the 1.0 of large copies" in printed


def test_the_work_of_a_step_by_hand():
    """Each product once forward and once for either gradient; there is none of the
    crops."""

    def build(precision="float32"):
        return keras.Sequential(
            [
                keras.Input([16, 12, 3]),
                keras.layers.Conv2D(8, 3, 2, padding="same"),  # -> 8 x 6
                keras.layers.DepthwiseConv2D(5, padding="same"),
                keras.layers.Flatten(),
                keras.layers.Dense(28),
                keras.layers.Reshape([14, 2]),
            ]
        )

    config = toy.recipe_for(1).train
    state = steps.make_state(build, config, tf.distribute.get_strategy())
    crops = tf.zeros([4, 16, 12, 3]), tf.zeros([4, 14, 2]), tf.ones([4, 14])
    found = roofline.network_work(state, config, crops)
    seen, depthwise, dense = 4 * 48 * 8 * 9 * 3, 4 * 48 * 8 * 25, 4 * 384 * 28
    assert found.flop == 2 * (2 * seen + 3 * depthwise + 3 * dense)
    weights = (9 * 3 * 8 + 8) + (25 * 8 + 8) + (384 * 28 + 28)
    # The gradient, the weight twice, and AdamW's two moments twice.
    updated = 4 * 7 * weights
    images, features, answers = 4 * 16 * 12 * 3, 4 * 48 * 8, 4 * 28
    products = [images, 9 * 3 * 8, features] * 2  # and the shapes that they are told
    products += [features, 200, features] * 3 + [features, 384 * 28, answers] * 3
    assert updated < 4 * sum(products) + updated <= found.bytes
    assert found.bytes < 1.01 * (4 * sum(products) + updated)
    assert 30 < found.operations < 300


@pytest.mark.parametrize(
    "work, waited, expected",
    [
        ((80, 5, 0), 0.0, "arithmetic"),
        ((10, 9, 0), 0.0, "memory"),
        ((10, 1, 700), 0.0, "launch"),
        ((60, 1, 0), 0.9, "input"),
        ((10, 1, 10), 0.1, "small operations"),
    ],
)
def test_what_a_step_is_bound_by(work, waited, expected):
    """Of a second, on a device of 100 FLOP, 10 bytes and 1000 launches a second."""
    rates = roofline.Work(100, 10, 1000)
    assert roofline.bound(1.0, roofline.Work(*work), rates, waited) == expected


def test_rates_are_of_this_machine():
    """No processor takes a millisecond for a byte, or has the speed of a thousand."""
    rates = roofline.measure_rates("float32")
    assert 1e8 < rates.flop < 1e15 and 1e8 < rates.bytes < 1e14
    assert 1e3 < rates.operations < 1e9


def test_pytorch_is_the_peer_where_it_is_installed():
    found = pytorch.step_seconds(networks.PAPER, 220, 2, 28)
    if importlib.util.find_spec("torch") is None:
        assert found == {}
        return
    assert all(seconds > 0 for seconds in found.values()) and found
    ours = build_stage(StageConfig("paper", 220, "linear", dropout=0.6), LSP)
    theirs = pytorch._network(networks.PAPER, 220, 28)
    assert ours.count_params() == sum(one.numel() for one in theirs.parameters())


@pytest.mark.parametrize("gpu", [True, False])
def test_pytorch_compiles_on_a_gpu_alone(monkeypatch, gpu):
    """Without one, a second process was started for nothing."""
    spawn = mock.MagicMock()
    asked = spawn.Pool.return_value.__enter__.return_value.apply_async.return_value
    asked.get.side_effect = [(gpu, {"plain": 2.0}), (gpu, {"compiled": 1.0})]
    monkeypatch.setattr(pytorch.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(pytorch.multiprocessing, "get_context", lambda kind: spawn)
    found = pytorch.step_seconds(networks.PAPER, 220, 2, 28)
    assert found == {"plain": 2.0} | ({"compiled": 1.0} if gpu else {})
    assert spawn.Pool.call_count == 1 + gpu


def test_a_data_set_is_listed_several_times(index):
    thrice = training_step.repeated(index, 3)
    assert thrice.counts["train"] == 3 * index.counts["train"]
    assert thrice.people["train"].ids == 3 * index.people["train"].ids
    assert len(thrice.people["train"].weights) == 3 * 16
    np.testing.assert_equal(index.counts["train"], 16)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(index):
    """Of a process of its own, whatever this one has used: a hundred MiB more here
    would show there. An epoch of 320 people instead of 16."""
    ballast = np.ones(200 << 20, np.uint8)
    once, often = (
        training_step.peak_memory(
            index.directory, toy.recipe_for(1), 1, repeats, "none"
        )
        for repeats in (1, 20)
    )
    assert ballast.any() and 200 < once < 2000
    assert often < 1.05 * once
