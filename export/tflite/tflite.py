"""`deeppose-tflite`: a run as one TFLite file for phones, with a description beside it.

What was converted is loaded, run on real people and compared with Keras before a byte
is written: a conversion that went wrong raises no error by itself.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import re

from absl import flags

from deeppose_tf import files
from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import saved_model
from deeppose_tf.export.saved_model import signatures as rows
from deeppose_tf.export.tflite import convert, delegates, lite, report
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.data import records

# People whose activations int8 is fitted to.
SEEN = 60


def export(
    run: str,
    output: str,
    index: records.Index,
    kind: str = "float32",
    size: tuple[int, int] | None = None,
    split: str = "test",
    limit: int | None = 200,
    max_drop: float = 1.5,
    seen: int = SEEN,
    threads: int = 2,
    overwrite: bool = False,
    verbose: int = 1,
) -> dict:
    """Converts a run directory, compares, and writes `output` and its description.

    Args:
      run: that `deeppose-train` wrote.
      output: a file that ends in `.tflite`; its description ends in `.json`.
      index: prepared data to compare on.
      kind: see `convert.convert`, as for `size`.
      split: of the data, whose first `limit` people are compared on.
      max_drop: of PDJ@0.2, in points: a file that loses more is not written.
      seen: for `int8`, how many people of the training split activations are seen on.
      threads: of the interpreter.
      overwrite: replace files that are there.
      verbose: 0 hides progress bars.

    Returns:
      The report; see `report.compare`.

    Raises:
      ValueError: something above is not as it should be, or the file loses too much.
        Nothing is written then.
    """
    path = pathlib.Path(output)
    _require_free(path, overwrite)
    cascade = Cascade.load(run)
    people = ()
    if kind == "int8":
        source = "train" if index.counts.get("train") else split
        people = report.read_images(index, source, seen)
    content = convert.convert(cascade, kind, size, people)
    model = lite.Lite(content, cascade.skeleton, threads)
    found = report.compare(cascade, model, index, split, limit, verbose)
    found |= {
        "kind": kind,
        "bytes": len(content),
        "threads": threads,
        "operations": delegates.table(content),
    }
    report.require(found, max_drop)
    description = describe(cascade, run, content, kind, size) | {"report": found}
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(path, content)
    files.write_bytes(
        lite.description_path(path), json.dumps(description, indent=1).encode() + b"\n"
    )
    return found


def describe(
    cascade: Cascade,
    run: str,
    content: bytes,
    kind: str,
    size: tuple[int, int] | None,
) -> dict:
    """What an app has to know, and where the model comes from; a JSON value."""
    description = saved_model.describe(cascade, run, rows.Limits())
    for name in ("tolerance", "max_pixels"):
        del description[name]
    return description | {
        "sha256": hashlib.sha256(content).hexdigest(),
        "kind": kind,
        "image_size": None if size is None else {"height": size[0], "width": size[1]},
        "inputs": {
            "images": "uint8 [1, H, W, 3], RGB, 0 to 255 as decoded: pre-processing is "
            "in the file. Smaller images are filled up at the right and at the bottom "
            f"with {lite.PADDING}, which stands for what lies outside an image",
            "boxes": "float32 [1, 4]",
        },
        "outputs": {
            "keypoints": "float32 [1, K, 2], pixels, in the order of joints",
            "keypoints_by_stage": "float32 [1, S, K, 2], pixels",
            "scores": "float32 [1, K]",
            "valid": "bool [1]",
        },
        "signature": "serving_default",
    }


def _require_free(path, overwrite):
    if path.suffix != ".tflite":
        raise ValueError(f"--output is {path}; the name has to end in .tflite")
    for one in (path, lite.description_path(path)):
        if one.exists() and not overwrite:
            raise ValueError(f"{one} is there already: --overwrite replaces it")


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


def define_flags() -> None:
    """Defines the flags of `deeppose-tflite`."""
    flags.DEFINE_string(
        "model", None, "The run directory that deeppose-train wrote.", required=True
    )
    flags.DEFINE_string(
        "output",
        None,
        "The file to write, such as pose.tflite. Its description, pose.json, and the "
        "report are written beside it.",
        required=True,
    )
    flags.DEFINE_string(
        "data",
        None,
        "Prepared data to compare with Keras on: a folder that deeppose-prepare wrote.",
        required=True,
    )
    flags.DEFINE_enum(
        "kind",
        "float16",
        convert.KINDS,
        "How numbers are stored. float32: as trained. float16: large weights of later "
        "stages in half the space, hundredths of a pixel away. dynamic_range: weights "
        "as int8, a quarter of the size, tenths of a pixel away. int8: activations of "
        "the networks too; images, boxes and keypoints stay what they are.",
    )
    flags.DEFINE_string(
        "image_size",
        None,
        "Height x width of all images, such as 256x192, in pixels: one graph without "
        "loops and gathers, which GPU and other delegates take whole. Costs grow with "
        "the size; on a processor that is much beyond 320x320 slower than the default, "
        "any size, with a loop over the stages.",
    )
    flags.DEFINE_enum(
        "split", "test", records.SPLITS, "Which part of the data to compare on."
    )
    flags.DEFINE_integer(
        "limit", 200, "Compare on the first people of the split.", lower_bound=1
    )
    flags.DEFINE_float(
        "max_drop",
        1.5,
        "Write nothing and fail if PDJ@0.2 is lower than that of Keras by more points "
        "(hundredths of all joints).",
        lower_bound=0.0,
    )
    flags.DEFINE_integer(
        "seen",
        SEEN,
        "int8: how many people of the training split the ranges of activations are "
        "seen on.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "threads", 2, "Threads of the interpreter that is compared.", lower_bound=1
    )
    flags.DEFINE_bool("overwrite", False, "Replace --output if it is there already.")


def main(argv: list[str]) -> None:
    """Converts what the flags describe and prints the report."""
    del argv
    values = flags.FLAGS
    found = export(
        values.model,
        values.output,
        records.read_index(values.data),
        values.kind,
        parse_size(values.image_size),
        values.split,
        values.limit,
        values.max_drop,
        values.seen,
        values.threads,
        values.overwrite,
    )
    print(report.table(found))


def run() -> None:
    """Entry point of the console script."""
    command.run(define_flags, main, __doc__, file="output")


if __name__ == "__main__":
    run()
