"""The cascade as one graph: a loop over the stages in which weights are used in place.

One person at a time, so that memory is bounded and nobody's answer depends on who else
was asked about. What is exported computes this, and only core operations are in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from deeppose_tf import cascade as cascades
from deeppose_tf import sampling
from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import cropping

# Operations of a stage have names that begin so, and with its number.
STAGE = "stage_"


def looped(
    cascade: Cascade, image: tf.Tensor, box: tf.Tensor, tolerance: float | None = None
) -> dict[str, tf.Tensor]:
    """Eqs. (5) to (7) for one person; S stages, K joints, in a loop over the stages.

    Args:
      image: [H, W, 3] uint8, of at least one pixel.
      box: [4] float32 pixels, any numbers; all zeros for the whole image.
      tolerance: the loop ends once a stage moved every joint by less than this share
        of the pose's diameter. None runs every stage.

    Returns:
      keypoints: [K, 2] pixels; zeros where not valid, as all that follows.
      keypoints_by_stage: [S, K, 2] pixels; stages not run repeat the one before.
      scores: [K] in 0..1, see `Cascade.predict`.
      valid: [] bool, whether the box could be answered, and the networks' answers
        were finite numbers.
    """
    box, valid = cascades.sight(box[None], tf.shape(image)[None, :2])
    source = cropping.framed(image[None])
    pose, spread = _first(cascade, source, box)
    valid &= cascades.is_finite(pose)
    pose = tf.where(valid[:, None, None], pose, 0.0)
    # The number of the stage to come, the last two poses [1, K, 2], the poses after
    # every stage [1, S, K, 2], what scores are made from [1, K, 2], and whether all
    # were finite [1].
    poses = tf.stack([pose] * cascade.count, axis=1)
    state = 1, pose, pose, poses, spread, valid
    if cascade.count > 1:
        goes_on = functools.partial(_goes_on, cascade, tolerance)
        refine = functools.partial(_next_stage, cascade, source)
        state = tf.while_loop(goes_on, refine, state, parallel_iterations=1)
    return _answer(cascade, *state[2:])


def unrolled(
    cascade: Cascade,
    image: tf.Tensor,
    box: tf.Tensor,
    view: Callable[[tf.Tensor], sampling.Pyramid | cropping.Framed] = sampling.pyramid,
) -> dict[str, tf.Tensor]:
    """As `looped`, every stage after the one before in a longer graph, as phones take.

    Of an image of known size there are, between the sight of the box and the finished
    answer, arithmetic and matrix products on float32 alone, which delegates take whole:
    nothing is looked up, chosen or branched on.

    Args:
      cascade, image, box: as of `looped`.
      view: makes of images [1, H, W, 3] of any size what crops are read from.
    """
    height, width, _ = image.shape
    known = height is not None and width is not None
    size = tf.constant([[height, width]]) if known else tf.shape(image)[None, :2]
    box, valid = cascades.sight(box[None], size)
    # Not image[None]: a slice to TFLite, which copies it byte by byte.
    source = cropping.levels(image) if known else view(tf.expand_dims(image, 0))
    pose, spread = _first(cascade, source, box)
    poses = [pose]
    for number in range(1, cascade.count):
        if not known:  # NaN must not choose pixels
            pose = tf.where(cascades.is_finite(pose), pose, 0.0)
        pose, more = _refined(cascade, source, number, pose)
        poses.append(pose)
        spread += more
    by_stage = tf.stack(poses, axis=1)  # [1, S, K, 2]
    valid &= tf.reduce_all(cascades.is_finite(by_stage[0]))
    return _answer(cascade, pose, by_stage, spread, valid)


def _first(cascade, source, box):
    with tf.name_scope(f"{STAGE}1"):
        return cascades.first_pose(cascade.stages[0], source, box, _image_of_one())


def _refined(cascade, source, index, pose):
    """A later stage, by its index from 0: pose [1, K, 2] -> pose, what scores need."""
    with tf.name_scope(f"{STAGE}{index + 1}"):
        return cascades.refined_pose(
            cascade.stages[index], source, pose, _image_of_one()
        )


def _next_stage(cascade, source, number, before, pose, poses, spread, valid):
    """The body of the loop: its state after one more stage."""
    branches = [
        functools.partial(_refined, cascade, source, index, pose)
        for index in range(1, cascade.count)
    ]
    # A single branch needs no choice.
    only = len(branches) == 1
    refined, more = branches[0]() if only else tf.switch_case(number - 1, branches)
    refined = tf.ensure_shape(refined, pose.shape)  # [1, K, 2]
    spread += tf.ensure_shape(more, spread.shape)
    valid &= cascades.is_finite(refined)
    # NaN must not choose the pixels of the next crop.
    refined = tf.where(valid[:, None, None], refined, pose)
    later = tf.range(cascade.count) >= number  # [S]
    poses = tf.where(later[None, :, None, None], refined[:, None], poses)
    return number + 1, pose, refined, poses, spread, valid


def _goes_on(cascade, tolerance, number, before, pose, poses, spread, valid):
    """The condition of the loop: [] bool."""
    more = valid[0] & (number < cascade.count)
    if tolerance is None:
        return more
    farthest = tf.reduce_max(tf.norm(pose - before, axis=-1))
    settled = farthest < tolerance * cascades.diameters(before, cascade.skeleton)[0]
    return more & ((number < 2) | ~settled)


def _answer(cascade, *state):
    answer = cascades.answer(*state, cascade.skeleton)
    return {name: value[0] for name, value in answer.items()}


def _image_of_one():
    """Whose image each box [1, 4] is of: the only one."""
    return tf.zeros([1], tf.int32)
