"""Poses of the people in photos and films, without labels.

Writes `predictions.json` (see `datasets.coco_results`) and an overlay of each photo or
film, in which left, as the model has it, is orange and right is blue, and joints that
are more likely wrong than right are hollow.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from deeppose_tf import detect, draw, files, tracking
from deeppose_tf.datasets import coco_results, images
from deeppose_tf.pipelines.cli import outputs, progress
from deeppose_tf.pipelines.cli.outputs import counted
from deeppose_tf.pipelines.predict import media
from deeppose_tf.skeleton import Skeleton

NAME = "predictions.json"
# Files under way, see `files.write_bytes` and `media.film_writer`.
SCRATCH = (f".{NAME}.partial", ".*.pose.png.partial", ".*.pose.mp4.partial.mp4")
BOX_COLOR = (255, 255, 0)
# Errors of the system that are of one file and not of all.
OF_ONE_FILE = (
    *(errno.EACCES, errno.EINVAL, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOTDIR, errno.EPERM, errno.EEXIST),
)
# Nothing is written on images with a shorter side of fewer pixels.
LEAST_LEGEND = 160
# Of so many photos, each of so many people, or fewer, a graph takes longer to make than
# they take without one.
FEW, FEW_PEOPLE = 2, 4


def predict_files(
    skeleton: Skeleton,
    load: Callable[[], tuple[object, detect.Finder]],
    found: list[media.File],
    output: str,
    settings: dict,
    overlays: bool = True,
    overwrite: bool = False,
    made_with: Sequence[str] = (),
    max_pixels: int = images.MAX_PIXELS,
    tracks: Callable[[], tracking.Tracks] | None = None,
) -> dict:
    """Predicts on all files, and writes results and overlays as it goes.

    What an earlier run with these settings left in `output` stays. Those of its files
    that are as they were are not looked at again; a film in which it was stopped goes
    on after the last frame that it kept.

    Args:
      skeleton: of the model.
      load: returns the model and what finds people, and is called where something is
        new. The model is a `cascade.Cascade`, or anything with its `skeleton` and
        `predict`. If it has `predict_file`, that is asked for photos in place of
        `predict`, and takes the path, the image and the boxes. Of the finder see
        `detect.make_finder`; a frame of a film is called `clip.mp4#12`.
      found: the files.
      output: the folder to write into.
      settings: JSON value kept in the results.
      overwrite: replace files that are already there, whoever wrote them.
      made_with: files that poses depend on beside the photo, such as the model's.
      max_pixels: larger photos are passed over.
      tracks: makes what keeps people of a film apart and steady; without it every
        frame is for itself.

    Returns:
      What `predictions.json` holds: `images`, `annotations` and, of what could not be
      read or drawn, `unreadable`.

    Raises:
      ValueError: a file in `output` would be overwritten, or another process writes
        there.
      OSError: nothing more can be written, as on a full disk.
    """
    place = pathlib.Path(output) / NAME
    look = functools.partial(
        *(_look, place, skeleton, found, settings, overlays, overwrite, made_with)
    )
    before, results, stamps, new = look()
    if len(new) < len(found):
        print(f"{len(found) - len(new)} of {len(found)} files were done before")
    if not new and before == results.content(finished=True):
        return before
    with files.alone(place.parent, "deeppose-predict"):
        for pattern in SCRATCH:
            for left in place.parent.rglob(pattern):  # by a kill
                left.unlink()
        _, results, stamps, new = look()  # what others wrote meanwhile, too
        if not new:
            return results.write(place, finished=True)
        cascade, finder = load()
        results.write(place, finished=False)  # claims it, should this be killed
        total = sum(media.count_images(file) for file in new)
        # What the header of a film says of its frames may be wrong.
        few = len(new) <= FEW and not any(file.is_video for file in new)
        with (
            progress.bar(total, "Predicting", "image") as bar,
            files.kept(lambda: results.write(place, finished=False)) as keep,
        ):
            for file in new:
                begun = file, os.path.realpath(file.path), stamps[file.name]
                target = place.parent / file.overlay if overlays else None
                people = tracks() if tracks and file.is_video else None
                for _ in _predict(
                    cascade, begun, finder, target, results, max_pixels, people, few
                ):
                    bar.update(1)
                    keep()
                keep()
        return results.write(place, finished=True)


def _look(place, skeleton, found, settings, overlays, overwrite, made_with):
    """What `predictions.json` says; what of it stays; the stamp of every file; and the
    files that are to be looked at, or drawn."""
    names = [NAME, *(file.overlay for file in found if overlays)]
    before = outputs.require_free(
        *(place.parent, NAME, coco_results.FORMAT, settings),
        names=[] if overwrite else names,
    )
    results = coco_results.Predictions.kept(before, skeleton, settings)
    made_with = _stamp(*sorted(made_with))
    stamps = {file.name: f"{_stamp(file.path)} {made_with}" for file in found}
    for file in found:
        _require_same(results, file, stamps[file.name], overwrite)
    new = [
        file
        for file in found
        if not results.is_finished(file.name, stamps[file.name])
        or (overlays and not os.path.exists(place.parent / file.overlay))
    ]
    return before, results, stamps, new


def _stamp(*paths: str) -> str:
    """What changes whenever one of these files does."""
    status = [os.stat(path) for path in paths]
    value = json.dumps([[one.st_size, one.st_mtime_ns] for one in status])
    return hashlib.sha256(value.encode()).hexdigest()[:16]


def _require_same(results, file, stamp, overwrite) -> None:
    """That nothing of another file of the same name is replaced."""
    entry = results.files.get(file.name)
    if not entry or overwrite or entry["stamp"] == stamp:
        return
    if entry["path"] != os.path.realpath(file.path):
        raise ValueError(
            f"{file.path}: the poses of {entry['path']}, of the same name, are there "
            "already. Give another --output, or --overwrite to replace them"
        )


def _predict(cascade, begun, finder, target, results, max_pixels, people, few):
    """Adds to the results what is on a file, draws it, and yields after each frame.
    Whatever is wrong with this file alone is in the results, too."""
    file, path, stamp = begun
    known = results.begin(file.name, path, stamp)
    reason = ""
    try:
        with _frames(file, target, max_pixels) as (film, frames, write):
            for number, (name, image, more) in enumerate(frames):
                if number < len(known):
                    boxes, poses = known[number]
                    if people and "track" in poses:
                        people.resume(boxes, poses, more["seconds"])
                else:
                    found = finder(image, name)
                    more |= {"found": found is not None}
                    if people:
                        boxes, numbers = people.boxes(found, more["seconds"])
                        more["found"] |= bool(boxes.any())
                        poses = _poses(cascade, file, image, boxes, few)
                        poses = people.poses(numbers, poses, more["seconds"])
                    else:
                        boxes = detect.WHOLE_IMAGE if found is None else found
                        poses = _poses(cascade, file, image, boxes, few)
                    results.add(file.name, image.shape[:2], boxes, poses, **more)
                if write:
                    write(_overlay(image, boxes, poses, cascade.skeleton))
                yield
        results.files[file.name]["finished"] = True
        reason = film and film.broken
    except (ValueError, OSError, cv2.error) as error:
        if isinstance(error, OSError) and error.errno not in OF_ONE_FILE:
            raise  # a full disk, a server that is gone
        results.drop(file.name)
        reason = str(error)
    if reason:
        results.unreadable.append({"file_name": file.name, "reason": reason})


def _poses(cascade, file, image, boxes, few):
    if not len(boxes):
        return {"valid": np.zeros(0, bool)}
    if hasattr(cascade, "predict_file") and not file.is_video:
        return cascade.predict_file(file.path, image, boxes)
    if few and len(boxes) <= FEW_PEOPLE:
        return cascade.predict(image, boxes, trace=False)
    return cascade.predict(image, boxes)


@contextlib.contextmanager
def _frames(file, target, max_pixels):
    """The film, if it is one; (name, image, JSON value to keep) of each frame; and what
    writes its overlay."""
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_video:
        image = images.read_image(file.path, max_pixels)
        write = target and (lambda drawn: draw.write_image(target, drawn))
        yield None, [(file.name, image, {})], write
        return
    with contextlib.ExitStack() as stack:
        film = stack.enter_context(media.open_film(file.path))
        write = target and stack.enter_context(media.film_writer(target, film.rate))
        frames = (
            (f"{file.name}#{i}", frame, {"frame": i, "seconds": round(seconds, 3)})
            for i, (seconds, frame) in enumerate(film.frames())
        )
        yield film, frames, write


def _overlay(image, boxes, poses, skeleton):
    """The image with people, their boxes and scores, and whose left is which."""
    height, width = image.shape[:2]
    words = []
    for i in np.flatnonzero(poses["valid"]):
        if boxes[i].any():
            image = draw.draw_box(image, boxes[i], BOX_COLOR)
        pose, scores = poses["keypoints"][i], poses["scores"][i]
        image = draw.draw_pose(image, pose, skeleton, scores=scores)
        x, y = np.clip(boxes[i][:2], 0, [width - 44, height - 28])
        score = f"{scores.mean():.2f}"
        words.append((score, (int(x) + 4, int(y) + 20), BOX_COLOR))
    if skeleton.pairs and poses["valid"].any():
        for side, x in (("left", 4), ("right", 44)):
            words.append((side, (x, height - 8), draw.COLORS[side]))
    for word in words if min(height, width) >= LEAST_LEGEND else ():
        draw.write(image, *word)
    return image


def report(content: dict, how: str) -> int:
    """Prints what came of `predict_files` with `--boxes=how`.

    Returns:
      The number of files that were passed over.
    """
    shots, people = content["images"], content["annotations"]
    frames = sum("frame" in shot for shot in shots)
    shot = "frame" if frames == len(shots) > 0 else "image"
    # Of a person in a film there are many.
    pose = "pose" if frames else "person"
    print(counted(len(people), pose), "on", counted(len(shots), shot))
    if missed := sum(not image["found"] for image in shots):
        found = how in detect.FOUND
        why = f"on which {how} found nobody" if found else f"that {how} does not name"
        print(f"{counted(missed, shot)} {why}: the whole image was the person box")
    if invalid := sum(not person["valid"] for person in people):
        print(
            f"{counted(invalid, 'person')} without a pose: a box without size or "
            "outside of its image, or a pose that diverged"
        )
    for file in content["unreadable"]:
        print(f"passed over: {file['reason']}")
    return len(content["unreadable"])
