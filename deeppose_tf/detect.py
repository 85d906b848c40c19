"""First boxes for images without labels: the whole image, a face, HOG, or a file.

The detectors are the ones that come with OpenCV; nothing is downloaded. Boxes are
[x0, y0, x1, y1] in pixels, [N, 4] for N people. Where nobody is found the caller takes
`WHOLE_IMAGE`, and says so.
"""

from __future__ import annotations

import functools
import json
import pathlib
from collections.abc import Callable

import cv2
import numpy as np

from deeppose_tf.datasets import coco_results
from deeppose_tf.skeleton import Skeleton

# One box of zeros, which stands for the whole image everywhere in the project.
WHOLE_IMAGE = np.zeros((1, 4), np.float32)
# Enlargements of a face (see `enlarge`) that hold all labeled joints of 95 % of the
# people whose face is found: on the training parts of LSP (65 of 1000) and FLIC (179
# of 660). FLIC has no joint above the eyes; its box reaches up to the hair as well.
FULL_BODY = (3.7, 0.9, 9.4)
UPPER_BODY = (2.3, 0.7, 4.4)
# Detectors look at images no larger than this: people fill a good part of a photo.
_LARGEST = 1024
_HOG_WINDOW = (128, 64)  # height and width; a smaller image crashes OpenCV

# An image [H, W, 3] uint8 RGB and its name -> [N, 4] first boxes, pixels; N = 0 where
# nobody is, None where nobody was found and the whole image has to do.
Finder = Callable[[np.ndarray, str], np.ndarray | None]


def make_finder(
    how: str,
    skeleton: Skeleton,
    enlargement: tuple[float, float, float] | None = None,
) -> Finder:
    """A function that finds the first boxes of any image.

    Args:
      how: `full`, `face`, `hog`, or a JSON file, see `read_boxes`, in which an image
        is looked up by its name (of a frame `clip.mp4#12`, then `clip.mp4`), without
        folder or suffix if need be, or its number.
      skeleton: chooses the default enlargement of faces.
      enlargement: of faces, see `enlarge`.

    Returns:
      See `Finder`.

    Raises:
      ValueError: there is no such file, or it is not one of boxes.
    """
    if how == "full":
        return lambda image, name: WHOLE_IMAGE
    if how == "face":
        enlargement = enlargement or default_enlargement(skeleton)
        return lambda image, name: _or_none(face_boxes(image, enlargement))
    if how == "hog":
        return lambda image, name: _or_none(hog_boxes(image))
    if not pathlib.Path(how).is_file():
        raise ValueError(f"boxes {how!r}: not full, face or hog, and no such file")
    given = read_boxes(how)
    return lambda image, name: _given_boxes(given, name)


def face_boxes(
    image: np.ndarray, enlargement: tuple[float, float, float]
) -> np.ndarray:
    """Body boxes from faces, as the paper takes them on FLIC (Sec. 4.1).

    From an image [H, W, 3] uint8 RGB: [N, 4] float32 pixels, the largest face first.
    They may reach beyond the image. For `enlargement` see `enlarge`.
    """
    return enlarge(detect_faces(image), enlargement)


