"""Augmentation: the picture and its labels move together, whatever is drawn.

Most tests draw a dot at a joint, augment, find the dot in the crop and compare it with
the target. One canvas shows one joint's dot, so a dot that lands at the wrong joint is
as wrong as one that lands elsewhere.
"""

import dataclasses
import functools
import math

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import geometry, sampling
from deeppose_tf.config import StageConfig
from deeppose_tf.pipelines.data import augment, canvases
from deeppose_tf.pipelines.data.augment import (
    DRAWS,
    View,
    view_maps,
    view_normalize,
)
from deeppose_tf.pipelines.data.config import AugmentConfig, InputConfig
from deeppose_tf.skeleton import LSP

HEIGHT, WIDTH = 180, 310
BOX = [60, 8, 270, 172]
K = len(LSP.joints)
MIRROR = np.array(LSP.mirror)
SIDE = 64
STAGE = StageConfig(size=SIDE, margin=0.2, sigma=2.0)
EVERYTHING = AugmentConfig(flip=True, translation=0.1, scale=0.25, rotation=40)
GEOMETRIC = {
    "nothing": AugmentConfig(),
    "flip": AugmentConfig(flip=True),
    "translation": AugmentConfig(translation=0.15),
    "scale": AugmentConfig(scale=0.3),
    "rotation": AugmentConfig(rotation=60),
    "everything": EVERYTHING,
}
MEAN = np.linspace([-0.1, 0.15], [0.12, -0.05], K).astype(np.float32)
COVARIANCE = np.tile(np.float32([[0.02, 0.008], [0.008, 0.01]]), (K, 1, 1))


@pytest.fixture
def random():
    return np.random.default_rng(5)


def pose(random):
    """Keypoints [K, 2] in the middle of BOX, an image wider than high."""
    return random.uniform([105, 45], [225, 135], (K, 2)).astype(np.float32)


def dots(keypoints, radius=5.0):
    """One image per joint, a soft dot on grey at its place: [K, H, W, 3] uint8."""
    x, y = np.arange(WIDTH) + 0.5, np.arange(HEIGHT)[:, None] + 0.5
    center = keypoints[:, :, None, None]
    distance = (x - center[:, 0]) ** 2 + (y - center[:, 1]) ** 2
    dot = 128 + 127 * np.exp(-distance / (2 * radius**2))
    return np.repeat(np.round(dot)[..., None], 3, -1).astype(np.uint8)


def centroids(crops):
    """[M, S, S, 3] -> [M, 2] normalized: the middle of what is not grey."""
    mass = np.asarray(crops, np.float64).sum(-1)
    at = (np.arange(mass.shape[1]) + 0.5) / mass.shape[1] - 0.5
    x, y = (mass * at).sum((1, 2)), (mass * at[:, None]).sum((1, 2))
    return np.stack([x, y], -1) / mass.sum((1, 2))[:, None]


def canvases_of(images, keypoints, side=288):
    """As the pipeline cuts them: [K, C, C, 3], keypoints and boxes of the canvas."""
    config = InputConfig(canvas=side, batch=1)
    box = np.float32(BOX)
    (halvings,), (origin,) = canvases.place(box[None], config)
    cut = [canvases.cut(image, halvings, origin, side) for image in images]
    factor, count = np.float32(0.5**halvings), len(images)
    origin = origin.astype(np.float32)
    boxes = tf.constant(box * factor - np.tile(origin, 2))
    return (
        tf.constant(np.stack(cut)),
        tf.repeat((keypoints * factor - origin)[None], count, 0),
        tf.repeat(boxes[None], count, 0),
    )


def batch(random, people=3, labels=0.8):
    """Canvases of noise, keypoints, labels and boxes of `people`."""
    return (
        tf.constant(random.integers(0, 256, (people, 96, 96, 3)), tf.uint8),
        tf.constant(random.uniform(20, 76, (people, K, 2)), tf.float32),
        tf.constant(random.random((people, K)) < labels),
        tf.constant([[10, 5, 80, 90]] * people, tf.float32),
    )


def uniform(random, *shape, **fixed):
    """Draws [..., D]; keyword arguments are values for draws by name."""
    draws = random.random((*shape, len(DRAWS))).astype(np.float32)
    for name, value in fixed.items():
        draws[..., DRAWS.index(name)] = value
    return tf.constant(draws)


def pose_examples(canvases, keypoints, labeled, boxes, draws, **options):
    stage = options.pop("stage", STAGE)
    config = options.pop("config", EVERYTHING)
    return augment.pose_examples(
        canvases, keypoints, labeled, boxes, draws, LSP, stage, config, **options
    )


