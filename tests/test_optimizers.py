"""Optimizers by name: first steps derived by hand, decay, replicas, resuming."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf.pipelines.train import optimizers

keras = tf.keras

RATE = 0.1
WEIGHTS = np.float32([1, -2])
GRADIENT = np.float32([0.5, -0.25])
# Keras 3 has LAMB; TensorFlow 2.15 does not.
NAMES = [
    name
    for name in optimizers.NAMES
    if name != "lamb" or hasattr(keras.optimizers, "Lamb")
]


@pytest.fixture
def addons():
    """tensorflow-addons, whose import announces the end of its life."""
    return pytest.importorskip("tensorflow_addons")


def _after(optimizer, steps=1):
    weights = tf.Variable(WEIGHTS)
    for _ in range(steps):
        optimizer.apply_gradients([(tf.constant(GRADIENT), weights)])
    return weights.numpy()


def test_adagrad_starts_from_its_accumulator():
    # w - rate * g / sqrt(0.1 + g^2), the 0.1 being Keras's default.
    expected = WEIGHTS - RATE * GRADIENT / np.sqrt(0.1 + GRADIENT**2)
    np.testing.assert_allclose(
        _after(optimizers.build("adagrad", RATE)), expected, atol=1e-6
    )
    # From zero, as Duchi et al. write it, the first step is the rate itself: g / |g|.
    expected = WEIGHTS - RATE * np.sign(GRADIENT)
    optimizer = optimizers.build("adagrad", RATE, initial_accumulator=0.0)
    np.testing.assert_allclose(_after(optimizer), expected, atol=1e-6)


def test_sgd_carries_nine_tenths_of_its_speed():
    # Step 1 moves by rate * g, step 2 by rate * g + 0.9 of step 1: 2.9 in all.
    optimizer = optimizers.build("sgd", RATE)
    expected = WEIGHTS - 2.9 * RATE * GRADIENT
    np.testing.assert_allclose(_after(optimizer, steps=2), expected, atol=1e-6)


def test_adam_steps_by_the_rate():
    # Both moments are g's own after bias correction: g / sqrt(g^2) = sign(g).
    expected = WEIGHTS - RATE * np.sign(GRADIENT)
    optimizer = optimizers.build("adam", RATE)
    np.testing.assert_allclose(_after(optimizer), expected, atol=5e-6)


def test_adamw_shrinks_and_steps():
    expected = WEIGHTS * (1 - RATE * 0.2) - RATE * np.sign(GRADIENT)
    optimizer = optimizers.build("adamw", RATE, weight_decay=0.2)
    np.testing.assert_allclose(_after(optimizer), expected, atol=5e-6)


@pytest.mark.skipif("lamb" not in NAMES, reason="this Keras has no Lamb")
def test_lamb_steps_in_proportion_to_the_weights():
    # Adam's sign(g), of length sqrt(2), is stretched to |w| = sqrt(5).
    expected = WEIGHTS - RATE * np.sqrt(5 / 2) * np.sign(GRADIENT)
    optimizer = optimizers.build("lamb", RATE)
    np.testing.assert_allclose(_after(optimizer), expected, atol=5e-6)


@pytest.mark.skipif("lamb" in NAMES, reason="this Keras has Lamb")
def test_lamb_on_old_keras_points_at_addons():
    with pytest.raises(ValueError, match="addons.LAMB"):
        optimizers.build("lamb", RATE)


@pytest.mark.parametrize("name", NAMES)
def test_decay_spares_biases(name):
    # With no gradient only the decay is left: w * (1 - rate * decay).
    layer = keras.layers.Dense(2, use_bias=True, bias_initializer="ones")
    layer.build((None, 3))
    kernel = layer.kernel.numpy()
    optimizer = optimizers.build(name, RATE, weight_decay=0.2)
    variables = layer.trainable_variables
    optimizer.apply_gradients([(tf.zeros(v.shape), v) for v in variables])
    np.testing.assert_allclose(layer.kernel.numpy(), kernel * 0.98, atol=1e-6)
    np.testing.assert_array_equal(layer.bias.numpy(), [1, 1])


def test_a_schedule_is_followed():
    # 0.1 for step 0, 0.01 for step 1; the speed of step 1 carries 0.9 of step 0's.
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.01])
    optimizer = optimizers.build("sgd", schedule)
    expected = WEIGHTS - (0.1 + 0.09 + 0.01) * GRADIENT
    np.testing.assert_allclose(_after(optimizer, steps=2), expected, atol=1e-6)


def _replicated_step(name, strategy):
    with strategy.scope():
        weights = tf.Variable(WEIGHTS)
        optimizer = optimizers.build(name, RATE)
        optimizers.create_state(optimizer, [weights])

    @tf.function
    def step():
        strategy.run(
            lambda: optimizer.apply_gradients([(tf.constant(GRADIENT), weights)])
        )

    step()
    return weights.numpy()


def test_replicas_sum_their_gradients(mirrored):
    np.testing.assert_allclose(
        _replicated_step("sgd", mirrored), WEIGHTS - RATE * 2 * GRADIENT, atol=1e-6
    )


def _resumed(name, directory):
    """One step, a checkpoint, and a second step by a new optimizer that restores it."""
    weights, optimizer = tf.Variable(WEIGHTS), optimizers.build(name, RATE)
    optimizer.apply_gradients([(tf.constant(GRADIENT), weights)])
    saved = tf.train.Checkpoint(weights=weights, optimizer=optimizer)
    path = saved.write(str(directory / "checkpoint"))
    weights, optimizer = tf.Variable([0.0, 0.0]), optimizers.build(name, RATE)
    tf.train.Checkpoint(weights=weights, optimizer=optimizer).restore(path)
    optimizer.apply_gradients([(tf.constant(GRADIENT), weights)])
    return weights.numpy()


@pytest.mark.parametrize("name", NAMES)
def test_resumes_from_a_checkpoint(name, tmp_path):
    np.testing.assert_array_equal(
        _resumed(name, tmp_path), _after(optimizers.build(name, RATE), steps=2)
    )


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="adagard.*adagrad, sgd, adam.*addons.LAMB"):
        optimizers.build("adagard", RATE)


def test_addons_where_missing_says_how_to_get_them(monkeypatch):
    # None in sys.modules makes an import fail as if nothing were installed.
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    with pytest.raises(ValueError) as error:
        optimizers.build("addons.LAMB", RATE)
    for words in ("Python 3.10 and 3.11", "TensorFlow 2.15", "'.[addons]'", "lamb"):
        assert words in str(error.value)


@pytest.mark.parametrize("name", ["addons.LAMB", "addons.RectifiedAdam"])
def test_addons_reduce_a_quadratic(addons, name):
    # |w|^2 / 2, whose gradient is w. Fifty small steps go a good part of the way down.
    weights, optimizer = tf.Variable(WEIGHTS), optimizers.build(name, 0.05)
    losses = []
    for _ in range(50):
        losses.append(float(tf.reduce_sum(weights**2) / 2))
        optimizer.apply_gradients([(tf.identity(weights), weights)])
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("name", ["addons.LAMB", "addons.AdamW"])
def test_addons_resume_and_run_on_replicas(addons, name, tmp_path, mirrored):
    twice = _after(optimizers.build(name, RATE), steps=2)
    np.testing.assert_array_equal(_resumed(name, tmp_path), twice)
    # Adam's first step does not depend on the gradient's size: the sum steps alike.
    once = _after(optimizers.build(name, RATE))
    np.testing.assert_allclose(_replicated_step(name, mirrored), once, atol=5e-6)


@pytest.mark.parametrize("name", ["AdamW", "SGDW"])
def test_addons_decay_like_keras(addons, name):
    # No gradient, so only the decay is left, and it follows the schedule of the rate:
    # w * (1 - 0.1 * 0.2) * (1 - 0.05 * 0.2).
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.1, 0.05])
    layer = keras.layers.Dense(2, bias_initializer="ones")
    layer.build((None, 3))
    kernel, variables = layer.kernel.numpy(), layer.trainable_variables
    optimizer = optimizers.build(f"addons.{name}", schedule, weight_decay=0.2)
    for _ in range(2):
        optimizer.apply_gradients([(tf.zeros(v.shape), v) for v in variables])
    np.testing.assert_allclose(layer.kernel.numpy(), kernel * 0.98 * 0.99, atol=1e-6)
    np.testing.assert_array_equal(layer.bias.numpy(), [1, 1])


def test_addons_decay_with_a_constant_rate(addons):
    # Adam's step is sign(g); the decay takes 0.2 of the rate, as in test_adamw above.
    expected = WEIGHTS * (1 - RATE * 0.2) - RATE * np.sign(GRADIENT)
    optimizer = optimizers.build("addons.AdamW", RATE, weight_decay=0.2)
    np.testing.assert_allclose(_after(optimizer), expected, atol=5e-6)


def test_addons_refuse_what_a_rate_does_not_make(addons):
    with pytest.raises(ValueError, match="Lookahead.*choose one of AdaBelief, AdamW"):
        optimizers.build("addons.Lookahead", RATE)
    with pytest.raises(ValueError, match="Yogi has no weight decay, and 0.2"):
        optimizers.build("addons.Yogi", RATE, weight_decay=0.2)


@pytest.mark.parametrize("decay", [0.0, 0.2])
@pytest.mark.parametrize("name", ["LAMB", "RectifiedAdam", "AdaBelief", "NovoGrad"])
def test_addons_step_downhill(addons, name, decay):
    optimizer = optimizers.build(f"addons.{name}", 0.01, weight_decay=decay)
    assert np.sum(_after(optimizer) * GRADIENT) < np.sum(WEIGHTS * GRADIENT)


@pytest.mark.parametrize("name", ["LazyAdam", "Yogi", "ProximalAdagrad"])
def test_addons_without_decay_step_downhill(addons, name):
    optimizer = optimizers.build(f"addons.{name}", 0.01)
    assert np.sum(_after(optimizer) * GRADIENT) < np.sum(WEIGHTS * GRADIENT)
