"""Where activations are rounded, to which steps, and that nothing else changes."""

import numpy as np
import pytest
import tensorflow as tf
from toy_cascade import make

from deeppose_tf.config import StageConfig
from deeppose_tf.export.saved_model import checks
from deeppose_tf.export.tflite import constants, quantise
from deeppose_tf.skeleton import LSP

keras = tf.keras


def network(layers):
    """The frozen network of some Keras layers on crops [2, 8, 8, 3]."""
    inputs = keras.Input([8, 8, 3])
    model = keras.Model(inputs, layers(inputs))
    return constants._frozen(model, "stage_1", 2)


def rounded(frozen):
    """The kinds of operations whose results are rounded, in order."""
    kinds = {node.name: node.op for node in frozen.graph.node}
    return [kinds[name] for name in quantise.rounded_tensors(frozen)]


def test_what_is_merged_is_rounded_once():
    """Bias, normalization and ReLU become part of the convolution; its input, its
    result, and the sum of two branches are what is left. The last layer is float."""

    def layers(x):
        x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
        y = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        y = keras.layers.BatchNormalization()(y)
        x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
        x = keras.layers.MaxPooling2D(2)(x)
        x = keras.layers.Dense(5, activation="relu")(keras.layers.Flatten()(x))
        return keras.layers.Dense(2)(x)

    found = rounded(network(layers))
    branch = found.pop(2)  # Keras 3 spells normalization out.
    assert branch in ("FusedBatchNormV3", "AddV2")
    # Crops, first layer, sum, what the dense layer reads, and its result.
    assert found == ["Placeholder", "Relu", "Relu", "Reshape", "Relu"]


def test_a_single_layer_is_left_alone():
    assert rounded(network(lambda x: keras.layers.Conv2D(2, 8)(x))) == []


def test_rounding_is_to_256_steps_of_the_range():
    frozen = network(lambda x: keras.layers.Conv2D(2, 8)(keras.layers.Conv2D(3, 1)(x)))
    names = quantise.rounded_tensors(frozen)
    steps = quantise._rounded(frozen, {name: np.array([-1.0, 1.5]) for name in names})
    crops = np.random.default_rng(0).uniform(-3, 3, (2, 8, 8, 3)).astype(np.float32)
    values = tf.function(
        lambda x: steps.tensors(x, [f"{names[0]}/rounded:0"]), autograph=False
    )(crops)[0]
    # 2.5 / 255 = 1 / 102 a step, of which one is zero: -1 is the 102nd below it.
    expected = np.clip(np.round(crops * 102), -102, 153) / 102
    np.testing.assert_allclose(values, expected, atol=1e-6)
    # Not only there, but in what the next layer reads.
    apart = tf.function(lambda x: steps(x) - frozen(x), autograph=False)(crops)
    assert np.abs(apart).max() > 0.01


def test_ranges_are_those_of_all_crops_and_reach_zero():
    rows = [np.array([[-1, 2], [0.5, 3]]), np.array([[-4, 1], [0.2, 5]])]
    np.testing.assert_array_equal(quantise._ranges(rows), [[-4, 2], [0, 5]])


def test_every_stage_is_seen_on_its_own_crops(monkeypatch):
    """14 crops a person in later stages, whose ranges are others than of the first."""
    taken = []
    plain = quantise._ranges
    monkeypatch.setattr(
        quantise, "_ranges", lambda rows: taken.append(plain(rows)) or plain(rows)
    )
    people = [
        (checks.picture(60, 91), np.zeros(4)),
        (checks.picture(91, 60, 2), np.zeros(4)),
    ]
    frozen = constants.frozen(make(LSP))
    found = quantise.quantised(frozen, people)
    assert len(taken) == 3
    for ranges, stage, before in zip(taken, found.stages, frozen.stages, strict=True):
        kinds = [node.op for node in stage.model.graph.node]
        assert kinds.count("FakeQuantWithMinMaxArgs") == len(ranges) >= 5
        assert "FakeQuantWithMinMaxArgs" not in [
            node.op for node in before.model.graph.node
        ]
        assert -1 <= ranges[0, 0] < 0 < ranges[0, 1] <= 1  # the crops themselves
    assert not np.allclose(taken[0][1], taken[1][1])


@pytest.mark.parametrize(
    "name", [pytest.param("paper", marks=pytest.mark.slow), "MobileNetV2"]
)
def test_other_networks_are_rounded_too(name):
    config = StageConfig(name, 64, "linear")
    frozen = constants.frozen(make(LSP, [config]))
    kinds = {node.name: node.op for node in frozen.stages[0].model.graph.node}
    names = quantise.rounded_tensors(frozen.stages[0].model)
    weighted = [op for op in kinds.values() if op in quantise.WEIGHTED]
    assert len(names) >= len(weighted)
    assert "LRN" not in kinds.values()
    found = quantise.quantised(frozen, [(checks.picture(60, 91), np.zeros(4))])
    poses = [
        tf.function(cascade.poses, autograph=False)(
            checks.picture(60, 91)[None],
            np.zeros([1, 4], np.float32),
            np.zeros(1, np.int32),
        )["keypoints"]
        for cascade in (frozen, found)
    ]
    apart = np.linalg.norm(poses[0] - poses[1], axis=-1)
    assert 0 < apart.max() < 10
