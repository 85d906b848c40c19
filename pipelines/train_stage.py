"""`deeppose-train-stage`: trains one stage of a cascade.

The stages before it have to be there: their displacements on the training data are what
a later stage is trained to undo (Sec. 3.2).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import shutil

import numpy as np
import tensorflow as tf
from absl import flags

from deeppose_tf import cascade as cascades
from deeppose_tf import draw, files, geometry, metrics
from deeppose_tf.pipelines import (
    augment,
    command,
    inputs,
    recipes,
    records,
    training,
)
from deeppose_tf.pipelines.people import read_people
from deeppose_tf.stage import (
    Stage,
    build_stage,
    load_stage,
    save_stage,
    warm_start,
)

# People whose poses are looked at during training.
HELD_OUT = 200
EVALUATIONS = 20
EVALUATION_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Options:
    """What does not belong to a recipe.

    Attributes:
      seed: of weights, order and augmentation.
      overfit: learn this many people by heart, unvaried; 0 for all of them.
      weights: of a `keras.applications` backbone: None, `imagenet` or a file.
      strategy: see `training.make_strategy`.
      guard: stop a collapsed run.
      checkpoint_seconds: between checkpoints.
      verbose: 0 hides progress.
    """

    seed: int = 0
    overfit: int = 0
    weights: str | None = None
    strategy: str = "auto"
    guard: bool = True
    checkpoint_seconds: float = 60.0
    verbose: int = 1


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
      on the training data.

    Raises:
      ValueError: an earlier stage is missing or has another skeleton, or the stage was
        begun with other settings.
      training.TrainingError: see there.
    """
    directory = pathlib.Path(run) / f"stage_{number}"
    if (directory / "stage.json").exists():
        return load_stage(str(directory))
    if options.overfit:
        recipe = _by_heart(recipe, options.overfit)
    limit = options.overfit or None
    earlier = _load_earlier(run, number, index)
    work = pathlib.Path(run) / f"training_{number}"
    settings = _settings(recipe, options, index)
    _check_settings(work, settings)
    steps_per_epoch = count_steps(index, recipe.inputs, limit)
    strategy = training.make_strategy(options.strategy)
    target = mean_target(index, recipe, earlier)
    model = training.train(
        build=functools.partial(_build, index, recipe, earlier, options, target),
        examples=make_examples(index, recipe, earlier),
        batches=functools.partial(batches, index, recipe.inputs, options.seed, limit),
        steps_per_epoch=steps_per_epoch,
        config=recipe.train,
        directory=str(work),
        strategy=strategy,
        evaluator=functools.partial(_evaluator, index, recipe, earlier, target, limit),
        evaluate_every=max(recipe.train.steps // EVALUATIONS, 1),
        checkpoint_seconds=options.checkpoint_seconds,
        guard=options.guard,
        seed=options.seed,
        verbose=options.verbose,
    )
    stage = _unmeasured(recipe, index, model, settings)
    mean, covariance = observed_displacements(
        cascades.Cascade([*earlier, stage]), index, recipe.inputs, limit
    )
    stage = dataclasses.replace(stage, mean=mean, covariance=covariance)
    save_stage(stage, str(directory))
    shutil.rmtree(work / "checkpoints")
    return stage


def make_examples(index: records.Index, recipe: recipes.Recipe, earlier: list[Stage]):
    """The augmentation of a stage as a function of a batch of `training_dataset`."""

    def pose(canvases, keypoints, labeled, boxes, draws):
        return augment.pose_examples(
            canvases,
            keypoints,
            labeled,
            boxes,
            draws,
            index.skeleton,
            recipe.stage,
            recipe.augment,
        )

    def joint(canvases, keypoints, labeled, boxes, draws):
        del boxes  # later stages look at joints only
        return augment.joint_examples(
            canvases,
            keypoints,
            labeled,
            draws,
            tf.constant(earlier[-1].mean, tf.float32),
            tf.constant(earlier[-1].covariance, tf.float32),
            index.skeleton,
            recipe.stage,
            recipe.augment,
        )

    return joint if earlier else pose


def observed_displacements(
    cascade: cascades.Cascade,
    index: records.Index,
    config: inputs.InputConfig,
    limit: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean [K, 2] and covariance [K, 2, 2] of y^s - y over the training data."""
    poses, truth, labeled, _ = predict_split(cascade, index, "train", config, limit)
    displaced, known = cascades.displacements(
        poses[:, -1], truth, labeled, index.skeleton
    )
    farthest = cascade.stages[-1].config.farthest
    return cascades.displacement_statistics(displaced.numpy(), known.numpy(), farthest)


def _build(index, recipe, earlier, options, target, precision):
    """A fresh network that answers the mean target, or begins as the stage before."""
    model = build_stage(
        recipe.stage, index.skeleton, target, precision, options.weights
    )
    if earlier and recipe.warm_start:
        warm_start(model, earlier[-1].model)
    return model


def _by_heart(recipe, people):
    """The recipe without anything that keeps a network from learning by heart."""
    views = recipe.inputs.views
    return dataclasses.replace(
        recipe,
        stage=dataclasses.replace(recipe.stage, dropout=0.0),
        inputs=dataclasses.replace(
            recipe.inputs, batch=min(recipe.inputs.batch, people * views)
        ),
        augment=augment.AugmentConfig(),
    )


def _load_earlier(run, number, index):
    earlier = []
    for i in range(1, number):
        try:
            stage = load_stage(str(pathlib.Path(run) / f"stage_{i}"))
        except ValueError as error:
            raise ValueError(
                f"stage {number} needs stage {i}, which cannot be loaded: {error}"
            ) from error
        if stage.skeleton != index.skeleton:
            raise ValueError(
                f"stage {i} has the skeleton {stage.skeleton.name}, the data "
                f"{index.skeleton.name}"
            )
        earlier.append(stage)
    return earlier


def _settings(recipe, options, index):
    """Everything that the result depends on, as a JSON value."""
    settings = {
        "recipe": dataclasses.asdict(recipe),
        "seed": options.seed,
        "overfit": options.overfit,
        "weights": options.weights,
        "tensorflow": tf.__version__,
        "data": {"counts": index.counts, "provenance": index.provenance},
    }
    return json.loads(json.dumps(settings))


def _check_settings(work, settings):
    """Refuses to go on with a training that was begun with other settings."""
    path = work / "settings.json"
    if path.exists():
        begun = json.loads(path.read_text())
        differ = sorted(key for key in settings if begun.get(key) != settings[key])
        if differ:
            raise ValueError(
                f"{work} was begun with another {', '.join(differ)}: give the same "
                "flags to go on, another --run, or remove that folder to start again"
            )
    work.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, json.dumps(settings, indent=2).encode() + b"\n")


def count_steps(index, config, limit):
    count = min(index.counts["train"], limit or index.counts["train"])
    people = config.batch // config.views
    if count < people:
        raise ValueError(
            f"{index.directory} has {count} people to train on, a step takes {people}: "
            "lower --batch"
        )
    return count // people


def batches(index, config, seed, limit, epoch, skip):
    return inputs.training_dataset(index, config, seed, epoch, skip, limit)


def mean_target(index, recipe, earlier):
    """[K, 2] what an untrained stage should answer: the mean of its targets."""
    if earlier:
        return -earlier[-1].mean / recipe.stage.sigma
    people = read_people(index, "train")
    boxes = geometry.first_boxes(
        people.first_boxes, recipe.stage.margin, recipe.stage.square
    )
    normalized = geometry.normalize(people.keypoints, boxes).numpy()
    return metrics.mean_pose(normalized, people.labeled)


def _evaluator(index, recipe, earlier, target, limit, model):
    """The held-out score of a network in training, see `training.train`."""
    split = "validation" if index.counts.get("validation") and not limit else "train"
    stage = _unmeasured(recipe, index, model, {})
    cascade = cascades.Cascade([*earlier, stage])
    people = limit or HELD_OUT

    def evaluate(step):
        poses, truth, labeled, boxes = predict_split(
            cascade, index, split, recipe.inputs, people
        )
        tf.summary.image("held out", _sheet(cascade, index, split, recipe)[None], step)
        if earlier:
            before = poses[:, -2]
        else:
            margin, square = recipe.stage.margin, recipe.stage.square
            first = geometry.first_boxes(boxes, margin, square)
            before = np.asarray(geometry.denormalize(target[None], first))
        report = {
            "pdj": _pdj(poses[:, -1], truth, labeled, index.skeleton),
            "floor": _pdj(before, truth, labeled, index.skeleton),
        }
        if not earlier:
            report["spread"] = _spread(poses[:, -1], truth, labeled, boxes)
        return report

    return evaluate


def predict_split(
    cascade: cascades.Cascade,
    index: records.Index,
    split: str,
    config: inputs.InputConfig,
    limit: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The poses of a split's people by stage, on their canvases.

    Returns:
      poses [N, S, K, 2], truth [N, K, 2], labeled [N, K] and first boxes [N, 4], all in
      pixels of the canvases.
    """
    found = []
    dataset = inputs.evaluation_dataset(index, split, config, EVALUATION_BATCH, limit)
    for canvases, keypoints, labeled, boxes in dataset:
        answer = cascade.predict_batch(canvases, boxes)
        found.append((answer["keypoints_by_stage"], keypoints, labeled, boxes))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def _pdj(predicted, truth, labeled, skeleton):
    return float(np.nanmean(metrics.pdj(predicted, truth, labeled, skeleton, [0.2])))


def _spread(predicted, truth, labeled, boxes):
    """How much predictions vary across people, as a share of how much labels do."""
    predicted = geometry.normalize(predicted, boxes)
    truth = np.where(labeled[..., None], geometry.normalize(truth, boxes), np.nan)
    varied = np.nanmean(np.nanstd(truth, axis=0))
    return float(np.mean(np.std(predicted, axis=0)) / max(varied, 1e-6))


def _sheet(cascade, index, split, recipe, count=8):
    """Some people, truth in green and prediction in red, as one image."""
    dataset = inputs.evaluation_dataset(index, split, recipe.inputs, count, count)
    canvases, truth, labeled, boxes = next(iter(dataset.as_numpy_iterator()))
    poses = cascade.predict_batch(canvases, boxes)["keypoints"]
    people = zip(canvases, truth, poses, labeled, strict=True)
    drawn = [draw.draw_truth(*person, index.skeleton) for person in people]
    return draw.contact_sheet(drawn, [""] * len(drawn), columns=4)


def _unmeasured(recipe, index, model, settings):
    """A stage whose displacements are not known yet."""
    joints = len(index.skeleton.joints)
    mean, covariance = np.zeros([joints, 2]), np.zeros([joints, 2, 2])
    return Stage(recipe.stage, index.skeleton, model, mean, covariance, settings)


def define_flags() -> None:
    """Flags of both training scripts."""
    flags.DEFINE_string(
        "data", None, "Directory that deeppose-prepare wrote.", required=True
    )
    flags.DEFINE_string(
        "run",
        None,
        "Directory of the cascade: stages, checkpoints and logs. Give the same one "
        "again to resume a run that was stopped.",
        required=True,
    )
    flags.DEFINE_enum(
        "recipe",
        "compact",
        list(recipes.RECIPES),
        "Preset: compact is small and made for few data and phones; paper follows the "
        "paper to the letter (58 million parameters a stage).",
    )
    flags.DEFINE_integer("steps", None, "Gradient steps a stage; default: recipe's.")
    flags.DEFINE_integer(
        "batch", None, "Crops per step over all devices; default: the recipe's."
    )
    flags.DEFINE_float("learning_rate", None, "Highest rate; default: the recipe's.")
    flags.DEFINE_string(
        "optimizer",
        None,
        "adagrad, sgd, adam, adamw, lamb, or addons.NAME of tensorflow-addons; "
        "default: the recipe's.",
    )
    flags.DEFINE_string(
        "network",
        None,
        "paper, compact, or the name of any class of keras.applications, such as "
        "MobileNetV2; default: the recipe's.",
    )
    flags.DEFINE_string(
        "weights",
        None,
        "What a keras.applications network starts from in every stage: a local file "
        "of weights, or imagenet, which Keras then downloads. Default: at random.",
    )
    flags.DEFINE_integer("size", None, "Side of a crop, pixels; default: the recipe's.")
    flags.DEFINE_float(
        "sigma",
        None,
        "Side of a joint's box in pose diameters, later stages; default: the "
        "recipe's. The paper chose 2.0 for LSP and 1.0 for FLIC.",
    )
    flags.DEFINE_enum(
        "precision",
        None,
        ["float32", "mixed_bfloat16", "mixed_float16"],
        "Arithmetic of the network; default: the recipe's.",
    )
    flags.DEFINE_enum(
        "strategy",
        "auto",
        ["auto", "one", "mirrored", "multiworker"],
        "Devices: one, all GPUs of this machine (mirrored), or several machines "
        "(multiworker, from TF_CONFIG). auto mirrors where there are several GPUs.",
    )
    flags.DEFINE_integer("seed", 0, "Of weights, order and augmentation.")
    flags.DEFINE_bool(
        "deterministic",
        False,
        "The same run twice gives the same weights to the bit, at some cost in speed.",
    )
    flags.DEFINE_integer(
        "overfit",
        0,
        "Learn this many people by heart, without augmentation: the first thing to try "
        "on new data. PDJ on them must come near 1. 0 trains on all.",
    )
    flags.DEFINE_bool(
        "collapse_guard", True, "Stop with advice when every image gets the same pose."
    )


def recipe_from_flags(number: int) -> recipes.Recipe:
    """The preset of a stage with what the flags change."""
    values = flags.FLAGS
    recipe = recipes.recipe_for(values.recipe, number)
    changed = {
        "stage": {
            "network": values.network,
            "size": values.size,
            "sigma": values.sigma,
        },
        "inputs": {"batch": values.batch},
        "train": {
            "steps": values.steps,
            "learning_rate": values.learning_rate,
            "optimizer": values.optimizer,
            "precision": values.precision,
        },
    }
    for part, fields in changed.items():
        given = {name: value for name, value in fields.items() if value is not None}
        config = dataclasses.replace(getattr(recipe, part), **given)
        recipe = dataclasses.replace(recipe, **{part: config})
    return recipe


def options_from_flags() -> Options:
    """`Options` as the flags say; switches determinism on where asked."""
    values = flags.FLAGS
    if values.deterministic:
        tf.config.experimental.enable_op_determinism()
    return Options(
        seed=values.seed,
        overfit=values.overfit,
        weights=values.weights,
        strategy=values.strategy,
        guard=values.collapse_guard,
    )


def main(argv: list[str]) -> None:
    """Trains the stage that the flags name."""
    del argv
    values = flags.FLAGS
    index = records.read_index(values.data)
    recipe = recipe_from_flags(values.stage)
    train_stage(values.run, values.stage, index, recipe, options_from_flags())


def define_stage_flags() -> None:
    """Flags of this script: those of training, and which stage."""
    define_flags()
    flags.DEFINE_integer("stage", None, "Number of the stage, from 1.", required=True)


def run() -> None:
    """Console entry point."""
    command.run(define_stage_flags, main, __doc__)


if __name__ == "__main__":
    run()
