"""The cascade of Eqs. (5) to (7), and the displacement statistics of Sec. 3.2."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from deeppose_tf import files, geometry, sampling
from deeppose_tf.config import INDEX, INDEX_FORMATS, check_run
from deeppose_tf.skeleton import Skeleton
from deeppose_tf.stage import Stage, load_stage

# People whose joint crops are in memory at a time.
PEOPLE_AT_ONCE = 8
# Coordinates beyond this are no place in an image.
FARTHEST = 1e6
# Predictions beyond this are of a network that diverged.
DIVERGED = 1e9


class Cascade:
    """Trained stages that refine one pose after the other.

    Attributes:
      stages: in order; the first sees the whole person.
      skeleton: the K joints.
      count: the number of stages.
    """

    def __init__(self, stages: Sequence[Stage]):
        if not stages:
            raise ValueError("a cascade needs at least one stage")
        if any(stage.skeleton != stages[0].skeleton for stage in stages):
            raise ValueError("the stages have different skeletons")
        self.stages = tuple(stages)
        self.skeleton = stages[0].skeleton
        self.count = len(self.stages)
        self._function = tf.function(
            self.poses,
            input_signature=[
                tf.TensorSpec([None, None, None, 3], tf.uint8),
                tf.TensorSpec([None, 4], tf.float32),
                tf.TensorSpec([None], tf.int32),
            ],
            autograph=False,
        )

    @classmethod
    def load(cls, run: str) -> Cascade:
        """Loads a run directory that `deeppose-train` wrote.

        Raises:
          ValueError: it is not one, or a file in it is missing, damaged or of an
            unknown format.
        """
        return cls([load_stage(folder) for folder in check_run(run)])

    def save_index(self, run: str) -> None:
        """Writes `cascade.json`, which names the stage directories of a run."""
        stages = [f"stage_{i + 1}" for i in range(self.count)]
        content = {"format": INDEX_FORMATS[-1], "stages": stages}
        files.write_json(pathlib.Path(run) / INDEX, content)

    def predict(self, image: np.ndarray, boxes: np.ndarray | None = None) -> dict:
        """The poses of the people in one image.

        Args:
          image: [H, W, 3] uint8 RGB.
          boxes: [N, 4] first boxes, pixels; all zeros, or None, for the whole image.

        Returns:
          keypoints: [N, K, 2] pixels, of the last stage.
          keypoints_by_stage: [N, S, K, 2] pixels.
          scores: [N, K] in 0..1: exp(-d), where d is how far the last stage still
            moved the joint, in pose diameters. No probability; 1 of a single stage.
          valid: [N] bool: False where there is no pixel, where a box cannot be
            answered, or where a stage answered no finite numbers. All else of such a
            person is zeros.

        Raises:
          ValueError: image or boxes have another shape or type.
        """
        image = np.asarray(image)
        boxes = np.zeros([1, 4]) if boxes is None else np.asarray(boxes)
        boxes = boxes.astype(np.float32)
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f"image is {image.dtype} {image.shape}, expected uint8 [H, W, 3]"
            )
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes are {boxes.shape}, expected [N, 4]")
        if not image.size:
            # Nothing is seen of nothing: a pixel, and boxes that cannot be answered.
            image, boxes = np.zeros([1, 1, 3], np.uint8), np.full_like(boxes, np.nan)
        return _joined(
            self._function(image[None], some, np.zeros(len(some), np.int32))
            for some in _portions(boxes)
        )

    def predict_batch(self, images: np.ndarray, boxes: np.ndarray) -> dict:
        """As `predict` for images [B, H, W, 3] of one size with a box [B, 4] each."""
        pairs = zip(_portions(images), _portions(boxes), strict=True)
        return _joined(
            self._function(some, box, np.arange(len(box), dtype=np.int32))
            for some, box in pairs
        )

    def poses(self, images: tf.Tensor, boxes: tf.Tensor, indices: tf.Tensor) -> dict:
        """Eqs. (5) to (7) in TensorFlow; see `predict`.

        Args:
          images: [B, H, W, 3] uint8.
          boxes: [N, 4] float32, pixels; all zeros for the whole image.
          indices: [N] int32, the image of each box.
        """
        size = tf.shape(images)[1:3]
        boxes = geometry.whole_image_boxes(boxes, tf.broadcast_to(size, [1, 2]))
        valid = answerable(boxes)
        whole = geometry.whole_image_boxes(tf.zeros_like(boxes), size[None])
        boxes = tf.where(valid[:, None], boxes, whole)
        source = sampling.pyramid(images)
        pose = first_pose(self.stages[0], source, boxes, indices)
        valid &= is_finite(pose)
        poses = [tf.where(valid[:, None, None], pose, 0.0)]
        for stage in self.stages[1:]:
            pose = refined_pose(stage, source, poses[-1], indices)
            valid &= is_finite(pose)
            # Positions that are no numbers must not reach the next crop.
            poses.append(tf.where(valid[:, None, None], pose, poses[-1]))
        poses = tf.where(valid[:, None, None, None], tf.stack(poses, 1), 0.0)
        before, last = poses[:, max(self.count - 2, 0)], poses[:, -1]
        certain = scores(before, last, self.skeleton)
        return {
            "keypoints": last,
            "keypoints_by_stage": poses,  # [N, S, K, 2]
            "scores": tf.where(valid[:, None], certain, 0.0),
            "valid": valid,
        }


def first_pose(
    stage: Stage, source: sampling.Pyramid, boxes: tf.Tensor, indices: tf.Tensor
) -> tf.Tensor:
    """Eq. (5): [N, 4] boxes in the images [N] -> [N, K, 2], all in pixels."""
    boxes = geometry.first_boxes(boxes, stage.config.margin, stage.config.square)
    crops = sampling.crop(source, boxes, indices, stage.config.size)
    return geometry.denormalize(stage.model(crops, training=False), boxes)


def refined_pose(
    stage: Stage, source: sampling.Pyramid, keypoints: tf.Tensor, indices: tf.Tensor
) -> tf.Tensor:
    """Eq. (6): the boxes around all joints, and the displacements seen in them.

    Args:
      stage: the second or a later one.
      source: of all images.
      keypoints: [N, K, 2] finite pixels, of the stage before.
      indices: [N] int32, the image of each person.

    Returns:
      [N, K, 2] pixels.
    """
    joints = len(stage.skeleton.joints)
    boxes = geometry.joint_boxes(
        keypoints, diameters(keypoints, stage.skeleton), stage.config.sigma
    )  # [N, K, 4]
    crops = sampling.crop(
        source,
        tf.reshape(boxes, [-1, 4]),
        tf.repeat(indices, joints),
        stage.config.size,
    )
    outputs = stage.model(crops, training=False)  # [N K, K, 2]
    outputs = tf.reshape(outputs, [-1, joints, joints, 2])
    # Pair i of crop i. By a mask, because TFLite has no operation for a diagonal.
    own = tf.reduce_sum(outputs * tf.eye(joints)[:, :, None], axis=2)  # [N, K, 2]
    seen = tf.squeeze(geometry.denormalize(own[:, :, None], boxes), 2)
    return keypoints + stage.config.step_size * (seen - keypoints)


def scores(before: tf.Tensor, after: tf.Tensor, skeleton: Skeleton) -> tf.Tensor:
    """[N, K, 2] pixels of the last two stages -> [N, K]; see `Cascade.predict`."""
    moved = tf.norm(after - before, axis=-1)  # [N, K]
    return tf.exp(-moved / tf.maximum(diameters(before, skeleton), 1e-6)[:, None])


def diameters(keypoints: tf.Tensor, skeleton: Skeleton) -> tf.Tensor:
    """diam(y) of predicted poses, in which every joint is known: [N, K, 2] -> [N]."""
    labeled = tf.ones_like(keypoints[..., 0], tf.bool)
    return geometry.pose_diameter(keypoints, labeled, skeleton)


def _portions(array):
    """The array in parts of as many people as are in memory at a time."""
    starts = range(0, max(len(array), 1), PEOPLE_AT_ONCE)
    return [array[i : i + PEOPLE_AT_ONCE] for i in starts]


def _joined(answers):
    answers = list(answers)
    return {
        name: np.concatenate([answer[name].numpy() for answer in answers])
        for name in answers[0]
    }


def answerable(boxes: tf.Tensor) -> tf.Tensor:
    """[N, 4] pixels -> [N] bool: finite, of positive size, and not absurdly far."""
    near = tf.reduce_all(tf.abs(boxes) < FARTHEST, axis=-1)  # False for NaN
    return near & tf.reduce_all(geometry.box_size(boxes) > 0, axis=-1)


def is_finite(keypoints: tf.Tensor) -> tf.Tensor:
    """[N, K, 2] pixels -> [N] bool: numbers of a network that did not diverge."""
    return tf.reduce_all(tf.abs(keypoints) < DIVERGED, axis=[1, 2])  # False for NaN


def displacements(
    predicted: tf.Tensor, keypoints: tf.Tensor, labeled: tf.Tensor, skeleton
) -> tuple[tf.Tensor, tf.Tensor]:
    """y^s - y in true pose diameters, from which the next stage is simulated.

    Args:
      predicted: [B, K, 2], pixels.
      keypoints: [B, K, 2], pixels.
      labeled: [B, K] bool.
      skeleton: for the diameter.

    Returns:
      [B, K, 2], zero where not known; [B, K] bool, known.
    """
    keypoints = tf.convert_to_tensor(keypoints)
    diameters = geometry.pose_diameter(keypoints, labeled, skeleton)
    known = labeled & (diameters > 0)[:, None]
    scale = tf.where(diameters > 0, diameters, 1.0)[:, None, None]
    return tf.where(known[..., None], (predicted - keypoints) / scale, 0.0), known


def displacement_statistics(
    displaced: np.ndarray, known: np.ndarray, outlier_threshold: float = np.inf
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance per joint of Sec. 3.2.

    Args:
      displaced: [N, K, 2], pose diameters.
      known: [N, K] bool.
      outlier_threshold: what lies farther away, in pose diameters, is left out,
        unless hardly anything is nearer: a stage that has learned nothing yet.

    Returns:
      mean [K, 2] and covariance [K, 2, 2]; those of all joints together for a joint
      that is known in fewer than two people.

    Raises:
      ValueError: fewer than two joints are known in all.
    """
    near = known & (np.linalg.norm(displaced, axis=-1) <= outlier_threshold)
    known = near if near.sum() > 1 else known
    everything = displaced[known]
    mean, covariance = [], []
    for joint in range(displaced.shape[1]):
        own = displaced[known[:, joint], joint]
        own = own if len(own) > 1 else everything
        if len(own) < 2:
            raise ValueError("no labeled joints to take displacement statistics from")
        mean.append(own.mean(axis=0))
        covariance.append(np.cov(own, rowvar=False))
    return np.stack(mean).astype(np.float32), np.stack(covariance).astype(np.float32)
