"""Poses of the people in photos and films, without labels.

Writes `predictions.json` (see `datasets.coco_results`) and an overlay of each photo or
film, in which the person's left is orange and their right is blue.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Callable

import cv2
import numpy as np

from deeppose_tf import detect, draw, files
from deeppose_tf.datasets import coco_results, images
from deeppose_tf.pipelines.cli import outputs, progress
from deeppose_tf.pipelines.predict import media

NAME = "predictions.json"
BOX_COLOR = (255, 255, 0)
# Nothing is written on images with a shorter side of fewer pixels.
LEAST_LEGEND = 160


def predict_files(
    cascade,
    found: list[media.File],
    output: str,
    finder: detect.Finder,
    settings: dict,
    overlays: bool = True,
    overwrite: bool = False,
    ask: Callable[[str, np.ndarray, np.ndarray], dict] | None = None,
) -> dict:
    """Predicts on all files, and writes results and overlays.

    Args:
      cascade: `cascade.Cascade`, or anything with its `skeleton` and `predict`.
      found: see `media.find_files`.
      output: the folder to write into; made where it is missing.
      finder: gives the person boxes of an image; see `detect.make_finder`. A frame of
        a film is called such as `clip.mp4#12`.
      settings: JSON value kept in the results. A run with the same ones replaces what
        it wrote before.
      overlays: whether to draw.
      overwrite: replace files that are already there, whoever wrote them.
      ask: takes the path of an image file before what `predict` takes, and is asked
        in its place: for a cascade that can do with the file as it is.

    Returns:
      What `predictions.json` holds: `images`, `annotations` and, of what could not be
      read, `unreadable`.

    Raises:
      ValueError: a file in `output` would be overwritten.
    """
    names = [NAME, *(file.overlay for file in found if overlays)]
    if not overwrite:
        outputs.require_free(output, NAME, coco_results.FORMAT, settings, names)
    folder = pathlib.Path(output)
    results = coco_results.Predictions(cascade.skeleton, settings)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / NAME).exists():
        results.write(folder / NAME, finished=False)  # claims it, should this be killed
    total = sum(media.count_images(file) for file in found)
    with (
        progress.bar(total, "Predicting", "image") as bar,
        files.kept(lambda: results.write(folder / NAME, finished=False)) as keep,
    ):
        for file in found:
            target = folder / file.overlay if overlays else None
            if target:
                target.parent.mkdir(parents=True, exist_ok=True)
            try:
                people = list(_predict(cascade, file, finder, ask, target, bar))
            except ValueError as error:
                entry = {"file_name": file.name, "reason": str(error)}
                results.unreadable.append(entry)
                people = []  # nothing of a broken film is kept
            for size, boxes, poses, more in people:
                results.add(file.name, size, boxes, poses, **more)
            keep()
    return results.write(folder / NAME, finished=True)


def _predict(cascade, file, finder, ask, target, bar):
    """Draws each frame of a file, and yields its size, its people's boxes and poses,
    and what else is kept of it."""
    with _frames(file, target) as (frames, write):
        for name, image, more in frames:
            boxes = finder(image, name)
            more |= {"found": boxes is not None}
            boxes = detect.WHOLE_IMAGE if boxes is None else boxes
            if not len(boxes):
                poses = {"valid": np.zeros(0, bool)}
            elif ask and not file.is_video:
                poses = ask(file.path, image, boxes)
            else:
                poses = cascade.predict(image, boxes)
            if target:
                write(_overlay(image, boxes, poses, cascade.skeleton))
            bar.update(1)
            yield image.shape[:2], boxes, poses, more


@contextlib.contextmanager
def _frames(file, target):
    """(name, image, JSON value to keep) of each frame, and what writes its overlay."""
    if not file.is_video:
        image = images.read_image(file.path)
        yield [(file.name, image, {})], lambda drawn: draw.write_image(target, drawn)
        return
    with contextlib.ExitStack() as stack:
        film = stack.enter_context(media.open_film(file.path))
        write = target and stack.enter_context(media.film_writer(target, film.rate))
        yield (
            (
                (
                    f"{file.name}#{i}",
                    frame,
                    {"frame": i, "seconds": round(i / film.rate, 3)},
                )
                for i, frame in enumerate(film.frames)
            ),
            write,
        )


def _overlay(image, boxes, poses, skeleton):
    """The image with people, their boxes and scores, and whose left is which."""
    for i in np.flatnonzero(poses["valid"]):
        if boxes[i].any():
            image = draw.draw_box(image, boxes[i], BOX_COLOR)
        image = draw.draw_pose(image, poses["keypoints"][i], skeleton)
        height, width = image.shape[:2]
        x, y = np.clip(boxes[i][:2], 0, [width - 44, height - 28])
        score = f"{poses['scores'][i].mean():.2f}"
        image = _written(image, score, x + 4, y + 20, BOX_COLOR)
    if skeleton.pairs and poses["valid"].any():
        for side, x in (("left", 4), ("right", 44)):
            place = x, image.shape[0] - 8
            image = _written(image, side, *place, draw.COLORS[side])
    return image


def _written(image, text, x, y, color):
    """A copy of the image with a word whose lower left corner is at (x, y)."""
    if min(image.shape[:2]) < LEAST_LEGEND:
        return image
    image = image.copy()
    for width, paint in ((3, (20, 20, 20)), (1, color)):
        place = (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, paint, width
        cv2.putText(image, text, *place, cv2.LINE_AA)
    return image


def report(content: dict, how: str) -> int:
    """Prints what came of `predict_files` with `--boxes=how`.

    Returns:
      The number of files that were passed over.
    """
    shots, people = content["images"], content["annotations"]
    print(f"{len(people)} people on {len(shots)} images")
    missed = sum(not image["found"] for image in shots)
    if missed:
        print(
            f"{missed} images with nobody found by --boxes={how}: the whole image was "
            "the person box"
        )
    invalid = sum(not person["valid"] for person in people)
    if invalid:
        print(f"{invalid} people without a pose: a box without size, or a diverged one")
    for file in content["unreadable"]:
        print(f"passed over: {file['reason']}")
    return len(content["unreadable"])
