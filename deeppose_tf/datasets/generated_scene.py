"""Surroundings of the generated data set: backgrounds, occluders, the camera."""

from __future__ import annotations

import cv2
import numpy as np

from deeppose_tf.datasets import generated_paint as paint

PALE = (0.0, 0.4)  # saturation: surroundings are duller than clothes
OCCLUDER = 255  # its number in `Canvas.owner`; parts of the body count from 1
MOST_COVERED = 4  # joints under one occluder: more would leave nothing to infer from


def background(rng: np.random.Generator, height: int, width: int) -> paint.Canvas:
    """A canvas of gradients, boxes, ellipses, lines and limb-like distractors."""
    cells = rng.uniform(-30, 30, (rng.integers(2, 7), rng.integers(2, 7), 3))
    small = np.clip(paint.sample_color(rng, PALE) + cells, 0, 255).astype(np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas = paint.Canvas(image, np.zeros((height, width), np.uint8))
    for _ in range(rng.integers(3, 9)):
        center = rng.uniform(0, 1, 2) * [width, height]
        _thing(canvas, rng, center, rng.uniform(8, 60, 2), 0)
    for _ in range(rng.integers(0, 5)):
        ends = (rng.uniform(-0.2, 1.2, (2, 2)) * [width, height] * 16).astype(int)
        color = tuple(float(c) for c in paint.sample_color(rng, PALE))
        start, end = (tuple(int(v) for v in point) for point in ends)
        cv2.line(image, start, end, color, int(rng.integers(1, 5)), cv2.LINE_AA, 4)
    for _ in range(rng.integers(0, 4)):
        _limb_like(canvas, rng)
    # Some backgrounds are as loud as the person, most are flatter.
    strength, tone = rng.uniform(0.3, 0.9), rng.uniform(40, 215)
    image[...] = cv2.convertScaleAbs(image, None, strength, (1 - strength) * tone)
    return canvas


def add_occluders(canvas: paint.Canvas, rng, keypoints, length: float) -> None:
    """Puts up to two things in front of a body of this length in pixels, in place."""
    for _ in range(rng.choice(3, p=[0.65, 0.27, 0.08])):
        joint = keypoints[rng.integers(len(keypoints))]
        center = joint + rng.uniform(-0.12, 0.12, 2) * length
        _thing(
            canvas,
            rng,
            center,
            rng.uniform(0.05, 0.14, 2) * length,
            OCCLUDER,
            keypoints,
        )


def photograph(image: np.ndarray, rng) -> np.ndarray:
    """[H, W, 3] uint8 with a camera's blur, contrast and noise."""
    if rng.random() < 0.25:
        image = cv2.GaussianBlur(image, (3, 3), 0.8)
    gain, offset = rng.uniform(0.8, 1.1), rng.uniform(-15, 20)
    height, width = image.shape[:2]
    y, x = rng.integers(0, 512 - height), rng.integers(0, 512 - width)
    grain = paint.noise()[y : y + height, x : x + width]
    image = image.astype(np.float32)
    return cv2.addWeighted(
        image, gain, grain, rng.uniform(1, 5), offset, dtype=cv2.CV_8U
    )


def _thing(canvas, rng, center, half, number, keypoints=None) -> None:
    """A turned box or ellipse in cloth, unless it would cover too many joints."""
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], float)
    shape = corners if rng.random() < 0.6 else paint.circle(24)
    turn = rng.normal(0, 0.4)
    axis = np.array([np.cos(turn), np.sin(turn)])
    outline = center + shape * half @ np.stack([axis, [-axis[1], axis[0]]])
    cloth = paint.weave(paint.sample_fabric(rng, PALE), *(2 * half[::-1]).astype(int))
    cloth = paint.to_bytes(cloth)
    down = np.array([-axis[1], axis[0]]) * half[1]
    matrix = paint.frame(center - down, center + down, half[0], cloth.shape, axis)
    if keypoints is not None:
        offset = (keypoints - center) @ np.stack([axis, [-axis[1], axis[0]]]).T
        if (np.abs(offset) < half).all(1).sum() > MOST_COVERED:
            return
    paint.paint(canvas, outline, cloth, number, matrix)


def _limb_like(canvas, rng) -> None:
    """One or two joined capsules in skin or cloth that belong to nobody."""
    height, width = canvas.owner.shape
    start = rng.uniform(0, 1, 2) * [width, height]
    fabric = paint.sample_fabric(rng, PALE)
    for _ in range(rng.integers(1, 3)):
        angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(4, 9)
        end = start + rng.uniform(20, 50) * np.array([np.cos(angle), np.sin(angle)])
        cloth = paint.shade(paint.weave(fabric, 30, 12), 0.12)
        matrix = paint.frame(start, end, radius, cloth.shape)
        outline = paint.capsule(start, end, radius, 0.75 * radius)
        paint.paint(canvas, outline, cloth, 0, matrix)
        start = end
