"""The training loop of every stage: any strategy, checkpoints, TensorBoard.

`Model.fit` fails under MultiWorkerMirroredStrategy on Keras 3, so the loop is our own;
bar, optimizers and schedules are Keras's. What one step does is in `steps`.
"""

from __future__ import annotations

import functools
import itertools
import pathlib
import sys
import time
from collections.abc import Callable, Iterator

import tensorflow as tf

from deeppose_tf.pipelines.train import checkpoints, strategies
from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.pipelines.train.recipes import TrainConfig

keras = tf.keras

# A run is judged for collapse after this share of its steps, and not before.
FAIR_SHARE = 0.3
FAIR_STEPS = 300
# Predictions that vary less than this share of what the labels vary are all the same.
LEAST_SPREAD = 0.05
ADVICE = """Every image gets nearly the same pose, or no better one than the mean pose.
Check, in this order:
  1. labels: draw the training crops (TensorBoard, tab Images) and look at the joints;
  2. that the network can learn at all: --overfit=16 must reach a PDJ@0.2 near 1;
  3. the learning rate: a tenth of it, then ten times;
  4. that the run is long enough: raise --steps.
--nocollapse_guard goes on regardless."""
# The loss goes to TensorBoard about so many times in a run.
LOGGED = 1000


class TrainingError(ValueError):
    """Training cannot go on to any good: collapsed, or no longer finite."""


def train(
    build: Callable[[str], keras.Model],
    examples: Callable,
    batches: Callable[..., tf.data.Dataset],
    steps_per_epoch: int,
    config: TrainConfig,
    directory: str,
    strategy: tf.distribute.Strategy,
    evaluator: Callable[[keras.Model], Callable[[int], dict]],
    evaluate_every: int,
    batch_size: int,
    checkpoint_seconds: float = 60.0,
    guard: bool = True,
    seed: int = 0,
    verbose: int = 1,
) -> keras.Model:
    """Trains a network; goes on where a killed call of the same arguments stopped.

    Args:
      build: precision -> a fresh network.
      examples: a batch -> `augment.Examples`; compiled, on the device.
      batches: (epoch, batches to skip, `tf.distribute.InputContext`) -> a dataset of
        this worker's batches, one for each replica in turn.
      steps_per_epoch: how many steps they last.
      config: see `TrainConfig`.
      directory: for checkpoints and TensorBoard logs; all workers see the same.
      strategy: see `make_strategy`.
      evaluator: float32 network -> (step -> scalars to log, with `pdj` and `floor`,
        and `spread` where the guard is to judge).
      evaluate_every: steps between evaluations.
      batch_size: crops per step, for the bar.
      checkpoint_seconds: between checkpoints; one is written at every evaluation too,
        and by several workers only then, because they have to agree.
      guard: whether a collapsed run is stopped.
      seed: of weights.
      verbose: 0 hides the progress bar.

    Returns:
      The trained network in float32: the running average where there is one.

    Raises:
      TrainingError: the loss is not finite, or see `check_collapse`.
      ValueError: the checkpoints are damaged, or of another network.
    """
    keras.utils.set_random_seed(seed)
    state = steps.make_state(build, config, strategy)
    folder = pathlib.Path(directory)
    keeper = checkpoints.Checkpoints(state, folder / "checkpoints", strategy)
    keeper.restore()
    train_step = steps.make_step(state, examples, config, strategy)
    evaluate = evaluator(state.averaged)
    start = int(state.step.numpy())
    ahead = stream(batches, steps_per_epoch, start, strategy)
    ahead = itertools.islice(ahead, config.steps - start)
    chief = strategies.is_chief(strategy)
    progress = _Progress(start, config.steps, batch_size, verbose and chief)
    with _writer(folder / "logs", chief).as_default():
        for done, batch in enumerate(ahead, start + 1):
            loss = train_step(batch)
            if done % max(config.steps // LOGGED, 1) == 0:
                tf.summary.scalar("loss", loss, done)
            if done % evaluate_every == 0 or done == config.steps:
                _check_finite(loss, done)
                if not config.ema:
                    steps.average(state, 0.0, done)
                report = evaluate(done)
                _log(report, done)
                progress.show(report)
                if guard:
                    check_collapse(report, done, config.steps)
                keeper.save(done)
            elif keeper.age() > checkpoint_seconds and not strategies.worker(strategy):
                _check_finite(loss, done)
                keeper.save(done)
            progress.update(done, loss)
    return state.averaged


def stream(
    batches: Callable[..., tf.data.Dataset],
    steps_per_epoch: int,
    step: int,
    strategy: tf.distribute.Strategy,
) -> Iterator:
    """The batches of all steps after `step`, epoch after epoch without end."""
    epoch, skip = divmod(step, steps_per_epoch)
    while True:
        yield from strategy.distribute_datasets_from_function(
            functools.partial(batches, epoch, skip)
        )
        epoch, skip = epoch + 1, 0


def check_collapse(report: dict, step: int, total: int) -> None:
    """Stops a run that predicts the same pose for everyone.

    Args:
      report: `spread`, how much predictions vary across people, as a share of how much
        the labels do; `pdj` of the held-out people and `floor`, that of the mean pose.
      step, total: nothing is judged in the first part of a run.

    Raises:
      TrainingError: with advice on what to check.
    """
    if step < max(FAIR_SHARE * total, FAIR_STEPS) or "spread" not in report:
        return
    if report["spread"] < LEAST_SPREAD or report["pdj"] <= report["floor"]:
        raise TrainingError(
            f"collapsed at step {step}: predictions vary {report['spread']:.3f} times "
            f"as much as the labels; PDJ@0.2 {report['pdj']:.3f}, floor "
            f"{report['floor']:.3f}.\n{ADVICE}"
        )


def _check_finite(loss, step):
    if not tf.math.is_finite(loss):
        raise TrainingError(
            f"the loss is {float(loss)} at step {step}. Lower --learning_rate, with "
            "another --run"
        )


def _log(scalars, step):
    for name, value in scalars.items():
        tf.summary.scalar(name, value, step=step)


def _writer(folder, chief):
    if not chief:
        return tf.summary.create_noop_writer()
    return tf.summary.create_file_writer(str(folder))


class _Progress:
    """Keras's bar over the steps that are left, with the newest loss."""

    def __init__(self, start, steps, batch_size, verbose):
        self.start, self.done, self.steps = start, start, steps
        self.batch_size, self.verbose = batch_size, verbose
        # A bar on a terminal is drawn over; in a file each is a line of its own.
        self.interval = 5 if sys.stdout.isatty() else 60
        self.values = {}
        self.bar = keras.utils.Progbar(
            max(steps - start, 1), verbose=verbose, interval=0, unit_name="step"
        )
        self.bar.stateful_metrics = {"loss", "images/s", "pdj", "floor"}
        self.last = time.monotonic()

    def update(self, done, loss):
        # Reading the loss waits for the device, so it is not read at every step.
        due = time.monotonic() - self.last > self.interval or done == self.steps
        if not self.verbose or not due:
            return
        self.values["loss"] = float(loss)
        now = time.monotonic()
        images = (done - self.done) * self.batch_size
        self.values["images/s"] = images / max(now - self.last, 1e-6)
        self.last, self.done = now, done
        self.bar.update(done - self.start, list(self.values.items()))

    def show(self, report):
        self.values |= {
            name: report[name] for name in ("pdj", "floor") if name in report
        }
