"""Joint names, left/right pairs, limbs and torso diagonals of one kind of pose.

Pure data: no TensorFlow, no pixels. A skeleton written as JSON is all that is
needed to train on one's own joints.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
import unicodedata
from collections.abc import Sequence

from deeppose_tf import files

_SIDES = {"l": "left", "lt": "left", "left": "left"}
_SIDES |= {"r": "right", "rt": "right", "right": "right"}
_OTHER = {"left": "right", "right": "left"}
# Joints that may be shortened to three letters or more, as OpenPose's tools do.
_PARTS = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
# The limbs that PCP pools under names of its own; others are named by their ends.
_TYPES = {
    frozenset(("shoulder", "elbow")): "upper_arm",
    frozenset(("elbow", "wrist")): "lower_arm",
    frozenset(("hip", "knee")): "upper_leg",
    frozenset(("knee", "ankle")): "lower_leg",
}
_DIAGONALS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))


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
        names, count = self.joints, len(self.joints)
        paired = [i for pair in self.pairs for i in pair]
        used = paired + [i for pair in self.diagonals for i in pair]
        used += [i for limb in self.limbs for i in limb.start + limb.end]
        texts = all(isinstance(joint, str) for joint in names)
        outside = any(not 0 <= i < count for i in used)
        endless = any(not limb.start or not limb.end for limb in self.limbs)
        for wrong, what in (
            (not names, "has no joints"),
            (not texts, "has a joint whose name is no text"),
            (len(set(names)) != count, "names a joint twice"),
            (len(set(paired)) != len(paired), "pairs a joint twice"),
            (outside, f"uses a joint outside 0..{count - 1}"),
            (endless, "has a limb without an end"),
        ):
            if wrong:
                raise ValueError(f"skeleton {self.name!r} {what}")

    @functools.cached_property
    def canonical(self) -> tuple[str, ...]:
        """[K] the joints as `canonical_names` spells them."""
        return canonical_names(self.joints)

    @property
    def mirror(self) -> tuple[int, ...]:
        """[K] the joint that each joint becomes in a mirror image."""
        order = list(range(len(self.joints)))
        for left, right in self.pairs:
            order[left], order[right] = right, left
        return tuple(order)

    def side(self, joint: int) -> str:
        """`left`, `right` or `middle`: the person's side that a joint is on."""
        sides = {left: "left" for left, _ in self.pairs}
        sides |= {right: "right" for _, right in self.pairs}
        return sides.get(joint, "middle")


def canonical_names(joints: Sequence[str]) -> tuple[str, ...]:
    """Joint names in one spelling, such as `left_shoulder`.

    So are `l_shoulder`, `shoulder_left`, `LShoulder`, `shoulder (left)`, `Left
    Shoulder`, `l_sho`; and `lshoulder` where there is an `rshoulder` too: without its
    partner nothing tells `lip` from a left one.
    """
    split = [_words(joint) for joint in joints]
    spelled = [_separated(words, set(split)) for words in split]
    # The side first.
    spelled = [sorted(words, key=lambda word: word not in _OTHER) for words in spelled]
    return tuple(map("_".join, spelled))


