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
import pathlib

import numpy as np

from deeppose_tf import files, skeleton
from deeppose_tf.datasets import Annotations, Missing, matlab, people

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

    Raises:
      ValueError: a file is missing, damaged or of another form; names it.
    """
    path = pathlib.Path(root)
    if path.is_file():
        train = _people(path, _json_people(path), path.parent)
        return {"train": train, "test": train.nobody()}
    places = [f / x for f in (path, path / "annot") for x in (OFFICIAL, TRAIN)]
    found = [file for file in places if file.is_file()]
    if len(found) != 1:
        names = " and ".join(str(file.relative_to(path)) for file in found)
        raise (ValueError if found else Missing)(
            f"{root}: has {names or 'nothing to read'}, expected one of {OFFICIAL} and "
            f"{TRAIN}, there or in annot. Or give a JSON file itself as source"
        )
    file, test = found[0], found[0].with_name(TEST)
    read = _matlab_people if file.name == OFFICIAL else _json_people
    train = _people(file, read(file), path)
    if file.name == OFFICIAL or not test.is_file():
        return {"train": train, "test": train.nobody()}
    return {"train": train, "test": _people(test, _json_people(test), path)}


def box_from_scale(center: np.ndarray, scale: float) -> np.ndarray:
    """[4] pixels, the square around a person; zeros, the whole image, if unknown."""
    if not np.isfinite([*center, scale]).all() or scale <= 0:
        return np.zeros(4)
    center = center + np.array([0.0, DOWN * scale])
    half = LARGER * UNIT * scale / 2
    return np.concatenate([center - half, center + half])


def _people(path: pathlib.Path, entries: list[dict], root: pathlib.Path) -> Annotations:
    """Everyone of a list as that of the JSON, but for those with something wrong."""
    folder = root / "images" if (root / "images").is_dir() else path.parent
    on_image = collections.Counter(str(person.get("image")) for person in entries)
    seen, found = collections.Counter(), people.People(skeleton.MPII)
    for i, person in enumerate(entries):
        image = str(person.get("image"))
        seen[image] += 1
        name = f"mpii/{pathlib.PurePosixPath(image).stem}-{seen[image]}"
        with found.reading(f"{path}: person {i + 1}", person.get("image")):
            joints, box = _labels(person)
            if not box.any() and on_image[image] > 1:
                raise people.LeftOut("no center and scale, and not alone on its image")
            file = people.locate([folder], image) or str(folder / image)
            found.add(name, file, joints, -0.5, box)
    return found.annotations()


def _labels(person: dict) -> tuple[np.ndarray, np.ndarray]:
    """Joints [16, 3], x, y as in the file and v, and box [4] pixels of one person."""
    if not isinstance(person.get("image"), str) or not person["image"]:
        raise ValueError("its 'image' names no file")
    missing = FIELDS.keys() - person.keys()
    if missing:
        raise ValueError(f"it has no {min(missing)!r}")
    joints, visible, center, scale = (
        people.numbers(person[name], shape, name) for name, shape in FIELDS.items()
    )
    return np.column_stack([joints, visible]), box_from_scale(center - 0.5, scale)


def _json_people(path: pathlib.Path) -> list[dict]:
    content = files.load_json(path)
    if not people.are_objects(content):
        raise ValueError(
            f"{path}: not a list of {{image, center, scale, joints, joints_vis}}. If "
            "it has images, annotations and categories, read it as coco"
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
    entries = []
    for i in np.flatnonzero(train == 1):
        try:
            name = images[i]["image"]["name"]
            rectangles = matlab.listed(images[i].get("annorect"))
            entries += [_matlab_person(name, person) for person in rectangles]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: image {i + 1} of 'annolist' is not of the official form "
                f"({type(error).__name__}: {error})"
            ) from error
    if not entries:
        raise ValueError(
            f"{path}: nobody is annotated on its {np.sum(train == 1)} images for "
            "training. Is it the official file?"
        )
    return entries


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
