"""`deeppose-choose` with stages that are not trained and score as they are told to."""

import dataclasses
import json
import pathlib

import cv2
import numpy as np
import pytest
import toy_run
import toy_training as toy

from deeppose_tf import stage
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.train import cascade as train_cascade
from deeppose_tf.pipelines.train import choose_sigma as choose
from deeppose_tf.pipelines.train import commands, fingerprint
from deeppose_tf.pipelines.train import validation as held_out

# How many of the fourteen joints are right by sigma after each stage; the first knows
# no sigma. Sigma 1 stops helping at its third stage, sigma 2 at its fourth.
RIGHT = {1.0: (3, 6, 5), 2.0: (3, 7, 9, 9), 3.0: (3, 2)}
QUIET = toy.QUIET
SCRIPT = toy_run.script(commands, "choose")


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return toy.make_index(tmp_path_factory.mktemp("figures"))


class Training:
    """Stands in for training: saves stages as they are built, and remembers which."""

    def __init__(self, stop_at=None):
        self.stop_at, self.trained = stop_at, []

    def __call__(self, run, number, index, recipe, options):
        folder = pathlib.Path(run) / f"stage_{number}"
        if not folder.exists():
            if (pathlib.Path(run).name, number) == self.stop_at:
                raise KeyboardInterrupt
            self.trained.append((pathlib.Path(run).name, number, recipe.stage.sigma))
            zeros = np.zeros((14, 2)), np.zeros((14, 2, 2))
            model = stage.build_stage(recipe.stage, index.skeleton)
            asked = fingerprint.of(recipe, options, index, [])
            made = stage.Stage(recipe.stage, index.skeleton, model, *zeros, asked)
            stage.save_stage(made, str(folder))
        return stage.load_stage(str(folder))


@pytest.fixture(autouse=True)
def told(monkeypatch):
    def predict(cascade, index, split, config):
        people = read_people(index, split)
        sigma = cascade.stages[-1].config.sigma
        poses = np.repeat(people.keypoints[:, None], cascade.count, axis=1)
        for s in range(cascade.count):
            poses[:, s, RIGHT.get(sigma, (3, 3))[s] :] += 1e4
        return poses, people.keypoints, people.labeled, people.first_boxes

    monkeypatch.setattr(held_out, "predict_split", predict)


def train(monkeypatch, **how):
    training = Training(**how)
    monkeypatch.setattr(train_cascade, "train_stage", training)
    return training


def recipe_for(sigma, number):
    recipe = toy.recipe_for(number)
    if number == 1:
        return recipe
    return dataclasses.replace(
        recipe, stage=dataclasses.replace(recipe.stage, sigma=sigma)
    )


def test_the_best_sigma_with_the_stages_that_helped(index, tmp_path, monkeypatch):
    training = train(monkeypatch)
    arguments = str(tmp_path), index, recipe_for, [1.0, 2.0, 3.0], None, QUIET
    content = choose.choose(*arguments)
    # The first stage is trained once, with a sigma that nothing changes.
    assert training.trained == [
        ("sigma_1.0", 1, 2.0), ("sigma_1.0", 2, 1.0), ("sigma_1.0", 3, 1.0),
        ("sigma_2.0", 2, 2.0), ("sigma_2.0", 3, 2.0), ("sigma_2.0", 4, 2.0),
        ("sigma_3.0", 2, 3.0),
    ]  # fmt: skip
    first = [tmp_path / f"sigma_{s}" / "stage_1" for s in (1.0, 2.0)]
    assert len({(f / "weights.safetensors").read_bytes() for f in first}) == 1
    assert [one["stages"] for one in content["candidates"]] == [2, 3, 1]
    found = [value * 14 for one in content["candidates"] for value in one["pdj"]]
    np.testing.assert_allclose(found, [3, 6, 5, 3, 7, 9, 9, 3, 2])
    assert content["winner"]["sigma"] == 2.0
    assert content["people"] == toy.COUNTS["validation"]
    assert 0 <= content["baseline"] <= 1
    assert json.loads((tmp_path / "choice.json").read_text()) == content
    text = (tmp_path / "choice.md").read_text()
    assert "| 1.0 | 21.4 | 42.9 | (35.7) |  | 2 | 42.9 |" in text
    assert "| 2.0 | 21.4 | 50.0 | 64.3 | (64.3) | 3 | 64.3 |" in text
    assert "Best: sigma 2.0 with 3 stages" in text and "Mean-pose baseline" in text
    assert cv2.imread(str(tmp_path / "choice.png")).shape[0] > 200
    # What is finished is not trained again.
    again = train(monkeypatch)
    assert choose.choose(*arguments) == content and not again.trained


