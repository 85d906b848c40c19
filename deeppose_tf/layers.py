"""The layers that networks have beside Keras's own, and what they are traced for.

They are registered with Keras: a network that is saved finds them when it is loaded.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading

import numpy as np
import tensorflow as tf
from tensorflow.compiler.tf2xla.python import xla

keras = tf.keras

# Takes a logit out of a softmax; float16 still holds what it is multiplied by.
FAR = 1e4

# What is being traced for, by thread: replicas are traced in threads of their own.
_CURRENT = threading.local()

# Under this name layers are found when a model of theirs is loaded.
registered = keras.utils.register_keras_serializable("deeppose_tf")


def dropout_step(step: tf.Tensor) -> contextlib.AbstractContextManager:
    """Within it, dropout draws its masks from this step, a scalar int64."""
    return _tracing(step=tf.cast(step, tf.int64) * 4096)  # as earlier versions drew


def for_gpu(by_xla: bool) -> contextlib.AbstractContextManager:
    """Within it, networks are traced into what is fast on a GPU, in which XLA compiles
    all of them or leaves them to TensorFlow's kernels."""
    return _tracing(gpu=True, by_xla=by_xla)


def delegable() -> contextlib.AbstractContextManager:
    """Within it, networks are traced into what delegates of TFLite take."""
    return _tracing(delegable=True)


@contextlib.contextmanager
def _tracing(**what):
    vars(_CURRENT).update(what)
    try:
        yield
    finally:
        for name in what:
            delattr(_CURRENT, name)


@registered
class Convolution(keras.layers.Conv2D):
    """Keras's layer, [M, H, W, C] -> [M, h, w, F], with a faster bias on a GPU. To XLA
    one with a stride is one without, of blocks of pixels: few channels leave most of
    the matrix units idle. That takes square crops and SAME padding, as `networks` has.
    """

    def call(self, inputs):
        if not (self.use_bias and _traced_for("gpu")):
            return super().call(inputs)
        outputs = _add_bias(self.convolution_op(inputs, self.kernel), self.bias)
        if self.activation is keras.activations.relu and _traced_for("by_xla"):
            return _rectified(outputs)
        return self.activation(outputs)

    def convolution_op(self, inputs, kernel):
        if self.strides[0] == 1 or not _traced_for("by_xla"):
            return super().convolution_op(inputs, kernel)
        return _convolve_blocks(inputs, kernel, self.strides[0])


@registered
class DepthwiseConvolution(keras.layers.DepthwiseConv2D):
    """Keras's layer, [M, H, W, C] -> [M, h, w, C], with a faster bias on a GPU."""

    def call(self, inputs):
        if not (self.use_bias and _traced_for("gpu")):
            return super().call(inputs)
        kernel = self.kernel if hasattr(self, "kernel") else self.depthwise_kernel
        strides = [1, *self.strides, 1]
        outputs = tf.nn.depthwise_conv2d(inputs, kernel, strides, self.padding.upper())
        return self.activation(_add_bias(outputs, self.bias))


def _traced_for(what):
    return getattr(_CURRENT, what, False)


@tf.custom_gradient
def _add_bias(x, bias):
    """Its gradient is a matrix product: the kernel of TensorFlow took a third of the
    training step of MoveNet in bfloat16, XLA's reduction a tenth of `paper`'s."""

    def gradient(upstream):
        rows = tf.reshape(upstream, [-1, upstream.shape[-1]])
        # Several times the same sum: what has a single row is no product to XLA.
        ones = tf.ones([8, tf.shape(rows)[0]], rows.dtype)
        return upstream, tf.matmul(ones, rows)[0]

    return tf.nn.bias_add(x, bias), gradient


@tf.custom_gradient
def _rectified(x):
    """ReLU. XLA, were there no barrier, would ask for its gradient whether x is above
    zero: then x is kept beside what is answered, and a kernel of its own is needed
    where else the convolution answers it."""
    (outputs,) = xla.optimization_barrier(tf.nn.relu(x))
    return outputs, lambda upstream: tf.where(outputs > 0, upstream, 0)


