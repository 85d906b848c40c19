"""Hostile requests to a SavedModel, in a process of its own that may die of them, and
into which nothing of the project can be imported.

    python tests/fuzz_saved_model.py MODEL COUNT SEED [INPUTS OUTPUTS]

The images and boxes of the file INPUTS are answered first, into OUTPUTS. Then half of
the requests are pixels, half bytes. In each, a harmless row stands among hostile ones
and must answer as it does alone, to the bit; no answer may hold a number that is not
finite, and what is not valid must be zeros. Prints what was answered, as JSON. A
failure names the request, which the seed brings back.
"""

import collections
import io
import json
import sys
import time

sys.modules["deeppose_tf"] = None  # any import of it fails

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from PIL import Image  # noqa: E402

ROWS = 5  # hostile ones in a request
LONGEST = 120  # seconds for a request, on a machine that others use as well

NUMBERS = [np.nan, np.inf, -np.inf, 3.4e38, -1e30, 1e30, 1e-38, -0.0, 0, 0.5, 7, 1e6]
SIDES = [0, 1, 1, 2, 3, 5, 8, 17, 33, 64]
HARMLESS = np.float32([1, 2, 12, 17])


def main(model, count, seed, inputs="", outputs=""):
    signatures = tf.saved_model.load(model).signatures
    if inputs:
        np.savez(outputs, **call(signatures["serving_default"], **np.load(inputs)))
    answered = collections.Counter()
    requests = -(-count // ROWS)
    for number in range(requests):
        random = np.random.default_rng([seed, number])
        kind = ("images", "bytes")[number % 2]
        try:
            start = time.monotonic()
            good, found, valid = {"images": pixels, "bytes": encoded}[kind](
                signatures, random
            )
            assert time.monotonic() - start < LONGEST, "it took too long"
            check(good, found)
            if number % 50 == 0:
                nonsense(signatures, random)
        except BaseException:
            print(f"request {number} of seed {seed} ({kind})", file=sys.stderr)
            raise
        answered[f"{kind}, valid"] += int(valid.sum())
        answered[f"{kind}, not valid"] += int((~valid).sum())
    print(json.dumps(answered))


def check(good, found):
    """The harmless row is as it is alone; all others are finite, or zero."""
    place, alone = good
    for name, value in found.items():
        assert np.isfinite(value).all(), f"{name} is not finite"
        assert not value[~found["valid"]].any(), f"{name} of what is not valid"
        np.testing.assert_array_equal(value[place], alone[name][0], name)


def pixels(signatures, random):
    """Images of any size, with any boxes."""
    height, width = random.choice(SIDES, 2)
    if random.random() < 0.05:
        height, width = random.permutation([1, random.integers(1000, 30_000)])
    images = random.integers(0, 256, (ROWS + 1, height, width, 3), np.uint8)
    images[random.random(ROWS + 1) < 0.2] = random.integers(0, 256)
    boxes = np.stack([box(random, height, width) for _ in range(ROWS + 1)])
    return answers(signatures["serving_default"], "images", images, boxes, random)


def encoded(signatures, random):
    """Files that were damaged in every way, with any boxes."""
    files = [damaged(random) for _ in range(ROWS)] + [FILES[0]]
    boxes = np.stack([box(random, 40, 30) for _ in range(ROWS + 1)])
    files = np.array(files, object)
    return answers(signatures["jpeg"], "image_bytes", files, boxes, random)


def answers(function, name, inputs, boxes, random):
    """Runs all rows, the last of which is harmless, in any order, and it alone."""
    order = random.permutation(ROWS + 1)
    boxes[-1] = HARMLESS
    found = call(function, **{name: inputs[order], "boxes": boxes[order]})
    alone = call(function, **{name: inputs[-1:], "boxes": boxes[-1:]})
    hostile = found["valid"][order != ROWS]
    return (int(np.argmax(order)), alone), found, hostile


def call(function, **inputs):
    found = function(**{name: tf.constant(value) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in found.items()}


def nonsense(signatures, random):
    """Requests of a wrong type or shape are refused, by an error that says so."""
    boxes = np.zeros([2, 4], np.float32)
    images = np.zeros([2, 8, 8, 3], np.uint8)
    inputs = [
        {"images": images.astype(np.float32), "boxes": boxes},
        {"images": images[..., : random.integers(0, 3)], "boxes": boxes},
        {"images": images, "boxes": boxes[: random.integers(0, 2)]},
        {"images": images, "boxes": boxes[:, : random.integers(0, 4)]},
        {"images": images[0], "boxes": boxes},
    ][random.integers(5)]
    try:
        call(signatures["serving_default"], **inputs)
    except (tf.errors.InvalidArgumentError, TypeError, ValueError):
        return
    raise AssertionError("nonsense was answered")


def box(random, height, width):
    """Numbers of any kind; zeros; one that is inverted, far away, or in order."""
    kind = random.integers(5)
    if kind == 0:
        return random.choice(NUMBERS, 4).astype(np.float32)
    if kind == 1:
        return np.zeros(4, np.float32)
    low, high = np.sort(random.uniform(-1, 2, (2, 2)) * [width, height], axis=0)
    corners = np.concatenate([low, high] if kind > 2 else [high, low])
    if kind == 3:
        corners = corners * 10.0 ** random.integers(-10, 12)
    return corners.astype(np.float32)


def damaged(random):
    """Bytes of one of the files, changed in a few ways, or made up."""
    content = bytearray(FILES[random.integers(len(FILES))])
    for _ in range(random.integers(0, 4)):
        size = len(content)
        low, high = np.sort(random.integers(0, size + 1, 2))
        kind = random.integers(7)
        if kind == 0:
            del content[low:]
        elif kind == 1:
            del content[low:high]
        elif kind == 2:
            content[low:low] = content[low:high] * int(random.integers(1, 20))
        elif kind == 3:
            content[low:high] = random.bytes(random.integers(0, 50))
        elif kind == 4:  # of a header, more often than not
            for place in random.integers(0, min(size, 200), 4) if size else []:
                content[place] = random.integers(0, 256)
        elif kind == 5:
            for place in random.integers(0, size, 4) if size else []:
                content[place] ^= 1 << random.integers(0, 8)
        else:
            other = FILES[random.integers(len(FILES))]
            content[low:] = other[low:]
    return bytes(content)


def encode(image, form, **settings):
    """An image of Pillow -> the bytes of a file."""
    file = io.BytesIO()
    image.save(file, form, **settings)
    return file.getvalue()


def every_kind_of_file():
    y, x = np.indices((40, 30))
    colours = np.stack([6 * y, 8 * x, 3 * (x + y)], axis=-1)
    picture = Image.fromarray(colours.astype(np.uint8))
    moved = [picture.rotate(90), picture.rotate(180)]
    grey = picture.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 256)
    return [
        encode(picture, "JPEG"),
        encode(picture, "JPEG", progressive=True),
        encode(picture.convert("CMYK"), "JPEG"),
        encode(grey, "JPEG", quality=20),
        encode(picture, "PNG"),
        encode(picture.convert("RGBA"), "PNG"),
        encode(picture.quantize(16), "PNG"),
        encode(deep, "PNG"),
        encode(picture, "PNG", save_all=True, append_images=moved),
        encode(picture, "GIF", save_all=True, append_images=moved),
        encode(picture, "BMP"),
        encode(picture, "WEBP"),
        encode(picture, "TIFF"),
    ]


FILES = every_kind_of_file()

if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
