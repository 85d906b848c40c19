"""The timer of every benchmark: parts in turns, in one process. No TensorFlow needed.

Whatever else the machine does then slows all parts alike: ratios hold where times do
not. Processor time is what this program's threads worked, on all cores together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from deeppose_tf.pipelines.cli import progress

NO_GPU = "no GPU"


def in_turns(
    parts: Mapping[str, Callable],
    turns: Iterable,
    prepare: Callable[[Callable, object], Callable] | None = None,
    shown: bool = True,
) -> dict[str, np.ndarray]:
    """Times every part once in each turn.

    Args:
      parts: by name. A part has to wait for its result, as `np.asarray` does.
      turns: whatever they are made of, such as `range(rounds)` or images.
      prepare: (part, turn) -> what is timed, a function without arguments, prepared
        while the clock stands; by default the part itself.

    Returns:
      By name [turns, 2] seconds: that passed, and that processors worked. The first
      turn is done twice and counted the second time: the first call may compile.
    """
    turns = list(turns)
    taken: dict[str, list] = {name: [] for name in parts}
    with progress.bar(len(turns), "Timing", "turn", shown=shown) as bar:
        for number, turn in enumerate(turns):
            for name, part in parts.items():
                run = prepare(part, turn) if prepare else part
                if not number:
                    run()
                passed, worked = time.perf_counter(), time.process_time()
                run()
                passed = time.perf_counter() - passed
                taken[name].append((passed, time.process_time() - worked))
            bar.update(1)
    return {name: np.array(pairs) for name, pairs in taken.items()}


def medians(
    taken: Mapping[str, np.ndarray], base: str | None = None
) -> dict[str, dict[str, float]]:
    """Medians over the turns of what `in_turns` returns: by name `seconds` and
    `cpu_seconds`; and `ratio` and `cpu_ratio` to the part `base`, turn by turn."""
    found = {}
    for name, pairs in taken.items():
        columns = {"seconds": pairs[:, 0], "cpu_seconds": pairs[:, 1]}
        if base is not None:
            # Some clocks of processor time are too coarse for the shortest parts.
            ratios = pairs / np.maximum(taken[base], 1e-9)
            columns |= {"ratio": ratios[:, 0], "cpu_ratio": ratios[:, 1]}
        found[name] = {key: float(np.median(one)) for key, one in columns.items()}
    return found


def cores() -> int | None:
    """Processor cores that this process may use, where the system tells."""
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count()


def device() -> str:
    """The name of the first GPU, or that there is none."""
    import tensorflow as tf  # takes seconds

    found = tf.config.list_physical_devices("GPU")
    if not found:
        return NO_GPU
    return tf.config.experimental.get_device_details(found[0])["device_name"]
