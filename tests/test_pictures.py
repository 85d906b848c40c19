"""Pictures that are decoded in a graph, and those that must not be."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import tensorflow as tf
import toy_export
from PIL import Image

from deeppose_tf.export.saved_model import checks
from deeppose_tf.export.saved_model import image_decoding as pictures

MOST = 20_000
PIXELS = checks.picture(40, 30)
JPEG = toy_export.encode(PIXELS, "JPEG")
PNG = toy_export.encode(PIXELS, "PNG")


@pytest.fixture(scope="module")
def decode():
    return tf.function(
        lambda encoded: pictures.decode(encoded, MOST),
        input_signature=[tf.TensorSpec([], tf.string)],
        autograph=False,
    )


def opencv(encoded):
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


GREY = PIXELS[..., 0]
DECODED = {
    "JPEG": JPEG,
    "progressive JPEG": toy_export.encode(PIXELS, "JPEG", progressive=True),
    "JPEG with half the colours": toy_export.encode(PIXELS, "JPEG", subsampling=2),
    "grey JPEG": toy_export.encode(GREY, "JPEG"),
    "PNG": PNG,
    "grey PNG": toy_export.encode(GREY, "PNG"),
    "PNG with a palette": toy_export.encode(
        Image.fromarray(PIXELS).quantize(16), "PNG"
    ),
}


@pytest.mark.parametrize("encoded", DECODED.values(), ids=DECODED)
def test_the_same_pixels_as_opencv(decode, encoded):
    """To the bit: TensorFlow's own default differs by several shades."""
    np.testing.assert_array_equal(decode(encoded), opencv(encoded))


def test_pixels_of_a_png(decode):
    np.testing.assert_array_equal(decode(PNG), PIXELS)


def test_what_has_more_than_colours(decode):
    see_through = np.dstack([PIXELS, GREY])
    np.testing.assert_array_equal(decode(toy_export.encode(see_through, "PNG")), PIXELS)
    deep = Image.fromarray(GREY.astype(np.uint16) * 256 + 7)
    found = decode(toy_export.encode(deep, "PNG"))
    np.testing.assert_array_equal(found, np.repeat(GREY[..., None], 3, axis=2))
    ink = Image.fromarray(PIXELS).convert("CMYK")
    found = decode(toy_export.encode(ink, "JPEG", quality=95)).numpy()
    assert np.abs(found.astype(float) - PIXELS).mean() < 4


def png_header(width, height):
    """A PNG that says to be of this size, and ends after that."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return pictures.PNG + struct.pack(">I", 13) + header + bytes(4)


def jpeg_of_size(width, height):
    """A JPEG whose frame says to be of this size."""
    at = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:at] + struct.pack(">HH", height, width) + JPEG[at + 4 :]


def chunk(kind, content):
    """A chunk of a PNG."""
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


def with_texts(count, kind=b"zTXt", header=b"key\0\0"):
    """A PNG with so many compressed texts before its pixels, which begin at 33."""
    return PNG[:33] + chunk(kind, header + zlib.compress(b"words")) * count + PNG[33:]


def bomb(side):
    """A PNG of one colour that is side squared pixels when decoded."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(side * (1 + (side + 7) // 8)))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return pictures.PNG + body


def animation(form):
    frames = [Image.fromarray(np.roll(PIXELS, i, 0)) for i in range(3)]
    return toy_export.encode(
        frames[0], form, save_all=True, append_images=frames[1:], duration=50
    )


def of_scans(count):
    """A progressive JPEG one of whose scans is there again until they are so many."""
    encoded = DECODED["progressive JPEG"]
    first = encoded.index(b"\xff\xda")
    second = encoded.index(b"\xff\xda", first + 1)
    again = encoded[first:second] * (count - encoded.count(b"\xff\xda"))
    return encoded[:second] + again + encoded[second:]


REFUSED = {
    "nothing": b"",
    "a few bytes": b"\xff\xd8\xff",
    "text": b"no picture",
    "JPEG without its end": JPEG[:-2],
    "half a JPEG": JPEG[: len(JPEG) // 2],
    "half a PNG": PNG[: len(PNG) // 2],
    "PNG header alone": png_header(30, 40),
    "damaged PNG": PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:],
    "GIF": toy_export.encode(PIXELS, "GIF"),
    "BMP": toy_export.encode(PIXELS, "BMP"),
    "WebP": toy_export.encode(PIXELS, "WEBP"),
    "animated GIF": animation("GIF"),
    "animated PNG": animation("PNG"),
    "one pixel too many": toy_export.encode(checks.picture(100, 201), "PNG"),
    "large JPEG": toy_export.encode(checks.picture(201, 100), "JPEG"),
    "bomb": bomb(20_000),
    "PNG of no size": png_header(0, 0),
    "PNG of negative size": png_header(2**32 - 30, 2**32 - 40),
    "JPEG of 65535 squared": jpeg_of_size(65535, 65535),
    "JPEG of no size": jpeg_of_size(0, 0),
    "many scans": of_scans(pictures.MOST_SCANS + 1),
    "many compressed texts": with_texts(11),
    "many international texts": with_texts(11, b"iTXt", b"key\0\1\0\0\0"),
}


@pytest.mark.parametrize("encoded", REFUSED.values(), ids=REFUSED)
def test_what_is_refused(decode, encoded):
    assert decode(encoded).shape == (0, 0, 3)


def test_exactly_as_many_pixels_as_allowed(decode):
    assert decode(toy_export.encode(checks.picture(100, 200), "PNG")).shape[0] == 100


def test_exactly_as_many_scans_and_texts_as_allowed(decode):
    """Four colours need 18 scans, and an editor leaves a text or two."""
    assert decode(of_scans(30)).shape == (40, 30, 3)
    np.testing.assert_array_equal(decode(with_texts(10)), PIXELS)


def test_markers_are_not_counted_on_and_on(decode):
    """Bytes that are nothing but markers would be cut into 28 times their memory."""
    content = decode.get_concrete_function().graph.as_graph_def()
    nodes = [n for called in content.library.function for n in called.node_def]
    cuts = [node.attr["maxsplit"].i for node in nodes if node.op == "StringSplitV2"]
    assert len(cuts) == 5 and min(cuts) > 0


@pytest.mark.parametrize("encoded", [JPEG, PNG], ids=["JPEG", "PNG"])
def test_every_beginning_is_refused(decode, encoded):
    """Wherever a transfer broke off, except within a PNG's last words."""
    for size in range(0, len(encoded) - 12, 7):
        assert decode(encoded[:size]).shape[0] == 0


def test_the_orientation_of_a_camera_is_not_read(decode):
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned by 90 degrees
    encoded = toy_export.encode(Image.fromarray(PIXELS), "JPEG", exif=turned)
    assert decode(encoded).shape == (40, 30, 3)
