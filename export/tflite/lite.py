"""Runs a TFLite cascade where there is no TensorFlow: NumPy and `ai-edge-litert`.

Without `ai-edge-litert` the interpreter of TensorFlow is used.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pathlib

import numpy as np

from deeppose_tf import files
from deeppose_tf.skeleton import Skeleton, from_json

KINDS = ("float32", "float16", "dynamic_range", "int8")
# Of descriptions that are read.
FORMATS = (1,)
# The grey that pre-processing maps to zero: nothing.
PADDING = 128


def require_quantizer(kind: str) -> None:
    """Refuses a kind that rounds where nothing is there to round with.

    Raises:
      ValueError: says what to install.
    """
    if kind != "float32" and not importlib.util.find_spec("ai_edge_quantizer"):
        raise ValueError(
            f"kind {kind} needs ai-edge-quantizer: pip install 'deeppose-tf[tflite]', "
            "or take kind float32"
        )


class Lite:
    """A cascade in a TFLite file, to be called as `cascade.Cascade`. All images must
    have its `size`, H and W, or any where that is None."""

    def __init__(self, content: bytes, skeleton: Skeleton, threads: int = 2):
        self.skeleton = skeleton
        self._runner = _interpreter(content, threads).get_signature_runner()
        shape = self._runner.get_input_details()["images"]["shape_signature"]
        self.size = None if shape[1] < 0 else (int(shape[1]), int(shape[2]))

    @classmethod
    def load(cls, path: str, threads: int = 2) -> Lite:
        """Loads a file that `deeppose-tflite` wrote, with its description beside it.

        Raises:
          ValueError: one of them is missing or damaged, or they are not a pair.
        """
        file = pathlib.Path(path)
        beside = description_path(file)
        try:
            content, description = file.read_bytes(), files.read_json(beside, FORMATS)
            digest, skeleton = description["sha256"], description["skeleton"]
        except OSError as error:
            raise ValueError(f"{error.filename} cannot be read: {error}") from error
        except KeyError as error:
            raise ValueError(f"{beside} is damaged: {error}") from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{file} is not the file that {beside} describes")
        return cls(content, from_json(skeleton), threads)

    def predict(self, image: np.ndarray, boxes: np.ndarray | None = None) -> dict:
        """See `Cascade.predict`.

        Raises:
          ValueError: image or boxes have another shape or type.
        """
        image = np.asarray(image)
        boxes = np.zeros([1, 4]) if boxes is None else np.asarray(boxes)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"image is {image.dtype} {image.shape}, expected uint8 [H, W, 3]"
            )
        if not image.size:
            # Nothing is seen of nothing: a pixel, and boxes that cannot be answered.
            image = np.zeros([*(self.size or (1, 1)), 3], np.uint8)
            boxes = np.full(boxes.shape, np.nan)
        if self.size not in (None, image.shape[:2]):
            raise ValueError(
                f"image is {image.shape[:2]}, and the model takes {self.size} only: "
                "see `fit`"
            )
        if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
            raise ValueError(f"boxes are {boxes.shape}, expected [N, 4], N > 0")
        answers = [
            self._runner(images=image[None], boxes=box[None].astype(np.float32))
            for box in boxes
        ]
        return {
            name: np.concatenate([answer[name] for answer in answers])
            for name in answers[0]
        }


def fit(
    image: np.ndarray, box: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An image at the top left of a canvas of a model's fixed size, shrunk if need be.

    Args:
      image: [H, W, 3] uint8.
      box: [4] pixels; all zeros for the whole image.
      size: height and width of the canvas.

    Returns:
      The canvas, the box in its pixels (not finite where it is outside of the image,
      which the model would not know from the canvas), and [2] by what (x, y) of the
      image are multiplied there.
    """
    from PIL import Image  # not above: only this needs it

    height, width = image.shape[:2]
    share = min(size[0] / height, size[1] / width, 1.0)
    sides = max(round(width * share), 1), max(round(height * share), 1)
    canvas = np.full([*size, 3], PADDING, np.uint8)
    shrunk = Image.fromarray(image).resize(sides, Image.Resampling.BOX)
    canvas[: sides[1], : sides[0]] = np.asarray(shrunk)
    scale = np.float32([sides[0] / width, sides[1] / height])
    box = np.asarray(box, np.float32)
    box = box if box.any() else np.float32([0, 0, width, height])
    if not ((box[:2] < [width, height]) & (box[2:] > 0)).all():
        box = np.full(4, np.nan, np.float32)
    return canvas, box * np.tile(scale, 2), scale


def description_path(path: str | pathlib.Path) -> pathlib.Path:
    """Where the description of a TFLite file is: `pose.json` beside `pose.tflite`."""
    return pathlib.Path(path).with_suffix(".json")


def is_description(path: pathlib.Path) -> bool:
    """Whether a file is the description of a TFLite file, there or not."""
    try:
        return {"sha256", "kind", "skeleton"} <= files.read_json(path, FORMATS).keys()
    except (OSError, ValueError):
        return False


def _interpreter(content, threads):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        try:
            import tensorflow as tf
        except ImportError as error:
            raise ValueError(
                "running TFLite files needs ai-edge-litert: pip install ai-edge-litert"
            ) from error
        Interpreter = tf.lite.Interpreter
    return Interpreter(model_content=content, num_threads=threads)
