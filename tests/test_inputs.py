"""Canvases are whole pixels of the image; an epoch is everyone once, the same again."""

import concurrent.futures
import dataclasses
import errno
import itertools
import os
import pathlib
import shutil
import threading
import time

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
    (halvings,), (origin,) = canvases.place(np.float32([box]), config)
    found = canvases.cut(image, halvings, origin, canvas)
    return found, 0.5**halvings, origin.astype(np.float32)


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


@pytest.mark.parametrize("seed", range(20))
def test_sums_of_bytes_are_the_averages_of_floats(seed):
    """Bit for bit, though a canvas halves no more of the image than it shows: all of it
    halved in float32, where each level is exact."""
    random = np.random.default_rng(seed)
    side, image = int(random.integers(2, 20)), noise(*random.integers(1, 300, 2), seed)
    corner = random.uniform(-30, 200, 2)
    box = np.concatenate([corner, corner + random.uniform(1, 300, 2)])
    canvas, factor, origin = cut(image, box, side)
    level = tf.cast(image, tf.float32)[None]
    for _ in range(int(np.log2(1 / factor))):
        level = tf.nn.avg_pool2d(level, 2, 2, "SAME")
    expected = window(np.asarray(tf.cast(tf.round(level[0]), tf.uint8)), origin, side)
    np.testing.assert_array_equal(canvas, expected)


def test_the_most_halvings_are_exact():
    """Of white, whose sums are the largest: 4^8 times 255."""
    canvas, factor, _ = cut(np.full((257, 600, 3), 255, np.uint8), [0, 0, 600, 257], 2)
    assert factor == 1 / 256 and canvas.max() == 255
    assert set(np.unique(canvas)) <= {128, 255}  # grey around it


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
    decoded = records.decode(path.read_bytes())
    np.testing.assert_array_equal(decoded, images.read_image(str(path)))


def test_images_are_decoded_as_they_are(tmp_path):
    image = noise(HEIGHT, WIDTH)
    png = tf.io.encode_png(image)
    np.testing.assert_array_equal(records.decode(png.numpy()), image)
    gray = tf.io.encode_png(image[..., :1])
    np.testing.assert_array_equal(
        records.decode(gray.numpy()), image[..., :1].repeat(3, -1)
    )
    jpeg = tf.io.encode_jpeg(np.full_like(image, 90), quality=95).numpy()
    assert np.abs(records.decode(jpeg).astype(int) - 90).max() <= 1


@pytest.mark.parametrize(("batch", "views"), [(0, 1), (8, 3), (8, 0), (2, 4)])
def test_views_divide_the_batch(batch, views):
    with pytest.raises(ValueError, match="must be a multiple"):
        InputConfig(batch=batch, views=views)


