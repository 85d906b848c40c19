"""Encoded JPEG and PNG to pixels inside a graph, where bytes may be hostile.

Size, format and number of scans are read from the bytes before anything is decoded.
What an operation refuses is one dataset's error and fails nobody else's request.

The graph does not turn a picture by its EXIF orientation: boxes and keypoints are in
the pixels as they are stored. TensorFlow advises to sandbox the decoding of JPEGs from
strangers; these checks bound its cost and do not replace a sandbox.
"""

from __future__ import annotations

import functools

import tensorflow as tf

JPEG = b"\xff\xd8\xff"
PNG = b"\x89PNG\r\n\x1a\n"
# A progressive JPEG of a few bytes per scan could keep a server busy for hours; ten
# scans are usual.
MOST_SCANS = 100


def decode(encoded: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """Decodes a JPEG or a PNG that does not move.

    Args:
      encoded: [] string, any bytes.
      max_pixels: pictures with more pixels are not decoded.

    Returns:
      [H, W, 3] uint8 RGB; [0, 0, 3] of what cannot or must not be decoded.
    """
    read = functools.partial(_decode, max_pixels=max_pixels)
    # The one way to go on after an operation that failed.
    picture = tf.data.Dataset.from_tensors(encoded).map(read).ignore_errors()
    picture = picture.concatenate(tf.data.Dataset.from_tensors(_nothing()))
    return tf.ensure_shape(picture.take(1).get_single_element(), [None, None, 3])


def fits(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """[] bool: whether there is something to see, and no more than was asked for."""
    pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    return (height > 0) & (width > 0) & (pixels <= max_pixels)


def _decode(encoded, max_pixels):
    return tf.cond(
        _starts_with(encoded, JPEG),
        lambda: _decode_jpeg(encoded, max_pixels),
        lambda: _decode_png(encoded, max_pixels),
    )


def _decode_jpeg(encoded, max_pixels):
    size = tf.io.extract_jpeg_shape(encoded)
    # 0xFF is followed by zero in a scan's data, so this counts markers.
    scans = _pieces(encoded, b"\xff\xda") - 1
    return tf.cond(
        fits(size[0], size[1], max_pixels) & (scans <= MOST_SCANS),
        # Accurate, as other decoders do it; TensorFlow's default is a rough one.
        lambda: tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE"),
        _nothing,
    )


def _decode_png(encoded, max_pixels):
    # The first chunk is always the header, and width and height come first in it. What
    # has `acTL` before its pixels is animated.
    size = tf.io.decode_raw(
        tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False
    )
    before_pixels = tf.strings.split(encoded, b"IDAT", maxsplit=1)[0]
    still = _pieces(before_pixels, b"acTL") == 1
    is_png = _starts_with(encoded, PNG)
    return tf.cond(
        is_png & fits(size[1], size[0], max_pixels) & still,
        lambda: tf.io.decode_png(encoded, 3),
        _nothing,
    )


def _starts_with(encoded, magic):
    return tf.strings.substr(encoded, 0, len(magic)) == magic


def _pieces(encoded, separator):
    return tf.shape(tf.strings.split(encoded, separator))[0]


def _nothing():
    return tf.zeros([0, 0, 3], tf.uint8)
