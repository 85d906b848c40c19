"""Trains a cascade, stage after stage, each from the displacements of those before.

Every stage is saved when it is done, and the run is a cascade that can be evaluated and
predicted with. The displacements that it leaves on the training data, which the next
stage is trained to undo (Sec. 3.2), are measured and saved when that one begins.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeppose_tf import cascade as cascades
from deeppose_tf import files, geometry, metrics
from deeppose_tf.config import find_stage
from deeppose_tf.pipelines.cli.outputs import counted
from deeppose_tf.pipelines.data import augment, canvases, inputs, records
from deeppose_tf.pipelines.data.config import AugmentConfig, InputConfig
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.train import (
    fingerprint,
    loop,
    recipes,
    step,
    strategies,
    validation,
)
from deeppose_tf.pipelines.train.loop import Options
from deeppose_tf.pipelines.train.recipes import MOST_STAGES
from deeppose_tf.stage import (
    Stage,
    build_stage,
    count_common,
    load_stage,
    save_stage,
    warm_start,
)
from deeppose_tf.weights import origins


def train_cascade(
    run: str,
    index: records.Index,
    recipe_for: Callable[[int], recipes.Recipe],
    stages: int | None,
    options: Options,
) -> cascades.Cascade:
    """As `train_stages`; returns the cascade, as saved in `run`."""
    count = train_stages(run, index, recipe_for, stages, options)
    # As saved: what a stage leaves was measured when the next one began.
    return cascades.Cascade(_load_earlier(run, count + 1, index))


def train_stages(
    run: str,
    index: records.Index,
    recipe_for: Callable[[int], recipes.Recipe],
    stages: int | None,
    options: Options,
) -> int:
    """Trains stages until there are enough; `cascade.json` names the finished ones.

    Args:
      run: folder of the cascade.
      index: the prepared data set.
      recipe_for: number of a stage, from 1 -> its recipe.
      stages: S; None adds stages while the held-out PDJ@0.2 grows (Sec. 4.1).
      options: see `loop.Options`.

    Returns:
      How many they are.

    Raises:
      ValueError: see `train_stage`; or S is to be found and the data has no validation
        split.
    """
    if stages is None and not index.counts.get("validation"):
        raise ValueError(
            f"{index.directory} has no validation split to choose the number of stages "
            "by: give --stages=3, or prepare it with one"
        )
    strategy = strategies.make_strategy(options.strategy, options.wait_seconds)
    chief = strategies.is_chief(strategy)
    trained: list[Stage] = []
    score = -1.0
    while len(trained) < (stages or MOST_STAGES):
        number = len(trained) + 1
        recipe = recipe_for(number)
        if options.verbose:
            steps = counted(recipe.train.steps, "step")
            print(f"stage {number}: {steps}", flush=True)
        stage = train_stage(run, number, index, recipe, options)
        if stages is None:
            cascade = cascades.Cascade([*trained, stage])
            found = held_out_pdj(cascade, index, recipe.inputs)
            if options.verbose:
                print(f"stage {number}: held-out PDJ@0.2 {found:.3f}", flush=True)
            if found <= score:
                break
            score = found
        trained.append(stage)
    if chief:
        # Not the stage that did not help, nor those of an earlier call for more.
        cascades.Cascade(trained).save_index(run)
    return len(trained)


def held_out_pdj(
    cascade: cascades.Cascade, index: records.Index, config: InputConfig
) -> float:
    """PDJ@0.2 of the last stage on the validation split, mean over joints, Sec. 4.1."""
    poses, truth, labeled, _ = validation.predict_split(
        cascade, index, "validation", config
    )
    return validation.pdj(poses[:, -1], truth, labeled, index.skeleton)


def train_stage(
    run: str,
    number: int,
    index: records.Index,
    recipe: recipes.Recipe,
    options: Options,
) -> Stage:
    """Trains stage `number` of a run, resumes it, or loads it where it is finished.

    A finished stage of which more steps are asked goes on from its checkpoint, as if
    they had been asked for when it began, but for a schedule: the learning rate from
    here on is that of the longer one.

    Args:
      run: folder of the cascade; stages before `number` are in it.
      number: s, from 1.
      index: the prepared data set.
      recipe: configuration of this stage.
      options: see `loop.Options`.

    Returns:
      The stage, saved as `run/stage_<number>`. The one before is saved again with the
      displacements that it leaves on the training data, and `run/cascade.json` names
      all of them.

    Raises:
      ValueError: an earlier stage is missing or has another skeleton; or the stage was
        begun with other settings, or is to go on and cannot; or another process
        trains there.
      loop.TrainingError: see there.
    """
    # Several workers have to meet before TensorFlow computes anything.
    strategy = strategies.make_strategy(options.strategy, options.wait_seconds)
    chief = strategies.is_chief(strategy)
    # Of several workers, which share the folder, one keeps others out.
    alone = files.alone(run, "training") if chief else contextlib.nullcontext()
    with alone, strategies.together(strategy):
        recipe = _fitted(recipe, index, options, strategy)
        earlier = _load_earlier(run, number, index)
        if earlier and not np.any(earlier[-1].covariance):
            earlier = _measured(run, earlier, index, options, strategy)
        begins_as = earlier[-1:] if recipe.warm_start else []
        if options.start_from:
            begins_as = [_load(options.start_from, number, "--start_from"), *begins_as]
        if own := options.weights and find_stage(options.weights):
            begins_as = [*begins_as, load_stage(own)]
        asked = fingerprint.of(recipe, options, index, earlier)
        directory = pathlib.Path(run) / f"stage_{number}"
        work = pathlib.Path(run) / f"training_{number}"
        finished = load_stage(str(directory)) if directory.exists() else None
        more = 0
        if finished:
            more = fingerprint.missing_steps(directory, finished.training, asked)
            if more:
                _check_can_go_on(run, number, more)
        stage = finished
        if more or not finished:
            stage = _train(
                work, index, recipe, options, earlier, begins_as, asked, strategy
            )
            if chief:
                save_stage(stage, str(directory))
            strategies.from_chief(strategy, [0])  # which is when all have come here
        if chief:
            # Of a stage that was there already, later ones may be too, and named.
            if stage is not finished or not _is_named(run, number):
                cascades.Cascade([*earlier, stage]).save_index(run)
            # Here, because a kill may have come after the stage was saved.
            _keep_newest(work / "checkpoints")
        return stage


def make_examples(
    index: records.Index, recipe: recipes.Recipe, earlier: list[Stage]
) -> Callable:
    """The augmentation of a stage as a function of a batch of `batches`: stage 1 learns
    whole people, a later one the displacements of the stage before."""
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    common = index.skeleton, recipe.stage, recipe.augment, on_gpu
    if not earlier:
        return lambda *batch: augment.pose_examples(*batch, *common)
    mean = tf.constant(earlier[-1].mean, tf.float32)
    covariance = tf.constant(earlier[-1].covariance, tf.float32)

    def joint(images, keypoints, labeled, boxes, draws):
        del boxes  # later stages look at joints only
        return augment.joint_examples(
            images, keypoints, labeled, draws, mean, covariance, *common
        )

    return joint


def check_people(
    index: records.Index, config: InputConfig, limit: int | None = None
) -> None:
    """Refuses data with fewer people to train on than one step takes.

    Raises:
      ValueError: says how many there are.
    """
    count, needed = _count(index, limit), config.batch // config.views
    if count < needed:
        raise ValueError(
            f"{index.directory} has {counted(count, 'person')} to train on, a step "
            f"takes {needed}: lower --batch, or leave it out to have it fitted"
        )


def mean_target(
    index: records.Index, recipe: recipes.Recipe, earlier: list[Stage]
) -> np.ndarray:
    """[K, 2] normalized: the mean of a stage's targets, which it answers untrained; of
    many people, that of the first `validation.MEASURED` records."""
    if earlier:
        return -earlier[-1].mean / recipe.stage.sigma
    people = read_people(index, "train", validation.MEASURED)
    boxes = geometry.first_boxes(
        people.first_boxes, recipe.stage.margin, recipe.stage.square
    )
    normalized = geometry.normalize(people.keypoints, boxes).numpy()
    mean = metrics.mean_pose(normalized, people.labeled, people.weights)
    return mean.astype(np.float32)


def _train(work, index, recipe, options, earlier, begins_as, asked, strategy):
    """A trained stage, whose displacements are not measured yet; `asked` is the
    fingerprint that is kept with it."""
    limit = options.overfit or None
    check_people(index, recipe.inputs, limit)
    asked = fingerprint.continued(work, asked)
    if strategies.is_chief(strategy):
        fingerprint.keep(work, asked)
    target = mean_target(index, recipe, earlier)
    build = functools.partial(_build, index, recipe, begins_as, options, target)
    state = step.make_state(build, recipe.train, strategy, options.seed)
    if options.verbose:
        _tell_start(state.model, index.skeleton, begins_as, options.weights)
    shown = recipe.train.steps * recipe.inputs.batch // recipe.inputs.views
    people = canvases.open_people(
        index, recipe.inputs, options.cache, limit, shown, options.verbose
    )
    joints = len(index.skeleton.joints)
    unmeasured = np.zeros([joints, 2]), np.zeros([joints, 2, 2])
    stage = Stage(recipe.stage, index.skeleton, state.averaged, *unmeasured, asked)
    cascade = cascades.Cascade([*earlier, stage])
    data = loop.StageData(
        functools.partial(inputs.training_dataset, people, recipe.inputs, options.seed),
        make_examples(index, recipe, earlier),
        recipe.inputs.batch,
        recipe.inputs.batch // recipe.inputs.views,
        validation.evaluator(cascade, index, recipe.inputs, target, limit),
        people,
    )
    loop.train(state, data, recipe.train, str(work), strategy, options)
    return stage


def _measured(run, stages, index, options, strategy):
    """The stages of a run, the last saved with the displacements that it leaves on the
    canvases that it was trained on. Not when it is trained: that takes as long as tens
    of steps, and nothing asks for those of a last stage."""
    strategies.from_chief(strategy, [0])  # All have loaded what the chief replaces.
    *before, last = stages
    mean, covariance = validation.observed_displacements(
        cascades.Cascade(stages),
        index,
        recipes.from_json(last.training["recipe"]).inputs,
        options.overfit or None,
        options.verbose,
    )
    last = dataclasses.replace(last, mean=mean, covariance=covariance)
    if strategies.is_chief(strategy):
        save_stage(last, str(pathlib.Path(run) / f"stage_{len(stages)}"))
    return [*before, last]


def _fitted(recipe, index, options, strategy):
    """The recipe with a batch that the people fill; without whatever keeps a network
    from overfitting, where it is to."""
    if options.overfit:
        recipe = dataclasses.replace(
            recipe,
            stage=dataclasses.replace(recipe.stage, dropout=0.0),
            augment=AugmentConfig(),
        )
    if not options.fit_batch and not options.overfit:
        return recipe
    count = _count(index, options.overfit)
    fitted = recipes.fitted(recipe, count, strategy.num_replicas_in_sync)
    if fitted != recipe and options.verbose and not options.overfit:
        print(
            f"batches of {fitted.inputs.batch} crops instead of {recipe.inputs.batch}, "
            f"for {counted(count, 'person')} to train on",
            flush=True,
        )
    return fitted


def _count(index, limit):
    """How many people an epoch shows, each as often as the weights say."""
    people = index.people.get("train")
    return int(people.weights[: limit or None].sum()) if people else 0


def _build(index, recipe, begins_as, options, target, precision):
    """A fresh network that answers the mean target, or begins as another stage: the
    first of those with the most weights in common."""
    own = options.weights and find_stage(options.weights)
    foreign = None if own else options.weights
    model = build_stage(recipe.stage, index.skeleton, target, precision, foreign)
    if not begins_as:
        return model
    closest, most = _closest(model, begins_as)
    first = count_common(model, begins_as[0].model)
    lacking = not first if options.start_from else own and not most
    if lacking and not foreign:
        theirs = begins_as[0].config.network
        names = [x for x, y in recipes.RECIPES.items() if y[0].stage.network == theirs]
        raise ValueError(
            f"{options.start_from or own} has no layer of this network to begin with: "
            f"that is {theirs}, this {recipe.stage.network}. Recipes of that are "
            f"{', '.join(names) or 'none'}"
        )
    warm_start(model, index.skeleton, closest)
    return model


def _closest(model, begins_as):
    """The first of the stages with the most weights in common, and how many."""
    common = [count_common(model, stage.model) for stage in begins_as]
    most = max(common)
    return begins_as[common.index(most)], most


def _tell_start(model, skeleton, begins_as, weights):
    """Says with how much a network began, and which joints not as those of their
    names."""
    foreign = weights if weights and not find_stage(weights) else ""
    closest, most = _closest(model, begins_as) if begins_as else (None, 0)
    if foreign and most < len(model.weights):
        print(f"begins as {foreign}")
    if not begins_as or (foreign and not most):
        return
    print(f"begins with {most} of {len(model.weights)} weights as trained")
    known = closest.skeleton.canonical
    begun = zip(
        skeleton.joints, skeleton.canonical, origins(skeleton, known), strict=True
    )
    new = [
        f"{joint} as {'all' if len(names) == len(known) else ', '.join(names)}"
        for joint, name, names in begun
        if names != (name,)
    ]
    if new and most == len(model.weights):
        print(f"joints that are new to it begin as others: {'; '.join(new)}")


def _check_can_go_on(run, number, more):
    """Refuses to train a finished stage further without its checkpoint, or under later
    stages, which were trained on what it left."""
    folder = pathlib.Path(run)
    steps = f"{more} more {'step is' if more == 1 else 'steps are'} asked"
    said = f"{folder / f'stage_{number}'} is finished, and {steps}"
    later = [
        path
        for path in sorted(folder.glob("*_*"))
        if path.name.startswith(("stage_", "training_"))
        and int(path.name.rpartition("_")[2]) > number
    ]
    if not any((folder / f"training_{number}").glob("checkpoints/*.index")):
        raise ValueError(
            f"{said} for: its checkpoint, from which it would go on, is gone. Train "
            f"another --run with --start_from={run}, which begins with its weights"
        )
    if later:
        raise ValueError(
            f"{said} for. Later stages were trained on what it leaves now: remove them "
            f"first, with rm -r {' '.join(map(str, later))} and the same command "
            "trains it on and them anew"
        )


def _keep_newest(checkpoints):
    """Removes all checkpoints of a finished stage but the one it can go on from."""
    for path in checkpoints.glob("*/"):
        shutil.rmtree(path, ignore_errors=True)  # of other workers
    loop.sweep(checkpoints, 1)


def _is_named(run, number):
    """Whether `cascade.json` names this stage."""
    path = pathlib.Path(run) / "cascade.json"
    return path.exists() and f"'stage_{number}'" in str(files.read_json(path))


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