def make_index(folder, pictures, truth, boxes):
    """A data set in three shards of people on PNG `pictures`, one for each person; the
    same array twice is one file."""
    files, ids = {}, tuple(f"person/{i}" for i in range(len(pictures)))
    for picture in pictures:
        if id(picture) not in files:
            files[id(picture)] = path = str(folder / f"{len(files)}.png")
            images.Image.fromarray(picture).save(path)
    paths = tuple(files[id(picture)] for picture in pictures)
    people = Annotations(LSP, paths, *truth, boxes, ids)
    size = sum(os.path.getsize(path) for path in files.values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "SHARD_BYTES", size // 3 + 1)
        splits = {"validation": people, "train": people.nobody()}
        index = records.write(splits, str(folder / "data"))
    # In order: those to train on would be shuffled.
    renamed = {
        name: {"train": getattr(index, name)["validation"]}
        for name in ("shards", "checksums", "people", "counts")
    }
    return dataclasses.replace(index, provenance={"people": people}, **renamed)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """PEOPLE in three shards; person 4 has a box, all others their whole image."""
    random = np.random.default_rng(2)
    keypoints = random.uniform(0, HEIGHT, (PEOPLE, K, 2)).astype(np.float32)
    keypoints[:, 0, 0], keypoints[:, 0, 1] = np.arange(PEOPLE), 3
    labeled = random.random((PEOPLE, K)) < 0.8
    labeled[:, 0] = True
    boxes = np.zeros((PEOPLE, 4), np.float32)
    boxes[4] = [3, 2, 25, 14]
    pictures = [noise(HEIGHT, WIDTH, i) for i in range(PEOPLE)]
    folder = tmp_path_factory.mktemp("records")
    index = make_index(folder, pictures, (keypoints, labeled), boxes)
    assert len(index.shards["train"]) == 3
    return index


@pytest.fixture(scope="module")
def crowd(tmp_path_factory):
    """Twelve people, every fourth of them on the same of four images."""
    random = np.random.default_rng(3)
    pictures = [noise(60, 90, i) for i in range(4)] * 3
    keypoints = random.uniform(0, 60, (12, K, 2)).astype(np.float32)
    corners = random.uniform(0, 40, (12, 2))
    boxes = np.hstack([corners, corners + random.uniform(5, 45, (12, 2))])
    truth = keypoints, np.ones((12, K), bool)
    folder = tmp_path_factory.mktemp("crowd")
    return make_index(folder, pictures, truth, boxes.astype(np.float32))


@pytest.fixture
def decoded(monkeypatch):
    """How often an image has been decoded."""
    found, decode = [], records.decode
    monkeypatch.setattr(
        records, "decode", lambda content: found.append(1) or decode(content)
    )
    return found


def batches(index, config=CONFIG, seed=1, steps=range(5), cache="none", **options):
    """Those of some steps; by default of all that an epoch fills."""
    people = canvases.open_people(index, config, cache, **options)
    dataset = inputs.training_dataset(people, config, seed, steps)
    found = list(dataset.as_numpy_iterator())
    if cache == "device":  # where the compiled step gathers them
        assert people.ready.all()
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
    people = dataclasses.replace(index.people["train"], weights=weights)
    index = dataclasses.replace(index, people={"train": people})
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


@pytest.mark.parametrize("cache", ["device", "memory", "disk", "none"])
def test_an_image_is_decoded_once(crowd, decoded, cache):
    """However many people are on it: by a cache in the first steps, else in a batch."""
    for path in pathlib.Path(crowd.directory).glob("canvases-*"):
        shutil.rmtree(path)
    config = InputConfig(canvas=16, batch=12)
    people = canvases.open_people(crowd, config, cache)
    assert len(decoded) == (4 if cache == "device" else 0)
    found = [people.take(np.arange(12)) for _ in range(3)]
    assert len(decoded) == (12 if cache == "none" else 4)
    for person in range(12):
        box = crowd.people["train"].boxes[person]
        expected, factor, origin = cut(noise(60, 90, person % 4), box, 16, 0.25)
        for one in found:
            np.testing.assert_array_equal(one.canvases[person], expected)
            np.testing.assert_allclose(
                one.boxes[person], box * factor - np.tile(origin, 2), atol=1e-4
            )


@pytest.mark.parametrize("cache", ["auto", "memory", "disk", "none"])
def test_nobody_is_decoded_before_the_first_step(crowd, decoded, cache):
    """And then who is asked for, and who is on the same image."""
    for path in pathlib.Path(crowd.directory).glob("canvases-*"):
        shutil.rmtree(path)
    people = canvases.open_people(crowd, CONFIG, cache)
    dataset = inputs.training_dataset(people, CONFIG, 0, range(1))
    assert not decoded and not people.ready.any()
    list(dataset)
    shown = inputs.Order(people.weights, 0, CONFIG)(0)[0]
    expected = np.isin(np.arange(12) % 4, shown % 4) & (cache != "none")
    np.testing.assert_array_equal(people.ready, expected)
    assert len(decoded) == len(set(shown % 4))


def test_images_in_flight_are_bounded_in_bytes(crowd, monkeypatch):
    """Of 60 x 90 pixels, counted twice: two at a time where there is room for two and a
    half, and one where there is none."""
    threads = concurrent.futures.ThreadPoolExecutor(4)
    monkeypatch.setattr(canvases, "_threads", lambda process: threads)
    for room, most in ((2.5, 2), (0.5, 1)):
        monkeypatch.setattr(canvases, "_ROOM", canvases._Room(int(room * 2 * 16200)))
        now, seen, lock, decode = [], [], threading.Lock(), records.decode

        def slow(content, now=now, seen=seen, lock=lock, decode=decode):
            with lock:
                now.append(1)
                seen.append(len(now))
            time.sleep(0.05)
            now.pop()
            return decode(content)

        with monkeypatch.context() as patch:
            patch.setattr(records, "decode", slow)
            canvases.open_people(crowd, CONFIG, "none").take(np.arange(12))
        assert len(seen) == 4 and max(seen) == most


def test_a_file_of_canvases_is_finished_by_later_runs(index, decoded):
    """Which decode nobody who is there, and whoever is damaged anew."""
    for path in pathlib.Path(index.directory).glob("canvases-*"):
        shutil.rmtree(path)
    expected = batches(index, ONES, steps=range(PEOPLE))
    decoded.clear()
    assert same(batches(index, ONES, steps=range(9), cache="disk"), expected[:9])
    assert len(decoded) == 9
    assert same(batches(index, ONES, steps=range(PEOPLE), cache="disk"), expected)
    assert len(decoded) == PEOPLE
    (folder,) = pathlib.Path(index.directory).glob("canvases-*")
    damages = {
        "canvases": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        "crc32": lambda content: bytes([content[0] ^ 1]) + content[1:],
    }
    for name, damage in damages.items():
        decoded.clear()
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
        assert same(batches(index, ONES, steps=range(PEOPLE), cache="disk"), expected)
        assert len(decoded) == 1
    decoded.clear()
    (folder / "canvases").write_bytes(b"half a file")
    assert same(batches(index, ONES, steps=range(PEOPLE), cache="disk"), expected)
    assert len(decoded) == PEOPLE


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="not on Linux")
def test_what_was_read_of_a_file_of_canvases_is_no_memory(index):
    """It grew with the number of people, as all of the file came to be mapped."""
    people = canvases.open_people(index, CONFIG, "disk")
    for chosen in np.arange(PEOPLE)[:, None]:
        people.take(chosen)
    maps = pathlib.Path("/proc/self/smaps").read_text().split("/canvases\n")[1:]
    used = [part.split("Rss:")[1].split()[0] for part in maps]
    assert used and set(used) == {"0"}


