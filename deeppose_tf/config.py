"""What a stage of the cascade is, and where a trained cascade has its stages.

No TensorFlow: commands read it before they import anything that takes seconds.
"""

from __future__ import annotations

import dataclasses
import difflib
import numbers
import pathlib
from collections.abc import Iterable

from deeppose_tf import files

HEADS = ("linear", "integral")
LOSSES = ("l2", "l1")
STRIDES = (0, 4, 8, 16, 32)
# MoveNet's networks: the channels of the stem, of the block after it and of the groups
# of blocks. The last is Lightning without its layers at a 32nd of the crop.
MOVENETS = {
    "movenet_thunder": (56, 32, (40, 56, 112, 168, 280, 560)),
    "movenet_lightning": (32, 16, (24, 32, 64, 96, 160, 320)),
    "movenet_lightning_16": (32, 16, (24, 32, 64, 96)),
}
# EfficientNet-Lite0, whole or without its layers at a 32nd of the crop: the side of its
# last cells in pixels.
LITES = {"efficientnet_lite0": 32, "efficientnet_lite0_16": 16}
# Names the stages of a run.
INDEX, INDEX_FORMATS = "cascade.json", (1,)
# What numbers of a configuration may be, the ends included.
LIMITS = {
    "size": (32, 2048),
    "widths": (1, 2**14),
    "blocks": (0, 64),
    "subcells": (1, 64),
    "window": (0, 2**14),
    "dropout": (0, 0.99),
    "margin": (-0.49, 100),
    "sigma": (1e-3, 1e3),
    "step_size": (1e-3, 1),
    "outlier_threshold": (1e-3, 1e12),
}
# Of a network: 2 GB in float32. The paper's has 58 million.
MOST_WEIGHTS = 500_000_000
# The trained cascades that ship inside the package.
PRESETS = pathlib.Path(__file__).parent / "presets"


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """What a stage's network is and what it looks at.

    Attributes:
      network: `paper` (Fig. 2), `compact` (ours), `movenet_thunder`,
        `movenet_lightning`, `efficientnet_lite0`, the last two with `_16` for their
        first layers alone, or the name of a class of `keras.applications`.
      size: S, side of the crop in pixels.
      head: `linear` (2k outputs, as in the paper) or `integral` (expected place
        under a softmax over a map per joint).
      widths: channels of `compact` after each halving of the resolution.
      blocks: residual blocks of `compact` after each halving.
      stride: of EfficientNet-Lite0 and `keras.applications`: side in pixels of the
        cells up to which the last layers' features are doubled and joined with those of
        layers before; 0 for 8 of Lite0, and for a backbone's last layer alone.
      subcells: an integral head's places along a side of a cell of the last layer.
      window: an integral head answers the place expected within so many places of the
        highest; 0 for that of the whole map, which far-off maxima pull at. In training
        it is always the whole.
      dropout: share of units dropped in fully connected layers.
      margin: stage 1: share by which the first box is grown.
      square: stage 1: whether the first box becomes a square, which keeps the
        proportions of the picture. The paper's does not.
      sigma: later stages: side of the joint box in pose diameters.
      step_size: later stages: share of the displacement seen that is applied; the
        paper applies all of it.
      outlier_threshold: displacements of this stage beyond so many pose diameters
        are left out of its statistics: left and right exchanged are no errors that a
        later stage could see in its crop. The paper leaves none out.
    """

    network: str = "paper"
    size: int = 220
    head: str = "linear"
    widths: tuple[int, ...] = ()
    blocks: tuple[int, ...] = ()
    stride: int = 0
    subcells: int = 1
    window: int = 0
    dropout: float = 0.0
    margin: float = 0.0
    square: bool = False
    sigma: float = 2.0
    step_size: float = 1.0
    outlier_threshold: float = 1e6

    def __post_init__(self):
        # JSON knows lists alone.
        object.__setattr__(self, "widths", tuple(self.widths))
        object.__setattr__(self, "blocks", tuple(self.blocks))
        for name, (least, most) in LIMITS.items():
            value = getattr(self, name)
            whole = name in ("size", "widths", "blocks", "subcells", "window")
            kind = numbers.Integral if whole else numbers.Real
            for one in value if isinstance(value, tuple) else [value]:
                if not isinstance(one, kind) or not least <= one <= most:
                    what = "a whole number" if whole else "a number"
                    raise ValueError(
                        f"{name} is {value}; expected {what} from {least} to {most}"
                    )
        if self.head not in HEADS:
            raise ValueError(f"head {self.head!r} is none of {HEADS}")
        if self.stride not in STRIDES:
            raise ValueError(f"stride is {self.stride}, which is none of {STRIDES}")
        if not isinstance(self.network, str) or not isinstance(self.square, bool):
            raise ValueError(f"network {self.network!r} or square {self.square!r}")
        if len(self.widths) != len(self.blocks):
            raise ValueError(f"widths {self.widths} and blocks {self.blocks} differ")
        if self._weights() > MOST_WEIGHTS:
            raise ValueError(f"the network has more than {MOST_WEIGHTS:,} weights")

    def _weights(self):
        """About how many the networks of ours have, before they are built."""
        if self.network == "paper":  # between the last map, a 37th of the crop, and fc6
            return (self.size / 37) ** 2 * 256 * 4096
        layers = zip(self.widths, self.blocks, strict=True)
        return sum(9 * width**2 * (1 + 2 * blocks) for width, blocks in layers)


