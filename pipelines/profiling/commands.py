"""deeppose-benchmark: what the input side, the network and the whole step cost."""

from __future__ import annotations

import dataclasses

from absl import flags

from deeppose_tf.pipelines.cli import command, outputs
from deeppose_tf.pipelines.cli.command import Flag
from deeppose_tf.pipelines.train import recipes
from deeppose_tf.pipelines.train.commands import CACHE

MEMORY_BATCH = 128
REPEATS = 10
# What this project promises: largest full / bare, without and with a GPU; smallest
# input / network.
MOST_OVERHEAD = {"paper": (1.10, 1.10), "compact": (1.25, 1.10)}
LEAST_INPUT = {"paper": 8.0}
ROWS = {
    "input": "input side alone",
    "network": "bare network step",
    "full": "full training step",
    "augmentation": "  of it augmentation",
    "averaging": "  of it moving average",
}


BENCHMARK_FLAGS = {
    "data": Flag(str, "Folder that deeppose-prepare wrote."),
    "recipe": Flag(
        "compact", "Preset whose training is timed.", choices=list(recipes.RECIPES)
    ),
    "stage": Flag(
        1, "Which stage is timed, from 1; those before it are simulated.", low=1
    ),
    "batch": Flag(
        int, "Crops per step in the timed part; default: the recipe's.", low=1
    ),
    "rounds": Flag(
        5, "How often each part has its turn. The medians are reported.", low=1
    ),
    "memory": Flag(
        True,
        f"Also measure peak memory at batch {MEMORY_BATCH}, with the records listed "
        f"once and {REPEATS} times over, each in a process of its own.",
    ),
    "cache": CACHE,
    "output": Flag(str, "File to write the result to, as JSON. Default: none."),
}


@command.command(
    __doc__, BENCHMARK_FLAGS, required=("data",), file="output", goes_on=False
)
def run_benchmark(values: flags.FlagValues) -> None:
    """Benchmarks what the flags name."""
    command.require_paths("data")
    recipe = recipes.recipe_for(values.recipe, values.stage)

    import tensorflow as tf  # takes seconds, as what imports it

    from deeppose_tf import networks
    from deeppose_tf.pipelines.data import records
    from deeppose_tf.pipelines.profiling import pytorch, timer, training_step

    index = records.read_index(values.data)
    result = {
        "recipe": values.recipe,
        "stage": values.stage,
        "cores": timer.cores(),
        "tensorflow": tf.__version__,
    }
    if values.memory:
        large = _with_batch(recipe, MEMORY_BATCH)
        arguments = index.directory, large, values.stage
        result["memory"] = {"batch": MEMORY_BATCH} | {
            name: training_step.peak_memory(*arguments, times, values.cache)
            for name, times in (("once", 1), ("repeated", REPEATS))
        }
    recipe = _with_batch(recipe, values.batch or recipe.inputs.batch)
    if values.recipe == "paper":
        side, answers = recipe.stage.size, 2 * len(index.skeleton.joints)
        result["pytorch"] = pytorch.step_seconds(
            networks.PAPER, side, recipe.inputs.batch, answers
        )
    result |= {
        "batch": recipe.inputs.batch,
        "people": recipe.inputs.batch // recipe.inputs.views,
        "device": timer.device(),
    }
    arguments = index, recipe, values.stage, values.rounds, values.cache
    result |= training_step.measure(*arguments)
    print(table(result))
    outputs.write_json(values.output, result)


def table(result: dict) -> str:
    """The result of a benchmark as text."""
    from deeppose_tf.pipelines.profiling import timer  # NumPy, which takes a while

    recipe, batch, people = (result[key] for key in ("recipe", "batch", "people"))
    lines = [
        f"{recipe}, stage {result['stage']}, batch of {batch} crops of {people} "
        f"people, {result['cores']} cores, TensorFlow {result['tensorflow']}, "
        f"{result['device']}",
        f"{'':24}{'ms / step':>12}{'crops / s':>12}{'people / s':>12}{'CPU ms':>12}"
        "   bound by",
    ]
    for name, seconds in result["seconds"].items():
        work = 1000 * result["cpu_seconds"][name]
        lines.append(
            f"{ROWS[name]:24}{1000 * seconds:12.1f}{batch / seconds:12.0f}"
            f"{people / seconds:12.0f}{work:12.1f}   {result['bound'][name]}"
        )
    for name, seconds in result.get("pytorch", {}).items():
        lines.append(f"{name:24}{1000 * seconds:12.1f}{batch / seconds:12.0f}")
    most = MOST_OVERHEAD.get(recipe, (None, None))[result["device"] != timer.NO_GPU]
    least = LEAST_INPUT.get(recipe)
    lines.append(
        f"{'full step / bare':24}{result['overhead']:12.2f}{'':24}"
        f"{result['cpu_overhead']:12.2f}" + (f"   at most {most}" if most else "")
    )
    lines.append(
        f"{'input / network speed':24}{result['input_speed']:12.1f}"
        + (f"{'':36}   at least {least}" if least else "")
    )
    lines += _reached(result)
    if "memory" in result:
        once, often = result["memory"]["once"], result["memory"]["repeated"]
        lines.append(
            f"{'peak memory, MiB':24}{once:12.0f}   batch {result['memory']['batch']}; "
            f"{often:.0f} with {REPEATS} times the records"
        )
    return "\n".join(lines)


def _reached(result):
    """The work of the bare step beside what the device does, in lines."""
    rates, work = result["rates"], result["work"]["network"]
    seconds = result["seconds"]["network"]
    for title, name, unit, large in (
        ("arithmetic", "flop", "GFLOP", "matrix products"),
        ("memory", "bytes", "GB", "copies"),
    ):
        reached = work[name] / seconds
        yield (
            f"{title + ', bare step':24}{work[name] / 1e9:12.2f} {unit}, "
            f"{reached / 1e9:.1f} {unit}/s: {reached / rates[name]:.0%} of the "
            f"{rates[name] / 1e9:.1f} of large {large}"
        )


def _with_batch(recipe, batch):
    changed = dataclasses.replace(recipe.inputs, batch=batch)
    return dataclasses.replace(recipe, inputs=changed)
