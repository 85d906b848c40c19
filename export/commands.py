"""`deeppose-export`, `-tflite` and `-benchmark-export`: their flags, and what they do.

TensorFlow is imported after flags and paths were checked.
"""

from __future__ import annotations

import pathlib
import re

from absl import flags

from deeppose_tf.export.tflite import lite
from deeppose_tf.pipelines.cli import command, outputs
from deeppose_tf.pipelines.cli.command import Flag

EXPORT = """\
deeppose-export: a run as a SavedModel that loops over its stages, for servers.

    deeppose-export --model=RUN --output=served

Writes OUTPUT/<version>/, the layout of TensorFlow Serving, beside and renames it into
place once it has been read back, run, and found to answer as the run itself.
"""
TFLITE = """\
deeppose-tflite: a run as one TFLite file for phones.

    deeppose-tflite --model=RUN --data=DATA --kind=float16 --output=pose.tflite

What was converted is run on real people and compared with Keras before it is written.
"""
BENCHMARK = """\
deeppose-benchmark-export: what a person's pose costs, exported in every way.

All ways have their turn in every round, in one process, so that whatever else the
machine does slows them alike: ratios hold where times do not.
"""

EXPORT_FLAGS = {
    "model": Flag(str, command.MODEL),
    "output": Flag(str, "Folder of the served model, for all its versions."),
    "version": Flag(int, "Number of this version. Default: the next free one."),
    "tolerance": Flag(
        float,
        "Stop refining a pose once a stage moved every joint by less than this share "
        "of the pose's diameter, 0.02 for example. Default: every stage runs.",
        low=0.0,
    ),
    "max_pixels": Flag(
        50_000_000,
        "Images with more pixels are answered by valid = false. Serving takes up to 24 "
        "bytes of memory per pixel of the largest, whatever the size of the batch.",
        low=1,
    ),
    "people_at_once": Flag(
        1,
        "How many people of a batch the networks see in one call: 8, for example, for "
        "a GPU, which otherwise waits. Processors may gain nothing: time it with "
        "deeppose-benchmark-export. Memory is that of so many.",
        low=1,
    ),
}


@command.command(
    EXPORT, EXPORT_FLAGS, required=("model", "output"), folder="output", goes_on=False
)
def run_export(values: flags.FlagValues) -> None:
    """Exports what the flags describe."""
    command.require_run("model")
    from deeppose_tf.cascade import Cascade
    from deeppose_tf.export.saved_model import export
    from deeppose_tf.export.saved_model.signatures import Limits

    limits = Limits(values.tolerance, values.max_pixels, values.people_at_once)
    cascade = Cascade.load(values.model)
    folder, apart = export.export(cascade, values.output, values.version, limits)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB, {apart:.2g} pixels from the cascade at most")


TFLITE_FLAGS = {
    "model": Flag(str, command.MODEL),
    "output": Flag(
        str,
        "The file to write, such as pose.tflite; its description, pose.json, beside.",
    ),
    "data": Flag(
        str,
        "Prepared data to compare with Keras on: a folder that deeppose-prepare wrote.",
    ),
    "kind": Flag(
        "float16",
        "How numbers are stored. float32: as trained. float16: large weights of later "
        "stages in half the space, hundredths of a pixel away. dynamic_range: weights "
        "as int8, a quarter of the size, tenths away. int8: activations too.",
        choices=lite.KINDS,
    ),
    "image_size": Flag(
        str,
        "Height x width of all images, such as 256x192, in pixels: one graph without "
        "branches and gathers, which delegates take whole. Default: any size, which on "
        "a processor is quicker than one much beyond 320x320.",
    ),
    "split": Flag(
        "test",
        "Which part of the data to compare on.",
        choices=("train", "validation", "test"),
    ),
    "limit": Flag(200, "Compare on the first people of the split.", low=1),
    "max_drop": Flag(
        1.5,
        "Write nothing and fail if PDJ@0.2 is lower than that of Keras by more points "
        "(hundredths of all joints).",
        low=0.0,
    ),
    "seen": Flag(
        60, "int8: how many people of train show the ranges of activations.", low=1
    ),
    "overwrite": Flag(False, "Replace --output if it is there already."),
}


@command.command(
    TFLITE,
    TFLITE_FLAGS,
    required=("model", "output", "data"),
    file="output",
    goes_on=False,
)
def run_tflite(values: flags.FlagValues) -> None:
    """Converts what the flags describe and prints the report."""
    size = parse_size(values.image_size)
    lite.require_quantizer(values.kind)
    command.require_run("model")
    command.require_paths("data")
    from deeppose_tf.cascade import Cascade
    from deeppose_tf.export.tflite import export
    from deeppose_tf.pipelines.data import records

    export.require_free(pathlib.Path(values.output), values.overwrite)
    found = export.export(
        Cascade.load(values.model),
        values.output,
        records.read_index(values.data),
        values.kind,
        size,
        values.split,
        values.limit,
        values.max_drop,
        values.seen,
        values.overwrite,
    )
    print(export.table(found))


def parse_size(text: str | None) -> tuple[int, int] | None:
    """`256x192` -> (256, 192), height first.

    Raises:
      ValueError: it is nothing of the kind.
    """
    if text is None:
        return None
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", text)
    if found is None:
        raise ValueError(
            f"--image_size is {text!r}; expected height x width, such as 256x192"
        )
    return int(found[1]), int(found[2])


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
    "people_at_once": Flag(
        1, "How many of them the networks see in one call, see deeppose-export.", low=1
    ),
    "rounds": Flag(30, "How often each way has its turn.", low=1),
    "output": Flag(str, "File to write the result to, as JSON. Default: none."),
}


@command.command(BENCHMARK, BENCHMARK_EXPORT_FLAGS, file="output", goes_on=False)
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
    found = benchmark.measure(
        cascade, image, values.tflite, values.rounds, batches, values.people_at_once
    )
    print(
        f"{values.model or 'paper, untrained'}, image {values.width} x "
        f"{values.height}, {timer.cores()} cores, {timer.device()}, "
        f"TensorFlow {tf.__version__}"
    )
    print(benchmark.table(found))
    outputs.write_json(values.output, found)
