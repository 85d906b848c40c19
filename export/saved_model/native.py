"""`sampling.crop` by TensorFlow's own kernel, for servers: half the time, or less.

`CropAndResize` takes the places of corner pixels in shares of the image's extent. Given
those of our samples it computes what the one resampler does, up to the rounding of
places (1e-4 pixels). It is no builtin of TFLite, and XLA does not compile it.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import tensorflow as tf

from deeppose_tf import sampling


class Framed(NamedTuple):
    """One image halved again and again, for `sampling.crop` of boxes of one size.

    Attributes:
      images: L of [1, H, W, 3], 0..255, uint8 the first and float32 the others, in a
        frame of one pixel of the grey that is outside.
      extents: L of [4] float32, by which (y, x, y, x) in pixels of such an image are
        divided for the kernel.
    """

    images: tuple[tf.Tensor, ...]
    extents: tuple[tf.Tensor, ...]

    def sample(self, scale: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
        """See `sampling.crop`.

        Args:
          scale: [M, 1] pixels of the image per pixel of the crop, all the same.
          points: [M, S, 2] finite pixels: every x meets every y.

        Returns:
          [M, S, S, 3] float32 in [-1, 1).
        """
        top, side = len(self.images) - 1, points.shape[1]
        level = sampling.level_at(scale[0, 0], top + 1)
        below = tf.floor(level)
        share = level - below
        corners = tf.concat([points[:, 0, ::-1], points[:, -1, ::-1]], axis=1)  # [M, 4]

        def read(number, share):
            # In the frame, the centre of the image's first pixel is at 1.
            places = (corners / 2**number + 0.5) / self.extents[number]
            image, first = self.images[number], tf.zeros_like(corners[:, 0], tf.int32)
            grey, sides = float(sampling.PADDING), [side, side]
            crops = tf.image.crop_and_resize(
                image, places, first, sides, extrapolation_value=grey
            )
            return crops * (share / grey)

        def blended(number):
            if number == top:
                return read(top, 1.0)
            return tf.cond(
                share > 0,
                lambda: read(number, 1 - share) + read(number + 1, share),
                lambda: read(number, 1.0),
            )

        branches = [functools.partial(blended, number) for number in range(top + 1)]
        crops = tf.switch_case(tf.cast(below, tf.int32), branches)
        # Without its shape, convolutions would not be fused with what follows them.
        return tf.ensure_shape(crops, [None, side, side, 3]) - 1.0


def framed(images: tf.Tensor, count: int = sampling.LEVELS) -> Framed:
    """As `sampling.pyramid`, of one image [1, H, W, 3] uint8, for `sampling.crop`."""
    frame = [[0, 0], [1, 1], [1, 1], [0, 0]]
    level, found, extents = images, [], []
    for number in range(count):
        if number:
            level = tf.nn.avg_pool2d(tf.cast(level, tf.float32), 2, 2, "SAME")
        grey = tf.constant(sampling.PADDING, level.dtype)
        found.append(tf.pad(level, frame, constant_values=grey))
        size = tf.cast(tf.shape(level)[1:3], tf.float32) + 1.0  # of the frame, less 1
        extents.append(tf.concat([size, size], axis=0))
    return Framed(tuple(found), tuple(extents))
