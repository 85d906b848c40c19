"""Boxes, N(y; b), the diameter and its floors, mirroring; NumPy is the reference."""

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import geometry
from deeppose_tf.datasets import lsp
from deeppose_tf.skeleton import LSP, Skeleton

LEFT_SHOULDER, RIGHT_SHOULDER, LEFT_HIP, RIGHT_HIP = 9, 8, 3, 2
WIDTH, HEIGHT = 640.0, 480.0


@pytest.fixture
def random():
    return np.random.default_rng(7)


def poses(random, people=5):
    """Keypoints [B, 14, 2] on and around an image wider than high."""
    return random.uniform(-50, [WIDTH + 50, HEIGHT + 50], (people, 14, 2))


def random_boxes(random, *shape):
    """Boxes of both proportions, partly outside the image."""
    corner = random.uniform(-100, 400, (*shape, 2))
    return np.concatenate([corner, corner + random.uniform(5, 300, (*shape, 2))], -1)


def single(x):
    return tf.constant(x, tf.float32)


def eager_and_compiled(function, *arguments):
    """The results of a function called directly, as a graph and through XLA."""
    results = [
        function(*arguments),
        tf.function(function)(*arguments),
        tf.function(function, jit_compile=True)(*arguments),
    ]
    for other in results[1:]:
        np.testing.assert_allclose(other, results[0], rtol=1e-6, atol=1e-6)
    return results[0].numpy()


def test_a_box_spans_minus_to_plus_one_half():
    # [10, 20, 50, 40] is 40 wide and 20 high about (30, 30).
    points = single([[10, 20], [50, 40], [30, 30], [70, 25]])
    expected = [[-0.5, -0.5], [0.5, 0.5], [0, 0], [1.0, -0.25]]
    found = geometry.normalize(points, single([10, 20, 50, 40]))
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_normalize_and_back(random):
    keypoints, boxes = single(poses(random)), single(random_boxes(random, 5))
    normalized = geometry.normalize(keypoints, boxes)
    center = (boxes.numpy()[:, :2] + boxes.numpy()[:, 2:]) / 2
    size = boxes.numpy()[:, 2:] - boxes.numpy()[:, :2]
    reference = (keypoints.numpy() - center[:, None]) / size[:, None]
    np.testing.assert_allclose(normalized, reference, rtol=1e-5, atol=1e-5)
    back = geometry.denormalize(normalized, boxes)
    np.testing.assert_allclose(back, keypoints, atol=1e-4)


def test_normalize_takes_a_box_per_joint(random):
    keypoints, boxes = single(poses(random)), single(random_boxes(random, 5, 14))
    each = geometry.normalize(keypoints[:, :, None], boxes)[:, :, 0]
    for k in range(14):
        one = geometry.normalize(keypoints[:, k : k + 1], boxes[:, k])[:, 0]
        np.testing.assert_allclose(each[:, k], one, rtol=1e-6)


def test_boxes_from_centers(random):
    boxes = single(random_boxes(random, 3, 4))
    center, size = geometry.box_center(boxes), geometry.box_size(boxes)
    np.testing.assert_allclose(geometry.box_from_center(center, size), boxes, atol=1e-4)


def test_only_boxes_of_zeros_mean_the_whole_image():
    boxes = single([[0, 0, 0, 0], [0, 0, 0, 7], [1, 2, 3, 4], [0, 0, 0, 0]])
    sizes = tf.constant([[480, 640], [480, 640], [480, 640], [100, 50]])  # h, w
    expected = [[0, 0, 640, 480], [0, 0, 0, 7], [1, 2, 3, 4], [0, 0, 50, 100]]
    found = eager_and_compiled(geometry.whole_image_boxes, boxes, sizes)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("margin", "square", "expected"),
    [
        # 40 x 20 about (30, 30).
        (0.0, False, [10, 20, 50, 40]),
        (0.5, False, [0, 15, 60, 45]),  # 60 x 30
        (0.0, True, [10, 10, 50, 50]),  # 40 x 40
        (0.5, True, [0, 0, 60, 60]),  # 60 x 60
    ],
)
def test_first_boxes(margin, square, expected):
    for turn in ([0, 1, 2, 3], [1, 0, 3, 2]):  # Wider than high, and the reverse.
        boxes = single([[10, 20, 50, 40]])
        found = geometry.first_boxes(tf.gather(boxes, turn, axis=1), margin, square)
        np.testing.assert_allclose(found[0], np.take(expected, turn), atol=1e-5)


