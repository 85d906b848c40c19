"""Poses on images and contact sheets, as RGB arrays.

No TensorFlow and no windows. Coordinates are the project's: a joint at (0.5, 0.5)
lies on the centre of the first pixel, which OpenCV calls (0, 0).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np

from deeppose_tf import files
from deeppose_tf.skeleton import Skeleton

# Sides as the labels have them, told apart by the colour-blind too.
COLORS = {"left": (255, 150, 0), "right": (40, 130, 255), "middle": (240, 240, 240)}
TRUTH, PREDICTION = (0, 210, 0), (235, 30, 30)  # as in Fig. 6
DARK = (20, 20, 20)  # around what is to show on anything
FONT, SMALL = cv2.FONT_HERSHEY_SIMPLEX, 0.45
# A legend of `contact_sheet`, as `COLORS` is.
TRUTH_LEGEND = {"label": TRUTH, "prediction": PREDICTION}
# Joints of a lower score are drawn hollow: more likely wrong than right.
SURE = 0.5
# OpenCV takes fixed-point coordinates with this many bits behind the point.
_SHIFT = 4
# Far outside any image, and far inside the 32-bit integers that OpenCV takes.
_FAR = 1e5


def draw_pose(
    image: np.ndarray,
    keypoints: np.ndarray,
    skeleton: Skeleton,
    labeled: np.ndarray | None = None,
    color: tuple[int, int, int] | None = None,
    scores: np.ndarray | None = None,
) -> np.ndarray:
    """A copy of the image with the limbs and joints of one person.

    Args:
      image: [H, W, 3] uint8 RGB.
      keypoints: [K, 2] pixels of the image. What is not finite is not drawn.
      labeled: [K] bool; joints without a label, and their limbs, are not drawn.
      color: RGB for all of it. Without one left, right and middle have the
        colours of `COLORS`.
      scores: [K] in 0..1; joints below `SURE` are hollow, and their limbs thin. By
        default all are sure.
    """
    keypoints = np.asarray(keypoints, np.float64)
    sure = np.ones(len(keypoints)) if scores is None else np.asarray(scores)
    sure = sure >= SURE
    shown = np.isfinite(keypoints).all(axis=-1)
    if labeled is not None:
        shown &= np.asarray(labeled, bool)
    image = np.ascontiguousarray(image).copy()
    width = line_width(image)
    if shown.any():  # thinner on people far away
        extent = np.ptp(keypoints[shown], axis=0).max()
        width = max(1, min(width, round(min(extent, _FAR) / 40)))
    thin = max(1, width // 3)  # of what is unsure
    for limb in skeleton.limbs:
        if not shown[list(limb.start + limb.end)].all():
            continue
        start, end = (
            _fixed(keypoints[list(joints)].mean(axis=0))
            for joints in (limb.start, limb.end)
        )
        paint = color or COLORS[_side(limb.start + limb.end, skeleton)]
        wide = width if sure[list(limb.start + limb.end)].all() else thin
        cv2.line(image, start, end, paint, wide, cv2.LINE_AA, _SHIFT)
    for joint in np.flatnonzero(shown):
        paint = color or COLORS[skeleton.side(joint)]
        # With a dark rim, so that it shows on any clothing.
        disks = [(2 + width, DARK), (1 + width, paint), (1 + width - thin, DARK)]
        for radius, inside in disks[: 2 if sure[joint] else 3]:
            place, radius = _fixed(keypoints[joint]), radius << _SHIFT
            cv2.circle(image, place, radius, inside, -1, cv2.LINE_AA, _SHIFT)
    return image


def draw_names(
    image: np.ndarray,
    keypoints: np.ndarray,
    skeleton: Skeleton,
    labeled: np.ndarray,
    color: tuple[int, int, int] | None = None,
) -> np.ndarray:
    """A copy of the image with the name of each labeled joint beside it, right of it
    where there is room; arguments as of `draw_pose`."""
    image = np.ascontiguousarray(image).copy()
    for joint in np.flatnonzero(labeled):
        # OpenCV has letters of ASCII alone.
        name = skeleton.canonical[joint].encode("ascii", "replace").decode()
        x, y = (int(value) >> _SHIFT for value in _fixed(keypoints[joint]))
        wide = 7 + _width(name, 0.33)
        left = x + 5 if x + wide < image.shape[1] else max(x - wide, 2)
        paint = color or COLORS[skeleton.side(joint)]
        write(image, name, (left, y + 4), paint, 0.33)
    return image


def write(
    image: np.ndarray,
    text: str,
    place: tuple[int, int],
    color: tuple[int, int, int],
    size: float = 0.5,
) -> None:
    """Writes a word with a dark rim, in place, its lower left corner at (x, y)."""
    for width, paint in ((3, DARK), (1, color)):
        cv2.putText(image, text, place, FONT, size, paint, width, cv2.LINE_AA)


def draw_truth(
    image: np.ndarray,
    keypoints: np.ndarray,
    predicted: np.ndarray,
    labeled: np.ndarray,
    skeleton: Skeleton,
) -> np.ndarray:
    """A copy of the image with the truth in green and the prediction in red (Fig. 6).

    Args as `draw_pose`; all joints of `predicted` [K, 2], pixels, are drawn.
    """
    image = draw_pose(image, keypoints, skeleton, labeled, TRUTH)
    return draw_pose(image, predicted, skeleton, color=PREDICTION)


def draw_box(
    image: np.ndarray, box: np.ndarray, color: tuple[int, int, int]
) -> np.ndarray:
    """A copy of the image with the outline of a box [x0, y0, x1, y1], pixels."""
    image = np.ascontiguousarray(image).copy()
    corners = np.asarray(box, np.float64).reshape(2, 2)
    if np.isfinite(corners).all():
        start, end = (_fixed(corner) for corner in corners)
        width = max(1, line_width(image) // 2)
        cv2.rectangle(image, start, end, color, width, cv2.LINE_AA, _SHIFT)
    return image


def line_width(image: np.ndarray) -> int:
    """Pixels; one hundred-and-fiftieth of the image's longer side, at least 1."""
    return max(1, round(max(image.shape[:2]) / 150))


