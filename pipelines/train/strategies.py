"""Which devices and machines a training runs on, and what their processes agree on."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence

import tensorflow as tf

from deeppose_tf.pipelines.train import cluster


@functools.cache
def make_strategy(
    name: str, wait_seconds: float = cluster.WAIT_SECONDS
) -> tf.distribute.Strategy:
    """`auto`, `one`, `mirrored` or `multiworker` -> a strategy, the same every time.

    `auto` mirrors over the GPUs where there are several. `multiworker` reads TF_CONFIG
    and waits so long for the others; it has to be made before TensorFlow computes
    anything, and only once.

    Raises:
      ValueError: the name is none of these; or see `cluster.read` and `cluster.meet`.
      OSError: see `cluster.meet`.
    """
    if name == "auto":
        several = len(tf.config.list_logical_devices("GPU")) > 1
        name = "mirrored" if several else "one"
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return tf.distribute.MirroredStrategy()
    if name == "multiworker":
        processes = cluster.read()
        cluster.meet(processes, wait_seconds)
        limit = max(wait_seconds, cluster.MEETING_SECONDS)
        with cluster.watched(processes), cluster.in_time(processes, limit):
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


def from_chief(
    strategy: tf.distribute.Strategy,
    numbers: Sequence[int],
    counts: Sequence[int] = (),
) -> list[int]:
    """What the chief gives here, for all workers, which wait for each other, and then
    the sums of their own counts; without any, what is given."""
    if not worker(strategy):
        return [*numbers, *counts]
    given = numbers if is_chief(strategy) else [0] * len(numbers)
    return _summed(strategy)(tf.constant([*given, *counts], tf.int64)).numpy().tolist()


@functools.cache
def _summed(strategy):
    """Numbers of each worker -> their sum over all workers."""
    replicas = len(strategy.extended.worker_devices)  # of this worker

    @tf.function(autograph=False)
    def summed(numbers):
        shares = strategy.run(lambda: numbers)
        return strategy.reduce("SUM", shares, axis=None) // replicas

    return summed


@contextlib.contextmanager
def together(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Around what several workers do together: when one is gone the others end.

    Raises:
      ValueError: one is gone; says which.
    """
    if not worker(strategy):
        yield
        return
    processes = cluster.read()
    try:
        with cluster.watched(processes):
            yield
    except tf.errors.OpError as error:
        line = cluster.lost(processes)
        # One that stands still keeps its port, and sends TensorFlow no heartbeats.
        named = re.search(r"/job:(\w+)/(?:replica:\d+/)?task:(\d+)", error.message)
        if not line and named and "Collective" in error.message:
            line = f"{'_'.join(named.groups())} does not answer; {cluster.AGAIN}"
        if line:
            raise ValueError(line) from error
        raise
