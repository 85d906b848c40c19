"""A cascade of small networks whose answers depend strongly on what they see."""

import numpy as np

from deeppose_tf import cascade, stage
from deeppose_tf.config import StageConfig

# The heads of the first two are divided as those of the recipe `compact`.
CONFIGS = (
    StageConfig("compact", 48, "integral", (8, 16), (0, 1), margin=0.1, subcells=2),
    StageConfig("compact", 32, "integral", (8, 16), (0, 1), sigma=1.5, subcells=2),
    StageConfig("compact", 32, "integral", (8, 16), (1, 0), step_size=0.5),
)


def make(skeleton, configs=CONFIGS, seed=0):
    """Untrained stages, but with lively weights everywhere: those of a fresh network
    answer the middle of the crop, whatever is in it."""
    random = np.random.default_rng(seed)
    joints = len(skeleton.joints)
    stages = []
    for config in configs:
        model = stage.build_stage(config, skeleton)
        for variable in model.weights:
            shape = tuple(variable.shape)
            if len(shape) > 1:
                spread = np.sqrt(2 / np.prod(shape[:-1]))
                variable.assign(random.normal(0, spread, shape))
            else:
                variable.assign(random.uniform(0.5, 1.5, shape))
        stages.append(
            stage.Stage(
                config,
                skeleton,
                model,
                np.zeros((joints, 2), np.float32),
                np.tile(np.eye(2, dtype=np.float32), (joints, 1, 1)),
                {},
            )
        )
    return cascade.Cascade(stages)
