"""The flags of all scripts that train, and what they make of a recipe."""

from __future__ import annotations

import dataclasses

import tensorflow as tf
from absl import flags

from deeppose_tf.pipelines.train import recipes


@dataclasses.dataclass(frozen=True)
class Options:
    """What does not belong to a recipe.

    Attributes:
      seed: of weights, order and augmentation.
      overfit: learn this many people by heart, unvaried; 0 for all of them.
      weights: of a `keras.applications` backbone: None, `imagenet` or a file.
      start_from: a trained run whose stage of the same number a stage begins as.
      strategy: see `strategies.make_strategy`.
      guard: stop a collapsed run.
      checkpoint_seconds: between checkpoints.
      verbose: 0 hides progress.
    """

    seed: int = 0
    overfit: int = 0
    weights: str | None = None
    start_from: str | None = None
    strategy: str = "auto"
    guard: bool = True
    checkpoint_seconds: float = 60.0
    verbose: int = 1


def define_flags() -> None:
    """Flags of all scripts that train."""
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
        "Preset: compact is small and made for few data and phones; deep is compact "
        "with later stages as deep as the first, better and slower; paper follows "
        "the paper to the letter (58 million parameters a stage).",
    )
    flags.DEFINE_integer("steps", None, "Gradient steps a stage; default: recipe's.")
    flags.DEFINE_integer(
        "batch", None, "Crops per step over all devices; default: the recipe's."
    )
    flags.DEFINE_float(
        "learning_rate",
        None,
        "Highest rate; default: the recipe's.",
        lower_bound=0.0,
    )
    flags.DEFINE_string(
        "optimizer",
        None,
        "adagrad, sgd, adam, adamw, lamb, or addons.NAME of tensorflow-addons; "
        "default: the recipe's.",
    )
    flags.DEFINE_float(
        "initial_accumulator",
        None,
        "Where adagrad's sum of squared gradients starts: the larger, the slower its "
        "first steps. Other optimizers have none. Default: the recipe's.",
        lower_bound=0.0,
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
    flags.DEFINE_string(
        "start_from",
        None,
        "A trained run, of any joints: each stage begins as its stage of the same "
        "number, layer by layer as far as they have the same shapes, which saves most "
        "of the steps where people are few; or as the stage before, if that has more "
        "of its layers before the last and the recipe allows. Default: at random.",
    )
    flags.DEFINE_integer("size", None, "Side of a crop, pixels; default: the recipe's.")
    flags.DEFINE_float(
        "sigma",
        None,
        "Side of a joint's box in pose diameters, later stages; default: the "
        "recipe's. The paper chose 2.0 for LSP and 1.0 for FLIC.",
    )
    flags.DEFINE_float(
        "step_size",
        None,
        "Share of the displacement seen that later stages apply; default: the "
        "recipe's. The paper's is 1. Less gains where joints are nearly right already.",
    )
    flags.DEFINE_float(
        "displacement",
        None,
        "How far the simulated displacements of later stages spread, as a share of "
        "those observed on the training people; default: the recipe's. The paper's is "
        "1. Where people are few, the stage before knows them too well, and those it "
        "has never seen need more.",
        lower_bound=0.0,
    )
    flags.DEFINE_alias("correction", "step_size")
    flags.DEFINE_enum(
        "precision",
        None,
        ["auto", "float32", "mixed_bfloat16"],
        "Arithmetic of the network; default: the recipe's. auto takes bfloat16 where "
        "the processor multiplies in it, which is twice as fast or more.",
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
        lower_bound=0,
    )
    flags.DEFINE_bool(
        "collapse_guard", True, "Stop with advice when every image gets the same pose."
    )


def recipe_from_flags(number: int, sigma: float | None = None) -> recipes.Recipe:
    """The preset of a stage with what the flags change.

    Args:
      number: of the stage, from 1, which has no use for a sigma.
      sigma: in place of that of the flags.
    """
    values = flags.FLAGS
    recipe = recipes.recipe_for(values.recipe, number)
    sigma = values.sigma if sigma is None else sigma
    changed = {
        "stage": {
            "network": values.network,
            "size": values.size,
            "sigma": sigma if number > 1 else None,
            "step_size": values.step_size if number > 1 else None,
        },
        "inputs": {"batch": values.batch},
        "augment": {"displacement": values.displacement if number > 1 else None},
        "train": {
            "steps": values.steps,
            "learning_rate": values.learning_rate,
            "optimizer": values.optimizer,
            "initial_accumulator": values.initial_accumulator,
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
        start_from=values.start_from,
        strategy=values.strategy,
        guard=values.collapse_guard,
    )