def pairs_by_name(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(left, right) of joints whose names differ in their side alone."""
    index = {name: i for i, name in enumerate(canonical_names(joints))}
    pairs = []
    for name, i in index.items():
        words = name.split("_")
        partner = "_".join(_OTHER.get(word, word) for word in words)
        if words[0] == "left" and partner in index:
            pairs.append((i, index[partner]))
    return tuple(pairs)


def diagonals_by_name(joints: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """(shoulder, hip) of opposing sides, as far as there are joints of these names."""
    index = {name: i for i, name in enumerate(canonical_names(joints))}
    known = [ends for ends in _DIAGONALS if set(ends) <= set(index)]
    return tuple((index[a], index[b]) for a, b in known)


def limb_type(start: str, end: str) -> str:
    """The type of a limb between two joints of canonical names, the same of both sides:
    one of PCP's four, or named by its ends."""
    words = (joint.split("_") for joint in (start, end))
    parts = ["_".join(word for word in one if word not in _OTHER) for one in words]
    return _TYPES.get(frozenset(parts), " - ".join(sorted(parts)))


def is_limb(start: str, end: str) -> bool:
    """Whether it is an upper or lower arm or leg of one side."""
    same = start.split("_")[0] == end.split("_")[0]
    return same and limb_type(start, end) in _TYPES.values()


def to_json(skeleton: Skeleton) -> dict:
    """The skeleton as a JSON value in which joints are spelled by name."""

    def named(indices):
        return [skeleton.joints[i] for i in indices]

    limbs = [
        {"name": x.name, "type": x.type, "start": named(x.start), "end": named(x.end)}
        for x in skeleton.limbs
    ]
    return {
        "name": skeleton.name,
        "joints": list(skeleton.joints),
        "pairs": list(map(named, skeleton.pairs)),
        "limbs": limbs,
        "diagonals": list(map(named, skeleton.diagonals)),
    }


def from_json(value: dict) -> Skeleton:
    """The inverse of `to_json`; `limbs` may be left out, and `pairs` and `diagonals`
    are told by the joints' names where they are.

    Raises:
      ValueError: a key is missing or a joint is named that `joints` does not list.
    """
    try:
        names = tuple(_names(value, "joints"))
        index = {name: i for i, name in enumerate(names)}
        return Skeleton(
            name=value.get("name", "custom"),
            joints=names,
            pairs=_index_pairs(value, "pairs", index, pairs_by_name),
            limbs=tuple(
                Limb(
                    limb["name"],
                    limb.get("type", limb["name"]),
                    tuple(index[joint] for joint in _names(limb, "start")),
                    tuple(index[joint] for joint in _names(limb, "end")),
                )
                for limb in value.get("limbs", [])
            ),
            diagonals=_index_pairs(value, "diagonals", index, diagonals_by_name),
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
        content = files.load_json(path)
        nested = isinstance(content, dict) and "skeleton" in content
        skeleton = from_json(content["skeleton"] if nested else content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if nested and formats:
        files.read_json(path, formats)
    return skeleton


def _names(value, key) -> list:
    # A text is a list of letters to Python.
    names = value[key]
    if not isinstance(names, list):
        raise ValueError(f"skeleton: {key!r} is {names!r}, expected a list of names")
    return names


def _index_pairs(value, key, index, by_name) -> tuple[tuple[int, int], ...]:
    if key not in value:
        return by_name(list(index))
    pairs = value[key]
    if any(not isinstance(pair, list) or len(pair) != 2 for pair in pairs):
        raise ValueError(f"skeleton: {key!r} is {pairs!r}, expected pairs of names")
    return tuple((index[a], index[b]) for a, b in pairs)


def _words(joint: str) -> tuple[str, ...]:
    """`leftKnee`, `LKnee`, `Knee (L)` and `left_kne` alike are left and knee."""
    begins = r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])"
    spaced = re.sub(begins, " ", unicodedata.normalize("NFKC", joint))
    words = [word for word in re.split(r"[\W_]+", spaced.lower()) if word]
    words = [_SIDES.get(word) or _part(word) for word in words]
    return tuple(words) or (joint,)


def _part(word):
    meant = [part for part in _PARTS if len(word) > 2 and part.startswith(word)]
    return meant[0] if meant else word


def _separated(words, known):
    """The words of one joint, a side split off that is glued to another: there has to
    be a joint that is called the same of the other side."""
    if any(word in _OTHER for word in words):
        return words
    for left, right in (("left", "right"), ("l", "r")):
        for own, other in ((left, right), (right, left)):
            for i, word in enumerate(words):
                for rest, partner in (
                    (word.removeprefix(own), other + word.removeprefix(own)),
                    (word.removesuffix(own), word.removesuffix(own) + other),
                ):
                    before, after = words[:i], words[i + 1 :]
                    if rest not in ("", word) and (*before, partner, *after) in known:
                        return (_SIDES[own], *before, _part(rest), *after)
    return words


def _skeleton(name, joints, limbs, diagonals=None) -> Skeleton:
    """A skeleton whose pairs are told by its joints' names."""
    index = {joint: i for i, joint in enumerate(joints)}

    def ends(names):
        return tuple(index[joint] for joint in names.split("+"))

    return Skeleton(
        name,
        tuple(joints),
        pairs_by_name(joints),
        tuple(Limb(n, t, ends(a), ends(b)) for n, t, a, b in limbs),
        diagonals or diagonals_by_name(joints),
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

LSP = _skeleton(
    "lsp",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist "
    "right_elbow right_shoulder left_shoulder left_elbow left_wrist neck "
    "head_top".split(),
    _TORSO + (("head", "head", "neck", "head_top"),) + _ARMS + _LEGS,
)

# The ten upper-body joints: the eight of arms and hips, and the two eyes.
FLIC = _skeleton(
    "flic",
    "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist "
    "left_hip right_hip left_eye right_eye".split(),
    _TORSO + (("head", "head", _SHOULDERS, "left_eye+right_eye"),) + _ARMS,
)

# What the sticks of Buffy give: no hips and no eyes, and the torso's own two ends, from
# one to the other of which its diameter is measured.
BUFFY = _skeleton(
    "buffy",
    "left_shoulder left_elbow left_wrist right_shoulder right_elbow right_wrist "
    "neck pelvis head_top".split(),
    (("torso", "torso", "neck", "pelvis"), ("head", "head", "neck", "head_top"))
    + _ARMS,
    ((6, 7),),  # neck to pelvis
)

MPII = _skeleton(
    "mpii",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax "
    "upper_neck head_top right_wrist right_elbow right_shoulder left_shoulder "
    "left_elbow left_wrist".split(),
    _TORSO + (("head", "head", "upper_neck", "head_top"),) + _ARMS + _LEGS,
)

COCO = _skeleton(
    "coco",
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder "
    "left_elbow right_elbow left_wrist right_wrist left_hip right_hip left_knee "
    "right_knee left_ankle right_ankle".split(),
    _TORSO + (("head", "head", _SHOULDERS, "nose"),) + _ARMS + _LEGS,
)

SKELETONS = {s.name: s for s in (LSP, FLIC, BUFFY, MPII, COCO)}
