"""One training step: augmentation, forward, backward, update, moving average (EMA).

All of it is compiled and runs under any strategy. The loop around it is in `loop`.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from deeppose_tf import layers, losses, networks
from deeppose_tf.pipelines.data import canvases
from deeppose_tf.pipelines.train import optimizers
from deeppose_tf.pipelines.train.recipes import TrainConfig

keras = tf.keras

# Batches that are handed over at once where the loop over them is compiled as well.
CHUNK = 50


class State(NamedTuple):
    """What training changes, and a checkpoint holds.

    Attributes:
      model: the network that is trained, in the precision that was asked for.
      averaged: float32; the moving average (EMA) of its weights, or their copy.
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
    seed: int = 0,
) -> State:
    """Fresh networks of `build` (precision -> network) and a fresh optimizer."""
    keras.utils.set_random_seed(seed)
    with strategy.scope():
        model = build(resolve_precision(config.precision))
        averaged = build("float32")
        for network in (model, averaged):
            freeze(network, config.freeze)
        for copy, weight in zip(averaged.weights, model.weights, strict=True):
            copy.assign(weight)
        optimizer = optimizers.build(
            config.optimizer,
            learning_rate(config),
            config.weight_decay,
            config.initial_accumulator,
        )
        optimizers.create_state(optimizer, model.trainable_variables)
        step = tf.Variable(0, dtype=tf.int64, trainable=False, name="step")
    return State(model, averaged, optimizer, step)


def freeze(model: keras.Model, last: str) -> None:
    """Makes the layers up to the one of this name untrainable; none without a name.

    Raises:
      ValueError: there is no layer of this name.
    """
    names = [layer.name for layer in model.layers]
    if last and last not in names:
        raise ValueError(
            f"train.freeze={last}: no layer of network {model.name}, whose layers are "
            + ", ".join(layer.name for layer in model.layers if layer.weights)
        )
    for layer in model.layers[: names.index(last) + 1 if last else 0]:
        layer.trainable = False


def backbone(model: keras.Model) -> list[tf.Variable]:
    """The trained variables of all layers but the last that has any."""
    trained = [layer.trainable_variables for layer in model.layers]
    return list(itertools.chain.from_iterable([x for x in trained if x][:-1]))


def learning_rate(config: TrainConfig):
    """The learning rate over steps: a number or a Keras schedule."""
    if config.schedule == "constant":
        return config.learning_rate
    warmup = int(config.warmup * config.steps)
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=max(config.steps - warmup, 1),
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )


def resolve_precision(name: str) -> str:
    """A Keras policy; `auto` is bfloat16 where the processor multiplies in it.

    Elsewhere bfloat16 is emulated, and slower than float32. Float16, whose losses would
    have to be scaled, is not offered.
    """
    if name != "auto":
        return name
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        details = map(tf.config.experimental.get_device_details, gpus)
        native = all(d.get("compute_capability", (0, 0)) >= (8, 0) for d in details)
    else:
        cpu = pathlib.Path("/proc/cpuinfo")
        flags = cpu.read_text() if cpu.exists() else ""
        native = "avx512_bf16" in flags or "amx_bf16" in flags
    return "mixed_bfloat16" if native else "float32"


def suits_xla(model: keras.Model, strategy: tf.distribute.Strategy) -> bool:
    """Whether XLA compiles whole steps of a network here: on a GPU, where launching one
    operation after the other takes longer than what they do, and of what XLA takes to.
    On a CPU the device's own kernels are faster."""
    replicas = strategy.num_replicas_in_sync
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    return on_gpu and networks.suits_xla(model, replicas)


def make_step(
    state: State,
    examples: Callable,
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    people: canvases.People | None = None,
    by_xla: bool = False,
) -> Callable:
    """One compiled step: a batch in, the mean loss per crop out.

    Augmentation is its first lines, compiled by XLA in any case, so that it runs on the
    device that the step runs on.

    Args:
      state: see `State`; the step changes it.
      examples: a batch of `inputs.training_dataset` with its canvases ->
        `augment.Examples`.
      config: see `TrainConfig`.
      strategy: that of the state; its batches are split over its replicas.
      people: of the batches, where they are kept on the device.
      by_xla: whether XLA compiles all of it, see `suits_xla`; with several replicas not
        what they do together.
    """
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    alone = strategy.num_replicas_in_sync == 1
    kept = _on_device(people, strategy)
    tracing = contextlib.nullcontext
    if on_gpu or by_xla:
        tracing = functools.partial(layers.for_gpu, by_xla)
    backward = make_backward(state, config, strategy, tracing)

    @functools.partial(tf.function, jit_compile=True, autograph=False)
    def crops(kept, batch):
        if kept:  # Gathered by XLA: TensorFlow's own kernel takes no bytes on a GPU.
            chosen, draws = batch
            batch = *(tf.gather(column, chosen) for column in kept), draws
        return examples(*batch)

    def gradients(kept, batch):
        return backward(*crops(kept, batch))

    if by_xla and not alone:
        gradients = tf.function(gradients, jit_compile=True, autograph=False)

    def apply(found):
        variables = state.model.trainable_variables
        state.optimizer.apply_gradients(zip(found, variables, strict=True))

    slow = backbone(state.model) if config.backbone_rate != 1 else []

    def follow(before):
        for variable, old in zip(slow, before, strict=True):
            # Of the step, not of its gradient: Adam's steps do not grow with that.
            variable.assign(old + config.backbone_rate * (variable - old))
        done = state.step.assign_add(1)
        if config.ema:
            average(state, config.ema, done)

    if on_gpu and alone:
        # Thousands of small operations where XLA does not compile all of the step.
        apply, follow = (
            tf.function(part, jit_compile=True, autograph=False)
            for part in (apply, follow)
        )

    def update(kept, batch):
        loss, found = gradients(kept, batch)
        apply(found)
        return loss

    @functools.partial(tf.function, jit_compile=by_xla and alone, autograph=False)
    def step(kept, batch):
        before = [tf.identity(variable) for variable in slow]
        loss = strategy.run(update, (kept, batch))
        follow(before)
        return strategy.reduce("SUM", loss, axis=None)

    return functools.partial(step, kept)


