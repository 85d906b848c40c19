"""People of the generated data set: a random pose with exact joints, and its painting.

Body coordinates: x to the person's left, y up, z forwards, lengths relative to a body
about 1.65 tall. Camera: x right, y down, z towards the viewer, orthographic; so who
faces the camera has the left hand at the right of the image. Face, hair and the shirt's
print tell left from right; cuffs, socks, patches and collar tell where a joint is.
"""

from __future__ import annotations

import colorsys
import dataclasses
import math
from typing import NamedTuple

import cv2
import numpy as np

from deeppose_tf.skeleton import LSP

SIDES = (("left", 1.0), ("right", -1.0))
HEAD = (0.088, 0.118, 0.1)  # half width, height and depth of the head
POSTURES = {"stand": 0.4, "stride": 0.27, "spread": 0.2, "crouch": 0.13}
ARMS = (  # odds; elevation from hanging, azimuth (0 out, 90 forwards), twist; degrees
    (0.45, (4, 30), (0, 60), (0, 80)),  # hanging
    (0.20, (55, 115), (-15, 40), (-110, 30)),  # out to the side
    (0.15, (35, 110), (45, 100), (-40, 60)),  # forwards
    (0.20, (125, 172), (-10, 60), (-60, 40)),  # raised
)
LEGS = {  # hip flexion, abduction and knee bend of the first leg and of the other one
    "stand": (((-8, 18), (0, 14), (2, 20)),) * 2,
    "stride": (((15, 65), (0, 12), (5, 70)), ((-30, 0), (0, 12), (5, 75))),
    "spread": (((-5, 45), (12, 50), (2, 70)), ((-10, 20), (8, 45), (2, 35))),
    "crouch": (((45, 100), (5, 35), (50, 120)), ((40, 95), (5, 35), (50, 120))),
}
# Limb: from, to, radius at both ends, depth bias.
LIMBS = {
    "upper_arm": ("shoulder", "elbow", 0.056, 0.044, 0.07),
    "lower_arm": ("elbow", "wrist", 0.044, 0.031, 0.08),
    "upper_leg": ("hip", "knee", 0.084, 0.056, -0.02),
    "lower_leg": ("knee", "ankle", 0.058, 0.037, -0.01),
}
# Kind of joint: radius of what marks it, a patch or half a band's width.
CUES = {"elbow": 0.024, "wrist": 0.037, "knee": 0.03, "ankle": 0.042}
SKINS = ((245, 208, 178), (224, 172, 132), (190, 132, 92), (141, 90, 60), (92, 58, 42))
HAIRS = ((28, 22, 20), (74, 48, 30), (140, 92, 48), (214, 178, 104), (160, 156, 150))
# Place on the unit sphere of the head (left, up, forwards), radii, colour.
FACE = (
    ((-0.36, 0.1, 0.93), (0.019, 0.015), (245, 245, 245)),
    ((0.36, 0.1, 0.93), (0.019, 0.015), (245, 245, 245)),
    ((-0.36, 0.1, 0.94), (0.009, 0.009), (20, 20, 20)),
    ((0.36, 0.1, 0.94), (0.009, 0.009), (20, 20, 20)),
    ((0, -0.55, 0.83), (0.024, 0.01), (150, 40, 45)),
)
SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_ANGLES = np.arange(16) * (math.pi / 8)
_CIRCLE = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1)


Points = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Person:
    """One posed body, seen by the camera.

    Attributes:
      points: name -> [3]: x and y in pixels of the image, and depth in pixels, larger
        is nearer. The 14 joints of LSP, and `left_hand`, `left_toe` (ends of hands and
        feet), `waist`, `head`.
      head: [3, 3] columns are the head's left, up and forwards as the camera sees them.
      chest: [3, 3] the same of the chest.
      scale: pixels per unit of length.
      build: thickness of body and limbs, about 1.
      size: (height, width) of the image.
    """

    points: Points
    head: np.ndarray
    chest: np.ndarray
    scale: float
    build: float
    size: tuple[int, int]

    @property
    def keypoints(self) -> np.ndarray:
        """[14, 2] float32, pixels, in the order of `skeleton.LSP`."""
        joints = [self.points[name][:2] for name in LSP.joints]
        return np.asarray(joints, np.float32)


@dataclasses.dataclass(frozen=True)
class Look:
    """What a person looks like.

    Attributes:
      colors: name -> [3] RGB in 0..255: `skin`, `hair`, `shirt`, `trousers`, `shoe`,
        `print`, `collar` and those that mark the joints of CUES.
      covered: limb -> how much of its length clothes cover, 0..1.
      light: [2] direction in the image that the light comes from.
    """

    colors: dict[str, np.ndarray]
    covered: dict[str, float]
    light: np.ndarray


