"""How much memory a training takes at its peak, and whether more data take more."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
import platform
import resource

import numpy as np
import tensorflow as tf

from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.profiling import timing
from deeppose_tf.pipelines.train import recipes, stage_data
from deeppose_tf.pipelines.train import step as steps

STEPS = 2


def peak_memory(
    directory: str, recipe: recipes.Recipe, number: int, repeats: int
) -> float:
    """Peak memory in MiB of a process that trains on a data set listed several times.

    It reads all records once, makes one epoch of batches, and trains a few steps.

    Args:
      directory: of the prepared data set.
      recipe, number: see `timing.measure`.
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
    )


def _train_a_little(directory, recipe, number, repeats):
    """Runs in a process of its own; see `peak_memory`."""
    index = repeated(records.read_index(directory), repeats)
    strategy = tf.distribute.get_strategy()
    earlier = timing.simulated_earlier(index, number)
    stage_data.mean_target(index, recipe, earlier)
    batches = timing.stream(index, recipe, strategy)
    for _ in range(stage_data.count_steps(index, recipe.inputs, None)):
        next(batches)
    state = timing.fresh_state(index, recipe, strategy)
    examples = stage_data.make_examples(index, recipe, earlier)
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
