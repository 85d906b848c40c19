"""MPII Human Pose (Andriluka et al., CVPR 2014): the official file, and the usual JSON.

    mpii_human_pose_v1_u12_1.mat      official; the labels of its test part are secret
    train.json  [valid.json]          a list of objects {image, center, scale, joints,
                                      joints_vis} of one person; valid is taken as test
    FILE.json instead of a folder     such a list, all of it for training

In the folder or in its `annot`; the images are in its `images`. Both count pixels from
one: the JSON was made of MATLAB's numbers as they are, and who reads it takes one off.
Left and right are the person's own.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib

import numpy as np

from deeppose_tf import skeleton
from deeppose_tf.datasets import Annotations, Missing, matlab

OFFICIAL = "mpii_human_pose_v1_u12_1.mat"
TRAIN, TEST = "train.json", "valid.json"
JOINTS = len(skeleton.MPII.joints)
FIELDS = {"joints": (JOINTS, 2), "joints_vis": (JOINTS,), "center": (2,), "scale": ()}
# `scale` is a person's height in units of 200 pixels, `center` about the body's middle.
# As is usual the box is moved down and enlarged a little, so that it cuts no limb off.
UNIT, DOWN, LARGER = 200.0, 15.0, 1.25


def read_splits(root: str) -> dict[str, Annotations]:
    """The train and test part of MPII; of the official file the latter is empty.

    Boxes are squares made of `center` and `scale`, which are annotations, given for the
    secret test part too. An occluded joint is labeled, a missing one is not.

    Args:
      root: a folder or a JSON file, see above.

    Raises:
      ValueError: a file is missing, damaged or of another form; names it.
    """
    path = pathlib.Path(root)
    if path.is_file():
        train = _people(path, _json_people(path), path.parent)
        return {"train": train, "test": _nobody(train)}
    folders = (path, path / "annot")
    found = [f / name for f in folders for name in (OFFICIAL, TRAIN)]
    found = [file for file in found if file.is_file()]
    if len(found) != 1:
        names = " and ".join(str(file.relative_to(path)) for file in found)
        raise (ValueError if found else Missing)(
            f"{root}: has {names or 'nothing to read'}, expected one of {OFFICIAL} and "
            f"{TRAIN}, there or in annot. Or give a JSON file itself as source"
        )
    file = found[0]
    if file.name == OFFICIAL:
        train = _people(file, _matlab_people(file), path)
        return {"train": train, "test": _nobody(train)}
    train, test = _people(file, _json_people(file), path), file.with_name(TEST)
    if not test.is_file():
        return {"train": train, "test": _nobody(train)}
    return {"train": train, "test": _people(test, _json_people(test), path)}


def box_from_scale(center: np.ndarray, scale: float) -> np.ndarray:
    """[4] pixels, the square around a person; zeros, the whole image, if unknown."""
    if not np.isfinite([*center, scale]).all() or scale <= 0:
        return np.zeros(4)
    center = center + np.array([0.0, DOWN * scale])
    half = LARGER * UNIT * scale / 2
    return np.concatenate([center - half, center + half])


def _nobody(people: Annotations) -> Annotations:
    return dataclasses.replace(people.take([]), skipped=(), damaged=())


def _people(path: pathlib.Path, people: list[dict], root: pathlib.Path) -> Annotations:
    """Everyone of a list as that of the JSON, but for those with something wrong."""
    folder = root / "images" if (root / "images").is_dir() else path.parent
    on_image = collections.Counter(str(person.get("image")) for person in people)
    seen, rows, skipped, damaged = collections.Counter(), [], [], []
    for i, person in enumerate(people):
        image = str(person.get("image"))
        seen[image] += 1
        name = f"mpii/{pathlib.PurePosixPath(image).stem}-{seen[image]}"
        try:
            keypoints, labeled, box = _labels(person)
        except (TypeError, ValueError) as error:
            damaged.append((f"{path}: person {i + 1}", str(error)))
            continue
        if not labeled.any():
            skipped.append((f"{path}: {name}", "no joint is labeled"))
        elif not box.any() and on_image[image] > 1:
            reason = "it has no center and scale, and is not alone on its image"
            skipped.append((f"{path}: {name}", reason))
        else:
            rows.append((str(folder / image), keypoints, labeled, box, name))
    images, keypoints, labeled, boxes, ids = (
        zip(*rows, strict=True) if rows else [()] * 5
    )
    return Annotations(
        skeleton=skeleton.MPII,
        images=images,
        keypoints=np.array(keypoints, np.float32).reshape(-1, JOINTS, 2),
        labeled=np.array(labeled, bool).reshape(-1, JOINTS),
        boxes=np.array(boxes, np.float32).reshape(-1, 4),
        ids=ids,
        skipped=tuple(skipped),
        damaged=tuple(damaged),
    )


def _labels(person: dict):
    """Keypoints [16, 2] pixels, labeled [16] and box [4] of one person."""
    if not isinstance(person.get("image"), str) or not person["image"]:
        raise ValueError("its 'image' names no file")
    numbers = []
    for name, shape in FIELDS.items():
        if name not in person:
            raise ValueError(f"it has no {name!r}")
        array = np.asarray(person[name], np.float64)
        if array.shape != shape:
            raise ValueError(f"its {name!r} has shape {array.shape}, expected {shape}")
        numbers.append(array.clip(-1e9, 1e9))  # Float32 would overflow.
    joints, visible, center, scale = numbers
    labeled = visible > 0
    keypoints = np.where(labeled[:, np.newaxis], joints - 0.5, 0.0)
    box = box_from_scale(center - 0.5, float(scale))
    return keypoints, labeled & np.isfinite(keypoints).all(axis=1), box


def _json_people(path: pathlib.Path) -> list[dict]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: no JSON file that can be read ({error})") from error
    if not isinstance(content, list) or not all(isinstance(p, dict) for p in content):
        raise ValueError(
            f"{path}: not a list of {{image, center, scale, joints, joints_vis}} of "
            "people. If it has images, annotations and categories, read it as coco"
        )
    return content


def _matlab_people(path: pathlib.Path) -> list[dict]:
    """The labeled people of the official file's training images, as in the JSON."""
    release = matlab.load_structs(path, "RELEASE", ("annolist", "img_train"))[0]
    images = matlab.listed(release["annolist"])
    train = np.atleast_1d(release["img_train"])
    if len(train) != len(images):
        raise ValueError(
            f"{path}: {len(images)} images in 'annolist', {len(train)} in 'img_train'"
        )
    people = []
    for i, (image, marked) in enumerate(zip(images, train, strict=True)):
        if marked != 1:
            continue
        try:
            name = image["image"]["name"]
            rectangles = matlab.listed(image.get("annorect"))
            people += [_matlab_person(name, person) for person in rectangles]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: image {i + 1} of 'annolist' is not of the official form "
                f"({type(error).__name__}: {error})"
            ) from error
    if not people:
        raise ValueError(
            f"{path}: nobody is annotated on its {np.sum(train == 1)} images for "
            "training. Is it the official file?"
        )
    return people


def _matlab_person(image, person: dict) -> dict:
    """A struct of one person as in the JSON; a person may lack any of its fields."""
    joints, visible = np.zeros((JOINTS, 2)), np.zeros(JOINTS)
    annopoints = matlab.listed(person.get("annopoints"))
    for point in matlab.listed(annopoints[0].get("point")) if annopoints else []:
        joints[int(point["id"])] = point["x"], point["y"]
        visible[int(point["id"])] = 1  # `is_visible` is 0 of an occluded one.
    place, scale = matlab.listed(person.get("objpos")), person.get("scale", ())
    known = place and np.size(scale) == 1
    return {
        "image": image,
        "joints": joints,
        "joints_vis": visible,
        "center": [place[0]["x"], place[0]["y"]] if known else [0, 0],
        "scale": scale if known else 0,
    }
