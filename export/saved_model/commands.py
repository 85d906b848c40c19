"""deeppose-export: a run as a SavedModel that loops over its stages, for servers.

    deeppose-export --model=RUN --output=served

Writes OUTPUT/<version>/, the layout of TensorFlow Serving, beside and renames it into
place once it has been read back, run, and found to answer as the run itself.
"""

from __future__ import annotations

from absl import flags

from deeppose_tf.pipelines.cli import command


def define_export_flags() -> None:
    """Defines the flags of `deeppose-export`."""
    flags.DEFINE_string(
        "model", None, "The run directory that deeppose-train wrote.", required=True
    )
    flags.DEFINE_string(
        "output",
        None,
        "Folder of the served model. Every export makes a folder named by its version "
        "in it, which is what TensorFlow Serving expects.",
        required=True,
    )
    flags.DEFINE_integer(
        "version", None, "Number of this version. Default: the next free one."
    )
    flags.DEFINE_float(
        "tolerance",
        None,
        "Stop refining a pose once a stage moved every joint by less than this share "
        "of the pose's diameter, 0.02 for example. Default: every stage runs.",
        lower_bound=0.0,
    )
    flags.DEFINE_integer(
        "max_pixels",
        50_000_000,
        "Images with more pixels are answered by valid = false. Serving takes up to 24 "
        "bytes of memory per pixel of the largest, whatever the size of the batch.",
        lower_bound=1,
    )


def export_main(argv: list[str]) -> None:
    """Entry point of absl."""
    del argv
    values = flags.FLAGS
    command.require_run("model")
    from deeppose_tf.cascade import Cascade
    from deeppose_tf.export.saved_model import export
    from deeppose_tf.export.saved_model.signatures import Limits

    limits = Limits(values.tolerance, values.max_pixels)
    cascade = Cascade.load(values.model)
    folder, apart = export.export(cascade, values.output, values.version, limits)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB, {apart:.2g} pixels from the cascade at most")


def run_export() -> None:
    """Entry point of the console script."""
    command.run(
        define_export_flags, export_main, __doc__, folder="output", goes_on=False
    )
