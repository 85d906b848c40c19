"""People of the generated data set: a posed body in clothes, painted by depth.

What tells left from right is drawn: face, hair, shirt print, backpack, shoes. What
tells where a joint is, too: cuffs, socks, elbow and knee patches, collar.
"""

from __future__ import annotations

import cv2
import numpy as np

from deeppose_tf.datasets import generated_paint as paint
from deeppose_tf.datasets.generated_figure import SIDES, Figure
from deeppose_tf.datasets.generated_head import head_parts
from deeppose_tf.datasets.generated_outfit import Outfit
from deeppose_tf.datasets.generated_paint import Part
from deeppose_tf.skeleton import LSP

# Name: from, to, radius at both ends (lengths as in generated_figure), depth bias.
LIMBS = {
    "upper_arm": ("shoulder", "elbow", 0.056, 0.044, 0.07),
    "lower_arm": ("elbow", "wrist", 0.044, 0.031, 0.08),
    "upper_leg": ("hip", "knee", 0.084, 0.056, -0.02),
    "lower_leg": ("knee", "ankle", 0.058, 0.037, -0.01),
}


def paint_figure(canvas: paint.Canvas, figure: Figure, outfit: Outfit) -> list[Part]:
    """Paints a person, in place; part i becomes number i + 1 of `canvas.owner`."""
    parts = _trunk(figure, outfit) + head_parts(figure, outfit)
    for side, _ in SIDES:
        parts += _arm(figure, outfit, side) + _leg(figure, outfit, side)
    parts.sort(key=lambda part: part.depth)  # stable: details stay on their limb
    for number, part in enumerate(parts, 1):
        paint.paint(canvas, part.outline, part.fill, number, part.matrix)
    return parts


def hidden(canvas: paint.Canvas, figure: Figure, parts: list[Part]) -> np.ndarray:
    """[14] bool: another part, or something in front, was painted over the joint."""
    keypoints = figure.keypoints.copy()
    top, neck = LSP.joints.index("head_top"), LSP.joints.index("neck")
    keypoints[top] += 0.1 * (keypoints[neck] - keypoints[top])  # it is on the rim
    columns, rows = np.floor(keypoints).astype(int).T
    owners = canvas.owner[rows, columns]
    return np.array(
        [
            not 1 <= owner <= len(parts) or name not in parts[owner - 1].joints
            for name, owner in zip(LSP.joints, owners, strict=True)
        ]
    )


def _limb(figure, outfit, side, name, garment) -> Part:
    """A tapered limb in cloth as far as it is covered, and skin beyond."""
    start, end, wide, narrow, bias = LIMBS[name]
    start, end = f"{side}_{start}", f"{side}_{end}"
    a, b = figure.points[start], figure.points[end]
    covered = outfit.covered[name]
    unit = figure.scale * figure.build * (1 + 0.12 * (covered == 1))
    rows, columns = (44, 18) if "leg" in name else (30, 12)
    cloth = paint.weave(garment, rows, columns)
    cloth[round(rows * covered) :] = outfit.skin
    cloth = paint.shade(cloth, 0.12)
    matrix = paint.frame(a, b, wide * unit, cloth.shape, outfit.light)
    return Part(
        (a[2] + b[2]) / 2 + bias * figure.scale,
        (start, end),
        paint.capsule(a, b, wide * unit, narrow * unit),
        cloth,
        matrix,
    )


def _band(figure, joint, toward, radius, color, depth) -> Part:
    """A cuff or sock round a limb at a joint."""
    unit = figure.scale * figure.build
    center = figure.points[joint][:2]
    along = figure.points[toward][:2] - center
    along = along / max(np.hypot(*along), 1e-3)
    across = np.array([-along[1], along[0]])
    along, across = along * 0.014 * unit, across * radius * unit
    corners = [along + across, along - across, -along - across, -along + across]
    return Part(depth, (joint,), center + np.array(corners), color)


def _patch(figure, joint, radius, color, above: Part) -> Part:
    """A round patch on an elbow or a knee."""
    outline = paint.disc(figure.points[joint], radius * figure.scale * figure.build)
    return Part(above.depth + 1e-3, (joint,), outline, color)


def _arm(figure, outfit, side) -> list[Part]:
    upper = _limb(figure, outfit, side, "upper_arm", outfit.shirt)
    lower = _limb(figure, outfit, side, "lower_arm", outfit.shirt)
    elbow, wrist = f"{side}_elbow", f"{side}_wrist"
    nearer = max(upper, lower, key=lambda part: part.depth)
    unit = figure.scale * figure.build
    hand = paint.capsule(
        figure.points[wrist], figure.points[f"{side}_hand"], 0.026 * unit, 0.036 * unit
    )
    return [
        upper,
        lower,
        _patch(figure, elbow, 0.024, outfit.cues["elbow"], nearer),
        Part(lower.depth, (wrist,), hand, outfit.skin),
        _band(figure, wrist, elbow, 0.037, outfit.cues["wrist"], lower.depth),
    ]


