"""The coordinate convention, boxes, N(y; b), pose diameter, joint boxes, flip.

Points are (x, y), continuous, in pixels of the original image. (0, 0) is the top-left
corner of the image and (0.5, 0.5) the centre of its first pixel; a flip is x -> W - x
and scaling is plain multiplication. A box is [x0, y0, x1, y1] in the same pixels.
`keypoints` are pixels, `normalized` are relative to a box and span [-0.5, 0.5] there.

In shape comments B is people, K joints, S the side of a crop, H and W an image.
"""

from __future__ import annotations

import tensorflow as tf

from deeppose_tf.skeleton import Skeleton

# Where no torso diagonal is labeled, and where it collapses because the body is seen
# end-on (2.6 px in LSP), the diameter comes from the extent of the pose. On LSP the
# diagonal is 0.36 of the extent in the median and 0.22 at the first percentile.
TYPICAL_DIAMETER = 0.36
SMALLEST_DIAMETER = 0.2


def normalize(keypoints: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """N(y; b) of Eq. (1).

    Args:
      keypoints: [..., K, 2], pixels.
      boxes: [..., 4], pixels, of non-zero size.

    Returns:
      [..., K, 2], relative to the box: (y - centre) / (width, height).
    """
    return (keypoints - box_center(boxes)[..., None, :]) / box_size(boxes)[..., None, :]


def denormalize(normalized: tf.Tensor, boxes: tf.Tensor) -> tf.Tensor:
    """The inverse of `normalize`: [..., K, 2] and [..., 4] -> [..., K, 2] pixels."""
    return normalized * box_size(boxes)[..., None, :] + box_center(boxes)[..., None, :]


def box_center(boxes: tf.Tensor) -> tf.Tensor:
    """[..., 4] pixels -> [..., 2] pixels."""
    first, last = tf.split(boxes, 2, axis=-1)
    return (first + last) / 2


def box_size(boxes: tf.Tensor) -> tf.Tensor:
    """[..., 4] pixels -> [..., 2] width and height in pixels."""
    first, last = tf.split(boxes, 2, axis=-1)
    return last - first


def box_from_center(centers: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Centres [..., 2] and widths and heights [..., 2], pixels -> boxes [..., 4]."""
    return tf.concat([centers - sizes / 2, centers + sizes / 2], axis=-1)


def whole_image_boxes(boxes: tf.Tensor, sizes: tf.Tensor) -> tf.Tensor:
    """Replaces boxes that are all zeros by the box of the whole image.

    Args:
      boxes: [..., 4], pixels.
      sizes: [..., 2], (height, width) of each box's image.

    Returns:
      [..., 4], pixels.
    """
    sizes = tf.cast(sizes[..., ::-1], boxes.dtype)
    whole = tf.concat([tf.zeros_like(sizes), sizes], axis=-1)
    unset = tf.reduce_all(boxes == 0, axis=-1, keepdims=True)
    return tf.where(unset, whole, boxes)


def first_boxes(boxes: tf.Tensor, margin: float, square: bool) -> tf.Tensor:
    """The box b0 that stage 1 sees: grown by a margin, and square if asked.

    Args:
      boxes: [..., 4], pixels.
      margin: 0.1 adds a tenth of the size, half of it on either side.
      square: keep the picture's proportions: both sides become the longer one.

    Returns:
      [..., 4], pixels, about the same centres.
    """
    size = box_size(boxes)
    if square:
        size = tf.reduce_max(size, axis=-1, keepdims=True) * tf.ones_like(size)
    return box_from_center(box_center(boxes), size * (1 + margin))


def pose_diameter(
    keypoints: tf.Tensor, labeled: tf.Tensor, skeleton: Skeleton
) -> tf.Tensor:
    """diam(y) of Sec. 3.2, with one rule for what labels leave out.

    It is the skeleton's first torso diagonal, or the second where an end of the first
    has no label, or a typical share of the pose's extent where neither has. It is never
    less than a small share of the extent, which is the longer side of the box around
    the labeled joints.

    Args:
      keypoints: [B, K, 2], pixels (or any other unit).
      labeled: [B, K] bool.
      skeleton: names the diagonals.

    Returns:
      [B] in the same unit; zero where fewer than two joints are labeled.
    """
    low = tf.where(labeled[..., None], keypoints, keypoints.dtype.max)
    high = tf.where(labeled[..., None], keypoints, keypoints.dtype.min)
    sides = tf.reduce_max(high, axis=1) - tf.reduce_min(low, axis=1)  # [B, 2]
    several = tf.reduce_sum(tf.cast(labeled, tf.int32), axis=1) > 1  # [B]
    extent = tf.where(several, tf.reduce_max(sides, axis=-1), 0.0)
    diameter = TYPICAL_DIAMETER * extent
    for shoulder, hip in reversed(skeleton.diagonals):
        both = labeled[:, shoulder] & labeled[:, hip]
        # Slices that keep their axis: delegates of TFLite take no others.
        across = (
            keypoints[:, shoulder : shoulder + 1] - keypoints[:, hip : hip + 1]
        )  # [B, 1, 2]
        across = tf.where(both[:, None, None], across, 0.0)
        length = tf.sqrt(tf.reduce_sum(across**2, axis=[1, 2]))
        diameter = tf.where(both, length, diameter)
    return tf.maximum(diameter, SMALLEST_DIAMETER * extent)


def joint_boxes(keypoints: tf.Tensor, diameters: tf.Tensor, sigma: float) -> tf.Tensor:
    """b_i(y; sigma) of Sec. 3.2: squares of side sigma diam(y) around the joints.

    Args:
      keypoints: [B, K, 2], pixels.
      diameters: [B], pixels.
      sigma: side of the box in diameters.

    Returns:
      [B, K, 4], pixels.
    """
    sides = sigma * diameters[:, None, None] * tf.ones_like(keypoints)
    return box_from_center(keypoints, sides)


def mirror_joints(values: tf.Tensor, skeleton: Skeleton, axis: int = 1) -> tf.Tensor:
    """Exchanges left and right joints along an axis, as a mirror image does."""
    return tf.gather(values, skeleton.mirror, axis=axis)