def diameter(keypoints, labeled, skeleton=LSP):
    """The rule again, one person at a time."""
    found = np.zeros(len(keypoints))
    for i, (points, known) in enumerate(zip(keypoints, labeled, strict=True)):
        if known.sum() < 2:
            continue
        extent = np.ptp(points[known], axis=0).max()
        found[i] = geometry.TYPICAL_DIAMETER * extent
        for shoulder, hip in skeleton.diagonals:
            if known[shoulder] and known[hip]:
                found[i] = np.hypot(*(points[shoulder] - points[hip]))
                break
        found[i] = max(found[i], geometry.SMALLEST_DIAMETER * extent)
    return found


def test_diameter_is_the_first_diagonal_with_both_ends():
    """A pose 100 px high whose diagonals are 50 (30, 40) and 39 (15, 36) px long."""
    keypoints = np.zeros((1, 14, 2))
    keypoints[0, 13] = [0, 100]
    keypoints[0, [LEFT_SHOULDER, RIGHT_HIP]] = [[30, 40], [0, 0]]
    keypoints[0, [RIGHT_SHOULDER, LEFT_HIP]] = [[15, 36], [0, 0]]
    for missing, expected in (
        ([], 50),
        ([RIGHT_HIP], 39),
        ([LEFT_SHOULDER], 39),
        ([LEFT_HIP], 50),
        ([RIGHT_HIP, LEFT_HIP], 36),  # 0.36 of the extent of 100 px
        ([LEFT_SHOULDER, LEFT_HIP], 36),
    ):
        labeled = np.ones((1, 14), bool)
        labeled[0, missing] = False
        found = geometry.pose_diameter(single(keypoints), labeled, LSP)
        np.testing.assert_allclose(found, [expected], rtol=1e-6)


def test_a_collapsed_torso_gets_a_share_of_the_extent():
    """Seen end-on: the diagonal is 3 px, the pose 200 px wide and 100 px high."""
    keypoints = np.zeros((1, 14, 2))
    keypoints[0, 0], keypoints[0, 1] = [200, 0], [0, 100]
    keypoints[0, RIGHT_HIP] = [0, 3]
    found = geometry.pose_diameter(single(keypoints), np.ones((1, 14), bool), LSP)
    np.testing.assert_allclose(found, [0.2 * 200], rtol=1e-6)


def test_diameter_against_numpy_whatever_is_labeled(random):
    keypoints = poses(random, 300)
    labeled = random.random((300, 14)) < random.random((300, 1))
    found = eager_and_compiled(
        lambda k, m: geometry.pose_diameter(k, m, LSP), single(keypoints), labeled
    )
    few = labeled.sum(1) < 2
    assert few.any() and not few.all()
    np.testing.assert_array_equal(found[few], 0)
    assert (found[~few] > 0).all()
    np.testing.assert_allclose(found, diameter(keypoints, labeled), rtol=1e-5)


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 3e38, -1])
def test_what_is_not_labeled_does_not_count(random, garbage):
    keypoints, labeled = poses(random, 50), random.random((50, 14)) < 0.6
    labeled[0] = False
    clean = geometry.pose_diameter(single(keypoints), labeled, LSP)
    keypoints[~labeled] = garbage
    spoilt = geometry.pose_diameter(single(keypoints), labeled, LSP)
    np.testing.assert_array_equal(spoilt, clean)


def test_diameter_scales_with_the_picture(random):
    keypoints, labeled = single(poses(random)), random.random((5, 14)) < 0.7
    once = geometry.pose_diameter(keypoints, labeled, LSP)
    twice = geometry.pose_diameter(2 * keypoints, labeled, LSP)
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-6)


def test_a_skeleton_without_diagonals_has_a_diameter():
    hand = Skeleton("hand", ("thumb", "wrist"), (), (), ())
    keypoints = single([[[0, 0], [10, 50]]])
    found = geometry.pose_diameter(keypoints, np.ones((1, 2), bool), hand)
    np.testing.assert_allclose(found, [0.36 * 50], rtol=1e-6)


