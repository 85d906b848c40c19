"""Where the installed commands begin, before anything that takes seconds to import."""

from __future__ import annotations

import functools
import importlib
import pathlib
import sys


def start(module: str) -> None:
    """Imports a module of the package and calls its `run`.

    Ctrl-C in the meantime is a line and status 130, as `command.run` has it later.
    """
    try:
        importlib.import_module(f"deeppose_tf.{module}").run()
    except KeyboardInterrupt as error:
        name = pathlib.Path(sys.argv[0]).stem
        print(f"\n{name}: stopped before it began", file=sys.stderr)
        raise SystemExit(130) from error


# `deeppose-train-stage` is `train_stage`, and so on; see setup.py.
prepare = functools.partial(start, "pipelines.prepare_data")
train = functools.partial(start, "pipelines.train_cascade")
train_stage = functools.partial(start, "pipelines.train_stage")
evaluate = functools.partial(start, "pipelines.evaluate")
compare = functools.partial(start, "pipelines.compare")
predict = functools.partial(start, "pipelines.predict")
choose = functools.partial(start, "pipelines.choose")
reproduce = functools.partial(start, "pipelines.reproduce")
benchmark = functools.partial(start, "pipelines.benchmark")
export = functools.partial(start, "export.saved_model")
benchmark_export = functools.partial(start, "export.benchmark")
tflite = functools.partial(start, "export.tflite")
client = functools.partial(start, "export.client")