def _leg(figure, outfit, side) -> list[Part]:
    upper = _limb(figure, outfit, side, "upper_leg", outfit.trousers)
    lower = _limb(figure, outfit, side, "lower_leg", outfit.trousers)
    knee, ankle, toe = f"{side}_knee", f"{side}_ankle", f"{side}_toe"
    nearer = max(upper, lower, key=lambda part: part.depth)
    unit = figure.scale * figure.build
    heel, tip = figure.points[ankle], figure.points[toe]
    # A foot that points at the viewer covers its shin, one that points away does not.
    depth = lower.depth + (1e-3 if tip[2] > heel[2] else -1e-3)
    sock = max(depth, lower.depth)
    sole = paint.capsule(heel, tip, 0.046 * unit, 0.042 * unit)
    shoe = paint.capsule(heel, tip + 0.1 * (heel - tip), 0.042 * unit, 0.032 * unit)
    return [
        upper,
        lower,
        _patch(figure, knee, 0.03, outfit.cues["knee"], nearer),
        Part(depth, (ankle,), sole, outfit.sole),
        Part(depth, (ankle,), shoe, outfit.shoe),
        _band(figure, ankle, knee, 0.042, outfit.cues["ankle"], sock),
    ]


def _trunk(figure, outfit) -> list[Part]:
    """Pelvis, shirt with its print, and perhaps a backpack."""
    points, unit = figure.points, figure.scale * figure.build
    shoulders = [points[f"{side}_shoulder"] for side, _ in SIDES]
    hips = [points[f"{side}_hip"] for side, _ in SIDES]
    waist, neck = points["waist"], points["neck"]
    middle = np.mean(hips, axis=0)
    left, _, forwards = figure.chest.T
    belly = [waist + 0.6 * (hip - middle) for hip in hips]
    pelvis = paint.hull(*(paint.disc(p, 0.083 * unit) for p in hips + belly))
    hem = [point + 0.5 * (hip - point) for point, hip in zip(belly, hips, strict=True)]
    shirt = paint.hull(
        *(paint.disc(p, 0.06 * unit) for p in shoulders),
        *(paint.disc(p, 0.088 * unit) for p in hem),
    )
    joints = ("left_hip", "right_hip")
    depth = np.mean([p[2] for p in shoulders + hips])
    width = 0.5 * np.hypot(*(shoulders[0] - shoulders[1])[:2]) + 0.05 * unit
    width = max(width, 0.1 * unit)
    lit = 0.12 * np.sign(left[:2] @ outfit.light)
    cloth = paint.shade(_printed(outfit, forwards, left, width / unit), lit, 0.5)
    matrix = paint.frame(neck, middle, 2 * width, cloth.shape, left[:2])
    upper = joints + ("left_shoulder", "right_shoulder", "neck")
    legs = paint.shade(paint.weave(outfit.trousers, 24, 40))
    pelvis_matrix = paint.frame(waist, middle, width, legs.shape, left[:2])
    parts = [
        Part(middle[2], joints, pelvis, legs, pelvis_matrix),
        Part(depth + 0.02 * figure.scale, upper, shirt, cloth, matrix),
    ]
    if outfit.backpack is not None:
        back = points["back"]
        up = 0.09 * figure.scale * figure.chest[:2, 1]
        bag = paint.capsule(back[:2] + up, back[:2] - up, 0.1 * unit, 0.11 * unit)
        pocket = paint.disc(back[:2] - 0.5 * up, 0.055 * unit)
        parts.append(Part(back[2], (), bag, outfit.backpack))
        parts.append(Part(back[2], (), pocket, outfit.backpack * 0.7))
    return parts


def _printed(outfit, forwards, left, width) -> np.ndarray:
    """[50, 88, 3] shirt cloth, twice as wide as the body, printed on the side seen."""
    cloth = np.array(paint.weave(outfit.shirt, 50, 88), np.float32)
    turned = abs(float(forwards[2]))
    if turned < 0.25:
        return cloth
    # In a half turn the print slides towards the side that the chest faces.
    facing = 1 if forwards[2] > 0 else -1
    sideways = facing * float(forwards[:2] @ left[:2]) / max(np.hypot(*left[:2]), 0.1)
    center = int(44 + 22 * 0.1 * sideways / width)
    color, half = tuple(float(c) for c in outfit.print_color), max(int(11 * turned), 2)
    if facing > 0:  # a badge on the chest over buttons
        cv2.ellipse(cloth, (center, 16), (half, 8), 0, 0, 360, color, -1)
        for row in range(27, 50, 6):
            cv2.circle(cloth, (center, row), 1, color, -1)
    else:  # a broad bar between the shoulder blades
        cv2.rectangle(cloth, (center - half, 10), (center + half, 16), color, -1)
    return cloth
