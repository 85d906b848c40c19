"""`deeppose-benchmark`: what the input side, the network and the whole step cost.

The parts are those of training itself. They are timed in turns in one process, so that
whatever else the machine does slows all of them alike, and ratios hold where times
do not. Memory is that of a process of its own.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import itertools
import json
import multiprocessing
import os
import pathlib
import platform
import resource
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import flags

from deeppose_tf import files
from deeppose_tf.pipelines import (
    command,
    recipes,
    records,
    steps,
    train_stage,
    training,
)
from deeppose_tf.stage import Stage, build_stage

# Displacements of a simulated earlier stage, standard deviation in pose diameters.
SIMULATED = 0.2
# A part is timed for about this long at a time.
TURN_SECONDS = 3.0
MEMORY_BATCH = 128
MEMORY_STEPS = 2
REPEATS = 10
# What this project promises: largest full / bare, smallest input / network.
MOST_OVERHEAD = {"paper": 1.10, "compact": 1.25}
LEAST_INPUT = {"paper": 8.0}
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
    )


def table(result: dict) -> str:
    """The result of a benchmark as text."""
    recipe, batch = result["recipe"], result["batch"]
    lines = [
        f"{recipe}, stage {result['stage']}, batch {batch}, {result['cores']} cores, "
        f"TensorFlow {result['tensorflow']}, {result['device']}",
        f"{'':24}{'ms / step':>12}{'crops / s':>12}{'CPU ms':>12}",
    ]
    for name, seconds in result["seconds"].items():
        work = 1000 * result["cpu_seconds"][name]
        lines.append(
            f"{ROWS[name]:24}{1000 * seconds:12.1f}{batch / seconds:12.0f}{work:12.1f}"
        )
    most, least = MOST_OVERHEAD.get(recipe), LEAST_INPUT.get(recipe)
    lines.append(
        f"{'full step / bare':24}{result['overhead']:12.2f}{'':12}"
        f"{result['cpu_overhead']:12.2f}" + (f"   at most {most}" if most else "")
    )
    lines.append(
        f"{'input / network speed':24}{result['input_speed']:12.1f}"
        + (f"{'':24}   at least {least}" if least else "")
    )
    if "memory" in result:
        once, often = result["memory"]["once"], result["memory"]["repeated"]
        lines.append(
            f"{'peak memory, MiB':24}{once:12.0f}   batch {result['memory']['batch']}; "
            f"{often:.0f} with {REPEATS} times the records"
        )
    return "\n".join(lines)


def _medians(parts):
    return {name: float(np.median(values)) for name, values in parts.items()}


def _parts(index, recipe, number) -> dict[str, Callable[[int], tuple[float, float]]]:
    """name -> (steps -> seconds per step, passed and worked), compiled and run once."""
    config = recipe.train
    earlier = _simulated_earlier(index, number)
    strategy = tf.distribute.get_strategy()
    state = _fresh_state(index, recipe, strategy)
    examples = train_stage.make_examples(index, recipe, earlier)
    full = steps.make_step(state, examples, config, strategy)
    update = tf.function(steps.make_update(state, config, strategy), autograph=False)
    augmented = tf.function(examples, jit_compile=True, autograph=False)
    batches = functools.partial(_stream, index, recipe, strategy)
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


def _simulated_earlier(index, number):
    """The stages before a stage, of which training reads the displacements alone."""
    joints = len(index.skeleton.joints)
    covariance = np.tile(SIMULATED**2 * np.eye(2), (joints, 1, 1))
    stage = Stage(None, index.skeleton, None, np.zeros([joints, 2]), covariance, {})
    return [stage] * (number - 1)


def _fresh_state(index, recipe, strategy):
    build = functools.partial(build_stage, recipe.stage, index.skeleton, None)
    return steps.make_state(build, recipe.train, strategy)


def _stream(index, recipe, strategy):
    """Batches for ever, as training reads them."""
    return training.stream(
        functools.partial(train_stage.batches, index, recipe.inputs, 0, None),
        train_stage.count_steps(index, recipe.inputs, None),
        0,
        strategy,
    )


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


def _train_a_little(directory, recipe, number, repeats):
    """Runs in a process of its own; see `peak_memory`."""
    index = repeated(records.read_index(directory), repeats)
    strategy = tf.distribute.get_strategy()
    earlier = _simulated_earlier(index, number)
    train_stage.mean_target(index, recipe, earlier)
    batches = _stream(index, recipe, strategy)
    for _ in range(train_stage.count_steps(index, recipe.inputs, None)):
        next(batches)
    state = _fresh_state(index, recipe, strategy)
    examples = train_stage.make_examples(index, recipe, earlier)
    train_step = steps.make_step(state, examples, recipe.train, strategy)
    for _ in range(MEMORY_STEPS):
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


def define_flags() -> None:
    """Flags of this script."""
    flags.DEFINE_string(
        "data", None, "Directory that deeppose-prepare wrote.", required=True
    )
    flags.DEFINE_enum(
        "recipe", "compact", list(recipes.RECIPES), "Preset whose training is timed."
    )
    flags.DEFINE_integer(
        "stage",
        1,
        "Which stage is timed, from 1; those before it are simulated.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "batch",
        None,
        "Crops per step in the timed part; default: the recipe's.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "rounds",
        5,
        "How often each part has its turn. The medians are reported.",
        lower_bound=1,
    )
    flags.DEFINE_bool(
        "memory",
        True,
        f"Also measure peak memory at batch {MEMORY_BATCH}, with the records listed "
        f"once and {REPEATS} times over, each in a process of its own.",
    )
    flags.DEFINE_string(
        "output", None, "File to write the result to as JSON. Default: none."
    )


def main(argv: list[str]) -> None:
    """Benchmarks what the flags name."""
    del argv
    values = flags.FLAGS
    index = records.read_index(values.data)
    recipe = recipes.recipe_for(values.recipe, values.stage)
    result = {
        "recipe": values.recipe,
        "stage": values.stage,
        "cores": len(os.sched_getaffinity(0)),
        "tensorflow": tf.__version__,
    }
    if values.memory:
        result["memory"] = _memory(index, recipe, values.stage)
    recipe = _with_batch(recipe, values.batch or recipe.inputs.batch)
    result |= {
        "batch": recipe.inputs.batch,
        "device": _device(),
        **measure(index, recipe, values.stage, values.rounds),
    }
    print(table(result))
    if values.output:
        files.write_bytes(values.output, json.dumps(result, indent=2).encode() + b"\n")


def _memory(index, recipe, number):
    recipe = _with_batch(recipe, MEMORY_BATCH)
    once, often = (
        peak_memory(index.directory, recipe, number, repeats)
        for repeats in (1, REPEATS)
    )
    return {"batch": MEMORY_BATCH, "once": once, "repeated": often}


def _with_batch(recipe, batch):
    changed = dataclasses.replace(recipe.inputs, batch=batch)
    return dataclasses.replace(recipe, inputs=changed)


def _device():
    found = tf.config.list_physical_devices("GPU")
    if not found:
        return "no GPU"
    return tf.config.experimental.get_device_details(found[0])["device_name"]


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__)


if __name__ == "__main__":
    run()
