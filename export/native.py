"""`sampling.crop` by TensorFlow's own kernel, for servers: half the time, or less.

`CropAndResize` takes the places of corner pixels in shares of the image's extent. Given
those of our samples it computes what the one resampler does, up to the rounding of
places (1e-4 pixels). It is no builtin of TFLite, and XLA does not compile it.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deeppose_tf import sampling


class Framed(NamedTuple):
    """One image halved again and again, for `sampling.crop` of boxes of one size.

    Attributes:
      images: L of [1, H, W, 3], 0..255, uint8 the first and float32 the others, in a
        frame of one pixel of the grey that is outside.
    """

    images: tuple[tf.Tensor, ...]

    def sample(self, scale: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
        """See `sampling.crop`.

        Args:
          scale: [M, 1] pixels of the image per pixel of the crop, all the same.
          points: [M, S, 2] finite pixels: every x meets every y.

        Returns:
          [M, S, S, 3] float32 in [-1, 1).
        """
        side = points.shape[1]
        level = sampling.level_at(scale[0, 0], len(self.images))
        below = tf.floor(level)

        def blended(number):
            lower = self._read(number, points)
            if number + 1 == len(self.images):
                return lower
            share = level - below
            return tf.cond(
                share > 0,
                lambda: lower + share * (self._read(number + 1, points) - lower),
                lambda: lower,
            )

        branches = [lambda i=i: blended(i) for i in range(len(self.images))]
        crops = tf.switch_case(tf.cast(below, tf.int32), branches)
        # Without its shape, convolutions would not be fused with what follows them.
        return sampling.preprocess(tf.ensure_shape(crops, [None, side, side, 3]))

    def _read(self, number, points):
        image, side = self.images[number], points.shape[1]
        shape = tf.cast(tf.shape(image), tf.float32)
        extent = tf.stack([shape[2], shape[1]]) - 1.0
        # Within the frame the centre of the image's first pixel is at 1.
        corners = [points[:, i] / 2**number + 0.5 for i in (0, side - 1)]
        boxes = tf.concat([corner / extent for corner in corners], axis=1)  # [M, 4]
        return tf.image.crop_and_resize(
            image,
            tf.gather(boxes, [1, 0, 3, 2], axis=1),  # y before x
            tf.zeros([tf.shape(boxes)[0]], tf.int32),
            [side, side],
            extrapolation_value=sampling.PADDING,
        )


def framed(images: tf.Tensor, count: int = sampling.LEVELS) -> Framed:
    """As `sampling.pyramid`, of one image [1, H, W, 3] uint8, for `sampling.crop`."""
    frame = [[0, 0], [1, 1], [1, 1], [0, 0]]
    grey = tf.constant(sampling.PADDING, images.dtype)
    found = [tf.pad(images, frame, constant_values=grey)]
    level = tf.cast(images, tf.float32)
    for _ in range(1, count):
        level = tf.nn.avg_pool2d(level, 2, 2, "SAME")
        found.append(tf.pad(level, frame, constant_values=float(sampling.PADDING)))
    return Framed(tuple(found))
