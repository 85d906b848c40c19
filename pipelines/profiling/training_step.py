"""What the parts of a training step cost in time, and training in memory.

The parts are those of training itself, timed in turns by `timer`.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import pathlib
import resource
import sys
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from deeppose_tf.pipelines.data import canvases, inputs, records
from deeppose_tf.pipelines.profiling import roofline, timer
from deeppose_tf.pipelines.train import cascade, recipes
from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.stage import Stage, build_stage

# Displacements of a simulated earlier stage, standard deviation in pose diameters.
SIMULATED = 0.2
# A part is timed for about this long at a time.
TURN_SECONDS = 3.0
# Training steps of the process whose memory is measured.
STEPS = 2


def measure(
    index: records.Index,
    recipe: recipes.Recipe,
    number: int,
    rounds: int,
    cache: str = "auto",
) -> dict:
    """Times the parts of a training step of a stage in turns.

    Args:
      number: of the stage, from 1; the stage before a later one is simulated by
        displacements without a mean.
      rounds: turns of each part.
      cache: where canvases are kept, see `canvases.open_people`.

    Returns:
      seconds and cpu_seconds: for `input`, `network`, `full`, `augmentation` and, where
      there is one, `averaging`, the medians per step of the time that passes and of
      what processors work; and as medians over the rounds the ratios `overhead` and
      `cpu_overhead`, full step / bare network step, and `input_speed`, bare network
      step / input side. The bare step is forward, backward and update on crops that
      are there already. `rates` of the device, `work` by part, and what each part is
      `bound` by: see `roofline`.
    """
    parts, work = _parts(index, recipe, number, cache)
    precision = steps.resolve_precision(recipe.train.precision)
    multiplied_in = tf.keras.mixed_precision.Policy(precision).compute_dtype
    rates = roofline.measure_rates(multiplied_in)
    once = timer.in_turns({"": lambda: parts["network"](1)}, [1], shown=False)
    count = max(1, round(TURN_SECONDS / once[""][0, 0]))
    taken = timer.in_turns(parts, [count] * rounds, functools.partial)
    found = timer.medians(taken, "network")
    seconds, cpu_seconds = (
        {name: one[key] / count for name, one in found.items()}
        for key in ("seconds", "cpu_seconds")
    )
    waited = {"input": seconds["input"], "full": seconds["input"]}
    return {
        "steps_per_turn": count,
        "rates": rates._asdict(),
        "work": {name: one._asdict() for name, one in work.items()},
        "bound": {
            name: roofline.bound(took, work[name], rates, waited.get(name, 0.0))
            for name, took in seconds.items()
        },
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "overhead": found["full"]["ratio"],
        "cpu_overhead": found["full"]["cpu_ratio"],
        "input_speed": timer.medians(taken, "input")["network"]["ratio"],
    }


def peak_memory(
    directory: str, recipe: recipes.Recipe, number: int, repeats: int, cache: str
) -> float:
    """Peak memory in MiB of a process that trains on prepared data in which everyone is
    listed `repeats` times: it makes an epoch of batches, and trains a few steps. For
    the other arguments see `measure`.
    """
    arguments = directory, recipe, number, repeats, cache
    # Not forked: a fork would start with the memory of this process.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context) as process:
        return process.submit(_train_a_little, *arguments).result()


def repeated(index: records.Index, times: int) -> records.Index:
    """The same data set with everyone listed several times."""
    return dataclasses.replace(
        index,
        counts={split: times * count for split, count in index.counts.items()},
        people={
            split: people.take(np.tile(np.arange(len(people.ids)), times))
            for split, people in index.people.items()
        },
    )


def _parts(index, recipe, number, cache) -> tuple[dict[str, Callable], dict]:
    """A part -> what does it so many times and waits for the last; a part -> its
    `roofline.Work`."""
    config, earlier = recipe.train, _simulated_earlier(index, number)
    strategy = tf.distribute.get_strategy()
    state = _fresh_state(index, recipe, strategy)
    examples = cascade.make_examples(index, recipe, earlier)
    people = canvases.open_people(index, recipe.inputs, cache)
    by_xla = steps.suits_xla(state.model, strategy)
    chunked = by_xla and steps.kept_on_device(people)
    ahead = _batches(people, recipe)
    step = steps.make_step(state, examples, config, strategy, people, by_xla)
    full = steps.over_batches(step, chunked)
    chunks = _batches(people, recipe, chunked) if chunked else ahead
    if steps.kept_on_device(people):  # A batch has numbers of people then.
        people = dataclasses.replace(people, cache="memory")
    batch = tuple(map(tf.identity, next(_batches(people, recipe))))
    augmented = tf.function(examples, jit_compile=True, autograph=False)
    crops = tuple(augmented(*batch))
    bare = dataclasses.replace(config, ema=0.0)
    network = steps.make_step(
        state, lambda *crops: crops, bare, strategy, by_xla=by_xla
    )

    def timed(run, argument):
        return functools.partial(_wait, steps.repeated(run, by_xla), argument)

    parts = {
        "input": functools.partial(_read, ahead),
        "network": timed(network, crops),
        "full": functools.partial(_wait, full, chunks),
        "augmentation": timed(lambda batch: augmented(*batch)[1][0, 0, 0], batch),
    }
    work = {
        "input": roofline.Work(0, 0, 0),
        "network": roofline.network_work(state, config, crops),
        "augmentation": roofline.Work(0, sum(map(roofline.size, (*batch, *crops))), 1),
    }
    if config.ema:
        averaged = tf.function(
            lambda done: (steps.average(state, config.ema, done), done)[1],
            autograph=False,
        )
        parts["averaging"] = timed(averaged, tf.constant(10_000.0))
        weights = [*state.model.weights, *2 * state.averaged.weights]
        moved = sum(map(roofline.size, weights))
        work["averaging"] = roofline.Work(0, moved, 4 * len(state.model.weights))
    work["full"] = roofline.Work(*map(sum, zip(*work.values(), strict=True)))
    if by_xla:
        # Of many operations XLA makes a few.
        work = {name: one._replace(operations=0) for name, one in work.items()}
    return parts, work


def _wait(run, argument, count):
    return float(run(argument, count))


def _read(batches, count):
    for _ in range(count):
        batch = next(batches)
    return np.asarray(batch[-1])


def _simulated_earlier(index, number) -> list[Stage]:
    """The stages before a stage, of which training reads the displacements alone."""
    joints = len(index.skeleton.joints)
    covariance = np.tile(SIMULATED**2 * np.eye(2), (joints, 1, 1))
    stage = Stage(None, index.skeleton, None, np.zeros([joints, 2]), covariance, {})
    return [stage] * (number - 1)


def _fresh_state(index, recipe, strategy) -> steps.State:
    build = functools.partial(build_stage, recipe.stage, index.skeleton, None)
    return steps.make_state(build, recipe.train, strategy)


def _batches(people, recipe, chunked=False) -> Iterator:
    """Batches without end, or stacks of them, as training reads them."""
    endless = range(sys.maxsize >> 16)
    batches = inputs.training_dataset(people, recipe.inputs, 0, endless)
    return iter(steps.chunks(batches) if chunked else batches)


def _train_a_little(directory, recipe, number, repeats, cache):
    """Runs in a process of its own; see `peak_memory`."""
    index = repeated(records.read_index(directory), repeats)
    strategy = tf.distribute.get_strategy()
    earlier = _simulated_earlier(index, number)
    cascade.mean_target(index, recipe, earlier)
    people = canvases.open_people(index, recipe.inputs, cache)
    batches = _batches(people, recipe)
    shown = recipe.inputs.batch // recipe.inputs.views
    for _ in range(people.weights.sum() // shown):
        next(batches)
    state = _fresh_state(index, recipe, strategy)
    examples = cascade.make_examples(index, recipe, earlier)
    by_xla = steps.suits_xla(state.model, strategy)
    train_step = steps.make_step(
        state, examples, recipe.train, strategy, people, by_xla
    )
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
        return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)
