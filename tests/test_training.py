"""The loop: what a run learns, remembers through kills, refuses and warns of."""

import contextlib
import dataclasses
import functools
import gc
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import weakref

import numpy as np
import pytest
import safetensors.numpy
import tensorflow as tf
import toy_training as toy

from deeppose_tf import cascade, geometry, networks
from deeppose_tf.datasets import generated
from deeppose_tf.pipelines.data import canvases, inputs, records
from deeppose_tf.pipelines.train import cascade as train_cascade
from deeppose_tf.pipelines.train import fingerprint, recipes, strategies, validation
from deeppose_tf.pipelines.train import loop as training
from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.pipelines.train.recipes import TrainConfig
from deeppose_tf.skeleton import COCO, FLIC, LSP, MPII
from deeppose_tf.stage import (
    Stage,
    StageConfig,
    build_stage,
    load_stage,
    save_stage,
    warm_start,
)

keras = tf.keras

CONFIG = TrainConfig(steps=10, optimizer="sgd", learning_rate=0.05)


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return toy.make_index(tmp_path_factory.mktemp("figures"))


@pytest.fixture
def plain(monkeypatch):
    """For tests of runs that look neither at crops nor at scores."""
    for module, name, value in toy.PLAIN:
        monkeypatch.setattr(module, name, value)


@pytest.fixture
def untrained(plain, monkeypatch):
    """For tests of what a network begins as: it is saved so."""

    def train(state, *rest):
        state.averaged.set_weights(state.model.get_weights())

    monkeypatch.setattr(training, "train", train)


def identity(crops, target, weight):
    return crops, target, weight


def one_batch(seed=0, people=6):
    """Crops whose joints all lie where the mean of the red and green channels say."""
    chance = np.random.default_rng(seed)
    level = chance.uniform(-0.5, 0.5, (people, 1, 1, 3)).astype(np.float32)
    crops = np.broadcast_to(level, (people, 32, 32, 3))
    target = np.broadcast_to(level[:, 0, :, :2], (people, toy.JOINTS, 2))
    return tf.constant(crops), tf.constant(target), tf.ones([people, toy.JOINTS])


def state_and_step(config, build=toy.dense):
    strategy = strategies.make_strategy("one")
    state = steps.make_state(build, config, strategy)
    return state, steps.make_step(state, identity, config, strategy)


def test_the_loss_falls():
    state, step = state_and_step(
        dataclasses.replace(CONFIG, optimizer="adam", learning_rate=0.003)
    )
    losses = [float(step(one_batch())) for _ in range(30)]
    # A network of zeros errs by the targets themselves; the loss is theirs, squared.
    expected = toy.JOINTS * np.mean(np.sum(one_batch()[1].numpy()[:, 0] ** 2, -1))
    np.testing.assert_allclose(losses[0], expected, rtol=1e-5)
    assert losses[-1] < 0.05 * losses[0]
    assert int(state.step) == 30


def test_a_step_of_gradient_descent_by_hand():
    """Keras's SGD with momentum: the first step is the rate times the gradient."""
    state, step = state_and_step(CONFIG)
    crops, target, weight = one_batch()
    weight = weight.numpy()
    weight[:, 3] = 0  # nobody has joint 3 labeled
    step((crops, target, tf.constant(weight)))
    bias = state.model.trainable_variables[1].numpy().reshape(toy.JOINTS, 2)
    # d/db mean((b - t)^2) = -2 mean(t) at b = 0.
    expected = 0.05 * 2 * target.numpy().mean(axis=0) * weight[0][:, None]
    np.testing.assert_allclose(bias, expected, rtol=1e-4, atol=1e-7)
    assert not bias[3].any()


def test_adagrad_starts_from_the_accumulator_of_the_recipe():
    """From zero its first step is the rate itself: g / sqrt(0 + g^2)."""
    config = dataclasses.replace(CONFIG, optimizer="adagrad", initial_accumulator=0.0)
    state, step = state_and_step(config)
    step(one_batch())
    bias = state.model.trainable_variables[1].numpy().reshape(toy.JOINTS, 2)
    expected = 0.05 * np.sign(one_batch()[1].numpy().mean(axis=0))
    np.testing.assert_allclose(bias, expected, rtol=1e-3)


def test_a_backbone_takes_its_share_of_each_step():
    """Adam's first steps are the rate, whatever the gradient: a tenth of it for all but
    the last layer, whose step is as that of a network without a share."""
    config = dataclasses.replace(CONFIG, optimizer="adam", learning_rate=0.01)
    moved = []
    for share in (1.0, 0.1):
        shared = dataclasses.replace(config, backbone_rate=share)
        state, step = state_and_step(shared, toy.forgetful)
        before = [weight.numpy() for weight in state.model.trainable_variables]
        step(one_batch())
        after = [weight.numpy() for weight in state.model.trainable_variables]
        moved.append([x - y for x, y in zip(after, before, strict=True)])
    *backbone, kernel, bias = zip(*moved, strict=True)
    assert len(backbone) == 4  # of a convolution and of normalisation
    for whole, part in backbone:
        np.testing.assert_allclose(part, whole / 10, atol=2e-7)
        assert np.abs(whole).max() > 0.005
    for whole, part in (kernel, bias):
        np.testing.assert_allclose(part, whole, atol=1e-7)


def test_the_running_average_against_numpy():
    config = dataclasses.replace(CONFIG, ema=0.3)
    state, step = state_and_step(config, toy.forgetful)
    expected = [weight.numpy() for weight in state.model.weights]
    for done in range(1, 6):
        step(one_batch(done))
        # It follows faster at first: 2/11, 3/12, 4/13 = 0.308 > 0.3.
        decay = min(0.3, (1 + done) / (10 + done))
        for i, weight in enumerate(state.model.weights):
            expected[i] = decay * expected[i] + (1 - decay) * weight.numpy()
    for average, value in zip(state.averaged.weights, expected, strict=True):
        np.testing.assert_allclose(average.numpy(), value, rtol=1e-5, atol=1e-6)


