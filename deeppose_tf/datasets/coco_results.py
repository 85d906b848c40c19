"""Poses in COCO's result format: writing them, and reading those of anyone.

COCO counts joints in pixels from the centre of the first pixel, half a pixel less than
the project, and measures boxes [x, y, width, height] from its corner, as the project.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from deeppose_tf import files
from deeppose_tf.datasets.people import are_objects, numbers
from deeppose_tf.skeleton import COCO, Skeleton

FORMAT = "deeppose-tf predictions 2"
# Joints in the project's coordinates, and `box` alone.
OLD_FORMAT = "deeppose-tf predictions 1"
COORDINATES = (
    "As in COCO: keypoints are x, y, score of each joint, in pixels of the upright "
    "image, where (0, 0) is the centre of the first pixel; bbox is x, y, width, height "
    "of the person box, where (0, 0) is the corner of the first pixel, and box is the "
    "same as x0, y0, x1, y1. keypoints_by_stage are x, y of each joint after each "
    "stage. A person who is not valid has no pose: zeros. In a film track is the "
    "number of a person, and keypoints are smoothed, those by stage are not."
)
_HINT = (
    ". Such an id ends with the number of an annotation; numbers of images need "
    "--annotations, the COCO file that the data was made of"
)
# Detections of a lower score are no person boxes.
LEAST_SCORE = 0.5
CROWD = ("1", "True", "true")  # What `iscrowd` may be; see `key`.


def key(value: object) -> str | None:
    """An id in one form, whether it is a number or a text."""
    if not isinstance(value, str | int | float):
        return None
    return re.sub(r"(?<=\d)\.0+$", "", str(value).strip())


def to_coco(keypoints: np.ndarray) -> np.ndarray:
    """Joints [..., 2] in the project's pixels -> in COCO's."""
    return np.asarray(keypoints) - 0.5


def from_coco(keypoints: np.ndarray) -> np.ndarray:
    """Joints [..., 2] in COCO's pixels -> in the project's."""
    return np.asarray(keypoints) + 0.5


def category(skeleton: Skeleton) -> dict:
    """The entry of `categories`, whose `skeleton` are pairs of joints from 1.

    The end of a limb that lies between two joints becomes the line between them, and
    the limb a line on either side.
    """
    pairs = set()
    for limb in skeleton.limbs:
        pairs |= {*itertools.pairwise(limb.start), *itertools.pairwise(limb.end)}
        for pair in itertools.product(limb.start, limb.end):
            sides = {skeleton.side(joint) for joint in pair}
            if len(limb.start) == len(limb.end) == 1 or sides != {"left", "right"}:
                pairs.add(pair)
    edges = sorted({tuple(sorted(pair)) for pair in pairs})
    return {
        "id": 1,
        "name": "person",
        "keypoints": list(skeleton.joints),
        "skeleton": [[a + 1, b + 1] for a, b in edges],
    }


@dataclasses.dataclass
class Predictions:
    """Collects what `predictions.json` says: a COCO annotation file, and more.

    Attributes:
      skeleton: names the K joints.
      settings: JSON value, what the run was asked for.
      shots: the entry of each image, or frame of a film, and those of its people.
      unreadable: file name and reason of what was passed over.
      files: of each file by name its `path`; a `stamp` of all that its poses depend
        on; whether it is `finished`; and a `check`, the digest of its entries: of each
        image with its people and the digest before.
    """

    skeleton: Skeleton
    settings: dict
    shots: list[tuple[dict, list[dict]]] = dataclasses.field(default_factory=list)
    unreadable: list[dict] = dataclasses.field(default_factory=list)
    files: dict[str, dict] = dataclasses.field(default_factory=dict)

    @classmethod
    def kept(cls, content: dict, skeleton: Skeleton, settings: dict):
        """What an earlier run left in its file, whose content this is, finished or not;
        nothing where that is none, or of another skeleton. Files whose entries were
        changed since are left out."""
        found = cls(skeleton, settings)
        try:
            if content["categories"] != [category(skeleton)]:
                return found
            on = {image["id"]: [] for image in content["images"]}
            for person in content["annotations"]:
                on[person["image_id"]].append(person)
            found.shots = [(image, on[image["id"]]) for image in content["images"]]
            found.unreadable, entries = content["unreadable"], content["files"]
            checks: dict[str, str] = collections.defaultdict(str)
            for image, people in found.shots:
                name = image["file_name"]
                checks[name] = files.fingerprint([checks[name], image, people])
            found.files = {n: e for n, e in entries.items() if e["check"] == checks[n]}
            for name in checks.keys() - found.files:
                found.drop(name)
            return found
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls(skeleton, settings)

    def begin(self, name: str, path: str, stamp: str) -> list[tuple[np.ndarray, dict]]:
        """Begins with a file, or goes on with it where it was begun with this stamp.

        Returns:
          Of each of its images that are there already the person boxes and the poses,
          as `add` takes them.
        """
        self.unreadable = [one for one in self.unreadable if one["file_name"] != name]
        entry = self.files.get(name)
        if entry and entry["stamp"] != stamp:
            self.drop(name)
        if name not in self.files:
            entry = {"path": path, "stamp": stamp, "finished": False, "check": ""}
            self.files[name] = entry
            return []
        return [
            _poses(image, people, len(self.skeleton.joints))
            for image, people in self.shots
            if image["file_name"] == name
        ]

    def is_finished(self, name: str, stamp: str) -> bool:
        """Whether that file is there whole, with this stamp."""
        entry = self.files.get(name, {})
        return entry.get("stamp") == stamp and entry["finished"]

    def drop(self, name: str) -> None:
        """Forgets the poses of a file."""
        self.shots = [shot for shot in self.shots if shot[0]["file_name"] != name]
        self.files.pop(name, None)

    def add(
        self,
        name: str,
        size: tuple[int, int],
        boxes: np.ndarray,
        predicted: dict,
        **more,
    ) -> None:
        """Adds an image and its people.

        Args:
          size: height and width of the image.
          boxes: [N, 4] person boxes, pixels; zeros are the whole image.
          predicted: of `Cascade.predict`.
          more: JSON values kept with the image, such as `frame` and `seconds`.
        """
        number = self.shots[-1][0]["id"] + 1 if self.shots else 1
        before = (people[-1]["id"] for _, people in reversed(self.shots) if people)
        first = next(before, 0) + 1
        height, width = size
        image = {"id": number, "file_name": name, "width": width, "height": height}
        image |= more
        people = []
        for i, box in enumerate(boxes):
            box = np.asarray(box if np.any(box) else [0, 0, width, height], np.float64)
            person = {"id": first + i, "image_id": number} | _person(box, predicted, i)
            if "track" in predicted:
                person["track"] = predicted["track"][i]
            people.append(person)
        self.shots.append((image, people))
        if name in self.files:
            entry = self.files[name]
            entry["check"] = files.fingerprint([entry["check"], image, people])

    def content(self, finished: bool) -> dict:
        """What the file says."""
        return {
            "info": {
                "description": "Human poses predicted by deeppose-tf",
                "format": FORMAT,
                "coordinates": COORDINATES,
                "settings": self.settings,
            },
            "finished": finished,
            "categories": [category(self.skeleton)],
            "images": [image for image, _ in self.shots],
            "annotations": [one for _, people in self.shots for one in people],
            "unreadable": self.unreadable,
            "files": self.files,
        }

    def write(self, path: str | os.PathLike, finished: bool) -> dict:
        """Writes the file, whole or not at all; returns its content."""
        content = self.content(finished)
        _write(path, content)
        return content


def write(
    path: str | os.PathLike,
    ids: Sequence[str],
    keypoints: np.ndarray,
    scores: np.ndarray,
) -> None:
    """Writes a list of results, one of each record.

    Args:
      ids: N, of the records; `image_id` in the file.
      keypoints: [N, K, 2] pixels, in the project's coordinates. People with a joint
        that is not finite are left out.
      scores: [N, K] of the joints.
    """
    content = [
        {
            "image_id": name,
            "category_id": 1,
            "keypoints": _flat(pose, score),
            "score": _rounded(score.mean())[0],
        }
        for name, pose, score in zip(ids, keypoints, scores, strict=True)
        if np.isfinite(pose).all()
    ]
    _write(path, content)


def read(
    path: str,
    ids: Sequence[str],
    joints: int,
    boxes: np.ndarray | None = None,
    sources: Sequence[str] = (),
) -> np.ndarray:
    """Poses of records, from a list of COCO results or a `predictions.json`.

    An entry belongs to the record whose id, or last part of it, is its `image_id`, or
    the name of its image file, with or without folder and suffix. Where records are
    COCO's annotations, and an `image_id` is the number of an image, it belongs to the
    record on that image in whose box the middle of its pose is, nearest to the centre.
    Of several entries for one record the one of the highest `score` counts.

    Args:
      ids: N, of the records.
      joints: K.
      boxes: [N, 4] person boxes of the records, pixels.
      sources: COCO files, or folders of them, that may say on which images they are.

    Returns:
      [N, K, 2] pixels, in the project's coordinates; NaN for people without an entry.

    Raises:
      ValueError: not such a file, or no entry is of these records; names the entry.
      OSError: it cannot be read.
    """
    content = _load(path)
    places = _places(ids)
    found = np.full((len(ids), joints, 2), np.nan)
    best = np.full(len(ids), -np.inf)
    entries = _entries(path, content)
    # COCO's image_id is the number of an image; that of a record is a person's.
    by_image = isinstance(content, list) and all(i.startswith("coco/") for i in ids)
    shown = _by_image(sources, ids) if by_image and boxes is not None else {}
    for where, name, entry in entries:
        numbered = by_image and not isinstance(entry.get("image_id"), str)
        known = [places[key] for key in names(name) if key in places]
        known = shown.get(name, []) if numbered else known[:1]
        if not known or known[0] is None or entry.get("valid") is False:
            continue  # of another split, or of someone else's numbering
        pose, score = _triples(where, entry, joints)[:, :2], _score(where, entry)
        place = _nearest(pose, boxes, known) if numbered else known[0]
        if place is not None and score > best[place]:
            found[place], best[place] = pose, score
    if not np.isfinite(best).any():
        raise ValueError(
            f"{path}: no image_id of its {len(entries)} entries is the id of a record "
            f"of this split, such as {ids[0]!r}{_HINT * by_image * (not shown)}"
        )
    return found if _format(content) == OLD_FORMAT else from_coco(found)


def answers(path: str) -> dict[str, list[tuple[np.ndarray, np.ndarray, tuple]]]:
    """The poses that a model gave, by the name of the image.

    Args:
      path: a list of COCO results of COCO's 17 joints, or a `predictions.json` or an
        annotation file, whose category names the joints.

    Returns:
      For each image the keypoints [J, 2] in the project's pixels, their confidence [J]
      and their J names, of every person.

    Raises:
      ValueError: not such a file; names the entry.
      OSError: it cannot be read.
    """
    content = _load(path)
    listed = isinstance(content, list)
    joints = COCO.joints if listed else _category_joints(path, content)
    found: dict[str, list] = {}
    for where, name, entry in _entries(path, content):
        if entry.get("valid") is False:
            continue
        flat = _triples(where, entry, len(joints))
        found.setdefault(name, []).append((from_coco(flat[:, :2]), flat[:, 2], joints))
    return found


def is_coco(content: object) -> bool:
    """Whether a JSON value may be a list of COCO results or an annotation file."""
    if isinstance(content, dict):
        return {"images", "annotations"} <= content.keys()
    return are_objects(content)


def boxes(path: str) -> dict[str, list]:
    """Person boxes from a list of detections, an annotation file or a
    `predictions.json`.

    Crowds, other categories than persons (or category 1 of a list) and detections with
    a score below `LEAST_SCORE` are left out.

    Returns:
      [x0, y0, x1, y1] of each person by the name of the image: its file's, or what a
      list has as `image_id`. That of a frame of a film is such as `clip.mp4#12`.

    Raises:
      ValueError: not such a file, or an entry has no box; names the entry.
      OSError: it cannot be read.
    """
    content = _load(path)
    listed = isinstance(content, list)
    found: dict[str, list] = {}
    if not listed:  # An image without people has nobody, which is not unknown.
        found = {_image_name(image): [] for image in content["images"]}
    people = None if listed else _person_categories(content.get("categories"))
    for where, name, entry in _entries(path, content):
        kind = key(entry.get("category_id", 1))
        left_out = kind != "1" if people is None else kind not in people
        if left_out or key(entry.get("iscrowd")) in CROWD:
            continue
        if listed and _score(where, entry) < LEAST_SCORE:
            continue
        try:
            if "bbox" in entry:
                box = numbers(entry["bbox"], (4,), "bbox")
                box[2:] += box[:2]
            else:
                box = numbers(entry["box"], (4,), "box")
        except (KeyError, ValueError) as error:
            raise ValueError(
                f"{where}: expected a bbox of x, y, width, height ({error})"
            ) from error
        found.setdefault(name, []).append(box.tolist())
    return found


def names(name: str) -> list[str]:
    """A name of an image, and what it may be called elsewhere: likeliest first."""
    path = pathlib.PurePosixPath(name.replace("\\", "/"))
    found = [name, path.name, str(path.with_suffix("")) if path.name else "", path.stem]
    return [one for one in dict.fromkeys(found) if one]


def _poses(image: dict, people: list[dict], joints: int) -> tuple[np.ndarray, dict]:
    """Person boxes [N, 4], zeros for the whole image, and what `_person` made of their
    poses."""
    boxes = np.array([one["box"] for one in people], np.float32).reshape(-1, 4)
    boxes[(boxes == [0, 0, image["width"], image["height"]]).all(axis=1)] = 0
    flat = np.array([one["keypoints"] for one in people], np.float32)
    flat = flat.reshape(-1, joints, 3)
    stages = (np.array(one["keypoints_by_stage"], np.float32) for one in people)
    found = {
        "keypoints": from_coco(flat[..., :2]),
        "scores": flat[..., 2],
        "keypoints_by_stage": [from_coco(x.reshape(-1, joints, 2)) for x in stages],
        "valid": np.array([one["valid"] for one in people], bool),
    }
    if people and "track" in people[0]:
        found["track"] = [one["track"] for one in people]
    return boxes, found


def _person(box, predicted, i) -> dict:
    """What is said of one person, in finite numbers."""
    pose, scores = predicted["keypoints"][i], predicted["scores"][i]
    stages = np.asarray(predicted["keypoints_by_stage"][i])
    finite = all(np.isfinite(values).all() for values in (pose, scores, stages))
    valid = bool(predicted["valid"][i]) and finite
    nothing = [0.0] * (3 * len(scores))
    box = np.nan_to_num(box)
    return {
        "category_id": 1,
        "keypoints": _flat(pose, scores) if valid else nothing,
        "num_keypoints": len(scores) if valid else 0,
        "score": _rounded(np.mean(scores))[0] if valid else 0.0,
        "valid": valid,
        "bbox": _rounded([*box[:2], *(box[2:] - box[:2])]),
        "box": _rounded(box),
        "area": _rounded(np.prod(box[2:] - box[:2]))[0],
        "iscrowd": 0,
        "keypoints_by_stage": [
            _rounded(to_coco(stage)) if valid else [0.0] * (2 * len(scores))
            for stage in stages
        ],
    }


def _write(path, content) -> None:
    files.write_bytes(path, json.dumps(content, allow_nan=False).encode() + b"\n")


def _flat(pose, scores) -> list[float]:
    return _rounded(np.column_stack([to_coco(pose), scores]))


def _rounded(values) -> list[float]:
    return [round(float(value), 4) for value in np.ravel(values)]


def _load(path):
    """The JSON value of a COCO file."""
    content = files.load_json(path)
    lists = [content]
    if isinstance(content, dict):
        lists = [content.get("images"), content.get("annotations")]
    if not all(map(are_objects, lists)):
        raise ValueError(
            f'{path}: expected COCO results, [{{"image_id": ..., "keypoints": [x, y, '
            'score, ...], "score": ...}, ...], or a predictions.json'
        )
    form = _format(content)
    if form.startswith("deeppose-tf") and form not in (FORMAT, OLD_FORMAT):
        raise ValueError(f"{path}: has the unknown format {form!r}, not {FORMAT!r}")
    return content


def _format(content) -> str:
    if isinstance(content, list):
        return ""
    info = content.get("info")
    return str((info if isinstance(info, dict) else content).get("format"))


def _entries(path, content):
    """(what an error calls it, name of the image, entry) of each entry."""
    listed = isinstance(content, list)
    images = {} if listed else _image_names(path, content["images"])
    found = []
    for number, entry in enumerate(content if listed else content["annotations"]):
        where, image = f"{path}: entry {number}", key(entry.get("image_id"))
        if not image:
            raise ValueError(f"{where}: it has no image_id")
        if not listed and image not in images:
            raise ValueError(f"{where}: no image has its image_id")
        found.append((where, images.get(image, image), entry))
    return found


def _image_names(path, entries) -> dict[str | None, str]:
    """By id."""
    names: dict = {}
    for image in entries:
        number, name = key(image.get("id")), _image_name(image)
        if names.setdefault(number, name) != name:
            raise ValueError(
                f"{path}: image {number}: the id is that of {names[number]} and of "
                f"{name}"
            )
    return names


def _image_name(image) -> str:
    frame = f"#{image['frame']}" if "frame" in image else ""
    name = image.get("file_name")
    return f"{name if isinstance(name, str | int) else ''}{frame}"


def _person_categories(categories) -> set | None:
    """Their ids; None where no category is one of persons."""
    people = {
        key(one.get("id"))
        for one in categories or []
        if isinstance(one, dict)
        and (one.get("keypoints") or one.get("name") == "person")
    }
    return people or None


def _by_image(sources, ids) -> dict[str, list[int]]:
    """Indices of records by the number of their image, from the first COCO file that
    has all of them as annotations."""
    for source in map(pathlib.Path, sources):
        for file in sorted(source.rglob("*.json")) if source.is_dir() else [source]:
            try:
                people = files.load_json(file)["annotations"]
                images = {key(one["id"]): key(one["image_id"]) for one in people}
                found: dict[str, list[int]] = collections.defaultdict(list)
                for i, name in enumerate(ids):
                    found[images[name.rsplit("/", 1)[-1]]].append(i)
                return found
            except (OSError, LookupError, TypeError, ValueError):
                continue
    return {}


def _nearest(pose, boxes, places) -> int | None:
    """In whose box the middle of a pose is nearest to the centre, in sizes of the box;
    None where it is in nobody's."""
    best, least = None, 0.5
    for place in places:
        first, last = boxes[place][:2], boxes[place][2:]
        away = np.abs(pose.mean(axis=0) - (first + last) / 2) / (last - first)
        if away.max() < least:
            best, least = place, away.max()
    return best


