"""The training loop of every stage: any strategy, checkpoints, EMA, TensorBoard.

`Model.fit` fails under MultiWorkerMirroredStrategy on Keras 3, so the loop is our own;
bar, optimizers and schedules are Keras's.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import tensorflow as tf

from deeppose_tf import losses, networks
from deeppose_tf.pipelines import optimizers

keras = tf.keras

# A run is judged for collapse after this share of its steps, and not before.
FAIR_SHARE = 0.3
# Predictions that vary less than this share of what the labels vary are all the same.
LEAST_SPREAD = 0.05
ADVICE = """Every image gets nearly the same pose, or no better one than the mean pose.
Check, in this order:
  1. labels: draw the training crops (TensorBoard, tab Images) and look at the joints;
  2. that the network can learn at all: --overfit=16 must reach a PDJ@0.2 near 1;
  3. the learning rate: a tenth of it, then ten times;
  4. that the run is long enough: raise --steps.
--nocollapse_guard goes on regardless."""


class TrainingError(ValueError):
    """Training cannot go on to any good: collapsed, or no longer finite."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How a stage is trained.

    Attributes:
      steps: gradient steps.
      optimizer: see `optimizers.build`.
      learning_rate: at its highest.
      schedule: `constant`, or `cosine` down to zero.
      warmup: share of the steps in which the learning rate grows from zero.
      weight_decay: see `optimizers.build`.
      loss: see `losses.pose_loss`.
      maps: weight of `losses.map_loss`, for integral heads.
      clip: largest norm of the gradient of a step; 0 for no limit.
      ema: decay of the running average of the weights, which is what is evaluated and
        saved; 0 for none.
      precision: a Keras policy such as `mixed_bfloat16`.
    """

    steps: int = 10_000
    optimizer: str = "adagrad"
    learning_rate: float = 5e-4
    schedule: str = "constant"
    warmup: float = 0.0
    weight_decay: float = 0.0
    loss: str = "l2"
    maps: float = 0.0
    clip: float = 0.0
    ema: float = 0.0
    precision: str = "float32"

    def __post_init__(self):
        if self.schedule not in ("constant", "cosine"):
            raise ValueError(
                f"schedule {self.schedule!r} is neither constant nor cosine"
            )
        if self.loss not in losses.LOSSES:
            raise ValueError(f"loss {self.loss!r} is none of {losses.LOSSES}")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be positive")


def make_strategy(name: str) -> tf.distribute.Strategy:
    """`auto`, `one`, `mirrored` or `multiworker` -> a strategy.

    `auto` mirrors over the GPUs where there are several. `multiworker` reads TF_CONFIG.

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


def train(
    build: Callable[[str], keras.Model],
    examples: Callable,
    batches: Callable[[int, int], tf.data.Dataset],
    steps_per_epoch: int,
    config: TrainConfig,
    directory: str,
    strategy: tf.distribute.Strategy,
    evaluator: Callable[[keras.Model], Callable[[int], dict]],
    evaluate_every: int,
    checkpoint_seconds: float = 60.0,
    guard: bool = True,
    seed: int = 0,
    verbose: int = 1,
) -> keras.Model:
    """Trains a network; goes on where a killed call of the same arguments stopped.

    Args:
      build: precision -> a fresh network.
      examples: a batch -> `augment.Examples`; compiled, on the device.
      batches: (epoch, batches to skip) -> a dataset of batches.
      steps_per_epoch: how many batches `batches` has.
      config: see `TrainConfig`.
      directory: for checkpoints and TensorBoard logs.
      strategy: see `make_strategy`.
      evaluator: float32 network -> (step -> scalars to log, with `pdj` and `floor`,
        and `spread` where the guard is to judge).
      evaluate_every: steps between evaluations.
      checkpoint_seconds: between checkpoints; one is written at every evaluation too.
      guard: whether a collapsed run is stopped.
      seed: of weights and dropout.
      verbose: 0 hides the progress bar.

    Returns:
      The trained network in float32: the running average where there is one.

    Raises:
      TrainingError: the loss is not finite, or see `check_collapse`.
    """
    keras.utils.set_random_seed(seed)
    state = make_state(build, config, strategy)
    checkpoint = tf.train.Checkpoint(**state._asdict())
    folder = pathlib.Path(directory)
    manager = tf.train.CheckpointManager(checkpoint, str(folder / "checkpoints"), 2)
    if manager.latest_checkpoint:
        checkpoint.restore(manager.latest_checkpoint).assert_consumed()
    train_step = make_step(state, examples, config, strategy)
    evaluate = evaluator(state.averaged)
    writer = tf.summary.create_file_writer(str(folder / "logs"))
    progress = _Progress(int(state.step.numpy()), config.steps, verbose)
    saved = time.monotonic()
    start = int(state.step.numpy())
    remaining = itertools.islice(
        stream(batches, steps_per_epoch, start, strategy), config.steps - start
    )
    with writer.as_default():
        for done, batch in enumerate(remaining, start + 1):
            loss = train_step(batch)
            progress.update(done, loss)
            if done % evaluate_every == 0 or done == config.steps:
                _check_finite(loss, done)
                report = evaluate(done)
                _log(report | {"loss": loss}, done)
                progress.show(report)
                if guard:
                    check_collapse(report, done, config.steps)
                manager.save(done)
                saved = time.monotonic()
            elif time.monotonic() - saved > checkpoint_seconds:
                _check_finite(loss, done)
                manager.save(done)
                saved = time.monotonic()
    return state.averaged


