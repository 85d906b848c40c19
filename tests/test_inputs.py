"""Canvases are whole pixels of the image; an epoch is everyone once, the same again."""

import dataclasses
import itertools

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import sampling
from deeppose_tf.datasets import Annotations, images
from deeppose_tf.pipelines.data import augment, inputs, records
from deeppose_tf.pipelines.data.config import InputConfig
from deeppose_tf.skeleton import LSP

K = len(LSP.joints)
HEIGHT, WIDTH = 20, 31  # Of every image; the first joint of person i is at (i, 3).
PEOPLE = 23
CONFIG = InputConfig(canvas=40, context=0.25, batch=8, views=2)


def noise(height, width, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (height, width, 3), np.uint8)


def cut(image, box, canvas, context=0.0):
    config = InputConfig(canvas=canvas, context=context)
    found = inputs.cut_canvas(tf.constant(image), tf.constant(box, tf.float32), config)
    return (np.asarray(part) for part in found)


def window(image, origin, side):
    """The square of an image from (x, y) = origin on, grey where there is no image."""
    x, y = (int(value) for value in origin)
    out = np.full((side, side, 3), 128, image.dtype)
    for row, column in itertools.product(range(side), repeat=2):
        i, j = y + row, x + column
        if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
            out[row, column] = image[i, j]
    return out


@pytest.mark.parametrize(
    ("box", "origin"),
    [
        # The middle of the box, minus half of a canvas of 6, to the nearest pixel.
        ([2, 1, 6, 4], (1, 0)),  # (4, 2.5) -> (1, -0.5), a half to the even number
        ([2, 1, 6, 5], (1, 0)),
        ([1.7, 1, 5.1, 5.9], (0, 0)),  # (3.4, 3.45)
        ([-2, 2, 2, 8], (-3, 2)),  # over the left border
        ([4, 3, 8, 9], (3, 3)),  # over the right and lower border
        ([10, 10, 12, 12], (8, 8)),  # beyond the image
        ([-30, -9, -26, -5], (-31, -10)),
    ],
)
def test_a_cut_moves_whole_pixels(box, origin):
    image = noise(7, 9)
    canvas, factor, found = cut(image, box, canvas=6)
    assert factor == 1
    np.testing.assert_array_equal(found, origin)
    np.testing.assert_array_equal(canvas, window(image, origin, 6))
    assert canvas.dtype == np.uint8


@pytest.mark.parametrize("seed", range(30))
def test_a_cut_holds_its_person(seed):
    """Any box, any image, odd or even: with its context it is inside the canvas, and no
    smaller than need be. The origin is rounded, by half a pixel at most."""
    random = np.random.default_rng(seed)
    canvas_side, context = int(random.integers(8, 40)), random.uniform(0, 0.5)
    image = noise(*random.integers(2, 90, 2), seed)
    corner = random.uniform(-30, 70, 2)
    box = np.concatenate([corner, corner + random.uniform(1, 120, 2)])
    canvas, factor, origin = cut(image, box, canvas_side, context)
    moved = box * factor - np.tile(origin, 2)
    assert np.abs((moved[:2] + moved[2:]) / 2 - canvas_side / 2).max() <= 0.5 + 1e-4
    side = (moved[2:] - moved[:2]).max() * (1 + context)
    assert side <= canvas_side * (1 + 1e-5)
    assert factor == 1 or side > canvas_side / 2
    level = image.astype(np.float32)
    for _ in range(int(np.log2(1 / factor))):
        level = last_level(sampling.pyramid(level[None], 2))
    expected = window(level, origin, canvas_side)
    assert np.abs(canvas - expected).max() <= 0.5 + 1e-3


def last_level(pyramid):
    """The last level of a pyramid of one image, as pixels in 0..255."""
    height, width = pyramid.sizes.numpy()[-1]
    pixels = pyramid.pixels[0, int(pyramid.offsets[-1]) :]
    return (pixels.numpy().reshape(height, width, 3) + 1) * 128


@pytest.mark.parametrize("halvings", [1, 2, 3])
def test_a_large_person_is_halved_as_the_resampler_does(halvings):
    """All of a 61 x 90 image: the canvas is the resampler's level, rounded once."""
    image = noise(61, 90)
    side = 96 // 2**halvings
    canvas, factor, origin = cut(image, [0, 0, 90, 61], side)
    assert factor == 0.5**halvings
    level = last_level(sampling.pyramid(image[None], halvings + 1))
    expected = window(np.round(level), origin, side)
    # Halves may be rounded either way after a detour through [-1, 1).
    assert np.abs(canvas - expected).max() <= 1
    assert (canvas != expected).mean() < 0.2
    assert np.abs(canvas - window(level, origin, side)).max() <= 0.5 + 1e-3