def _places(ids) -> dict[str, int | None]:
    """Index by id, and by the last part of it; None where several have that."""
    places: dict = {}
    for i, name in enumerate(ids):
        last = name.rsplit("/", 1)[-1]
        places[last] = None if last in places else i
    return places | {name: i for i, name in enumerate(ids)}


def _score(where, entry) -> float:
    try:
        return float(_finite(entry.get("score", 1.0), ()))
    except ValueError as error:
        raise ValueError(f"{where}: its score is no number") from error


def _triples(where, entry, joints):
    """[J, 3]: x, y and score of an entry's joints, as they stand there."""
    try:
        flat = np.ravel(entry["keypoints"]).tolist()
        return _finite(flat, (3 * joints,)).reshape(joints, 3)
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"{where}: expected keypoints of {joints} joints, x, y, score each, all "
            "finite numbers"
        ) from error


def _finite(value, shape) -> np.ndarray:
    found = numbers(value, shape, "value")
    if not (np.abs(found) < 1e9).all():
        raise ValueError("a number is NaN, infinite or out of any range")
    return found


def _category_joints(path, content):
    """The joints that an annotation file's category names."""
    for one in content.get("categories") or []:
        if isinstance(one, dict) and one.get("keypoints"):
            return tuple(map(str, one["keypoints"]))
    raise ValueError(f"{path}: no category that names its keypoints")
