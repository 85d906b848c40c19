"""DeepPose (Toshev & Szegedy, CVPR 2014): pose by a cascade of CNN regressors.

The public face. Nothing is imported before it is used, TensorFlow least of all.
"""

from __future__ import annotations

import functools
import importlib
import pathlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deeppose_tf.cascade import Cascade
    from deeppose_tf.config import list_presets
    from deeppose_tf.datasets.images import read_image
    from deeppose_tf.skeleton import Skeleton

__version__ = "0.1.0"
__all__ = ["Cascade", "Skeleton", "evaluate", "list_presets", "read_image", "train"]

# In a checkout, which Python finds before what is installed, the folders that setup.py
# maps into the package lie beside it.
_HERE = pathlib.Path(__file__).resolve().parent
if not (_HERE / "pipelines").exists():
    __path__.append(str(_HERE.parent))

# Where what is not here comes from.
_HOMES = {
    "Cascade": "cascade",
    "Skeleton": "skeleton",
    "list_presets": "config",
    "read_image": "datasets.images",
}


def train(
    data: str,
    run: str,
    recipe: str = "compact",
    stages: int | None = 3,
    steps: int | None = None,
    batch: int | None = None,
    verbose: int = 1,
) -> Cascade:
    """Trains a cascade, as `deeppose-train` does; the same call goes on with it.

    Args:
      data: a folder that `deeppose-prepare` wrote.
      run: the folder of the cascade: its stages, checkpoints and logs.
      recipe: the name of a preset of `pipelines.train.recipes`.
      stages: S; None adds stages while the held-out people gain.
      steps: of every stage; None: the recipe's.
      batch: crops of a step; None: the recipe's.

    Raises:
      ValueError: the data or the recipe is not there, the data does not fit, or `run`
        holds something else.
    """
    _quietly()
    from deeppose_tf.pipelines.data import records
    from deeppose_tf.pipelines.train import cascade, loop, recipes

    asked = {"train.steps": steps, "inputs.batch": batch}
    changes = {name: value for name, value in asked.items() if value is not None}
    recipe_for = functools.partial(recipes.recipe_for, recipe, changes=changes)
    recipe_for(1)  # what is wrong with it is said at once
    index, options = records.read_index(data), loop.Options(verbose=verbose)
    return cascade.train_cascade(run, index, recipe_for, stages, options)


def evaluate(
    cascade: Cascade,
    data: str,
    split: str = "test",
    output: str | None = None,
    verbose: int = 1,
) -> dict:
    """Scores every stage of a cascade beside the mean-pose baseline.

    Args:
      data: a folder that `deeppose-prepare` wrote.
      output: the folder for tables, curves and `metrics.json`; none are written
        without.

    Returns:
      What `metrics.json` holds: `rows` of `name` and `scores`, first the baseline.

    Raises:
      ValueError: there is no such data, or it is of other joints.
    """
    _quietly()
    from deeppose_tf.pipelines.evaluation import evaluate as evaluation

    return evaluation.evaluate(cascade, data, split, output, verbose=verbose)


def _quietly():
    from deeppose_tf import startup

    startup.import_tensorflow()


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "Cascade":
        _quietly()
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
