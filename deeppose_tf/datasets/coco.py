"""COCO keypoint JSON with any skeleton: the official sets, and one's own joints.

    train.json  [validation.json]  [test.json]        one's own; or in annotations/
    annotations/person_keypoints_{train,val}*.json    official; val is taken as test
    FILE.json given instead of a folder               all of it is for training

An image's `file_name` is looked for in `images`, beside the JSON, in a folder named as
the split (`train`, `train2017`), in that folder in `images`, and at the top.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import re

import numpy as np

from deeppose_tf import skeleton as skeletons
from deeppose_tf.datasets import Annotations
from deeppose_tf.datasets.coco_results import from_coco
from deeppose_tf.skeleton import Limb, Skeleton

FILES = {
    "train": ("train.json", "person_keypoints_train*.json"),
    "validation": ("validation.json", "valid.json", "val.json"),
    "test": ("test.json", "person_keypoints_val*.json"),
}

_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}
# The limbs that PCP pools under names of its own; others are named by their ends.
_TYPES = {
    frozenset(("shoulder", "elbow")): "upper_arm",
    frozenset(("elbow", "wrist")): "lower_arm",
    frozenset(("hip", "knee")): "upper_leg",
    frozenset(("knee", "ankle")): "lower_leg",
}
_DIAGONALS = (("left_shoulder", "right_hip"), ("right_shoulder", "left_hip"))


def read_splits(root: str, skeleton: str | None = None) -> dict[str, Annotations]:
    """Every split; nobody where it has no file.

    Args:
      root: a folder, or a single JSON file: see above.
      skeleton: as `read`.

    Raises:
      ValueError: as `read`; or there is no training file.
    """
    files = {split: _find(root, split) for split in FILES}
    splits = {split: read(str(f), skeleton) for split, f in files.items() if f}
    nobody = dataclasses.replace(splits["train"].take([]), skipped=(), damaged=())
    return {split: splits.get(split, nobody) for split in files}


def read(path: str, skeleton: str | None = None) -> Annotations:
    """One annotation file: everyone with a labeled joint.

    Joints count pixels from zero, so half a pixel is added; `bbox` (x, y, width,
    height) is measured from the image's corner and becomes corners. A joint with v = 0
    is not labeled. Without a `bbox`, a person alone on the image has all of it.

    Args:
      path: the JSON file.
      skeleton: a skeleton JSON file or a built-in name (`coco`); by default that of
        the file's category. Its joints are picked by name where the category has
        names, so it can be a part of them, in another order.

    Raises:
      ValueError: not such a file, or it and the skeleton do not fit; says which.
    """
    content = load(path)
    try:
        chosen, orders = _skeleton(content["categories"], skeleton)
        images = {i.get("id"): i.get("file_name") for i in content["images"]}
        rows, skipped, damaged = _rows(path, content["annotations"], images, orders)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except TypeError as error:
        raise ValueError(f"{path}: some value is of a wrong kind ({error})") from error
    folders = _image_folders(path)
    joints = len(chosen.joints)
    names, keypoints, labeled, boxes = (
        zip(*rows.values(), strict=True) if rows else [()] * 4
    )
    return Annotations(
        skeleton=chosen,
        images=tuple(_locate(folders, name) for name in names),
        keypoints=np.array(keypoints, np.float32).reshape(-1, joints, 2),
        labeled=np.array(labeled, bool).reshape(-1, joints),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        ids=tuple(rows),
        skipped=tuple(skipped),
        damaged=tuple(damaged),
    )


def load(path: str) -> dict:
    """An annotation file with its three lists of objects.

    Raises:
      ValueError: it cannot be read or is something else; names the file.
    """
    try:
        content = json.loads(pathlib.Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no JSON file that can be read ({error})") from error
    if isinstance(content, list):
        raise ValueError(
            f"{path}: a list, as results are; expected an annotation file, an object "
            "with images, annotations and categories"
        )
    for key in ("images", "annotations", "categories"):
        values = content.get(key) if isinstance(content, dict) else None
        if not isinstance(values, list):
            raise ValueError(f"{path}: has no list {key!r}; is it COCO keypoint JSON?")
        if not all(isinstance(value, dict) for value in values):
            raise ValueError(f"{path}: {key!r} holds something that is no object")
    return content


def skeleton_of(category: dict) -> Skeleton:
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


def _rows(path, annotations, images, orders):
    """(image name, keypoints, labeled, box) by id, and what was left out."""
    people = collections.Counter(a.get("image_id") for a in annotations)
    stem = path.replace("\\", "/").rsplit("/", 1)[-1].removesuffix(".json")
    rows, skipped, damaged = {}, [], []
    for number, annotation in enumerate(annotations):
        key = annotation.get("id", f"number {number + 1}")
        who, name = f"{path}: annotation {key}", f"coco/{stem}/{key}"
        reason = _skip_reason(annotation, orders)
        if reason:
            skipped.append((who, reason))
            continue
        try:
            image = annotation.get("image_id")
            if not isinstance(images.get(image), str):
                raise ValueError(
                    f"no image with a file_name has its image_id {image!r}"
                )
            if name in rows:
                raise ValueError("an earlier annotation has the same id")
            keypoints, labeled = _joints(annotation, *orders[annotation["category_id"]])
            box = _box(annotation, people[image] == 1)
        except ValueError as error:
            damaged.append((who, str(error)))
            continue
        if labeled.any():
            finite = np.isfinite(keypoints).all(axis=1)
            rows[name] = (images[image], keypoints, labeled & finite, box)
        else:
            skipped.append((who, "no joint is labeled"))
    return rows, skipped, damaged


def _skeleton(categories, override) -> tuple[Skeleton, dict]:
    """The skeleton, and by category the number of its joints and which to take."""
    named = [c for c in categories if override or c.get("keypoints")]
    if not named:
        raise ValueError(
            "no category names its 'keypoints'. Is it a file of boxes or outlines "
            "(instances)? Take the one of keypoints, or give a skeleton"
        )
    if override:
        chosen = skeletons.load(override)
    else:
        chosen = skeleton_of(named[0])
    orders = {c.get("id"): _order(c, chosen, bool(override)) for c in named}
    return chosen, orders


def _order(category, chosen: Skeleton, part: bool) -> tuple[int, list[int]]:
    names = category.get("keypoints")
    if not names:
        return len(chosen.joints), list(range(len(chosen.joints)))
    if not (
        set(chosen.joints) <= set(names) and (part or len(names) == len(chosen.joints))
    ):
        raise ValueError(
            f"category {category.get('name')!r} has the joints {', '.join(names)}, "
            f"expected {', '.join(chosen.joints)}. Give a skeleton whose joints all "
            "categories have"
        )
    return len(names), [names.index(joint) for joint in chosen.joints]


def _skip_reason(annotation, orders) -> str | None:
    category = annotation.get("category_id")
    if category not in orders:
        return f"category {category!r} has no keypoints"
    if annotation.get("iscrowd"):
        return "a crowd, not one person"
    if not annotation.get("keypoints"):
        return "no joint is labeled"
    return None


def _joints(annotation, count: int, order: list[int]):
    """Keypoints [K, 2] in pixels and labeled [K]."""
    try:
        values = np.asarray(annotation["keypoints"], np.float64).clip(-1e9, 1e9)
    except (TypeError, ValueError) as error:
        raise ValueError("its 'keypoints' are not all numbers") from error
    if values.shape != (3 * count,):
        raise ValueError(
            f"its 'keypoints' have shape {values.shape}, expected {3 * count} numbers: "
            f"x, y, v of {count} joints"
        )
    values = values.reshape(-1, 3)[order]  # [K, 3]
    labeled = values[:, 2] > 0
    return np.where(labeled[:, None], from_coco(values[:, :2]), 0.0), labeled


def _box(annotation, alone: bool) -> np.ndarray:
    """Corners [4]; zeros, the whole image, for want of anything better."""
    try:
        box = np.asarray(annotation.get("bbox") or [0.0] * 4, np.float64)
        box = box.clip(-1e9, 1e9)  # Float32 would overflow; nonsense stays nonsense.
    except (TypeError, ValueError) as error:
        raise ValueError("its 'bbox' is not all numbers") from error
    if box.shape != (4,):
        raise ValueError(f"its 'bbox' has shape {box.shape}, expected x, y, w, h")
    if not box.any() and not alone:
        raise ValueError("it has no 'bbox', and is not alone on its image")
    return box + np.concatenate([[0.0, 0.0], box[:2]])


def _find(root: str, split: str) -> pathlib.Path | None:
    """The annotation file of a split, or None; there always is one for `train`.

    Raises:
      ValueError: none for `train`, or several files could be meant.
    """
    path = pathlib.Path(root)
    if path.is_file():
        return path if split == "train" else None
    folders = (path, path / "annotations")
    found = [f for d in folders for name in FILES[split] for f in sorted(d.glob(name))]
    if len(found) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in found)
        raise ValueError(
            f"{root}: several files for {split}: {names}. Leave one, or give the JSON "
            "file itself as source"
        )
    if not found and split == "train":
        raise ValueError(
            f"{root}: has neither train.json nor annotations/person_keypoints_train*"
            ".json. Rename the annotation file, or give the JSON file itself as source"
        )
    return found[0] if found else None


def _image_folders(path: str) -> tuple[pathlib.Path, ...]:
    """The folders that images of an annotation file may be in, likeliest first."""
    file = pathlib.Path(path)
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    split = file.stem.removeprefix("person_keypoints_")
    return (
        root / "images",
        file.parent,
        root / split,
        root / "images" / split,
        root,
    )


def _locate(folders: tuple[pathlib.Path, ...], name: str) -> str:
    """The image's path; what is nowhere is expected in the first folder."""
    name = name.replace("\\", "/")  # Written by a labeling tool on Windows.
    for folder in folders:
        if (folder / name).is_file():
            return str(folder / name)
    return str(folders[0] / name)


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