def repeated(step: Callable, by_xla: bool = False) -> Callable:
    """(argument, n) -> what `step` returns of it, a scalar, the last of n times, one
    after the other without a return to Python; `by_xla` as one program."""
    run = _looped(lambda argument, _: step(argument), by_xla)
    return lambda argument, count: run(argument, tf.constant(0), tf.constant(count))


def over_batches(step: Callable, chunked: bool) -> Callable:
    """(iterator of batches, n) -> the loss of the last of n steps, one after the other.

    Args:
      step: see `make_step`.
      chunked: the iterator gives stacks of `CHUNK` batches, which are kept where they
        were left, and the loop over one is a program of XLA. Between two programs a GPU
        waits for nearly as long as a small network's step takes.
    """
    if not chunked:
        return repeated(lambda batches: step(next(batches)))
    run = _looped(lambda chunk, at: step(tuple(x[at] for x in chunk)), by_xla=True)
    chunk, first = None, CHUNK

    def over(chunks, count):
        nonlocal chunk, first
        while count:
            if first == CHUNK:
                chunk, first = next(chunks), 0
            last = min(first + count, CHUNK)
            loss = run(chunk, tf.constant(first), tf.constant(last))
            first, count = last, count - (last - first)
        return loss

    return over


def chunks(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Batches -> what a chunked `over_batches` takes: stacks of `CHUNK`, made ahead."""
    return batches.batch(CHUNK).prefetch(1)


def _looped(step, by_xla):
    """(argument, first, last) -> the last of `step(argument, i)` for i from first."""

    @functools.partial(tf.function, jit_compile=by_xla or None, autograph=False)
    def run(argument, first, last):
        return tf.while_loop(
            lambda at, _: at < last,
            lambda at, _: (at + 1, step(argument, at)),
            (first, tf.constant(0.0)),
            parallel_iterations=1,
        )[1]

    return run


def make_backward(
    state: State,
    config: TrainConfig,
    strategy: tf.distribute.Strategy,
    tracing: Callable = contextlib.nullcontext,
) -> Callable:
    """Forward and backward on one replica: `augment.Examples` in, the loss and the
    gradients of the trained variables out. The network is traced within `tracing()`."""
    variables = state.model.trainable_variables
    network = networks.with_maps(state.model) if config.map_weight else state.model

    def backward(crops, target, weight):
        share = 1.0 / (crops.shape[0] * strategy.num_replicas_in_sync)
        with tf.GradientTape() as tape, layers.dropout_step(state.step), tracing():
            outputs = network(crops, training=True)
            predicted, logits = outputs if config.map_weight else (outputs, None)
            loss = losses.pose_loss(predicted, target, weight, config.loss)
            if config.map_weight:
                places = networks.map_places(state.model)
                maps = losses.map_loss(logits, places, target, weight, config.map_blob)
                loss += config.map_weight * maps
            loss = tf.reduce_sum(loss) * share
        return loss, tape.gradient(loss, variables)

    return backward


def kept_on_device(people: canvases.People | None) -> bool:
    """Whether batches are the numbers of people whose canvases are there already."""
    return people is not None and people.cache == "device"


def _on_device(people, strategy):
    """The columns of people who are kept there, a copy on each replica's device."""
    if not kept_on_device(people):
        return ()
    if strategy.num_replicas_in_sync == 1:
        return tuple(map(tf.constant, people.kept))
    devices = strategy.extended.worker_devices

    def copy(context):
        with tf.device(devices[context.replica_id_in_sync_group % len(devices)]):
            return tuple(map(tf.constant, people.kept))

    return strategy.experimental_distribute_values_from_function(copy)


def average(state: State, decay: float, done: tf.Tensor) -> None:
    """Moves the moving average by one step; faster at first.

    Args:
      decay: share of what was there that stays; without one, weights are copied.
      done: scalar, steps done, this one included.
    """
    done = tf.cast(done, tf.float32)
    decay = tf.minimum(decay, (1.0 + done) / (10.0 + done)) if decay else 0.0
    for copy, weight in zip(state.averaged.weights, state.model.weights, strict=True):
        value = tf.convert_to_tensor(weight)
        copy.assign(decay * tf.convert_to_tensor(copy) + (1.0 - decay) * value)
