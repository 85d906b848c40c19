"""Named presets: everything that turns a data set into a stage. No TensorFlow.

`paper` follows the paper to the letter. `compact` is ours: small, batch-normalised,
for two cores and for phones. `deep` is `compact` whose later stages see as much at a
time as its first; `large` is more of that, for a GPU. `lightning` and `thunder` begin
as MoveNet, `mobile` as EfficientNet-Lite0. `demo` is `compact` for the minutes of
`make demo`. Every value has a name, such as `train.weight_decay`, by which it is shown
and set.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import textwrap
from collections.abc import Mapping, Sequence

from deeppose_tf.config import LOSSES, StageConfig, config_from_json, nearest
from deeppose_tf.pipelines.cli.outputs import counted
from deeppose_tf.pipelines.data.config import AugmentConfig, InputConfig

PRECISIONS = ("auto", "float32", "mixed_bfloat16")
SCHEDULES = ("constant", "cosine")
NOT_NEGATIVE = (
    *("learning_rate", "weight_decay", "initial_accumulator", "map_weight"),
    "backbone_rate",
)
# `--stages=auto` gives up after this many.
MOST_STAGES = 6


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a stage is trained.

    Attributes:
      steps: gradient steps.
      optimizer: `adagrad`, `sgd`, `adam`, `adamw`, `lamb`, or `addons.NAME` of
        tensorflow-addons.
      learning_rate: at its highest.
      schedule: `constant`, or `cosine` down to zero.
      warmup: of the cosine schedule: share of the steps in which the learning rate
        grows from zero.
      weight_decay: share of a weight that a step takes off, times the learning rate.
      initial_accumulator: of Adagrad: where its sum of squared gradients starts.
      loss: `l2`, the paper's, or `l1`; see `losses.pose_loss`.
      map_weight: weight of the loss of an integral head's maps, `losses.map_loss`.
      map_blob: standard deviation, in places of a map, of the blob that it learns.
      freeze: name of a layer: it and those before it stay as they begin, which saves
        their backward pass; none where it is empty.
      backbone_rate: share of every step that all layers but the last take, so that what
        begins well changes less than a last layer that knows nothing of new joints.
      ema: decay of the moving average (EMA) of the weights, which is what is evaluated
        and saved; 0 for none.
      precision: `float32`, `mixed_bfloat16`, or `auto`: bfloat16 where the processor
        multiplies in it. Weights are float32 in any case.
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
    map_blob: float = 0.5
    freeze: str = ""
    backbone_rate: float = 1.0
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
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must not be negative"
                )
        for name in ("warmup", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it is a share below 1"
                )
        if not self.map_blob > 0:
            raise ValueError(f"map_blob is {self.map_blob}; it must be positive")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The configuration of one stage.

    Attributes:
      stage: its network and what that looks at.
      inputs: the canvases and batches of its training.
      augment: how crops of them are varied.
      train: how its network is trained.
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

# `deep` on crops of twice the side, with more layers and steps: work for a GPU. Half of
# what its second stage says, as of `compact`'s third.
_LARGE_STAGE = {"blocks": (0, 1, 2, 3), "window": 4}
_LARGE = (
    Recipe(
        dataclasses.replace(_COMPACT_FIRST, size=256, **_LARGE_STAGE),
        InputConfig(canvas=384, context=0.25, batch=64),
        dataclasses.replace(_COMPACT_AUGMENT, rotation=40.0, scale=0.3),
        dataclasses.replace(_COMPACT_TRAIN, steps=7_000, map_blob=1.0),
    ),
    Recipe(
        dataclasses.replace(_DEEP[1].stage, size=96, step_size=0.5, **_LARGE_STAGE),
        _COMPACT_LATER_INPUTS,
        dataclasses.replace(_COMPACT_LATER_AUGMENT, rotation=40.0),
        dataclasses.replace(_COMPACT_LATER_TRAIN, steps=2_500, map_blob=1.0),
        warm_start=True,
    ),
)


def _shortened(
    recipe: Recipe, steps: int, batch: int, views: int = 1, **stage
) -> Recipe:
    """A recipe with fewer steps, smaller canvases and batches, and another look."""
    return dataclasses.replace(
        recipe,
        stage=dataclasses.replace(recipe.stage, **stage),
        inputs=dataclasses.replace(recipe.inputs, canvas=256, batch=batch, views=views),
        train=dataclasses.replace(recipe.train, steps=steps, weight_decay=0.1),
    )


_DEMO = (
    _shortened(_COMPACT[0], 450, 32, size=96, blocks=(0, 0, 1, 1)),
    _shortened(_COMPACT[1], 150, 128, views=8),
    _shortened(_COMPACT[2], 80, 96, views=8),
)

# Begun as MoveNet (--weights), whose maps have a place for every four pixels. What its
# layers know is kept by a low learning rate and hardly any decay; the first ones, whose
# backward pass is most of the time, stay as they are.
_MOVENET_FIRST = StageConfig(
    "movenet_lightning",
    192,
    "integral",
    window=4,
    margin=0.1,
    square=True,
    outlier_threshold=0.5,
)
_MOVENET_AUGMENT = dataclasses.replace(_COMPACT_AUGMENT, rotation=40.0)
_MOVENET_TRAIN = dataclasses.replace(
    _COMPACT_TRAIN,
    steps=1_500,
    learning_rate=3e-4,
    weight_decay=0.01,
    map_blob=1.0,
    freeze="block_5_project",
    ema=0.995,
)
_MOVENET_LATER = StageConfig(
    "movenet_lightning_16",
    96,
    "integral",
    window=4,
    sigma=1.2,
    # All of it gains less at small distances and costs PCP.
    step_size=0.5,
    outlier_threshold=0.35,
)
_MOVENET_LATER_TRAIN = dataclasses.replace(
    _MOVENET_TRAIN, steps=900, learning_rate=6e-4, freeze="block_2_project"
)
_LIGHTNING = (
    Recipe(
        _MOVENET_FIRST,
        InputConfig(canvas=320, context=0.25, batch=16),
        _MOVENET_AUGMENT,
        _MOVENET_TRAIN,
    ),
    Recipe(
        _MOVENET_LATER,
        InputConfig(canvas=448, context=0.25, batch=64, views=8),
        dataclasses.replace(_MOVENET_AUGMENT, scale=0.2, displacement=1.0),
        _MOVENET_LATER_TRAIN,
        warm_start=True,
    ),
)
_THUNDER = (
    Recipe(
        dataclasses.replace(_MOVENET_FIRST, network="movenet_thunder", size=256),
        InputConfig(canvas=384, context=0.25, batch=16),
        _MOVENET_AUGMENT,
        dataclasses.replace(_MOVENET_TRAIN, steps=1_000, freeze="block_9_project"),
    ),
    _LIGHTNING[1],
)

# Begun as EfficientNet-Lite0 (--weights), which knows pictures and no poses: all of it
# learns, and faster than what knows poses already.
_LITE_TRAIN = dataclasses.replace(
    _MOVENET_TRAIN, learning_rate=5e-4, weight_decay=0.03, freeze=""
)
_MOBILE = (
    Recipe(
        dataclasses.replace(_MOVENET_FIRST, network="efficientnet_lite0", subcells=2),
        InputConfig(canvas=320, context=0.25, batch=32),
        _MOVENET_AUGMENT,
        _LITE_TRAIN,
    ),
    dataclasses.replace(
        _LIGHTNING[1],
        stage=dataclasses.replace(
            _MOVENET_LATER, network="efficientnet_lite0_16", subcells=2
        ),
        train=dataclasses.replace(_LITE_TRAIN, steps=900),
    ),
)

RECIPES = {
    "paper": _PAPER,
    "compact": _COMPACT,
    "deep": _DEEP,
    "large": _LARGE,
    "demo": _DEMO,
    "lightning": _LIGHTNING,
    "thunder": _THUNDER,
    "mobile": _MOBILE,
}


# Values that one kind of stage has no use for: setting them for all stages leaves it as
# it is.
FIRST_ONLY = ("stage.margin", "stage.square", "augment.translation")
LATER_ONLY = ("stage.sigma", "stage.step_size", "augment.displacement", "warm_start")


def recipe_for(
    name: str, stage: int, changes: Mapping[str, object] | None = None
) -> Recipe:
    """The preset of a stage, from 1, with changes; later stages than a preset lists are
    its last.

    Args:
      name: of the preset.
      stage: its number.
      changes: `train.steps` -> value for all stages, `2.train.steps` for stage 2 alone,
        which is the stronger; values are of the field's type, or text.

    Raises:
      ValueError: a name is unknown, a value is not allowed, or values do not fit
        together.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe {name!r} is none of {', '.join(RECIPES)}")
    preset = RECIPES[name][min(stage, len(RECIPES[name])) - 1]
    values = named_values(preset)
    given = {}
    # Those of one stage come last and win.
    for key, value in sorted(
        (changes or {}).items(), key=lambda one: one[0][:1].isdecimal()
    ):
        number, field = re.fullmatch(r"(?:(\d+)\.)?(.*)", key).groups()
        if field not in values:
            raise ValueError(f"--set={key}: {_nearest(field, values)}")
        useless = LATER_ONLY if stage == 1 else FIRST_ONLY
        if number in (None, str(stage)) and field in useless:
            if number:
                raise ValueError(
                    f"--set={key}: stage {stage} has no use for {field}, which is of "
                    + ("later stages" if stage == 1 else "stage 1")
                )
        elif number in (None, str(stage)):
            given[field] = _typed(key, value, values[field])
    recipe = _replaced(preset, given)
    _check(recipe, name, given)
    return recipe