def test_the_diameters_of_lsp(shared_data):
    """What the two shares were taken from: see the constants' comment."""
    people = lsp.read_splits(str(shared_data / "lsp"))["train"]
    raw = np.linalg.norm(
        people.keypoints[:, LEFT_SHOULDER] - people.keypoints[:, RIGHT_HIP], axis=-1
    )
    extent = np.ptp(people.keypoints, axis=1).max(-1)
    assert raw.min() < 8  # Without a floor the crop would be of 16 px.
    assert np.median(raw / extent) == pytest.approx(
        geometry.TYPICAL_DIAMETER, abs=0.005
    )
    found = geometry.pose_diameter(
        single(people.keypoints), people.labeled, LSP
    ).numpy()
    raised = found > raw * 1.001
    assert 0 < raised.mean() < 0.01
    np.testing.assert_allclose(found[~raised], raw[~raised], rtol=1e-5)
    np.testing.assert_allclose(found[raised], 0.2 * extent[raised], rtol=1e-5)
    assert found.min() > 25


def test_everyone_in_lspet_has_a_diameter(shared_data):
    people = lsp.read_extended(str(shared_data / "lspet"))["train"]
    first = people.labeled[:, LEFT_SHOULDER] & people.labeled[:, RIGHT_HIP]
    second = people.labeled[:, RIGHT_SHOULDER] & people.labeled[:, LEFT_HIP]
    assert 0.2 < 1 - first.mean() < 0.35  # More than a quarter needs the fallback,
    assert (~first & second).any() and (~first & ~second).any()  # in both kinds.
    found = geometry.pose_diameter(single(people.keypoints), people.labeled, LSP)
    expected = diameter(people.keypoints, people.labeled)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert found.numpy().min() > 5


def test_joint_boxes_are_squares_about_the_joints(random):
    keypoints, diameters = poses(random), np.array([10, 20, 30.5, 1e-3, 400])
    sides = np.broadcast_to(1.5 * diameters[:, None, None], keypoints.shape)
    expected = np.concatenate([keypoints - sides / 2, keypoints + sides / 2], -1)
    found = eager_and_compiled(
        lambda k, d: geometry.joint_boxes(k, d, 1.5),
        single(keypoints),
        single(diameters),
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-3)
    middles = geometry.normalize(single(keypoints)[:, :, None], found)
    np.testing.assert_allclose(middles, np.zeros((5, 14, 1, 2)), atol=1e-3)


def test_mirroring_exchanges_left_and_right_only(random):
    keypoints, labeled = poses(random), random.random((5, 14)) < 0.5
    names = list(LSP.joints)
    swapped = [
        name.replace("left", "?").replace("right", "left").replace("?", "right")
        for name in names
    ]
    order = [names.index(name) for name in swapped]
    assert order != list(range(14))
    for values in (keypoints, labeled):
        mirrored = geometry.mirror_joints(tf.constant(values), LSP)
        np.testing.assert_array_equal(mirrored, values[:, order])
        np.testing.assert_array_equal(geometry.mirror_joints(mirrored, LSP), values)
    last = geometry.mirror_joints(tf.constant(keypoints[:, None]), LSP, axis=2)
    np.testing.assert_array_equal(last[:, 0], keypoints[:, order])


def test_flipping_a_picture_twice_changes_nothing(random):
    """x -> W - x with joints exchanged; N(y; b) of the flipped box is minus x."""
    keypoints, boxes = single(poses(random)), single(random_boxes(random, 5))
    flipped = keypoints * [-1, 1] + [WIDTH, 0]
    x0, y0, x1, y1 = tf.unstack(boxes, axis=-1)
    flipped_boxes = tf.stack([WIDTH - x1, y0, WIDTH - x0, y1], -1)
    normalized = geometry.normalize(keypoints, boxes)
    mirrored = geometry.normalize(flipped, flipped_boxes)
    np.testing.assert_allclose(mirrored, normalized * [-1, 1], atol=1e-4)
    np.testing.assert_allclose(flipped * [-1, 1] + [WIDTH, 0], keypoints, atol=1e-4)