def test_crops_of_canvas_and_image_are_the_same():
    image = noise(80, 120)
    box = np.float32([40.3, 20.8, 70.9, 61.2])
    canvas, _, origin = cut(image, box, 64)
    one = sampling.crop(sampling.pyramid(image[None]), box[None], [0], 48)
    moved = (box - np.tile(origin, 2))[None]
    other = sampling.crop(sampling.pyramid(canvas[None]), moved, [0], 48)
    np.testing.assert_allclose(one, other, atol=2e-4)


def test_jpegs_are_the_pixels_that_prediction_reads(tmp_path):
    """TensorFlow's default decoder is off by up to a few levels."""
    smooth = tf.image.resize(noise(9, 7), [90, 70], "bicubic")
    path = tmp_path / "photo.jpg"
    pixels = tf.cast(tf.clip_by_value(smooth, 0, 255), tf.uint8)
    path.write_bytes(tf.io.encode_jpeg(pixels, quality=90).numpy())
    decoded = inputs.decode(path.read_bytes())
    np.testing.assert_array_equal(decoded, images.read_image(str(path)))


def test_images_are_decoded_as_they_are(tmp_path):
    image = noise(HEIGHT, WIDTH)
    png = tf.io.encode_png(image)
    np.testing.assert_array_equal(inputs.decode(png), image)
    gray = tf.io.encode_png(image[..., :1])
    np.testing.assert_array_equal(inputs.decode(gray), image[..., :1].repeat(3, -1))
    jpeg = inputs.decode(tf.io.encode_jpeg(np.full_like(image, 90), quality=95))
    assert np.abs(jpeg.numpy().astype(int) - 90).max() <= 1


@pytest.mark.parametrize(("batch", "views"), [(0, 1), (8, 3), (8, 0), (2, 4)])
def test_views_divide_the_batch(batch, views):
    with pytest.raises(ValueError, match="must be a multiple"):
        InputConfig(batch=batch, views=views)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """PEOPLE in three shards; person 4 has a box, all others their whole image."""
    folder = tmp_path_factory.mktemp("records")
    random = np.random.default_rng(2)
    keypoints = random.uniform(0, HEIGHT, (PEOPLE, K, 2)).astype(np.float32)
    keypoints[:, 0, 0], keypoints[:, 0, 1] = np.arange(PEOPLE), 3
    labeled = random.random((PEOPLE, K)) < 0.8
    labeled[:, 0] = True
    boxes = np.zeros((PEOPLE, 4), np.float32)
    boxes[4] = [3, 2, 25, 14]
    ids = tuple(f"person/{i}" for i in range(PEOPLE))
    people = Annotations(LSP, ids, keypoints, labeled, boxes, ids)
    shards = tuple(str(folder / f"train-{i}") for i in range(3))
    for shard, some in zip(shards, np.array_split(range(PEOPLE), 3), strict=True):
        with tf.io.TFRecordWriter(shard) as writer:
            for i in some:
                image = tf.io.encode_png(noise(HEIGHT, WIDTH, i)).numpy()
                writer.write(records.serialize(people, i, image, (HEIGHT, WIDTH)))
    counts = {"train": PEOPLE, "validation": 0, "test": 0}
    shards = {"train": shards, "validation": (), "test": ()}
    weights = {"train": np.ones(PEOPLE, int)}
    provenance = {"people": people}
    return records.Index(str(folder), LSP, counts, shards, provenance, (), {}, weights)


def epoch(index, config=CONFIG, seed=1, number=0, **options):
    dataset = inputs.training_dataset(index, config, seed, number, **options)
    return list(dataset.as_numpy_iterator())


def who(batches):
    """The numbers of the people of some batches, from their first joints."""
    out = []
    for _, keypoints, _, boxes, *_ in batches:
        size = boxes[:, 2:] - boxes[:, :2]
        corner = np.where(size == [22, 12], [3, 2], [0, 0])  # Person 4 has a box.
        out += list((keypoints[:, 0] - boxes[:, :2] + corner)[:, 0])
    return [int(round(number)) for number in out]


def same(one, other):
    return all(
        np.array_equal(a, b)
        for batch, again in zip(one, other, strict=True)
        for a, b in zip(batch, again, strict=True)
    )


