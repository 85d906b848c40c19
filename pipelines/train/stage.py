"""`deeppose-train-stage`: trains one stage of a cascade.

The stages before it have to be there: their displacements on the training data are what
a later stage is trained to undo (Sec. 3.2). After each stage the run is a cascade that
can be evaluated and predicted with.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shutil

import numpy as np
from absl import flags

from deeppose_tf import cascade as cascades
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.config import AugmentConfig
from deeppose_tf.pipelines.train import loop as training
from deeppose_tf.pipelines.train import (
    recipes,
    settings,
    stage_data,
    strategies,
    training_flags,
)
from deeppose_tf.pipelines.train import validation as held_out
from deeppose_tf.pipelines.train.training_flags import Options
from deeppose_tf.stage import (
    Stage,
    build_stage,
    count_common,
    load_stage,
    save_stage,
    warm_start,
)

# Looks at the held-out people in the course of a training.
EVALUATIONS = 20


def train_stage(
    run: str,
    number: int,
    index: records.Index,
    recipe: recipes.Recipe,
    options: Options,
) -> Stage:
    """Trains stage `number` of a run, resumes it, or loads it where it is finished.

    Args:
      run: directory of the cascade; stages before `number` are in it.
      number: s, from 1.
      index: the prepared data set.
      recipe: configuration of this stage.
      options: see `Options`.

    Returns:
      The stage, saved as `run/stage_<number>` with the displacements that it leaves
      on the training data. `run/cascade.json` names it and those before it.

    Raises:
      ValueError: an earlier stage is missing or has another skeleton, or the stage was
        begun with other settings.
      training.TrainingError: see there.
    """
    # Several workers have to meet before TensorFlow computes anything.
    strategy = strategies.make_strategy(options.strategy)
    if options.overfit:
        recipe = _by_heart(recipe, options.overfit)
    earlier = _load_earlier(run, number, index)
    begins_as = earlier[-1:] if recipe.warm_start else []
    if options.start_from:
        begins_as = [_load(options.start_from, number, "--start_from"), *begins_as]
    asked = settings.of(recipe, options, index, earlier)
    directory = pathlib.Path(run) / f"stage_{number}"
    work = pathlib.Path(run) / f"training_{number}"
    chief = strategies.is_chief(strategy)
    finished = (directory / "stage.json").exists()
    if finished:
        stage = load_stage(str(directory))
        settings.check_finished(directory, stage.training, asked)
    else:
        stage = _train(
            work, index, recipe, options, earlier, begins_as, asked, strategy
        )
        if chief:
            save_stage(stage, str(directory))
        if strategies.worker(strategy):
            strategies.wait_for_all(strategy)
    if chief:
        # Of a stage that was there already, later ones may be too, and named.
        if not (finished and _is_named(run, number)):
            cascades.Cascade([*earlier, stage]).save_index(run)
        # Also what a kill left behind after the stage was saved.
        shutil.rmtree(work / "checkpoints", ignore_errors=True)
    return stage


def _train(work, index, recipe, options, earlier, begins_as, asked, strategy):
    """A trained stage with its displacements, as `asked` of by its settings."""
    limit = options.overfit or None
    chief = strategies.is_chief(strategy)
    steps_per_epoch = stage_data.count_steps(index, recipe.inputs, limit)
    settings.check_begun(work, asked)
    if chief:
        settings.keep(work, asked)
    target = stage_data.mean_target(index, recipe, earlier)
    model = training.train(
        build=functools.partial(_build, index, recipe, begins_as, options, target),
        examples=stage_data.make_examples(index, recipe, earlier),
        batches=functools.partial(
            stage_data.batches, index, recipe.inputs, options.seed, limit
        ),
        steps_per_epoch=steps_per_epoch,
        config=recipe.train,
        directory=str(work),
        strategy=strategy,
        evaluator=lambda model: held_out.evaluator(
            [*earlier, _unmeasured(recipe, index, model, {})],
            index,
            recipe.inputs,
            target,
            limit,
        ),
        evaluate_every=max(recipe.train.steps // EVALUATIONS, 1),
        batch_size=recipe.inputs.batch,
        checkpoint_seconds=options.checkpoint_seconds,
        guard=options.guard,
        seed=options.seed,
        verbose=options.verbose,
    )
    stage = _unmeasured(recipe, index, model, asked)
    mean, covariance = held_out.observed_displacements(
        cascades.Cascade([*earlier, stage]),
        index,
        recipe.inputs,
        limit,
        options.verbose and chief,
    )
    return dataclasses.replace(stage, mean=mean, covariance=covariance)


def _is_named(run, number):
    """Whether `cascade.json` names this stage."""
    path = pathlib.Path(run) / "cascade.json"
    return path.exists() and f'"stage_{number}"' in path.read_text()


def _build(index, recipe, begins_as, options, target, precision):
    """A fresh network that answers the mean target, or begins as another stage: the
    first of those with the most weights in common before the last layer, whose shape
    is that of the joints."""
    model = build_stage(
        recipe.stage, index.skeleton, target, precision, options.weights
    )
    if not begins_as:
        return model
    *_, last = (layer for layer in model.layers if layer.weights)
    most = len(model.weights) - len(last.weights)
    common = [min(count_common(model, stage.model), most) for stage in begins_as]
    if options.start_from and not common[0]:
        raise ValueError(
            f"--start_from: {options.start_from} has no layer of this network"
        )
    warm_start(model, begins_as[common.index(max(common))].model)
    return model


def _by_heart(recipe, people):
    """The recipe without anything that keeps a network from learning by heart."""
    batch = min(recipe.inputs.batch, people * recipe.inputs.views)
    return dataclasses.replace(
        recipe,
        stage=dataclasses.replace(recipe.stage, dropout=0.0),
        inputs=dataclasses.replace(recipe.inputs, batch=batch),
        augment=AugmentConfig(),
    )


def _load_earlier(run, number, index):
    earlier = []
    for i in range(1, number):
        stage = _load(run, i, f"stage {number}")
        if stage.skeleton != index.skeleton:
            raise ValueError(
                f"stage {i} has the skeleton {stage.skeleton.name}, the data "
                f"{index.skeleton.name}"
            )
        earlier.append(stage)
    return earlier


def _load(run, number, needed_by):
    try:
        return load_stage(str(pathlib.Path(run) / f"stage_{number}"))
    except ValueError as error:
        raise ValueError(
            f"{needed_by} needs stage {number}, which cannot be loaded: {error}"
        ) from error


def _unmeasured(recipe, index, model, asked):
    """A stage whose displacements are not known yet."""
    joints = len(index.skeleton.joints)
    mean, covariance = np.zeros([joints, 2]), np.zeros([joints, 2, 2])
    return Stage(recipe.stage, index.skeleton, model, mean, covariance, asked)


def main(argv: list[str]) -> None:
    """Trains the stage that the flags name."""
    del argv
    values = flags.FLAGS
    index = records.read_index(values.data)
    recipe = training_flags.recipe_from_flags(values.stage)
    train_stage(
        values.run, values.stage, index, recipe, training_flags.options_from_flags()
    )


def define_flags() -> None:
    """Flags of this script: those of training, and which stage."""
    training_flags.define_flags()
    flags.DEFINE_integer(
        "stage", None, "Number of the stage, from 1.", lower_bound=1, required=True
    )


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__, folder="run")


if __name__ == "__main__":
    run()
