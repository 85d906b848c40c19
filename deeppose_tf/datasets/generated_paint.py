"""Paint of the generated data set: polygons filled with flat or woven colour.

Everything is anti-aliased at fractional pixels. Coordinates are the project's:
continuous, pixel centres at +0.5.
"""

from __future__ import annotations

import colorsys
import dataclasses
import functools
import math

import cv2
import numpy as np

SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
WEAVES = ("plain", "plain", "rows", "columns", "checks", "blotches", "dots")


@dataclasses.dataclass(frozen=True)
class Canvas:
    """An image under work.

    Attributes:
      image: [H, W, 3] uint8 RGB.
      owner: [H, W] uint8: the number of the part that was painted last.
    """

    image: np.ndarray
    owner: np.ndarray


@dataclasses.dataclass(frozen=True)
class Part:
    """An outline of a body that is yet to be painted.

    Attributes:
      depth: pixels; the nearest is painted last.
      joints: names of the joints that are seen where this part is seen.
      outline, fill, matrix: see `paint`.
    """

    depth: float
    joints: tuple[str, ...]
    outline: np.ndarray
    fill: np.ndarray
    matrix: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Fabric:
    """A pattern of two colours; one unit of `period` is about one pixel."""

    weave: str
    base: np.ndarray
    other: np.ndarray
    period: float
    grain: float


def sample_color(rng, saturation=(0.5, 0.95), value=(0.35, 1.0)) -> np.ndarray:
    """[3] float32 RGB in 0..255, of any hue."""
    hue, strength, brightness = rng.random(3)
    low, high = saturation
    dark, bright = value
    pure = colorsys.hsv_to_rgb(
        hue, low + (high - low) * strength, dark + (bright - dark) * brightness
    )
    return np.array(pure, np.float32) * 255


def sample_fabric(rng, saturation=(0.5, 0.95), value=(0.35, 1.0)) -> Fabric:
    """A random pattern in two random colours."""
    return Fabric(
        WEAVES[rng.integers(len(WEAVES))],
        sample_color(rng, saturation, value),
        sample_color(rng, saturation, value),
        rng.uniform(6, 16),
        rng.uniform(2, 12),
    )


def plain(color) -> Fabric:
    """One colour without pattern or grain."""
    color = np.asarray(color, np.float32)
    return Fabric("plain", color, color, 8, 0)


@functools.lru_cache(maxsize=1)
def noise() -> np.ndarray:
    """[512, 512, 3] float32 normal noise, the same for every image (it is dear)."""
    rng = np.random.Generator(np.random.PCG64(0))
    return rng.standard_normal((512, 512, 3)).astype(np.float32)


@functools.lru_cache(maxsize=1)
def _clouds() -> np.ndarray:
    """[512, 512] float32 smooth noise, zero on average."""
    return cv2.resize(noise()[:64, :64, 0], (512, 512), interpolation=cv2.INTER_CUBIC)


def weave(fabric: Fabric, height: int, width: int) -> np.ndarray:
    """[height, width, 3] float32 RGB cloth."""
    grain = fabric.grain * noise()[:height, :width]
    if fabric.weave == "plain":
        return fabric.base + grain
    row = np.arange(height)[:, None] / fabric.period
    column = (np.arange(width)[None] - width / 2) / fabric.period
    rows, columns = row % 1 < 0.5, column % 1 < 0.5
    if fabric.weave == "rows":
        pattern = rows
    elif fabric.weave == "columns":
        pattern = columns
    elif fabric.weave == "checks":
        pattern = rows ^ columns
    elif fabric.weave == "dots":
        pattern = (row % 1 - 0.5) ** 2 + (column % 1 - 0.5) ** 2 < 0.1
    else:
        pattern = _clouds()[:height, :width] > 0.2
    return np.where(pattern[..., None], fabric.other, fabric.base) + grain


def shade(cloth: np.ndarray, lit: float = 0.0, span: float = 1.0) -> np.ndarray:
    """uint8 cloth round a cylinder: darker towards both sides, one side lit.

    Args:
      cloth: [H, W, 3] float32.
      lit: how much brighter the right side is than the left, -0.3 .. 0.3.
      span: the cylinder's width as a part of the cloth's.
    """
    across = (np.arange(cloth.shape[1]) + 0.5) / cloth.shape[1] * 2 - 1
    across = np.clip(across / span, -1, 1)
    profile = 0.58 + 0.46 * np.sqrt(1 - 0.97 * across**2) + lit * across
    return to_bytes(cloth * profile.astype(np.float32)[None, :, None])


