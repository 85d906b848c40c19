"""Canvases are whole pixels of the image; an epoch is everyone once, the same again."""

import concurrent.futures
import dataclasses
import errno
import itertools
import os
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import sampling
from deeppose_tf.datasets import Annotations, images
from deeppose_tf.pipelines.data import augment, canvases, inputs, records
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
    checksums = {"train": "some"}
    return records.Index(
        str(folder), LSP, counts, shards, provenance, (), checksums, weights
    )


def batches(index, config=CONFIG, seed=1, steps=range(5), cache="none", **options):
    """Those of some steps; by default of all that an epoch fills."""
    people = canvases.open_people(index, config, cache, **options)
    dataset = inputs.training_dataset(people, config, seed, steps)
    found = list(dataset.as_numpy_iterator())
    if cache == "device":  # where the compiled step gathers them
        found = [(*(column[who] for column in people.kept), x) for who, x in found]
    return found


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
    for batch in batches(index):
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


ONES = InputConfig(canvas=40, batch=1)


@pytest.mark.parametrize("batch", [1, 4, 23, 30])
def test_everyone_once_an_epoch_whatever_the_batch(index, batch):
    """And nobody is left out where one ends within a batch."""
    config = InputConfig(canvas=40, batch=batch)
    numbers = who(batches(index, config, steps=range(3 * PEOPLE // batch + 1)))
    epochs = [numbers[i * PEOPLE :][:PEOPLE] for i in range(3)]
    assert all(sorted(epoch) == list(range(PEOPLE)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_weights_say_how_often_one_is_shown(index):
    """Each time by other draws."""
    weights = np.ones(PEOPLE, int)
    weights[7], weights[20] = 4, 2
    index = dataclasses.replace(index, weights={"train": weights})
    shown = batches(index, ONES, steps=range(PEOPLE + 4))
    assert np.bincount(who(shown)).tolist() == weights.tolist()
    draws = [batch[-1].tobytes() for batch in shown if who([batch]) == [7]]
    assert len(set(draws)) == 4


def test_all_people_are_shuffled():
    """Of 20,000 as of 2,000: places in two epochs do not depend on each other."""
    for count in (2_000, 20_000):
        order = inputs.Order(np.ones(count, int), 0, InputConfig(batch=count))
        places = [np.argsort(order(step)[0]) for step in range(2)]
        # Three standard errors of the correlation of independent places.
        assert abs(np.corrcoef(places)[0, 1]) < 3 / np.sqrt(count)


@pytest.mark.parametrize("cache", ["device", "memory", "disk", "none"])
def test_batches_are_the_same_wherever_canvases_are_kept(index, cache):
    expected = batches(index, steps=range(3, 9))
    assert same(batches(index, steps=range(3, 9), cache=cache), expected)
    # Again from the file, which is there now.
    assert same(batches(index, steps=range(3, 9), cache=cache), expected)


def test_a_file_of_canvases_is_checked(index):
    batches(index, cache="disk")
    (folder,) = pathlib.Path(index.directory).glob("canvases-*")
    path = folder / "canvases.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="canvases.npy: its content has changed"):
        batches(index, cache="disk")
    shutil.rmtree(folder)
    assert same(batches(index, cache="disk"), batches(index))


def test_several_who_want_a_file_of_canvases_make_one(index, monkeypatch):
    """Who comes second waits for the first, and takes what it made."""
    for path in pathlib.Path(index.directory).glob("canvases-*"):
        shutil.rmtree(path)
    written, original = [], canvases._write
    monkeypatch.setattr(
        canvases, "_write", lambda *some: written.append(1) or original(*some)
    )
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(batches, index, cache="disk") for _ in range(2)]
        one, two = (job.result() for job in jobs)
    assert len(written) == 1 and same(one, two)


def test_canvases_of_more_people_are_others(index):
    """A benchmark lists everyone several times."""
    batches(index, cache="disk")
    twice = dataclasses.replace(
        index,
        weights={"train": np.ones(2 * PEOPLE, int)},
        shards={**index.shards, "train": 2 * index.shards["train"]},
    )
    assert len(batches(twice, ONES, steps=range(2 * PEOPLE), cache="disk")) == 46


def test_what_does_not_fit_is_told(index, monkeypatch):
    monkeypatch.setattr(canvases, "free_memory", lambda: 100)
    with pytest.raises(ValueError, match="--cache=memory: .* free: give --cache=disk"):
        batches(index, cache="memory")

    def full(*some):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    for path in pathlib.Path(index.directory).glob("canvases-*"):
        shutil.rmtree(path)
    with pytest.raises(OSError, match="No space left on device: .*canvases.npy"):
        batches(index, cache="disk")


def test_a_record_cut_short_is_named(index, tmp_path):
    shard = tmp_path / "train-0"
    shard.write_bytes(pathlib.Path(index.shards["train"][0]).read_bytes()[:-5])
    broken = dataclasses.replace(index, shards={**index.shards, "train": (str(shard),)})
    with pytest.raises(ValueError, match="train-0: record 8 of the split is damaged"):
        batches(broken)


def test_auto_keeps_what_fits(index, monkeypatch, capsys):
    """Within half of what is free; and nothing that is not looked at twice."""
    needed = PEOPLE * 40 * 40 * 3
    for room, cache in ((2 * needed, "memory"), (2 * needed - 1, "disk")):
        monkeypatch.setattr(canvases, "free_memory", lambda room=room: room)
        for path in pathlib.Path(index.directory).glob("canvases-*"):
            shutil.rmtree(path)
        people = canvases.open_people(index, CONFIG, verbose=1)
        assert people.cache == cache and people.kept is not None
        assert f"--cache={cache}" in capsys.readouterr().out
    people = canvases.open_people(index, CONFIG, shown=2 * PEOPLE - 1)
    assert people.cache == "none" and people.kept is None


def test_the_same_seed_gives_the_same_batches(index):
    assert same(batches(index), batches(index))
    one, two = batches(index, ONES), batches(index, ONES, seed=2)
    assert who(one) != who(two)
    assert not any((a[-1] == b[-1]).any() for a, b in zip(one, two, strict=True))


def test_draws_belong_to_a_place_whatever_the_batch(index):
    """And are uniform."""
    single = InputConfig(canvas=40, batch=2, views=2)
    ones = batches(index, single, steps=range(4 * 5))
    draws = [batch[-1][0] for batch in ones]
    np.testing.assert_array_equal(
        np.concatenate([b[-1] for b in batches(index)]), draws
    )
    values = np.ravel([batch[-1] for batch in batches(index, steps=range(40))])
    assert len(np.unique(values)) > 0.99 * len(values)
    assert 0 <= values.min() and values.max() < 1
    # Five standard errors of the mean of so many uniform numbers.
    assert abs(values.mean() - 0.5) < 5 / np.sqrt(12 * len(values))


@pytest.mark.parametrize("step", range(6))
def test_a_resumed_training_goes_on_where_it_stopped(index, step):
    steps = range(step, 7)
    assert same(batches(index, steps=steps), batches(index, steps=range(7))[step:])


def test_a_limit_takes_the_first_people(index):
    config = InputConfig(canvas=40, batch=3)
    numbers = who(batches(index, config, steps=range(6), limit=9))
    assert sorted(numbers[:9]) == sorted(numbers[9:]) == list(range(9))
    assert numbers[:9] != numbers[9:]


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
    for batch in batches(index):
        for place, person in enumerate(who([batch])):
            for one, other in zip(batch[:-1], shown[person], strict=True):
                np.testing.assert_array_equal(one[place], other[0])


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_shapes_are_known_to_the_compiler(index, cache):
    people = canvases.open_people(index, CONFIG, cache)
    spec = inputs.training_dataset(people, CONFIG, 0, range(1)).element_spec
    shapes = [part.shape.as_list() for part in spec]
    expected = [[4, 40, 40, 3], [4, K, 2], [4, K], [4, 4], [4, 2, len(augment.DRAWS)]]
    assert shapes == expected


def test_a_missing_shard_is_an_error_not_a_shorter_epoch(index, tmp_path):
    gone = {**index.shards, "train": (str(tmp_path / "gone"),)}
    broken = dataclasses.replace(index, shards=gone)
    with pytest.raises(FileNotFoundError):
        batches(broken)
