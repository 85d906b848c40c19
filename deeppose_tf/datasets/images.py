"""Image files: reading them upright as RGB, and the checks before they are stored.

Records hold images as they were found, and TensorFlow decodes them. So what is stored
must be what every decoder agrees on: 8-bit RGB, JPEG or PNG, upright as it stands.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pathlib
import threading
import warnings

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 50_000_000
MAX_DECODED = 178_956_970  # Pillow opens nothing larger.
# Ends of the names of photos; also of those that need a package, or converting.
RAW = (
    ".3fr .arw .cr2 .cr3 .crw .dng .erf .iiq .kdc .mrw .nef .nrw .orf .pef .raf .raw "
    ".rw2 .rwl .sr2 .srf .srw .x3f"
).split()
SUFFIXES = (
    *".apng .avif .avifs .bmp .dib .gif .heic .heics .heif .hif .j2c .j2k".split(),
    *".jfif .jp2 .jpe .jpeg .jpf .jpg .jpx .jxl .mpo .pbm .pgm .png .pnm".split(),
    *".ppm .tga .tif .tiff .webp".split(),
    *RAW,
)
# The same by content, for files whose names do not say it.
_COMMON = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "TIFF", "WEBP")
_HEIC = b"heic heix heim heis hevc hevx mif1 msf1".split()

TURNED = "EXIF turns it, and labels may belong to either view"
_ORIENTATION = 0x0112  # The EXIF tag; 1 is upright.
_FORMATS = ("JPEG", "MPO", "PNG")  # MPO: the JPEG of some cameras, with a second view.

_WARNINGS = threading.Lock()


class Unusual(ValueError):
    """A sound image that cannot be stored as found; `encoded` can convert it."""


def read_image(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An image file of any usual kind as [H, W, 3] uint8 RGB, upright as EXIF says.

    Raises:
      ValueError: missing, empty, truncated, no image, or over `max_pixels`; names the
        file and the reason.
    """
    with _open(path, max_pixels) as image:
        return np.array(_upright(path, image))


def is_image(path: str) -> bool:
    """Whether a file is a photo by its first bytes, whatever it is called."""
    try:
        with Image.open(path, formats=_COMMON):
            return True
    except Exception:  # As in `_open`.
        return _foreign(path) is not None


