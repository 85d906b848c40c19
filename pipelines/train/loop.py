"""The training loop of every stage, whole: any strategy, checkpoints, TensorBoard.

`Model.fit` fails under MultiWorkerMirroredStrategy on Keras 3, so the loop is our own;
optimizers and schedules are Keras's. What one step does is in `step`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from absl import logging

from deeppose_tf import files
from deeppose_tf.pipelines.cli import progress
from deeppose_tf.pipelines.data import canvases, inputs
from deeppose_tf.pipelines.train import cluster, strategies
from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.pipelines.train.recipes import TrainConfig

keras = tf.keras

# A run is judged for collapse after this share of its steps, and not before.
FAIR_SHARE = 0.3
FAIR_STEPS = 300
# Predictions that vary less than this share of what the labels vary are all the same.
LEAST_SPREAD = 0.05
# And have learned nothing where their L2 loss is not this much below the mean pose's.
LEAST_GAIN = 0.01
ADVICE = """Check, in this order:
  1. labels: draw the training crops (TensorBoard, tab Images) and look at the joints;
  2. that the network can learn at all: --overfit=16 must reach a PDJ@0.2 near 1;
  3. the learning rate: a tenth of it, then ten times;
  4. that the run is long enough: raise --steps.
--nocollapse_guard goes on regardless."""
# Of steps without a return to Python, where their number is not given.
CALL_SECONDS = 1.0
# Checkpoints that are kept while a stage is trained, and the names of their files.
KEPT = 2
PARTIAL = "_partial"
CHECKPOINT = re.compile(r"ckpt-(\d+)\.(?:index|data-\d+-of-\d+)")
# TensorFlow would save into such a folder, but never find what is there.
PATTERNS = "*?[]\\"


class TrainingError(ValueError):
    """Training cannot go on to any good: collapsed, or no longer finite."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What does not belong to a recipe.

    Attributes:
      seed: of weights, order and augmentation.
      overfit: train on this many people alone, unvaried; 0 for all of them.
      weights: None, or what networks start from: see `build_stage`; or a run, a preset
        or a stage, as `config.find_stage` takes them.
      start_from: a trained run whose stage of the same number a stage begins as.
      fit_batch: make the recipe's batch smaller where people are fewer.
      strategy: see `strategies.make_strategy`.
      guard: stop a collapsed run.
      cache: where canvases are kept, see `canvases.open_people`.
      steps_per_call: steps without a return to Python; 0 for about a second's.
      evaluations: how often the held-out people are looked at in a stage's training.
      between: at least so many steps between two looks, each of which takes as long as
        several steps.
      wait_seconds: how long several workers wait for each other to be started.
      checkpoint_seconds: between checkpoints; one is written at every evaluation too.
      verbose: 0 hides progress.
    """

    seed: int = 0
    overfit: int = 0
    weights: str | None = None
    start_from: str | None = None
    fit_batch: bool = True
    strategy: str = "auto"
    wait_seconds: float = cluster.WAIT_SECONDS
    guard: bool = True
    cache: str = "auto"
    steps_per_call: int = 0
    evaluations: int = 20
    between: int = 50
    checkpoint_seconds: float = 60.0
    verbose: int = 1


class StageData(NamedTuple):
    """What a stage is trained on and judged by.

    Attributes:
      batches: (range of steps, `tf.distribute.InputContext`) -> a dataset of this
        worker's batches, one for each replica in turn.
      examples: a batch -> `augment.Examples`; compiled, on the device.
      crops, shown: crops and people per step, over all devices.
      evaluate: step -> scalars to log, of the network as it is: `pdj` and, where the
        guard is to judge, `spread` and `l2`; see `check_collapse`.
      people: of the batches, where they are kept on the device.
    """

    batches: Callable[..., tf.data.Dataset]
    examples: Callable
    crops: int
    shown: int
    evaluate: Callable[[int], dict]
    people: canvases.People | None = None


@inputs.released()
def train(
    state: steps.State,
    data: StageData,
    config: TrainConfig,
    workdir: str,
    strategy: tf.distribute.Strategy,
    options: Options,
) -> keras.Model:
    """Trains a network; goes on where an earlier call of the same arguments stopped, or
    with more steps where it was finished.

    Args:
      state: fresh, made under the strategy; training changes it.
      data: what it learns and is judged by.
      config: see `TrainConfig`.
      workdir: for checkpoints and TensorBoard logs; all workers see the same.
      strategy: see `strategies.make_strategy`.
      options: see `Options`.

    Returns:
      The trained network in float32: the moving average where there is one.

    Raises:
      TrainingError: the loss is not finite, or see `check_collapse`.
      ValueError: the checkpoints are damaged, or of another network.
    """
    folder, chief = pathlib.Path(workdir), strategies.is_chief(strategy)
    checkpoints = Checkpoints(state, folder / "checkpoints", strategy)
    checkpoints.restore()
    done = int(state.step.numpy())
    if strategies.from_chief(strategy, [done]) != [done]:
        raise ValueError(
            f"{folder}: this process finds other checkpoints than the chief"
        )
    run, ahead = _started(state, data, config, strategy, done)
    evaluate_every = max(config.steps // options.evaluations, options.between)
    pace = _Pace(options.steps_per_call)
    with (
        _summaries(folder / "logs", chief).as_default(),
        checkpoints.kept_when_stopped(config.steps) as stopped,
        progress.bar(config.steps, "Training", "step", done, options.verbose) as bar,
    ):
        display = _Display(bar, data, config.steps)
        while done < config.steps:
            due = min((done // evaluate_every + 1) * evaluate_every, config.steps)
            # The clocks of several workers differ, and all of them save.
            old = checkpoints.age() > options.checkpoint_seconds
            pace.count, old, stops = strategies.from_chief(
                strategy, (pace.count, old), [len(stopped)]
            )
            if stops:
                checkpoints.save(done)
                if stopped:
                    raise KeyboardInterrupt(*stopped)
                raise ValueError(f"another worker is stopped; {cluster.AGAIN}")
            count = min(pace.count, due - done)
            with pace.measured(count):
                loss = float(run(ahead, count))
            done += count
            _check_finite(loss, done)
            tf.summary.scalar("loss", loss, done)
            if done == due:
                if not config.ema:
                    steps.average(state, 0.0, done)
                report = data.evaluate(done)
                for name, value in report.items():
                    tf.summary.scalar(name, value, done)
                display.report = report
                if options.guard:
                    check_collapse(report, done, config.steps)
            if done == due or old:
                checkpoints.save(done)
            display.update(done, loss)
    return state.averaged


def _started(state, data, config, strategy, done):
    """The compiled steps, (batches, how many) -> loss, and the batches that come after
    those which are done."""
    by_xla = steps.suits_xla(state.model, strategy)
    step = steps.make_step(state, data.examples, config, strategy, data.people, by_xla)
    alone = strategy.num_replicas_in_sync == 1
    chunked = by_xla and alone and steps.kept_on_device(data.people)

    def batches(context):
        # Of what ends, TensorFlow asks all workers at each step whether it has ended.
        ahead = data.batches(range(done, max(config.steps, done)), context).repeat()
        return steps.chunks(ahead) if chunked else ahead

    ahead = iter(strategy.distribute_datasets_from_function(batches))
    return steps.over_batches(step, chunked), ahead


def check_collapse(report: dict, step: int, total: int) -> None:
    """Stops a run that predicts the same pose for everyone, and none better than the
    mean pose. One whose predictions vary, or whose loss is below that, goes on: PDJ
    says nothing where the mean pose alone is right nearly everywhere.

    Args:
      report: `spread`, how much predictions vary across people, as a share of how much
        the labels do; `l2`, their loss, as a share of that of the mean pose. Without
        these nothing is judged.
      step, total: nothing is judged in the first part of a run.

    Raises:
      TrainingError: with advice on what to check.
    """
    if step < max(FAIR_SHARE * total, FAIR_STEPS) or "spread" not in report:
        return
    if report["spread"] < LEAST_SPREAD and report["l2"] > 1 - LEAST_GAIN:
        raise TrainingError(
            f"collapsed at step {step}: every image gets nearly the same pose. "
            f"Predictions vary {report['spread']:.3f} times as much as the labels, and "
            f"their L2 loss is {report['l2']:.2f} times the mean pose's.\n{ADVICE}"
        )


class Checkpoints:
    """The checkpoints of one training, in a folder that all its workers see: written
    whole, the newest sound one read back.

    Raises:
      ValueError: TensorFlow would take the folder's name for a pattern.
    """

    def __init__(self, state, folder: pathlib.Path, strategy: tf.distribute.Strategy):
        if any(letter in str(folder) for letter in PATTERNS):
            raise ValueError(
                f"{folder}: TensorFlow cannot read checkpoints below a name with any "
                f"of {' '.join(PATTERNS)}; give another --run"
            )
        self._state, self._folder = state, folder
        self._checkpoint = tf.train.Checkpoint(**state._asdict())
        self._alone = not strategies.worker(strategy)
        self._own = folder
        if not strategies.is_chief(strategy):
            # Reading what is spread over the replicas takes all workers, so that all
            # of them save; what the others wrote is not read.
            self._own = folder / strategies.worker(strategy)
        self._saved, self._step = time.monotonic(), 0

    def restore(self) -> None:
        """Reads the newest checkpoint into the state, or an older one if it is damaged.

        Raises:
          ValueError: there are checkpoints, and none can be read.
        """
        found = checkpoint_steps(self._folder)
        for step in reversed(found):
            path = self._folder / f"ckpt-{step}"
            try:
                status = self._checkpoint.read(str(path))
                # Not all need be read at once: optimizers of tensorflow-addons make
                # their state at the first step, and take it from here then.
                status.assert_existing_objects_matched()
                self._step = step
                return
            except Exception as error:  # TensorFlow has many kinds for damaged files.
                line = str(error).strip().partition("\n")[0]
                logging.warning("%s cannot be read, but one before: %s", path, line)
        if found:
            raise ValueError(
                f"none of the checkpoints in {self._folder} can be read: they are "
                "damaged, or of another version. Remove that folder to start the "
                "stage again"
            )

    def save(self, step: int) -> None:
        """Writes a checkpoint; a killed call leaves those before."""
        self._own.mkdir(parents=True, exist_ok=True)
        partial = f"ckpt-{step}{PARTIAL}"
        try:
            self._checkpoint.write(str(self._own / partial))
            # The index comes last: with it the checkpoint is there.
            for path in sorted(self._own.glob(f"{partial}.*")):
                files.sync(path)
                os.replace(path, path.with_name(path.name.replace(PARTIAL, "")))
            files.sync(self._own)
        finally:
            sweep(self._own, KEPT, step)
        self._saved, self._step = time.monotonic(), step

    @contextlib.contextmanager
    def kept_when_stopped(self, last: int) -> Iterator[list[int]]:
        """Writes a checkpoint at Ctrl-C and SIGTERM, which come between two calls of
        the compiled step: not after the last one, which has to be looked at as well,
        nor of weights that are no numbers. Several workers, which have to agree, are
        given the list of what has come."""
        if not self._alone:
            with cluster.deferred() as stopped:
                yield stopped
            return
        try:
            yield []
        except KeyboardInterrupt:
            step, weights = (
                int(self._state.step.numpy()),
                self._state.model.get_weights(),
            )
            sound = all(np.isfinite(weight).all() for weight in weights)
            if sound and self._step < step < last:
                self.save(step)
            raise

    def age(self) -> float:
        """Seconds since the last one was written."""
        return time.monotonic() - self._saved


def checkpoint_steps(folder: pathlib.Path) -> list[int]:
    """The steps of which there are checkpoints in a folder, in order. What the folder
    lists counts, and no other record of it, which may be damaged."""
    found = [CHECKPOINT.fullmatch(path.name) for path in folder.glob("*.index")]
    return sorted(int(match[1]) for match in found if match)


def sweep(folder: pathlib.Path, count: int, last: int | None = None) -> None:
    """Removes all checkpoints but the newest so many, of steps until `last`, and what a
    kill left under way."""
    found = [x for x in checkpoint_steps(folder) if last is None or x <= last]
    for path in folder.glob("ckpt-*"):
        match = CHECKPOINT.fullmatch(path.name)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif not match or int(match[1]) not in found[-count:]:
            path.unlink(missing_ok=True)
    (folder / "checkpoint").unlink(missing_ok=True)  # of earlier versions


class _Pace:
    """How many steps follow each other without a return to Python: a second's worth."""

    def __init__(self, fixed: int):
        """Always so many; 0 for as many as take about `CALL_SECONDS`."""
        self.count, self._fixed = fixed or 1, fixed

    @contextlib.contextmanager
    def measured(self, count: int) -> Iterator[None]:
        """Around a call of so many steps."""
        began = time.monotonic()
        yield
        # The first call compiles the step, and the count says nothing; then it grows.
        each = (time.monotonic() - began) / count
        if not self._fixed:
            self.count = max(1, min(int(CALL_SECONDS / each), 2 * self.count))


class _Display:
    """The progress bar of a training, with its newest numbers."""

    def __init__(self, bar, data, last):
        self.bar, self.data, self.last = bar, data, last
        self.report = {}
        self.done, self.time = bar.n, time.monotonic()
        self.seconds = 1.0 if sys.stdout.isatty() else 5.0

    def update(self, done, loss):
        now = time.monotonic()
        passed = max(now - self.time, 1e-6)
        if self.bar.disable or (passed < self.seconds and done < self.last):
            return
        rate = (done - self.done) / passed
        shown = {"loss": loss, **self.report}
        shown = {k: v for k, v in shown.items() if k not in ("spread", "l2")}
        self.bar.set_postfix(
            {name: f"{value:.3f}" for name, value in shown.items()}
            | {"crops/s": f"{rate * self.data.crops:.0f}"}
            | {"people/s": f"{rate * self.data.shown:.0f}"},
            refresh=False,
        )
        self.bar.update(done - self.done)
        self.done, self.time = done, now


def _check_finite(loss, step):
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step}. Lower --learning_rate, with "
            "another --run"
        )


def _summaries(folder, chief):
    if not chief:
        return tf.summary.create_noop_writer()
    return tf.summary.create_file_writer(str(folder))
