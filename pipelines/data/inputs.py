"""People -> tf.data: training and evaluation batches of canvases.

Who is shown, and by which draws, is a function of the seed and the step alone, wherever
the canvases come from; see `canvases`.
"""

from __future__ import annotations

import contextlib
import functools
import math
import traceback
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from deeppose_tf.pipelines.data import augment, canvases, records
from deeppose_tf.pipelines.data.config import InputConfig

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
    images = config.batch // config.views
    if images % replicas:
        raise ValueError(
            f"a batch takes {images} images, which {replicas} devices cannot share "
            f"evenly: give a --batch of a multiple of {replicas} images"
        )
    share = images // replicas
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

    def gather(chosen, draws):
        return *people.gather(chosen), draws

    numbers = tf.data.Dataset.range(here * steps.start, here * steps.stop)
    dataset = numbers.map(_traced(choose))
    if people.cache != "device":
        dataset = dataset.map(_traced(gather), 2, deterministic=True)
    return dataset.prefetch(AHEAD)


def evaluation_dataset(
    index: records.Index,
    split: str,
    config: InputConfig,
    batch: int,
    limit: int | None = None,
) -> tf.data.Dataset:
    """A split once, in order, nobody left out; canvases as in training.

    Returns:
      Batches as `training_dataset`, without draws; the last may be smaller.
    """
    people = canvases.open_people(index, config, "none", limit, split=split)
    numbers = tf.data.Dataset.range(len(people.weights)).batch(batch)
    gather = _traced(lambda chosen: tuple(people.gather(chosen)))
    return numbers.map(gather).prefetch(AHEAD)


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Decorates what reads batches: they stop when it ends, with an error as well.

    Whoever keeps an error keeps what the frames that it passed hold. An iterator among
    it would go when Python collects garbage, in any thread: in one that the iterator's
    own threads wait for, as for a lock, both would stand still for ever.
    """
    try:
        yield
    except BaseException as error:
        passed = error
        while passed:
            for frame, _ in traceback.walk_tb(passed.__traceback__):
                with contextlib.suppress(RuntimeError):  # It is running.
                    # Those in between that TensorFlow hides, too.
                    for left, _ in traceback.walk_stack(frame):
                        left.clear()
            passed = passed.__context__
        raise


def _traced(function):
    """As it is: there is nothing in it that AutoGraph would have to convert."""
    return tf.autograph.experimental.do_not_convert(function)
