"""Losses worked out by hand and with NumPy; unlabeled joints count for nothing."""

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import losses
from deeppose_tf.config import LOSSES

M, K = 4, 5


@pytest.fixture
def random():
    return np.random.default_rng(11)


def normalized(random, *shape):
    return random.uniform(-0.5, 0.5, shape).astype(np.float32)


def test_pose_loss_by_hand():
    """Joint 1 is off by (3, 4), joint 2 by (1, -2) but without a label."""
    predicted = tf.constant([[[3.0, 4], [1, -2], [7, 7]]])
    target = tf.constant([[[0.0, 0], [0, 0], [7, 7]]])
    for weight, squared, absolute in (
        ([1.0, 0, 1], 25, 7),
        ([1.0, 1, 1], 30, 10),
        ([0.0, 0, 0], 0, 0),
    ):
        l2 = losses.pose_loss(predicted, target, [weight])
        l1 = losses.pose_loss(predicted, target, [weight], "l1")
        np.testing.assert_allclose([l2[0], l1[0]], [squared, absolute], rtol=1e-6)


def test_pose_loss_is_a_sum_per_example(random):
    predicted, target = normalized(random, M, K, 2), normalized(random, M, K, 2)
    weight = (random.random((M, K)) < 0.6).astype(np.float32)
    together = losses.pose_loss(predicted, target, weight)
    reference = (((predicted - target) ** 2).sum(-1) * weight).sum(-1)
    np.testing.assert_allclose(together, reference, rtol=1e-5)
    for i in range(M):
        row = slice(i, i + 1)
        alone = losses.pose_loss(predicted[row], target[row], weight[row])
        np.testing.assert_allclose(alone[0], together[i], rtol=1e-6)


def test_reduced_precision_is_left_before_the_difference():
    """bfloat16 knows no number between 0.5 and 0.50390625; the loss has to."""
    predicted = tf.constant([[[0.5, 0.5]]], tf.bfloat16)
    loss = losses.pose_loss(predicted, tf.constant([[[0.501, 0.5]]]), [[1.0]])
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, [1e-6], rtol=1e-3)


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match="'huber' is none of l2, l1"):
        losses.pose_loss(tf.zeros([1, 1, 2]), tf.zeros([1, 1, 2]), [[1.0]], "huber")


def gradient(loss, variable):
    with tf.GradientTape() as tape:
        tape.watch(variable)
        value = loss(variable)
    return tape.gradient(value, variable).numpy()


@pytest.mark.parametrize("kind", LOSSES)
def test_unlabeled_joints_have_no_gradient(random, kind):
    target, weight = normalized(random, M, K, 2), np.ones((M, K), np.float32)
    weight[0, 2], weight[3] = 0, 0
    predicted = tf.constant(normalized(random, M, K, 2))
    found = gradient(lambda p: losses.pose_loss(p, target, weight, kind), predicted)
    difference = predicted.numpy() - target
    reference = 2 * difference if kind == "l2" else np.sign(difference)
    np.testing.assert_allclose(found, reference * weight[..., None], rtol=1e-5)


def grid(side):
    """[P, 2]: the middles of a map of side x side places over a crop."""
    middles = (np.arange(side) + 0.5) / side - 0.5
    return np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2).astype(np.float32)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def test_map_loss_against_numpy(random):
    places, target = grid(8), normalized(random, M, K, 2).astype(np.float64)
    logits = random.normal(0, 2, (M, K, 64))
    weight = (random.random((M, K)) < 0.6).astype(np.float32)
    distance = ((places - target[:, :, None]) ** 2).sum(-1)
    wanted = softmax(-distance / (2 * (0.5 / 8) ** 2))
    reference = -(weight * (wanted * np.log(softmax(logits))).sum(-1)).sum(-1)
    found = losses.map_loss(
        tf.constant(logits, tf.float32), places, tf.constant(target, tf.float32), weight
    )
    np.testing.assert_allclose(found, reference, rtol=1e-4)


def test_map_loss_is_least_where_the_map_is_the_blob(random):
    """Its gradient by the logits is softmax(logits) - blob: zero there alone."""
    places, target = grid(8), tf.constant(normalized(random, M, K, 2))
    weight = np.ones((M, K), np.float32)
    distance = tf.reduce_sum((places - target[:, :, None]) ** 2, -1)
    best = -distance / (2 * (0.5 / 8) ** 2)
    slope = gradient(lambda x: losses.map_loss(x, places, target, weight), best)
    np.testing.assert_allclose(slope, np.zeros_like(slope), atol=1e-6)
    least = losses.map_loss(best, places, target, weight).numpy()
    for _ in range(5):
        other = best + random.normal(0, 1, best.shape).astype(np.float32)
        assert (losses.map_loss(other, places, target, weight) > least).numpy().all()


@pytest.mark.parametrize("far", [1, 30])
def test_a_joint_outside_the_map_is_drawn_to_the_nearest_place(far):
    """A map of 8 x 8; the joint lies to the right, at the height of row 2."""
    places, weight = grid(8), np.ones((1, 1), np.float32)
    row = places[2 * 8, 1]
    target = tf.constant([[[far, row]]], tf.float32)
    logits = tf.zeros([1, 1, 64])
    slope = gradient(lambda x: losses.map_loss(x, places, target, weight), logits)
    assert np.isfinite(slope).all()
    assert slope[0, 0].argmin() == 2 * 8 + 7


def test_maps_of_unlabeled_joints_have_no_gradient(random):
    places, target = grid(4), normalized(random, M, K, 2)
    weight = np.ones((M, K), np.float32)
    weight[1, 3], weight[2] = 0, 0
    logits = tf.constant(random.normal(0, 2, (M, K, 16)), tf.float32)
    slope = gradient(lambda x: losses.map_loss(x, places, target, weight), logits)
    silent = ~slope.any(-1)
    np.testing.assert_array_equal(silent, weight == 0)
