"""COCO keypoint JSON with any skeleton: the official sets, and one's own joints.

    train.json  [validation.json]  [test.json]        one's own; or in annotations/
    annotations/person_keypoints_{train,val}*.json    official; val is taken as test
                                                      where there is no other
    annotations/person_keypoints_Train.json           of CVAT; Validation, Test
    {train,valid,test}/_annotations.coco.json         of Roboflow
    the only such JSON of a folder, or FILE.json      all of it is for training

An image's `file_name` is looked for in `images`, beside the JSON, in a folder named as
the split (`train`, `train2017`), in that folder in `images`, in `data`, and at the top;
then its last part alone, for the paths of Label Studio and of other machines.
"""

from __future__ import annotations

import collections
import functools
import pathlib
import re

import numpy as np

from deeppose_tf import files
from deeppose_tf import skeleton as skeletons
from deeppose_tf.datasets import Annotations, people
from deeppose_tf.datasets.coco_results import CROWD, key
from deeppose_tf.skeleton import Limb, Skeleton

# What the file of a split may be called, in small letters, from the top or from
# `annotations`.
FILES = {
    "train": r"train\.json|person_keypoints_train.*|train(ing)?/.*annotation.*",
    "validation": r"(val|valid|validation|dev)(\.json|/.*annotation.*)"
    r"|person_keypoints_validation.*",
    "test": r"test\.json|person_keypoints_test.*|test(ing)?/.*annotation.*",
}
OFFICIAL_TEST = r"person_keypoints_val(?!idation).*"
# What `iscrowd` may be of one person.
NO_CROWD = ("0", "False", "false", "")
# Files that an error names.
MOST_TOLD = 20
MEND = "Mend it, or give a --skeleton"


def read_splits(root: str, skeleton: str | None = None) -> dict[str, Annotations]:
    """Every split; nobody where it has no file.

    Raises:
      ValueError: as `read`; or there is no file.
    """
    splits = {s: read(str(f), skeleton) for s, f in _files(pathlib.Path(root)).items()}
    nobody = next(iter(splits.values())).nobody()
    return {split: splits.get(split, nobody) for split in FILES}


def read(path: str, skeleton: str | None = None) -> Annotations:
    """One annotation file: everyone with a labeled joint.

    Joints count pixels from zero, so half a pixel is added; `bbox` (x, y, width,
    height) is measured from the image's corner and becomes corners. A joint with v = 0
    is not labeled. Without a `bbox`, a person alone on the image has all of it. Ids
    that are the same but for their type, such as "7" and 7.0, are the same.

    Args:
      skeleton: a skeleton JSON file or a built-in name (`coco`); by default that of
        the file's category. Its joints are picked by name where the category has
        names, so it can be a part of them, in another order and spelling.

    Raises:
      ValueError: not such a file, or it and the skeleton do not fit; says which.
    """
    content = load(path)
    try:
        chosen, orders, notes = _skeleton(content["categories"], skeleton)
    except (TypeError, AttributeError) as error:
        raise ValueError(f"{path}: 'categories' of another form ({error})") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    found = people.People(chosen)
    found.understood += notes
    images = _Images(path, content["images"])
    file, annotations = pathlib.Path(path), content["annotations"]
    stem = file.parent.name if "annotation" in file.stem else file.stem
    shown = collections.Counter(images.name(one.get("image_id")) for one in annotations)
    for number, annotation in enumerate(annotations):
        own, image = key(annotation.get("id")), annotation.get("image_id")
        own, name = own or f"number {number + 1}", images.name(image)
        with found.reading(f"{path}: annotation {own}", name):
            count, order = _order_of(annotation, orders)
            try:
                place, size = images.find(key(image))
            except ValueError as error:
                found.lose(f"{path}: image {image}", str(error), f"annotation {own}")
                continue
            meaning = f"{3 * count} numbers: x, y, v of {count} joints"
            given = annotation["keypoints"], (3 * count,), "keypoints", meaning
            joints = people.numbers(*given).reshape(-1, 3)[order]  # [K, 3]
            box = _box(annotation, shown[name] == 1)
            found.add(f"coco/{stem}/{own}", place, joints, 0.5, box, size)
    found.understood += images.notes()
    return found.annotations()


