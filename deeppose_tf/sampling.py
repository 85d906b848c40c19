"""The one resampler: images and boxes, or affine maps, to antialiased crops.

A crop is N(x; b) of Sec. 3: bilinear, from a pyramid of halved images, blended between
the two levels nearest to the crop's scale, so that shrinking averages every pixel and a
photo given at twice the resolution yields the same crop. What lies outside the image is
the middle grey that pre-processing maps to zero.

`crop` (boxes, one gather and two matrix products) and `warp` (affine maps, with
rotation, four gathers, for XLA) are one function evaluated in two ways, the latter in
two orders: a processor and a GPU are fast at different ones. Exports have two more,
each behind `crop`, in `export.saved_model.cropping`.
`tf.image.crop_and_resize` is corner-aligned, is no TFLite builtin and has no XLA
kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

# Halvings: a person up to 64 times as large as the crop is antialiased.
LEVELS = 7
# The pixel value of what lies outside an image.
PADDING = 128


class Pyramid(NamedTuple):
    """Images halved again and again, flattened so that one gather reads any level.

    Attributes:
      pixels: [B, P, 3], pre-processed, every level one after the other.
      sizes: [L, 2] int32, height and width of each level.
      offsets: [L] int32, where each level starts within P.
    """

    pixels: tf.Tensor
    sizes: tf.Tensor
    offsets: tf.Tensor


def preprocess(images: tf.Tensor) -> tf.Tensor:
    """Pixels 0..255 of any type -> float32 in [-1, 1); the only pre-processing.

    128, not 127.5, so that a uint8 canvas can be padded with what maps to zero.
    """
    return tf.cast(images, tf.float32) / PADDING - 1.0


def pyramid(
    images: tf.Tensor, levels: int = LEVELS, dtype: tf.DType = tf.float32
) -> Pyramid:
    """Builds the levels that `crop` and `warp` read.

    Args:
      images: [B, H, W, 3] uint8, or float32 in 0..255.
      levels: 1 for crops that never shrink; each further one halves.
      dtype: of what is kept. In float16, which is half as much to write and to read,
        the first three levels of uint8 images are exact.

    Returns:
      A `Pyramid`. A level's size is that of the one before halved and rounded up.
    """
    level = preprocess(images)
    flat, sizes = [], []
    for i in range(levels):
        if i:
            # SAME leaves padding out of the average, so borders stay right.
            level = tf.nn.avg_pool2d(level, 2, 2, "SAME")
        shape = tf.shape(level)
        pixels = tf.reshape(level, tf.stack([shape[0], shape[1] * shape[2], 3]))
        flat.append(tf.cast(pixels, dtype))
        sizes.append(shape[1:3])
    sizes = tf.stack(sizes)  # [L, 2]
    counts = sizes[:, 0] * sizes[:, 1]
    return Pyramid(tf.concat(flat, axis=1), sizes, tf.cumsum(counts, exclusive=True))


def warp(
    source: Pyramid,
    maps: tf.Tensor,
    indices: tf.Tensor,
    side: int,
    at_once: bool = False,
) -> tf.Tensor:
    """Crops through affine maps.

    Args:
      source: of B images.
      maps: [M, 2, 3], finite; from pixels of the crop to pixels of the image:
        (x, y) = map @ (u, v, 1).
      indices: [M] int32, the image of each crop.
      side: S, height and width of a crop in pixels.
      at_once: for XLA on a GPU, see `_at_once`.

    Returns:
      [M, S, S, 3] float32 in [-1, 1).
    """
    centers = tf.range(side, dtype=tf.float32) + 0.5  # [S]
    u, v = centers[None, None, :, None], centers[None, :, None, None]
    columns = maps[:, None, None, :, :]
    points = columns[..., 0] * u + columns[..., 1] * v + columns[..., 2]  # [M,S,S,2]
    turned = maps[:, 0, 0] * maps[:, 1, 1] - maps[:, 0, 1] * maps[:, 1, 0]
    scale = tf.sqrt(tf.abs(turned))
    if at_once:
        return _at_once(source, scale, points, indices)
    return _blend(source, scale, points, indices, _bilinear)


def crop(source: Pyramid, boxes: tf.Tensor, indices: tf.Tensor, side: int) -> tf.Tensor:
    """Crops of boxes: `warp` for maps without rotation, at a fraction of the cost.

    How many pixels are in reach is known at run time only, so XLA cannot compile it.

    Args:
      source: of B images; or images in a form of their own, whose method `sample`
        makes crops [M, S, S, 3] from the scale [M, 1] and the points [M, S, 2] in
        pixels, of which every x meets every y.
      boxes: [M, 4], finite, pixels of the image.
      indices: [M] int32, the image of each box; unused where the source knows it.
      side: S, height and width of a crop in pixels.

    Returns:
      [M, S, S, 3] float32 in [-1, 1).
    """
    centers = (tf.range(side, dtype=tf.float32) + 0.5) / side  # [S]
    first, last = tf.split(boxes, 2, axis=-1)
    size = last - first  # [M, 2]
    points = first[:, None] + centers[None, :, None] * size[:, None]  # [M, S, 2]
    width, height = tf.split(size, 2, axis=-1)
    scale = tf.sqrt(tf.abs(width * height)) / side  # [M, 1]
    if isinstance(source, Pyramid):
        return _blend(source, scale[:, 0], points, indices, _separable)
    return source.sample(scale, points)


def level_at(scale: tf.Tensor, count: int) -> tf.Tensor:
    """Pixels of the image per pixel of a crop -> which of so many levels it is read
    from, with fractions: 0 where nothing shrinks."""
    level = tf.math.log(tf.maximum(scale, 1.0)) / math.log(2.0)
    return tf.minimum(level, float(count - 1))


def _blend(source, scale, points, indices, sample):
    """Samples the two levels nearest to the scale [M] and mixes them [M, S, S, 3]."""
    below, above, share = _nearest(source, scale)
    lower = sample(source, below, points, indices)
    if source.sizes.shape[0] == 1:
        return lower
    share = share[:, None, None, None]
    return tf.cond(
        tf.reduce_any(share > 0),
        lambda: (1 - share) * lower + share * sample(source, above, points, indices),
        lambda: lower,
    )


def _at_once(source, scale, points, indices):
    """As `_blend` of `_bilinear`, in one pass: the places that a pixel looks at are
    found once for all channels, and neither they nor one level's samples go through
    the memory of a GPU. To a processor the other order is nearly twice as fast."""
    below, above, share = _nearest(source, scale)
    share = share[:, None, None]
    taps = [(at, (1 - share) * w) for at, w in _four(source, below, points, indices)]
    taps += [(at, share * w) for at, w in _four(source, above, points, indices)]
    # Without barriers XLA makes levels anew wherever they are read, and the places for
    # each channel.
    (pixels,) = xla.optimization_barrier(_flat(source))
    seen = [(tf.cast(tf.gather(pixels, at), tf.float32), w) for at, w in taps]
    channels = [
        tf.add_n([pixel[..., channel] * weight for pixel, weight in seen])
        for channel in range(3)
    ]
    return tf.stack(xla.optimization_barrier(*channels), axis=-1)


def _nearest(source, scale):
    """Of a scale [M] the levels below and above, and the share of the latter: [M]."""
    level = level_at(scale, source.sizes.shape[0])
    below = tf.floor(level)
    share = level - below
    below = tf.cast(below, tf.int32)
    return below, below + tf.cast(share > 0, tf.int32), share


def _bilinear(source, level, points, indices):
    """Bilinear samples of one level [M] per crop at points [M, S, S, 2] pixels."""
    total = 0.0
    for at, weight in _four(source, level, points, indices):
        pixels = tf.cast(tf.gather(_flat(source), at), tf.float32)
        total += weight[..., None] * pixels
    return total


def _four(source, level, points, indices) -> Iterator[tuple[tf.Tensor, tf.Tensor]]:
    """The pixels of one level [M] about points [M, S, S, 2] pixels: their places among
    all, and the weight of each, [M, S, S]."""
    (height, width), start = _level(source, level, indices)
    points = points / _halvings(level)[:, None, None, None] - 0.5
    columns, rows = _taps(points[..., 0], width), _taps(points[..., 1], height)
    for (row, row_weight), (column, column_weight) in itertools.product(rows, columns):
        at = start[:, None, None] + row * width[:, None, None] + column
        yield at, row_weight * column_weight


def _separable(source, level, points, indices):
    """As `_bilinear`, at points [M, S, 2] of which every x meets every y.

    Copies the pixels that a box covers, at most about 2 S squared of them, once, and
    multiplies them from both sides by what each place takes of each pixel.
    """
    (height, width), start = _level(source, level, indices)
    points = points / _halvings(level)[:, None, None] - 0.5
    columns, horizontal = _shares(points[..., 0], width)  # [M, Q], [M, S, Q]
    rows, vertical = _shares(points[..., 1], height)  # [M, P], [M, S, P]
    at = start[:, None, None] + (rows * width[:, None])[:, None] + columns[:, :, None]
    patch = tf.gather(_flat(source), at)  # [M, Q, P, 3]
    crops, side = tf.shape(points)[0], points.shape[1]
    reach = tf.shape(columns)[1], tf.shape(rows)[1]
    patch = tf.reshape(patch, tf.stack([crops, reach[0], reach[1] * 3]))
    patch = tf.matmul(horizontal, patch)
    patch = tf.reshape(patch, tf.stack([crops, side, reach[1], 3]))
    patch = tf.transpose(patch, [0, 2, 1, 3])  # [M, P, S, 3]
    patch = tf.reshape(patch, tf.stack([crops, reach[1], side * 3]))
    patch = tf.matmul(vertical, patch)
    return tf.reshape(patch, tf.stack([crops, side, side, 3]))


def _shares(position, size):
    """The pixels in reach of positions [M, S]: indices [M, P] within 0 .. size - 1; and
    how much each takes of each, [M, S, P], zero for pixels outside. P is the most that
    a row of positions reaches."""
    size = size[:, None]
    first, last = position[:, 0], position[:, -1]
    # A mirrored box runs backwards.
    bounds = tf.stack([tf.minimum(first, last), tf.maximum(first, last)], axis=1)
    # Beyond the image a position only has to stay outside, and to fit an int32.
    bounds = tf.clip_by_value(bounds, -1.0, tf.cast(size, tf.float32))
    bounds = tf.cast(tf.floor(bounds), tf.int32)
    # At least 2, also of nobody, for whom the greatest is the least of all integers.
    reach = tf.maximum(tf.reduce_max(bounds[:, 1] - bounds[:, 0]), 0) + 2
    index = bounds[:, :1] + tf.range(reach)  # [M, P]
    distance = tf.abs(position[:, :, None] - tf.cast(index, tf.float32)[:, None])
    inside = tf.cast((index >= 0) & (index < size), tf.float32)
    shares = tf.nn.relu(1.0 - distance) * inside[:, None]
    return tf.minimum(tf.maximum(index, 0), size - 1), shares


def _taps(position, size):
    """Two (index, weight) per position [M, ...]; none outside 0 .. size - 1 [M]."""
    size = tf.reshape(size, [-1] + [1] * (position.shape.rank - 1))
    # Beyond the image a position only has to stay outside, and to fit an int32.
    position = tf.clip_by_value(position, -2.0, tf.cast(size, tf.float32) + 1.0)
    first = tf.floor(position)
    weight = position - first
    first = tf.cast(first, tf.int32)
    taps = []
    for index, share in ((first, 1 - weight), (first + 1, weight)):
        inside = (index >= 0) & (index < size)
        index = tf.minimum(tf.maximum(index, 0), size - 1)
        taps.append((index, tf.where(inside, share, 0.0)))
    return taps


def _level(source, level, indices):
    """(height [M], width [M]) of each crop's level and where its pixels start [M]."""
    size = tf.gather(source.sizes, level)
    start = indices * tf.shape(source.pixels)[1] + tf.gather(source.offsets, level)
    return (size[:, 0], size[:, 1]), start


def _halvings(level):
    return tf.pow(2.0, tf.cast(level, tf.float32))


def _flat(source):
    return tf.reshape(source.pixels, [-1, 3])
