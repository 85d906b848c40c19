"""Where the files of a COCO keypoint data set are, and loading its JSON.

    train.json  [validation.json]  [test.json]        one's own; or in annotations/
    annotations/person_keypoints_{train,val}*.json    official; val is taken as test
    FILE.json given instead of a folder               all of it is for training

An image's `file_name` is looked for in `images`, beside the JSON, in a folder named as
the split (`train`, `train2017`), in that folder in `images`, and at the top.
"""

from __future__ import annotations

import json
import pathlib

NAMES = {
    "train": ("train.json", "person_keypoints_train*.json"),
    "validation": ("validation.json", "valid.json", "val.json"),
    "test": ("test.json", "person_keypoints_val*.json"),
}


def find(root: str, split: str) -> pathlib.Path | None:
    """The annotation file of a split, or None; there always is one for `train`.

    Raises:
      ValueError: none for `train`, or several files could be meant.
    """
    path = pathlib.Path(root)
    if path.is_file():
        return path if split == "train" else None
    folders = (path, path / "annotations")
    found = [f for d in folders for name in NAMES[split] for f in sorted(d.glob(name))]
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


def image_folders(path: str) -> tuple[pathlib.Path, ...]:
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


def locate(folders: tuple[pathlib.Path, ...], name: str) -> str:
    """The image's path; what is nowhere is expected in the first folder."""
    name = name.replace("\\", "/")  # Written by a labeling tool on Windows.
    for folder in folders:
        if (folder / name).is_file():
            return str(folder / name)
    return str(folders[0] / name)