def named_values(recipe: Recipe) -> dict[str, object]:
    """`train.steps` -> 6000, and so on for every value of a recipe."""
    values = {}
    for field in dataclasses.fields(recipe):
        part = getattr(recipe, field.name)
        if dataclasses.is_dataclass(part):
            for leaf in dataclasses.fields(part):
                values[f"{field.name}.{leaf.name}"] = getattr(part, leaf.name)
        else:
            values[field.name] = part
    return values


def show(recipes: Sequence[Recipe], first: int = 1) -> str:
    """Every value of the recipes of some stages, numbered from `first`, a line each."""
    lines = []
    for number, recipe in enumerate(recipes, start=first):
        lines.append(f"stage {number}")
        useless = LATER_ONLY if number == 1 else FIRST_ONLY
        if recipe.train.optimizer != "adagrad":
            useless = *useless, "train.initial_accumulator"
        for name, value in named_values(recipe).items():
            if name not in useless:
                lines.append(f"  {name} = {_text(value)}")
    return "\n".join(lines)


def meanings() -> str:
    """What the values that `show` lists mean, as their attributes are documented."""
    preset, lines = RECIPES["compact"][0], []
    for name in named_values(preset):
        part, _, leaf = name.rpartition(".")
        # From Python 3.13 on, `__doc__` itself has no indentation left.
        documentation = inspect.getdoc(type(getattr(preset, part) if part else preset))
        said = re.search(
            rf"^  (?:\w+, )*{leaf}(?:, \w+)*: (.*(?:\n {{4,}}.*)*)",
            documentation or "",  # none where Python leaves out what it does not run
            re.MULTILINE,
        )
        text = f"{name}: {said[1] if said else ''}"
        lines.append(textwrap.fill(" ".join(text.split()), 88, subsequent_indent="  "))
    return "\n".join(lines)


