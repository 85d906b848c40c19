"""Heads of the generated data set: an ellipsoid whose face shows where it looks."""

from __future__ import annotations

import numpy as np

from deeppose_tf.datasets import generated_paint as paint
from deeppose_tf.datasets.generated_figure import HEAD, Figure
from deeppose_tf.datasets.generated_outfit import Outfit
from deeppose_tf.datasets.generated_paint import Part

JOINTS = ("head_top", "neck")
# Place on the unit sphere (left, up, forwards), radii, colour: eyes, pupils, mouth.
FEATURES = (
    ((-0.36, 0.1, 0.93), (0.019, 0.015), (245, 245, 245)),
    ((0.36, 0.1, 0.93), (0.019, 0.015), (245, 245, 245)),
    ((-0.36, 0.1, 0.94), (0.009, 0.009), (20, 20, 20)),
    ((0.36, 0.1, 0.94), (0.009, 0.009), (20, 20, 20)),
    ((0, -0.55, 0.83), (0.024, 0.01), (150, 40, 45)),
)


def head_parts(figure: Figure, outfit: Outfit) -> list[Part]:
    """Neck, collar, hair, and of the face what is turned to the camera."""
    points, unit = figure.points, figure.scale
    center, neck = points["head"], points["neck"]
    matrix = figure.head @ np.diag(HEAD) * unit  # unit sphere -> camera
    rim = np.linalg.cholesky((matrix @ matrix.T)[:2, :2])  # unit circle -> outline
    depth = (center[2] + neck[2]) / 2 + 0.05 * unit
    outline = center[:2] + paint.circle(24) @ rim.T
    throat = paint.capsule(neck, center, 0.05 * unit, 0.045 * unit)
    collar = paint.disc(neck, np.array([0.06, 0.035]) * unit)
    parts = [
        Part(depth, ("neck",), collar, outfit.cues["collar"]),
        Part(depth, ("neck",), throat, outfit.skin * 0.85),
        Part(depth, JOINTS, outline, outfit.hair),
    ]
    face = _face(figure.head, matrix, rim)
    if face is not None:
        parts.append(Part(depth, JOINTS, center[:2] + face, outfit.skin))
    nose = ((0, -0.15, 1.08), (0.018, 0.018), outfit.skin * 0.8)
    for place, radii, color in (nose, *FEATURES):
        if figure.head[2] @ (np.array(place) / HEAD) > 0:
            spot = center[:2] + matrix[:2] @ place
            disc = paint.disc(spot, np.multiply(radii, unit))
            parts.append(Part(depth, JOINTS, disc, np.array(color)))
    if outfit.long_hair:
        back = center - 0.05 * unit * figure.head[:, 2]
        down = center - unit * (0.06 * figure.head[:, 2] + 0.17 * figure.head[:, 1])
        tail = paint.capsule(back, down, 0.085 * unit, 0.06 * unit)
        behind = depth - 0.12 * unit * figure.head[2, 2]
        parts.append(Part(behind, ("neck",), tail, outfit.hair * 0.9))
    return parts


def _face(head, matrix, rim) -> np.ndarray | None:
    """[N, 2] outline of the face, cut where it turns away; None if unseen.

    It is a cap of the head's ellipsoid, 62 degrees round a little below forwards.
    """
    tilt, angle = np.radians(-16), np.radians(62)
    forwards = np.array([0, np.sin(tilt), np.cos(tilt)])
    across = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)]])
    ring = paint.circle(24) @ across * np.sin(angle) + forwards * np.cos(angle)
    away = (ring / HEAD) @ head[2] < 0  # [24]: the surface there faces away
    if away.all():
        return None
    seen = (ring @ matrix.T)[:, :2]
    on_rim = np.linalg.solve(rim, seen[away].T)
    seen[away] = (rim @ (on_rim / np.linalg.norm(on_rim, axis=0))).T
    return paint.hull(seen)
