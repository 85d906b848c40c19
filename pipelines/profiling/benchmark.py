"""`deeppose-benchmark`: what the input side, the network and the whole step cost.

How that is measured is in `timing` and `memory`.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import tensorflow as tf
from absl import flags

from deeppose_tf import files
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.profiling import machine, memory, timing
from deeppose_tf.pipelines.train import recipes

MEMORY_BATCH = 128
REPEATS = 10
# What this project promises: largest full / bare, smallest input / network.
MOST_OVERHEAD = {"paper": 1.10, "compact": 1.25}
LEAST_INPUT = {"paper": 8.0}


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
            f"{timing.ROWS[name]:24}{1000 * seconds:12.1f}{batch / seconds:12.0f}"
            f"{work:12.1f}"
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
        "output", None, "File to write the result to, as JSON. Default: none."
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
        "cores": machine.cores(),
        "tensorflow": tf.__version__,
    }
    if values.memory:
        result["memory"] = _memory(index, recipe, values.stage)
    recipe = _with_batch(recipe, values.batch or recipe.inputs.batch)
    result |= {
        "batch": recipe.inputs.batch,
        "device": machine.device(),
        **timing.measure(index, recipe, values.stage, values.rounds),
    }
    print(table(result))
    if values.output:
        path = pathlib.Path(values.output)
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_bytes(path, json.dumps(result, indent=2).encode() + b"\n")


def _memory(index, recipe, number):
    recipe = _with_batch(recipe, MEMORY_BATCH)
    once, often = (
        memory.peak_memory(index.directory, recipe, number, repeats)
        for repeats in (1, REPEATS)
    )
    return {"batch": MEMORY_BATCH, "once": once, "repeated": often}


def _with_batch(recipe, batch):
    changed = dataclasses.replace(recipe.inputs, batch=batch)
    return dataclasses.replace(recipe, inputs=changed)


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__, file="output")


if __name__ == "__main__":
    run()
