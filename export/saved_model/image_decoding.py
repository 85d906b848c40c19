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
# scans are usual, and 18 where it has four colours.
MOST_SCANS = 30
# libpng inflates what is compressed beside the pixels, up to 8 MB each time, only to
# throw it away: a file of 1 MB took half a minute. One or two are usual.
MOST_TEXTS = 10


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
    few = _at_most(MOST_SCANS, b"\xff\xda", encoded)
    return tf.cond(
        fits(size[0], size[1], max_pixels) & few,
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
    still = _at_most(0, b"acTL", before_pixels)
    few = _at_most(MOST_TEXTS, b"zTXt", encoded)
    few &= _at_most(MOST_TEXTS, b"iTXt", encoded)
    is_png = _starts_with(encoded, PNG)
    return tf.cond(
        is_png & fits(size[1], size[0], max_pixels) & still & few,
        lambda: tf.io.decode_png(encoded, 3),
        _nothing,
    )


def _starts_with(encoded, magic):
    return tf.strings.substr(encoded, 0, len(magic)) == magic


def _at_most(most, marker, encoded):
    """[] bool: whether a marker is in there no more often than that.

    It is not counted any further: the pieces between 20 million markers are a gigabyte.
    """
    pieces = tf.strings.split(encoded, marker, maxsplit=most + 1)
    return tf.shape(pieces)[0] <= most + 1


def _nothing():
    return tf.zeros([0, 0, 3], tf.uint8)
