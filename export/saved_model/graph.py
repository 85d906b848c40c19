"""The cascade as one graph: a loop over the stages in which weights are used in place.

One person at a time, so that memory is bounded and nobody's answer depends on who else
was asked about. What is exported computes this, and only core operations are in it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import tensorflow as tf

from deeppose_tf import cascade as cascades
from deeppose_tf import geometry, sampling
from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import cropping

# What is looked at in place of a box that cannot be answered.
NOWHERE = (0.0, 0.0, 1.0, 1.0)
# Operations of a stage have names that begin so, and with its number.
STAGE = "stage_"


def person(
    cascade: Cascade, image: tf.Tensor, box: tf.Tensor, tolerance: float | None = None
) -> dict[str, tf.Tensor]:
    """Eqs. (5) to (7) for one person; S stages, K joints, in a loop over the stages.

    Args:
      cascade: its variables become those of the graph.
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
    box, valid = _sight(box, tf.shape(image)[None, :2])
    source = cropping.framed(image[None])
    first, spread = _first(cascade, source, box)
    state = _first_state(first, spread, valid[0], cascade.count)
    if cascade.count > 1:
        goes_on = functools.partial(_goes_on, cascade, tolerance)
        refine = functools.partial(_refined_state, cascade, source)
        state = tf.while_loop(goes_on, refine, state, parallel_iterations=1)
    _, _, pose, poses, spread, sound = state
    return _answer(cascade, pose, poses, spread, sound)


def unrolled(
    cascade: Cascade,
    image: tf.Tensor,
    box: tf.Tensor,
    view: Callable[[tf.Tensor], sampling.Pyramid | cropping.Framed] = sampling.pyramid,
) -> dict[str, tf.Tensor]:
    """As `person`, every stage after the one before in a longer graph, as phones take.

    Of an image of known size there are, between the sight of the box and the finished
    answer, arithmetic and matrix products on float32 alone, which delegates take whole:
    nothing is looked up, chosen or branched on.

    Args:
      cascade, image, box: as of `person`.
      view: makes of images [1, H, W, 3] of any size what crops are read from.
    """
    height, width, _ = image.shape
    known = height is not None and width is not None
    size = tf.constant([[height, width]]) if known else tf.shape(image)[None, :2]
    box, valid = _sight(box, size)
    source = cropping.levels(image) if known else view(image[None])
    pose, spread = _first(cascade, source, box)
    poses = [pose]
    for number in range(1, cascade.count):
        if not known:  # what is no number must not choose pixels
            pose = tf.where(cascades.is_finite(pose), pose, 0.0)
        pose, more = _refined(cascade, source, number, pose)
        poses.append(pose)
        spread += more
    by_stage = tf.stack(poses, axis=1)  # [1, S, K, 2]
    sound = valid[0] & cascades.is_finite(by_stage[0])
    return _answer(cascade, pose, by_stage, spread, tf.reduce_all(sound))


def _sight(box, size):
    """[4] and the size [1, 2] of the image -> the box to look at, and if it is asked
    for: [1, 4], [1]."""
    box = geometry.whole_image_boxes(box[None], size)
    valid = cascades.answerable(box, size)
    return tf.where(valid[:, None], box, tf.constant([NOWHERE])), valid


# The state of the loop: the number of the stage to come, the last two poses [1, K, 2],
# the poses after every stage [1, S, K, 2], the spread [1, K, 2] that scores are made
# from, and whether all were finite.


def _first(cascade, source, box):
    with tf.name_scope(f"{STAGE}1"):
        return cascades.first_pose(cascade.stages[0], source, box, _image_of_one())


def _refined(cascade, source, index, pose):
    with tf.name_scope(f"{STAGE}{index + 1}"):
        return cascades.refined_pose(
            cascade.stages[index], source, pose, _image_of_one()
        )


def _first_state(first, spread, valid, count):
    sound = valid & cascades.is_finite(first)[0]
    first = tf.where(sound, first, 0.0)
    return 1, first, first, tf.stack([first] * count, axis=1), spread, sound


def _refined_state(cascade, source, number, before, pose, poses, spread, sound):
    branches = [
        functools.partial(_refined, cascade, source, index, pose)
        for index in range(1, cascade.count)
    ]
    # A single branch needs no choice.
    only = len(branches) == 1
    refined, more = branches[0]() if only else tf.switch_case(number - 1, branches)
    refined = tf.ensure_shape(refined, pose.shape)  # [1, K, 2]
    spread += tf.ensure_shape(more, spread.shape)
    sound = sound & cascades.is_finite(refined)[0]
    # Positions that are no numbers must not reach the next crop.
    refined = tf.where(sound, refined, pose)
    later = tf.range(cascade.count) >= number  # [S]
    poses = tf.where(later[None, :, None, None], refined[:, None], poses)
    return number + 1, pose, refined, poses, spread, sound


def _goes_on(cascade, tolerance, number, before, pose, poses, spread, sound):
    more = sound & (number < cascade.count)
    if tolerance is None:
        return more
    farthest = tf.reduce_max(tf.norm(pose - before, axis=-1))
    settled = farthest < tolerance * cascades.diameters(before, cascade.skeleton)[0]
    return more & ((number < 2) | ~settled)


def _answer(cascade, pose, poses, spread, sound):
    scores = cascades.scores(spread, pose, cascade.skeleton)
    sound = sound & tf.reduce_all(cascades.is_finite(scores[..., None]))
    return {
        "keypoints": tf.where(sound, pose, 0.0)[0],
        "keypoints_by_stage": tf.where(sound, poses, 0.0)[0],
        "scores": tf.where(sound, scores, 0.0)[0],
        "valid": sound,
    }


def _image_of_one():
    return tf.zeros([1], tf.int32)