def to_bytes(cloth: np.ndarray) -> np.ndarray:
    """uint8 of a float cloth, clipped to 0..255."""
    return np.minimum(np.maximum(cloth, 0), 255).astype(np.uint8)


def circle(count: int = 16) -> np.ndarray:
    """[count, 2] points on the unit circle."""
    angle = np.arange(count) * (2 * math.pi / count)
    return np.stack([np.cos(angle), np.sin(angle)], 1)


_CIRCLE = circle()


def disc(center, radius) -> np.ndarray:
    """[16, 2] circle, or ellipse along the axes if `radius` is (x, y)."""
    return np.asarray(center)[:2] + _CIRCLE * radius


def capsule(start, end, radius_start: float, radius_end: float) -> np.ndarray:
    """[N, 2] outline of a limb with round ends."""
    return hull(disc(start, radius_start), disc(end, radius_end))


def hull(*outlines) -> np.ndarray:
    """[N, 2] convex outline round several outlines."""
    points = np.concatenate(outlines).astype(np.float32)
    return cv2.convexHull(points)[:, 0]


def frame(start, end, radius: float, shape, side=None) -> np.ndarray:
    """[2, 3] from pixels of the image to pixels of a cloth laid along a limb.

    Args:
      start: [2] where the cloth's first row lies; `end`: where its last row lies.
      radius: half the width of the cloth.
      shape: of the cloth, (rows, columns, ...).
      side: [2] direction that the columns count towards, roughly; any if None.
    """
    x, y = float(start[0]), float(start[1])
    dx, dy = float(end[0]) - x, float(end[1]) - y
    length = max(math.hypot(dx, dy), 1e-3)
    # A limb that points at the camera would stretch its cloth to a smear.
    row = shape[0] / length / max(length, radius)
    column = shape[1] / length / (2 * radius)
    if side is not None and -dy * side[0] + dx * side[1] < 0:
        column = -column
    a, b, c, d = -dy * column, dx * column, dx * row, dy * row
    return np.array([[a, b, 0.5 * shape[1] - a * x - b * y], [c, d, -c * x - d * y]])


def paint(canvas: Canvas, outline, fill, number: int, matrix=None) -> None:
    """Fills a convex outline, in place.

    Args:
      canvas: is changed.
      outline: [N, 2] pixels.
      fill: [3] a colour, or with `matrix` a cloth, [H, W, 3] uint8.
      number: what `canvas.owner` becomes under the outline.
      matrix: [2, 3] from the image to the cloth, see `frame`.
    """
    # OpenCV puts whole numbers on the centres of pixels; we put them on corners.
    fixed = np.rint((outline - 0.5) * 2**SHIFT).astype(np.int32)
    cv2.fillConvexPoly(canvas.owner, fixed, number, cv2.LINE_8, SHIFT)
    if matrix is None:
        color = tuple(float(c) for c in fill)
        cv2.fillConvexPoly(canvas.image, fixed, color, cv2.LINE_AA, SHIFT)
        return
    height, width = canvas.owner.shape
    x, y, w, h = cv2.boundingRect(fixed >> SHIFT)
    x0, y0, x1, y1 = max(x - 1, 0), max(y - 1, 0), min(x + w + 1, width), y + h + 1
    y1 = min(y1, height)
    if x0 >= x1 or y0 >= y1:
        return
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    fixed = fixed - np.array([x0, y0], np.int32) * 2**SHIFT
    cv2.fillConvexPoly(mask, fixed, 255, cv2.LINE_AA, SHIFT)
    # From pixel indices of the patch to pixel indices of the cloth.
    local = matrix.copy()
    local[:, 2] += matrix[:, :2] @ (x0 + 0.5, y0 + 0.5) - 0.5
    cloth = cv2.warpAffine(
        fill,
        local,
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    patch = canvas.image[y0:y1, x0:x1]
    weight = mask.astype(np.float32)
    patch[...] = cv2.blendLinear(cloth, patch, weight, 255 - weight)