def test_without_an_average_the_last_weights_count(index, tmp_path, monkeypatch):
    """And they are copied when they are looked at, not at every step."""
    states = []
    original = steps.make_state
    monkeypatch.setattr(
        steps, "make_state", lambda *a: states.append(original(*a)) or states[-1]
    )
    result = toy.train(index, tmp_path, dataclasses.replace(CONFIG, steps=3))
    assert result is states[0].averaged
    for average, weight in zip(
        result.get_weights(), states[0].model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(average, weight)
    assert np.abs(result.get_weights()[0]).max() > 0


def test_learning_rates():
    constant = TrainConfig(learning_rate=0.5, steps=100)
    assert steps.learning_rate(constant) == 0.5
    cosine = TrainConfig(learning_rate=0.5, steps=100, schedule="cosine", warmup=0.2)
    rate = steps.learning_rate(cosine)
    # Ten of twenty steps up, the top, half of the eighty steps down, the end.
    found = [float(rate(step)) for step in (0, 10, 20, 60, 100)]
    np.testing.assert_allclose(found, [0, 0.25, 0.5, 0.25, 0], atol=1e-6)
    cold = steps.learning_rate(dataclasses.replace(cosine, warmup=0.0))
    np.testing.assert_allclose(
        [cold(0), cold(50), cold(100)], [0.5, 0.25, 0], atol=1e-6
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schedule", "linear"),
        ("loss", "huber"),
        ("precision", "mixed_float16"),
        ("steps", 0),
    ],
)
def test_settings_are_checked(field, value):
    with pytest.raises(ValueError, match=field):
        TrainConfig(**{field: value})


@pytest.mark.parametrize("chunk", [0, 4])
def test_resumed_equals_uninterrupted(index, tmp_path, monkeypatch, chunk):
    """Weights, moments, averages, dropout, the place in the epoch and what is drawn: to
    the bit. On a GPU steps are compiled in chunks, of which the stop leaves a part."""
    if chunk:
        monkeypatch.setattr(steps, "suits_xla", lambda *_: True)
        monkeypatch.setattr(steps, "CHUNK", chunk)
    config = dataclasses.replace(toy.RECIPE.train, steps=9)

    def stopped(step):
        if step == 8:
            raise KeyboardInterrupt
        return {}

    given = {"build": toy.forgetful, "cache": "device" if chunk else "memory"}
    train = functools.partial(toy.train, index, config=config, **given)
    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", evaluate=stopped)
    seen = []
    cut = train(tmp_path / "cut", evaluate=lambda step: seen.append(step) or {})
    assert seen == [9]  # It went on from the checkpoint that the stop wrote.
    for one, other in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_an_optimizer_of_addons_resumes_too(index, tmp_path):
    pytest.importorskip("tensorflow_addons")
    config = dataclasses.replace(CONFIG, optimizer="addons.LAMB", steps=4, ema=0.5)
    whole = toy.train(index, tmp_path / "whole", config, evaluations=2)

    def stopped(step):
        if step == 4:
            raise KeyboardInterrupt
        return {}

    arguments = index, tmp_path / "cut", config
    with pytest.raises(KeyboardInterrupt):
        toy.train(*arguments, evaluate=stopped, evaluations=2)
    cut = toy.train(*arguments, evaluations=2)
    for one, other in zip(whole.get_weights(), cut.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.abs(whole.get_weights()[0]).max() > 0


@pytest.mark.parametrize("where", ["evaluation", "step", "saving", "reading"])
def test_a_kept_error_keeps_no_batches(index, tmp_path, monkeypatch, where):
    """Collected with the error at any time, their iterator's threads could be waiting
    for the thread that Python collects in, and the suite stood still once."""
    seen, started = [], training._started

    def watched(*arguments):
        run, ahead = started(*arguments)
        seen.append(weakref.ref(ahead))

        def failing(batches, count):
            run(batches, count)
            raise KeyboardInterrupt

        return (failing if where in ("step", "saving") else run), ahead

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "_started", watched)
    if where == "reading":
        monkeypatch.setattr(canvases.People, "take", fail)
    if where == "saving":  # while the first error is on its way
        monkeypatch.setattr(training.Checkpoints, "save", fail)
    gc.disable()
    try:
        with pytest.raises((KeyboardInterrupt, tf.errors.UnknownError)) as kept:
            toy.train(index, tmp_path, CONFIG, evaluate=fail, cache="none")
        assert kept.tb and [one() for one in seen] == [None]
    finally:
        gc.enable()


def test_a_kept_error_of_an_evaluation_keeps_no_batches_either():
    class Failing:
        def __next__(self):
            raise KeyboardInterrupt

    class Batches:
        def __iter__(self):
            started = Failing()
            seen.append(weakref.ref(started))
            return started

    seen = []
    with pytest.raises(KeyboardInterrupt) as kept:
        validation._predict(None, Batches())
    assert kept.tb and [one() for one in seen] == [None]


def test_a_finished_run_is_read_back(index, tmp_path):
    first = toy.train(index, tmp_path, CONFIG)
    again = toy.train(index, tmp_path, CONFIG, evaluate=pytest.fail)
    for one, other in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def small_state():
    return steps.make_state(toy.dense, CONFIG, strategies.make_strategy("one"))


def save_two(folder):
    """Checkpoints of steps 1 and 2, whose first weight is 1 and 2."""
    state = small_state()
    keeper = training.Checkpoints(state, folder, strategies.make_strategy("one"))
    for step in (1, 2):
        state.step.assign(step)
        state.model.weights[1].assign(np.full(2 * toy.JOINTS, step))
        keeper.save(step)