class Part(NamedTuple):
    """A convex outline [N, 2], pixels, to be painted, the nearest last."""

    depth: float
    outline: np.ndarray
    color: np.ndarray


def sample_person(rng: np.random.Generator) -> Person:
    """A random body in a random posture, placed in an image of its own size."""
    body, chest, head = _pose(rng)
    turn = _rotation(1, _yaw(rng))
    # A camera a little above the person: what points forwards also points down.
    view = _roll(rng) @ _rotation(0, math.radians(rng.normal(8, 6))) @ turn
    flip = np.diag([1.0, -1.0, 1.0])  # image y points down
    stacked = np.stack(list(body.values()))  # [P, 3]
    # Depth is taken before the camera tilts, or hanging hands would hide behind hips.
    depth = stacked @ turn[2]
    seen = stacked @ (flip @ view)[:2].T  # [P, 2]
    low, high = seen.min(0), seen.max(0)
    length = rng.uniform(130, 200)
    scale = min(length / (high - low).max(), 1.25 * length / 1.65)
    before, after = rng.uniform(0.07, 0.2, (2, 2)) * length
    width, height = np.ceil((high - low) * scale + before + after).astype(int)
    # Narrower images than the narrowest of LSP would say too much about the pose.
    short = np.maximum(0, [64 - width, 104 - height])
    seen = (seen - low) * scale + before + short * rng.uniform(0.3, 0.7)
    points = np.column_stack([seen, depth * scale])
    return Person(
        dict(zip(body, points, strict=True)),
        flip @ view @ head,
        flip @ view @ chest,
        scale,
        rng.uniform(0.85, 1.2),
        (int(height + short[1]), int(width + short[0])),
    )


def sample_look(rng: np.random.Generator) -> Look:
    """Random clothes, skin and hair."""
    sleeve = [(0, 0), (0.6, 0), (1, 1), (1, 1)][rng.integers(4)]
    leg = [(0.8, 0), (1, 1), (1, 1)][rng.integers(3)]
    colors = {cue: color(rng, (0.0, 0.7), (0.85, 1.0)) for cue in (*CUES, "collar")}
    colors |= {
        "skin": np.multiply(SKINS[rng.integers(len(SKINS))], rng.uniform(0.9, 1.05, 3)),
        "hair": np.multiply(HAIRS[rng.integers(len(HAIRS))], rng.uniform(0.9, 1.1, 3)),
        "shirt": color(rng),
        "print": color(rng),
        "trousers": color(rng, (0.1, 0.7), (0.12, 0.5)),
        "shoe": color(rng, (0.3, 0.9), (0.15, 0.7)),
    }
    angle = rng.uniform(0, 2 * np.pi)
    light = np.array([np.cos(angle), np.sin(angle)])
    return Look(colors, dict(zip(LIMBS, sleeve + leg, strict=True)), light)


def color(rng, saturation=(0.5, 0.95), value=(0.35, 1.0)) -> np.ndarray:
    """[3] RGB in 0..255, of any hue."""
    pure = rng.random(), rng.uniform(*saturation), rng.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(*pure)) * 255


def paint_person(image: np.ndarray, person: Person, look: Look) -> None:
    """Paints a person into an image [H, W, 3] uint8 RGB, in place."""
    parts = _trunk(person, look) + _head(person, look)
    for side, _ in SIDES:
        parts += _arm(person, look, side) + _leg(person, look, side)
    # Stable: details stay on their limb.
    for _, outline, shade in sorted(parts, key=lambda part: part.depth):
        paint(image, outline, shade)


def paint(image: np.ndarray, outline: np.ndarray, color) -> None:
    """Fills a convex outline [N, 2], pixels, in place.

    Anti-aliased at fractional pixels, pixel centres at +0.5.
    """
    # OpenCV puts whole numbers on the centres of pixels; we put them on corners.
    fixed = np.rint((outline - 0.5) * 2**SHIFT).astype(np.int32)
    color = np.clip(color, 0, 255).astype(float).tolist()
    cv2.fillConvexPoly(image, fixed, color, cv2.LINE_AA, SHIFT)


def disc(center, radius) -> np.ndarray:
    """[16, 2] circle, or ellipse along the axes if `radius` is (x, y)."""
    return np.asarray(center)[:2] + _CIRCLE * radius


