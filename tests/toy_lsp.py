"""A folder of the form of LSP, drawn in a moment, and ways to spoil its images."""

import io
import pathlib
import zlib

import numpy as np
import scipy.io
from PIL import Image

HEIGHT, WIDTH = 48, 32


def make_lsp(root, count=6, seed=0):
    """Writes images and joints.mat of `count` people; returns joints [3, 14, N]."""
    root = pathlib.Path(root)
    (root / "images").mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for i in range(count):
        colors = rng.integers(0, 256, (6, 4, 3), np.uint8)
        image = Image.fromarray(colors).resize((WIDTH, HEIGHT))
        image.save(root / "images" / f"im{i + 1:04d}.jpg", quality=95)
    joints = rng.uniform(1, WIDTH, (3, 14, count))
    joints[2] = rng.integers(0, 2, (14, count))
    save(root, joints)
    return joints


def save(root, joints, name="joints.mat"):
    scipy.io.savemat(pathlib.Path(root) / name, {"joints": joints})


def encode(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def spoilt_images():
    """(what the reason must say, the bytes of the file) by kind of damage."""
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
    jpeg, png = encode(image, "JPEG"), encode(image, "PNG")
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(np.full((HEIGHT, WIDTH), 40000, np.uint16))
    return {
        "zero-byte": ("empty", b""),
        "non-image": ("not an image", b"<html>404 Not Found</html>"),
        "truncated": ("truncated", jpeg[: len(jpeg) // 2]),
        "cut by two bytes": ("truncated", jpeg[:-2]),
        "png cut": ("truncated", png[: len(png) // 2]),
        "png without its end": ("damaged", png[:-12]),
        "grayscale": ("grayscale", encode(image.convert("L"), "JPEG")),
        "cmyk": ("CMYK", encode(image.convert("CMYK"), "JPEG")),
        "palette": ("palette", encode(image.convert("P"), "PNG")),
        "16-bit": ("8 bits", encode(deep, "PNG")),
        "turned": ("EXIF", encode(image, "JPEG", exif=turned)),
        "another format": ("BMP", encode(image, "BMP")),
        "huge": ("9000 x 9000", png_header(9000, 9000)),
    }


def png_header(width, height):
    """The head of a PNG of this size; there are no pixels that could be decoded."""
    small = encode(Image.new("RGB", (1, 1)), "PNG")
    head = b"IHDR" + width.to_bytes(4, "big") + height.to_bytes(4, "big") + small[24:29]
    return small[:12] + head + zlib.crc32(head).to_bytes(4, "big") + small[33:]