def restored(folder):
    state = small_state()
    strategy = strategies.make_strategy("one")
    training.Checkpoints(state, folder, strategy).restore()
    return int(state.step), state.model.weights[1].numpy()[0]


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, suffix, damage):
    save_two(tmp_path)
    assert restored(tmp_path) == (2, 2)
    file = tmp_path / f"ckpt-2{suffix}"
    content = file.read_bytes()
    file.unlink()
    if damage != "missing":
        file.write_bytes(content[: len(content) // 2 if damage == "truncated" else 0])
    assert restored(tmp_path) == (1, 1)


def test_what_lies_in_the_folder_counts(tmp_path, caplog):
    """One text file named the checkpoints: with it damaged, a stage began from zero."""
    save_two(tmp_path)
    (tmp_path / "checkpoint").write_text("damaged")
    (tmp_path / "ckpt-9.index.tempstate1").write_text("by a kill")
    (tmp_path / "ckpt-9_temp").mkdir()
    assert restored(tmp_path) == (2, 2) and not caplog.records
    state = small_state()
    keeper = training.Checkpoints(state, tmp_path, strategies.make_strategy("one"))
    keeper.save(3)
    names = {path.name.partition(".")[0] for path in tmp_path.iterdir()}
    assert names == {"ckpt-2", "ckpt-3"}
    content = (tmp_path / "ckpt-3.index").read_bytes()
    (tmp_path / "ckpt-3.index").write_bytes(content[:-9])
    assert restored(tmp_path) == (2, 2)
    assert "ckpt-3 cannot be read, but one before: " in caplog.text


def test_no_flipped_bit_of_a_checkpoint_is_believed(tmp_path):
    """Each is found, or changes nothing: paddings and the like."""
    save_two(tmp_path)
    random, found = np.random.default_rng(0), []
    state, strategy = small_state(), strategies.make_strategy("one")
    for file in sorted(tmp_path.glob("ckpt-2.*")) * 20:
        content = bytearray(file.read_bytes())
        content[random.integers(len(content))] ^= 1 << random.integers(8)
        before = file.read_bytes()
        file.write_bytes(content)
        state.step.assign(0)
        state.model.set_weights([w - 1.0 for w in state.model.get_weights()])
        training.Checkpoints(state, tmp_path, strategy).restore()
        found.append(int(state.step))
        expected = np.zeros_like(state.model.weights[0])
        np.testing.assert_array_equal(state.model.weights[0], expected)
        assert (state.model.weights[1].numpy() == found[-1]).all()
        file.write_bytes(before)
    assert set(found) == {1, 2} or set(found) == {1}


@pytest.mark.parametrize("name", ["[1]", "a*", "a?", "a\\b"])
def test_folders_that_tensorflow_takes_for_patterns(tmp_path, name):
    """Checkpoints can be saved there, but are not found again."""
    with pytest.raises(ValueError, match="cannot read checkpoints below a name with"):
        training.Checkpoints(None, tmp_path / name, None)


def test_only_damaged_checkpoints(tmp_path):
    save_two(tmp_path)
    for file in tmp_path.glob("*.index"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match="none of the checkpoints .* can be read"):
        restored(tmp_path)


def test_a_checkpoint_of_another_network(index, tmp_path):
    toy.train(index, tmp_path, CONFIG)
    with pytest.raises(ValueError, match="none of the checkpoints"):
        toy.train(index, tmp_path, CONFIG, toy.forgetful)


def test_a_loss_that_is_not_a_number_stops(index, tmp_path):
    config = dataclasses.replace(CONFIG, learning_rate=1e30)
    with pytest.raises(training.TrainingError, match="Lower --learning_rate"):
        toy.train(index, tmp_path, config)
    # Nothing of it was kept.
    assert not list((tmp_path / "checkpoints").glob("ckpt*"))


def test_predictions_that_do_not_vary_are_a_collapse():
    report = {"spread": 0.01, "l2": 1.0, "pdj": 0.4, "baseline": 0.3}
    with pytest.raises(training.TrainingError, match="--overfit=16"):
        training.check_collapse(report, 600, 1000)
    # Too early in a long run, and in any run.
    training.check_collapse(report, 299, 1000)
    training.check_collapse(report, 299, 300)
    # They vary, or are better than the mean pose, whatever that reaches in PDJ.
    full = report | {"pdj": 1.0, "baseline": 1.0}
    training.check_collapse(full | {"spread": 1.046}, 600, 1000)
    training.check_collapse(full | {"l2": 0.95}, 600, 1000)
    # Stages that only refine are not judged, nor few people.
    training.check_collapse({"pdj": 0.1, "baseline": 0.3}, 600, 1000)


def test_the_guard_stops_a_collapsed_run(index, tmp_path, monkeypatch):
    """And keeps the checkpoints from before, for who wants to go on regardless."""
    monkeypatch.setattr(training, "FAIR_STEPS", 6)
    report = {"spread": 0.01, "l2": 1.0, "pdj": 0.4, "baseline": 0.3}
    arguments = index, tmp_path, CONFIG
    with pytest.raises(training.TrainingError, match="collapsed at step 10"):
        toy.train(*arguments, evaluate=lambda step: report, guard=True)
    assert (tmp_path / "checkpoints" / "ckpt-5.index").exists()
    toy.train(*arguments, evaluate=lambda step: report, guard=False)


def test_two_replicas_equal_one(index, tmp_path, mirrored):
    """Two virtual devices share each batch of six: they add up their gradients, take
    moments together and divide the masks of dropout. Sums in another order differ in
    the last digits. It goes on from a checkpoint, as one does."""
    config = dataclasses.replace(CONFIG, ema=0.5, learning_rate=1e-3, backbone_rate=0.5)
    compact = StageConfig("compact", 32, "linear", (4,), (0,), dropout=0.3)
    build = functools.partial(build_stage, compact, index.skeleton, None)
    train = functools.partial(toy.train, index, build=build)
    one = train(tmp_path / "one", config)
    half = dataclasses.replace(config, steps=5)
    train(tmp_path / "two", half, strategy=mirrored)
    two = train(tmp_path / "two", config, strategy=mirrored)
    for first, second in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_allclose(first, second, atol=2e-6)


def test_replicas_must_divide_a_batch(index):
    context = tf.distribute.InputContext(num_replicas_in_sync=4)
    with pytest.raises(ValueError, match="6 images, which 4 devices cannot share"):
        people = canvases.open_people(index, toy.RECIPE.inputs, "none")
        inputs.training_dataset(people, toy.RECIPE.inputs, 0, range(1), context)


@pytest.mark.parametrize("batch", [2, 4, 6])
def test_workers_share_a_batch(index, batch):
    """All workers have the same number of batches, and together those of one; also
    from a later step on, and two replicas each."""
    config = dataclasses.replace(toy.RECIPE.inputs, batch=2 * batch)
    people = canvases.open_people(index, config, "none")
    for first in (0, 3):
        make = functools.partial(
            inputs.training_dataset, people, config, 3, range(first, 7)
        )
        expected = [batch[1].numpy() for batch in make()]
        shared = [
            [batch[1].numpy() for batch in make(tf.distribute.InputContext(2, w, 4))]
            for w in range(2)
        ]
        assert len(shared[0]) == len(shared[1]) == 2 * len(expected)
        for step, whole in enumerate(expected):
            # Each worker has the batches of its replicas in turn.
            parts = [part for one in shared for part in one[2 * step : 2 * step + 2]]
            np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_bfloat16_keeps_its_state_in_float32(index, tmp_path):
    config = StageConfig("compact", 32, "integral", (4,), (1,))
    trained = toy.train(
        index,
        tmp_path,
        dataclasses.replace(
            CONFIG, precision="mixed_bfloat16", ema=0.5, map_weight=0.1
        ),
        lambda precision: build_stage(config, index.skeleton, precision=precision),
    )
    assert {
        weight.dtype.name for weight in map(tf.constant, trained.get_weights())
    } == {"float32"}
    crops = np.random.default_rng(0).uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    answer = trained(crops, training=False)
    assert answer.dtype == tf.float32
    assert np.isfinite(answer).all()


@pytest.fixture(scope="module")
def trained(index, tmp_path_factory):
    """A run of two stages, and what the terminal showed."""
    run = tmp_path_factory.mktemp("run")
    output = io.StringIO()
    options = dataclasses.replace(toy.QUIET, verbose=1)
    with contextlib.redirect_stdout(output):
        made = train_cascade.train_cascade(str(run), index, toy.recipe_for, 2, options)
    # It was returned without the displacements that are measured for the next stage.
    for one, saved in zip(
        made.stages, cascade.Cascade.load(str(run)).stages, strict=True
    ):
        np.testing.assert_array_equal(one.mean, saved.mean)
    return run, output.getvalue()


def test_a_cascade_is_trained_saved_and_logged(index, trained):
    run, output = trained
    loaded = cascade.Cascade.load(str(run))
    assert loaded.count == 2
    for stage in loaded.stages:
        assert stage.training["recipe"]["train"]["steps"] == 6
    first, last = loaded.stages
    assert np.isfinite(first.mean).all()
    # Variances of a network of six steps: not zero, not absurd.
    assert 1e-4 < np.linalg.det(first.covariance).mean() ** 0.5 < 10
    # They are measured for the stage that learns to undo them; nobody asks the last's.
    left = [first.mean.tolist(), first.covariance.tolist()]
    assert last.training["displacements"] == left and not last.covariance.any()
    assert "stage 1: 6 steps" in output and "crops/s" in output and "people/s" in output
    kept = run.glob("training_*/checkpoints/*.index")
    assert {path.name for path in kept} == {"ckpt-6.index"}
    assert {path.name for path in run.iterdir()} == {
        "cascade.json", "stage_1", "stage_2", "training_1", "training_2"
    }  # fmt: skip
    logged = set()
    for file in sorted((run / "training_1" / "logs").iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            logged |= {(event.step, value.tag) for value in event.summary.value}
    assert {(6, "held out"), (6, "pdj"), (6, "baseline")} <= logged
    # After each call of the compiled steps, of which the first does one.
    assert {(1, "loss"), (6, "loss")} <= logged


@pytest.mark.slow
@pytest.mark.parametrize("joints", [COCO, MPII], ids=["coco", "mpii"])
def test_all_joints_of_other_skeletons_are_trained(tmp_path, joints):
    """17 and 16, on figures of 14, some of which stand for several."""
    splits = {}
    for split in ("train", "validation"):
        people = generated.read(str(tmp_path / "figures"), split, toy.COUNTS)
        same = np.arange(len(joints.joints)) % toy.JOINTS
        splits[split] = dataclasses.replace(
            people,
            skeleton=joints,
            keypoints=people.keypoints[:, same],
            labeled=people.labeled[:, same],
        )
    index = records.write(splits, str(tmp_path / "data"))
    run = str(tmp_path / "run")
    made = train_cascade.train_cascade(run, index, toy.recipe_for, 2, toy.QUIET)
    image = np.zeros([40, 40, 3], np.uint8)
    found = cascade.Cascade.load(run).predict(image)["keypoints_by_stage"]
    assert made.skeleton == joints and found.shape == (1, 2, len(joints.joints), 2)
    statistics = made.stages[0].mean, made.stages[0].covariance
    assert all(np.isfinite(x).all() for x in (found, *statistics))
    assert np.linalg.det(statistics[1]).min() > 0  # of every joint


def test_a_finished_run_is_not_trained_again(index, trained, monkeypatch):
    """At the end all stages were read once more, which nobody asked for."""
    run, _ = trained
    before, read = contents(run / "stage_2"), []

    def load(folder):
        read.append(pathlib.Path(folder).name)
        return load_stage(folder)

    monkeypatch.setattr(train_cascade, "load_stage", load)
    made = train_cascade.train_stages(str(run), index, toy.recipe_for, 2, toy.QUIET)
    assert made == 2 and read == ["stage_1", "stage_1", "stage_2"]
    assert contents(run / "stage_2") == before


def named(run):
    return json.loads((run / "cascade.json").read_text())["stages"]


def test_a_run_trained_stage_by_stage_is_a_cascade_too(index, trained, tmp_path):
    """As if killed after a stage was saved, before the rest was done."""
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    (run / "cascade.json").unlink()
    for number in (1, 2):
        (run / f"training_{number}" / "checkpoints" / "ckpt-3.index").touch()
        recipe = toy.recipe_for(number)
        train_cascade.train_stage(str(run), number, index, recipe, toy.QUIET)
        assert named(run) == ["stage_1", "stage_2"][:number]
    assert not list(run.glob("training_*/checkpoints/ckpt-3.index"))
    # The same command for a stage that is done forgets no later one.
    train_cascade.train_stage(str(run), 1, index, toy.recipe_for(1), toy.QUIET)
    assert named(run) == ["stage_1", "stage_2"]
    # A cascade of fewer stages is asked for.
    train_cascade.train_cascade(str(run), index, toy.recipe_for, 1, toy.QUIET)
    assert named(run) == ["stage_1"]


def test_a_damaged_index_of_a_run_forgets_no_stage(index, trained, tmp_path):
    """A bit that makes it no text was an error that named no file; one in a name would
    have made it name the first stage alone."""
    shutil.copytree(trained[0], run := tmp_path / "run")
    whole = (run / "cascade.json").read_bytes()
    for change in (b"stage_1", b"stage_9"), (b"stage_1", b"stage_\xe5"):
        damaged = whole.replace(*change)
        (run / "cascade.json").write_bytes(damaged)
        with pytest.raises(ValueError, match="cascade.json is damaged"):
            train_cascade.train_stage(str(run), 1, index, toy.recipe_for(1), toy.QUIET)
        assert (run / "cascade.json").read_bytes() == damaged


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (dict(options=dataclasses.replace(toy.QUIET, seed=1)), "seed was 0, is 1"),
        (dict(recipe=toy.REFINER), r"recipe\.\w+\.\w+ was"),
        (dict(checksums={"train": "another"}), "other training images, labels or"),
        (dict(counts={"train": 12, "validation": 4}), r"counts\.train was .*, is 12"),
    ],
)
def test_other_settings_are_refused(index, trained, tmp_path, changed, named):
    """Of a finished stage and of one that was begun, before anything is changed."""
    options = changed.get("options", toy.QUIET)
    recipe = changed.get("recipe", toy.recipe_for(1))
    data = {key: changed[key] for key in changed if key in ("counts", "checksums")}
    index = dataclasses.replace(index, **data)
    run, _ = trained
    begun = tmp_path / "training_1"
    begun.mkdir()
    shutil.copy(run / "training_1" / "settings.json", begun)
    begin(begun)
    for folder in (run, tmp_path):
        with pytest.raises(ValueError, match=named):
            train_cascade.train_stage(str(folder), 1, index, recipe, options)
    kept = (run / "training_1" / "settings.json").read_bytes()
    assert (begun / "settings.json").read_bytes() == kept


def test_a_stage_begins_as_that_of_another_run(index, trained, tmp_path, plain):
    """After one step with a rate of zero its network is still the one it began as, up
    to the last layer, whose shape is that of the joints."""
    recipe = toy.recipe_for(1)
    train = dataclasses.replace(recipe.train, steps=1, learning_rate=0.0)
    recipe = dataclasses.replace(recipe, train=train)
    options = dataclasses.replace(toy.QUIET, start_from=str(trained[0]))
    stage = train_cascade.train_stage(str(tmp_path / "on"), 1, index, recipe, options)
    anew = train_cascade.train_stage(
        str(tmp_path / "anew"), 1, index, recipe, toy.QUIET
    )
    wanted = cascade.Cascade.load(trained[0]).stages[0].model.trainable_weights
    found = stage.model.trainable_weights
    for one, other in zip(found, wanted, strict=True):
        # The moving average rounds.
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    first = anew.model.trainable_weights[0].numpy()
    assert np.abs(first - wanted[0].numpy()).max() > 0.01
    # The same command goes on; from another start it is another run.
    train_cascade.train_stage(str(tmp_path / "on"), 1, index, recipe, options)
    with pytest.raises(ValueError, match="start_from was .*, is None"):
        train_cascade.train_stage(str(tmp_path / "on"), 1, index, recipe, toy.QUIET)


@pytest.mark.parametrize(
    "widths, others, joints, expected",
    [
        ((4, 8), (4, 16), "same", "own"),
        ((4, 16), (4, 16), "same", "other"),
        ((4, 8), (4, 8), "same", "other"),
        # But for its last layer it is the other run's.
        ((4, 8), (4, 8), "fewer", "other"),
    ],
)
def test_a_later_stage_begins_as_what_it_has_most_in_common_with(
    index, trained, tmp_path, untrained, capsys, widths, others, joints, expected
):
    """The other run's stage 2 has the widths `others`, its own stage before 4 and 8."""
    kept = load_stage(str(trained[0] / "stage_1"))
    two = dataclasses.replace(kept.config, widths=(4, 8), blocks=(0, 0))
    kept = dataclasses.replace(kept, config=two, model=build_stage(two, kept.skeleton))
    wider = dataclasses.replace(kept.config, widths=others)
    skeleton = kept.skeleton if joints == "same" else FLIC
    other = dataclasses.replace(
        kept,
        config=wider,
        skeleton=skeleton,
        model=build_stage(wider, skeleton),
        mean=kept.mean[: len(skeleton.joints)],
        covariance=kept.covariance[: len(skeleton.joints)],
    )
    save_stage(kept, str(tmp_path / "run" / "stage_1"))
    save_stage(other, str(tmp_path / "other" / "stage_2"))
    recipe = toy.recipe_for(2)
    recipe = dataclasses.replace(
        recipe,
        warm_start=True,
        stage=dataclasses.replace(kept.config, widths=widths),
    )
    options = dataclasses.replace(
        toy.QUIET, start_from=str(tmp_path / "other"), verbose=1
    )
    run = str(tmp_path / "run")
    stage = train_cascade.train_stage(run, 2, index, recipe, options)
    told = "neck as left_shoulder, right_shoulder; head_top as all"
    assert (told in capsys.readouterr().out) == (joints == "fewer")
    wanted = {"own": kept, "other": other}[expected].model.trainable_weights
    pairs = list(zip(stage.model.trainable_weights, wanted, strict=True))
    for one, weight in pairs[: None if joints == "same" else -2]:
        np.testing.assert_array_equal(one, weight)


def test_how_a_network_began_is_told(trained, capsys):
    """The second stage of `thunder` was said to begin with nothing, its first one said
    nothing: both begin as MoveNet."""
    one = load_stage(str(trained[0] / "stage_1"))
    count = len(one.model.weights)
    other = build_stage(dataclasses.replace(one.config, widths=(6,)), one.skeleton)
    foreign, begun = "begins as movenet\n", f"begins with {count} of {count} weights"
    for model, stages, weights, told in (
        *((one.model, [], "movenet", foreign), (one.model, [], None, "")),
        *((other, [one], "movenet", foreign), (one.model, [one], "movenet", begun)),
        (one.model, [one], None, begun),
    ):
        train_cascade._tell_start(model, one.skeleton, stages, weights)
        found = capsys.readouterr().out
        assert found.startswith(told) and found.count("\n") == bool(told)


def test_later_stages_of_deep_begin_as_all_of_its_first():
    first, *later = recipes.RECIPES["deep"]
    assert first == recipes.RECIPES["compact"][0] and len(later) == 2
    one = Stage(first.stage, LSP, build_stage(first.stage, LSP), 0, 0, {})
    for recipe, compact in zip(later, recipes.RECIPES["compact"][1:], strict=True):
        assert recipe.warm_start
        network = build_stage(recipe.stage, LSP)
        assert warm_start(network, LSP, one) == len(network.weights)
        shape = {"widths": compact.stage.widths, "blocks": compact.stage.blocks}
        stage = dataclasses.replace(recipe.stage, **shape)
        assert dataclasses.replace(recipe, stage=stage) == compact


def test_a_start_that_cannot_be_taken(index, trained, tmp_path):
    options = dataclasses.replace(toy.QUIET, start_from=str(tmp_path / "none"))
    with pytest.raises(ValueError, match="--start_from needs stage 1"):
        train_cascade.train_stage(
            str(tmp_path / "run"), 1, index, toy.recipe_for(1), options
        )
    options = dataclasses.replace(toy.QUIET, start_from=str(trained[0]))
    recipe = toy.recipe_for(1)
    wider = dataclasses.replace(recipe.stage, widths=(6,))
    recipe = dataclasses.replace(recipe, stage=wider)
    with pytest.raises(ValueError, match="has no layer .* Recipes of that are compact"):
        train_cascade.train_stage(str(tmp_path / "run"), 1, index, recipe, options)


@pytest.mark.parametrize("given", [".", "stage_1", "stage_1/weights.safetensors"])
def test_weights_of_a_trained_stage(index, trained, tmp_path, capsys, untrained, given):
    options = dataclasses.replace(
        toy.QUIET, weights=str(pathlib.Path(trained[0]) / given), verbose=True
    )
    recipe = toy.recipe_for(1)
    run = str(tmp_path / "run")
    stage = train_cascade.train_stage(run, 1, index, recipe, options)
    wanted = load_stage(str(trained[0] / "stage_1")).model
    count = len(wanted.weights)
    assert f"begins with {count} of {count} weights" in capsys.readouterr().out
    for one, weight in zip(
        stage.model.trainable_weights, wanted.trainable_weights, strict=True
    ):
        np.testing.assert_array_equal(one, weight)
    wider = dataclasses.replace(recipe.stage, widths=(6,))
    recipe = dataclasses.replace(recipe, stage=wider)
    with pytest.raises(ValueError, match="stage_1 has no layer of this network"):
        train_cascade.train_stage(str(tmp_path / "other"), 1, index, recipe, options)


def asked_for(index, options=toy.QUIET, **train):
    recipe = toy.recipe_for(1)
    recipe = dataclasses.replace(
        recipe, train=dataclasses.replace(recipe.train, **train)
    )
    return fingerprint.of(recipe, options, index, [])


def begin(folder):
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "ckpt-1.index").touch()