def contact_sheet(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    columns: int,
    cell: int = 260,
    legend: Mapping[str, tuple[int, int, int] | None] | None = None,
) -> np.ndarray:
    """Images in rows on white, each shrunk or enlarged to a cell, captions below. A row
    is as high as its highest image.

    Args:
      images: N of [H, W, 3] uint8 RGB, of any sizes.
      captions: N; printed smaller where they would not fit.
      cell: the side of the square that an image fills, pixels.
      legend: what colours mean, written on top; None for words without a colour.

    Raises:
      ValueError: there are no images, or not as many captions.
    """
    if not images or len(images) != len(captions):
        raise ValueError(f"{len(images)} images and {len(captions)} captions")
    gap, text = 6, 22
    fitted = [resize_to(image, cell)[0] for image in images]
    rows = [fitted[i : i + columns] for i in range(0, len(images), columns)]
    heights = [max(len(image) for image in row) for row in rows]
    first = text + gap if legend else gap
    tops = np.cumsum([first, *(height + text + gap for height in heights)])
    sheet = np.full((tops[-1], columns * (cell + gap) + gap, 3), 255, np.uint8)
    for i, (image, caption) in enumerate(zip(fitted, captions, strict=True)):
        row, column = divmod(i, columns)
        x, y = gap + column * (cell + gap), tops[row]
        h, w = image.shape[:2]
        top, left = y + (heights[row] - h) // 2, x + (cell - w) // 2
        sheet[top : top + h, left : left + w] = image
        _caption(sheet, caption, x, int(y) + heights[row] + text - 6, cell)
    if legend:
        _legend(sheet[: first - 2], legend, gap)
    return sheet


def cut(
    image: np.ndarray, points: Sequence[np.ndarray], side: int, margin: float
) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """What an image shows around points [..., 2], pixels, and a margin, a share of
    their extent; made `side` pixels long. And a function that takes points there."""
    shown = np.concatenate(points)
    shown = shown[np.isfinite(shown).all(axis=1)]
    size = np.array(image.shape[1::-1])
    low, high = (edge(shown, axis=0) for edge in (np.min, np.max))
    around = margin * (high - low).max()
    low = np.clip(np.floor(low - around), 0, size).astype(int)
    high = np.clip(np.ceil(high + around), 0, size).astype(int)
    if (high <= low).any():  # points beside the image
        low, high = np.zeros(2, int), size
    part = image[low[1] : high[1], low[0] : high[0]]
    cell, factors = resize_to(part, side)
    return cell, lambda some: (some - low) * factors


def resize_to(image: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """The image with its longer side made `side` pixels long, and the factors [2] by
    which (x, y) multiply to stay in place."""
    return resize_by(image, side / max(image.shape[:2]))


def resize_by(image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """As `resize_to`, to so many times its size."""
    height, width = image.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    factors = np.array([size[0] / width, size[1] / height])
    return cv2.resize(image, size, interpolation=smooth), factors


def write_image(path: str | os.PathLike, image: np.ndarray) -> None:
    """Writes [H, W, 3] uint8 RGB as PNG, whole or not at all.

    Raises:
      OSError: the file cannot be written.
    """
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    files.write_bytes(path, data.tobytes())


def _fixed(point):
    """OpenCV's fixed-point pixel coordinates of a point of the project's."""
    scaled = (np.clip(point, -_FAR, _FAR) - 0.5) * 2**_SHIFT
    return tuple(int(value) for value in np.rint(scaled))


def _side(joints, skeleton):
    """The side that the joints of a limb are on; `middle` if on both."""
    sides = {skeleton.side(joint) for joint in joints} - {"middle"}
    return sides.pop() if len(sides) == 1 else "middle"


def _legend(strip, legend, gap):
    """Swatches and words in a strip of white, made smaller where it is too short."""
    wide = sum(_width(word, SMALL) + 40 for word in legend) + gap
    line = np.full((len(strip), max(wide, strip.shape[1]), 3), 255, np.uint8)
    x, middle = gap, len(strip) // 2
    for word, color in legend.items():
        if color is not None:
            cv2.line(line, (x, middle), (x + 16, middle), DARK, 6)
            cv2.line(line, (x, middle), (x + 16, middle), color, 4)
            x += 22
        place = x, middle + 5
        cv2.putText(line, word, place, FONT, SMALL, (0, 0, 0), 1, cv2.LINE_AA)
        x += _width(word, SMALL) + 18
    part = resize_to(line, strip.shape[1])[0]
    strip[: len(part), : part.shape[1]] = part[: len(strip)]


def _caption(sheet, text, x, y, width):
    needed, scale = _width(text, SMALL), SMALL
    if needed > width:
        scale, needed = scale * width / needed, width
    place = x + (width - needed) // 2, y
    cv2.putText(sheet, text, place, FONT, scale, (0, 0, 0), 1, cv2.LINE_AA)


def _width(text, scale):
    return cv2.getTextSize(text, FONT, scale, 1)[0][0]