def joint_examples(canvases, keypoints, labeled, boxes, draws, **options):
    del boxes
    options = {
        "mean": MEAN,
        "covariance": COVARIANCE,
        "skeleton": LSP,
        "stage": STAGE,
        "config": EVERYTHING,
        **options,
    }
    return augment.joint_examples(canvases, keypoints, labeled, draws, **options)


BOTH = pytest.mark.parametrize("examples", [pose_examples, joint_examples])


def check_dots(crops, target):
    """Dots well inside their crop lie within 0.15 px of the target; [M, 2]."""
    inside = (np.abs(target) < 0.36).all(-1)
    assert inside.mean() > 0.5
    found = centroids(crops)[inside] * SIDE
    np.testing.assert_allclose(found, target[inside] * SIDE, atol=0.15)


@pytest.mark.parametrize("square", [False, True])
@pytest.mark.parametrize("kind", GEOMETRIC)
def test_dots_of_whole_people(random, kind, square):
    keypoints, views = pose(random), 6
    canvases, keypoints, boxes = canvases_of(dots(keypoints), keypoints)
    draws = tf.repeat(uniform(random, 1, views), K, 0)  # The same views of every dot.
    stage = dataclasses.replace(STAGE, square=square)
    labeled = tf.ones([K, K], tf.bool)
    found = pose_examples(
        canvases, keypoints, labeled, boxes, draws, stage=stage, config=GEOMETRIC[kind]
    )
    joint = np.repeat(np.arange(K), views)
    flips = draws.numpy().reshape(K * views, -1)[:, DRAWS.index("flip")] < 0.5
    if GEOMETRIC[kind].flip:
        assert flips.any() and not flips.all()
        joint = np.where(flips, MIRROR[joint], joint)
    check_dots(found.crops, found.target.numpy()[np.arange(K * views), joint])


@pytest.mark.parametrize("kind", GEOMETRIC)
def test_dots_of_displaced_joints(random, kind):
    keypoints, views = pose(random), 8
    canvases, keypoints, boxes = canvases_of(dots(keypoints), keypoints)
    chosen = (np.arange(K)[:, None] + 0.5) / K  # The joint whose dot the canvas shows.
    draws = uniform(random, K, views, joint=chosen)
    labeled = tf.ones([K, K], tf.bool)
    found = joint_examples(
        canvases, keypoints, labeled, boxes, draws, config=GEOMETRIC[kind]
    )
    weight = found.weight.numpy()
    np.testing.assert_array_equal(weight.sum(1), 1)
    joint, source = weight.argmax(1), np.repeat(np.arange(K), views)
    flips = draws.numpy().reshape(K * views, -1)[:, DRAWS.index("flip")] < 0.5
    flips &= GEOMETRIC[kind].flip
    np.testing.assert_array_equal(joint, np.where(flips, MIRROR[source], source))
    target = found.target.numpy()[np.arange(K * views), joint]
    assert (np.abs(target).max(-1) > 0.02).mean() > 0.9  # Displaced, indeed.
    check_dots(found.crops, target)


def test_a_person_larger_than_the_canvas_keeps_their_dots(random):
    keypoints = pose(random)
    canvases, keypoints, boxes = canvases_of(dots(keypoints), keypoints, side=160)
    labeled = tf.ones([K, K], tf.bool)
    draws = uniform(random, K, 2, flip=0.9)
    found = pose_examples(canvases, keypoints, labeled, boxes, draws)
    joint = np.repeat(np.arange(K), 2)
    check_dots(found.crops, found.target.numpy()[np.arange(2 * K), joint])


@pytest.mark.parametrize("square", [False, True])
def test_without_augmentation_stage_one_sees_what_the_cascade_sees(random, square):
    canvases, keypoints, labeled, boxes = batch(random)
    stage = dataclasses.replace(STAGE, square=square)
    found = pose_examples(
        canvases,
        keypoints,
        labeled,
        boxes,
        uniform(random, 3, 1),
        stage=stage,
        config=AugmentConfig(),
    )
    first = geometry.first_boxes(boxes, stage.margin, stage.square)
    crops = sampling.crop(sampling.pyramid(canvases), first, tf.range(3), SIDE)
    np.testing.assert_allclose(found.crops, crops, atol=1e-4)
    target = np.where(
        labeled.numpy()[..., None], geometry.normalize(keypoints, first), 0
    )
    np.testing.assert_allclose(found.target, target, atol=1e-5)
    np.testing.assert_array_equal(found.weight, labeled.numpy())


