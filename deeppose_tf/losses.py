"""The masked regression losses of Eqs. (4) and (8)."""

from __future__ import annotations

import tensorflow as tf

from deeppose_tf.config import LOSSES


def pose_loss(
    predicted: tf.Tensor, target: tf.Tensor, weight: tf.Tensor, kind: str = "l2"
) -> tf.Tensor:
    """Sum over the joints of one example, Eqs. (4) and (8).

    Joints without a label have weight zero and are left out of the sum, as Sec. 3.1
    says; an example of a later stage has one joint of weight one.

    Args:
      predicted: [M, K, 2], normalized.
      target: [M, K, 2], normalized; finite also where the weight is zero.
      weight: [M, K].
      kind: `l2`, squared distance as in the paper, or `l1`, the sum of absolute
        differences, which outliers among the labels move less.

    Returns:
      [M].

    Raises:
      ValueError: `kind` is neither.
    """
    difference = tf.cast(predicted, tf.float32) - target
    if kind == "l2":
        distance = tf.reduce_sum(difference**2, axis=-1)  # [M, K]
    elif kind == "l1":
        distance = tf.reduce_sum(tf.abs(difference), axis=-1)
    else:
        raise ValueError(f"loss {kind!r} is none of {', '.join(LOSSES)}")
    return tf.reduce_sum(weight * distance, axis=-1)


def map_loss(
    logits: tf.Tensor,
    places: tf.Tensor,
    target: tf.Tensor,
    weight: tf.Tensor,
    blob: float = 0.5,
) -> tf.Tensor:
    """Cross-entropy of an integral head's maps with a blob around the true joint.

    Ours, not the paper's: it tells every place of the map at once what to do, where the
    expectation alone tells only on which side the joint lies.

    Args:
      logits: [M, K, P].
      places: [P, 2], normalized.
      target: [M, K, 2], normalized. Outside the map the nearest places are meant.
      weight: [M, K].
      blob: standard deviation of the blob in places. On maps of 16 x 16 wider ones were
        worse: a prototype of stage 1, trained on 512,000 crops of LSP and LSPET, had
        57.0 % of four limbs right on LSP test im1001-1500 with 1.5, 60.2 with 1 and
        61.6 with 0.7 (PCP strict, person-centric).

    Returns:
      [M].
    """
    scale = places.shape[0] / (2 * blob**2)  # of maps as high as they are wide
    distance = tf.reduce_sum((places - target[:, :, None]) ** 2, axis=-1)  # [M, K, P]
    wanted = tf.nn.softmax(-distance * scale)
    entropy = -tf.reduce_sum(wanted * tf.nn.log_softmax(logits), axis=-1)  # [M, K]
    return tf.reduce_sum(weight * entropy, axis=-1)
