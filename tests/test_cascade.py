"""Eqs. (5) to (7) with networks that can be computed by hand; statistics; bad boxes."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import tensorflow as tf
import toy_cascade
import toy_run

from deeppose_tf import cascade, files, networks, sampling
from deeppose_tf.config import StageConfig, check_run
from deeppose_tf.export.saved_model import graph
from deeppose_tf.skeleton import LSP
from deeppose_tf.stage import Stage, build_stage

keras = tf.keras

K = len(LSP.joints)
FIRST = StageConfig("compact", 32, margin=0.1, square=True)
LATER = StageConfig("compact", 32, sigma=1.5)
HEIGHT, WIDTH = 80, 120


class Constant(keras.layers.Layer):
    """Answers the same [K, 2] for every crop."""

    def __init__(self, answer):
        super().__init__(trainable=False)
        # A variable, for other answers without another graph.
        self.answer = self.add_weight(name="answer", shape=(K, 2), initializer="zeros")
        self.answer.assign(np.float32(answer))

    def call(self, crops):
        return tf.zeros_like(crops[:, :1, :1, 0]) + self.answer[None]


class Colour(keras.layers.Layer):
    """Answers, for each joint k, k + 1 times a small step by the crop's mean colour."""

    def call(self, crops):
        mean = tf.reduce_mean(crops, axis=[1, 2])[:, None, :2]  # [M, 1, 2]
        return mean * (tf.range(1.0, K + 1)[:, None] / (4 * K))


def stage(config, layer):
    crops = keras.Input([config.size, config.size, 3])
    zeros = np.zeros([K, 2])
    model = keras.Model(crops, layer(crops))
    return Stage(config, LSP, model, zeros, np.zeros([K, 2, 2]), {})


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def pose():
    """[K, 2] normalized: a person who stands in the box, all joints apart."""
    chance = np.random.default_rng(4)
    return chance.uniform(-0.4, 0.4, (K, 2)).astype(np.float32)


@pytest.fixture(scope="module")
def coloured():
    """Three stages whose answers depend on what they see."""
    return cascade.Cascade(
        [
            stage(FIRST, Colour()),
            stage(LATER, Colour()),
            stage(dataclasses.replace(LATER, sigma=0.8, step_size=0.5), Colour()),
        ]
    )


@pytest.fixture(scope="module")
def image():
    """Blobs of colour on a non-square image."""
    chance = np.random.default_rng(1)
    small = chance.integers(0, 256, (5, 8, 3)).astype(np.float32)
    large = tf.image.resize(small, [HEIGHT, WIDTH], "bicubic")
    return np.clip(large, 0, 255).astype(np.uint8)


def diameter(keypoints):
    """Left shoulder to right hip, at least a fifth of the extent; [K, 2]."""
    names = list(LSP.joints)
    ends = keypoints[names.index("left_shoulder")], keypoints[names.index("right_hip")]
    extent = np.ptp(keypoints, axis=0).max()
    return max(np.linalg.norm(ends[0] - ends[1]), 0.2 * extent)


def first_box(box):
    """Square about the same centre, grown by a tenth."""
    center = (box[:2] + box[2:]) / 2
    side = 1.1 * max(box[2] - box[0], box[3] - box[1])
    return center, np.array([side, side])


def test_stages_by_hand(image, pose, random):
    """Constant answers: stage 1 places the pose into b0; each joint i then moves by the
    i-th answer of stage 2, times the side of its box, sigma diam(y)."""
    moves = random.uniform(-0.3, 0.3, (K, 2))
    stages = [stage(FIRST, Constant(pose)), stage(LATER, Constant(moves))]
    box = np.float32([20, 10, 50, 70])
    found = cascade.Cascade(stages).predict(image, box[None])
    center, size = first_box(box)
    first = center + pose * size
    second = first + moves * 1.5 * diameter(first)
    np.testing.assert_allclose(found["keypoints_by_stage"][0, 0], first, atol=1e-3)
    np.testing.assert_allclose(found["keypoints_by_stage"][0, 1], second, atol=1e-3)
    np.testing.assert_array_equal(
        found["keypoints"], found["keypoints_by_stage"][:, -1]
    )
    assert found["valid"].all()
    # These networks have no maps, so the first looks again, mirrored and a sixteenth
    # beside: the same answer there is another place.
    middle, size = first_box(box)
    again = middle + size / 16 + pose[list(LSP.mirror)] * [-1, 1] * size
    variance = ((again - first) ** 2 + 1e-6 * size**2).sum(-1)
    expected = 1 - np.exp(-((0.2 * diameter(second)) ** 2) / variance)
    np.testing.assert_allclose(found["scores"][0], expected, atol=1e-4)