def test_undisplaced_joints_are_what_the_cascade_sees(random):
    canvases, keypoints, labeled, boxes = batch(random, labels=1)
    mean, covariance = np.zeros([K, 2], np.float32), np.zeros([K, 2, 2], np.float32)
    found = joint_examples(
        canvases,
        keypoints,
        labeled,
        boxes,
        uniform(random, 3, K, joint=(np.arange(K) + 0.5) / K),
        mean=mean,
        covariance=covariance,
        config=AugmentConfig(),
    )
    diameters = geometry.pose_diameter(keypoints, labeled, LSP)
    joints = tf.reshape(
        geometry.joint_boxes(keypoints, diameters, STAGE.sigma), [-1, 4]
    )
    indices = tf.repeat(tf.range(3), K)
    crops = sampling.crop(sampling.pyramid(canvases), joints, indices, SIDE)
    np.testing.assert_allclose(found.crops, crops, atol=5e-4)  # 1e-4 px of noise.
    np.testing.assert_allclose(found.target, np.zeros([3 * K, K, 2]), atol=1e-5)
    np.testing.assert_array_equal(found.weight, np.tile(np.eye(K), (3, 1)))


@pytest.mark.parametrize(
    ("config", "draws", "expected"),
    [
        # The joint lies 20 px right of and 10 px below the centre of a 100 x 50 box.
        ({}, {}, (0.2, 0.2)),
        ({"flip": True}, {"flip": 0.49}, (-0.2, 0.2)),
        ({"flip": True}, {"flip": 0.5}, (0.2, 0.2)),
        # The box moves right and up by a tenth of its size.
        ({"translation": 0.1}, {"shift_x": 1, "shift_y": 0}, (0.1, 0.3)),
        # It grows to twice its size, or shrinks to half of it.
        ({"scale": math.log(2)}, {"scale": 1}, (0.1, 0.1)),
        ({"scale": math.log(2)}, {"scale": 0}, (0.4, 0.4)),
        # A quarter turn clockwise: (20, 10) -> (-10, 20).
        ({"rotation": 90}, {"rotation": 1}, (-0.1, 0.4)),
        ({"rotation": 90}, {"rotation": 0}, (0.1, -0.4)),
        # Turned first, then mirrored.
        ({"rotation": 90, "flip": True}, {"rotation": 1, "flip": 0}, (0.1, 0.4)),
    ],
)
def test_how_far_each_draw_goes(random, config, draws, expected):
    keypoints = np.full((1, K, 2), [120, 60], np.float32)
    middle = {name: 0.5 for name in DRAWS}
    found = pose_examples(
        tf.zeros([1, 128, 256, 3], tf.uint8),
        keypoints,
        tf.ones([1, K], tf.bool),
        tf.constant([[50.0, 25, 150, 75]]),
        uniform(random, 1, 1, **{**middle, **draws}),
        stage=dataclasses.replace(STAGE, margin=0.0),
        config=AugmentConfig(**config),
    )
    np.testing.assert_allclose(found.target[0, 0], expected, atol=1e-6)


def test_views_map_there_and_back(random):
    """`view_maps` takes a pixel of the crop to where `view_normalize` puts it."""
    views = 20
    corner = random.uniform(-50, 100, (views, 2))
    size = random.uniform(10, 200, (views, 2))
    view = View(
        tf.constant(np.concatenate([corner, corner + size], 1), tf.float32),
        tf.constant(random.uniform(-4, 4, views), tf.float32),
        tf.constant(np.arange(views) % 2 == 0),
        tf.range(views),
    )
    pixels = random.uniform(-20, SIDE + 20, (views, 9, 2))
    maps = view_maps(view, SIDE).numpy()
    points = np.einsum("mij,mkj->mki", maps[..., :2], pixels) + maps[:, None, :, 2]
    found = view_normalize(view, tf.constant(points, tf.float32))
    np.testing.assert_allclose((found.numpy() + 0.5) * SIDE, pixels, atol=1e-3)
    determinant = np.linalg.det(maps[..., :2])
    np.testing.assert_array_equal(determinant < 0, view.flips)


def test_flips_exchange_the_labels_too(random):
    canvases, keypoints, _, boxes = batch(random, 1)
    labeled = np.ones((1, K), bool)
    labeled[0, [0, 4, 6, 13]] = False  # The head top, 13, has no partner.
    draws = uniform(random, 1, 2)
    draws = tf.constant(draws.numpy() * 0 + [[[0.1], [0.9]]], tf.float32)
    found = pose_examples(canvases, keypoints, labeled, boxes, draws)
    mirrored = labeled[0, MIRROR]
    assert (mirrored != labeled[0]).any()
    np.testing.assert_array_equal(found.weight, [mirrored, labeled[0]])


