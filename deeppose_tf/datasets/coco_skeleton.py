"""The skeleton of a COCO keypoint category: joints, limbs, and sides told by name."""

from __future__ import annotations

import re

from deeppose_tf.skeleton import Limb, Skeleton

_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}
# The limbs that PCP pools under names of its own; others are named by their ends.
_TYPES = {
    frozenset(("shoulder", "elbow")): "upper_arm",
    frozenset(("elbow", "wrist")): "lower_arm",
    frozenset(("hip", "knee")): "upper_leg",
    frozenset(("knee", "ankle")): "lower_leg",
}
_DIAGONALS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))


def from_category(category: dict) -> Skeleton:
    """The skeleton of one entry of `categories`.

    Joints whose names differ in left and right alone (`left_knee`, `knee_l`,
    `Right Knee`) become pairs. Limbs are those of its `skeleton`, which counts joints
    from one.

    Raises:
      ValueError: the names are not a list of different texts, or a limb names a joint
        that there is not.
    """
    joints = category["keypoints"]
    if not isinstance(joints, list) or not all(isinstance(j, str) for j in joints):
        raise ValueError("'keypoints' of the category is not a list of joint names")
    index = {_words(joint): i for i, joint in enumerate(joints)}
    diagonals = tuple(
        (index[_words(a)], index[_words(b)])
        for a, b in _DIAGONALS
        if _words(a) in index and _words(b) in index
    )
    return Skeleton(
        name=str(category.get("name", "custom")),
        joints=tuple(joints),
        pairs=tuple(
            (i, index[_mirror(words)])
            for words, i in index.items()
            if _is_left(words) and _mirror(words) in index
        ),
        limbs=tuple(_limb(joints, edge) for edge in category.get("skeleton") or []),
        diagonals=diagonals,
    )


def _limb(joints: list[str], edge) -> Limb:
    known = isinstance(edge, list) and len(edge) == 2
    if not known or not all(i in range(1, len(joints) + 1) for i in edge):
        raise ValueError(
            f"its 'skeleton' has {edge!r}, expected two joint numbers from 1 to "
            f"{len(joints)}"
        )
    a, b = (joints[i - 1] for i in edge)
    ends = [" ".join(w for w in _words(joint) if w not in _OTHER) for joint in (a, b)]
    name = f"{a} - {b}"
    kind = _TYPES.get(frozenset(ends), " - ".join(sorted(ends)))
    return Limb(name, kind, (edge[0] - 1,), (edge[1] - 1,))


def _words(joint: str) -> tuple[str, ...]:
    """`leftKnee`, `Left Knee` and `left_knee` alike are (left, knee)."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", joint)
    return tuple(re.split(r"[\s_\-.]+", spaced.strip().lower()))


def _mirror(words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_OTHER.get(word, word) for word in words)


def _is_left(words: tuple[str, ...]) -> bool:
    return "left" in words or "l" in words