def load(path: str) -> dict:
    """An annotation file with its three lists of objects.

    Raises:
      ValueError: it is something else; names the file.
      OSError: it cannot be read.
    """
    content = files.load_json(path)
    if isinstance(content, list):
        raise ValueError(f"{path}: a list, as results are; expected an annotation file")
    for name in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not people.are_objects(content.get(name)):
            raise ValueError(
                f"{path}: has no list {name!r} of objects; is it COCO keypoint JSON?"
            )
    return content


def skeleton_of(category: dict) -> Skeleton:
    """The skeleton of one entry of `categories`.

    Joints whose names differ in left and right alone become pairs, however they are
    spelled (`skeleton.canonical_names`). Limbs are those of its `skeleton`, which
    counts joints from one, or plainly from zero (`first_joint`).

    Raises:
      ValueError: the names are not a list of different texts, or a limb names a joint
        that there is not.
    """
    joints = category["keypoints"]
    if not isinstance(joints, list) or not all(isinstance(j, str) for j in joints):
        raise ValueError("'keypoints' of the category is not a list of joint names")
    names, first = skeletons.canonical_names(joints), first_joint(category)
    return Skeleton(
        name=str(category.get("name", "custom")),
        joints=tuple(joints),
        pairs=skeletons.pairs_by_name(joints),
        limbs=tuple(
            Limb(
                f"{joints[a - first]} - {joints[b - first]}",
                skeletons.limb_type(names[a - first], names[b - first]),
                (a - first,),
                (b - first,),
            )
            for a, b in _edges(category)
        ),
        diagonals=skeletons.diagonals_by_name(joints),
    )


def first_joint(category: dict) -> int:
    """The number that the limbs of a category give the first joint.

    That is 1. It is 0 where there is a 0 among them, or where more of them are arms
    and legs that way.

    Raises:
      ValueError: a limb does not name two joints in either way.
    """
    edges, count = _edges(category), len(category["keypoints"])
    used = [number for edge in edges for number in edge]
    wrong = [edge for edge in edges if not (0 <= min(edge) and max(edge) <= count)]
    if not wrong and 0 in used and count in used:
        wrong = [edge for edge in edges if 0 in edge]
    if wrong:
        raise ValueError(
            f"its 'skeleton' has {list(wrong[0])}, expected two joint numbers from 1 "
            f"to {count}, or all of them from 0 to {count - 1}. {MEND}"
        )
    if 0 in used or count in used or not used:
        return 0 if 0 in used else 1
    names = skeletons.canonical_names(category["keypoints"])
    parts = [
        sum(skeletons.is_limb(names[a - first], names[b - first]) for a, b in edges)
        for first in (0, 1)
    ]
    return 0 if parts[0] > max(parts[1], 1) else 1


def _edges(category) -> list[tuple[int, int]]:
    """Its limbs as pairs of whole numbers, as they are counted there."""
    edges = []
    for edge in category.get("skeleton") or []:
        try:
            a, b = (float(number) for number in edge)
            edges.append((int(a), int(b)))
            whole = edges[-1] == (a, b) and a != b
        except (TypeError, ValueError, OverflowError):
            whole = False
        if not whole:
            raise ValueError(
                f"its 'skeleton' has {edge!r}, expected two joint numbers. {MEND}"
            )
    return edges


