"""`sampling.crop` in two ways for exports, each of one image.

`framed` is for servers, at half the time or less: given the places of our samples,
TensorFlow's own kernel `CropAndResize` computes what the one resampler does, up to the
rounding of places (1e-4 pixels). It is no builtin of TFLite, and XLA does not compile
it; `several` has images of several people take turns at it. `levels` is of matrix
products alone, which delegates of phones take whole.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from deeppose_tf import sampling


class Framed(NamedTuple):
    """One image halved again and again, for `sampling.crop` of boxes of one size: L of
    [1, H, W, 3], 0..255, uint8 or float32 the first and float32 the others, in a frame
    of one pixel of the grey that is outside."""

    images: tuple[tf.Tensor, ...]

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
            image, first = self.images[number], tf.zeros_like(corners[:, 0], tf.int32)
            last = tf.cast(tf.shape(image)[1:3] - 1, tf.float32)  # of its pixels
            places = (corners / 2**number + 0.5) / tf.concat([last, last], axis=0)
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
    """As `sampling.pyramid`, of one image [1, H, W, 3], for `sampling.crop`."""
    frame = [[0, 0], [1, 1], [1, 1], [0, 0]]
    level, found = images, []
    for number in range(count):
        if number:
            level = _halved(level)
        grey = tf.constant(sampling.PADDING, level.dtype)
        found.append(tf.pad(level, frame, constant_values=grey))
    return Framed(tuple(found))


class Several(NamedTuple):
    """The images of P people, of any sizes, for `sampling.crop` of a number of boxes of
    each one, one person after the other; all boxes of a person are of one size.

    Attributes:
      people: [] int32, P.
      levels: [] variant, a list: P L of [1, H, W, 3] float32, in which what `Framed`
        has of one image comes after the other.
      boxes: the number. Where a graph does not say it, TensorFlow fails to estimate
        what crops cost, and prints a thousand lines about it.
    """

    people: tf.Tensor
    levels: tf.Tensor
    boxes: int = 1

    def sample(self, scale: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
        """As of `Framed`, whose crops these are to the bit."""
        side = points.shape[1]
        scale = tf.reshape(scale, [-1, self.boxes, 1])
        points = tf.reshape(points, [-1, self.boxes, side, 2])

        def level(place):
            return tf.raw_ops.TensorListGetItem(
                input_handle=self.levels,
                index=place,
                element_shape=[1, -1, -1, 3],
                element_dtype=tf.float32,
            )

        def crops_of(person):
            first = person * sampling.LEVELS
            images = tuple(level(first + place) for place in range(sampling.LEVELS))
            return Framed(images).sample(scale[person], points[person])

        kind = tf.TensorSpec([self.boxes, side, side, 3])
        crops = tf.map_fn(crops_of, tf.range(self.people), fn_output_signature=kind)
        return tf.reshape(crops, [-1, side, side, 3])


def several(
    look: Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]], people: tf.Tensor
) -> tuple[Several, tf.Tensor, tf.Tensor]:
    """The images of P people as one source of crops.

    Args:
      look: the image [H, W, 3] uint8 and the box [4] of a person, by number from 0.
      people: [] int32, P.

    Returns:
      The source, the sizes [P, 2] int32 of their images, and boxes [P, 4].
    """
    levels = tf.TensorArray(tf.float32, people * sampling.LEVELS, infer_shape=False)
    sizes = tf.TensorArray(tf.int32, people, element_shape=[2])
    boxes = tf.TensorArray(tf.float32, people, element_shape=[4])

    def add(person, levels, sizes, boxes):
        image, box = look(person)
        # Halving and cropping have kernels for GPUs, but not of uint8.
        source = framed(tf.cast(image[None], tf.float32))
        for place, level in enumerate(source.images):
            levels = levels.write(person * sampling.LEVELS + place, level)
        sizes = sizes.write(person, tf.shape(image)[:2])
        return person + 1, levels, sizes, boxes.write(person, box)

    _, levels, sizes, boxes = tf.while_loop(
        lambda person, *_: person < people,
        add,
        (0, levels, sizes, boxes),
        parallel_iterations=1,
    )
    return Several(people, levels.flow), sizes.stack(), boxes.stack()


def _halved(images):
    """The averages of 2 x 2 pixels that `tf.nn.avg_pool2d` gives, to the bit, several
    times as fast on a processor: [1, H, W, 3] of any type -> float32, rounded up. In
    the middle of four pixels all of them weigh the same. `sampling.pyramid` and
    `levels` pool, as XLA and delegates of phones compile them."""
    size = tf.shape(images)[1:3]
    odd = size % 2

    def grown():
        # The last of an odd number is its own pair, as the average of what there is.
        rows = tf.concat([images, images[:, size[0] - odd[0] :]], axis=1)
        return tf.concat([rows, rows[:, :, size[1] - odd[1] :]], axis=2)

    even = tf.cond(tf.reduce_any(odd > 0), grown, lambda: images)
    size = (size + 1) // 2
    return tf.raw_ops.ResizeBilinear(images=even, size=size, half_pixel_centers=True)


class Levels(NamedTuple):
    """One image halved again and again, its size known when a graph is made of it: L of
    [H, W, 3] float32, pre-processed."""

    images: tuple[tf.Tensor, ...]

    def sample(self, scale: tf.Tensor, points: tf.Tensor) -> tf.Tensor:
        """See `sampling.crop`. Every pixel of every level is multiplied from both sides
        by what each place takes of it, whether in reach or not.

        Arguments and result are as of `Framed`, but for scales that may differ.
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


def levels(image: tf.Tensor) -> Levels:
    """As `sampling.pyramid`, of one image [H, W, 3] of known size."""
    images = [sampling.preprocess(image)]
    for _ in range(1, sampling.LEVELS):
        level = tf.nn.avg_pool2d(images[-1][None], 2, 2, "SAME")
        images.append(tf.squeeze(level, 0))
    return Levels(tuple(images))


def _product(left, right):
    """Of matrices; of those with a single pixel between them as delegates take it."""
    return left * right if left.shape[-1] == 1 else tf.matmul(left, right)


def _tents(points, size):
    """[M, S, 1] pixels -> [M, S, P], how much each point takes of each of P pixels."""
    return tf.nn.relu(1 - tf.abs(points - 0.5 - tf.range(size, dtype=tf.float32)))
