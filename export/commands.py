"""`deeppose-benchmark-export`: what a person's pose costs, exported in every way.

All ways have their turn in every round, in one process, so that whatever else the
machine does slows them alike: ratios hold where times do not.
"""

from __future__ import annotations

from absl import flags

from deeppose_tf.pipelines.cli import command, outputs
from deeppose_tf.pipelines.cli.command import Flag

BENCHMARK_EXPORT_FLAGS = {
    "model": Flag(
        str, f"{command.MODEL} Default: three stages of the paper, untrained."
    ),
    "tflite": Flag(
        [], "TFLite files of the --model, separated by commas, timed as well."
    ),
    "height": Flag(480, "Of the image, in pixels.", low=1),
    "width": Flag(640, "Of the image, in pixels.", low=1),
    "batches": Flag(
        [], "Such as 8,32: also time requests for so many people, by the SavedModel."
    ),
    "rounds": Flag(30, "How often each way has its turn.", low=1),
    "output": Flag(str, "File to write the result to, as JSON. Default: none."),
}


@command.command(__doc__, BENCHMARK_EXPORT_FLAGS, file="output", goes_on=False)
def run_benchmark_export(values: flags.FlagValues) -> None:
    """Times what the flags name."""
    if values.tflite and not values.model:
        raise ValueError("--tflite needs --model: whose networks are they?")
    if not all(count.isdecimal() and int(count) for count in values.batches):
        raise ValueError(
            f"--batches={','.join(values.batches)}: give numbers of people"
        )
    command.require_paths("tflite")
    command.require_run("model")

    import tensorflow as tf  # takes seconds, as what imports it

    from deeppose_tf.cascade import Cascade
    from deeppose_tf.export import benchmark
    from deeppose_tf.export.saved_model import checks
    from deeppose_tf.pipelines.profiling import timer

    cascade = Cascade.load(values.model) if values.model else benchmark.untrained()
    image = checks.picture(values.height, values.width)
    batches = tuple(map(int, values.batches))
    found = benchmark.measure(cascade, image, values.tflite, values.rounds, batches)
    print(
        f"{values.model or 'paper, untrained'}, image {values.width} x "
        f"{values.height}, {timer.cores()} cores, {timer.device()}, "
        f"TensorFlow {tf.__version__}"
    )
    print(benchmark.table(found))
    outputs.write_json(values.output, found)
