"""The time that a pose takes (Sec. 4.1), by the number of stages."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeppose_tf import cascade as cascades
from deeppose_tf.pipelines.data import inputs, records
from deeppose_tf.pipelines.evaluation import split_predictions as poses
from deeppose_tf.pipelines.paper import experiment, published
from deeppose_tf.pipelines.profiling import timer
from deeppose_tf.plot import Bars, plot_bars

keras = tf.keras

COLUMNS = ("median", "mean", "90th percentile", "processor")
# Images that are timed unless asked otherwise.
IMAGES = 50


def result(
    cascade: cascades.Cascade,
    index: records.Index,
    split: str,
    count: int,
    paper: published.Experiment,
    verbose: int = 1,
) -> experiment.Result:
    """Times the first `count` people of a split, one image after the other.

    Every image is decoded and predicted by all shorter cascades in turn, so that
    whatever else the machine does slows all of them alike. The first image is done
    twice, and counted the second time.
    """
    times = _measure(_parts(cascade), index, split, count, verbose)
    rows = [experiment.row(name, _summary(*pairs)) for name, pairs in times.items()]
    others = experiment.published_rows(paper, COLUMNS)
    # Without those that are many times slower.
    shown = [
        Bars(one["name"], [one["values"]["mean"]["value"]], i, one in others)
        for i, one in enumerate(rows + others[:1])
    ]
    what = (
        f"{count} images one by one, {timer.cores()} cores, {timer.device()}, "
        f"TensorFlow {tf.__version__}"
    )
    picture = plot_bars(["mean"], shown, what, "seconds per image", None)
    meanings = [
        what,
        "seconds that pass for one image and its one person; processor: mean of the "
        "seconds that cores work, which other programs disturb less. The images are in "
        "memory and decoded before; decoding is a row of its own",
    ]
    return experiment.Result(
        experiment.SECONDS, COLUMNS, rows + others, meanings, picture
    )


def _parts(cascade) -> dict[str, Callable]:
    """(encoded image, first box) -> result, by name."""
    parts: dict[str, Callable] = {
        "decoding": lambda encoded, box: inputs.decode(encoded).numpy()
    }
    for number in range(1, cascade.count + 1):
        shorter = cascades.Cascade(cascade.stages[:number])
        name = f"{number} stage{'s' if number > 1 else ''}"
        parts[name] = shorter.predict
    return parts


def _measure(parts, index, split, count, verbose):
    """By part, seconds that passed and that cores worked: two of [N]."""
    turns = {name: [] for name in parts}
    bar = keras.utils.Progbar(count, verbose=verbose, unit_name="person")
    people = poses.read_records(index, split).take(count)
    for i, record in enumerate(people):
        image = inputs.decode(record["image"]).numpy()
        box = record["box"].numpy()[np.newaxis]
        for name, part in parts.items():
            given = record["image"] if name == "decoding" else image
            for _ in range(1 if i else 2):  # the first call compiles
                start, worked = time.perf_counter(), time.process_time()
                part(given, box)
                spent = time.perf_counter() - start, time.process_time() - worked
            turns[name].append(spent)
        bar.update(i + 1)
    return {name: np.transpose(pairs) for name, pairs in turns.items()}


def _summary(passed, worked):
    values = np.median(passed), passed.mean(), np.quantile(passed, 0.9), worked.mean()
    return {
        column: {"value": float(value), "scored": len(passed)}
        for column, value in zip(COLUMNS, values, strict=True)
    }
