"""Joint names, left/right pairs, limbs and torso diagonals of one kind of pose.

Pure data: no TensorFlow, no pixels. A skeleton written as JSON is all that is
needed to train on one's own joints.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

from deeppose_tf import files


@dataclasses.dataclass(frozen=True)
class Limb:
    """A stick between two ends; an end is one joint or the middle of several.

    Attributes:
      name: such as `left_lower_arm`.
      type: the group it is pooled into by PCP, such as `lower_arm`.
      start: joint indices whose mean is one end.
      end: joint indices whose mean is the other end.
    """

    name: str
    type: str
    start: tuple[int, ...]
    end: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """The joints of a data set and how they belong together.

    Attributes:
      name: such as `lsp`.
      joints: K joint names, in the order of every `keypoints` array.
      pairs: (left, right) joint indices that a mirror image exchanges.
      limbs: the sticks that PCP scores and overlays draw.
      diagonals: (shoulder, hip) joint indices of opposing sides, the one that the
        pose diameter uses first (Sec. 3.2). May be empty: then the diameter comes
        from the extent of the pose.
    """

    name: str
    joints: tuple[str, ...]
    pairs: tuple[tuple[int, int], ...]
    limbs: tuple[Limb, ...]
    diagonals: tuple[tuple[int, int], ...]

    def __post_init__(self):
        if not self.joints:
            raise ValueError(f"skeleton {self.name!r} has no joints")
        if not all(isinstance(joint, str) for joint in self.joints):
            raise ValueError(
                f"skeleton {self.name!r} has a joint whose name is no text"
            )
        if len(set(self.joints)) != len(self.joints):
            raise ValueError(f"skeleton {self.name!r} names a joint twice")
        used = [i for pair in self.pairs for i in pair]
        if len(set(used)) != len(used):
            raise ValueError(f"skeleton {self.name!r} pairs a joint twice")
        used += [i for pair in self.diagonals for i in pair]
        used += [i for limb in self.limbs for i in limb.start + limb.end]
        if any(not 0 <= i < len(self.joints) for i in used):
            raise ValueError(
                f"skeleton {self.name!r} uses a joint outside 0..{len(self.joints) - 1}"
            )
        if any(not limb.start or not limb.end for limb in self.limbs):
            raise ValueError(f"skeleton {self.name!r} has a limb without an end")

    @property
    def mirror(self) -> tuple[int, ...]:
        """[K] the joint that each joint becomes in a mirror image."""
        order = list(range(len(self.joints)))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return tuple(order)

    def side(self, joint: int) -> str:
        """`left`, `right` or `middle`: the person's side that a joint is on."""
        for left, right in self.pairs:
            if joint == left:
                return "left"
            if joint == right:
                return "right"
        return "middle"


def to_json(skeleton: Skeleton) -> dict:
    """The skeleton as a JSON value in which joints are spelled by name."""
    names = skeleton.joints
    return {
        "name": skeleton.name,
        "joints": list(names),
        "pairs": [[names[i] for i in pair] for pair in skeleton.pairs],
        "limbs": [
            {
                "name": limb.name,
                "type": limb.type,
                "start": [names[i] for i in limb.start],
                "end": [names[i] for i in limb.end],
            }
            for limb in skeleton.limbs
        ],
        "diagonals": [[names[i] for i in pair] for pair in skeleton.diagonals],
    }


def from_json(value: dict) -> Skeleton:
    """The inverse of `to_json`; `pairs`, `limbs` and `diagonals` may be left out.

    Raises:
      ValueError: a key is missing or a joint is named that `joints` does not list.
    """
    try:
        names = tuple(_names(value, "joints"))
        index = {name: i for i, name in enumerate(names)}
        return Skeleton(
            name=value.get("name", "custom"),
            joints=names,
            pairs=_index_pairs(value, "pairs", index),
            limbs=tuple(
                Limb(
                    limb["name"],
                    limb.get("type", limb["name"]),
                    tuple(index[joint] for joint in _names(limb, "start")),
                    tuple(index[joint] for joint in _names(limb, "end")),
                )
                for limb in value.get("limbs", [])
            ),
            diagonals=_index_pairs(value, "diagonals", index),
        )
    except KeyError as error:
        raise ValueError(
            f"skeleton: {error.args[0]!r} is missing, or is not one of its joints"
        ) from error
    except (TypeError, AttributeError) as error:
        raise ValueError(f"skeleton: not of the form of README: {error}") from error