def test_a_stopped_choice_goes_on(index, tmp_path, monkeypatch):
    train(monkeypatch, stop_at=("sigma_2.0", 3))
    arguments = str(tmp_path), index, recipe_for, [1.0, 2.0], None, QUIET
    with pytest.raises(KeyboardInterrupt):
        choose.choose(*arguments)
    assert "Best so far, 1 to come: sigma 1.0" in (tmp_path / "choice.md").read_text()
    rest = train(monkeypatch)
    content = choose.choose(*arguments)
    assert rest.trained == [("sigma_2.0", 3, 2.0), ("sigma_2.0", 4, 2.0)]
    assert content["winner"]["sigma"] == 2.0


def test_other_settings_are_refused_before_anything_is_copied(
    index, tmp_path, monkeypatch
):
    """In a folder whose name is a pattern that does not match itself."""
    root = tmp_path / "sigma_[12]*"
    train(monkeypatch)
    choose.choose(str(root), index, recipe_for, [1.0], 2, QUIET)
    before = sorted(path for path in root.rglob("*"))
    other = dataclasses.replace(QUIET, seed=7)
    again = train(monkeypatch)
    with pytest.raises(ValueError, match=r"sigma_1.0/stage_1 was made .* seed was 0"):
        choose.choose(str(root), index, recipe_for, [2.0], 2, other)
    assert sorted(path for path in root.rglob("*")) == before and not again.trained
    choose.choose(str(root), index, recipe_for, [2.0], 2, QUIET)
    assert again.trained == [("sigma_2.0", 2, 2.0)]


def test_stages_of_an_earlier_call_for_more_do_not_count(index, tmp_path, monkeypatch):
    train(monkeypatch)
    choose.choose(str(tmp_path), index, recipe_for, [2.0], None, QUIET)
    content = choose.choose(str(tmp_path), index, recipe_for, [2.0], 2, QUIET)
    assert len(content["winner"]["pdj"]) == content["winner"]["stages"] == 2


def test_sigmas_that_look_alike_have_folders_of_their_own(index, tmp_path, monkeypatch):
    train(monkeypatch)
    sigmas = [2.0, 2.0000001]
    choose.choose(str(tmp_path), index, recipe_for, sigmas, 2, QUIET)
    folders = {path.name for path in tmp_path.glob("sigma_*")}
    assert folders == {"sigma_2.0", "sigma_2.0000001"}


def test_as_many_stages_as_asked_for(index, tmp_path, monkeypatch):
    train(monkeypatch)
    content = choose.choose(str(tmp_path), index, recipe_for, [1.0], 3, QUIET)
    # Three stages, although the third does not help.
    assert content["winner"]["stages"] == 3
    assert content["winner"]["pdj"][-1] == pytest.approx(5 / 14)


def test_the_script(index, tmp_path, monkeypatch, capsys):
    training = train(monkeypatch)
    given = f"--data={index.directory}", f"--run={tmp_path / 'run'}", "--recipe=demo"
    toy_run.call(SCRIPT, *given, "--sigmas=1.0,2.0", "--stages=2", "--batch=16")
    assert [one[1:] for one in training.trained[1:]] == [(2, 1.0), (2, 2.0)]
    printed = capsys.readouterr().out
    assert "| 2.0 | 21.4 | 50.0 | 2 | 50.0 |" in printed
    for wrong, message in (
        (["--sigmas=1.0,1.0"], "give different numbers"),
        (["--sigmas=1.0,x"], "--sigmas=1.0,x: could not convert"),
        (["--sigmas=1.0,1"], "give different numbers"),
        *((["--sigmas=1.0," + x], "above zero") for x in ("0", "-2", "inf", "nan")),
        (["--sigmas=1.0", "--sigma=2.0"], "--sigma is what is chosen here"),
        (["--sigmas=1.0", "--stages=0"], "--stages=0"),
        (["--sigmas=1.0", "--stages=1"], "--stages=1: a first stage has no use"),
        (["--sigmas=1.0", "--overfit=4"], "--overfit: overfitting tells nothing"),
        (["--sigmas=1.0", "--strategy=multiworker"], "train on one machine"),
    ):
        with pytest.raises(ValueError, match=message):
            toy_run.call(SCRIPT, *given, *wrong)


def test_nobody_held_out(index, tmp_path):
    counts = {"train": 16, "validation": 0}
    empty = dataclasses.replace(index, counts=counts)
    with pytest.raises(ValueError, match="nobody in its validation"):
        choose.choose(str(tmp_path / "run"), empty, recipe_for, [1.0], None, QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_with_stages_that_are_trained(index, tmp_path, monkeypatch):
    """And scores as `deeppose-train --stages=auto` sees them."""
    monkeypatch.undo()
    content = choose.choose(str(tmp_path), index, recipe_for, [1.0, 2.0], 2, QUIET)
    from deeppose_tf.cascade import Cascade

    config = recipe_for(1.0, 2).inputs
    for one in content["candidates"]:
        cascade = Cascade.load(one["run"])
        seen = train_cascade.held_out_pdj(cascade, index, config)
        assert one["pdj"][-1] == pytest.approx(seen)
    assert len({one["pdj"][0] for one in content["candidates"]}) == 1
