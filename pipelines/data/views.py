"""Where crops look: turned, perhaps mirrored boxes, and points as these show them."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeppose_tf import geometry


class View(NamedTuple):
    """Where M crops look: turned, perhaps mirrored boxes.

    Attributes:
      boxes: [M, 4] pixels of the canvas, before the turn.
      angles: [M] radians, by which the crop's content is turned.
      flips: [M] bool.
      indices: [M] int32, the canvas of each crop.
    """

    boxes: tf.Tensor
    angles: tf.Tensor
    flips: tf.Tensor
    indices: tf.Tensor


def view_maps(view: View, side: int) -> tf.Tensor:
    """[M, 2, 3]: from pixels of the crop to pixels of the canvas, for `sampling.warp`.

    The inverse of `view_normalize`, at a crop of `side` pixels.
    """
    size = geometry.box_size(view.boxes) / side  # [M, 2]
    mirror = tf.where(view.flips, -1.0, 1.0)
    cos, sin = tf.cos(view.angles), tf.sin(view.angles)
    x = size[:, 0] * mirror
    linear = tf.stack(
        [
            tf.stack([cos * x, sin * size[:, 1]], -1),
            tf.stack([-sin * x, cos * size[:, 1]], -1),
        ],
        axis=1,
    )  # [M, 2, 2]
    middle = tf.reduce_sum(linear, axis=-1) * (side / 2)
    start = geometry.box_center(view.boxes) - middle
    return tf.concat([linear, start[..., None]], axis=-1)


def view_normalize(view: View, points: tf.Tensor) -> tf.Tensor:
    """N(y; b) for turned and mirrored boxes: [M, K, 2] canvas pixels -> normalized."""
    offset = points - geometry.box_center(view.boxes)[:, None]
    cos, sin = tf.cos(view.angles)[:, None], tf.sin(view.angles)[:, None]
    x = cos * offset[..., 0] - sin * offset[..., 1]
    y = sin * offset[..., 0] + cos * offset[..., 1]
    turned = tf.stack([tf.where(view.flips[:, None], -x, x), y], axis=-1)
    return turned / geometry.box_size(view.boxes)[:, None]
