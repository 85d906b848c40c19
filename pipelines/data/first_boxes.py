"""First boxes of prepared data: the rectangle that stands for each person (Sec. 4.1).

A data set gives boxes of its own, or none. Others are made of a detected face or torso,
enlarged by what fits the training people, or of the labels themselves. Looking for a
face takes a tenth of a second to half of one, so what is found is kept in a file while
deeppose-prepare runs, and a stopped run goes on.
"""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np

import deeppose_tf
from deeppose_tf import detect, files
from deeppose_tf.datasets import Annotations, images, merge
from deeppose_tf.pipelines.cli.outputs import counted
from deeppose_tf.pipelines.data import records

# Of `detect.KINDS`: HOG finds those alone who stand, and nothing is fitted on it.
KINDS = {kind: words for kind, words in detect.KINDS.items() if kind != "hog"}
FITTED = ("face", "torso")
# Data sets that come with a box of each person.
BOXED = ("coco", "mpii")

Splits = dict[str, Annotations]
Enlargements = dict[str, tuple[float, float, float]]
Face = tuple[list[float], int]  # Its box, zeros for none; how many there were.


def choose(
    splits: Splits,
    kinds: Sequence[str],
    coverage: float = 1.0,
    given: Enlargements | None = None,
    kept: pathlib.Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[Splits, dict]:
    """Everyone's box of the first of several kinds that there is for them.

    Where there is none, it is the whole image. Faces and torsos are enlarged by what
    contains the labeled joints of the people of `train`; of faces, of those people of
    whom it is the face. How the face is found: `find_faces`.

    Args:
      kinds: of `KINDS`, the preferred one first.
      given: enlargements by kind, of other data, that are not fitted.
      kept: the folder in which faces are kept, so that a stopped run goes on.
      progress: called with the number of people whose face was looked for.

    Returns:
      The splits with these boxes; and a JSON value that says how they came about: the
      `enlargements`, and by split how many people have a box of which kind, how many
      had no or several faces, and the share of labeled joints inside the boxes.

    Raises:
      ValueError: there is nobody to fit a kind on, or nobody has a torso.
    """
    everyone = merge(list(splits.values()))
    split_of = np.repeat(list(splits), list(map(len, splits.values())))
    faces, number = None, None
    if "face" in kinds:
        faces, number = find_faces(everyone, kept, progress)
    boxes = np.zeros((len(everyone), 4), np.float32)
    origins = np.full(len(everyone), "full", object)
    fitted: Enlargements = {}
    for kind in kinds:
        if kind == "full":
            break  # There always is one.
        found = faces if kind == "face" else _rectangles(kind, everyone)
        if kind == "torso" and not found.any():
            raise ValueError("--boxes=torso: the data set comes without torso boxes")
        there = found.any(axis=1)
        if kind in FITTED:
            fitted[kind] = (given or {}).get(kind) or _fit(
                kind, splits["train"], found[split_of == "train"], coverage
            )
            found = detect.enlarge(found, fitted[kind])
        new = there & ~boxes.any(axis=1)
        boxes[new], origins[new] = found[new], kind
    chosen, counts = {}, {}
    for split, people in splits.items():
        own = split_of == split
        chosen[split] = dataclasses.replace(people, boxes=boxes[own])
        seen = None if number is None else number[own]
        counts[split] = _summary(chosen[split], origins[own], seen)
    return chosen, {
        "kinds": list(kinds),
        "coverage": None if set(fitted) <= set(given or {}) else coverage,
        "enlargements": {kind: list(by) for kind, by in fitted.items()},
        "splits": counts,
    }


def require_known(
    kinds: Sequence[str], boxes_from: str = "", coverage: float | None = None
) -> Enlargements:
    """Checks what boxes are asked for; reads their enlargements if given by other data.

    Raises:
      ValueError: an unknown kind, one that never gets its turn, or what is for fitted
        kinds where there are none; names it.
    """
    if boxes_from and coverage:
        raise ValueError("--coverage is for what is fitted, and --boxes_from is not")
    given, fitted = read_enlargements(boxes_from), set(kinds) & set(FITTED)
    if unknown := set(kinds) - KINDS.keys():
        raise ValueError(f"--boxes={min(unknown)}: expected some of {', '.join(KINDS)}")
    if "full" in kinds[:-1]:
        raise ValueError(f"--boxes={','.join(kinds)}: full, the whole image, is last")
    if (boxes_from or coverage) and not fitted:
        raise ValueError(
            "--boxes_from and --coverage are for --boxes=face and --boxes=torso"
        )
    if given and (missing := fitted - given.keys()):
        raise ValueError(f"--boxes={min(missing)}: --boxes_from has {', '.join(given)}")
    return given


def describe(provenance: dict, split: str, people: int | None = None) -> str | None:
    """The boxes of a split in words, from the provenance of its data, if it knows.

    Args:
      people: how many of the split are spoken of. What is counted is all of it, which
        is said if there are more.
    """
    how = provenance.get("first_boxes")
    if how is None:
        return None
    counts = how["splits"].get(split, {})
    boxes = {KINDS[kind]: counts[kind] for kind in KINDS if counts.get(kind)}
    total = sum(boxes.values())
    some = people is not None and people < total
    words, of = [], f"of the {counted(total, 'person')} of the split"
    for what, count in boxes.items():
        who = f"{count} {of}" if some else counted(count, "person")
        words.append(f"{what} ({who})")
    if several := counts.get("several faces"):
        words.append(f"of the faces, {several} were one of several")
    return "; ".join(words)


def read_enlargements(path: str) -> Enlargements:
    """What faces and torsos are enlarged by in prepared data or for a trained model.

    Args:
      path: the folder of either; an empty one for nothing.

    Raises:
      ValueError: it is neither of them, or was made without such boxes.
    """
    if not path:
        return {}
    folder = pathlib.Path(path)
    try:
        if (folder / records.INDEX).is_file():
            provenance = records.load(path)["provenance"]
        else:
            content = files.load_json(folder / "stage_1" / "stage.json")
            provenance = content["training"]["data"]["provenance"]
    except (OSError, KeyError, TypeError, ValueError) as error:
        message = f"{path}: neither a finished data set nor a trained model"
        raise ValueError(message) from error
    found = enlargements(provenance)
    if not found:
        raise ValueError(f"{path}: made without --boxes=face or --boxes=torso")
    return found


def enlargements(provenance: dict) -> Enlargements:
    """By kind, from the provenance of prepared data, which a trained stage keeps."""
    found = provenance.get("first_boxes", {}).get("enlargements", {})
    return {kind: tuple(values) for kind, values in found.items()}


def of_model(cascade) -> Enlargements:
    """What the boxes that a model was trained on were enlarged by, as it keeps it."""
    data = cascade.stages[0].training.get("data", {})
    return enlargements(data.get("provenance", {}))


def mismatch(cascade, how: str) -> str | None:
    """What to say where a model's people had boxes of another kind than `how` gives:
    the whole image, or a tight one. None where that fits, or is not known. `how` is
    `--boxes` of deeppose-predict.
    """
    provenance = cascade.stages[0].training.get("data", {}).get("provenance", {})
    if "first_boxes" in provenance:
        counts = provenance["first_boxes"]["splits"].get("train", {})
    else:
        sets = provenance.get("arguments", {}).get("dataset", [])
        counts = collections.Counter("own" if s in BOXED else "full" for s in sets)
    people = {kind: counts.get(kind, 0) for kind in KINDS}
    kind = max(people, key=people.get)
    if 2 * people[kind] <= sum(people.values()) or (kind == "full") == (how == "full"):
        return None
    if kind == "full":
        return (
            "the model was trained on whole images, each around a person: "
            f"--boxes={how} is for several people on a photo, in boxes about 1.3 "
            "times their height; for one who fills it, --boxes=full is what it knows"
        )
    better = "face" if kind == "face" else "people"
    return (
        f"the model was trained on boxes around people ({KINDS[kind]}), and "
        f"--boxes=full gives it whole images: --boxes={better}, or boxes in a file, is "
        "what it knows"
    )


def find_faces(
    people: Annotations,
    kept: pathlib.Path | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[np.ndarray, np.ndarray]:
    """Everyone's face [N, 4], pixels, zeros for none, and how many there were to choose
    from, [N]. How the face is chosen: `detect.likeliest_face`.

    People who share image and torso are looked at once.

    Args:
      kept: a folder for the file; made where it is missing. None for no file.
      progress: called with the number of people done.

    Raises:
      ValueError, OSError: an image cannot be read; see `images.read_image`.
    """
    wanted = list(zip(people.images, people.torsos, strict=True))
    keys = [_key(*one, kept) for one in wanted]
    found = _read_faces(kept) if kept else {}
    missing = {k: one for k, one in zip(keys, wanted, strict=True) if k not in found}
    shared = collections.Counter(keys)
    done = sum(key in found for key in keys)
    if done:
        progress(done)
    threads = cv2.getNumThreads()
    pool = concurrent.futures.ThreadPoolExecutor(os.cpu_count())
    cv2.setNumThreads(1)  # Or one thread in `faces` would restore it under another.
    with files.kept(lambda: _write_faces(kept, found)) as keep:
        try:
            results = pool.map(lambda one: _one_face(*one), missing.values())
            for key, face in zip(missing, results, strict=True):
                found[key] = face
                done += shared[key]
                progress(done)
                keep()
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for all the rest.
            cv2.setNumThreads(threads)
    boxes = np.array([found[key][0] for key in keys], np.float32).reshape(-1, 4)
    return boxes, np.array([found[key][1] for key in keys], int)


def _rectangles(kind, people) -> np.ndarray:
    """[N, 4] of one kind, not enlarged yet; zeros for people without."""
    if kind == "own":
        return people.boxes
    if kind == "torso":
        return people.torsos
    shown = people.labeled[..., np.newaxis]
    low = np.where(shown, people.keypoints, np.inf).min(axis=1)
    high = np.where(shown, people.keypoints, -np.inf).max(axis=1)
    sized = (high > low).all(axis=1, keepdims=True)
    return np.where(sized, np.concatenate([low, high], axis=1), 0).astype(np.float32)


def _summary(people, origins, faces) -> dict:
    """How many people have which kind of box, and the share of the labeled joints of
    those who have one that is inside, as a JSON value."""
    counts = {kind: int(np.sum(origins == kind)) for kind in KINDS}
    counts = {kind: count for kind, count in counts.items() if count}
    if faces is not None:
        counts["no face"] = int(np.sum(faces == 0))
        counts["several faces"] = int(np.sum(faces > 1))
    boxes = people.boxes[:, np.newaxis]
    inside = (people.keypoints >= boxes[..., :2]) & (people.keypoints <= boxes[..., 2:])
    inside = inside.all(axis=2)[people.labeled & boxes.any(axis=2)]
    return counts | {"joints inside": float(inside.mean()) if len(inside) else None}


def _fit(kind, people, found, coverage):
    own = found.any(axis=1)
    if kind == "face":
        own &= _is_own(found, people)
    if not own.any():
        raise ValueError(
            f"--boxes={kind}: no training person with a {kind} to fit its enlargement "
            "on; take that of other data, --boxes_from"
        )
    arguments = found[own], people.keypoints[own], people.labeled[own]
    return detect.fit_enlargement(*arguments, coverage)


def _is_own(found: np.ndarray, people: Annotations) -> np.ndarray:
    """[N] bool: a face is within half its width of the person's labeled head, the line
    that the skeleton's limb of that type is. Without such a limb, all are."""
    heads = [limb for limb in people.skeleton.limbs if limb.type == "head"]
    if not heads:
        return np.ones(len(people), bool)
    ends = [list(end) for end in (heads[0].start, heads[0].end)]
    start, end = (people.keypoints[:, joints].mean(axis=1) for joints in ends)
    center, line = (found[:, :2] + found[:, 2:]) / 2, end - start
    along = np.sum((center - start) * line, axis=1)
    along = np.clip(along / np.maximum(np.sum(line**2, axis=1), 1e-9), 0, 1)
    distance = np.linalg.norm(start + along[:, np.newaxis] * line - center, axis=1)
    labeled = people.labeled[:, ends[0] + ends[1]].all(axis=1)
    return labeled & (distance < (found[:, 2] - found[:, 0]) / 2)


def _one_face(path: str, torso: np.ndarray) -> Face:
    image = images.read_image(path, images.MAX_DECODED)
    box, number = detect.likeliest_face(image, torso)
    return box.tolist(), number


def _key(path: str, torso: np.ndarray, kept: pathlib.Path | None) -> str:
    """What a face depends on: the image file, as it is now, and the torso below it."""
    name = os.path.relpath(path, kept)
    return json.dumps([name, *records.status(path), torso.tolist()])


def _made_by() -> list[str]:
    return [deeppose_tf.__version__, cv2.__version__, detect.FINDER]


def _read_faces(kept: pathlib.Path) -> dict[str, Face]:
    """Nothing where there is no file, a damaged one, or one of another version."""
    # Damage surfaces as nearly any exception; they are looked for again.
    with contextlib.suppress(Exception):
        content = files.read_json(kept / records.FACES)
        if content["made_by"] == _made_by():
            return {
                key: (np.asarray(box, float).reshape(4).tolist(), int(number))
                for key, (box, number) in content["faces"].items()
            }
    return {}


def _write_faces(kept: pathlib.Path | None, found: dict[str, Face]) -> None:
    if not kept:
        return
    kept.mkdir(parents=True, exist_ok=True)
    content = {"made_by": _made_by(), "faces": found}
    files.write_json(kept / records.FACES, content, digest=True)