def test_what_never_came_to_a_checkpoint_may_be_put_right(index, tmp_path):
    """A mistyped --optimizer used to lock the folder against the right one."""
    fingerprint.keep(tmp_path, asked_for(index, optimizer="adagrat"))
    right = asked_for(index, optimizer="adagrad")
    assert fingerprint.continued(tmp_path, right) == right
    begin(tmp_path)
    with pytest.raises(ValueError, match="optimizer was adagrat, is adagrad"):
        fingerprint.continued(tmp_path, right)


def as_older(settings):
    """Settings as version 0.1 wrote them: three fields had other names; and as a
    version would that had fewer fields."""
    old = json.loads(json.dumps(settings))
    recipe = old["recipe"]
    recipe["stage"]["correction"] = recipe["stage"].pop("step_size")
    recipe["stage"]["farthest"] = recipe["stage"].pop("outlier_threshold")
    recipe["train"]["maps"] = recipe["train"].pop("map_weight")
    del recipe["stage"]["subcells"], recipe["augment"]["colour"], recipe["warm_start"]
    old["data"]["provenance"] = {"arguments": "of another version"}
    return old


def test_settings_of_an_older_version_are_the_same(index, tmp_path):
    """A field with a default, added since, made an older run refuse to resume."""
    asked = asked_for(index)
    old = as_older(asked)
    assert fingerprint.missing_steps(tmp_path / "stage_1", old, asked) == 0
    fingerprint.keep(tmp_path, old)
    begin(tmp_path)
    assert fingerprint.continued(tmp_path, asked) == asked
    old["recipe"]["train"]["learning_rate"] = 7.0
    with pytest.raises(ValueError, match="learning_rate was 7.0, is 0.01"):
        fingerprint.missing_steps(tmp_path / "stage_1", old, asked)
    old["recipe"]["train"]["unheard_of"] = 7.0
    with pytest.raises(ValueError, match="made with a recipe of another version"):
        fingerprint.missing_steps(tmp_path / "stage_1", old, asked)


