"""Many people in one request, each on their own, as functions that a SavedModel serves.

One person at a time is in memory, whatever the size of the batch. A person's answer is
the same to the bit whoever else is in it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import tensorflow as tf

from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import graph
from deeppose_tf.export.saved_model import image_decoding as pictures


@dataclasses.dataclass(frozen=True)
class Limits:
    """Stages end early once every joint moved less than a share of the pose's diameter,
    the tolerance, if there is one; images with more pixels are not `valid`."""

    tolerance: float | None = None
    max_pixels: int = 50_000_000

    def __post_init__(self):
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise ValueError(
                f"tolerance is {self.tolerance}; expected a number from 0, such as 0.02"
            )
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels is {self.max_pixels}; it must be positive")


def functions(cascade: Cascade, limits: Limits) -> dict[str, Callable]:
    """The signatures of the SavedModel, as `tf.function`s.

    Returns:
      By name: `serving_default` takes images [B, H, W, 3] uint8 and boxes [B, 4]
      float32 pixels; `jpeg` takes image_bytes [B] string, each a JPEG or PNG, and
      boxes. Both answer as `graph.looped`, with B in front.
    """
    person = tf.function(
        functools.partial(graph.looped, cascade, tolerance=limits.tolerance),
        input_signature=[
            tf.TensorSpec([None, None, 3], tf.uint8, "image"),
            tf.TensorSpec([4], tf.float32, "box"),
        ],
        autograph=False,
    )
    answers = {
        name: tf.TensorSpec(spec.shape, spec.dtype)
        for name, spec in person.get_concrete_function().structured_outputs.items()
    }

    def each(read, boxes):
        """The answers for what `read` gives for each row."""

        def row(number):
            return person(*_answerable(read(number), boxes[number], limits))

        rows = tf.range(tf.shape(boxes)[0])
        return tf.map_fn(row, rows, parallel_iterations=1, fn_output_signature=answers)

    def serve_images(images, boxes):
        images, boxes = _checked(images, [None, None, None, 3], boxes)
        return each(lambda number: images[number], boxes)

    def serve_bytes(image_bytes, boxes):
        image_bytes, boxes = _checked(image_bytes, [None], boxes)

        def read(number):
            # Also where there is a GPU: it cannot hold strings.
            with tf.device("CPU"):
                return pictures.decode(image_bytes[number], limits.max_pixels)

        return each(read, boxes)

    boxes = tf.TensorSpec([None, 4], tf.float32, "boxes")
    images = tf.TensorSpec([None, None, None, 3], tf.uint8, "images")
    image_bytes = tf.TensorSpec([None], tf.string, "image_bytes")
    return {
        "serving_default": tf.function(serve_images, [images, boxes], autograph=False),
        "jpeg": tf.function(serve_bytes, [image_bytes, boxes], autograph=False),
    }


def _checked(images, shape, boxes):
    """Raises InvalidArgument: what feeds a session is checked by nobody else."""
    boxes = tf.ensure_shape(boxes, [None, 4])
    images = tf.ensure_shape(images, shape)
    same = tf.debugging.assert_equal(
        tf.shape(images)[0], tf.shape(boxes)[0], "as many boxes as images are needed"
    )
    with tf.control_dependencies([same]):
        return tf.identity(images), tf.identity(boxes)


def _answerable(image, box, limits):
    """(image, box), or a pixel and a box that is not valid where it is no image."""
    size = tf.shape(image)
    is_image = pictures.fits(size[0], size[1], limits.max_pixels)
    pixel = tf.zeros([1, 1, 3], tf.uint8)
    image = tf.cond(is_image, lambda: image, lambda: pixel)
    return image, tf.where(is_image, box, float("nan"))