def stream(
    batches: Callable[[int, int], tf.data.Dataset],
    steps_per_epoch: int,
    step: int,
    strategy: tf.distribute.Strategy,
) -> Iterator:
    """The batches of all steps after `step`, epoch after epoch without end."""
    epoch, skip = divmod(step, steps_per_epoch)
    while True:
        yield from strategy.experimental_distribute_dataset(batches(epoch, skip))
        epoch, skip = epoch + 1, 0


class State(NamedTuple):
    """What training changes, and a checkpoint holds.

    Attributes:
      model: the network that is trained, in the precision that was asked for.
      averaged: float32; the running average of its weights, or their copy.
      optimizer: of Keras or tensorflow-addons.
      step: scalar int64, steps done.
    """

    model: keras.Model
    averaged: keras.Model
    optimizer: keras.optimizers.Optimizer
    step: tf.Variable


def make_state(
    build: Callable[[str], keras.Model],
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
) -> State:
    """Fresh networks of `build` (precision -> network) and a fresh optimizer."""
    with strategy.scope():
        model, averaged = build(config.precision), build("float32")
        for copy, weight in zip(averaged.weights, model.weights, strict=True):
            copy.assign(weight)
        optimizer = optimizers.build(
            config.optimizer, learning_rate(config), config.weight_decay
        )
        optimizers.create_state(optimizer, model.trainable_variables)
        step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
    return State(model, averaged, optimizer, step)


def make_step(
    state: State,
    examples: Callable,
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
) -> Callable:
    """One compiled step: a batch of canvases in, the mean loss per crop out.

    Augmentation is its first lines, compiled by XLA, so that it runs on the device that
    the step runs on; the network is left to the device's own kernels.
    """
    examples = tf.function(examples, jit_compile=True, autograph=False)
    update = make_update(state, config, strategy)

    @tf.function(autograph=False)
    def train_step(batch):
        loss = strategy.run(lambda batch: update(*examples(*batch)), (batch,))
        done = state.step.assign_add(1)
        average(state, config.ema, tf.cast(done, tf.float32))
        return strategy.reduce("SUM", loss, axis=None)

    return train_step


def make_update(
    state: State, config: TrainConfig, strategy: tf.distribute.Strategy
) -> Callable:
    """Forward, backward and update on one replica: `augment.Examples` in, loss out."""
    variables = state.model.trainable_variables
    network = networks.with_maps(state.model) if config.maps else state.model

    def update(crops, target, weight):
        share = 1.0 / (crops.shape[0] * strategy.num_replicas_in_sync)
        with tf.GradientTape() as tape, networks.dropout_step(state.step):
            outputs = network(crops, training=True)
            predicted, logits = outputs if config.maps else (outputs, None)
            loss = losses.pose_loss(predicted, target, weight, config.loss)
            if config.maps:
                places = networks.map_places(state.model)
                maps = losses.map_loss(logits, places, target, weight)
                loss += config.maps * maps
            loss = tf.reduce_sum(loss) * share
        gradients = tape.gradient(loss, variables)
        if config.clip:
            gradients, _ = tf.clip_by_global_norm(gradients, config.clip)
        state.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    return update


def average(state: State, decay: float, done: tf.Tensor) -> None:
    """Moves the running average by one step, faster at first; copies where no decay."""
    decay = tf.minimum(decay, (1.0 + done) / (10.0 + done)) if decay else 0.0
    for copy, weight in zip(state.averaged.weights, state.model.weights, strict=True):
        value = tf.convert_to_tensor(weight)
        copy.assign(decay * tf.convert_to_tensor(copy) + (1.0 - decay) * value)


def learning_rate(config: TrainConfig):
    """The learning rate over steps: a number or a Keras schedule."""
    warmup = int(config.warmup * config.steps)
    if config.schedule == "constant":
        return config.learning_rate
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=max(config.steps - warmup, 1),
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def check_collapse(report: dict, step: int, steps: int) -> None:
    """Stops a run that predicts the same pose for everyone.

    Args:
      report: `spread`, how much predictions vary across people, as a share of how much
        the labels do; `pdj` of the held-out people and `floor`, that of the mean pose.
      step, steps: nothing is judged in the first part of a run.

    Raises:
      TrainingError: with advice on what to check.
    """
    if step < FAIR_SHARE * steps or "spread" not in report:
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
            f"the loss is {float(loss)} at step {step}. Lower --learning_rate; the "
            "last checkpoint is from before"
        )


def _log(scalars, step):
    for name, value in scalars.items():
        tf.summary.scalar(name, value, step=step)


class _Progress:
    """Keras's bar over the steps that are left, with the newest loss."""

    def __init__(self, start, steps, verbose):
        self.start, self.verbose = start, verbose
        self.shown = {}
        self.last = 0.0
        self.bar = keras.utils.Progbar(
            max(steps - start, 1), verbose=verbose, interval=5, unit_name="step"
        )
        self.bar.stateful_metrics = {"loss", "pdj", "floor"}

    def update(self, done, loss):
        # Reading the loss waits for the device, so it is not read at every step.
        if self.verbose and time.monotonic() - self.last > 5:
            self.last = time.monotonic()
            self.shown["loss"] = float(loss)
            self.bar.update(done - self.start, list(self.shown.items()))

    def show(self, report):
        self.shown |= {
            name: report[name] for name in ("pdj", "floor") if name in report
        }
