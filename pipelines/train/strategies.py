"""Which devices and machines a training runs on, and what their processes agree on."""

from __future__ import annotations

import functools

import tensorflow as tf


@functools.cache
def make_strategy(name: str) -> tf.distribute.Strategy:
    """`auto`, `one`, `mirrored` or `multiworker` -> a strategy, the same every time.

    `auto` mirrors over the GPUs where there are several. `multiworker` reads TF_CONFIG;
    it has to be made before TensorFlow computes anything, and only once.

    Raises:
      ValueError: the name is none of these.
    """
    if name == "auto":
        several = len(tf.config.list_logical_devices("GPU")) > 1
        name = "mirrored" if several else "one"
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    raise ValueError(f"strategy {name!r} is none of auto, one, mirrored, multiworker")


def worker(strategy: tf.distribute.Strategy) -> str:
    """The name of this process among several workers, such as `worker_1`; else ""."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return ""
    return f"{resolver.task_type}_{resolver.task_id}"


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this is the one process that writes what all workers share."""
    if not worker(strategy):
        return True
    has_chief = "chief" in strategy.cluster_resolver.cluster_spec().jobs
    return worker(strategy) == ("chief_0" if has_chief else "worker_0")


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Returns when all workers have come here."""

    @tf.function(autograph=False)
    def meet():
        ones = strategy.run(lambda: tf.constant(1.0))
        return strategy.reduce("SUM", ones, axis=None)

    meet().numpy()