def _convolve_blocks(x, kernel, stride):
    """The SAME convolution with a stride, of blocks of stride x stride pixels."""
    side, size = x.shape[1], kernel.shape[0]
    outputs, cells = -(-side // stride), -(-size // stride)
    before = max((outputs - 1) * stride + size - side, 0) // 2
    after = (outputs + cells - 1) * stride - side - before
    x = tf.pad(x, [[0, 0], [before, after], [before, after], [0, 0]])
    more = cells * stride - size
    kernel = tf.pad(kernel, [[0, more], [0, more], [0, 0], [0, 0]])
    kernel = tf.reshape(kernel, [cells, stride, cells, stride, *kernel.shape[2:]])
    kernel = tf.transpose(kernel, [0, 2, 1, 3, 4, 5])
    kernel = tf.reshape(kernel, [cells, cells, -1, kernel.shape[-1]])
    return tf.nn.conv2d(tf.nn.space_to_depth(x, stride), kernel, 1, "VALID")


@registered
class MaxPooling(keras.layers.MaxPooling2D):
    """Keras's layer, [M, H, W, C] -> [M, h, w, C]. To XLA it remembers which place of a
    window is the first that is largest, and gives the gradient to that: what XLA makes
    of it scatters slowly. That takes windows within the image (VALID)."""

    def call(self, inputs):
        if not _traced_for("by_xla"):
            return super().call(inputs)
        return _pool(inputs, self.pool_size[0], self.strides[0])


def _pool(x, size, stride):
    _, height, width, channels = x.shape
    rows, columns = ((side - size) // stride + 1 for side in (height, width))
    # A pixel lies in windows that begin at most so many strides before its own, and at
    # a place of each that is below `reach`, or in none.
    cells = range(-(-size // stride))
    last, reach = len(cells) - 1, len(cells) * stride

    def place(x, i, j):
        """[M, rows, columns, C]: one place of every window."""
        x = x[:, i : i + stride * rows - stride + 1 : stride]
        return x[:, :, j : j + stride * columns - stride + 1 : stride]

    @tf.custom_gradient
    def pooled(x):
        numbers = list(itertools.product(range(size), repeat=2))
        places = [place(x, i, j) for i, j in numbers]
        best = functools.reduce(tf.maximum, places)
        first = tf.zeros(tf.shape(best), tf.uint8)
        for (i, j), value in reversed(list(zip(numbers, places, strict=True))):
            number = tf.cast(i * reach + j, tf.uint8)
            first = tf.where(value == best, number, first)
        # Without barriers all of it is done again wherever it is read.
        best, first = xla.optimization_barrier(best, first)

        def spread(framed, i, j):
            """[M, height, width, C]: for every pixel what is in `framed` of the window
            that begins i and j strides before the pixel's own."""
            i, j = last - i, last - j
            found = framed[:, i : i - (-height // stride), j : j - (-width // stride)]
            found = tf.repeat(tf.repeat(found, stride, 1), stride, 2)
            return found[:, :height, :width]

        def gradient(upstream):
            within = np.add.outer(
                np.arange(height) % stride * reach, np.arange(width) % stride
            )
            # In a frame, so that no pixel has to ask whether there is a window.
            frame = [[0, 0], [last, last + 1], [last, last + 1], [0, 0]]
            framed = (tf.pad(values, frame) for values in (first, upstream))
            numbers, values = xla.optimization_barrier(*framed)
            given = []
            for i, j in itertools.product(cells, repeat=2):
                number = (within + stride * (i * reach + j))[None, :, :, None]
                taken = spread(numbers, i, j) == tf.constant(number, tf.uint8)
                given.append(tf.where(taken, spread(values, i, j), 0))
            return xla.optimization_barrier(tf.add_n(given))[0]

        return best, gradient

    return pooled(x)


@registered
class LocalResponseNormalization(keras.layers.Layer):
    """AlexNet's: radius 2, bias 2, alpha 1e-4, beta 0.75 (reference [14], Sec. 3.3)."""

    def call(self, inputs):
        if _traced_for("by_xla"):
            return _by_xla(inputs)
        normalized = _by_slices if _traced_for("delegable") else _by_one_operation
        return tf.cast(normalized(tf.cast(inputs, tf.float32)), inputs.dtype)


@tf.custom_gradient
def _by_xla(x):
    """By slices, of which XLA reads what several pixels share once, forward and
    backward in three passes: as the products of a band matrix it took twice the memory.
    """

    def scaled(value):
        """2 + alpha sums, and that to the power of -beta."""
        total = 2.0 + 1e-4 * _near(value * value)
        inverse = tf.math.rsqrt(total)
        return total, inverse * tf.sqrt(inverse)

    value = tf.cast(x, tf.float32)
    outputs = value * scaled(value)[1]

    def gradient(upstream):
        # Without barriers XLA keeps powers for it, in several times the memory, and
        # makes `others` anew for each of those who are near.
        (kept,) = xla.optimization_barrier(x)
        value, up = tf.cast(kept, tf.float32), tf.cast(upstream, tf.float32)
        total, scale = scaled(value)
        others = tf.cast(up * value * scale / total, x.dtype)
        (others,) = xla.optimization_barrier(others)
        others = 1.5e-4 * _near(tf.cast(others, tf.float32))
        return tf.cast(up * scale - value * others, x.dtype)

    return tf.cast(outputs, x.dtype), gradient


def _by_one_operation(x):
    return tf.nn.local_response_normalization(
        x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75
    )


def _by_slices(x):
    """The same: no delegate of TFLite takes its operation, which is slow besides."""
    root = tf.math.rsqrt(2.0 + 1e-4 * _near(x * x))
    return x * root * tf.sqrt(root)


def _near(x):
    """[M, H, W, C]: for each channel the sum of those within the radius."""
    padded = tf.pad(x, [[0, 0]] * 3 + [[2, 2]])
    return sum(padded[..., i : i + x.shape[-1]] for i in range(5))


@registered
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer on TensorFlow's fused kernel.

    Keras 3 spells the same sums out in a dozen operations: on two cores that made the
    step of `compact` a third longer.
    """

    def __init__(self, autocast=False, **kwargs):
        super().__init__(autocast=autocast, **kwargs)

    def call(self, inputs, training=False):
        training = training and self.trainable  # frozen, it learns no moments either
        scale, offset, mean, variance = (
            tf.convert_to_tensor(weight)
            for weight in (
                self.gamma,
                self.beta,
                self.moving_mean,
                self.moving_variance,
            )
        )
        nothing = tf.zeros([0])
        if training and _several_replicas():
            outputs, *moments = _normalized_together(
                inputs, scale, offset, self.epsilon
            )
        elif training and _traced_for("gpu") and not _traced_for("by_xla"):
            outputs, *moments = _normalized_by_xla(inputs, scale, offset, self.epsilon)
        else:
            outputs, *moments = tf.raw_ops.FusedBatchNormV3(
                x=inputs,
                scale=scale,
                offset=offset,
                mean=nothing if training else mean,
                variance=nothing if training else variance,
                epsilon=self.epsilon,
                is_training=bool(training),
            )[:3]
        if training:
            keep = self.momentum
            self.moving_mean.assign(keep * mean + (1 - keep) * moments[0])
            self.moving_variance.assign(keep * variance + (1 - keep) * moments[1])
        return outputs


def synchronize(layers):
    """Makes Keras's own normalisation, among these layers, take its moments over all
    replicas as well."""
    for layer in layers if _several_replicas() else ():
        if isinstance(layer, keras.layers.BatchNormalization):
            # Keras 2 takes its fused kernel, of one replica, where it is not told.
            layer.synchronized, layer.fused = True, False


def _several_replicas():
    return tf.distribute.get_strategy().num_replicas_in_sync > 1


def _normalized_by_xla(x, scale, offset, epsilon):
    """What the fused kernel answers. In bfloat16 that takes channels first, and what it
    does to have them so with two turns of the images is half of the step of `mobile`.
    """
    count = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
    compiled = functools.partial(tf.function, jit_compile=True, autograph=False)

    @compiled
    def forward(x, scale, offset):
        mean, variance = tf.nn.moments(tf.cast(x, tf.float32), [0, 1, 2])
        inverse = tf.math.rsqrt(variance + epsilon)
        outputs = (tf.cast(x, tf.float32) - mean) * (inverse * scale) + offset
        return tf.cast(outputs, x.dtype), mean, variance, inverse

    @compiled
    def backward(upstream, x, scale, mean, inverse):
        upstream = tf.cast(upstream, tf.float32)
        values = (tf.cast(x, tf.float32) - mean) * inverse
        offsets = tf.reduce_sum(upstream, [0, 1, 2])
        scales = tf.reduce_sum(upstream * values, [0, 1, 2])
        inputs = upstream - (offsets + values * scales) / count
        return tf.cast(inputs * (scale * inverse), x.dtype), scales, offsets

    @tf.custom_gradient
    def normalized(x, scale, offset):
        outputs, mean, variance, inverse = forward(x, scale, offset)

        def gradient(upstream, *_):  # the moments are no outputs of the network
            return backward(upstream, x, scale, mean, inverse)

        return (outputs, mean, variance), gradient

    outputs, mean, variance = normalized(x, scale, offset)
    return outputs, mean, variance * count / tf.maximum(count - 1, 1)


def _normalized_together(x, scale, offset, epsilon):
    """What the fused kernel answers for the batches of all replicas as one: outputs,
    mean, and the unbiased variance."""
    replica = tf.distribute.get_replica_context()
    values = tf.cast(x, tf.float32)
    mean, variance = tf.nn.moments(values, [0, 1, 2])
    mean, square = tf.unstack(
        replica.all_reduce("MEAN", tf.stack([mean, variance + mean**2]))
    )
    variance = tf.maximum(square - mean**2, 0.0)
    # Not tf.nn.batch_normalization: its gradient of the scale is rounded much more.
    y = (values - mean) * tf.math.rsqrt(variance + epsilon) * scale + offset
    count = tf.size(x) // x.shape[-1] * replica.num_replicas_in_sync
    unbiased = tf.cast(count / tf.maximum(count - 1, 1), tf.float32)
    return tf.cast(y, x.dtype), mean, variance * unbiased


@registered
class Dropout(keras.layers.Layer):
    """Dropout whose mask is given by the training step and the layer's number.

    Keras's own keeps a hidden state, with which a resumed run would draw other masks.
    A replica takes its part of the mask of the whole batch, the same however many share
    it. Outside of `dropout_step`, as in `fit`, every call draws a mask of its own.
    """

    def __init__(self, rate, number, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.number = number

    def get_config(self):
        return super().get_config() | {"rate": self.rate, "number": self.number}

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        step = getattr(_CURRENT, "step", None)
        if step is None:
            step = tf.random.uniform([], maxval=tf.int64.max, dtype=tf.int64)
        seed = tf.stack([step, tf.cast(self.number, tf.int64)])
        dropout = functools.partial(
            tf.nn.experimental.stateless_dropout, rate=self.rate, seed=seed
        )
        if not _several_replicas():
            return dropout(inputs)
        replica, shape = tf.distribute.get_replica_context(), tf.shape(inputs)
        whole = tf.concat([shape[:1] * replica.num_replicas_in_sync, shape[1:]], 0)
        first = replica.replica_id_in_sync_group * shape[0]
        mask = dropout(tf.ones(whole, inputs.dtype))
        return inputs * mask[first : first + shape[0]]


@registered
class MapLogits(keras.layers.Layer):
    """[M, h, w, n n K] -> [M, K, P] float32, P = h n w n places row by row."""

    def __init__(self, joints, subcells, **kwargs):
        super().__init__(**kwargs)
        self.joints = joints
        self.subcells = subcells

    def get_config(self):
        return super().get_config() | {
            "joints": self.joints,
            "subcells": self.subcells,
        }

    def call(self, inputs):
        maps = tf.cast(inputs, tf.float32)
        if self.subcells > 1:
            maps = tf.nn.depth_to_space(maps, self.subcells)  # [M, h n, w n, K]
        maps = tf.reshape(maps, [-1, maps.shape[1] * maps.shape[2], self.joints])
        return tf.transpose(maps, [0, 2, 1])


class MirrorAverage(keras.layers.Layer):
    """Crops -> the mean of the logits [M, K, P] that a network, which makes maps of
    `width` places in a row, has of them and of their mirror images."""

    def __init__(self, network, width, mirror, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self.width = width
        self.mirror = mirror

    def call(self, crops):
        both = tf.concat([crops, tf.reverse(crops, [2])], axis=0)
        own, other = tf.split(self.network(both, training=False), 2)
        rows = tf.reshape(other, [-1, self.width])
        other = tf.reshape(tf.reverse(rows, [1]), tf.shape(own))
        return (own + tf.gather(other, self.mirror, axis=1)) / 2


@registered
class Expectation(keras.layers.Layer):
    """Logits [M, K, P] -> [M, K, 2]: the place expected under their softmax, or, but
    for training, under what of it lies within `window` places of its peak."""

    def __init__(self, height, width, window=0, **kwargs):
        super().__init__(**kwargs)
        self.height = height
        self.width = width
        self.window = window
        y, x = np.meshgrid(
            (np.arange(height) + 0.5) / height - 0.5,
            (np.arange(width) + 0.5) / width - 0.5,
            indexing="ij",
        )
        self.places = np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.float32)

    def get_config(self):
        return super().get_config() | {
            "height": self.height,
            "width": self.width,
            "window": self.window,
        }

    def call(self, inputs, training=False):
        if self.window and not training:
            inputs = self._near_peak(inputs)
        return tf.matmul(tf.nn.softmax(inputs), self.places)

    def _near_peak(self, logits):
        """The logits [M, K, P] near the highest; far away they are as good as none.

        In sums and products alone, because delegates of TFLite take neither comparisons
        nor gathers. Places as good as the best share the peak.
        """
        cells = self.places * np.float32([self.width, self.height])  # [P, 2]
        below = tf.reduce_max(logits, axis=-1, keepdims=True) - logits
        best = tf.nn.relu(1.0 - FAR * below)
        peak = tf.matmul(best / tf.reduce_sum(best, -1, keepdims=True), cells)
        squares = tf.reduce_sum(peak**2, axis=-1, keepdims=True)
        distance = (cells**2).sum(-1) - 2 * tf.matmul(peak, cells.T) + squares
        # Half a square more: rounding must not take out what lies on the edge.
        return logits - FAR * tf.nn.relu(distance - self.window**2 - 0.5)


@registered
class Moments(Expectation):
    """Logits [M, K, P] -> [M, K, 4]: the place expected, and the variance of the whole
    map about it."""

    def call(self, inputs, training=False):
        mean = super().call(inputs, training)
        shares = tf.nn.softmax(inputs)
        first, second = (tf.matmul(shares, self.places**n) for n in (1, 2))
        variance = second - 2 * mean * first + mean**2
        # A place is no point: what is in it is spread evenly over its area.
        area = np.float32([1 / self.width, 1 / self.height]) ** 2
        return tf.concat([mean, tf.maximum(variance, 0.0) + area / 12], axis=-1)