def parse_changes(texts: Sequence[str]) -> dict[str, str]:
    """`a.b=1,c.d=2`, and more of them -> name -> text, for `recipe_for`.

    Raises:
      ValueError: a part has no name.
    """
    changes = {}
    for text in texts:
        # 32,64 is one value; what follows a comma and is followed by = is a name.
        for part in re.split(r",(?=[\w.]+=)", text):
            name, equals, value = part.partition("=")
            if not equals or not name:
                raise ValueError(f"--set={text}: give it as --set=train.steps=1000")
            changes[name.strip()] = value.strip()
    return changes


def from_json(value: Mapping) -> Recipe:
    """The recipe in a `stage.json` or `settings.json` of this version or an earlier
    one: old names are read, and fields that it lacks have their defaults.

    Raises:
      ValueError: there is a field that this version does not know.
    """
    parts = dict(value)
    try:
        train = dict(parts["train"])
        if "maps" in train:  # its name in version 0.1
            train["map_weight"] = train.pop("maps")
        parts |= {
            "stage": config_from_json(parts["stage"]),
            "inputs": InputConfig(**parts["inputs"]),
            "augment": AugmentConfig(**parts["augment"]),
            "train": TrainConfig(**train),
        }
        return Recipe(**parts)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a recipe of another version: {error}") from error


