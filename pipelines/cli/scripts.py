"""The commands: what `deeppose` lists, and where each installed one begins.

Nothing here takes long to import, and setup.py reads this file as it is.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import pathlib
import sys

# Name of a command -> the folder whose `commands.py` has it, as `run_NAME`, and what it
# does. `deeppose-train` is also `deeppose train`.
COMMANDS = {
    "prepare": ("pipelines.data", "read a data set into records to train on"),
    "train": ("pipelines.train", "train a cascade, stage after stage"),
    "train-stage": ("pipelines.train", "train one stage of a cascade"),
    "choose": ("pipelines.train", "choose sigma, how far a crop reaches"),
    "presets": ("pipelines.train", "train, score and pack the presets that ship"),
    "evaluate": ("pipelines.evaluation", "score a cascade, or anyone's predictions"),
    "compare": ("pipelines.evaluation", "compare evaluations, person by person"),
    "predict": ("pipelines.predict", "find poses in photos and films"),
    "export": ("export", "write a cascade as a SavedModel, to be served"),
    "tflite": ("export", "write a cascade as a TFLite file"),
    "client": ("export.serving", "find poses in photos and films by a server"),
    "reproduce": ("pipelines.paper", "make the tables and figures of the paper"),
    "benchmark": ("pipelines.profiling", "measure time and memory of a training step"),
    "benchmark-export": ("export", "measure a pose in every way of exporting it"),
}


def start(command: str) -> None:
    """Imports the module of a command and calls its function.

    Ctrl-C in the meantime is a line and status 130, as `command.Command` has it later.
    """
    module = f"deeppose_tf.{COMMANDS[command][0]}.commands"
    try:
        getattr(importlib.import_module(module), f"run_{command.replace('-', '_')}")()
    except KeyboardInterrupt as error:
        name = pathlib.Path(sys.argv[0]).stem
        print(f"\n{name}: stopped before it began", file=sys.stderr)
        raise SystemExit(130) from error


def main() -> None:
    """`deeppose`: lists the commands, or starts the one that is named first."""
    first, *others = sys.argv[1:] or ["--help"]
    if first in COMMANDS:
        sys.argv = [f"deeppose-{first}", *others]
        start(first)
    elif first == "--version":
        print(f"deeppose {importlib.metadata.version('deeppose-tf')}")
    elif first in ("--help", "-h", "help"):
        print(_list())
    else:
        print(f"deeppose: there is no command {first!r}\n\n{_list()}", file=sys.stderr)
        raise SystemExit(2)


def _list() -> str:
    lines = [f"  {f'deeppose-{name}':27}{does}" for name, (_, does) in COMMANDS.items()]
    title = "DeepPose: human pose by a cascade of CNN regressors (CVPR 2014)"
    end = "Each answers --help; `deeppose train` is `deeppose-train`, and so on."
    return "\n".join([title, "", *lines, "", end])


def __getattr__(name: str):
    """`scripts:train_stage`, as setup.py names it, is what `deeppose-train-stage` is
    installed as."""
    command = name.replace("_", "-")
    if command not in COMMANDS:
        raise AttributeError(f"there is no command {command!r}")
    return functools.partial(start, command)