def constant(steps):
    recipe = toy.recipe_for(1)
    return dataclasses.replace(
        recipe,
        train=dataclasses.replace(recipe.train, steps=steps, schedule="constant"),
    )


def test_a_finished_stage_is_trained_further(index, tmp_path, plain):
    """It was refused without a word on what to do. Without a schedule it is the same,
    to the bit, as if all steps had been asked for at once."""

    def train(run, steps):
        return train_cascade.train_stage(
            str(tmp_path / run), 1, index, constant(steps), toy.QUIET
        )

    train("further", 3)
    further, whole = train("further", 5), train("whole", 5)
    for one, other in zip(
        further.model.get_weights(), whole.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert further.training["steps_before"] == [3]
    assert "steps_before" not in whole.training
    kept = tmp_path / "further" / "training_1" / "checkpoints"
    assert {path.stem for path in kept.glob("ckpt*")} == {"ckpt-5"}
    with pytest.raises(ValueError, match="steps was 5, is 4"):
        train("further", 4)
    shutil.rmtree(kept)
    with pytest.raises(ValueError, match="2 more steps .* is gone.*--start_from="):
        train("further", 7)


def test_later_stages_stand_in_the_way_of_more_steps(index, trained, tmp_path, plain):
    """They were trained on what the first one left; nothing of them is removed."""
    run = tmp_path / "run"
    shutil.copytree(trained[0], run)
    recipe = toy.recipe_for(1)
    longer = dataclasses.replace(recipe.train, steps=8)
    recipe = dataclasses.replace(recipe, train=longer)
    arguments = str(run), 1, index, recipe, toy.QUIET
    with pytest.raises(ValueError, match="2 more steps.*rm -r .*stage_2 .*training_2"):
        train_cascade.train_stage(*arguments)
    assert named(run) == ["stage_1", "stage_2"]
    for name in ("stage_2", "training_2"):
        shutil.rmtree(run / name)
    train_cascade.train_stage(*arguments)
    assert named(run) == ["stage_1"]


def test_a_batch_is_fitted_to_few_people(index, tmp_path, capsys, plain):
    """22 people were fewer than a batch of 64, and the user had to know what to do."""
    recipe = dataclasses.replace(
        constant(1), inputs=dataclasses.replace(toy.REFINER.inputs, batch=64)
    )
    arguments = str(tmp_path), 1, index, recipe
    options = dataclasses.replace(toy.QUIET, verbose=1)
    fixed = dataclasses.replace(options, fit_batch=False)
    with pytest.raises(ValueError, match="16 people to train on, a step takes 32"):
        train_cascade.train_stage(*arguments, fixed)
    stage = train_cascade.train_stage(*arguments, options)
    # Two crops of each of sixteen people.
    assert "batches of 32 crops instead of 64, for 16 people" in capsys.readouterr().out
    assert stage.training["recipe"]["inputs"]["batch"] == 32
    # The same command finds it finished.
    again = train_cascade.train_stage(*arguments, options)
    assert again.training == stage.training


@pytest.mark.parametrize(("number", "replicas"), [(1, 1), (2, 1), (1, 2)])
def test_a_step_compiled_as_a_whole_is_the_same(
    index, number, replicas, mirrored, monkeypatch
):
    """As on a GPU: 20 steps by XLA and by the processor's own kernels, people on the
    device and in memory, agree to 1e-5, moving average included. Alone, the loop over
    the steps of a chunk is compiled too, wherever calls divide it. Two replicas take
    moments of half a batch each, and are compared without any; crops are the same for
    each. Dropout is left out, whose masks XLA draws otherwise."""
    monkeypatch.setattr(steps, "CHUNK", 8)
    if replicas == 2:
        monkeypatch.setattr(train_cascade, "make_examples", lambda *_: toy.plain)
        monkeypatch.setattr(networks, "_normalized", lambda x, gamma=None: x)
    recipe = toy.recipe_for(number)
    config = dataclasses.replace(recipe.train, steps=20, learning_rate=1e-4, ema=0.9)
    # A block of residuals, whose sum XLA takes into a convolution, once.
    blocks = (int((number, replicas) == (1, 1)),)
    stage = dataclasses.replace(recipe.stage, dropout=0.0, blocks=blocks)
    recipe = dataclasses.replace(recipe, stage=stage, train=config)
    joints = np.zeros([toy.JOINTS, 2]), np.tile(0.01 * np.eye(2), (toy.JOINTS, 1, 1))
    earlier = [Stage(None, index.skeleton, None, *joints, {})] * (number - 1)
    strategy = strategies.make_strategy("one") if replicas == 1 else mirrored
    build = functools.partial(build_stage, recipe.stage, index.skeleton, None)
    found = []
    ways = [(False, "memory", []), (True, "device", [])]
    if (number, replicas) == (1, 1):
        # Beside a GPU, what is about the network is compiled whatever becomes of that.
        ways.append((False, "memory", ["a GPU"]))
    for by_xla, cache, gpus in ways:
        monkeypatch.setattr(
            steps.tf.config, "list_physical_devices", lambda _, g=gpus: g
        )
        people = canvases.open_people(index, recipe.inputs, cache)
        examples = train_cascade.make_examples(index, recipe, earlier)
        state = steps.make_state(build, config, strategy)
        step = steps.make_step(state, examples, config, strategy, people, by_xla)
        chunked = by_xla and replicas == 1
        run = steps.over_batches(step, chunked)

        def make(context, people=people, chunked=chunked):
            batches = inputs.training_dataset(
                people, recipe.inputs, 0, range(20), context
            )
            return steps.chunks(batches.repeat()) if chunked else batches

        batches = iter(strategy.distribute_datasets_from_function(make))
        losses = [float(run(batches, count)) for count in (1, 12, 7)]
        found.append((losses, state.averaged.get_weights()))
    for way in found[1:]:
        np.testing.assert_allclose(found[0][0], way[0], rtol=1e-5)
        for one, other in zip(found[0][1], way[1], strict=True):
            np.testing.assert_allclose(one, other, atol=1e-5)


def test_kept_canvases_lie_on_every_device(index, mirrored):
    people = canvases.open_people(index, toy.RECIPE.inputs, "device")
    kept = mirrored.experimental_local_results(steps._on_device(people, mirrored))
    devices = [columns[0].device[-5:] for columns in kept]
    assert devices == ["CPU:0", "CPU:1"]


def test_a_network_begins_at_the_mean_of_the_first_records(index, monkeypatch):
    """All labels of a large data set were read before the first step."""
    monkeypatch.setattr(validation, "MEASURED", 3)
    weights = np.array([4] + [1] * 15)
    people = dataclasses.replace(index.people["train"], weights=weights)
    index = dataclasses.replace(index, people={"train": people})
    first = records.read_people(index, "train", 3)
    stage = toy.RECIPE.stage
    boxes = geometry.first_boxes(first.first_boxes, stage.margin, stage.square)
    poses = geometry.normalize(first.keypoints, boxes).numpy()
    expected = (4 * poses[0] + poses[1] + poses[2]) / 6
    found = train_cascade.mean_target(index, toy.RECIPE, [])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_largest_batch_that_people_fill():
    recipe = dataclasses.replace(toy.REFINER, inputs=toy.InputConfig(batch=64, views=4))
    assert recipes.fitted(recipe, 100) == recipe
    assert recipes.fitted(recipe, 11).inputs.batch == 44
    assert recipes.fitted(recipe, 11, replicas=4).inputs.batch == 32
    with pytest.raises(ValueError, match="3 people cannot fill a step of 4 devices"):
        recipes.fitted(recipe, 3, replicas=4)


def test_a_stage_needs_those_before_it(index, tmp_path):
    with pytest.raises(ValueError, match="stage 2 needs stage 1, which cannot be"):
        train_cascade.train_stage(str(tmp_path), 2, index, toy.recipe_for(2), toy.QUIET)


def test_a_stage_retrained_before_another_is_noticed(index, trained, tmp_path):
    """Otherwise stage 2 would be resumed with displacements that it has not seen."""
    shutil.copytree(trained[0], tmp_path / "run")
    path = tmp_path / "run" / "stage_1" / "stage.json"
    value = json.loads(path.read_text())
    value["displacement"]["mean"][0][0] += 0.5
    del value["digest"]
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match="trained anew or on since"):
        train_cascade.train_stage(
            str(tmp_path / "run"), 2, index, toy.recipe_for(2), toy.QUIET
        )