@BOTH
@pytest.mark.parametrize("garbage", [np.nan, np.inf, 3e38, -1e9])
def test_unlabeled_joints_leave_no_trace(random, examples, garbage):
    """LSPET has meaningless points there, and NaN times zero is NaN."""
    canvases, keypoints, labeled, boxes = batch(random, labels=0.5)
    draws = uniform(random, 3, 20)
    clean = examples(canvases, keypoints, labeled, boxes, draws)
    spoilt = tf.where(labeled[..., None], keypoints, garbage)
    found = examples(canvases, spoilt, labeled, boxes, draws)
    for one, other in zip(found, clean, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, other)
    weight = found.weight.numpy()
    assert set(np.unique(weight)) == {0, 1}
    assert not found.target.numpy()[weight == 0].any()


@BOTH
@pytest.mark.parametrize("labels", [0, 1])
def test_nobody_labeled(random, examples, labels):
    """No joint at all; or a single one, which makes a pose but has no diameter."""
    canvases, _, _, boxes = batch(random)
    keypoints = tf.fill([3, K, 2], np.nan)
    labeled = np.zeros((3, K), bool)
    if labels:
        labeled[:, 0] = True
        keypoints = tf.where(labeled[..., None], 50.0, keypoints)
    found = examples(canvases, keypoints, labeled, boxes, uniform(random, 3, 4))
    assert all(np.isfinite(part).all() for part in found)
    expected = labels if examples is pose_examples else 0
    np.testing.assert_array_equal(found.weight.numpy().sum(1), expected)


def test_every_labeled_joint_is_chosen_equally_often(random):
    canvases, keypoints, labeled, boxes = batch(random, 1, labels=0.5)
    known, views = int(labeled.numpy().sum()), 40
    assert 1 < known < K
    draws = uniform(random, 1, known * views, flip=0.9)
    spread = (np.arange(known * views) + 0.5) / (known * views)
    draws = draws.numpy()
    draws[0, :, DRAWS.index("joint")] = spread
    found = joint_examples(canvases, keypoints, labeled, boxes, tf.constant(draws))
    expected = np.where(labeled[0], views, 0)
    np.testing.assert_array_equal(found.weight.numpy().sum(0), expected)


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-24])
def test_the_ends_of_the_draws(random, draw):
    canvases, keypoints, labeled, boxes = batch(random, labels=0.5)
    draws = tf.fill([3, 1, len(DRAWS)], np.float32(draw))
    for examples in (pose_examples, joint_examples):
        found = examples(canvases, keypoints, labeled, boxes, draws)
        assert all(np.isfinite(part).all() for part in found)
        assert (found.weight.numpy().sum(1) > 0).all()


def displacements(found, joint):
    """delta in diameters: N(y; b) for b about y + delta, sigma diameters wide."""
    rows = found.weight.numpy()[:, joint] == 1
    return -STAGE.sigma * found.target.numpy()[rows, joint]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("displacement", [1.0, 0.5])
def test_displacements_have_the_statistics_they_are_drawn_from(
    random, flip, displacement
):
    """Also in mirror images, where left and right have each other's statistics."""
    left, right, views = 10, 7, 1500  # Elbows.
    canvases, keypoints, _, boxes = batch(random, 1)
    covariance = COVARIANCE * np.linspace(0.5, 2, K, dtype=np.float32)[:, None, None]
    found = joint_examples(
        canvases,
        keypoints,
        tf.ones([1, K], tf.bool),
        boxes,
        uniform(random, 1, views, joint=(left + 0.5) / K),
        covariance=covariance,
        stage=dataclasses.replace(STAGE, size=32),
        config=AugmentConfig(flip=flip, displacement=displacement),
    )
    for joint in (left, right) if flip else (left,):
        deltas = displacements(found, joint)
        n = len(deltas)
        assert n > 0.4 * views
        # Five standard errors of a mean, of a variance, and of a covariance at most.
        expected = displacement**2 * covariance[joint]
        variances = np.diag(expected)
        error = 5 * np.sqrt(variances / n)
        assert (np.abs(deltas.mean(0) - MEAN[joint]) < error).all()
        error = 5 * np.sqrt(2 / n) * np.sqrt(np.outer(variances, variances))
        assert (np.abs(np.cov(deltas, rowvar=False) - expected) < error).all()