def inspect(path: str, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width of an image that can be stored as found; decodes all of it.

    Raises:
      Unusual: decoders do not agree on it: grayscale, CMYK, palette, 16-bit, turned
        by EXIF, neither JPEG nor PNG.
      ValueError: as `read_image`.
    """
    with _open(path, max_pixels) as image:
        _decode(path, image)
        _require_usual(path, image)
        return image.height, image.width


def encoded(path: str, convert: bool = False) -> tuple[bytes, int, int]:
    """The bytes to store with height and width: the file's own, whenever possible.

    Args:
      convert: makes an upright 8-bit RGB PNG of what cannot be stored as found.

    Raises:
      Unusual: as `inspect`, unless `convert`.
      ValueError: as `read_image`; what is stored as found is not decoded.
    """
    with _open(path, MAX_DECODED) as image:
        try:
            _require_usual(path, image)
        except Unusual:
            if not convert:
                raise
            image = _upright(path, image)
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            return buffer.getvalue(), image.height, image.width
        return pathlib.Path(path).read_bytes(), image.height, image.width


def size(encoded: bytes) -> tuple[int, int]:
    """Height and width of an image that `encoded` gave."""
    with _opened(io.BytesIO(encoded)) as image:
        return image.height, image.width


def _opened(source) -> Image.Image:
    """The image of a file, of which the header is read, however large it is."""
    # What is warned of is a matter of the process, and images are read by threads.
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(source)


def _require_usual(path: str, image: Image.Image) -> None:
    mode, form = image.mode, image.format
    names = dict.fromkeys(("1", "L", "LA"), "grayscale") | {"P": "palette colours"}
    if mode[0] in "IF" or form == "PNG" and _png_depth(image) == 16:
        raise Unusual(f"{path}: more than 8 bits a channel")
    if mode not in ("RGB", "RGBA"):
        colours = names.get(mode, f"{mode} colours")
        raise Unusual(f"{path}: {colours}, expected RGB")
    if _turned(image):
        raise Unusual(f"{path}: {TURNED}")
    if form not in _FORMATS:
        raise Unusual(f"{path}: a {form} file, expected JPEG or PNG")


def _open(path: str, max_pixels: int) -> Image.Image:
    """Opens the file and reads its header; nothing is decoded yet."""
    file = pathlib.Path(path)
    if file.is_dir():
        raise ValueError(f"{path}: a folder, expected an image")
    if not file.is_file():
        raise ValueError(f"{path}: no such file")
    if file.stat().st_size == 0:
        raise ValueError(f"{path}: empty, zero bytes")
    if file.suffix.lower() in RAW:  # Pillow would take the thumbnail for the photo.
        raise ValueError(
            f"{path}: raw data of a camera. Develop it to a JPEG, as the camera's own "
            "program or the package rawpy do"
        )
    try:
        _register_heic()
        image = _opened(file)  # its size is judged below
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: too large. {error}") from error
    except PermissionError as error:
        raise ValueError(f"{path}: no permission to read it") from error
    except Exception as error:  # Damage surfaces in Pillow as nearly any exception.
        reason = _foreign(path) or "not an image, or its header is damaged"
        raise ValueError(f"{path}: {reason}") from error
    if image.format == "EPS":  # Pillow would have Ghostscript run it.
        image.close()
        raise ValueError(f"{path}: PostScript, a program: convert it to PNG or JPEG")
    if image.width * image.height > max_pixels:
        image.close()
        raise ValueError(
            f"{path}: too large, {image.width} x {image.height} is more than "
            f"{max_pixels} pixels, see --max_pixels"
        )
    return image


@functools.cache
def _register_heic() -> None:
    """Has Pillow read HEIC where a package that can is installed."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()


def _foreign(path: str) -> str | None:
    """What a file is that Pillow alone does not read, and what reads it."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return None
    if head[4:8] == b"ftyp" and head[8:] in _HEIC:
        return "HEIC, which the package pillow-heif reads: pip install pillow-heif"
    if head[4:8] == b"ftyp" and head[8:] in (b"avif", b"avis"):
        return "AVIF, which newer versions of Pillow read: pip install -U Pillow"
    if head == b"\0\0\0\x0cJXL \r\n\x87\n" or head[:2] == b"\xff\x0a":
        return "JPEG XL, which Pillow does not read: convert it to PNG or JPEG"
    return None


def _decode(path: str, image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # As above.
        raise ValueError(f"{path}: truncated or damaged ({error})") from error


def _upright(path: str, image: Image.Image) -> Image.Image:
    """The decoded image as 8-bit RGB, turned as EXIF says."""
    _decode(path, image)
    upright = ImageOps.exif_transpose(image) if _turned(image) else image
    if upright.mode[0] in "IF":  # Pillow would clip at 255 rather than scale.
        values = np.asarray(upright, np.float64)
        top = 65535.0 if values.max(initial=0.0) > 255 else 255.0
        upright = Image.fromarray(np.uint8(np.clip(values / top, 0, 1) * 255 + 0.5))
    if upright.mode == "P":  # Pillow warns where a palette has transparency.
        upright = upright.convert("RGBA")
    return upright.convert("RGB")


def _turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, 1) not in (0, 1)
    except Exception:  # A damaged EXIF block says nothing; the pixels may be sound.
        return False


def _png_depth(image: Image.Image) -> int:
    with open(image.filename, "rb") as file:
        return file.read(25)[24]  # Signature 8, IHDR 4 + 4, width 4, height 4, depth 1.
