"""What the parts of a training step cost, timed in turns.

They are those of training itself. In turns and in one process, so that whatever else
the machine does slows all of them alike, and ratios hold where times do not.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.train import loop as training
from deeppose_tf.pipelines.train import recipes, stage_data
from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.stage import Stage, build_stage

# Displacements of a simulated earlier stage, standard deviation in pose diameters.
SIMULATED = 0.2
# A part is timed for about this long at a time.
TURN_SECONDS = 3.0
ROWS = {
    "input": "input side alone",
    "network": "bare network step",
    "full": "full training step",
    "augmentation": "  of it augmentation",
    "averaging": "  of it running average",
}


def measure(
    index: records.Index, recipe: recipes.Recipe, number: int, rounds: int
) -> dict:
    """Times the parts of a training step in turns.

    Args:
      index: the prepared data set.
      recipe: of the stage.
      number: of the stage, from 1; the stage before a later one is simulated by
        displacements without a mean.
      rounds: turns of each part.

    Returns:
      seconds and cpu_seconds: for each of `ROWS` the median per step of the time that
      passes and of the time that cores work, which other programs disturb less; and as
      medians over the rounds the ratios `overhead` and `cpu_overhead`, full step / bare
      network step, and `input_speed`, bare network step / input side. The bare step is
      forward, backward and update on crops that are there already.
    """
    parts = _parts(index, recipe, number)
    count = _steps_per_turn(parts["network"])
    turns = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            turns[name].append(part(count))
    passed, worked = (
        {name: np.array(pairs)[:, i] for name, pairs in turns.items()} for i in range(2)
    )
    return {
        "steps_per_turn": count,
        "seconds": _medians(passed),
        "cpu_seconds": _medians(worked),
        "overhead": float(np.median(passed["full"] / passed["network"])),
        "cpu_overhead": float(np.median(worked["full"] / worked["network"])),
        "input_speed": float(np.median(passed["network"] / passed["input"])),
    }


def simulated_earlier(index: records.Index, number: int) -> list[Stage]:
    """The stages before a stage, of which training reads the displacements alone."""
    joints = len(index.skeleton.joints)
    covariance = np.tile(SIMULATED**2 * np.eye(2), (joints, 1, 1))
    stage = Stage(None, index.skeleton, None, np.zeros([joints, 2]), covariance, {})
    return [stage] * (number - 1)


def fresh_state(
    index: records.Index, recipe: recipes.Recipe, strategy: tf.distribute.Strategy
) -> steps.State:
    """An untrained network of a recipe, and its optimizer."""
    build = functools.partial(build_stage, recipe.stage, index.skeleton, None)
    return steps.make_state(build, recipe.train, strategy)


def stream(
    index: records.Index, recipe: recipes.Recipe, strategy: tf.distribute.Strategy
) -> Iterator:
    """Batches for ever, as training reads them."""
    return training.stream(
        functools.partial(stage_data.batches, index, recipe.inputs, 0, None),
        stage_data.count_steps(index, recipe.inputs, None),
        0,
        strategy,
    )


def _medians(parts):
    return {name: float(np.median(values)) for name, values in parts.items()}


def _parts(index, recipe, number) -> dict[str, Callable[[int], tuple[float, float]]]:
    """name -> (steps -> seconds per step, passed and worked), compiled and run once."""
    config = recipe.train
    earlier = simulated_earlier(index, number)
    strategy = tf.distribute.get_strategy()
    state = fresh_state(index, recipe, strategy)
    examples = stage_data.make_examples(index, recipe, earlier)
    full = steps.make_step(state, examples, config, strategy)
    update = tf.function(steps.make_update(state, config, strategy), autograph=False)
    augmented = tf.function(examples, jit_compile=True, autograph=False)
    batches = functools.partial(stream, index, recipe, strategy)
    batch = next(batches())
    crops = augmented(*batch)
    parts = {
        "input": functools.partial(_time, batches, lambda batch: batch[0]),
        "network": functools.partial(_time, None, lambda _: update(*crops)),
        "full": functools.partial(_time, batches, full),
        "augmentation": functools.partial(_time, None, lambda _: augmented(*batch)[1]),
    }
    if config.ema:
        averaged = tf.function(
            functools.partial(steps.average, state, config.ema), autograph=False
        )
        done = tf.constant(10_000)
        parts["averaging"] = functools.partial(_time, None, lambda _: averaged(done))
    return parts


def _steps_per_turn(part):
    return max(1, round(TURN_SECONDS / part(1)[0]))


def _time(batches, run, count):
    """Seconds per step, passed and worked; where batches are read, they are new."""
    batches = batches() if batches else itertools.repeat(None)
    # The first step starts the input side, or compiles; it is not counted.
    np.asarray(run(next(batches)))
    start, worked = time.perf_counter(), time.process_time()
    for _ in range(count):
        result = run(next(batches))
    np.asarray(result)  # Waits for the device.
    passed, worked = time.perf_counter() - start, time.process_time() - worked
    return passed / count, worked / count
