"""How records become batches and how their crops are varied. No TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

# Where canvases can be kept; see `canvases.open_people`.
CACHES = ("auto", "device", "memory", "disk", "none")


@dataclasses.dataclass(frozen=True)
class InputConfig:
    """How records become batches.

    Attributes:
      canvas: C, side of the uint8 canvas in pixels.
      context: share by which the cut is larger than the person's first box.
      batch: crops per step, over all devices.
      views: crops made of one decoded canvas per step; divides `batch`.
    """

    canvas: int = 256
    context: float = 0.25
    batch: int = 128
    views: int = 1

    def __post_init__(self):
        if self.batch < 1 or self.views < 1 or self.batch % self.views:
            raise ValueError(
                f"batch {self.batch} must be a multiple of views {self.views}"
            )


@dataclasses.dataclass(frozen=True)
class AugmentConfig:
    """How crops are varied; zeros and False switch each part off.

    Attributes:
      flip: mirror half of the crops, left and right joints exchanged.
      translation: stage 1: the box moves by up to this share of its size.
      displacement: later stages: factor on the standard deviation of the delta ~
        N(mean, covariance) of Sec. 3.2; 1 is the paper, 0 shows joints as predicted
        on average.
      scale: logarithm of the factor by which the box grows or shrinks at most.
      rotation: degrees by which the crop is turned at most, either way.
      brightness, contrast, colour: strength of the change of pixel values.
    """

    flip: bool = False
    translation: float = 0.0
    displacement: float = 1.0
    scale: float = 0.0
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    colour: float = 0.0

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if value < 0:
                raise ValueError(f"{name} is {value}; it must not be negative")


def require_extent(joints: Sequence[str], provenance: dict) -> None:
    """Refuses prepared data of which no pose can be measured, rather than after the
    first stage, whose displacements are measured in pose diameters.

    Raises:
      ValueError: there is one joint, or nobody to train on has two apart.
    """
    people = provenance.get("summary", {}).get("train", {}).get("extent", 1)
    if len(joints) < 2 or not people:
        raise ValueError(
            f"poses are measured by their extent, and those of {', '.join(joints)} "
            "have none: label at least two joints at different places, of a thing that "
            "is one point its two ends, or its centre and its edge"
        )
