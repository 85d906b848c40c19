"""Bodies of the generated data set: proportions, joint angles, exact joints.

Body coordinates: x to the person's left, y up, z forwards, lengths relative to a
body about 1.65 tall. Camera: x right, y down, z towards the viewer, orthographic;
so a person who faces the camera has the left hand at the right of the image.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from deeppose_tf.skeleton import LSP

JOINTS = {name: i for i, name in enumerate(LSP.joints)}
SIDES = (("left", 1.0), ("right", -1.0))
ARMS = (  # odds; elevation from hanging, azimuth (0 out, 90 forwards), twist; degrees
    (0.45, (4, 30), (0, 60), (0, 80)),  # hanging
    (0.20, (55, 115), (-15, 40), (-110, 30)),  # out to the side
    (0.15, (35, 110), (45, 100), (-40, 60)),  # forwards
    (0.20, (125, 172), (-10, 60), (-60, 40)),  # raised
)
HEAD = (0.088, 0.118, 0.1)  # half width, height and depth of the head
POSTURES = {"stand": 0.4, "stride": 0.27, "spread": 0.2, "crouch": 0.13}


@dataclasses.dataclass(frozen=True)
class Figure:
    """One posed body, seen by the camera.

    Attributes:
      points: name -> [3]: x and y in pixels of the image, and depth in pixels,
        larger is nearer. The 14 joints of LSP, and `left_hand`, `left_toe` (ends of
        hands and feet), `waist`, `head`, `back` (middle of a backpack).
      head: [3, 3] columns are the head's left, up and forwards as the camera sees
        them (x right, y down, z to the viewer).
      chest: [3, 3] the same of the chest.
      scale: pixels per unit of length.
      build: thickness of body and limbs, about 1.
      size: (height, width) of the image.
    """

    points: dict[str, np.ndarray]
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


def sample_figure(rng: np.random.Generator) -> Figure:
    """A random body in a random posture, placed in an image of its own size."""
    body, chest, head = _pose(rng)
    yaw = _yaw(rng)
    turn = _rotation(1, yaw)
    # A camera a little above the person: what points forwards also points down.
    view = _roll(rng) @ _rotation(0, math.radians(rng.normal(8, 6))) @ turn
    flip = np.diag([1.0, -1.0, 1.0])  # image y points down
    names = list(body)
    stacked = np.stack([body[name] for name in names])  # [P, 3]
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
    points = {
        name: np.append(seen[i], depth[i] * scale) for i, name in enumerate(names)
    }
    return Figure(
        points,
        flip @ view @ head,
        flip @ view @ chest,
        scale,
        rng.uniform(0.85, 1.2),
        (int(height + short[1]), int(width + short[0])),
    )


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
        return math.radians(rng.uniform(-45, 45))
    if kind < 0.88:
        return math.radians(180 + rng.uniform(-40, 40))
    return math.radians(rng.choice([-90, 90]) + rng.uniform(-45, 45))


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
    lengths = rng.normal(1, 0.05, 4)
    size = dict(zip(("torso", "head", "arm", "leg"), lengths, strict=True))
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
    waist = np.array([0, 0.17 * size["torso"], 0])
    shoulder, hip = rng.uniform(0.165, 0.2), rng.uniform(0.085, 0.11)
    neck = waist + chest @ [0, 0.36 * size["torso"], 0]
    up = head @ [0, 1, 0]
    points = {"waist": waist, "neck": neck, "head_top": neck + 0.27 * size["head"] * up}
    points["head"] = points["head_top"] - HEAD[1] * up
    points["back"] = waist + chest @ [0, 0.16, -0.14]
    legs = _leg_angles(rng, posture)
    for side, sign in SIDES:
        points[f"{side}_shoulder"] = neck + chest @ [sign * shoulder, -0.05, 0]
        points[f"{side}_hip"] = np.array([sign * hip, 0, 0])
        _add_arm(points, rng, side, sign, chest, size["arm"], posture)
        _add_leg(points, side, sign, legs[side], size["leg"])
    return points, chest, head


def _add_arm(points, rng, side, sign, chest, size, posture) -> None:
    """Adds elbow, wrist and hand below the shoulder."""
    odds = np.array([manner[0] for manner in ARMS])
    if posture == "spread":
        odds = odds * [0.2, 1.5, 0.5, 2]
    _, elevation, azimuth, twist = ARMS[rng.choice(len(ARMS), p=odds / odds.sum())]
    e, a, t = (_degrees(rng, *span) for span in (elevation, azimuth, twist))
    upper = np.array(
        [sign * math.sin(e) * math.cos(a), -math.cos(e), math.sin(e) * math.sin(a)]
    )
    bend = _degrees(rng, *((3, 35) if rng.random() < 0.5 else (35, 125)))
    # Forearms fold forwards and up, turned about the upper arm by the twist.
    fold = np.array([-0.3 * sign, 0.55, 0.78])
    fold -= upper * (fold @ upper)
    fold /= np.linalg.norm(fold)
    turned = np.array(
        [
            upper[1] * fold[2] - upper[2] * fold[1],
            upper[2] * fold[0] - upper[0] * fold[2],
            upper[0] * fold[1] - upper[1] * fold[0],
        ]
    )  # upper x fold; np.cross would cost more than the rest of the arm
    fold = fold * math.cos(t) + sign * turned * math.sin(t)
    lower = upper * math.cos(bend) + fold * math.sin(bend)
    elbow = points[f"{side}_shoulder"] + chest @ upper * 0.29 * size
    points[f"{side}_elbow"] = elbow
    points[f"{side}_wrist"] = elbow + chest @ lower * 0.26 * size
    points[f"{side}_hand"] = elbow + chest @ lower * 0.35 * size


def _leg_angles(rng, posture) -> dict[str, tuple[float, float, float]]:
    """Hip flexion, abduction and knee bend of both legs, radians."""
    spans = {  # of the first leg and of the other one, degrees
        "stand": (((-8, 18), (0, 14), (2, 20)),) * 2,
        "stride": (((15, 65), (0, 12), (5, 70)), ((-30, 0), (0, 12), (5, 75))),
        "spread": (((-5, 45), (12, 50), (2, 70)), ((-10, 20), (8, 45), (2, 35))),
        "crouch": (((45, 100), (5, 35), (50, 120)), ((40, 95), (5, 35), (50, 120))),
    }[posture]
    order = ("left", "right") if rng.random() < 0.5 else ("right", "left")
    return {
        side: tuple(_degrees(rng, *span) for span in spans[i])
        for i, side in enumerate(order)
    }


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
    points[f"{side}_knee"] = knee
    points[f"{side}_ankle"] = ankle
    foot = direction(shin + math.radians(68), 0.25 + 0.3 * abduction)
    points[f"{side}_toe"] = ankle + foot * 0.15 * size
