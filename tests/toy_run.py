"""A run directory of small untrained stages, and calling scripts as users do."""

import pathlib

import numpy as np
from absl import flags

from deeppose_tf import cascade, stage


def save_run(folder, skeleton, stages=2):
    """Writes a cascade of untrained stages, as `deeppose-train` would."""
    config = stage.StageConfig("compact", 32, "integral", (4, 8), (1, 1))
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


def call(script, *arguments):
    """Runs a script's `main` with these flags; absl's flags are global, so the script's
    own are taken away again."""
    before = set(flags.FLAGS)
    script.define_flags()
    try:
        flags.FLAGS(["script", *arguments])
        script.main(["script"])
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