def fitted(recipe: Recipe, people: int, replicas: int = 1) -> Recipe:
    """The recipe with the largest batch, no larger than its own, that so few people
    fill: whole images of `views` crops, the same number for each device.

    Raises:
      ValueError: there are fewer people than devices.
    """
    views = recipe.inputs.views
    images = min(recipe.inputs.batch // views, people)
    if images < recipe.inputs.batch // views:
        images -= images % replicas
    if not images:
        raise ValueError(
            f"{counted(people, 'person')} cannot fill a step of "
            f"{counted(replicas, 'device')}: each takes one or more"
        )
    inputs = dataclasses.replace(recipe.inputs, batch=images * views)
    return dataclasses.replace(recipe, inputs=inputs)


def _replaced(recipe, given):
    """A recipe with other values; those of a part at once, because they must fit."""
    parts = {}
    for name, value in given.items():
        part, _, leaf = name.rpartition(".")
        parts.setdefault(part, {})[leaf] = value
    changed = parts.pop("", {})
    for part, values in parts.items():
        changed[part] = dataclasses.replace(getattr(recipe, part), **values)
    return dataclasses.replace(recipe, **changed)


def _nearest(field, values):
    """What to say of a name that no value has."""
    leaves = {name.rpartition(".")[2]: name for name in values}
    near = nearest(field, [*values, *leaves])
    meant = f"did you mean {leaves.get(near, near)}?" if near else "--show lists them"
    return f"no value of a recipe is named {field}; {meant}"


def _typed(name, value, before):
    """A value given as text or as itself, of the type of the one before."""
    kind = type(before)
    try:
        if not isinstance(value, str):
            value = kind(value) if kind in (float, tuple) else value
        elif kind is bool:
            value = {"true": True, "1": True, "false": False, "0": False}[value.lower()]
        elif kind is tuple:
            value = tuple(int(x) for x in value.strip("()").split(",") if x.strip())
        else:
            value = kind(value)
        if type(value) is not kind or (kind is float and not math.isfinite(value)):
            raise ValueError
    except (ValueError, TypeError, KeyError) as error:
        wanted = {
            bool: "true or false",
            tuple: "whole numbers joined by commas",
            int: "a whole number",
            float: "a finite number",
            str: "a word",
        }[kind]
        raise ValueError(f"--set={name}={value}: expected {wanted}") from error
    return value


def _text(value):
    """A value as `--set` takes it."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _check(recipe, name, given):
    """Refuses values that do not fit together. `--recipe=paper --network=compact`, say,
    names no widths: that would be a network without layers."""
    stage, train = recipe.stage, recipe.train
    if stage.network == "compact" and not stage.widths:
        raise ValueError(
            f"network compact needs widths and blocks, and recipe {name} has none: "
            "give --recipe=compact, or --set=stage.widths=32,64,128,256 and "
            "--set=stage.blocks=0,0,1,2 too"
        )
    if stage.network == "paper" and stage.head != "linear":
        raise ValueError(
            f"network paper answers with a linear head, and recipe {name} asks for "
            f"head {stage.head}: give --recipe=paper, or "
            "--set=stage.head=linear,train.map_weight=0 too"
        )
    if train.map_weight and stage.head != "integral":
        raise ValueError(
            f"map_weight is {train.map_weight}, and a {stage.head} head has no maps: "
            "give --set=train.map_weight=0 too"
        )
    if given.get("train.initial_accumulator") and train.optimizer != "adagrad":
        raise ValueError(
            f"initial_accumulator is of adagrad alone, and the optimizer is "
            f"{train.optimizer}: give --optimizer=adagrad too, or leave it out"
        )
