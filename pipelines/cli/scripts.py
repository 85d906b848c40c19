"""Where the installed commands begin, before anything that takes seconds to import."""

from __future__ import annotations

import functools
import importlib
import pathlib
import sys


def start(module: str, function: str = "run") -> None:
    """Imports a module of the package and calls its `run`, or another function.

    Ctrl-C in the meantime is a line and status 130, as `command.run` has it later.
    """
    try:
        getattr(importlib.import_module(f"deeppose_tf.{module}"), function)()
    except KeyboardInterrupt as error:
        name = pathlib.Path(sys.argv[0]).stem
        print(f"\n{name}: stopped before it began", file=sys.stderr)
        raise SystemExit(130) from error


# `deeppose-train-stage` is `train_stage`, and so on; see setup.py.
prepare = functools.partial(start, "pipelines.data.commands", "run_prepare")
train = functools.partial(start, "pipelines.train.cascade")
train_stage = functools.partial(start, "pipelines.train.stage")
evaluate = functools.partial(start, "pipelines.evaluation.evaluate")
compare = functools.partial(start, "pipelines.evaluation.compare")
predict = functools.partial(start, "pipelines.predict.commands", "run_predict")
choose = functools.partial(start, "pipelines.train.choose")
reproduce = functools.partial(start, "pipelines.paper.reproduce")
benchmark = functools.partial(start, "pipelines.profiling.commands", "run_benchmark")
export = functools.partial(start, "export.saved_model.saved_model")
benchmark_export = functools.partial(start, "export.benchmark")
tflite = functools.partial(start, "export.tflite.tflite")
client = functools.partial(start, "export.serving.commands", "run_client")
