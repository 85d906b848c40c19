"""A run of small untrained stages, and calling scripts as users do."""

import contextlib
import pathlib
import sys

import numpy as np
import pytest
from absl import flags

from deeppose_tf import cascade, stage
from deeppose_tf.config import StageConfig
from deeppose_tf.pipelines.cli import command as commands


def save_run(folder, skeleton, stages=2):
    """Writes a cascade of untrained stages, as `deeppose-train` would."""
    config = StageConfig("compact", 32, "integral", (4,), (0,))
    joints = len(skeleton.joints)
    trained = [
        stage.Stage(
            config,
            skeleton,
            stage.build_stage(config, skeleton),
            np.zeros((joints, 2), np.float32),
            np.tile(np.eye(2, dtype=np.float32), (joints, 1, 1)),
            {},
        )
        for _ in range(stages)
    ]
    for number, one in enumerate(trained, start=1):
        stage.save_stage(one, str(pathlib.Path(folder) / f"stage_{number}"))
    cascade.Cascade(trained).save_index(str(folder))


def script(commands, name):
    """One command of a `commands.py`, to be given to `call` and `command`."""
    return getattr(commands, f"run_{name}")


def call(script, *arguments):
    """Runs a script's `main` with these flags."""
    with _own_flags():
        script.define_flags()
        flags.FLAGS(["script", *arguments])
        script.main(flags.FLAGS)


def command(script, *arguments):
    """The same with all that a command does around `main`. absl itself would leave with
    a usage text where it raises IllegalFlagValueError here."""
    with _own_flags(), pytest.MonkeyPatch.context() as patch:
        words = ["script", *arguments]
        patch.setattr(
            commands.app, "run", lambda begin, flags_parser: begin(flags.FLAGS(words))
        )
        patch.setattr(sys.modules["__main__"], "__doc__", None)
        script()


@contextlib.contextmanager
def _own_flags():
    """absl's flags are global, so those of a script are taken away again."""
    before = set(flags.FLAGS)
    try:
        yield
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