def test_auto_adds_stages_while_they_help(index, tmp_path, monkeypatch):
    """Scores of 0.3, 0.5, 0.5: the third stage does not help and is left out."""
    scores = {1: 0.3, 2: 0.5, 3: 0.5}
    monkeypatch.setattr(train_cascade, "train_stage", lambda run, number, *rest: number)
    monkeypatch.setattr(train_cascade, "held_out_pdj", lambda c, *rest: scores[c.last])
    monkeypatch.setattr(train_cascade.cascades, "Cascade", _Counted)
    monkeypatch.setattr(
        train_cascade, "_load_earlier", lambda run, number, *rest: [*range(1, number)]
    )
    arguments = str(tmp_path), index, toy.recipe_for, None, toy.QUIET
    assert train_cascade.train_cascade(*arguments).stages == [1, 2]
    # One stage is trained however bad it is.
    scores |= {1: 0.0, 2: 0.0}
    assert train_cascade.train_cascade(*arguments).stages == [1]
    empty = dataclasses.replace(index, counts={"train": 16})
    with pytest.raises(ValueError, match="no validation split.*--stages=3"):
        train_cascade.train_cascade(str(tmp_path), empty, *arguments[2:])


class _Counted:
    """Stands in for a cascade of numbers."""

    def __init__(self, stages):
        self.stages, self.last = stages, stages[-1]

    def save_index(self, run):
        pass


