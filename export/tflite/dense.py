"""`sampling.crop` by matrix products alone, which delegates of phones take whole."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeppose_tf import sampling


class Levels(NamedTuple):
    """One image halved again and again, its size known when a graph is made of it.

    Attributes:
      images: L of [H, W, 3] float32, pre-processed.
    """

    images: tuple[tf.Tensor, ...]

    def sample(self, scale: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
        """See `sampling.crop`. Every pixel of every level is multiplied from both sides
        by what each place takes of it, whether in reach or not.

        Args:
          scale: [M, 1] pixels of the image per pixel of the crop.
          points: [M, S, 2] finite pixels: every x meets every y.

        Returns:
          [M, S, S, 3] float32 in [-1, 1).
        """
        level = sampling.level_at(scale, len(self.images))[:, :, None]  # [M, 1, 1]
        crops, side = points.shape[:2]
        columns, rows = tf.split(points, 2, axis=-1)  # [M, S, 1]
        total = 0.0
        for i, image in enumerate(self.images):
            height, width = image.shape[:2]
            vertical = tf.nn.relu(1 - tf.abs(level - i)) * _tents(rows / 2**i, height)
            patch = tf.reshape(vertical, [crops * side, height])
            patch = _product(patch, tf.reshape(image, [height, width * 3]))
            patch = tf.reshape(patch, [crops, side, width, 3])
            patch = tf.reshape(
                tf.transpose(patch, [0, 2, 1, 3]), [crops, width, side * 3]
            )
            total += _product(_tents(columns / 2**i, width), patch)  # [M, S, S 3]
        return tf.transpose(tf.reshape(total, [crops, side, side, 3]), [0, 2, 1, 3])


def levels(image: tf.Tensor, count: int = sampling.LEVELS) -> Levels:
    """As `sampling.pyramid`, of one image [H, W, 3] of known size."""
    images = [sampling.preprocess(image)]
    for _ in range(1, count):
        level = tf.nn.avg_pool2d(images[-1][None], 2, 2, "SAME")
        images.append(tf.squeeze(level, 0))
    return Levels(tuple(images))


def _product(left, right):
    """Of matrices; of those with a single pixel between them as delegates take it."""
    return left * right if left.shape[-1] == 1 else tf.matmul(left, right)


def _tents(points, size):
    """[M, S, 1] pixels -> [M, S, P], how much each point takes of each of P pixels."""
    return tf.nn.relu(1 - tf.abs(points - 0.5 - tf.range(size, dtype=tf.float32)))
