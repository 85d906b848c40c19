"""What a user asks for that cannot be trained is said before anything is written."""

import dataclasses
import json
import re

import pytest
import toy_run
import toy_training
from absl import flags

from deeppose_tf.pipelines.profiling import commands as profiling
from deeppose_tf.pipelines.train import cascade as train_cascade
from deeppose_tf.pipelines.train import commands, loop, recipes, strategies

TRAIN, STAGE = (toy_run.script(commands, name) for name in ("train", "train_stage"))


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
        ("--learning_rate=-3", "learning_rate is -3.0"),
        ("--displacement=-1", "displacement is -1.0"),
        ("--set=augment.rotation=-5", "rotation is -5.0; it must not be negative"),
        ("--set=train.ema=5", "ema is 5.0; it is a share below 1"),
        ("--set=train.map_blob=0", "map_blob is 0.0; it must be positive"),
        ("--set=weight_decay=1", "did you mean train.weight_decay"),
        ("--set=2.train.stepz=1", "did you mean train.steps"),
        ("--set=train.steps=1.5", "train.steps=1.5: expected a whole number"),
        ("--set=stage.square=maybe", "expected true or false"),
        ("--set=stage.widths=32,x", "expected whole numbers joined by commas"),
        ("--set=train.learning_rate=nan", "expected a finite number"),
        ("--set=train.steps", "give it as --set=train.steps=1000"),
        ("--set=1.stage.sigma=1", "stage 1 has no use for stage.sigma"),
        ("--set=2.stage.margin=1", "stage 2 has no use for stage.margin"),
        ("--set=3.train.steps=1", "stage 3 is not asked for"),
        ("--network=paper", "network paper answers with a linear head"),
        ("--set=stage.head=linear", "a linear head has no maps"),
        ("--initial_accumulator=1", "initial_accumulator is of adagrad alone"),
        ("--weights=imagenet", "network compact starts from no foreign weights"),
        ("--start_from=none", "--start_from=none: does not exist, and is none of"),
    ],
)
def test_nothing_is_trained_of_a_cascade_that_cannot_be(data, tmp_path, wrong, message):
    run = tmp_path / "run"
    given = f"--data={data}", f"--run={run}", "--recipe=compact", "--stages=2"
    with pytest.raises(ValueError, match=message):
        toy_run.call(TRAIN, *given, wrong)
    assert not run.exists()


def test_a_batch_larger_than_the_data_leaves_no_settings_behind(data, tmp_path):
    """They refused the smaller batch that the message asks for."""
    given = f"--data={data}", f"--run={tmp_path / 'run'}", "--stages=1"
    with pytest.raises(ValueError, match="lower --batch"):
        toy_run.call(TRAIN, *given, "--batch=32")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("chief", [True, False])
def test_of_several_workers_the_chief_tells(data, tmp_path, monkeypatch, capsys, chief):
    """Each said that the run is trained."""
    told = []
    monkeypatch.setattr(strategies, "is_chief", lambda strategy: chief)
    monkeypatch.setattr(
        train_cascade, "train_stages", lambda *given: told.append(given[-1].verbose)
    )
    toy_run.call(TRAIN, f"--data={data}", f"--run={tmp_path}")
    assert told == [chief]
    assert ("is trained" in capsys.readouterr().out) == chief


def test_recipes_take_what_flags_change(data, tmp_path, monkeypatch):
    asked = {}

    def remember(run, index, recipe_for, stages, options):
        asked.update(recipe=recipe_for(2), stages=stages, options=options)
        asked["first"] = recipe_for(1)

    monkeypatch.setattr(train_cascade, "train_stages", remember)
    toy_run.call(
        TRAIN,
        *(f"--data={data}", f"--run={tmp_path}", "--recipe=paper", "--stages=auto"),
        *("--batch=16", "--sigma=1.5", "--learning_rate=0.25", "--optimizer=adagrad"),
        *("--initial_accumulator=0.5", "--displacement=1.5", "--step_size=0.5"),
        *("--overfit=3", "--seed=7", "--nocollapse_guard", f"--start_from={data}"),
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
            optimizer="adagrad",
            initial_accumulator=0.5,
        ),
    )
    # The first stage looks at no joint, and is the same for every sigma.
    first = recipes.recipe_for("paper", 1)
    assert (asked["first"].stage, asked["first"].augment) == (
        first.stage,
        first.augment,
    )
    assert asked["stages"] is None
    assert asked["options"] == loop.Options(
        seed=7, overfit=3, guard=False, start_from=data, fit_batch=False
    )


