"""`deeppose-predict`: poses of the people in photos and videos, without labels.

Writes `predictions.json` (see `coco_results`) and an overlay of each image or video.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
from collections.abc import Callable

import numpy as np
from absl import flags

from deeppose_tf import detect, draw
from deeppose_tf.datasets import coco_results, images
from deeppose_tf.pipelines.cli import command, outputs
from deeppose_tf.pipelines.predict import media

NAME = "predictions.json"
BOX_COLOR = (255, 255, 0)


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
      finder: gives the first boxes of an image; see `detect.make_finder`.
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
    bar = _progress(len(found), "file")
    for i, file in enumerate(found):
        target = folder / file.overlay if overlays else None
        if target:
            target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if file.is_video:
                _predict_video(cascade, file, finder, results, target)
            else:
                _predict_image(cascade, file, finder, results, target, ask)
        except ValueError as error:
            results.unreadable.append({"file_name": file.name, "reason": str(error)})
        bar.update(i + 1)
    return results.write(folder / NAME, finished=True)


def _predict_image(cascade, file, finder, results, target, ask) -> None:
    image = images.read_image(file.path)
    answer = functools.partial(ask, file.path, image) if ask else None
    boxes, predicted, more = _poses(cascade, finder, image, file.name, answer)
    if target:
        draw.write_image(target, _overlay(image, boxes, predicted, cascade.skeleton))
    results.add(file.name, image.shape[:2], boxes, predicted, **more)


def _predict_video(cascade, file, finder, results, target) -> None:
    shots = []  # added when the video is done: nothing of a broken one is kept
    with contextlib.ExitStack() as stack:
        video = stack.enter_context(media.open_video(file.path))
        if target:
            write = stack.enter_context(media.video_writer(target, video.rate))
        bar = _progress(video.count, "frame")
        for i, frame in enumerate(video.frames):
            name = f"{file.name}#{i}"
            boxes, predicted, more = _poses(cascade, finder, frame, name)
            if target:
                write(_overlay(frame, boxes, predicted, cascade.skeleton))
            more |= {"frame": i, "seconds": round(i / video.rate, 3)}
            shots.append((frame.shape[:2], boxes, predicted, more))
            bar.update(min(i + 1, video.count or i + 1))
    for size, boxes, predicted, more in shots:
        results.add(file.name, size, boxes, predicted, **more)


def _progress(count, unit):
    import tensorflow as tf  # not above: --help need not wait for it

    return tf.keras.utils.Progbar(count, unit_name=unit)


def _poses(cascade, finder, image, name, answer=None):
    """Person boxes, the poses in them, and whether they were found or the whole image
    had to do."""
    boxes = finder(image, name)
    more = {"found": boxes is not None}
    boxes = detect.WHOLE_IMAGE if boxes is None else boxes
    if not len(boxes):
        return boxes, {"valid": np.zeros(0, bool)}, more
    answer = answer or functools.partial(cascade.predict, image)
    return boxes, answer(boxes), more


def _overlay(image, boxes, predicted, skeleton):
    for i in np.flatnonzero(predicted["valid"]):
        if boxes[i].any():
            image = draw.draw_box(image, boxes[i], BOX_COLOR)
        image = draw.draw_pose(image, predicted["keypoints"][i], skeleton)
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
            "the first box"
        )
    invalid = sum(not person["valid"] for person in people)
    if invalid:
        print(f"{invalid} people with a box that cannot be answered")
    for file in content["unreadable"]:
        print(f"passed over: {file['reason']}")
    return len(content["unreadable"])


def define_flags() -> None:
    """Flags of this script."""
    flags.DEFINE_string(
        "model", None, "The run directory of a cascade that deeppose-train wrote."
    )
    flags.DEFINE_string(
        "input",
        None,
        "What to look at: an image, a video, a folder of them (not the folders below "
        "it), or a glob in quotes such as 'photos/**/*.jpg'.",
    )
    flags.DEFINE_string(
        "output",
        None,
        "The folder for predictions.json and the overlays, photo.jpg.pose.png of "
        "photo.jpg and clip.mov.pose.mp4 of clip.mov. It is made where it is missing.",
    )
    flags.DEFINE_string(
        "boxes",
        "full",
        "Where the people are, as the first box of the cascade. full: one person who "
        "fills the image, as in LSP. face: a body below every frontal face (Sec. 4.1). "
        "hog: standing people of at least about 100 pixels. Otherwise the name of a "
        'JSON file {"photo.jpg": [[x0, y0, x1, y1], ...], ...} in pixels; four zeros '
        "mean the whole image, an empty list means nobody. Where nobody is found, or "
        "the file does not name the image, the whole image is taken and counted in "
        "the report.",
    )
    flags.DEFINE_list(
        "enlargement",
        None,
        "For --boxes=face: how far a body reaches from the middle of the face to "
        "either side, up and down, in widths of the face, such as 3.7,0.9,9.4. By "
        "default what was fitted on the model's training people, or that of a whole or "
        "an upper body, as the model's skeleton has legs or not.",
    )
    flags.DEFINE_bool("overlays", True, "Whether to draw the poses.")
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replace files in --output that are there already. The same command may "
        "always replace what it wrote itself.",
    )
    flags.mark_flags_as_required(["model", "input", "output"])


def main(argv: list[str]) -> None:
    """Predicts what the flags describe; leaves with 1 if a file could not be read."""
    del argv
    from deeppose_tf.cascade import Cascade
    from deeppose_tf.pipelines.data import first_boxes

    values = flags.FLAGS
    found = media.find_files(values.input)
    cascade = Cascade.load(values.model)
    enlargement = _enlargement(values) or first_boxes.of_model(cascade).get("face")
    finder = detect.make_finder(values.boxes, cascade.skeleton, enlargement)
    settings = {
        name: getattr(values, name) for name in ("model", "input", "boxes", "overlays")
    }
    content = predict_files(
        cascade,
        found,
        values.output,
        finder,
        settings | {"enlargement": values.enlargement},
        values.overlays,
        values.overwrite,
    )
    failed = report(content, values.boxes)
    print(f"results are in {values.output}")
    if failed:
        raise SystemExit(1)


def _enlargement(values):
    if values.enlargement is None:
        return None
    try:
        side, up, down = (float(value) for value in values.enlargement)
    except ValueError as error:
        raise ValueError(
            f"--enlargement={','.join(values.enlargement)}: expected three numbers, "
            "to either side, up and down, such as 3.7,0.9,9.4"
        ) from error
    return side, up, down


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__, folder="output")


if __name__ == "__main__":
    run()
