"""The face of one person who is known to be in an image (Sec. 4.1).

By the cascades that come with OpenCV. Unlike in `detect.detect_faces`, where a false
alarm is a person who is not there, somebody has to be here: whatever speaks for a face
counts, and the best of it is taken.
"""

from __future__ import annotations

import pathlib
import threading

import cv2
import numpy as np

# Where faces are above a torso box of FLIC, in widths of that box from its centre; of
# 98 % of its training people within 0.48 to the sides and 0.93 to 1.67 above.
_ABOVE, _REACH = 1.35, 1.0
# There the image is scaled to this width of the torso box, of which a face is a quarter
# to all, as detected.
_TORSO_WIDTH = 100
# Whole images are looked at no larger than this; the person who is meant has a face of
# at least that share of the shorter side.
_LARGEST, _LEAST = 1024, 0.09
# Steps between sizes, and the number of detections that must agree. Above a torso there
# is hardly anything else to be found, so that more can be let through.
_NEAR, _ANYWHERE = (1.05, 3), (1.1, 6)

_cascades = threading.local()


def likeliest_face(
    image: np.ndarray, torso: np.ndarray | None = None
) -> tuple[np.ndarray, int]:
    """The face of the one person who is meant, seen from the front or in profile.

    Args:
      image: [H, W, 3] uint8 RGB.
      torso: [4] pixels, a torso as detected for FLIC: the face is sought above it. If
        left out or all zeros, it is sought in the whole image.

    Returns:
      [4] float32 pixels, of several faces the one on which most detections agree; all
      zeros if there is none. And the number of faces there were to choose from.
    """
    height, width = image.shape[:2]
    if torso is None or not np.any(torso):
        region = np.array([0, 0, width, height])
        scale, how = min(1.0, _LARGEST / max(height, width)), _ANYWHERE
        sizes = max(20, round(_LEAST * scale * min(height, width))), _LARGEST
    else:
        region, side = _above(torso), torso[2] - torso[0]
        region = np.clip(region, 0, [width, height, width, height]).astype(int)
        scale, how = _TORSO_WIDTH / side, _NEAR
        sizes = _TORSO_WIDTH // 4, round(1.1 * _TORSO_WIDTH)
    part = image[region[1] : region[3], region[0] : region[2]]
    if min(part.shape[:2]) * scale < sizes[0]:
        return np.zeros(4, np.float32), 0
    gray, factors = _gray(part, scale)
    faces = _merged(*_detect(gray, how, sizes))
    if not faces:
        return np.zeros(4, np.float32), 0
    box = faces[0] / factors + np.tile(region[:2], 2)
    return box.astype(np.float32), len(faces)


def _above(torso):
    """[4] pixels: where the face that belongs to a torso has to be."""
    torso = np.asarray(torso, np.float64)
    side = torso[2] - torso[0]
    center = (torso[:2] + torso[2:]) / 2 - [0, _ABOVE * side]
    return np.concatenate([center - _REACH * side, center + _REACH * side])


def _gray(part, scale):
    """Gray values at about that scale, and the factors [4] to it from `part`."""
    height, width = part.shape[:2]
    size = max(1, round(width * scale)), max(1, round(height * scale))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    gray = cv2.cvtColor(
        cv2.resize(part, size, interpolation=smooth), cv2.COLOR_RGB2GRAY
    )
    return cv2.equalizeHist(gray), np.tile([size[0] / width, size[1] / height], 2)


def _detect(gray, how, sizes):
    """Faces from the front, turned to the left and, in the mirror image, to the right:
    corners [N, 4], and how many detections agree on each, [N]."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # What is found depends on their number, and varies with it.
    try:
        front = _detections("haarcascade_frontalface_default.xml", gray, how, sizes)
        profile, how = "haarcascade_profileface.xml", (1.1, min(how[1], 3))
        left = _detections(profile, gray, how, sizes)
        flipped = np.ascontiguousarray(gray[:, ::-1])
        boxes, votes = _detections(profile, flipped, how, sizes)
    finally:
        cv2.setNumThreads(threads)
    boxes[:, [0, 2]] = gray.shape[1] - boxes[:, [2, 0]]
    return tuple(map(np.concatenate, zip(front, left, (boxes, votes), strict=True)))


def _detections(name, gray, how, sizes):
    """As `_detect`, by one of OpenCV's cascades."""
    step, agree = how
    least, most = ((size, size) for size in sizes)
    found, votes = _cascade(name).detectMultiScale2(
        gray, scaleFactor=step, minNeighbors=agree, minSize=least, maxSize=most
    )
    boxes = np.array(found, np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes, np.array(votes, np.float64).ravel()


def _merged(boxes, votes) -> list[np.ndarray]:
    """Boxes [4] of different faces, most votes first; of one face their mean."""
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
    return [box for _, box in sorted(faces, key=lambda face: -face[0])]


def _cascade(name):
    """One of OpenCV's; each thread needs its own, they keep what they work on."""
    own = vars(_cascades)
    if name not in own:
        path = pathlib.Path(cv2.data.haarcascades) / name
        own[name] = cv2.CascadeClassifier(str(path))
    return own[name]