@pytest.mark.parametrize(
    "wrong",
    ["--overfit=-1", "--steps=x", "--recipe=x"],
)
def test_values_that_mean_nothing_are_no_flags(data, tmp_path, wrong):
    with pytest.raises(flags.IllegalFlagValueError):
        toy_run.call(TRAIN, f"--data={data}", f"--run={tmp_path}", wrong)


SCRIPTS = STAGE, toy_run.script(profiling, "benchmark")


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("number", [0, -1])
def test_stages_count_from_one(data, tmp_path, script, number):
    given = [f"--data={data}", f"--stage={number}"]
    if script is STAGE:
        given.append(f"--run={tmp_path / 'run'}")
    with pytest.raises(flags.IllegalFlagValueError, match="--stage=.*positive"):
        toy_run.call(script, *given)
    assert not (tmp_path / "run").exists()


def test_a_network_that_a_recipe_does_not_describe(tmp_path):
    """`--recipe=paper --network=compact` trained a network of 112 parameters."""
    given = f"--data={tmp_path}", f"--run={tmp_path}", "--recipe=paper"
    with pytest.raises(ValueError, match="network compact needs widths and blocks"):
        toy_run.call(TRAIN, *given, "--network=compact")


@pytest.mark.parametrize("name", ["sigma", "step_size", "displacement"])
def test_flags_of_later_stages_without_a_later_stage(tmp_path, name):
    given = f"--data={tmp_path}", f"--run={tmp_path}", f"--{name}=1"
    for script, number in ((TRAIN, "--stages=1"), (STAGE, "--stage=1")):
        with pytest.raises(ValueError, match=f"--{name}: of later stages"):
            toy_run.call(script, *given, number)


def test_every_value_is_shown_and_can_be_set(capsys):
    """Without data, and with what the other flags change."""
    more = "--set=train.weight_decay=0.05,stage.widths=8,16", "--set=stage.blocks=0,1"
    toy_run.call(TRAIN, "--show", "--steps=9", "--set=2.train.steps=7", *more)
    shown, meanings = capsys.readouterr().out.split("\n\n")
    first, second, third = f"{shown}\n".split("stage ")[1:]
    for stage, steps in ((first, 9), (second, 7), (third, 9)):
        assert f"  train.steps = {steps}\n" in stage
        assert "  train.weight_decay = 0.05\n" in stage
        assert "  stage.widths = 8,16\n" in stage
    assert "stage.sigma = 1.3" in second and "sigma" not in first
    assert "augment.translation" in first and "augment.translation" not in second
    assert (
        "train.ema: decay of the moving average (EMA) of the weights, which" in meanings
    )
    for name in recipes.named_values(recipes.RECIPES["paper"][0]):
        assert re.search(rf"^{name}: \S", meanings, re.MULTILINE), name
    for name in recipes.RECIPES:
        for number in (1, 2, 3):
            recipe = recipes.recipe_for(name, number)
            shown = recipes.show([recipe], first=number).splitlines()[1:]
            pairs = (line.split("=") for line in shown)
            changes = {key.strip(): value.strip() for key, value in pairs}
            # Of no other optimizer.
            adagrad = recipe.train.optimizer == "adagrad"
            assert ("train.initial_accumulator" in changes) == adagrad
            # What is shown is what --set takes.
            assert recipes.recipe_for(name, number, changes) == recipe
    with pytest.raises(flags.Error, match="--data must have a value"):
        toy_run.call(TRAIN, "--run=x")


def test_old_names_of_flags_go_on_working(capsys):
    toy_run.call(TRAIN, "--show", "--correction=0.25")
    assert "stage.step_size = 0.25" in capsys.readouterr().out


@pytest.mark.parametrize(
    "joints, extent, told",
    [(["ball"], 3, True), (["tip", "root"], 0, True), (["tip", "root"], 1, False)],
)
def test_poses_without_an_extent_are_refused_at_once(tmp_path, joints, extent, told):
    """They were trained to the end, and then no displacements could be measured."""
    content = {"skeleton": {"joints": joints}, "provenance": {}}
    content["provenance"]["summary"] = {"train": {"extent": extent}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(ValueError) as error:
        toy_run.call(TRAIN, f"--data={tmp_path}", f"--run={tmp_path / 'run'}")
    assert ("label at least two joints" in str(error.value)) == told
