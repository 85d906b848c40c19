"""The resampler against NumPy written here, and what every crop must keep to."""

import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import geometry, sampling
from deeppose_tf.export.saved_model import cropping

SIDE = 24
HEIGHT, WIDTH = 61, 90  # Odd and even, so that levels round up on one axis.


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def crop(images, boxes, side=SIDE, indices=None, levels=sampling.LEVELS):
    boxes = np.asarray(boxes, np.float32)
    indices = np.zeros(len(boxes), np.int32) if indices is None else indices
    return sampling.crop(sampling.pyramid(images, levels), boxes, indices, side)


def warp(images, maps, side=SIDE):
    maps = np.asarray(maps, np.float32)
    indices = np.zeros(len(maps), np.int32)
    return sampling.warp(sampling.pyramid(images), maps, indices, side)


def halved(level):
    """Means over 2 x 2 pixels, of those that exist at an odd border."""
    height, width = ((n + 1) // 2 for n in level.shape[:2])
    return np.array(
        [
            [
                level[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].mean((0, 1))
                for j in range(width)
            ]
            for i in range(height)
        ]
    )


def bilinear(level, x, y):
    """Samples at points in pixels from the corner; zero outside."""
    x, y = x - 0.5, y - 0.5
    total = np.zeros((*x.shape, 3))
    for i in (np.floor(y).astype(int), np.floor(y).astype(int) + 1):
        for j in (np.floor(x).astype(int), np.floor(x).astype(int) + 1):
            inside = (i >= 0) & (i < len(level)) & (j >= 0) & (j < level.shape[1])
            weight = inside * (1 - np.abs(y - i)) * (1 - np.abs(x - j))
            pixel = level[i.clip(0, len(level) - 1), j.clip(0, level.shape[1] - 1)]
            total += weight[..., None] * pixel
    return total


def reference(image, matrix, side=SIDE):
    """One crop in float64: two levels of the pyramid, mixed by log2 of the scale."""
    u, v = np.meshgrid(np.arange(side) + 0.5, np.arange(side) + 0.5)
    x = matrix[0, 0] * u + matrix[0, 1] * v + matrix[0, 2]
    y = matrix[1, 0] * u + matrix[1, 1] * v + matrix[1, 2]
    scale = math.sqrt(abs(np.linalg.det(matrix[:, :2])))
    level = math.log2(max(scale, 1))
    levels = [image / 128.0 - 1]
    for _ in range(math.floor(level) + 1):
        levels.append(halved(levels[-1]))
    below, share = math.floor(level), level % 1
    low, high = (bilinear(levels[i], x / 2**i, y / 2**i) for i in (below, below + 1))
    return (1 - share) * low + share * high


def box_matrix(box, side=SIDE):
    x0, y0, x1, y1 = box
    return np.array([[(x1 - x0) / side, 0, x0], [0, (y1 - y0) / side, y0]], float)


def turned(degrees, scale_x, scale_y, center, side=SIDE):
    """Crops whose middle looks at `center`, turned and scaled (negative mirrors)."""
    angle = math.radians(degrees)
    rotation = [
        [math.cos(angle), -math.sin(angle)],
        [math.sin(angle), math.cos(angle)],
    ]
    linear = np.array(rotation) @ np.diag([scale_x, scale_y])
    start = np.array(center) - linear @ [side / 2, side / 2]
    return np.concatenate([linear, start[:, None]], axis=1)


BOXES = [
    [10, 12, 34, 36],  # as it is
    [10.3, 11.6, 34.3, 35.6],  # moved by a part of a pixel
    [20, 15, 29, 40],  # enlarged and narrow
    [-8.5, -20, 60, 33.3],  # over a corner
    [0, 0, WIDTH, HEIGHT],  # the whole image
    [-60, -10.7, 200, 150],  # shrunk beyond all borders
    [-300, -200, 400, 500],  # 26 times shrunk
    [50, 40, 20, 10],  # mirrored both ways
]


@pytest.mark.parametrize("box", BOXES)
def test_crop_against_numpy(box):
    image = noise(HEIGHT, WIDTH, 3)
    found = crop(image[None], [box])[0]
    np.testing.assert_allclose(found, reference(image, box_matrix(box)), atol=1e-4)


@pytest.mark.parametrize("degrees", [0, 17, 90, -135])
@pytest.mark.parametrize("scale", [(0.6, 0.6), (-1, 1.4), (2, 1.5), (5, 4.1)])
def test_warp_against_numpy(degrees, scale):
    image = noise(HEIGHT, WIDTH, 3)
    matrix = turned(degrees, *scale, (40, 25))
    found = warp(image[None], [matrix])[0]
    np.testing.assert_allclose(found, reference(image, matrix), atol=1e-4)


@pytest.mark.parametrize("levels", [1, 3, sampling.LEVELS])
def test_both_orders_of_a_warp_are_one(levels):
    """What a GPU is given, by XLA, of maps that are read from different levels: turned,
    mirrored, enlarged, shrunk, partly and wholly outside. Places in pixels are rounded
    otherwise, by some 4e-6."""
    images = noise(2, HEIGHT, WIDTH, 3)
    sizes = [0.6, 1, 1.4, 2, 3, 6]
    maps = [turned(17 * i, size, -size, (40, 25)) for i, size in enumerate(sizes)]
    maps += [box_matrix(box) for box in BOXES] + [box_matrix([500, 500, 560, 560])]
    maps = tf.constant(np.array(maps, np.float32))
    indices = tf.range(len(maps)) % 2

    @functools.partial(tf.function, jit_compile=True, autograph=False)
    def found():
        source = sampling.pyramid(images, levels, tf.float16)
        orders = False, True
        return [sampling.warp(source, maps, indices, SIDE, way) for way in orders]

    np.testing.assert_allclose(*found(), atol=1e-5)


def test_crop_is_a_warp_without_rotation():
    images = noise(1, HEIGHT, WIDTH, 3)
    maps = [box_matrix(box) for box in BOXES]
    np.testing.assert_allclose(crop(images, BOXES), warp(images, maps), atol=1e-4)


@pytest.mark.parametrize("height, width", [(61, 90), (7, 1), (1, 1)])
def test_matrix_products_alone_cut_the_same_crops(height, width):
    """Boxes within, beyond, mirrored, tiny, and larger than all levels; about one unit
    in the last place of values of 1."""
    image = noise(height, width, 3)
    boxes = [
        [10.5, 3.25, 40.75, 50.0],
        [-30, -20, 120, 100],
        [50, 40, 20, 10],
        [30, 30, 30.5, 30.25],
        [-2000, -1000, 3000, 5000],
        [500, 500, 600, 600],
        [-2, -1, 3, 3],
    ]
    source = cropping.levels(tf.constant(image))
    found = sampling.crop(source, tf.constant(boxes), None, SIDE)
    np.testing.assert_allclose(found, crop(image[None], boxes), rtol=0, atol=5e-7)
    assert np.abs(found[-1]).max() > 0.1


def test_a_crop_of_its_own_size_is_the_pixels():
    image = noise(HEIGHT, WIDTH, 3)
    found = crop(image[None], [[30, 7, 30 + SIDE, 7 + SIDE]])[0]
    pixels = image[7 : 7 + SIDE, 30 : 30 + SIDE].astype(np.float32) / 128 - 1
    np.testing.assert_array_equal(found, pixels)


def test_outside_the_image_is_padding():
    """Moved by whole pixels over the border: pixels there, exactly zero elsewhere."""
    image = noise(HEIGHT, WIDTH, 3)
    found = crop(image[None], [[-5, -3, SIDE - 5, SIDE - 3]])[0].numpy()
    inside = image[: SIDE - 3, : SIDE - 5].astype(np.float32) / 128 - 1
    np.testing.assert_array_equal(found[3:, 5:], inside)
    assert not found[:3].any() and not found[:, :5].any()
    grey = np.full((1, HEIGHT, WIDTH, 3), sampling.PADDING, np.uint8)
    assert not crop(grey, BOXES).numpy().any()


@pytest.mark.parametrize("far", [300, -300, 1e6, -1e6, 1e9, -3e9])
@pytest.mark.parametrize("size", [1, 30, 900])
def test_far_outside_there_is_nothing_but_padding(far, size):
    """Positions that fit no int32 must not come around to the other side."""
    x = far + np.sign(far) * size
    boxes = [[x, 10, x + size, 10 + size], [10, x, 10 + size, x + size]]
    white = np.full((1, HEIGHT, WIDTH, 3), 255, np.uint8)
    np.testing.assert_array_equal(crop(white, boxes), np.zeros((2, SIDE, SIDE, 3)))


def centroid(crops):
    """[M, S, S, 3] -> [M, 2] pixels of the crop: the middle of what is not grey."""
    mass = np.asarray(crops, np.float64)[..., 0]
    at = np.arange(mass.shape[1]) + 0.5
    x, y = (mass * at).sum((1, 2)), (mass * at[:, None]).sum((1, 2))
    return np.stack([x, y], -1) / mass.sum((1, 2))[:, None]


def dot(height, width, center, radius):
    """A soft white dot on grey: [1, H, W, 3] float32 in 0..255."""
    x, y = np.arange(width) + 0.5, np.arange(height)[:, None] + 0.5
    distance = ((x - center[0]) ** 2 + (y - center[1]) ** 2) / (2 * radius**2)
    image = 128 + 127 * np.exp(-distance)
    return np.repeat(image[None, :, :, None], 3, -1).astype(np.float32)


@pytest.mark.parametrize("shrink", [1, 1.5, 2, 3.7, 8])
@pytest.mark.parametrize("proportions", [1.0, 1.5, 0.6])
def test_a_dot_lands_at_its_joint(shrink, proportions):
    side, height, width = 32, 403, 333
    random = np.random.default_rng(3)
    joint = random.uniform([150, 180], [180, 220])
    stretch = np.array([proportions**0.5, proportions**-0.5])
    size = shrink * side * stretch
    corner = joint - size * random.uniform(0.4, 0.6, 2)
    box = np.concatenate([corner, corner + size]).astype(np.float32)
    found = centroid(crop(dot(height, width, joint, 2 * shrink), [box], side))[0]
    normalized = geometry.normalize(tf.constant(joint[None], tf.float32), box)[0]
    expected = (normalized.numpy() + 0.5) * side
    np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_resolution_of_a_photo_does_not_matter(factor):
    """A small photo is a large one averaged, so both must give the same crop."""
    large = noise(120 * factor, 88 * factor, 3).astype(np.float32)
    blocks = large.reshape(120, factor, 88, factor, 3)
    small = blocks.mean((1, 3))
    boxes = np.array([[-8, 3, 90, 66.6], [20, 30, 44, 54], [0, 0, 88, 120]])
    found = crop(large[None], boxes * factor)
    np.testing.assert_allclose(found, crop(small[None], boxes), atol=1e-4)


@pytest.mark.parametrize("shrink", [2, 3.3, 8, 13])
def test_a_checkerboard_becomes_grey(shrink):
    """Were pixels left out, the crop would be stripes of black and white."""
    board = np.indices((400, 420)).sum(0) % 2 * 255
    images = np.repeat(board[None, :, :, None], 3, -1).astype(np.uint8)
    corner = np.array([40.3, 20.6])
    boxes = [[*corner, *(corner + shrink * SIDE)]]
    found = crop(images, boxes)
    np.testing.assert_allclose(found, np.full_like(found, 127.5 / 128 - 1), atol=1e-5)


def test_a_crop_larger_than_all_levels_is_still_answered():
    white = np.full((1, HEIGHT, WIDTH, 3), 255, np.uint8)
    found = crop(white, [[-1e5, -1e5, 1e5, 1e5], [-4e3, -4e3, 4e3, 4e3]]).numpy()
    assert np.isfinite(found).all() and np.abs(found).max() <= 1


def everything(images, boxes, indices):
    source = sampling.pyramid(images)
    corners, size = boxes[:, 2:], boxes[:, :2] - boxes[:, 2:]
    maps = tf.concat([tf.linalg.diag(size / SIDE), corners[:, :, None]], axis=-1)
    cropped = sampling.crop(source, boxes, indices, SIDE)
    return tf.stack([cropped, sampling.warp(source, maps, indices, SIDE)])


SIGNATURE = [
    tf.TensorSpec([None, None, None, 3], tf.uint8),
    tf.TensorSpec([None, 4], tf.float32),
    tf.TensorSpec([None], tf.int32),
]


def only_warps(images, boxes, indices):
    return everything(images, boxes, indices)[1]


# What `crop` copies is known at run time only, which XLA cannot compile.
@pytest.mark.parametrize(
    "function, jit_compile", [(everything, False), (only_warps, True)]
)
def test_eager_equals_graph_and_xla_for_unknown_sizes(function, jit_compile):
    compiled = tf.function(function, SIGNATURE, jit_compile=jit_compile)
    for height, width in ((HEIGHT, WIDTH), (17, 31)):
        images = tf.constant(noise(2, height, width, 3))
        boxes = tf.constant(BOXES, tf.float32)
        indices = tf.constant([0, 1] * 4)
        found = compiled(images, boxes, indices)
        direct = function(images, boxes, indices)
        np.testing.assert_allclose(found, direct, atol=1e-5)


def test_in_a_dataset_as_directly():
    images, boxes = noise(1, HEIGHT, WIDTH, 3), tf.constant(BOXES, tf.float32)
    dataset = tf.data.Dataset.from_tensors(images)
    dataset = dataset.map(lambda image: crop_all(image, boxes))
    (found,) = dataset.as_numpy_iterator()
    np.testing.assert_allclose(found, crop(images, BOXES), atol=1e-6)


def crop_all(images, boxes):
    indices = tf.zeros(len(BOXES), tf.int32)
    return sampling.crop(sampling.pyramid(images), boxes, indices, SIDE)


def test_a_batch_equals_single_images():
    images, indices = noise(3, HEIGHT, WIDTH, 3), [0, 2, 1, 1, 0, 2, 2, 0]
    together = crop(images, BOXES, indices=indices)
    for i, (box, index) in enumerate(zip(BOXES, indices, strict=True)):
        alone = crop(images[index : index + 1], [box])[0]
        # The largest box of a batch decides in which order products are summed.
        np.testing.assert_allclose(together[i], alone, atol=1e-6)


def test_levels_that_no_crop_reaches_change_nothing():
    images = noise(1, HEIGHT, WIDTH, 3)
    boxes = [[3.3, 2, 60, 55], [1, 2, 12, 13]]  # shrunk 2.3 times at most
    for levels in (3, 4):
        found = crop(images, boxes, levels=levels)
        np.testing.assert_array_equal(found, crop(images, boxes))
    enlarged = crop(images, boxes[1:], levels=1)
    np.testing.assert_array_equal(enlarged, crop(images, boxes[1:]))


def test_bytes_and_floats_are_the_same_image():
    images = noise(1, HEIGHT, WIDTH, 3)
    floats = images.astype(np.float32)
    np.testing.assert_array_equal(crop(images, BOXES), crop(floats, BOXES))
    ends = sampling.preprocess(np.array([0, 128, 255], np.uint8))
    np.testing.assert_array_equal(ends, [-1, 0, 127 / 128])


def test_no_people_give_no_crops():
    assert crop(noise(1, 9, 9, 3), np.zeros((0, 4))).shape == (0, SIDE, SIDE, 3)


def projective(matrix):
    """Our map as the 8 numbers of TensorFlow's op, which counts from pixel centres."""
    linear, start = matrix[:, :2], matrix[:, 2]
    start = start + linear @ [0.5, 0.5] - 0.5
    return np.float32([*linear[0], start[0], *linear[1], start[1], 0, 0])


def transformed_by_tensorflow(images, transforms):
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=[SIDE, SIDE],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def transformed_by_addons(images, transforms):
    addons = pytest.importorskip("tensorflow_addons")
    return addons.image.transform(
        images,
        transforms,
        interpolation="bilinear",
        fill_mode="constant",
        output_shape=[SIDE, SIDE],
        fill_value=0.0,
    )


@pytest.mark.parametrize("other", [transformed_by_tensorflow, transformed_by_addons])
@pytest.mark.parametrize("degrees", [0, 30, 90, -163])
def test_parity_with_image_transform(other, degrees):
    """Where nothing shrinks, a bilinear transform with fill 0 is the same thing."""
    images = noise(1, HEIGHT, WIDTH, 3)
    matrices = [
        turned(degrees, 1, 1, (45, 30)),
        turned(degrees, 0.4, 0.7, (44.7, 20.2)),
        turned(degrees, -0.9, 0.9, (10, 55)),  # mirrored, over the border
    ]
    expected = other(
        sampling.preprocess(images).numpy().repeat(3, 0),
        tf.constant([projective(matrix) for matrix in matrices]),
    )
    np.testing.assert_allclose(warp(images, matrices), expected, atol=1e-4)
