"""deeppose-export: a run as a SavedModel that loops over its stages, for servers.

    deeppose-export --model=RUN --output=served

Writes OUTPUT/<version>/, the layout of TensorFlow Serving, beside and renames it into
place once it has been read back, run, and found to answer as the run itself.
"""

from __future__ import annotations

from absl import flags

from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.cli.command import Flag

EXPORT_FLAGS = {
    "model": Flag(str, command.MODEL),
    "output": Flag(
        str,
        "Folder of the served model. Every export makes a folder named by its version "
        "in it, which is what TensorFlow Serving expects.",
    ),
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
}


@command.command(
    __doc__, EXPORT_FLAGS, required=("model", "output"), folder="output", goes_on=False
)
def run_export(values: flags.FlagValues) -> None:
    """Entry point of absl."""
    command.require_run("model")
    from deeppose_tf.cascade import Cascade
    from deeppose_tf.export.saved_model import export
    from deeppose_tf.export.saved_model.signatures import Limits

    limits = Limits(values.tolerance, values.max_pixels)
    cascade = Cascade.load(values.model)
    folder, apart = export.export(cascade, values.output, values.version, limits)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{folder}: {size / 1e6:.1f} MB, {apart:.2g} pixels from the cascade at most")