def test_canvases_of_earlier_versions_are_removed(index):
    """They took as much room as the present ones, for nothing."""
    directory = pathlib.Path(index.directory)
    batches(index, cache="disk")
    kept = set(directory.iterdir())
    for name in ("canvases-0123456789abcdef", ".canvases-0123456789abcdef.partial"):
        (directory / name).mkdir()
        (directory / name / "canvases.npy").touch()
    batches(index, cache="memory")
    assert len(set(directory.iterdir())) == len(kept) + 2
    batches(index, cache="disk")
    assert set(directory.iterdir()) == kept


def test_several_who_want_a_file_of_canvases_share_one(index):
    for path in pathlib.Path(index.directory).glob("canvases-*"):
        shutil.rmtree(path)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(batches, index, cache="disk") for _ in range(2)]
        one, two = (job.result() for job in jobs)
    assert same(one, two) and same(one, batches(index))
    assert len(list(pathlib.Path(index.directory).glob("canvases-*"))) == 1


def test_canvases_of_more_people_are_others(index):
    """A benchmark lists everyone several times."""
    batches(index, cache="disk")
    people = index.people["train"].take(np.tile(np.arange(PEOPLE), 2))
    twice = dataclasses.replace(index, people={"train": people})
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
    with pytest.raises(OSError, match="No space left on device: '/.*/canvases'"):
        batches(index, cache="disk")
    # No empty folder, which `auto` would take for a full one.
    assert not list(pathlib.Path(index.directory).glob("canvases-*"))


def test_an_image_cut_short_is_named(index, tmp_path):
    shard = tmp_path / "train-0"
    shard.write_bytes(pathlib.Path(index.shards["train"][0]).read_bytes()[:-5])
    shards = (str(shard), *index.shards["train"][1:])
    broken = dataclasses.replace(index, shards={"train": shards})
    last = index.people["train"].images[:, 0].tolist().index(1) - 1
    with pytest.raises(ValueError, match="train-0: the image at byte .* is damaged"):
        records.read(broken, "train", last)
    with pytest.raises(tf.errors.OpError, match="train-0: the image at byte"):
        batches(broken, steps=range(6))


def test_auto_keeps_what_fits(index, monkeypatch, capsys):
    """Within half of what is free; and nothing that is not looked at twice."""
    needed = PEOPLE * 40 * 40 * 3
    for room, cache in ((2 * needed, "memory"), (2 * needed - 1, "disk")):
        monkeypatch.setattr(canvases, "free_memory", lambda room=room: room)
        for path in pathlib.Path(index.directory).glob("canvases-*"):
            shutil.rmtree(path)
        people = canvases.open_people(index, CONFIG, verbose=1)
        assert people.cache == cache
        assert f"--cache={cache}" in capsys.readouterr().out
    people = canvases.open_people(index, CONFIG, shown=2 * PEOPLE - 1)
    assert people.cache == "none"


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
    gone = {"train": 3 * (str(tmp_path / "gone"),)}
    broken = dataclasses.replace(index, shards=gone)
    with pytest.raises(tf.errors.OpError, match="gone: No such file or directory"):
        batches(broken)