def hull(*outlines) -> np.ndarray:
    """[N, 2] convex outline round several outlines."""
    points = np.concatenate(outlines).astype(np.float32)
    return cv2.convexHull(points)[:, 0]


def capsule(start, end, radius_start: float, radius_end: float) -> np.ndarray:
    """[N, 2] outline of a limb with round ends."""
    return hull(disc(start, radius_start), disc(end, radius_end))


def rounded(depth, ends, radii, color, light) -> list[Part]:
    """A body round points [P, 2 or 3], and on it two smaller ones, lighter."""
    ends = np.asarray(ends)[:, :2]
    radii, middle, parts = np.asarray(radii), ends.mean(axis=0), []
    for share, gain in ((1.0, 0.72), (0.7, 0.9), (0.35, 1.08)):
        inner = ends
        if len(ends) > 2:  # Limbs keep their length, trunks become narrower.
            inner = middle + (0.3 + 0.7 * share) * (ends - middle)
        inner = inner + 0.7 * (1 - share) * radii[:, np.newaxis] * light
        discs = [disc(p, share * r) for p, r in zip(inner, radii, strict=True)]
        parts.append(Part(depth, hull(*discs), np.multiply(color, gain)))
    return parts


def _rotation(axis: int, angle: float) -> np.ndarray:
    """[3, 3] right-handed rotation about x, y or z (0, 1, 2), radians."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.eye(3)
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[j, i] = math.sin(angle)
    matrix[i, j] = -matrix[j, i]
    return matrix


def _degrees(rng, low: float, high: float) -> float:
    return math.radians(rng.uniform(low, high))


def _yaw(rng) -> float:
    """Mostly towards the camera, every fifth from behind, some from the side."""
    kind = rng.random()
    if kind < 0.68:
        return _degrees(rng, -45, 45)
    if kind < 0.88:
        return _degrees(rng, 140, 220)
    return math.radians(rng.choice([-90, 90])) + _degrees(rng, -45, 45)


def _roll(rng) -> np.ndarray:
    """Rotation in the image: mostly upright, some leaning, a few upside down."""
    kind = rng.random()
    if kind < 0.9:
        return _rotation(2, math.radians(rng.normal(0, 8)))
    if kind < 0.97:
        return _rotation(2, rng.choice([-1, 1]) * _degrees(rng, 20, 60))
    return _rotation(2, math.radians(180 + rng.normal(0, 15)))


def _pose(rng):
    """Body points in body coordinates, and the frames of chest and head."""
    posture = rng.choice(list(POSTURES), p=list(POSTURES.values()))
    torso, neck_length, arm, leg = rng.normal(1, 0.05, 4)
    lean = {"stand": (-8, 15), "stride": (0, 30), "spread": (-10, 20)}
    chest = (
        _rotation(1, math.radians(rng.normal(0, 10)))
        @ _rotation(2, math.radians(rng.normal(0, 7)))
        @ _rotation(0, _degrees(rng, *lean.get(posture, (5, 50))))
    )
    head = (
        chest
        @ _rotation(1, math.radians(np.clip(rng.normal(0, 18), -50, 50)))
        @ _rotation(2, math.radians(rng.normal(0, 7)))
        @ _rotation(0, math.radians(rng.normal(-2, 9)))
    )
    waist = np.array([0, 0.17 * torso, 0])
    shoulder, hip = rng.uniform(0.165, 0.2), rng.uniform(0.085, 0.11)
    neck = waist + chest @ [0, 0.36 * torso, 0]
    up = head[:, 1]
    points = {"waist": waist, "neck": neck, "head_top": neck + 0.27 * neck_length * up}
    points["head"] = points["head_top"] - HEAD[1] * up
    order = ("left", "right") if rng.random() < 0.5 else ("right", "left")
    spans = dict(zip(order, LEGS[posture], strict=True))
    for side, sign in SIDES:
        points[f"{side}_shoulder"] = neck + chest @ [sign * shoulder, -0.05, 0]
        points[f"{side}_hip"] = np.array([sign * hip, 0, 0])
        _add_arm(points, rng, side, sign, chest, arm, posture)
        angles = [_degrees(rng, *span) for span in spans[side]]
        _add_leg(points, side, sign, angles, leg)
    return points, chest, head


def _add_arm(points, rng, side, sign, chest, size, posture) -> None:
    """Adds elbow, wrist and hand below the shoulder."""
    odds = np.array([manner[0] for manner in ARMS])
    if posture == "spread":
        odds = odds * [0.2, 1.5, 0.5, 2]
    _, *spans = ARMS[rng.choice(len(ARMS), p=odds / odds.sum())]
    e, a, t = (_degrees(rng, *span) for span in spans)
    upper = np.array(
        [sign * math.sin(e) * math.cos(a), -math.cos(e), math.sin(e) * math.sin(a)]
    )
    bend = _degrees(rng, *((3, 35) if rng.random() < 0.5 else (35, 125)))
    # Forearms fold forwards and up, turned about the upper arm by the twist.
    fold = np.array([-0.3 * sign, 0.55, 0.78])
    fold -= upper * (fold @ upper)
    fold /= np.linalg.norm(fold)
    fold = fold * math.cos(t) + sign * np.cross(upper, fold) * math.sin(t)
    lower = upper * math.cos(bend) + fold * math.sin(bend)
    elbow = points[f"{side}_shoulder"] + chest @ upper * 0.29 * size
    points[f"{side}_elbow"] = elbow
    points[f"{side}_wrist"] = elbow + chest @ lower * 0.26 * size
    points[f"{side}_hand"] = elbow + chest @ lower * 0.35 * size


def _add_leg(points, side, sign, angles, size) -> None:
    """Adds knee, ankle and toe below the hip."""
    flexion, abduction, bend = angles

    def direction(angle, out):
        """[3] down, swung forwards by `angle` and then outwards by `out`."""
        down = -math.cos(angle) * math.cos(out)
        return np.array([sign * math.sin(out), down, math.sin(angle) * math.cos(out)])

    knee = points[f"{side}_hip"] + direction(flexion, abduction) * 0.43 * size
    shin = flexion - bend
    ankle = knee + direction(shin, 0.6 * abduction) * 0.42 * size
    foot = direction(shin + math.radians(68), 0.25 + 0.3 * abduction)
    points[f"{side}_knee"], points[f"{side}_ankle"] = knee, ankle
    points[f"{side}_toe"] = ankle + foot * 0.15 * size


def _limb(person, look, side, name, garment) -> list[Part]:
    """A tapered limb in skin, and in cloth as far as it is covered."""
    start, end, wide, narrow, bias = LIMBS[name]
    a, b = (person.points[f"{side}_{joint}"] for joint in (start, end))
    unit, covered = person.scale * person.build, look.covered[name]
    depth, radii = (a[2] + b[2]) / 2 + bias * person.scale, np.array([wide, narrow])
    parts = rounded(depth, (a, b), radii * unit, look.colors["skin"], look.light)
    if covered:
        radii = 1.1 * np.array([wide, wide + covered * (narrow - wide)]) * unit
        hem = a + covered * (b - a)
        parts += rounded(depth, (a, hem), radii, look.colors[garment], look.light)
    return parts


def _mark(person, look, joint, toward, depth) -> Part:
    """A cuff or sock round a limb, or a round patch on an elbow or a knee."""
    kind, unit = joint.split("_")[-1], person.scale * person.build
    center, radius = person.points[joint][:2], CUES[kind] * unit
    if kind in ("elbow", "knee"):
        return Part(depth + 1e-3, disc(center, radius), look.colors[kind])
    along = person.points[toward][:2] - center
    along = along / max(np.hypot(*along), 1e-3)
    across = np.array([-along[1], along[0]]) * radius
    along = along * 0.014 * unit
    outline = center + [along + across, along - across, -along - across, across - along]
    return Part(depth, outline, look.colors[kind])


def _arm(person, look, side) -> list[Part]:
    upper = _limb(person, look, side, "upper_arm", "shirt")
    lower = _limb(person, look, side, "lower_arm", "shirt")
    elbow, wrist, unit = f"{side}_elbow", f"{side}_wrist", person.scale * person.build
    ends = person.points[wrist], person.points[f"{side}_hand"]
    hand = capsule(*ends, 0.026 * unit, 0.036 * unit)
    depth = lower[0].depth
    return [
        *upper,
        *lower,
        _mark(person, look, elbow, wrist, max(upper[0].depth, depth)),
        Part(depth, hand, look.colors["skin"]),
        _mark(person, look, wrist, elbow, depth),
    ]


def _leg(person, look, side) -> list[Part]:
    upper = _limb(person, look, side, "upper_leg", "trousers")
    lower = _limb(person, look, side, "lower_leg", "trousers")
    knee, ankle, unit = f"{side}_knee", f"{side}_ankle", person.scale * person.build
    heel, tip = person.points[ankle], person.points[f"{side}_toe"]
    # A foot that points at the viewer covers its shin, one that points away does not.
    depth = lower[0].depth + (1e-3 if tip[2] > heel[2] else -1e-3)
    sole = capsule(heel, tip, 0.046 * unit, 0.042 * unit)
    shoe = capsule(heel, tip + 0.1 * (heel - tip), 0.042 * unit, 0.032 * unit)
    return [
        *upper,
        *lower,
        _mark(person, look, knee, ankle, max(upper[0].depth, lower[0].depth)),
        Part(depth, sole, look.colors["shoe"] + 70),
        Part(depth, shoe, look.colors["shoe"]),
        _mark(person, look, ankle, knee, max(depth, lower[0].depth)),
    ]


def _trunk(person, look) -> list[Part]:
    """Pelvis, and a shirt: a badge and buttons on the chest, a bar on the back."""
    points, unit = person.points, person.scale * person.build
    shoulders = np.stack([points[f"{side}_shoulder"] for side, _ in SIDES])
    hips = np.stack([points[f"{side}_hip"] for side, _ in SIDES])
    belly = points["waist"] + 0.6 * (hips - hips.mean(0))
    hem = belly + 0.5 * (hips - belly)
    depth = (shoulders.mean(0) + hips.mean(0))[2] / 2 + 0.02 * person.scale
    pelvis = hull(*(disc(p, 0.083 * unit) for p in (*hips, *belly)))
    parts = [Part(hips[:, 2].mean(), pelvis, 0.8 * look.colors["trousers"])]
    radii = np.array([0.06, 0.06, 0.088, 0.088]) * unit
    ends = (*shoulders, *hem)
    parts += rounded(depth, ends, radii, look.colors["shirt"], look.light)
    facing = person.chest[2, 2]
    shapes = [(0.12, 0.055, 0.055)] + [(d, 0.009, 0.009) for d in (0.21, 0.26, 0.31)]
    if facing < 0:
        shapes = [(0.1, 0.12, 0.03)]
    for down, wide, high in shapes if abs(facing) > 0.25 else ():
        flat = _CIRCLE * [wide, high] + [0, -down]  # on the surface that is seen
        flat = np.column_stack([flat, np.full(len(flat), 0.1 * np.sign(facing))])
        outline = points["neck"][:2] + flat @ person.chest[:2].T * person.scale
        parts.append(Part(depth, outline, look.colors["print"]))
    return parts


def _head(person, look) -> list[Part]:
    """Neck, collar, hair, and of the face what is turned to the camera."""
    points, unit = person.points, person.scale
    center, neck, skin = points["head"], points["neck"], look.colors["skin"]
    matrix = person.head @ np.diag(HEAD) * unit  # unit sphere -> camera
    rim = np.linalg.cholesky((matrix @ matrix.T)[:2, :2])  # unit circle -> outline
    depth = (center[2] + neck[2]) / 2 + 0.05 * unit
    collar = disc(neck, np.array([0.06, 0.035]) * unit)
    throat = capsule(neck, center, 0.05 * unit, 0.045 * unit)
    parts = [
        Part(depth, collar, look.colors["collar"]),
        Part(depth, throat, skin * 0.85),
        Part(depth, center[:2] + _CIRCLE @ rim.T, look.colors["hair"]),
    ]
    face = _face(person.head, matrix, rim)
    if face is not None:
        parts.append(Part(depth, center[:2] + face, skin))
    nose = ((0, -0.15, 1.08), (0.018, 0.018), skin * 0.8)
    for place, radii, shade in (nose, *FACE):
        if person.head[2] @ (np.array(place) / HEAD) > 0:
            spot = disc(center[:2] + matrix[:2] @ place, np.multiply(radii, unit))
            parts.append(Part(depth, spot, shade))
    return parts


def _face(head, matrix, rim) -> np.ndarray | None:
    """[N, 2] outline of the face, cut where it turns away; None if unseen.

    It is a cap of the head's ellipsoid, 62 degrees round a little below forwards.
    """
    tilt, angle = np.radians(-16), np.radians(62)
    forwards = np.array([0, np.sin(tilt), np.cos(tilt)])
    across = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)]])
    ring = _CIRCLE @ across * np.sin(angle) + forwards * np.cos(angle)
    away = (ring / HEAD) @ head[2] < 0  # [16]: the surface there faces away
    if away.all():
        return None
    seen = (ring @ matrix.T)[:, :2]
    on_rim = np.linalg.solve(rim, seen[away].T)
    seen[away] = (rim @ (on_rim / np.linalg.norm(on_rim, axis=0))).T
    return hull(seen)
