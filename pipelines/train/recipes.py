"""Named presets: everything that turns a data set into a stage.

`paper` follows the paper to the letter. `compact` is ours: small, batch-normalised,
for two cores and for phones. `deep` is `compact` whose later stages see as much at a
time as its first. `demo` is `compact` for the minutes of `make demo`.
"""

from __future__ import annotations

import dataclasses

from deeppose_tf.config import LOSSES, StageConfig
from deeppose_tf.pipelines.data.config import AugmentConfig, InputConfig

PRECISIONS = ("auto", "float32", "mixed_bfloat16")
SCHEDULES = ("constant", "cosine")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a stage is trained.

    Attributes:
      steps: gradient steps.
      optimizer: see `optimizers.build`.
      learning_rate: at its highest.
      schedule: `constant`, or `cosine` down to zero.
      warmup: of the cosine schedule: share of the steps in which the learning rate
        grows from zero.
      weight_decay: see `optimizers.build`.
      initial_accumulator: of Adagrad, see `optimizers.build`.
      loss: see `losses.pose_loss`.
      map_weight: weight of `losses.map_loss`, for integral heads.
      ema: decay of the running average of the weights, which is what is evaluated and
        saved; 0 for none.
      precision: see `resolve_precision`. Weights are float32 in any case.
    """

    steps: int = 10_000
    optimizer: str = "adagrad"
    learning_rate: float = 5e-4
    schedule: str = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    initial_accumulator: float = 0.1
    loss: str = "l2"
    map_weight: float = 0.0
    ema: float = 0.0
    precision: str = "float32"

    def __post_init__(self):
        for name, choices in (
            ("schedule", SCHEDULES),
            ("loss", LOSSES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is none of {', '.join(choices)}"
                )
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be positive")
        if self.initial_accumulator < 0:
            raise ValueError(
                f"initial_accumulator is {self.initial_accumulator}; it is a sum of "
                "squares"
            )


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The configuration of one stage.

    Attributes:
      warm_start: whether its network begins with the weights of the stage before,
        layer by layer as far as they have the same shapes. The paper's does not.
    """

    stage: StageConfig
    inputs: InputConfig
    augment: AugmentConfig
    train: TrainConfig
    warm_start: bool = False


# Sec. 3.1: Adagrad, learning rate 5e-4, batches of 128, dropout 0.6, translated crops
# and flips. Sec. 4.1: sigma is 2 for LSP, and there are 40 displaced crops per joint
# and flip: 16 of them are made each time an image is decoded.
# Adagrad's sum begins at zero, as its authors have it: from Keras's 0.1, which the
# paper does not know of, a network needs several times as many steps to learn anything.
_PAPER_TRAIN = TrainConfig(steps=100_000, initial_accumulator=0.0)
_PAPER = (
    Recipe(
        StageConfig("paper", 220, "linear", dropout=0.6),
        InputConfig(canvas=384, context=0.25, batch=128),
        AugmentConfig(flip=True, translation=0.1),
        _PAPER_TRAIN,
    ),
    Recipe(
        StageConfig("paper", 220, "linear", dropout=0.6, sigma=2.0),
        InputConfig(canvas=384, context=0.25, batch=128, views=16),
        AugmentConfig(flip=True),
        _PAPER_TRAIN,
    ),
)

