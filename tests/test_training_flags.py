"""What a user asks for that cannot be trained is said before anything is written."""

import dataclasses

import pytest
import toy_run
import toy_training
from absl import flags

from deeppose_tf.pipelines.profiling import commands as profiling
from deeppose_tf.pipelines.train import cascade as train_cascade
from deeppose_tf.pipelines.train import recipes, training_flags
from deeppose_tf.pipelines.train import stage as train_stage


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    toy_training.make_index(folder)
    return str(folder / "data")


@pytest.mark.parametrize(
    "wrong, message",
    [
        # Stage 1 takes any batch; stage 2 makes several crops of an image.
        ("--batch=13", "batch 13 must be a multiple of views"),
        ("--size=16", "size is 16"),
        ("--steps=0", "steps is 0"),
        ("--stages=0", "--stages=0"),
        ("--sigma=0", "sigma is 0.0"),
        ("--step_size=2", "step_size is 2.0"),
    ],
)
def test_nothing_is_trained_of_a_cascade_that_cannot_be(data, tmp_path, wrong, message):
    run = tmp_path / "run"
    given = f"--data={data}", f"--run={run}", "--recipe=compact", "--stages=2"
    with pytest.raises(ValueError, match=message):
        toy_run.call(train_cascade, *given, wrong)
    assert not run.exists()


def test_a_batch_larger_than_the_data_leaves_no_settings_behind(data, tmp_path):
    """They refused the smaller batch that the message asks for."""
    given = f"--data={data}", f"--run={tmp_path / 'run'}", "--stages=1"
    with pytest.raises(ValueError, match="lower --batch"):
        toy_run.call(train_cascade, *given, "--batch=32")
    assert not (tmp_path / "run").exists()


def test_recipes_take_what_flags_change(data, tmp_path, monkeypatch):
    asked = {}

    def remember(run, index, recipe_for, stages, options):
        asked.update(recipe=recipe_for(2), stages=stages, options=options)
        asked["first"] = recipe_for(1)

    monkeypatch.setattr(train_cascade, "train_cascade", remember)
    toy_run.call(
        train_cascade,
        *(f"--data={data}", f"--run={tmp_path}", "--recipe=paper", "--stages=auto"),
        *("--batch=16", "--sigma=1.5", "--learning_rate=0.25", "--optimizer=sgd"),
        *("--initial_accumulator=0", "--displacement=1.5", "--step_size=0.5"),
        *("--overfit=3", "--seed=7", "--nocollapse_guard", "--start_from=other"),
    )
    preset = recipes.recipe_for("paper", 2)
    assert asked["recipe"] == dataclasses.replace(
        preset,
        stage=dataclasses.replace(preset.stage, sigma=1.5, step_size=0.5),
        inputs=dataclasses.replace(preset.inputs, batch=16),
        augment=dataclasses.replace(preset.augment, displacement=1.5),
        train=dataclasses.replace(
            preset.train,
            learning_rate=0.25,
            optimizer="sgd",
            initial_accumulator=0.0,
        ),
    )
    # The first stage looks at no joint, and is the same for every sigma.
    first = recipes.recipe_for("paper", 1)
    assert (asked["first"].stage, asked["first"].augment) == (
        first.stage,
        first.augment,
    )
    assert asked["stages"] is None
    assert asked["options"] == training_flags.Options(
        seed=7, overfit=3, guard=False, start_from="other"
    )


@pytest.mark.parametrize(
    "wrong",
    ["--overfit=-1", "--learning_rate=-3", "--displacement=-1", "--recipe=x"],
)
def test_values_that_mean_nothing_are_no_flags(data, tmp_path, wrong):
    with pytest.raises(flags.IllegalFlagValueError):
        toy_run.call(train_cascade, f"--data={data}", f"--run={tmp_path}", wrong)


SCRIPTS = train_stage, toy_run.script(profiling, "benchmark")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("number", [0, -1])
def test_stages_count_from_one(data, tmp_path, script, number):
    given = [f"--data={data}", f"--stage={number}"]
    if script is train_stage:
        given.append(f"--run={tmp_path / 'run'}")
    with pytest.raises(flags.IllegalFlagValueError, match="--stage=.*positive"):
        toy_run.call(script, *given)
    assert not (tmp_path / "run").exists()
