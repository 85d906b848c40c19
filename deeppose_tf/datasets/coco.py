"""COCO keypoint JSON with any skeleton: the official sets, and one's own joints.

Where the files are is in `coco_files`.
"""

from __future__ import annotations

import collections
import dataclasses

import numpy as np

from deeppose_tf import skeleton as skeletons
from deeppose_tf.datasets import Annotations, coco_files
from deeppose_tf.datasets.coco_skeleton import from_category
from deeppose_tf.skeleton import Skeleton


def read_splits(root: str, skeleton: str | None = None) -> dict[str, Annotations]:
    """Every split; nobody where it has no file.

    Args:
      root: a folder, or a single JSON file: see `coco_files`.
      skeleton: as `read`.

    Raises:
      ValueError: as `read`; or there is no training file.
    """
    files = {split: coco_files.find(root, split) for split in coco_files.NAMES}
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
    content = coco_files.load(path)
    try:
        chosen, orders = _skeleton(content["categories"], skeleton)
        images = {i.get("id"): i.get("file_name") for i in content["images"]}
        rows, skipped, damaged = _rows(path, content["annotations"], images, orders)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except TypeError as error:
        raise ValueError(f"{path}: some value is of a wrong kind ({error})") from error
    folders = coco_files.image_folders(path)
    joints = len(chosen.joints)
    names, keypoints, labeled, boxes = (
        zip(*rows.values(), strict=True) if rows else [()] * 4
    )
    return Annotations(
        skeleton=chosen,
        images=tuple(coco_files.locate(folders, name) for name in names),
        keypoints=np.array(keypoints, np.float32).reshape(-1, joints, 2),
        labeled=np.array(labeled, bool).reshape(-1, joints),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        ids=tuple(rows),
        skipped=tuple(skipped),
        damaged=tuple(damaged),
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
        chosen = skeletons.SKELETONS.get(override) or skeletons.load(override)
    else:
        chosen = from_category(named[0])
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
    return np.where(labeled[:, None], values[:, :2] + 0.5, 0.0), labeled


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