_COMPACT_AUGMENT = AugmentConfig(
    flip=True,
    translation=0.08,
    scale=0.25,
    rotation=20.0,
    brightness=0.2,
    contrast=0.2,
    colour=0.1,
)
_COMPACT_TRAIN = TrainConfig(
    steps=6_000,
    optimizer="adamw",
    learning_rate=4e-3,
    schedule="cosine",
    warmup=0.05,
    weight_decay=0.3,
    loss="l1",
    map_weight=0.3,
    ema=0.998,
    precision="auto",
)
_COMPACT_FIRST = StageConfig(
    "compact",
    128,
    "integral",
    widths=(32, 64, 128, 256),
    blocks=(0, 0, 1, 2),
    subcells=2,
    margin=0.1,
    square=True,
    outlier_threshold=0.5,
)
_COMPACT_LATER = StageConfig(
    "compact",
    64,
    "integral",
    widths=(32, 64, 128),
    blocks=(0, 0, 1),
    subcells=2,
    sigma=1.3,
    outlier_threshold=0.35,
)
# Of the spreads of the simulated displacements that were tried, 0.7 of the observed
# one served the later stages best.
_COMPACT_LATER_AUGMENT = dataclasses.replace(
    _COMPACT_AUGMENT, scale=0.2, displacement=0.7
)
# Large enough that no LSP image is halved: the crops of training are then cut from the
# same pixels as those of prediction.
_COMPACT_LATER_INPUTS = InputConfig(canvas=448, context=0.25, batch=256, views=16)
_COMPACT_LATER_TRAIN = dataclasses.replace(
    _COMPACT_TRAIN, steps=3_500, learning_rate=3e-3, weight_decay=0.1, map_weight=0.1
)
_COMPACT = (
    Recipe(
        _COMPACT_FIRST,
        InputConfig(canvas=256, context=0.25, batch=64),
        _COMPACT_AUGMENT,
        _COMPACT_TRAIN,
    ),
    Recipe(
        _COMPACT_LATER,
        _COMPACT_LATER_INPUTS,
        _COMPACT_LATER_AUGMENT,
        _COMPACT_LATER_TRAIN,
        warm_start=True,
    ),
    Recipe(
        # What stage 3 sees moves a joint too far: half of it gains as much at small
        # distances and loses nothing at large ones.
        dataclasses.replace(_COMPACT_LATER, sigma=1.0, step_size=0.5),
        _COMPACT_LATER_INPUTS,
        _COMPACT_LATER_AUGMENT,
        dataclasses.replace(_COMPACT_LATER_TRAIN, steps=2_000, learning_rate=2e-3),
        warm_start=True,
    ),
)


def _deepened(recipe: Recipe) -> Recipe:
    """A later stage with the layers of the first, so that it begins as all of it."""
    first = _COMPACT_FIRST
    stage = dataclasses.replace(recipe.stage, widths=first.widths, blocks=first.blocks)
    return dataclasses.replace(recipe, stage=stage)


# Where first boxes are tight, the first stage sees a joint nearly as large as a later
# one does, and is wrong where a look at the joint alone misleads: what helps is to see
# the whole crop. A last layer of `compact` sees 47 of its 64 pixels. On LSP, whose
# first boxes are whole images, it is worth a point of mean4.
_DEEP = (_COMPACT[0], *map(_deepened, _COMPACT[1:]))


def _shortened(recipe: Recipe, steps: int, views: int = 1, **stage) -> Recipe:
    """A recipe with fewer steps, smaller canvases and another look."""
    return dataclasses.replace(
        recipe,
        stage=dataclasses.replace(recipe.stage, **stage),
        inputs=dataclasses.replace(recipe.inputs, canvas=256, views=views),
        train=dataclasses.replace(recipe.train, steps=steps, weight_decay=0.1),
    )


_DEMO = (
    _shortened(_COMPACT[0], 600, size=96, blocks=(0, 0, 1, 1)),
    _shortened(_COMPACT[1], 350, views=8),
    _shortened(_COMPACT[2], 150, views=8),
)

RECIPES = {"paper": _PAPER, "compact": _COMPACT, "deep": _DEEP, "demo": _DEMO}


def recipe_for(name: str, stage: int) -> Recipe:
    """The preset of a stage, from 1; later stages than a preset lists are its last.

    Raises:
      ValueError: the name is unknown.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is none of {', '.join(RECIPES)}")
    stages = RECIPES[name]
    return stages[min(stage, len(stages)) - 1]