def load(name: str, formats: tuple = ()) -> Skeleton:
    """A built-in skeleton by its name, or that of a JSON file.

    Args:
      name: of the skeleton or the file, which may hold it under `skeleton`, as an
        export's `deeppose.json` does.
      formats: of such a file's `format`, those that are read; by default any.

    Raises:
      ValueError: it is neither, not a skeleton, or of another format; names the file.
      OSError: the file cannot be read.
    """
    if name in SKELETONS:
        return SKELETONS[name]
    path = pathlib.Path(name)
    if not path.is_file():
        known = ", ".join(SKELETONS)
        raise ValueError(f"skeleton {name!r}: no such file, and none of {known}")
    try:
        content = json.loads(path.read_text())
        nested = isinstance(content, dict) and "skeleton" in content
        skeleton = from_json(content["skeleton"] if nested else content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if nested and formats:
        files.read_json(path, formats)
    return skeleton


def _names(value, key) -> list:
    # A text is a list of letters to Python.
    if not isinstance(value[key], list):
        raise ValueError(
            f"skeleton: {key!r} is {value[key]!r}, expected a list of names"
        )
    return value[key]


def _index_pairs(value, key, index) -> tuple[tuple[int, int], ...]:
    pairs = value.get(key, [])
    if any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        raise ValueError(f"skeleton: {key!r} is {pairs!r}, expected pairs of names")
    return tuple((index[a], index[b]) for a, b in pairs)


def _skeleton(name, joints, limbs, diagonals) -> Skeleton:
    """A skeleton of named joints; `left_x` and `right_x` are paired by name."""
    index = {joint: i for i, joint in enumerate(joints)}
    pairs = tuple(
        (i, index["right_" + joint[5:]])
        for joint, i in index.items()
        if joint.startswith("left_") and "right_" + joint[5:] in index
    )

    def ends(names):
        return tuple(index[joint] for joint in names.split("+"))

    return Skeleton(
        name,
        tuple(joints),
        pairs,
        tuple(Limb(n, t, ends(a), ends(b)) for n, t, a, b in limbs),
        tuple((index[a], index[b]) for a, b in diagonals),
    )


def _both_sides(kind, *joints):
    """The upper and lower limbs of both sides, along three joints."""
    parts = tuple(zip(("upper", "lower"), joints[:-1], joints[1:], strict=True))
    return tuple(
        (f"{side}_{part}_{kind}", f"{part}_{kind}", f"{side}_{a}", f"{side}_{b}")
        for side in ("left", "right")
        for part, a, b in parts
    )


_ARMS = _both_sides("arm", "shoulder", "elbow", "wrist")
_LEGS = _both_sides("leg", "hip", "knee", "ankle")
_SHOULDERS, _HIPS = "left_shoulder+right_shoulder", "left_hip+right_hip"
_TORSO = (("torso", "torso", _SHOULDERS, _HIPS),)
_DIAGONALS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))

LSP = _skeleton(
    "lsp",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist "
    "right_elbow right_shoulder left_shoulder left_elbow left_wrist neck "
    "head_top".split(),
    _TORSO + (("head", "head", "neck", "head_top"),) + _ARMS + _LEGS,
    _DIAGONALS,
)

# The ten upper-body joints: the eight of arms and hips, and the two eyes.
FLIC = _skeleton(
    "flic",
    "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist "
    "left_hip right_hip left_eye right_eye".split(),
    _TORSO + (("head", "head", _SHOULDERS, "left_eye+right_eye"),) + _ARMS,
    _DIAGONALS,
)

# What the sticks of Buffy give: no hips and no eyes, and the torso's own two ends, from
# one to the other of which its diameter is measured.
BUFFY = _skeleton(
    "buffy",
    "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist "
    "neck pelvis head_top".split(),
    (("torso", "torso", "neck", "pelvis"), ("head", "head", "neck", "head_top"))
    + _ARMS,
    (("neck", "pelvis"),),
)

MPII = _skeleton(
    "mpii",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax "
    "upper_neck head_top right_wrist right_elbow right_shoulder left_shoulder "
    "left_elbow left_wrist".split(),
    _TORSO + (("head", "head", "upper_neck", "head_top"),) + _ARMS + _LEGS,
    _DIAGONALS,
)

COCO = _skeleton(
    "coco",
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder "
    "left_elbow right_elbow left_wrist right_wrist left_hip right_hip left_knee "
    "right_knee left_ankle right_ankle".split(),
    _TORSO + (("head", "head", _SHOULDERS, "nose"),) + _ARMS + _LEGS,
    _DIAGONALS,
)

SKELETONS = {s.name: s for s in (LSP, FLIC, BUFFY, MPII, COCO)}