class _Images:
    """The files of the images of an annotation file, each looked for once."""

    def __init__(self, path: str, entries: list[dict]):
        file = pathlib.Path(path)
        root = file.parent.parent if file.parent.name == "annotations" else file.parent
        split = file.stem.removeprefix("person_keypoints_")
        # Likeliest first.
        self.folders = (
            root / "images",
            file.parent,
            root / split,
            root / "images" / split,
            root / "data",
            root,
        )
        self.entries = collections.defaultdict(dict)
        for entry in entries:
            named = entry.get("file_name"), _size(entry)
            if isinstance(named[0], str) and named[0]:
                self.entries[key(entry.get("id"))][named] = None
        # Several images of that name in different folders are not told by it.
        names = {name for found in self.entries.values() for name, _ in found}
        self.last = collections.Counter(map(_last, names))
        self.find = functools.cache(self._find)
        self.by_last: list[str] = []
        self.unsized = [
            str(entry.get("file_name"))
            for entry in entries
            if [entry.get("width"), entry.get("height")] != [None, None]
            and not any(_size(entry))
        ]

    def name(self, number) -> str | None:
        """What the image of this id is called, of whatever ids it may have more."""
        return next(iter(self.entries.get(key(number), {})), (None,))[0]

    def notes(self) -> list[str]:
        """What is known of some of them otherwise than it is said, or not at all."""
        told = (
            (self.by_last, "are found by the last part of their file_name alone"),
            (self.unsized, "have a width and height that are no size: not compared"),
        )
        return [
            f"{len(those)} image(s), such as {those[0]}, {what}"
            for those, what in told
            if those
        ]

    def _find(self, number: str | None) -> tuple[str, tuple[int, int]]:
        """Of a `key` the path, and the height and width that the annotation file says
        it has, or zeros."""
        named = list(self.entries.get(number, {}))
        if not named:
            raise ValueError("no image with a file_name has this id")
        sizes = {size for _, size in named if any(size)}
        if len({name for name, _ in named}) > 1 or len(sizes) > 1:
            told = [f"{n} ({w} x {h})" if h else n for n, (h, w) in named]
            raise ValueError(f"the id is that of {' and of '.join(told)}")
        name, size = named[0][0], (*sizes, (0, 0))[0]
        file, last = people.locate(self.folders, name), _last(name)
        if not file and last != name and self.last[last] == 1:
            file = people.locate(self.folders, last)
            self.by_last += [name] if file else []
        return file or str(self.folders[0] / name.replace("\\", "/")), size