def test_a_batch_is_what_was_recorded(index):
    people = index.provenance["people"]
    for batch in epoch(index):
        canvases, keypoints, labeled, boxes, draws = batch
        assert canvases.shape == (4, 40, 40, 3) and canvases.dtype == np.uint8
        assert draws.shape == (4, 2, len(augment.DRAWS))
        for place, person in enumerate(who([batch])):
            box = people.boxes[person]
            box = box if box.any() else np.float32([0, 0, WIDTH, HEIGHT])
            origin = np.round((box[:2] + box[2:]) / 2 - 20)
            image = noise(HEIGHT, WIDTH, person)
            expected = window(image, origin, 40)
            np.testing.assert_array_equal(canvases[place], expected)
            known = people.labeled[person]
            np.testing.assert_array_equal(labeled[place], known)
            back = keypoints[place] + origin
            truth = people.keypoints[person]
            np.testing.assert_allclose(back[known], truth[known], atol=1e-5)
            np.testing.assert_allclose(boxes[place] + np.tile(origin, 2), box)


def test_everyone_once_an_epoch_but_for_the_remainder(index):
    batches = epoch(index)
    numbers = who(batches)
    assert len(batches) == PEOPLE // 4  # 8 crops, 2 of each person.
    assert len(numbers) == len(set(numbers)) == 20
    everyone = InputConfig(canvas=40, batch=1)
    assert sorted(who(epoch(index, everyone))) == list(range(PEOPLE))


def test_the_same_seed_and_epoch_give_the_same_batches(index):
    assert same(epoch(index), epoch(index))
    dataset = inputs.training_dataset(index, CONFIG, 1, 0)
    once, again = (list(dataset.as_numpy_iterator()) for _ in range(2))
    assert same(once, again)  # The epoch's order is the dataset's, not the pass's.


@pytest.mark.parametrize("other", [{"number": 1}, {"seed": 2}])
def test_another_seed_or_epoch_gives_another_order_and_other_draws(index, other):
    config = InputConfig(canvas=40, batch=1)
    one, two = epoch(index, config), epoch(index, config, **other)
    assert who(one) != who(two)
    draws = [dict(zip(who(some), some, strict=True)) for some in (one, two)]
    assert not any((draws[0][i][-1] == draws[1][i][-1]).any() for i in range(PEOPLE))


def test_draws_are_the_persons_own(index):
    """Whatever the batch and the place in it; and uniform."""
    ones = InputConfig(canvas=40, batch=2, views=2)
    draws = dict(zip(who(epoch(index, ones)), epoch(index, ones), strict=True))
    for batch in epoch(index):
        for place, person in enumerate(who([batch])):
            np.testing.assert_array_equal(batch[-1][place], draws[person][-1][0])
    values = np.concatenate([batch[-1].ravel() for batch in draws.values()])
    assert len(np.unique(values)) > 0.99 * len(values)
    assert 0 <= values.min() and values.max() < 1
    # Five standard errors of the mean of so many uniform numbers.
    assert abs(values.mean() - 0.5) < 5 / np.sqrt(12 * len(values))


@pytest.fixture(scope="module")
def whole(index):
    return epoch(index)


@pytest.mark.parametrize("skip", range(6))
def test_a_resumed_epoch_goes_on_where_it_stopped(index, whole, skip):
    assert same(epoch(index, skip=skip), whole[skip:])


def test_a_limit_takes_the_first_people(index):
    config = InputConfig(canvas=40, batch=3)
    numbers = who(epoch(index, config, limit=9))
    assert sorted(numbers) == list(range(9))
    assert who(epoch(index, config, limit=9, number=1)) != numbers


@pytest.mark.parametrize(("limit", "count"), [(None, PEOPLE), (10, 10)])
def test_evaluation_leaves_nobody_out_and_keeps_the_order(index, limit, count):
    dataset = inputs.evaluation_dataset(index, "train", CONFIG, 4, limit)
    batches = list(dataset.as_numpy_iterator())
    assert who(batches) == list(range(count))
    sizes = [len(batch[0]) for batch in batches]
    assert sizes == [4] * (count // 4) + [count % 4]


def test_evaluation_shows_the_canvases_of_training(index):
    shown = inputs.evaluation_dataset(index, "train", CONFIG, 1)
    shown = dict(enumerate(shown.as_numpy_iterator()))
    for batch in epoch(index):
        for place, person in enumerate(who([batch])):
            for one, other in zip(batch[:-1], shown[person], strict=True):
                np.testing.assert_array_equal(one[place], other[0])


def test_shapes_are_known_to_the_compiler(index):
    spec = inputs.training_dataset(index, CONFIG, 0, 0).element_spec
    shapes = [part.shape.as_list() for part in spec]
    expected = [[4, 40, 40, 3], [4, K, 2], [4, K], [4, 4], [4, 2, len(augment.DRAWS)]]
    assert shapes == expected


def test_a_missing_shard_is_an_error_not_a_shorter_epoch(index, tmp_path):
    gone = {**index.shards, "train": (str(tmp_path / "gone"),)}
    broken = dataclasses.replace(index, shards=gone)
    with pytest.raises(tf.errors.NotFoundError):
        epoch(broken)
