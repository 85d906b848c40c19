"""Many people in one request, as functions that a SavedModel serves.

One person at a time is in memory, or as many as `Limits` says, whatever the size of the
batch. Of one at a time, answers are the same to the bit whoever else is in it.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import tensorflow as tf

from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import cropping, graph
from deeppose_tf.export.saved_model import image_decoding as pictures


@dataclasses.dataclass(frozen=True)
class Limits:
    """Stages end early once every joint moved less than a share of the pose's diameter,
    the tolerance, if there is one; images with more pixels are not `valid`; so many
    people are in memory, and seen by a network in one call."""

    tolerance: float | None = None
    max_pixels: int = 50_000_000
    people_at_once: int = 1

    def __post_init__(self):
        if self.tolerance is not None and not 0 <= self.tolerance < math.inf:
            raise ValueError(
                f"tolerance is {self.tolerance}; expected a number from 0, such as 0.02"
            )
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels is {self.max_pixels}; it must be positive")
        if self.people_at_once < 1:
            raise ValueError(
                f"people_at_once is {self.people_at_once}; it must be positive"
            )


def functions(cascade: Cascade, limits: Limits) -> dict[str, Callable]:
    """The signatures of the SavedModel, as `tf.function`s.

    Returns:
      By name: `serving_default` takes images [B, H, W, 3] uint8 and boxes [B, 4]
      float32 pixels; `jpeg` takes image_bytes [B] string, each a JPEG or PNG, and
      boxes. Both answer as `graph.looped`, with B in front.
    """
    make = _one_by_one if limits.people_at_once == 1 else _in_groups
    answers = make(cascade, limits)

    def each(read, boxes):
        """The answers for what `read` gives for each row."""

        def look(number):
            return _answerable(read(number), boxes[number], limits)

        return answers(look, tf.shape(boxes)[0])

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


def _one_by_one(cascade, limits):
    """A function of `look`, which gives image and box of a row, and of how many rows
    there are, to the answers for all."""
    person = tf.function(
        functools.partial(graph.looped, cascade, tolerance=limits.tolerance),
        input_signature=[
            tf.TensorSpec([None, None, 3], tf.uint8, "image"),
            tf.TensorSpec([4], tf.float32, "box"),
        ],
        autograph=False,
    )

    def each(look, rows):
        return _in_turn(lambda row: person(*look(row)), tf.range(rows), person)

    return each


def _in_groups(cascade, limits):
    """As `_one_by_one`, of so many at once; the last group may be smaller."""
    most = limits.people_at_once

    @tf.function(
        input_signature=[
            tf.TensorSpec([], tf.int32),
            tf.TensorSpec([], tf.variant),
            tf.TensorSpec([None, 2], tf.int32),
            tf.TensorSpec([None, 4], tf.float32),
        ],
        autograph=False,
    )
    def together(people, levels, sizes, boxes):
        view = functools.partial(cropping.Several, people, levels)
        found = graph.together(cascade, view, sizes, boxes, limits.tolerance)
        return {name: _filled(value, most) for name, value in found.items()}

    def each(look, rows):
        def group(first):
            people = tf.minimum(most, rows - first)
            source, sizes, boxes = cropping.several(
                lambda number: look(first + number), people
            )
            return together(people, source.levels, sizes, boxes)

        found = _in_turn(group, tf.range(0, rows, most), together)  # [groups, N, ...]
        return {
            name: tf.reshape(value, [-1, *value.shape[2:]])[:rows]
            for name, value in found.items()
        }

    return each


def _in_turn(answer, numbers, function):
    """What `answer` gives for each number, of the kinds that the function gives."""
    kinds = {
        name: tf.TensorSpec(spec.shape, spec.dtype)
        for name, spec in function.get_concrete_function().structured_outputs.items()
    }
    return tf.map_fn(answer, numbers, parallel_iterations=1, fn_output_signature=kinds)


def _filled(values, count):
    """[P, ...] -> [count, ...], zeros behind."""
    missing = count - tf.shape(values)[0]
    filled = tf.pad(values, [[0, missing]] + [[0, 0]] * (values.shape.rank - 1))
    return tf.ensure_shape(filled, [count, *values.shape[1:]])


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