def test_overfitting(index, tmp_path, plain):
    """Four people, shown unvaried: each step takes all of them, in any order. The later
    stages that the run had were trained on another first one."""
    (tmp_path / "cascade.json").write_text('{"stages": ["stage_1", "stage_2"]}')
    recipe = toy.recipe_for(1)
    options = dataclasses.replace(toy.QUIET, overfit=4)
    stage = train_cascade.train_stage(str(tmp_path), 1, index, recipe, options)
    assert named(tmp_path) == ["stage_1"]
    used = stage.training["recipe"]
    assert used["inputs"]["batch"] == 4
    assert used["stage"]["dropout"] == 0
    assert not any(
        value for key, value in used["augment"].items() if key != "displacement"
    )


def kill_and_resume(index, folder, length, kills):
    """Trains in other processes into `whole`, and into `killed` with kills, of which it
    returns (step, half-written checkpoint)."""
    program = pathlib.Path(__file__).with_name("toy_training.py")
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, program, index.directory, folder, str(length), str(kills)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert not done.returncode, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def check_kills(index, tmp_path, length, kills):
    moments = kill_and_resume(index, tmp_path, length, kills)
    assert len(moments) == kills
    assert moments[0] == [0, True]
    assert all(half_written for _, half_written in moments[::2]), moments
    whole = contents(tmp_path / "whole" / "stage_1")
    assert set(whole) == {"stage.json", "weights.safetensors"}
    assert contents(tmp_path / "killed" / "stage_1") == whole
    kept = (tmp_path / "killed" / "training_1" / "checkpoints").glob("*.index")
    assert [path.name for path in kept] == [f"ckpt-{length}.index"]


