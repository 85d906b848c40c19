"""What goes into a table or figure of Sec. 4, and what comes out of it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np

from deeppose_tf.pipelines.data.records import People
from deeppose_tf.pipelines.evaluation import figures
from deeppose_tf.pipelines.paper import published
from deeppose_tf.skeleton import Skeleton

Named = Sequence[tuple[str, np.ndarray]]

PER_CENT, DIAMETERS, SECONDS = "per cent", "torso diameters", "seconds"
MEASURED = "measured"


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a model predicts for the people of a data set, in the data's joints.

    Attributes:
      model: the skeleton that the model predicts.
      skeleton: of the data, K joints.
      people: the truth.
      images: index of a person -> image.
      said: see `scores.protocol`.
      predict: makes `named`; takes its time.
    """

    model: Skeleton
    skeleton: Skeleton
    people: People
    images: figures.Images
    said: dict
    predict: Callable[[], Named]

    @functools.cached_property
    def named(self) -> Named:
        """(name, [N, K, 2] pixels) of the floor, then of each stage; of a stage, NaN
        for joints that the model does not predict. Predicted when first asked for."""
        return self.predict()


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
