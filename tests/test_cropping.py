"""TensorFlow's own kernel against the one resampler."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import sampling
from deeppose_tf.export.saved_model import cropping

SIDE = 32


@pytest.fixture(scope="module")
def both():
    """Crops of boxes [M, 4] of one size, in both ways."""

    def crops(images, boxes):
        indices = tf.zeros([tf.shape(boxes)[0]], tf.int32)
        found = sampling.crop(cropping.framed(images), boxes, indices, SIDE)
        expected = sampling.crop(sampling.pyramid(images), boxes, indices, SIDE)
        return found, expected

    return tf.function(
        crops,
        input_signature=[
            tf.TensorSpec([1, None, None, 3], tf.uint8),
            tf.TensorSpec([None, 4], tf.float32),
        ],
        autograph=False,
    )


def noise(height, width):
    chance = np.random.default_rng(height + width)
    return chance.integers(0, 256, (1, height, width, 3), np.uint8)


def near(found, expected, places=1e-4):
    """As near as crops whose places differ by so many pixels of noise, from 0 to 255.

    Places are float32 of several hundred pixels, whose last digit is 3e-5.
    """
    assert np.abs(found - expected).max() < 255 / sampling.PADDING * 2 * places


# From no shrinking over every level, and between two, to more than there are levels.
SCALES = [0.3, 1, 1.5, 2, 2.9, 4, 6, 8, 23, 64, 200]


@pytest.mark.parametrize("size", [(97, 61), (96, 64)])
@pytest.mark.parametrize("scale", SCALES)
def test_every_level(both, size, scale):
    """Boxes within the image, across its edges, and around all of it."""
    low = np.random.default_rng(0).uniform(-0.8, 0.8, (4, 2)) * size[::-1]
    boxes = np.concatenate([low, low + SIDE * scale], axis=1)
    near(*both(noise(*size), boxes.astype(np.float32)))


@pytest.mark.parametrize("size", [(97, 61), (61, 96), (96, 64), (1, 1), (2, 3)])
def test_levels_are_averages_of_four_to_the_bit(size):
    image = noise(*size)
    expected = image.astype(np.float64)
    for level in cropping.framed(tf.constant(image), count=3).images:
        np.testing.assert_array_equal(level[:, 1:-1, 1:-1], expected)
        odd = np.array(expected.shape[1:3]) % 2
        even = np.pad(expected, [(0, 0), (0, odd[0]), (0, odd[1]), (0, 0)], "edge")
        rows = even[:, ::2] + even[:, 1::2]
        expected = (rows[:, :, ::2] + rows[:, :, 1::2]) / 4


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_smallest_images(both, size):
    height, width = size
    near(*both(noise(*size), np.float32([[0, 0, width, height]])))
    near(*both(noise(*size), np.float32([[-3, -2, 5, 6]])))


def test_a_box_of_unequal_sides(both):
    near(*both(noise(300, 200), np.float32([[10, 150, 190, 170], [5, 20, 185, 40]])))


@pytest.mark.parametrize("scale", [1, 1000])
def test_outside_is_grey(both, scale):
    """Zero after pre-processing, as in training."""
    box = np.float32([[900, 900, 940, 950]]) * scale
    found, expected = both(noise(50, 50), box)
    np.testing.assert_array_equal(found, np.zeros([1, SIDE, SIDE, 3]))
    np.testing.assert_array_equal(expected, np.zeros([1, SIDE, SIDE, 3]))


def test_a_box_of_no_size(both):
    """What a pose of which all joints fell together asks for."""
    near(*both(noise(50, 50), np.float32([[20, 30, 20, 30]] * 2)))


def test_crops_of_several_people_to_the_bit():
    """Images of three sizes, scales that read from one level and from two."""
    images = [noise(97, 61)[0], noise(8, 200)[0], noise(300, 310)[0]]
    low = np.random.default_rng(0).uniform(-20, 40, (3, 2, 2))
    sizes = SIDE * np.array([0.7, 4, 6])[:, None, None]
    boxes = np.concatenate([low, low + sizes], axis=2).astype(np.float32)

    def look(person):
        one = functools.partial(tf.constant, dtype=tf.uint8)
        branches = [functools.partial(one, image) for image in images]
        return tf.switch_case(person, branches), tf.constant(boxes)[person, 0]

    @tf.function(autograph=False)
    def together():
        source, sizes, first = cropping.several(look, tf.constant(3))
        source, flat = source._replace(boxes=2), tf.reshape(boxes, [-1, 4])
        return sampling.crop(source, flat, tf.zeros([1]), SIDE), sizes, first

    found, sizes, first = together()
    np.testing.assert_array_equal(sizes, [image.shape[:2] for image in images])
    np.testing.assert_array_equal(first, boxes[:, 0])
    for person, image in enumerate(images):
        source = cropping.framed(tf.constant(image[None]))
        alone = sampling.crop(source, boxes[person], tf.zeros([1]), SIDE)
        np.testing.assert_array_equal(found[2 * person : 2 * person + 2], alone)
