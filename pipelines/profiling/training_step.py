"""What the parts of a training step cost in time, and training in memory.

The parts are those of training itself, timed in turns by `timer`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
import multiprocessing
import pathlib
import platform
import resource
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.profiling import timer
from deeppose_tf.pipelines.train import cascade, loop, recipes
from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.stage import Stage, build_stage

# Displacements of a simulated earlier stage, standard deviation in pose diameters.
SIMULATED = 0.2
# A part is timed for about this long at a time.
TURN_SECONDS = 3.0
# Training steps of the process whose memory is measured.
STEPS = 2


class Part(NamedTuple):
    """A part of the training step.

    Attributes:
      run: a batch -> an array to wait for; without batches it is given None.
      batches: starts the input side; None for a part that needs no new batches.
    """

    run: Callable
    batches: Callable[[], Iterator] | None = None


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
      seconds and cpu_seconds: for `input`, `network`, `full`, `augmentation` and, where
      there is one, `averaging`, the medians per step of the time that passes and of
      what processors work; and as medians over the rounds the ratios `overhead` and
      `cpu_overhead`, full step / bare network step, and `input_speed`, bare network
      step / input side. The bare step is forward, backward and update on crops that
      are there already.
    """
    parts = _parts(index, recipe, number)
    once = timer.in_turns({"": _prepare(parts["network"], 1)}, [1], shown=False)
    count = max(1, round(TURN_SECONDS / once[""][0, 0]))
    taken = timer.in_turns(parts, [count] * rounds, _prepare)
    found = timer.medians(taken, "network")
    return {
        "steps_per_turn": count,
        **{
            key: {name: one[key] / count for name, one in found.items()}
            for key in ("seconds", "cpu_seconds")
        },
        "overhead": found["full"]["ratio"],
        "cpu_overhead": found["full"]["cpu_ratio"],
        "input_speed": timer.medians(taken, "input")["network"]["ratio"],
    }


def peak_memory(
    directory: str, recipe: recipes.Recipe, number: int, repeats: int
) -> float:
    """Peak memory in MiB of a process that trains on a data set listed several times.

    It reads all records once, makes one epoch of batches, and trains a few steps.

    Args:
      directory: of the prepared data set.
      recipe, number: see `measure`.
      repeats: how often every shard is listed.
    """
    arguments = directory, recipe, number, repeats
    # Not forked: a fork would start with the memory of this process.
    with concurrent.futures.ProcessPoolExecutor(
        1, multiprocessing.get_context("spawn")
    ) as process:
        return process.submit(_train_a_little, *arguments).result()


def repeated(index: records.Index, times: int) -> records.Index:
    """The same data set with every shard listed several times."""
    return dataclasses.replace(
        index,
        counts={split: times * count for split, count in index.counts.items()},
        shards={split: times * shards for split, shards in index.shards.items()},
        weights={split: np.tile(one, times) for split, one in index.weights.items()},
    )


def _parts(index, recipe, number) -> dict[str, Part]:
    config, earlier = recipe.train, _simulated_earlier(index, number)
    strategy = tf.distribute.get_strategy()
    state = _fresh_state(index, recipe, strategy)
    examples = cascade.make_examples(index, recipe, earlier)
    full = steps.make_step(state, examples, config, strategy)
    update = tf.function(steps.make_update(state, config, strategy), autograph=False)
    augmented = tf.function(examples, jit_compile=True, autograph=False)
    batches = functools.partial(_stream, index, recipe, strategy)
    batch = next(batches())
    crops = augmented(*batch)
    parts = {
        "input": Part(lambda batch: batch[0], batches),
        "network": Part(lambda _: update(*crops)),
        "full": Part(full, batches),
        "augmentation": Part(lambda _: augmented(*batch)[1]),
    }
    if config.ema:
        averaged = tf.function(
            functools.partial(steps.average, state, config.ema), autograph=False
        )
        done = tf.constant(10_000)
        parts["averaging"] = Part(lambda _: averaged(done))
    return parts


def _prepare(part, count):
    """`count` steps of a part; their batches are new, and the first step, which starts
    the input side, is done before."""
    ahead = part.batches() if part.batches else itertools.repeat(None)
    np.asarray(part.run(next(ahead)))

    def run():
        for _ in range(count):
            result = part.run(next(ahead))
        np.asarray(result)  # Waits for the device.

    return run


def _simulated_earlier(index, number) -> list[Stage]:
    """The stages before a stage, of which training reads the displacements alone."""
    joints = len(index.skeleton.joints)
    covariance = np.tile(SIMULATED**2 * np.eye(2), (joints, 1, 1))
    stage = Stage(None, index.skeleton, None, np.zeros([joints, 2]), covariance, {})
    return [stage] * (number - 1)


def _fresh_state(index, recipe, strategy) -> steps.State:
    build = functools.partial(build_stage, recipe.stage, index.skeleton, None)
    return steps.make_state(build, recipe.train, strategy)


def _stream(index, recipe, strategy) -> Iterator:
    """Batches for ever, as training reads them."""
    return loop.stream(
        cascade.batches(index, recipe.inputs),
        cascade.count_steps(index, recipe.inputs),
        0,
        strategy,
    )


def _train_a_little(directory, recipe, number, repeats):
    """Runs in a process of its own; see `peak_memory`."""
    index = repeated(records.read_index(directory), repeats)
    strategy = tf.distribute.get_strategy()
    earlier = _simulated_earlier(index, number)
    cascade.mean_target(index, recipe, earlier)
    batches = _stream(index, recipe, strategy)
    for _ in range(cascade.count_steps(index, recipe.inputs)):
        next(batches)
    state = _fresh_state(index, recipe, strategy)
    examples = cascade.make_examples(index, recipe, earlier)
    train_step = steps.make_step(state, examples, recipe.train, strategy)
    for _ in range(STEPS):
        loss = train_step(next(batches))
    np.asarray(loss)
    return _peak()


def _peak():
    """MiB. On Linux `getrusage` would begin with the peak of the parent process."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    except (OSError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1 << 20 if platform.system() == "Darwin" else 1 << 10)