def numpy_cascade(image, box):
    """What `coloured` answers, crop by crop: [3, K, 2]."""

    source = sampling.pyramid(image[None])

    def look(center, size):
        corners = np.concatenate([center - size / 2, center + size / 2])
        crop = sampling.crop(source, np.float32(corners)[None], [0], 32)[0]
        mean = np.asarray(crop).mean(axis=(0, 1))[:2]
        return mean * (np.arange(1, K + 1)[:, None] / (4 * K))  # [K, 2]

    center, size = first_box(box)
    poses = [center + look(center, size) * size]
    for sigma, share in ((1.5, 1.0), (0.8, 0.5)):
        before = poses[-1]
        side = np.array([sigma, sigma]) * diameter(before)
        # Eq. (6): of what the network sees around joint i, its answer for i counts.
        seen = [look(before[i], side)[i] * side for i in range(K)]
        moved = [before[i] + share * seen[i] for i in range(K)]
        poses.append(np.stack(moved))
    return np.stack(poses)


BOXES = np.float32([[20, 10, 50, 70], [60, 5, 118, 40], [-10, 20, 30, 90]])


def test_every_stage_against_numpy(image, coloured):
    found = coloured.predict(image, BOXES)["keypoints_by_stage"]
    assert found.shape == (3, 3, K, 2)
    for poses, box in zip(found, BOXES, strict=True):
        np.testing.assert_allclose(poses, numpy_cascade(image, box), atol=2e-3)
    # The stages do move joints, each of its own accord.
    assert np.linalg.norm(found[:, 2] - found[:, 1], axis=-1).std() > 0.01


