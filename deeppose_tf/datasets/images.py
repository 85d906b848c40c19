"""Image files: reading them upright as RGB, and the checks before they are stored.

Records hold images as they were found, and TensorFlow decodes them. So what is stored
must be what every decoder agrees on: 8-bit RGB, JPEG or PNG, upright as it stands.
"""

from __future__ import annotations

import io
import pathlib
import warnings

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 50_000_000

_ORIENTATION = 0x0112  # The EXIF tag; 1 is upright.
_FORMATS = ("JPEG", "MPO", "PNG")  # MPO: the JPEG of some cameras, with a second view.


def read_image(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An image file of any usual kind as [H, W, 3] uint8 RGB, upright as EXIF says.

    Raises:
      ValueError: missing, empty, truncated, no image, or over `max_pixels`; names the
        file and the reason.
    """
    with _open(path, max_pixels) as image:
        return np.asarray(_upright(path, image))


def inspect(path: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of an image that can be stored as found; decodes all of it.

    Raises:
      ValueError: as `read_image`; and for an image that decoders do not agree on:
        grayscale, CMYK, palette, 16-bit, turned by EXIF, neither JPEG nor PNG.
    """
    with _open(path, max_pixels) as image:
        _decode(path, image)
        reason = unusual(image)
        if reason:
            raise ValueError(f"{path}: {reason}")
        return image.height, image.width


def unusual(image: Image.Image) -> str | None:
    """Why an open image cannot be stored as found, or None if it can."""
    if image.format == "PNG" and _png_depth(image) == 16 or image.mode[0] in "IF":
        return "16 bits a channel, expected 8"
    if image.mode in ("1", "L", "LA"):
        return "grayscale, expected RGB"
    if image.mode not in ("RGB", "RGBA"):
        return f"colours are {image.mode}, expected RGB"
    if image.getexif().get(_ORIENTATION, 1) not in (0, 1):
        return "EXIF says it is to be turned; labels may belong to either view"
    if image.format not in _FORMATS:
        return f"a {image.format} file, expected JPEG or PNG"
    return None


def encoded(
    path: str, convert: bool = False, max_pixels: int = MAX_PIXELS
) -> tuple[bytes, int, int]:
    """The bytes to store with height and width: the file's own, whenever possible.

    Args:
      convert: makes an upright 8-bit RGB PNG of what cannot be stored as found.

    Raises:
      ValueError: as `inspect`; with `convert`, only what cannot be read.
    """
    with _open(path, max_pixels) as image:
        reason = unusual(image)
        if reason is None:
            return pathlib.Path(path).read_bytes(), image.height, image.width
        if not convert:
            raise ValueError(f"{path}: {reason}")
        upright = _upright(path, image)
        buffer = io.BytesIO()
        upright.save(buffer, "PNG")
        return buffer.getvalue(), upright.height, upright.width


def _open(path: str, max_pixels: int) -> Image.Image:
    """Opens the file and reads its header; nothing is decoded yet."""
    file = pathlib.Path(path)
    if not file.is_file():
        raise ValueError(f"{path}: no such file")
    if file.stat().st_size == 0:
        raise ValueError(f"{path}: empty, zero bytes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file)
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: {error}") from error
    except Exception as error:  # Damage surfaces in Pillow as nearly any exception.
        raise ValueError(f"{path}: not an image, or its head is damaged") from error
    if image.width * image.height > max_pixels:
        image.close()
        raise ValueError(
            f"{path}: {image.width} x {image.height} is more than {max_pixels} pixels"
        )
    return image


def _decode(path: str, image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:
        raise ValueError(f"{path}: truncated or damaged ({error})") from error


def _upright(path: str, image: Image.Image) -> Image.Image:
    _decode(path, image)
    if image.mode[0] in "IF":  # convert() would clip at 255 rather than scale.
        values = np.asarray(image, np.float64)
        top = 65535.0 if values.max(initial=0.0) > 255 else 255.0
        image_8bit = Image.fromarray(np.uint8(np.clip(values / top, 0, 1) * 255 + 0.5))
        image_8bit.info.update(image.info)
        image = image_8bit
    return ImageOps.exif_transpose(image).convert("RGB")


def _png_depth(image: Image.Image) -> int:
    with open(image.filename, "rb") as file:
        return file.read(25)[24]  # Signature 8, IHDR 4 + 4, width 4, height 4, depth 1.
