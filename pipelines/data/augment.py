"""Crop, flip, displacement, scale, rotation and colour on a batch.

Runs on the accelerator as the first lines of the compiled step, and as well inside
`Dataset.map`. Nothing here draws random numbers: the host draws them from (seed,
place in the training) and sends them along, so that the same run yields the same crops
wherever and in whatever batch they are made.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import tensorflow as tf

from deeppose_tf import geometry, sampling
from deeppose_tf.config import StageConfig
from deeppose_tf.pipelines.data.config import AugmentConfig
from deeppose_tf.skeleton import Skeleton

# Uniform draws in [0, 1) that one crop consumes, by what they are for.
DRAWS = (
    *("flip", "shift_x", "shift_y", "scale", "rotation", "joint"),
    *("brightness", "contrast", "red", "green", "blue"),
)


class View(NamedTuple):
    """Where M crops look: turned, perhaps mirrored boxes.

    Attributes:
      boxes: [M, 4] pixels of the canvas, before the turn.
      angles: [M] radians, by which the crop's content is turned.
      flips: [M] bool.
      indices: [M] int32, the canvas of each crop.
    """

    boxes: tf.Tensor
    angles: tf.Tensor
    flips: tf.Tensor
    indices: tf.Tensor


class Examples(NamedTuple):
    """What a stage is trained on.

    Attributes:
      crops: [M, S, S, 3] float32, pre-processed.
      target: [M, K, 2] normalized; zero where the weight is zero.
      weight: [M, K]: 1 for the joints that count, else 0.
    """

    crops: tf.Tensor
    target: tf.Tensor
    weight: tf.Tensor


def pose_examples(
    canvases: tf.Tensor,
    keypoints: tf.Tensor,
    labeled: tf.Tensor,
    boxes: tf.Tensor,
    draws: tf.Tensor,
    skeleton: Skeleton,
    stage: StageConfig,
    config: AugmentConfig,
    on_gpu: bool = False,
) -> Examples:
    """Crops of whole people for stage 1, Eq. (3).

    Args:
      canvases: [B, C, C, 3] uint8.
      keypoints: [B, K, 2], pixels of the canvas.
      labeled: [B, K] bool.
      boxes: [B, 4] first boxes, pixels of the canvas.
      draws: [B, V, len(DRAWS)] uniform in [0, 1): V crops of each canvas.
      skeleton: for the exchange of left and right.
      stage: side, margin and proportions of the crop.
      on_gpu: whether XLA compiles it for one.

    Returns:
      `Examples` with M = B V, those of one canvas side by side.
    """
    draw, indices = _flat_draws(draws)
    boxes = geometry.first_boxes(boxes, stage.margin, stage.square)
    boxes = tf.gather(boxes, indices)  # [M, 4]
    size = geometry.box_size(boxes)
    shift = _spread(tf.stack([draw["shift_x"], draw["shift_y"]], -1))
    centers = geometry.box_center(boxes) + config.translation * shift * size
    view = _view(centers, size, draw, indices, config)
    target, known = _targets(view, keypoints, labeled, skeleton)
    return _examples(canvases, view, draw, target, known, stage, config, on_gpu)


def joint_examples(
    canvases: tf.Tensor,
    keypoints: tf.Tensor,
    labeled: tf.Tensor,
    draws: tf.Tensor,
    mean: tf.Tensor,
    covariance: tf.Tensor,
    skeleton: Skeleton,
    stage: StageConfig,
    config: AugmentConfig,
    on_gpu: bool = False,
) -> Examples:
    """Crops around displaced joints for stages s >= 2: D_A^s of Sec. 3.2.

    Each crop takes a joint i at uniform among those with a label, delta ~ N_i^(s-1),
    the box b = (y_i + delta, sigma diam(y)) and the target N(y_i; b). A person without
    a label or a diameter gives crops of weight zero. In a mirrored crop joint and
    displacement are those of the mirror image.

    Args:
      canvases, keypoints, labeled, draws, skeleton, stage, config, on_gpu: as
        `pose_examples`.
      mean: [K, 2] of the previous stage's displacements, in pose diameters.
      covariance: [K, 2, 2] of the same.

    Returns:
      `Examples` with M = B V, of which each has at most one joint that counts.
    """
    draw, indices = _flat_draws(draws)
    joints = len(skeleton.joints)
    diameters = geometry.pose_diameter(keypoints, labeled, skeleton)  # [B]
    known = tf.gather(labeled & (diameters > 0)[:, None], indices)  # [M, K]
    # source: the joint's place in the labels; joint: as the crop shows it.
    source, any_known = _choose(known, draw["joint"])
    flips = _flips(draw, config)
    joint = tf.where(flips, tf.gather(skeleton.mirror, source), source)
    keypoint = tf.gather(tf.gather(keypoints, indices), source, batch_dims=1)
    diameter = tf.where(any_known, tf.gather(diameters, indices), 1.0)[:, None]
    centers = tf.where(any_known[:, None], keypoint, 0.0)
    normal = tf.stack([draw["shift_x"], draw["shift_y"]], -1)
    covariance = config.displacement**2 * tf.gather(covariance, joint)
    delta = _normal(normal, tf.gather(mean, joint), covariance)
    delta *= tf.where(flips[:, None], [[-1.0, 1.0]], [[1.0, 1.0]])
    centers += delta * diameter
    size = stage.sigma * diameter * tf.ones([1, 2])
    view = _view(centers, size, draw, indices, config)
    target, labels = _targets(view, keypoints, labeled, skeleton)
    weight = tf.one_hot(joint, joints, on_value=True, off_value=False)
    weight &= labels & any_known[:, None]
    return _examples(canvases, view, draw, target, weight, stage, config, on_gpu)


def view_maps(view: View, side: int) -> tf.Tensor:
    """[M, 2, 3]: from pixels of the crop to pixels of the canvas, for `sampling.warp`.

    The inverse of `view_normalize`, at a crop of `side` pixels.
    """
    size = geometry.box_size(view.boxes) / side  # [M, 2]
    mirror = tf.where(view.flips, -1.0, 1.0)
    cos, sin = tf.cos(view.angles), tf.sin(view.angles)
    x, y = size[:, 0] * mirror, size[:, 1]
    linear = tf.stack([cos * x, sin * y, -sin * x, cos * y], axis=-1)
    linear = tf.reshape(linear, [-1, 2, 2])  # [M, 2, 2]
    middle = tf.reduce_sum(linear, axis=-1) * (side / 2)
    start = geometry.box_center(view.boxes) - middle
    return tf.concat([linear, start[..., None]], axis=-1)


def view_normalize(view: View, points: tf.Tensor) -> tf.Tensor:
    """N(y; b) for turned and mirrored boxes: [M, K, 2] canvas pixels -> normalized."""
    offset = points - geometry.box_center(view.boxes)[:, None]
    cos, sin = tf.cos(view.angles)[:, None], tf.sin(view.angles)[:, None]
    x = cos * offset[..., 0] - sin * offset[..., 1]
    y = sin * offset[..., 0] + cos * offset[..., 1]
    turned = tf.stack([tf.where(view.flips[:, None], -x, x), y], axis=-1)
    return turned / geometry.box_size(view.boxes)[:, None]


def _view(centers, size, draw, indices, config):
    """Applies scale, rotation and flip to boxes of size [M, 2] about centres [M, 2]."""
    scale = tf.exp(config.scale * _spread(draw["scale"]))[:, None]
    angles = math.radians(config.rotation) * _spread(draw["rotation"])
    boxes = geometry.box_from_center(centers, size * scale)
    return View(boxes, angles, _flips(draw, config), indices)


def _targets(view, keypoints, labeled, skeleton):
    """Normalized joints [M, K, 2] as the crops show them, and their labels [M, K];
    anything, NaN included, where there is no label."""
    labeled = tf.gather(labeled, view.indices)
    target = view_normalize(view, tf.gather(keypoints, view.indices))  # [M, K, 2]
    flips = view.flips[:, None]
    mirrored = geometry.mirror_joints(target, skeleton)
    target = tf.where(flips[..., None], mirrored, target)
    labeled = tf.where(flips, geometry.mirror_joints(labeled, skeleton), labeled)
    return target, labeled


def _examples(canvases, view, draw, target, counts, stage, config, on_gpu):
    side = stage.size
    source = sampling.pyramid(canvases, _levels(canvases, side), tf.float16)
    maps = view_maps(view, side)
    crops = sampling.warp(source, maps, view.indices, side, at_once=on_gpu)
    target = tf.where(counts[..., None], target, 0.0)
    return Examples(_colour(crops, draw, config), target, tf.cast(counts, tf.float32))


def _levels(canvases, side):
    """Halvings after which no crop of a canvas shrinks any more, and one spare."""
    return max(1, math.ceil(math.log2(canvases.shape[1] / side)) + 2)


def _colour(crops, draw, config):
    """Changes brightness, contrast and the balance of colours of [M, S, S, 3]."""
    if not (config.brightness or config.contrast or config.colour):
        return crops
    colours = _spread(tf.stack([draw["red"], draw["green"], draw["blue"]], -1))
    shift = config.brightness * _spread(draw["brightness"])[:, None]
    shift += config.colour * colours  # [M, 3]
    gain = tf.exp(config.contrast * _spread(draw["contrast"]))
    changed = crops * gain[:, None, None, None] + shift[:, None, None]
    return tf.clip_by_value(changed, -1.0, 1.0)


def _flat_draws(draws):
    """[B, V, D] -> a dictionary of [M] by name, and the canvas [M] of each crop."""
    views = draws.shape[1]
    flat = tf.reshape(draws, [-1, len(DRAWS)])
    indices = tf.repeat(tf.range(tf.shape(draws)[0]), views)
    return dict(zip(DRAWS, tf.unstack(flat, axis=-1), strict=True)), indices


def _choose(known, uniform):
    """One of the joints known [M, K] by a draw [M]: index [M], and whether any was."""
    rank = tf.cumsum(tf.cast(known, tf.int32), axis=1)  # [M, K]
    count = rank[:, -1]
    wanted = tf.cast(uniform * tf.cast(count, tf.float32), tf.int32) + 1
    chosen = known & (rank == wanted[:, None])
    return tf.argmax(chosen, axis=1, output_type=tf.int32), count > 0


def _flips(draw, config):
    return draw["flip"] < (0.5 if config.flip else 0.0)


def _spread(uniform):
    """[0, 1) -> [-1, 1)."""
    return 2.0 * uniform - 1.0


def _normal(uniform, mean, covariance):
    """Two uniform draws [M, 2] -> N(mean [M, 2], covariance [M, 2, 2])."""
    # Never quite 0 or 1, where the inverse of the normal distribution is infinite.
    standard = tf.math.ndtri(tf.clip_by_value(uniform, 1e-6, 1 - 1e-6))
    # The Cholesky factor of a 2 x 2 matrix; a stage that errs nowhere has zeros.
    a = tf.sqrt(tf.maximum(covariance[:, 0, 0], 1e-12))
    b = covariance[:, 0, 1] / a
    c = tf.sqrt(tf.maximum(covariance[:, 1, 1] - b**2, 0.0))
    x, y = standard[:, 0], standard[:, 1]
    return mean + tf.stack([a * x, b * x + c * y], axis=-1)