def _last(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def _size(entry) -> tuple[int, int]:
    """Height and width that an image is said to have; zeros where it is not said."""
    try:
        height, width = (int(float(entry[name])) for name in ("height", "width"))
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0, 0
    known = min(height, width) > 0 and max(height, width) < 1 << 31
    return (height, width) if known else (0, 0)


def _skeleton(categories, override) -> tuple[Skeleton, dict, list[str]]:
    """The skeleton; by category the number of its joints and which to take, None where
    it has no keypoints; and what had to be understood."""
    named = [c for c in categories if override or c.get("keypoints")]
    if not named:
        raise ValueError(
            "no category names its 'keypoints'. Is it a file of boxes or outlines "
            "(instances)? Take the one of keypoints, or give a skeleton"
        )
    chosen = skeletons.load(override) if override else skeleton_of(named[0])
    notes = []
    if not override and first_joint(named[0]) == 0:
        notes = ["the limbs of its 'skeleton' count joints from 0"]
    orders = {}
    for category in categories:
        number = key(category.get("id"))
        order = _order(category, chosen, bool(override)) if category in named else None
        if orders.setdefault(number, order) != order:
            raise ValueError(f"two categories of other joints have the id {number}")
    return chosen, orders, notes


def _order(category, chosen: Skeleton, part: bool) -> tuple[int, list[int]]:
    names = category.get("keypoints")
    if not names:
        return len(chosen.joints), list(range(len(chosen.joints)))
    index = {name: i for i, name in enumerate(skeletons.canonical_names(names))}
    index |= {name: i for i, name in enumerate(names)}
    wanted = [
        joint if joint in index else canonical
        for joint, canonical in zip(chosen.joints, chosen.canonical, strict=True)
    ]
    if not set(wanted) <= set(index) or not (part or len(names) == len(wanted)):
        raise ValueError(
            f"category {category.get('name')!r} has the joints {', '.join(names)}, "
            f"expected {', '.join(chosen.joints)}. Give a skeleton whose joints all "
            "categories have"
        )
    return len(names), [index[joint] for joint in wanted]


def _order_of(annotation, orders) -> tuple[int, list[int]]:
    """That of the category of somebody with joints."""
    category = annotation.get("category_id")
    if key(category) not in orders:
        raise ValueError(f"no category has its category_id {category!r}")
    if orders[key(category)] is None:
        raise people.LeftOut(f"category {category!r} has no keypoints")
    crowd = annotation.get("iscrowd")
    crowd = "" if crowd is None else key(crowd) or str(crowd)
    if crowd in CROWD:
        raise people.LeftOut("a crowd, not one person")
    if crowd not in NO_CROWD:
        raise ValueError(f"its 'iscrowd' is {crowd}, expected 0 or 1")
    if not annotation.get("keypoints"):
        if key(annotation.get("num_keypoints")) not in (None, "0"):
            raise ValueError(
                "its 'num_keypoints' counts some, and 'keypoints' has none"
            )
        raise people.LeftOut("no joint is labeled")
    return orders[key(category)]


def _box(annotation, alone: bool) -> np.ndarray:
    """Corners [4]; zeros, the whole image, for want of anything better."""
    box = people.numbers(annotation.get("bbox") or [0.0] * 4, (4,), "bbox")
    if not box.any() and not alone:
        raise ValueError("it has no 'bbox', and is not alone on its image")
    return box + np.concatenate([[0.0, 0.0], box[:2]])


def _files(path: pathlib.Path) -> dict[str, pathlib.Path]:
    """The annotation file of each split that has one."""
    if path.is_file():
        return {"train": path}
    splits = "train training val valid validation dev test testing".split()
    inside = sorted(folder for folder in path.iterdir() if folder.is_dir())
    folders = [path, *(f for f in inside if f.name.lower() in ("annotations", *splits))]
    there = [file for folder in folders for file in sorted(folder.iterdir())]
    every = [file for file in there if file.suffix.lower() == ".json"]

    def those(pattern):
        names = (file.relative_to(path).as_posix().lower() for file in every)
        names = (name.removeprefix("annotations/") for name in names)
        pairs = zip(every, names, strict=True)
        return [file for file, name in pairs if re.fullmatch(pattern, name)]

    found = {split: those(pattern) for split, pattern in FILES.items()}
    official = those(OFFICIAL_TEST)
    found["validation" if found["test"] else "test"] += official
    if not any(found.values()):
        found["train"] = _only(every)
    for split, listed in found.items():
        if len(listed) > 1:
            raise ValueError(
                f"{path}: several files for {split}: {_told(listed, path)}. Leave one, "
                "or give the JSON file itself as source"
            )
    used = [file for listed in found.values() for file in listed]
    # Those of validation alone may go with another data set.
    if not used or (used == found["validation"] and len(every) > len(used)):
        raise ValueError(
            f"{path}: has neither train.json nor annotations/person_keypoints_train*"
            f".json. Its JSON files: {_told(every, path)}. Give the one of COCO "
            "keypoints to train on as source, or call it train.json"
        )
    return {split: listed[0] for split, listed in found.items() if listed}


def _told(paths: list[pathlib.Path], folder: pathlib.Path) -> str:
    names = [str(path.relative_to(folder)) for path in paths]
    if len(names) > MOST_TOLD:
        names[MOST_TOLD:] = [f"and {len(names) - MOST_TOLD} more"]
    return ", ".join(names) or "none"


def _only(paths: list[pathlib.Path]) -> list[pathlib.Path]:
    """Those of COCO keypoints; of a skeleton given apart, any of COCO."""
    found, named = [], []
    for path in paths:
        try:
            categories = load(str(path))["categories"]
        except (OSError, ValueError):
            continue
        found.append(path)
        named += [path] * any(category.get("keypoints") for category in categories)
    return named or found
