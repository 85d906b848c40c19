"""Records -> tf.data: training and evaluation batches of canvases.

The host parses, decodes and cuts the person with some context to a uint8 canvas of
fixed size: once, where the canvases are kept, see `canvases`. Cutting moves whole
pixels: only a person larger than the canvas is halved, by the same average as the
resampler's own levels. So decoding is paid once per image and the one resampling is
left to the accelerator.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from deeppose_tf import geometry, sampling
from deeppose_tf.pipelines.data import augment, records
from deeppose_tf.pipelines.data.config import InputConfig

if TYPE_CHECKING:
    from deeppose_tf.pipelines.data import canvases

MOST_HALVINGS = 8
# Batches made ahead. AUTOTUNE makes more each time that the input side falls behind,
# and keeps them: of the paper's, 57 MB each, memory grew with the length of an epoch.
AHEAD = 2


class Order:
    """Who is shown at each place of a training, and by which draws.

    Everyone is shown as often as their weight says, then again in another order,
    without end. A step goes on where the one before ended, so that nobody is left out,
    and what a place shows depends on the seed alone, whatever the batch is.
    """

    def __init__(self, weights: np.ndarray, seed: int, config: InputConfig):
        """Of people with these weights [N], for batches of this configuration."""
        self._everyone = np.repeat(np.arange(len(weights)), weights)
        self._seed = seed
        self._people = config.batch // config.views
        self._shape = config.views, len(augment.DRAWS)
        self._epoch = functools.lru_cache(2)(self._shuffled)

    def __call__(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The people [B] of a step, from 0, and their draws [B, views, D] in [0, 1)."""
        first = int(step) * self._people
        places = np.arange(first, first + self._people)
        epochs, within = np.divmod(places, len(self._everyone))
        order = {epoch: self._epoch(epoch) for epoch in np.unique(epochs)}
        chosen = [order[epoch][i] for epoch, i in zip(epochs, within, strict=True)]
        return np.array(chosen, np.int64), self._draws(first)

    def _shuffled(self, epoch):
        return np.random.default_rng([self._seed, epoch]).permutation(self._everyone)

    def _draws(self, first):
        # A counter of this generator gives four numbers; each place has its own.
        count = -(-math.prod(self._shape) // 4)
        generator = np.random.Philox(key=self._seed).advance(first * count)
        draws = np.random.Generator(generator).random([self._people, 4 * count])
        # Rounded to float32 a number just below 1 would become it.
        draws = np.minimum(draws, 1 - 2.0**-24).astype(np.float32)
        return draws[:, : math.prod(self._shape)].reshape(-1, *self._shape)


def training_dataset(
    people: canvases.People,
    config: InputConfig,
    seed: int,
    steps: range,
    context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """The batches of some steps of a training, in an order given by the seed.

    Args:
      people: see `canvases.open_people`.
      config: see `InputConfig`.
      seed: of the run.
      steps: which, from 0.
      context: of a strategy with several replicas: the batches are one for each
        replica of this worker in turn, and those of all make up the same step.

    Returns:
      Batches of B = batch / views people: canvases [B, C, C, 3] uint8, keypoints
      [B, K, 2] in pixels of the canvas, labeled [B, K], boxes [B, 4] first boxes in
      pixels of the canvas, draws [B, views, D] uniform in [0, 1). Where canvases are
      kept on the device: the numbers [B] of the people and the draws.

    Raises:
      ValueError: the replicas cannot share a batch evenly.
    """
    order = Order(people.weights, seed, config)
    workers, worker, replicas = 1, 0, 1
    if context:
        workers, worker = context.num_input_pipelines, context.input_pipeline_id
        replicas = context.num_replicas_in_sync
    share = _per_replica(config.batch // config.views, replicas)
    here = replicas // workers

    def choose(number):
        replica = worker * here + number % here
        chosen, draws = tf.numpy_function(
            order, [number // here], [tf.int64, tf.float32], stateful=False
        )
        own = slice(replica * share, (replica + 1) * share)
        chosen, draws = chosen[own], draws[own]
        chosen.set_shape([share])
        draws.set_shape([share, config.views, len(augment.DRAWS)])
        return chosen, draws

    numbers = tf.data.Dataset.range(here * steps.start, here * steps.stop)
    dataset = numbers.map(_traced(choose))
    if people.records:
        dataset = _decoded(dataset, people, config, share)
    elif people.cache != "device":
        dataset = dataset.map(_traced(people.gather), 2, deterministic=True)
    return dataset.prefetch(AHEAD)


def _decoded(dataset, people, config, share):
    """The people of each batch, read and decoded anew; several at a time."""

    def read(chosen, draws):
        return tf.numpy_function(people.records, [chosen], tf.string, stateful=False)

    def example(serialized):
        return _example(tf.ensure_shape(serialized, []), people.joints, config)[1:]

    serialized = dataset.map(_traced(read)).unbatch()
    examples = serialized.map(_traced(example), tf.data.AUTOTUNE, deterministic=True)
    examples = examples.batch(share, drop_remainder=True)
    zipped = tf.data.Dataset.zip((examples, dataset))
    return zipped.map(_traced(lambda labeled, chosen: (*labeled, chosen[1])))


def evaluation_dataset(
    index: records.Index,
    split: str,
    config: InputConfig,
    batch: int,
    limit: int | None = None,
) -> tf.data.Dataset:
    """A split once, in order, nobody left out; canvases as in training.

    Args:
      index: of the prepared data set.
      split: its name.
      config: of the canvases.
      batch: people in a batch.
      limit: use the first people of the split only.

    Returns:
      Batches as `training_dataset`, without draws; the last may be smaller.
    """
    dataset = tf.data.TFRecordDataset(list(index.shards[split]))
    if limit is not None:
        dataset = dataset.take(limit)
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


def _per_replica(people, replicas):
    if people % replicas:
        raise ValueError(
            f"a batch takes {people} images, which {replicas} devices cannot share "
            f"evenly: give a --batch of a multiple of {replicas} images"
        )
    return people // replicas


def _traced(function):
    """As it is: there is nothing in it that AutoGraph would have to convert."""
    return tf.autograph.experimental.do_not_convert(function)


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
