"""The cascade as one graph: a loop over the stages in which weights are used in place.

One person at a time, so that memory is bounded and nobody's answer depends on who else
was asked about; or a few, whom networks see together. What is exported computes this,
and only core operations are in it.
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
    source, size = cropping.framed(image[None]), tf.shape(image)[None, :2]
    found = together(cascade, lambda _: source, size, box[None], tolerance)
    return {name: value[0] for name, value in found.items()}


def together(
    cascade: Cascade,
    view: Callable[[int], cropping.Framed | cropping.Several],
    sizes: tf.Tensor,
    boxes: tf.Tensor,
    tolerance: float | None = None,
) -> dict[str, tf.Tensor]:
    """As `looped`, of P people whom each stage's network sees in one call.

    Args:
      view: gives what so many crops of each one are read from; `Framed` of one person.
      sizes: [P, 2] int32, height and width of each one's image.
      boxes: [P, 4] float32 pixels, as of `looped`.
      tolerance: as of `looped`: who has settled keeps the pose, and the loop goes on
        while anybody moves.

    Returns:
      As `looped`, with P in front.
    """
    boxes, valid = cascades.sight(boxes, sizes)
    pose, spread = _first(cascade, view(1), boxes)
    valid &= cascades.is_finite(pose)
    pose = tf.where(valid[:, None, None], pose, 0.0)
    # The number of the stage to come, who is still refined [P], the last pose
    # [P, K, 2], the poses after every stage [P, S, K, 2], what scores are made from
    # [P, K, 2], and whether all were finite [P].
    poses = tf.stack([pose] * cascade.count, axis=1)
    state = 1, valid, pose, poses, spread, valid
    if cascade.count > 1:
        source = view(len(cascade.skeleton.joints))
        refine = functools.partial(_next_stage, cascade, source, tolerance)
        state = tf.while_loop(
            lambda number, moving, *_: tf.reduce_any(moving) & (number < cascade.count),
            refine,
            state,
            parallel_iterations=1,
        )
    return cascades.answer(*state[2:], cascade.skeleton)


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
    found = cascades.answer(pose, by_stage, spread, valid, cascade.skeleton)
    return {name: value[0] for name, value in found.items()}


def _first(cascade, source, box):
    with tf.name_scope(f"{STAGE}1"):
        return cascades.first_pose(cascade.stages[0], source, box, _image_of_one())


def _refined(cascade, source, index, pose):
    """A later stage, by its index from 0: pose [P, K, 2] -> pose, what scores need."""
    with tf.name_scope(f"{STAGE}{index + 1}"):
        return cascades.refined_pose(
            cascade.stages[index], source, pose, _image_of_one()
        )


def _next_stage(cascade, source, tolerance, number, moving, pose, poses, spread, valid):
    """The body of the loop: its state after one more stage."""
    branches = [
        functools.partial(_refined, cascade, source, index, pose)
        for index in range(1, cascade.count)
    ]
    # A single branch needs no choice.
    only = len(branches) == 1
    refined, more = branches[0]() if only else tf.switch_case(number - 1, branches)
    refined = tf.ensure_shape(refined, pose.shape)  # [P, K, 2]
    more = tf.ensure_shape(more, spread.shape)
    finite = cascades.is_finite(refined)
    valid &= finite | ~moving
    moving &= finite
    # NaN must not choose the pixels of the next crop, and who has settled stays.
    refined = tf.where(moving[:, None, None], refined, pose)
    spread += tf.where(moving[:, None, None], more, 0.0)
    later = tf.range(cascade.count) >= number  # [S]
    poses = tf.where(later[None, :, None, None], refined[:, None], poses)
    if tolerance is not None:
        farthest = tf.reduce_max(tf.norm(refined - pose, axis=-1), axis=-1)  # [P]
        moving &= farthest >= tolerance * cascades.diameters(pose, cascade.skeleton)
    return number + 1, moving, refined, poses, spread, valid


def _image_of_one():
    """Whose image each box is of: the only one; or their source knows."""
    return tf.zeros([1], tf.int32)