def detect_faces(image: np.ndarray) -> np.ndarray:
    """Frontal faces by OpenCV's cascade: [N, 4] float32 boxes, the largest first."""
    small, scale = _shrink(image)
    gray = cv2.equalizeHist(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
    # 20 px is the size it was trained on. Asking for 8 neighbours instead of the usual
    # 3 to 5 costs a quarter of the faces on LSP and two thirds of the false ones.
    found = _face_cascade().detectMultiScale(gray, 1.1, 8, minSize=(20, 20))
    return _corners(found, scale)


def enlarge(faces: np.ndarray, enlargement: tuple[float, float, float]) -> np.ndarray:
    """Enlarges face boxes by a fixed scaler to boxes of bodies (Sec. 4.1).

    Args:
      faces: [N, 4] pixels.
      enlargement: how far the body reaches from the middle of the face to either
        side, up and down, in widths of the face.

    Returns:
      [N, 4] float32 pixels.
    """
    side, up, down = enlargement
    centers, widths = _center_and_width(faces)
    reach = np.array([[-side, -up], [side, down]])  # two corners
    corners = centers[:, np.newaxis] + widths[:, np.newaxis, np.newaxis] * reach
    return corners.reshape(-1, 4).astype(np.float32)


def fit_enlargement(
    faces: np.ndarray,
    keypoints: np.ndarray,
    labeled: np.ndarray,
    coverage: float = 1.0,
) -> tuple[float, float, float]:
    """The enlargement with which the boxes contain all labeled joints (Sec. 4.1).

    The same to the left as to the right, because training mirrors images.

    Args:
      faces: [N, 4] pixels, one detected face of each training person.
      keypoints: [N, K, 2] pixels.
      labeled: [N, K] bool.
      coverage: the paper's is 1: everyone. Below it, that share of the people for
        each direction, so that one wrong detection does not spoil all boxes.

    Raises:
      ValueError: nobody has a labeled joint, or `coverage` is not within 0..1.
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage is {coverage}, expected a share within 0..1")
    people = np.any(labeled, axis=1)
    if not people.any():
        raise ValueError("no labeled joint: an enlargement needs labeled people")
    centers, widths = _center_and_width(np.asarray(faces)[people])
    offsets = np.asarray(keypoints, np.float64)[people] - centers[:, np.newaxis]
    offsets /= widths[:, np.newaxis, np.newaxis]  # [N, K, 2] in widths of the face
    x, y = offsets[..., 0], offsets[..., 1]
    reaches = np.stack([np.abs(x), -y, y])  # [3, N, K]
    farthest = np.where(labeled[people], reaches, -np.inf).max(axis=2)
    side, up, down = np.quantile(farthest, coverage, axis=1, method="higher")
    return float(side), float(up), float(down)


def default_enlargement(skeleton: Skeleton) -> tuple[float, float, float]:
    """`FULL_BODY`, or `UPPER_BODY` for a skeleton without legs."""
    legs = any(limb.type in ("upper_leg", "lower_leg") for limb in skeleton.limbs)
    return FULL_BODY if legs else UPPER_BODY


def hog_boxes(image: np.ndarray) -> np.ndarray:
    """Standing people by OpenCV's HOG detector: [N, 4] float32, the largest first.

    Its boxes keep a margin of about an eighth of their height around the person. It
    finds upright people of at least about 100 px only.

    Args:
      image: [H, W, 3] uint8 RGB.
    """
    small, scale = _shrink(image)
    height, width = small.shape[:2]
    below, beside = max(0, _HOG_WINDOW[0] - height), max(0, _HOG_WINDOW[1] - width)
    small = cv2.copyMakeBorder(small, 0, below, 0, beside, cv2.BORDER_REPLICATE)
    found, _ = _people_detector().detectMultiScale(
        cv2.cvtColor(small, cv2.COLOR_RGB2BGR),
        winStride=(8, 8),
        padding=(16, 16),
        scale=1.05,
    )
    return _corners(found, scale)


def read_boxes(path: str) -> dict[str, np.ndarray]:
    """Reads person boxes from a JSON file: {"photo.jpg": [[x0, y0, x1, y1], ...], ...},
    a `predictions.json`, or COCO annotations or detections (see `coco_results.boxes`).

    An empty list says that nobody is on that image.

    Returns:
      [N, 4] float32 pixels by file name.

    Raises:
      ValueError: not JSON of that form, or a box is not finite or has no size; names
        the file, the image and the box.
      OSError: the file cannot be read.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file: {error}") from error
    if coco_results.is_coco(content):
        content = coco_results.boxes(path)
    if not isinstance(content, dict):
        raise ValueError(
            f'{path}: expected {{"photo.jpg": [[x0, y0, x1, y1], ...], ...}}, got a '
            f"{type(content).__name__}"
        )
    return {name: _checked(path, name, boxes) for name, boxes in content.items()}


def _given_boxes(given, name):
    keys = coco_results.names(name)
    film, _, frame = name.rpartition("#")
    if frame.isdecimal():
        keys += coco_results.names(film)
    number = keys[-1].lstrip("0")  # COCO calls 000000000139.jpg image 139
    return next((given[key] for key in (*keys, number) if key in given), None)


def _or_none(boxes):
    return boxes if len(boxes) else None


def _checked(path, name, boxes):
    try:
        with np.errstate(over="ignore"):  # found below, as not finite
            array = np.array(boxes, np.float32).reshape(len(boxes), 4)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: {name!r}: expected a list of boxes [x0, y0, x1, y1] in pixels, "
            f"got {json.dumps(boxes)[:80]}"
        ) from error
    for i, box in enumerate(array):
        whole = not box.any()
        if not np.isfinite(box).all() or not (whole or (box[2:] > box[:2]).all()):
            raise ValueError(
                f"{path}: {name!r}, box {i}: {boxes[i]} has no size. A box is "
                "[x0, y0, x1, y1] with x1 > x0 and y1 > y0, or four zeros for the "
                "whole image"
            )
    return array


@functools.cache
def _face_cascade():
    folder = pathlib.Path(cv2.data.haarcascades)
    return cv2.CascadeClassifier(str(folder / "haarcascade_frontalface_default.xml"))


@functools.cache
def _people_detector():
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())
    return detector


def _shrink(image):
    """The image at a size fit for detectors, and [4] factors back to its pixels."""
    height, width = image.shape[:2]
    scale = min(1.0, _LARGEST / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small, np.tile([width / size[0], height / size[1]], 2)


def _corners(found, scale):
    """Boxes from OpenCV's (x, y, width, height); whole pixels, so corners already."""
    found = np.array(found, np.float64).reshape(-1, 4)
    found = found[np.argsort(-found[:, 3], kind="stable")]
    corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], axis=1)
    return (corners * scale).astype(np.float32)


def _center_and_width(faces):
    faces = np.asarray(faces, np.float64).reshape(-1, 4)
    return (faces[:, :2] + faces[:, 2:]) / 2, faces[:, 2] - faces[:, 0]
