"""What a model and a data set have in common: joints, matched by name, and boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from deeppose_tf.pipelines.data import first_boxes
from deeppose_tf.skeleton import Skeleton


def shared(model: Skeleton, data: Skeleton) -> np.ndarray:
    """[K] bool: which of the data's joints the model predicts."""
    return np.array([joint in model.joints for joint in data.joints])


def other_boxes(cascade, provenance: dict) -> bool:
    """Whether first boxes of data are enlarged otherwise than those that the cascade
    learned from, as far as it says; `provenance` is the data's."""
    if "provenance" not in cascade.stages[0].training.get("data", {}):
        return False
    own, here = first_boxes.of_model(cascade), first_boxes.enlargements(provenance)
    return bool(own) != bool(here) or any(own.get(k) != by for k, by in here.items())


def onto(poses: np.ndarray, model: Skeleton, data: Skeleton) -> np.ndarray:
    """Predictions as joints of the data.

    Args:
      poses: [..., K of the model, 2]

    Returns:
      [..., K of the data, 2], NaN for joints that the model does not predict.
    """
    moved = np.full((*poses.shape[:-2], len(data.joints), 2), np.nan, poses.dtype)
    for i, joint in enumerate(data.joints):
        if joint in model.joints:
            moved[..., i, :] = poses[..., model.joints.index(joint), :]
    return moved


def require(
    needed: Mapping[str, Sequence[int]], model: Skeleton, data: Skeleton
) -> None:
    """Checks that the model predicts what is to be scored.

    Args:
      needed: indices of the data's joints by the name of what is made of them.

    Raises:
      ValueError: the data has no such part, or the model lacks a joint of it; names
        the joints of both.
    """
    for part, joints in needed.items():
        part = part.replace("_", " ")
        if not joints:
            raise ValueError(
                f"the data has no {part} to score; its joints ({data.name}): "
                f"{', '.join(data.joints)}"
            )
        names = [data.joints[i] for i in joints]
        missing = [joint for joint in names if joint not in model.joints]
        if missing:
            raise ValueError(
                f"the model does not predict {', '.join(missing)}, which {part} needs; "
                f"its joints ({model.name}): {', '.join(model.joints)}"
            )
