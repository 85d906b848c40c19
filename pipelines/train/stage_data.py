"""What a stage is trained on: batches, the crops made of them, the mean of its targets.

Stage 1 learns whole people, a later one the displacements of the stage before.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deeppose_tf import geometry, metrics
from deeppose_tf.pipelines.data import augment, inputs, records
from deeppose_tf.pipelines.data.config import InputConfig
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.train import recipes
from deeppose_tf.stage import Stage


def make_examples(index: records.Index, recipe: recipes.Recipe, earlier: list[Stage]):
    """The augmentation of a stage as a function of a batch of `training_dataset`."""

    def pose(canvases, keypoints, labeled, boxes, draws):
        return augment.pose_examples(
            canvases,
            keypoints,
            labeled,
            boxes,
            draws,
            index.skeleton,
            recipe.stage,
            recipe.augment,
        )

    def joint(canvases, keypoints, labeled, boxes, draws):
        del boxes  # later stages look at joints only
        return augment.joint_examples(
            canvases,
            keypoints,
            labeled,
            draws,
            tf.constant(earlier[-1].mean, tf.float32),
            tf.constant(earlier[-1].covariance, tf.float32),
            index.skeleton,
            recipe.stage,
            recipe.augment,
        )

    return joint if earlier else pose


def batches(
    index: records.Index,
    config: InputConfig,
    seed: int,
    limit: int | None,
    epoch: int,
    skip: int,
    context: tf.distribute.InputContext,
) -> tf.data.Dataset:
    """`inputs.training_dataset` with what changes from epoch to epoch last."""
    return inputs.training_dataset(index, config, seed, epoch, skip, limit, context)


def count_steps(index: records.Index, config: InputConfig, limit: int | None) -> int:
    """Steps that an epoch of the training split, or of its first people, takes.

    Raises:
      ValueError: there are fewer people than one step takes.
    """
    count = min(index.counts["train"], limit or index.counts["train"])
    people = config.batch // config.views
    if count < people:
        raise ValueError(
            f"{index.directory} has {count} people to train on, a step takes {people}: "
            "lower --batch"
        )
    return count // people


def mean_target(
    index: records.Index, recipe: recipes.Recipe, earlier: list[Stage]
) -> np.ndarray:
    """[K, 2] normalized: the mean of a stage's targets, which it answers untrained."""
    if earlier:
        return -earlier[-1].mean / recipe.stage.sigma
    people = read_people(index, "train")
    boxes = geometry.first_boxes(
        people.first_boxes, recipe.stage.margin, recipe.stage.square
    )
    normalized = geometry.normalize(people.keypoints, boxes).numpy()
    return metrics.mean_pose(normalized, people.labeled)
