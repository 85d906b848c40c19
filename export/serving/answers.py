"""What TensorFlow Serving may answer: poses, checked, or one of four kinds of error."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import numpy as np

# The signature that takes encoded images, and its outputs.
SIGNATURE = "jpeg"
OUTPUTS = ("keypoints", "keypoints_by_stage", "scores", "valid")
# No honest answer is larger: people are asked about in small portions.
MOST_BYTES = 64 * 2**20

# What taking nonsense apart raises.
_NONSENSE = (
    *(AttributeError, LookupError, OverflowError, RecursionError, TypeError),
    ValueError,
)

# Nor has a pose more joints, or a cascade more stages.
MOST_PARTS = 10_000

# The shapes of a signature's outputs by their names; -1 is any size.
Shapes = dict[str, tuple[int, ...]]


class ServerError(OSError):
    """The server cannot be reached, or does not answer as it should."""


class Busy(ServerError):
    """It was not reached or had too much to do: the same request may do later."""


class NotThere(ServerError):
    """It has no such model, or has it not ready."""


class Refused(ValueError):
    """It takes this request for a wrong one; another image may be fine."""


def output_shapes(server: str, signatures: Mapping[str, Shapes]) -> Shapes:
    """The shapes of the outputs of `SIGNATURE`, of which only the first is -1.

    Raises:
      ServerError: the model has no such signature, or it is no pose's.
    """
    if SIGNATURE not in signatures:
        raise ServerError(
            f"{server}: the model has no signature {SIGNATURE!r} but {list(signatures)}"
            ". Serve one that deeppose-export wrote"
        )
    shapes = signatures[SIGNATURE]
    stages, joints = (*shapes.get("keypoints_by_stage", ())[1:3], -1, -1)[:2]
    expected = {
        "keypoints": (-1, joints, 2),
        "keypoints_by_stage": (-1, stages, joints, 2),
        "scores": (-1, joints),
        "valid": (-1,),
    }
    wrong = min(joints, stages) < 1 or max(joints, stages) > MOST_PARTS
    if wrong or any(shapes.get(k) != expected[k] for k in OUTPUTS):
        raise ServerError(f"{server}: {SIGNATURE!r} answers {shapes}, which is no pose")
    return expected


def nobody(shapes: Shapes) -> dict:
    """The answer about no people at all, float32 and bool."""
    return {
        name: np.zeros((0, *shapes[name][1:]), bool if name == "valid" else np.float32)
        for name in OUTPUTS
    }


def arrays(server: str, answer: Mapping, shapes: Shapes, rows: int) -> dict:
    """The answer about so many people as NumPy, float32 and bool.

    Raises:
      ServerError: an output is missing, has another shape or is not finite.
    """
    return {
        name: _array(server, name, answer.get(name), (rows, *shapes[name][1:]))
        for name in OUTPUTS
    }


@contextlib.contextmanager
def understood(server: str) -> Iterator[None]:
    """Says of what cannot be taken apart that it is no answer of TensorFlow Serving."""
    try:
        yield
    except _NONSENSE as error:
        raise ServerError(
            f"{server}: the answer is not TensorFlow Serving's, or damaged ({error!r})"
        ) from error


def _array(server, name, value, shape):
    with understood(server), np.errstate(over="ignore"):
        array = np.asarray(value)  # ValueError where lists differ in length
        kinds, kind = ("b", bool) if name == "valid" else ("fiu", np.float32)
        if array.shape != shape or array.dtype.kind not in kinds:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {shape}")
        array = array.astype(kind)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has numbers that are not finite")
        return array
