"""Records -> tf.data: training and evaluation batches of canvases.

The host parses, decodes and cuts the person with some context to a uint8 canvas of
fixed size. Cutting moves whole pixels: only a person larger than the canvas is halved,
by the same average as the resampler's own levels. So decoding is paid once per image
and the one resampling is left to the accelerator.
"""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from deeppose_tf import geometry, sampling
from deeppose_tf.pipelines.data import augment, records
from deeppose_tf.pipelines.data.config import InputConfig

# Records are shuffled once when they are written; a moderate buffer does the rest,
# and keeps memory independent of the size of the data set.
SHUFFLE_BUFFER = 1024
MOST_HALVINGS = 8
# Batches made ahead. AUTOTUNE makes more each time that the input side falls behind,
# and keeps them: of the paper's, 57 MB each, memory grew with the length of an epoch.
AHEAD = 2


def training_dataset(
    index: records.Index,
    config: InputConfig,
    seed: int,
    epoch: int,
    skip: int = 0,
    limit: int | None = None,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """One epoch of the training split in an order given by (seed, epoch).

    Args:
      index: of the prepared data set.
      config: see `InputConfig`.
      seed: of the run.
      epoch: from 0.
      skip: batches to leave out at the start, when a run is resumed.
      limit: use the first people of the split only.
      context: of a strategy with several replicas: the batches are one for each
        replica of this worker in turn, and those of all make up the same step.

    Returns:
      Batches of B = batch / views people: canvases [B, C, C, 3] uint8, keypoints
      [B, K, 2] in pixels of the canvas, labeled [B, K], boxes [B, 4] first boxes in
      pixels of the canvas, draws [B, views, D] uniform in [0, 1). The last, smaller
      batch of an epoch is left out.

    Raises:
      ValueError: the replicas cannot share a batch evenly.
    """
    people = config.batch // config.views
    shards = list(index.shards["train"])
    order = np.random.default_rng([seed, epoch])
    if limit is None:
        order.shuffle(shards)
    files = tf.data.Dataset.from_tensor_slices(shards)
    dataset = files.interleave(tf.data.TFRecordDataset, cycle_length=1 if limit else 4)
    if limit is not None:
        dataset = dataset.take(limit)
    dataset = dataset.shuffle(
        SHUFFLE_BUFFER,
        seed=int(order.integers(2**31)),
        reshuffle_each_iteration=False,  # The order is the epoch's, not the pass's.
    )
    count = min(index.counts["train"], limit or index.counts["train"])
    dataset = dataset.take(count - count % people).skip(skip * people)
    if context:
        people = _per_replica(people, context)
        dataset = dataset.shard(context.num_input_pipelines, context.input_pipeline_id)
    prepare = functools.partial(
        _training_example,
        joints=len(index.skeleton.joints),
        config=config,
        seed=(seed, epoch),
    )
    dataset = dataset.map(prepare, tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(people, drop_remainder=True).prefetch(AHEAD)


def evaluation_dataset(
    index: records.Index,
    split: str,
    config: InputConfig,
    batch: int,
    limit: int | None = None,
    chosen: np.ndarray | None = None,
) -> tf.data.Dataset:
    """A split once, in order, nobody left out; canvases as in training.

    Args:
      index: of the prepared data set.
      split: its name.
      config: of the canvases.
      batch: people in a batch.
      limit: use the first people of the split only.
      chosen: [N] bool, of these records; None for all.

    Returns:
      Batches as `training_dataset`, without draws; the last may be smaller.
    """
    dataset = tf.data.TFRecordDataset(list(index.shards[split]))
    if limit is not None:
        dataset = dataset.take(limit)
    if chosen is not None:
        marked = tf.data.Dataset.from_tensor_slices(chosen)
        dataset = tf.data.Dataset.zip((dataset, marked))
        dataset = dataset.filter(lambda serialized, mark: mark)
        dataset = dataset.map(lambda serialized, mark: serialized)
    prepare = functools.partial(
        _example, joints=len(index.skeleton.joints), config=config
    )
    dataset = dataset.map(
        lambda serialized: prepare(serialized)[1:], tf.data.AUTOTUNE, deterministic=True
    )
    return dataset.batch(batch).prefetch(AHEAD)


def cut_canvas(
    image: tf.Tensor, box: tf.Tensor, config: InputConfig
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cuts the square around a box, whole pixels only, halved where it is too large.

    Args:
      image: [H, W, 3] uint8.
      box: [4], pixels of the image.
      config: gives C and the context.

    Returns:
      canvas [C, C, 3] uint8, grey outside the image; factor, scalar float32, and
      origin [2] float32: a point of the image lies at y * factor - origin.
    """
    side = tf.reduce_max(geometry.box_size(box)) * (1 + config.context)
    factor = 1.0
    level = tf.cast(image, tf.float32)
    for _ in range(MOST_HALVINGS):
        large = side * factor > config.canvas
        level = tf.cond(
            large, functools.partial(_halve, level), lambda level=level: level
        )
        factor = tf.where(large, factor / 2, factor)
    size = tf.shape(level)[:2]
    middle = geometry.box_center(box) * factor
    origin = tf.cast(tf.round(middle - config.canvas / 2), tf.int32)  # x, y
    start = tf.clip_by_value(origin[::-1], 0, size)  # y, x
    end = tf.clip_by_value(origin[::-1] + config.canvas, 0, size)
    cut = level[start[0] : end[0], start[1] : end[1]]
    before = tf.clip_by_value(-origin[::-1], 0, config.canvas - (end - start))
    after = config.canvas - (end - start) - before
    padding = tf.concat([tf.stack([before, after], 1), [[0, 0]]], 0)
    canvas = tf.pad(tf.round(cut), padding, constant_values=sampling.PADDING)
    canvas = tf.ensure_shape(canvas, [config.canvas, config.canvas, 3])
    return tf.cast(canvas, tf.uint8), factor, tf.cast(origin, tf.float32)


def decode(encoded: tf.Tensor) -> tf.Tensor:
    """Encoded image, scalar string -> [H, W, 3] uint8, the pixels of `read_image`."""
    image = tf.cond(
        tf.io.is_jpeg(encoded),
        # The default trades accuracy for speed: other pixels than in prediction.
        lambda: tf.io.decode_jpeg(encoded, 3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_image(encoded, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, [None, None, 3])


def _per_replica(people, context):
    replicas = context.num_replicas_in_sync
    if people % replicas:
        raise ValueError(
            f"a batch takes {people} images, which {replicas} devices cannot share "
            f"evenly: give a --batch of a multiple of {replicas} images"
        )
    return people // replicas


@tf.autograph.experimental.do_not_convert
def _training_example(serialized, joints, config, seed):
    name, *example = _example(serialized, joints, config)
    number = tf.strings.to_hash_bucket_fast(name, 2**31 - 1)
    run = tf.constant(seed[0] * 1_000_003 + seed[1], tf.int64)
    draws = tf.random.stateless_uniform(
        [config.views, len(augment.DRAWS)], seed=tf.stack([run, number])
    )
    return *example, draws


@tf.autograph.experimental.do_not_convert
def _example(serialized, joints, config):
    """(id, canvas, keypoints, labeled, box) of one record."""
    record = records.parse(serialized, joints)
    image = decode(record["image"])
    box = geometry.whole_image_boxes(record["box"], record["size"])
    canvas, factor, origin = cut_canvas(image, box, config)
    keypoints = record["keypoints"] * factor - origin
    box = box * factor - tf.concat([origin, origin], 0)
    return record["id"], canvas, keypoints, record["labeled"], box


def _halve(level):
    return tf.nn.avg_pool2d(level[None], 2, 2, "SAME")[0]
