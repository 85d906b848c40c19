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
    cascade: Cascade,
    image: tf.Tensor,
    box: tf.Tensor,
    loop: bool = True,
    tolerance: float | None = None,
    view: Callable[[tf.Tensor], sampling.Pyramid | cropping.Framed] = sampling.pyramid,
) -> dict[str, tf.Tensor]:
    """Eqs. (5) to (7) for one person; S stages, K joints.

    Args:
      cascade: its variables become those of the graph.
      image: [H, W, 3] uint8, of at least one pixel.
      box: [4] float32 pixels, any numbers; all zeros for the whole image.
      loop: whether the stages after the first are iterations of one loop, or follow
        one another in a longer graph, which delegates of phones take whole.
      tolerance: the loop ends once a stage moved every joint by less than this share
        of the pose's diameter. None runs every stage.
      view: makes of images [1, H, W, 3] what crops are read from: `sampling.pyramid`,
        or `cropping.framed`, which is faster and for TensorFlow alone.

    Returns:
      keypoints: [K, 2] pixels; zeros where not valid, as all that follows.
      keypoints_by_stage: [S, K, 2] pixels; stages not run repeat the one before.
      scores: [K] in 0..1, see `Cascade.predict`.
      valid: [] bool, whether the box could be answered, and the networks' answers
        were finite numbers.

    Raises:
      ValueError: a tolerance without a loop.
    """
    if tolerance is not None and not loop:
        raise ValueError("only a loop can end early: tolerance needs loop=True")
    box, valid = _sight(box, tf.shape(image)[None, :2])
    source = view(image[None])
    first, spread = _first(cascade, source, box)
    state = _first_state(first, spread, valid[0], cascade.count)
    if loop and cascade.count > 1:
        goes_on = functools.partial(_goes_on, cascade, tolerance)
        refine = functools.partial(_refined_state, cascade, source, tf.switch_case)
        state = tf.while_loop(goes_on, refine, state, parallel_iterations=1)
    else:
        for _ in range(1, cascade.count):
            state = _refined_state(cascade, source, _by_number, *state)
    _, _, pose, poses, spread, sound = state
    return _answer(cascade, pose, poses, spread, sound)


def person_of_known_size(
    cascade: Cascade, image: tf.Tensor, box: tf.Tensor
) -> dict[str, tf.Tensor]:
    """As `person`, unrolled, for images of one size, in what delegates of phones take.

    Between the sight of the box and the finished answer there are arithmetic and
    matrix products on float32 alone: nothing is looked up, chosen or branched on. What
    is no number may pass from stage to stage, where it can index nothing, and is found
    at the end.

    Args:
      cascade: as of `person`.
      image: [H, W, 3] uint8, H and W known.
      box: as of `person`.
    """
    box, valid = _sight(box, tf.constant([[*image.shape[:2]]]))
    source = cropping.levels(image)
    pose, spread = _first(cascade, source, box)
    poses = [pose]
    for number in range(1, cascade.count):
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


def _refined_state(cascade, source, choose, number, before, pose, poses, spread, sound):
    branches = [
        functools.partial(_refined, cascade, source, index, pose)
        for index in range(1, cascade.count)
    ]
    # A single branch needs no choice.
    only = len(branches) == 1
    refined, more = branches[0]() if only else choose(number - 1, branches)
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


def _by_number(index, branches):
    return branches[index]()


def _image_of_one():
    return tf.zeros([1], tf.int32)
