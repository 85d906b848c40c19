"""`deeppose-train`: trains a whole cascade, stage after stage.

Every stage is saved when it is done, with the displacements that it leaves on the
training data, from which the next one learns. A run that was stopped goes on with the
same command.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from absl import flags

from deeppose_tf import cascade as cascades
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.config import InputConfig
from deeppose_tf.pipelines.train import recipes, strategies, training_flags
from deeppose_tf.pipelines.train import stage as train_stage
from deeppose_tf.pipelines.train import validation as held_out
from deeppose_tf.stage import Stage

# `--stages=auto` gives up after this many.
MOST_STAGES = 6


def train_cascade(
    run: str,
    index: records.Index,
    recipe_for: Callable[[int], recipes.Recipe],
    stages: int | None,
    options: training_flags.Options,
) -> cascades.Cascade:
    """Trains stages until there are enough; `cascade.json` names the finished ones.

    Args:
      run: directory of the cascade.
      index: the prepared data set.
      recipe_for: number of a stage, from 1 -> its recipe.
      stages: S; None adds stages while the held-out PDJ@0.2 grows (Sec. 4.1).
      options: see `training_flags.Options`.

    Returns:
      The cascade, as saved in `run`.

    Raises:
      ValueError: see `train_stage.train_stage`; or S is to be found and the data has
        no validation split.
    """
    if stages is None and not index.counts.get("validation"):
        raise ValueError(
            f"{index.directory} has no validation split to choose the number of stages "
            "by: give --stages=3, or prepare it with one"
        )
    chief = strategies.is_chief(strategies.make_strategy(options.strategy))
    options = dataclasses.replace(options, verbose=options.verbose and chief)
    trained: list[Stage] = []
    score = -1.0
    while len(trained) < (stages or MOST_STAGES):
        number = len(trained) + 1
        recipe = recipe_for(number)
        if options.verbose:
            print(f"stage {number}: {recipe.train.steps} steps")
        stage = train_stage.train_stage(run, number, index, recipe, options)
        if stages is None:
            cascade = cascades.Cascade([*trained, stage])
            found = held_out_pdj(cascade, index, recipe.inputs)
            if options.verbose:
                print(f"stage {number}: held-out PDJ@0.2 {found:.3f}")
            if found <= score:
                break
            score = found
        trained.append(stage)
    cascade = cascades.Cascade(trained)
    if chief:
        # Not the stage that did not help, nor those of an earlier call for more.
        cascade.save_index(run)
    return cascade


def held_out_pdj(
    cascade: cascades.Cascade, index: records.Index, config: InputConfig
) -> float:
    """PDJ@0.2 of the last stage on the validation split, mean over joints, Sec. 4.1."""
    poses, truth, labeled, _ = held_out.predict_split(
        cascade, index, "validation", config
    )
    return held_out.pdj(poses[:, -1], truth, labeled, index.skeleton)


def parse_stages(text: str) -> int | None:
    """`--stages` as a number; None for `auto`."""
    if text == "auto":
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"--stages={text} is neither a positive number nor auto")
    return int(text)


def define_flags() -> None:
    """Flags of this script: those of training, and how many stages."""
    training_flags.define_flags()
    flags.DEFINE_string(
        "stages",
        "3",
        "How many stages, or auto: add stages while PDJ@0.2 of the held-out people "
        "grows. The paper arrived at 3.",
    )


def main(argv: list[str]) -> None:
    """Trains the cascade that the flags describe."""
    del argv
    values = flags.FLAGS
    stages = parse_stages(values.stages)
    for number in range(1, (stages or MOST_STAGES) + 1):
        training_flags.recipe_from_flags(number)  # better now than after a stage
    index = records.read_index(values.data)
    train_cascade(
        values.run,
        index,
        training_flags.recipe_from_flags,
        stages,
        training_flags.options_from_flags(),
    )
    print(
        f"{values.run} is trained. Score it with deeppose-evaluate --model={values.run}"
    )


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__, folder="run")


if __name__ == "__main__":
    run()