def test_killed_runs_go_on_to_the_same_weights(index, tmp_path):
    """Both files of the stage are the same to the byte, wherever people are kept: on
    disk, and with kills between, anew, on the device, in memory."""
    check_kills(index, tmp_path, length=8, kills=2)


@pytest.mark.slow
def test_ten_kills(index, tmp_path):
    check_kills(index, tmp_path, length=30, kills=10)


@pytest.mark.slow
def test_two_workers_equal_one(index, tmp_path):
    """Two processes that meet over the loopback share every batch of two stages, with
    normalisation and dropout. The chief alone writes."""
    program = pathlib.Path(__file__).with_name("toy_training.py")
    ports = toy.free_ports(2)
    cluster = {"worker": [f"localhost:{port}" for port in ports]}
    for run, workers in (("one", 1), ("two", 2)):
        processes = []
        for number in range(workers):
            environment = dict(os.environ, CUDA_VISIBLE_DEVICES="-1")
            if workers > 1:
                task = {"type": "worker", "index": number}
                environment["TF_CONFIG"] = json.dumps(
                    {"cluster": cluster, "task": task}
                )
            processes.append(
                subprocess.Popen(
                    [sys.executable, program, index.directory, tmp_path / run],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
        outputs = [process.communicate(timeout=300)[0] for process in processes]
        assert not any(process.returncode for process in processes), outputs
    for stage in ("stage_1", "stage_2"):
        one, two = (
            safetensors.numpy.load_file(tmp_path / run / stage / "weights.safetensors")
            for run in ("one", "two")
        )
        assert one.keys() == two.keys() and len(one) > 4
        for name, weight in one.items():
            np.testing.assert_allclose(two[name], weight, atol=1e-5)
    assert len(list((tmp_path / "two").glob("training_1/checkpoints/*.index"))) == 1
    assert not list((tmp_path / "two").glob("training_*/checkpoints/worker_*"))
    assert len(list((tmp_path / "two").glob("training_1/logs/*"))) == 1


@pytest.mark.slow
def test_a_worker_that_is_lost_ends_the_others(index, tmp_path):
    """Killed, and then stopped; what they have in common goes on in between."""
    program = """
import dataclasses
from deeppose_tf.pipelines.train import commands
options = commands._options
commands._options = lambda: dataclasses.replace(options(), checkpoint_seconds=0.5)
commands.run_train()
"""
    flags = [
        f"--data={index.directory}", f"--run={tmp_path / 'run'}", "--batch=6",
        "--strategy=multiworker", "--stages=1", "--size=32", "--steps=100000",
        "--set=stage.widths=4,8", "--set=stage.blocks=0,1", "--set=inputs.canvas=48",
    ]  # fmt: skip
    folder = tmp_path / "run" / "training_1" / "checkpoints"

    def started():
        """Both, when they wrote a checkpoint; after 5000 steps they would anyway."""
        before = max(training.checkpoint_steps(folder), default=0)
        ports = toy.free_ports(2)
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", program, *flags],
                env=os.environ
                | {"CUDA_VISIBLE_DEVICES": "-1"}
                | {"TF_CONFIG": json.dumps({"cluster": cluster, "task": task})},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for task in ({"type": "worker", "index": i} for i in range(2))
        ]
        while not before < max(training.checkpoint_steps(folder), default=0) < 5000:
            assert all(worker.poll() is None for worker in workers)
            time.sleep(0.1)
        return workers

    def ends(worker, code, line):
        error = worker.communicate(timeout=60)[1]
        # TensorFlow has seen it as well, and said so before.
        assert line in error.strip().splitlines()[-1], error
        assert "Traceback" not in error
        assert worker.returncode == code

    first, second = started()
    second.kill()
    ends(first, 1, " is gone; start all again with the same command")
    second.communicate()
    first, second = started()
    before = max(training.checkpoint_steps(folder))
    # It may be either; both end, at a checkpoint of the same step.
    second.terminate()
    ends(second, 143, "stopped; the same command goes on")
    ends(first, 1, "another worker is stopped; start all again with the same command")
    steps = training.checkpoint_steps(folder)
    assert before < max(steps)
    assert max(steps) == max(training.checkpoint_steps(folder / "worker_1"))
    assert not list((tmp_path / "run").rglob(f"*{training.PARTIAL}*"))
