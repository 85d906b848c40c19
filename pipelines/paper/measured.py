"""What goes into a table or figure of Sec. 4, and what comes out of it.

A model and a data set may differ in their joints, which are matched by name, and in
how first boxes are made.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deeppose_tf.pipelines.data import first_boxes
from deeppose_tf.pipelines.evaluation import figures
from deeppose_tf.pipelines.paper import published
from deeppose_tf.skeleton import Skeleton

PER_CENT, SECONDS, MEASURED = "per cent", "seconds", "measured"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a model predicts for the people of a data set, in the data's joints.

    Attributes:
      model: the skeleton that the model predicts.
      truth: the people of the data, their skeleton of K joints, and their images.
      protocol: see `scores.protocol`.
      predict: makes `named`; takes its time.
    """

    model: Skeleton
    truth: figures.Truth
    protocol: dict
    predict: Callable[[], Sequence[figures.Named]]

    @functools.cached_property
    def named(self) -> Sequence[figures.Named]:
        """(name, [N, K, 2] pixels) of the baseline, then of each stage; of a stage, NaN
        for joints that the model does not predict. Predicted when first asked for."""
        return self.predict()

    @property
    def shared(self) -> np.ndarray:
        """[K] bool: which of the data's joints the model predicts."""
        return np.isin(self.truth.skeleton.canonical, self.model.canonical)


@dataclasses.dataclass(frozen=True)
class Result:
    """A table and a picture.

    Attributes:
      unit: of all values.
      columns: their names.
      rows: see `row`; the first says in `scored` how much each column is made of.
      meanings: how to read the numbers, a sentence each.
      picture: [H, W, 3] uint8 RGB.
    """

    unit: str
    columns: Sequence[str]
    rows: Sequence[dict]
    meanings: Sequence[str]
    picture: np.ndarray


def distances(skeleton: Skeleton) -> str:
    """The unit of errors, true for skeletons without a torso too."""
    return "torso diameters" if skeleton.diagonals else "extents of the pose"


def row(name: str, values: dict, source: str = MEASURED) -> dict:
    """A row as a JSON value; `values` by column are like {"value": 0.5, "scored": 9},
    the value None where there is none."""
    return {"name": name, "source": source, "values": values}


def published_rows(paper: published.Experiment, columns: Sequence[str]) -> list[dict]:
    """The rows of the paper, with what they have of the columns."""
    return [
        row(
            one.method,
            {c: {"value": one.values[c]} for c in columns if c in one.values},
            one.source,
        )
        for one in paper.rows
    ]


def onto(poses: np.ndarray, model: Skeleton, data: Skeleton) -> np.ndarray:
    """Predictions as joints of the data.

    Args:
      poses: [..., K of the model, 2]

    Returns:
      [..., K of the data, 2], NaN for joints that the model does not predict.
    """
    moved = np.full((*poses.shape[:-2], len(data.joints), 2), np.nan, poses.dtype)
    for i, joint in enumerate(data.canonical):
        if joint in model.canonical:
            moved[..., i, :] = poses[..., model.canonical.index(joint), :]
    return moved


def other_boxes(cascade, provenance: dict) -> bool:
    """Whether first boxes of data are enlarged otherwise than those that the cascade
    learned from, as far as it says; `provenance` is the data's."""
    if "provenance" not in cascade.stages[0].training.get("data", {}):
        return False
    own, here = first_boxes.of_model(cascade), first_boxes.enlargements(provenance)
    return bool(own) != bool(here) or any(own.get(k) != by for k, by in here.items())


def require(measured: Measured, needed: Mapping[str, Sequence[int]]) -> None:
    """Checks that the model predicts what is to be scored.

    Args:
      needed: indices of the data's joints by the name of what is made of them.

    Raises:
      ValueError: the data has no such part, or the model lacks a joint of it; names
        the joints of both.
    """
    model, data = measured.model, measured.truth.skeleton
    for part, joints in needed.items():
        part = part.replace("_", " ")
        if not joints:
            raise ValueError(
                f"the data has no {part} to score; its joints ({data.name}): "
                f"{', '.join(data.joints)}"
            )
        names = [data.canonical[i] for i in joints]
        missing = [joint for joint in names if joint not in model.canonical]
        if missing:
            raise ValueError(
                f"the model does not predict {', '.join(missing)}, which {part} needs; "
                f"its joints ({model.name}): {', '.join(model.joints)}"
            )
