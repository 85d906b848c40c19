"""What bounds a part of a training step: its counted work beside what the device does.

The work is counted in the graph of the step, and the device's rates are measured in the
same run, so that nothing is taken from a data sheet.
"""

from __future__ import annotations

import math
import time
from typing import NamedTuple

import tensorflow as tf

from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.pipelines.train.recipes import TrainConfig

# Sides of the matrix and bytes of the copy that are timed, without and with a GPU.
SIDES = 1024, 8192
COPIED = 1 << 27, 1 << 30
COPIES = 8
CHAIN = 500  # smallest operations, one after the other
TRIES = 3
# What explains less than this share of the time does not bound it.
EXPLAINED = 1 / 3
CONVOLUTIONS = "Conv2D", "DepthwiseConv2dNative"


class Work(NamedTuple):
    """What a part asks of a device; as rates, what a device does in a second.

    Attributes:
      flop: multiplications and additions of convolutions and matrix products.
      bytes: what these read and write, and what is updated; the least that is moved.
      operations: launches, where each is one.
    """

    flop: float
    bytes: float
    operations: float = 0


def measure_rates(dtype: str) -> Work:
    """What the first GPU makes of its largest work, else the processor: the fastest of
    `TRIES`, of matrices of a type such as `bfloat16`, and copies of float32.

    Raises:
      tf.errors.ResourceExhaustedError: the device has no room for `SIDES`, `COPIED`.
    """
    gpu = bool(tf.config.list_physical_devices("GPU"))
    side, copied = SIDES[gpu], COPIED[gpu]
    matrix = tf.cast(tf.random.uniform([side, side]), dtype)
    many = tf.zeros([copied // 4])

    def chain(x):
        for _ in range(CHAIN):
            x = tf.sin(x)
        return x

    def negatives(x):  # in place: new pages would take longer than what they hold
        done = tf.constant(0)
        return tf.while_loop(
            lambda i, _: i < COPIES, lambda i, x: (i + 1, -x), (done, x)
        )[1]

    return Work(
        2 * side**3 / _fastest(lambda x: tf.matmul(x, x), matrix),
        2 * COPIES * copied / _fastest(negatives, many),
        CHAIN / _fastest(chain, tf.constant(1.0)),
    )


def network_work(state: steps.State, config: TrainConfig, crops: tuple) -> Work:
    """Counts the bare step of one device: forward, backward and update. Nothing is
    computed.

    Args:
      state: see `step.make_state`; its network and optimizer are counted.
      crops: `augment.Examples`: crops [M, S, S, 3], targets [M, K, 2] normalized,
        weights [M, K]; M is known.

    Raises:
      ValueError: the crops do not fit the network.
    """
    backward = steps.make_backward(state, config, tf.distribute.get_strategy())
    traced = tf.function(lambda *crops: backward(*crops), autograph=False)
    graph = traced.get_concrete_function(*crops).graph
    trained = state.model.trainable_variables
    # The gradient is read; weights, and what the optimizer keeps, read and written.
    updated = [*3 * trained, *2 * [x for x in state.optimizer.variables if x.shape]]
    found = [Work(0, sum(map(size, updated)), len(trained))]
    found += map(_work, _needed(graph.outputs))
    return Work(*map(sum, zip(*found, strict=True)))


def bound(seconds: float, work: Work, rates: Work, waited: float = 0.0) -> str:
    """Names what takes most of the time: `input`, `arithmetic`, `memory`, `launch`; or
    `small operations`, which reach none of the device's rates.

    Args:
      seconds: that a step takes.
      work: of the step; no operations where XLA makes few of many.
      waited: seconds that the input side alone takes for its batch.
    """
    takes = {
        "input": waited,
        "arithmetic": work.flop / rates.flop,
        "memory": work.bytes / rates.bytes,
        "launch": work.operations / rates.operations,
    }
    name = max(takes, key=takes.get)
    return name if takes[name] >= EXPLAINED * seconds else "small operations"


def size(tensor) -> int:
    """Bytes of a tensor or variable of known shape."""
    return math.prod(tensor.shape) * tf.as_dtype(tensor.dtype).size


def _fastest(function, argument):
    """Seconds of a call, the fastest of some, after one that compiles."""
    run = tf.function(function, autograph=False)
    taken = []
    for _ in range(TRIES + 1):
        began = time.perf_counter()
        tf.reshape(run(argument), [-1])[:1].numpy()  # waits, and copies no more
        taken.append(time.perf_counter() - began)
    return min(taken[1:])


def _needed(outputs):
    """The operations that outputs depend on; the others are not run."""
    found, open_ = set(), [x.op for x in outputs]
    while open_:
        operation = open_.pop()
        if operation not in found:
            found.add(operation)
            open_ += [x.op for x in operation.inputs] + operation.control_inputs
    return found


def _work(operation) -> Work:
    """Of one operation; what is no product moves nothing that XLA could not spare."""
    if operation.type in ("Const", "Placeholder", "ReadVariableOp", "NoOp"):
        return Work(0, 0, 0)
    inputs, outputs = operation.inputs, operation.outputs
    of_left = {"MatMul": "transpose_a", "BatchMatMulV2": "adj_x"}.get(operation.type)
    if of_left:
        left = inputs[0].shape
        inner = left[-2] if operation.get_attr(of_left) else left[-1]
        multiplied = outputs[0].shape.num_elements() * inner
    elif operation.type.startswith(CONVOLUTIONS):
        # By each pixel of the output each weight of its channel is multiplied once,
        # forward, and once in either gradient.
        image, weights = outputs[0].shape, inputs[1].shape
        if operation.type.endswith("BackpropFilter"):
            image, weights = inputs[2].shape, outputs[0].shape
        elif operation.type.endswith("BackpropInput"):
            image = inputs[2].shape
        multiplied = image.num_elements() * weights.num_elements() // image[-1]
    else:
        return Work(0, 0, 1)
    return Work(2 * multiplied, sum(map(size, [*inputs, *outputs])), 1)