def test_together_as_alone(image, coloured):
    """More people than are in memory at a time, the last portion a smaller one."""
    count = 2 * cascade.PEOPLE_AT_ONCE[0] + 3
    boxes = np.tile(BOXES, (count // 3 + 1, 1))[:count] + np.arange(count)[:, None]
    together = coloured.predict(image, boxes)
    for i in range(count):
        alone = coloured.predict(image, boxes[i : i + 1])
        for name, value in alone.items():
            np.testing.assert_allclose(together[name][i], value[0], atol=1e-3)


@pytest.mark.parametrize(("gpus", "portions"), [([], [8] * 5), (["one"], [32, 8])])
def test_a_gpu_is_asked_for_more_at_once(monkeypatch, gpus, portions):
    monkeypatch.setattr(cascade.tf.config, "list_physical_devices", lambda _: gpus)
    assert [len(some) for some in cascade._portions(np.zeros(40))] == portions


def test_without_a_graph(image, coloured):
    """Of few people it takes longer to make one than to do without."""
    some = cascade.Cascade(coloured.stages)
    boxes = np.tile(BOXES, (4, 1))  # more people than are in memory at a time
    (found,) = some.predict([image], [boxes], trace=False)
    assert some._function.experimental_get_tracing_count() == 0
    for name, value in some.predict(image, boxes).items():
        np.testing.assert_allclose(found[name], value, atol=1e-3)
    assert some._function.experimental_get_tracing_count() == 1


def test_images_together_as_alone(image, coloured, random):
    images = np.stack([image, image[::-1], random.permutation(image)])
    together = coloured.predict_batch(images, BOXES)
    for i in range(3):
        alone = coloured.predict(images[i], BOXES[i : i + 1])
        np.testing.assert_allclose(
            together["keypoints_by_stage"][i], alone["keypoints_by_stage"][0], atol=1e-3
        )


BAD = {
    "not a number": [np.nan, 10, 50, 70],
    "infinite": [20, 10, np.inf, 70],
    "minus infinite": [-np.inf, 10, 50, 70],
    "without width": [20, 10, 20, 70],
    "inverted": [50, 10, 20, 70],
    "upside down": [20, 70, 50, 10],
    "absurdly far": [2e6, 10, 2e6 + 30, 70],
    "absurdly large": [-3e38, -3e38, 3e38, 3e38],
    # Of the image of 120 x 80, which they touch: they got poses of nothing.
    "to its right": [120, 10, 150, 50],
    "to its left": [-30, 10, 0, 50],
    "above": [10, -30, 50, 0],
    "below": [10, 80, 50, 110],
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_bad_box_harms_nobody_else(image, coloured, bad):
    boxes = np.stack([BOXES[0], np.float32(bad), BOXES[1]])
    found = coloured.predict(image, boxes)
    np.testing.assert_array_equal(found["valid"], [True, False, True])
    assert not found["keypoints_by_stage"][1].any()
    assert all(np.isfinite(value).all() for value in found.values())
    # The others to the bit as beside a good one.
    good = coloured.predict(image, BOXES[[0, 2, 1]])
    for name, value in good.items():
        np.testing.assert_array_equal(found[name][[0, 2]], value[[0, 2]])


def test_a_box_partly_beyond_the_image_is_answered(image, coloured):
    boxes = [[119.5, 10, 150, 50], [-30, 79.5, 0.5, 110], [-500, -500, 900, 0.5]]
    assert coloured.predict(image, np.float32(boxes))["valid"].all()


def test_whose_scores_are_no_numbers_has_no_pose(image, coloured, monkeypatch):
    """Nor by exports: the pose was `valid`."""

    def spoilt(spread, keypoints, skeleton):
        return tf.stack([tf.fill([K], np.nan), tf.ones([K])])

    monkeypatch.setattr(cascade, "scores", spoilt)
    found = cascade.Cascade(coloured.stages).predict(image, BOXES[:2])
    assert found["valid"].tolist() == [False, True]
    assert not found["keypoints_by_stage"][0].any() and not found["scores"][0].any()
    monkeypatch.setattr(cascade, "scores", lambda *_: tf.fill([1, K], np.nan))
    looped = tf.function(functools.partial(graph.looped, coloured), autograph=False)
    answer = looped(tf.constant(image), tf.constant(BOXES[0], tf.float32))
    assert not answer["valid"] and not answer["scores"].numpy().any()


def test_an_empty_image_is_answered_as_by_exports(coloured):
    """`predict` raised, where a served model answered that it saw nobody."""
    for shape in ((0, 8, 3), (8, 0, 3)):
        found = coloured.predict(np.zeros(shape, np.uint8), BOXES[:2])
        assert found["keypoints_by_stage"].shape == (2, 3, K, 2)
        assert not any(value.any() for value in found.values())


@pytest.fixture(scope="module")
def constant():
    """Three stages, each with its layer `Constant` at the end."""
    return cascade.Cascade(
        [stage(config, Constant(np.zeros((K, 2)))) for config in (FIRST, LATER, LATER)]
    )


@pytest.mark.parametrize("answer", [np.nan, np.inf, 1e30])
@pytest.mark.parametrize("lost", [0, 1])
def test_a_pose_that_diverged_is_never_valid(image, constant, pose, answer, lost):
    """In the first stage or a later one: crops of it raised, or it was valid."""
    answers = [pose, np.zeros((K, 2)), np.zeros((K, 2))]
    for one, moves in zip(constant.stages, answers, strict=True):
        one.model.layers[-1].answer.assign(moves)
    assert constant.predict(image, BOXES[:1])["valid"].all()
    lost_one = np.where(np.arange(K)[:, None] == 3, answer, answers[lost])
    constant.stages[lost].model.layers[-1].answer.assign(lost_one)
    found = constant.predict(image, BOXES[:1])
    assert not any(value.any() for value in found.values())


def test_zeros_are_the_whole_image(image, coloured):
    whole = coloured.predict(image, np.float32([[0, 0, WIDTH, HEIGHT]]))
    for boxes in (None, np.zeros((1, 4))):
        found = coloured.predict(image, boxes)
        for name, value in whole.items():
            np.testing.assert_array_equal(found[name], value)


def test_nobody(image, coloured):
    found = coloured.predict(image, np.zeros((0, 4)))
    assert found["keypoints"].shape == (0, K, 2)
    assert found["keypoints_by_stage"].shape == (0, 3, K, 2)
    assert found["scores"].shape == (0, K)
    assert found["valid"].shape == (0,)


@pytest.mark.parametrize(
    ("picture", "boxes", "said"),
    [
        (np.zeros((8, 9), np.uint8), None, "image is uint8 .8, 9."),
        (np.zeros((8, 9, 4), np.uint8), None, "expected uint8 .H, W, 3."),
        (np.zeros((8, 9, 3), np.float32), None, "image is float32"),
        (np.zeros((8, 9, 3), np.uint8), np.zeros(4), "boxes are .4,., expected"),
        (np.zeros((8, 9, 3), np.uint8), np.zeros((2, 3)), "expected .N, 4."),
    ],
)
def test_what_is_no_image_or_box(coloured, picture, boxes, said):
    with pytest.raises(ValueError, match=said):
        coloured.predict(picture, boxes)


def numpy_spread(logits, height, width):
    """[K, height width] -> the variance [K, 2] of x and y, spread over each place."""
    share = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    x, y = np.meshgrid(
        (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    )
    places = np.stack([x.ravel(), y.ravel()], -1) - 0.5
    mean = share @ places
    away = (places - mean[:, None]) ** 2
    return (share[..., None] * away).sum(1) + np.array(
        [1 / width, 1 / height]
    ) ** 2 / 12


def test_scores_are_made_of_the_maps_of_all_stages(image):
    """A garbage model scored 0.97, and a single stage 1.0, whatever it saw."""
    some = toy_cascade.make(LSP)
    box = BOXES[0]
    found = some.predict(image, box[None])
    logs, source = [], sampling.pyramid(image[None])
    center, size = (box[:2] + box[2:]) / 2, 1.1 * (box[2:] - box[:2])  # no square
    corners = np.float32([np.concatenate([center - size / 2, center + size / 2])])
    boxes, sizes = np.repeat(corners, K, axis=0), np.tile(size, (K, 1))
    for i, one in enumerate(some.stages):
        if i:
            before = found["keypoints_by_stage"][0, i - 1]
            sizes = np.full((K, 2), one.config.sigma * diameter(before))
            boxes = np.concatenate([before - sizes / 2, before + sizes / 2], -1)
        crops = sampling.crop(source, np.float32(boxes), [0] * K, one.config.size)
        _, logits = networks.with_maps(one.model)(crops, training=False)
        # Map i of the crop of joint i; all crops of the first stage are the same.
        own = np.asarray(logits)[np.arange(K), np.arange(K)]
        side = round(own.shape[1] ** 0.5)
        logs.append(np.log((numpy_spread(own, side, side) * sizes**2).sum(-1)))
    last = diameter(found["keypoints"][0])
    expected = 1 - np.exp(-((0.2 * last) ** 2) / np.exp(np.mean(logs, axis=0)))
    np.testing.assert_allclose(found["scores"][0], expected, atol=2e-3)


def test_flipped_answers_a_mirror_image_with_the_mirrored_pose(image):
    """Of the first stage, whose maps of both images are averaged; alone it does not."""
    some, mirror = toy_cascade.make(LSP, toy_cascade.CONFIGS[:1]), list(LSP.mirror)
    box, mirrored_image = BOXES[:1], np.ascontiguousarray(image[:, ::-1])
    x0, y0, x1, y1 = box[0]
    mirrored_box = np.float32([[WIDTH - x1, y0, WIDTH - x0, y1]])

    def differ(**options):
        found = some.predict(image, box, **options)["keypoints_by_stage"][0, 0]
        again = some.predict(mirrored_image, mirrored_box, **options)
        again = again["keypoints_by_stage"][0, 0][mirror] * (-1, 1) + (WIDTH, 0)
        return np.abs(found - again).max()

    assert differ() > 1
    assert differ(flip_test=True) < 1e-3


def test_flipped_averages_the_maps(image):
    """Against NumPy, the scores' spread included; later stages are as they are."""
    some = toy_cascade.make(LSP)
    first, box = some.stages[0], BOXES[:1]
    center, size = (box[:, :2] + box[:, 2:]) / 2, 1.1 * (box[:, 2:] - box[:, :2])
    corners = np.float32(np.concatenate([center - size / 2, center + size / 2], 1))
    crop = sampling.crop(sampling.pyramid(image[None]), corners, [0], 48).numpy()
    maps = networks.with_maps(first.model)
    side = 24  # 48 pixels, halved twice, each cell divided by two
    own, other = (
        np.asarray(maps(one)[1]).reshape(K, side, side)
        for one in (crop, np.ascontiguousarray(crop[:, :, ::-1]))
    )
    mean = (own + other[list(LSP.mirror), :, ::-1]) / 2
    share = np.exp(mean.reshape(K, -1)) / np.exp(mean).sum((1, 2))[:, None]
    place = share @ networks.map_places(first.model)  # [K, 2]
    found = some.flipped.predict(image, box)
    expected = center + place * size
    np.testing.assert_allclose(found["keypoints_by_stage"][0, 0], expected, atol=1e-3)
    spread = some.flipped.stages[0].spreading(crop)[0, :, 2:]
    np.testing.assert_allclose(
        spread, numpy_spread(mean.reshape(K, -1), side, side), rtol=1e-3
    )
    assert some.flipped.stages[1:] == some.stages[1:]


def test_a_linear_head_has_no_maps_to_average(image, coloured):
    with pytest.raises(ValueError, match="to be averaged, and the network has none"):
        coloured.predict(image, flip_test=True)


@pytest.mark.parametrize("head", ["linear", "integral"])
def test_what_learned_nothing_scores_low(image, head, pose):
    config = StageConfig("compact", 32, head, (4,), (0,), margin=0.1)
    model = build_stage(config, LSP, pose)
    zeros = np.zeros([K, 2])
    one = Stage(config, LSP, model, zeros, np.zeros([K, 2, 2]), {})
    found = cascade.Cascade([one]).predict(image, BOXES)
    assert found["valid"].all() and found["scores"].mean() < 0.3


def test_a_cascade_of_nothing_or_of_two_skeletons(pose):
    with pytest.raises(ValueError, match="at least one stage"):
        cascade.Cascade([])
    one = stage(FIRST, Constant(pose))
    other = dataclasses.replace(LSP, name="other")
    with pytest.raises(ValueError, match="different skeletons"):
        cascade.Cascade([one, dataclasses.replace(one, skeleton=other)])


def test_a_run_is_loaded(tmp_path, image):
    toy_run.save_run(tmp_path, LSP, stages=2)
    loaded = cascade.Cascade.load(str(tmp_path))
    assert loaded.count == 2 and loaded.skeleton == LSP
    assert loaded.predict(image)["keypoints_by_stage"].shape == (1, 2, K, 2)


# What is there -> what is said of it. Every one of them was said to have "no
# cascade.json: train one with deeppose-train".
NO_RUNS = {
    "nothing": ((), "run does not exist"),
    "empty": (("run/",), "run is an empty folder"),
    "file": (("run",), "run is a file: give the folder that"),
    "data": (("run/dataset.json",), "run is prepared data, not a trained model"),
    "stage": (("run/stage.json",), "is one stage of a run: give the run, .*[^/]$"),
    "export": (("run/saved_model.pb",), "run is an exported SavedModel"),
    "exports": (("run/1/saved_model.pb",), "run is an exported SavedModel"),
    "begun": (("run/training_1/",), "has a training without a finished stage"),
    "other": (("run/photo.jpg",), "run has no cascade.json, so it is no trained"),
}


@pytest.mark.parametrize(("there", "said"), NO_RUNS.values(), ids=NO_RUNS)
def test_what_is_no_run_is_called_what_it_is(tmp_path, there, said):
    for name in there:
        path = tmp_path / name
        folder = path if name.endswith("/") else path.parent
        folder.mkdir(parents=True, exist_ok=True)
        if path != folder:
            path.touch()
    with pytest.raises(ValueError, match=said):
        check_run(str(tmp_path / "run"))
    with pytest.raises(ValueError, match=said):
        cascade.Cascade.load(str(tmp_path / "run"))


def test_runs_that_cannot_be_loaded(tmp_path):
    index = tmp_path / "cascade.json"
    for content in ("", "{", "[]", "{}", '"x"', '{"stages": 3}'):
        index.write_text(content)
        with pytest.raises(ValueError, match="cascade.json"):
            cascade.Cascade.load(str(tmp_path))
    index.write_text(json.dumps({"format": 7, "stages": ["stage_1"]}))
    with pytest.raises(ValueError, match="cascade.json has format 7, and .* reads 1:"):
        cascade.Cascade.load(str(tmp_path))
    index.write_text(json.dumps({"format": 1, "stages": ["stage_1"]}))
    with pytest.raises(ValueError, match="stage_1 is no folder of a stage"):
        cascade.Cascade.load(str(tmp_path))


def test_a_stage_that_a_kill_left_aside_is_put_back_before_anything_is_loaded(tmp_path):
    """deeppose-predict looks at the files of a run before it loads the model."""
    (tmp_path / "cascade.json").write_text('{"format": 1, "stages": ["stage_1"]}')
    with pytest.raises(ValueError, match="stage_1 is no folder of a stage"):
        check_run(str(tmp_path))
    aside = files.hidden(tmp_path / "stage_1", "replaced")
    aside.mkdir()
    (aside / "stage.json").write_text("{}")
    assert check_run(str(tmp_path)) == [str(tmp_path / "stage_1")]
    assert not aside.exists() and (tmp_path / "stage_1" / "stage.json").exists()
