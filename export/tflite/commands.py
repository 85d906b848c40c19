"""deeppose-tflite: a run as one TFLite file for phones, with a description beside it.

    deeppose-tflite --model=RUN --data=DATA --kind=float16 --output=pose.tflite

What was converted is run on real people and compared with Keras before it is written.
"""

from __future__ import annotations

import pathlib
import re

from absl import flags

from deeppose_tf.export.tflite import lite
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.cli.command import Flag


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


TFLITE_FLAGS = {
    "model": Flag(str, command.MODEL),
    "output": Flag(
        str,
        "The file to write, such as pose.tflite. Its description, pose.json, and the "
        "report are written beside it.",
    ),
    "data": Flag(
        str,
        "Prepared data to compare with Keras on: a folder that deeppose-prepare wrote.",
    ),
    "kind": Flag(
        "float16",
        "How numbers are stored. float32: as trained. float16: large weights of later "
        "stages in half the space, hundredths of a pixel away. dynamic_range: weights "
        "as int8, a quarter of the size, tenths of a pixel away. int8: activations of "
        "the networks too; images, boxes and keypoints stay what they are.",
        choices=lite.KINDS,
    ),
    "image_size": Flag(
        str,
        "Height x width of all images, such as 256x192, in pixels: one graph without "
        "branches and gathers, which GPU and other delegates take whole. Costs grow "
        "with the size; on a processor that is much beyond 320x320 slower than the "
        "default, any size.",
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
        60,
        "int8: how many people of the training split the ranges of activations are "
        "seen on.",
        low=1,
    ),
    "overwrite": Flag(False, "Replace --output if it is there already."),
}


@command.command(
    __doc__,
    TFLITE_FLAGS,
    required=("model", "output", "data"),
    file="output",
    goes_on=False,
)
def run_tflite(values: flags.FlagValues) -> None:
    """Converts what the flags describe and prints the report."""
    size = parse_size(values.image_size)
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