def test_no_displacement_shows_joints_as_predicted_on_average(random):
    canvases, keypoints, labeled, boxes = batch(random)
    config = AugmentConfig(displacement=0.0, flip=True)
    draws = uniform(random, 3, 30)
    found = joint_examples(canvases, keypoints, labeled, boxes, draws, config=config)
    joint = found.weight.numpy().argmax(1)
    target = found.target.numpy()[np.arange(90), joint]
    np.testing.assert_allclose(-STAGE.sigma * target, MEAN[joint], atol=1e-4)


@BOTH
def test_the_same_draws_give_the_same_crops_in_any_batch(random, examples):
    """Up to the last bit of a cosine, which depends on where in a vector it stands."""
    people, draws = batch(random), uniform(random, 3, 4)
    together = examples(*people, draws)
    for person in range(3):
        for view in range(4):
            alone = examples(
                *(part[person : person + 1] for part in people),
                draws[person : person + 1, view : view + 1],
            )
            for one, other in zip(alone, together, strict=True):
                np.testing.assert_allclose(one[0], other[4 * person + view], atol=1e-4)


ALL = dataclasses.replace(EVERYTHING, brightness=0.2, contrast=0.3, colour=0.1)


@BOTH
def test_eager_compiled_and_in_a_dataset(random, examples):
    people, draws = batch(random), uniform(random, 3, 2)
    examples = functools.partial(examples, config=ALL)
    direct = examples(*people, draws)
    compiled = functools.partial(tf.function, examples, autograph=False)
    graph = compiled()(*people, draws)
    with tf.device("CPU:1"):  # See the tests of placement below.
        xla = compiled(jit_compile=True)(*people, draws)
    assert xla.crops.device.endswith("CPU:1")
    dataset = tf.data.Dataset.from_tensor_slices((*people, draws)).batch(3, True)
    (mapped,) = dataset.map(examples)
    for other in (graph, xla, mapped):
        for one, expected in zip(other, direct, strict=True):
            assert one.dtype == tf.float32
            np.testing.assert_allclose(one, expected, atol=2e-4)


@BOTH
def test_colour_leaves_geometry_alone(random, examples):
    people, draws = batch(random), uniform(random, 3, 3)
    plain = examples(*people, draws)
    changed = examples(*people, draws, config=ALL)
    np.testing.assert_array_equal(changed.target, plain.target)
    np.testing.assert_array_equal(changed.weight, plain.weight)
    # Brightness, contrast and colour are one linear function per crop and channel.
    draw = dict(zip(DRAWS, 2 * draws.numpy().reshape(9, -1).T - 1, strict=True))
    gain = np.exp(0.3 * draw["contrast"])
    colours = np.stack([draw[name] for name in ("red", "green", "blue")], -1)
    shift = 0.2 * draw["brightness"][:, None] + 0.1 * colours
    expected = plain.crops * gain[:, None, None, None] + shift[:, None, None]
    np.testing.assert_allclose(changed.crops, np.clip(expected, -1, 1), atol=1e-5)


@BOTH
@pytest.mark.parametrize("device", ["CPU:0", "CPU:1"])
@pytest.mark.parametrize("compiled", [False, True])
def test_augmentation_runs_on_the_device_it_is_given(
    random, examples, device, compiled
):
    """Two virtual devices (see conftest.py); the batch comes from the first."""
    with tf.device("CPU:0"):
        people, draws = batch(random), uniform(random, 3, 2)
    with tf.device(device):
        found = (tf.function(examples) if compiled else examples)(*people, draws)
    for part in found:
        assert part.device.endswith(device)


@BOTH
def test_a_gpu_is_given_the_same_examples(random, examples):
    """By XLA, of which a GPU gets another order of the same sums: places in pixels are
    rounded otherwise, by some 4e-6."""
    people, draws = batch(random), uniform(random, 3, 2)
    compiled = tf.function(examples, jit_compile=True, autograph=False)
    for one, other in zip(
        compiled(*people, draws),
        compiled(*people, draws, on_gpu=True),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_each_replica_augments_its_own_share(random):
    devices = ["CPU:0", "CPU:1"]
    strategy = tf.distribute.MirroredStrategy(devices)
    people, draws = batch(random, 4), uniform(random, 4, 2)
    dataset = tf.data.Dataset.from_tensors((*people, draws)).unbatch().batch(4)
    (share,) = strategy.experimental_distribute_dataset(dataset)
    compiled = tf.function(pose_examples)
    found = strategy.run(lambda *values: compiled(*values).crops, share)
    crops = strategy.experimental_local_results(found)
    assert [part.device[-5:] for part in crops] == devices
    together = pose_examples(*people, draws).crops
    np.testing.assert_allclose(np.concatenate(crops), together, atol=1e-4)