def config_from_json(value: dict) -> StageConfig:
    """The configuration in a `stage.json` of any format so far.

    Raises:
      TypeError, ValueError: there is no such field, or a value is not allowed.
    """
    return StageConfig(
        **{_RENAMED.get(name, name): x for name, x in dict(value).items()}
    )


# Names of format 1.
_RENAMED = {"correction": "step_size", "farthest": "outlier_threshold"}


def list_presets() -> list[str]:
    """The names of the trained cascades that ship with the package."""
    return sorted(path.parent.name for path in PRESETS.glob(f"*/{INDEX}"))


def no_preset(name: str) -> str:
    """What to say of a name that no preset has, such as a mistyped one."""
    presets = list_presets()
    near = nearest(name, presets)
    meant = f": did you mean {near}?" if near else ""
    return f"is none of the presets {', '.join(presets)}{meant}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The one that a mistyped name is most like, if it is like any."""
    return next(iter(difflib.get_close_matches(name, known, 1)), None)


def find_run(run: str) -> str:
    """The folder of a trained cascade: that of a preset where this is the name of one,
    and no folder here is called so."""
    if run in list_presets() and not pathlib.Path(run).exists():
        return str(PRESETS / run)
    return run


def find_stage(path: str) -> str | None:
    """The folder of the stage that a path names: its own, or that of its weights, or of
    a run or a preset the first; None where there is none."""
    folder = pathlib.Path(find_run(path))
    if folder.suffix == ".safetensors":
        folder = folder.parent
    for one in (folder, folder / "stage_1"):
        if (one / "stage.json").is_file():
            return str(one)
    return None


def check_run(run: str) -> list[str]:
    """The folders of the stages of a run, which `deeppose-train` wrote, or of
    a preset.

    Raises:
      ValueError: there is no trained cascade; says what is there instead. Or a stage of
        it is missing.
    """
    run = find_run(run)
    path = pathlib.Path(run)
    index = path / INDEX
    if not index.is_file():
        raise ValueError(f"{run} {_no_run(path)}")
    names = files.read_json(index, INDEX_FORMATS).get("stages")
    there = names if isinstance(names, list) else []
    if not there or there != [f"stage_{i + 1}" for i in range(len(there))]:
        raise ValueError(
            f"{index} is damaged: expected the stages stage_1, stage_2 and so on"
        )
    folders = [path / name for name in there]
    for folder in folders:
        require_stage(folder)
    return [str(folder) for folder in folders]


def require_stage(folder: pathlib.Path) -> None:
    """That there is a stage in its folder, which is put back where a kill fell between
    the two renames of `stage.save_stage`.

    Raises:
      ValueError: there is none.
    """
    replaced = files.hidden(folder, "replaced")
    if not folder.exists() and replaced.exists():
        replaced.rename(folder)
    if not (folder / "stage.json").is_file():
        raise ValueError(f"{folder} is no folder of a stage: no stage.json")


def _no_run(path):
    """What a path is that is no run."""
    wanted = "give the folder that deeppose-train wrote"
    if not path.exists():
        return f"does not exist, and {no_preset(str(path))}"
    if not path.is_dir():
        return f"is a file: {wanted}"
    if not any(path.iterdir()):
        return f"is an empty folder: {wanted}"
    exported = f"is an exported SavedModel: {wanted}, or serve this one"
    for name, meaning in (
        ("dataset.json", f"is prepared data, not a trained model: {wanted}"),
        ("stage.json", f"is one stage of a run: give the run, {path.parent}"),
        ("saved_model.pb", exported),
        ("*/saved_model.pb", exported),
    ):
        if any(path.glob(name)):
            return meaning
    if any(path.glob("training_*")):
        return "has a training without a finished stage: go on with deeppose-train"
    return f"has no {INDEX}, so it is no trained model: {wanted}"
