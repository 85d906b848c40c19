"""The layers that normalize activations, each as the kernels of its targets want it."""

from __future__ import annotations

import contextlib
import threading

import tensorflow as tf

keras = tf.keras

# What is being traced for, by thread.
_CURRENT = threading.local()


@contextlib.contextmanager
def delegable():
    """Within it, networks are traced into what delegates of TFLite take."""
    _CURRENT.delegable = True
    try:
        yield
    finally:
        del _CURRENT.delegable


class LocalResponseNormalization(keras.layers.Layer):
    """AlexNet's: radius 2, bias 2, alpha 1e-4, beta 0.75 (reference [14], Sec. 3.3)."""

    def call(self, inputs):
        delegable = getattr(_CURRENT, "delegable", False)
        normalized = _by_slices if delegable else _by_one_operation
        return tf.cast(normalized(tf.cast(inputs, tf.float32)), inputs.dtype)


def _by_one_operation(x):
    return tf.nn.local_response_normalization(
        x, depth_radius=2, bias=2.0, alpha=1e-4, beta=0.75
    )


def _by_slices(x):
    """The same: no delegate of TFLite takes its operation, which is slow besides."""
    channels = x.shape[-1]
    squares = tf.pad(x * x, [[0, 0]] * 3 + [[2, 2]])
    near = sum(squares[..., i : i + channels] for i in range(5))
    root = tf.math.rsqrt(2.0 + 1e-4 * near)
    return x * root * tf.sqrt(root)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Keras's layer on TensorFlow's fused kernel.

    Keras 3 spells the same sums out in a dozen operations: on two cores that made the
    step of `compact` a third longer.
    """

    def call(self, inputs, training=False):
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
        outputs = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=scale,
            offset=offset,
            mean=nothing if training else mean,
            variance=nothing if training else variance,
            epsilon=self.epsilon,
            is_training=bool(training),
        )
        if training:
            keep = self.momentum
            self.moving_mean.assign(keep * mean + (1 - keep) * outputs.batch_mean)
            self.moving_variance.assign(
                keep * variance + (1 - keep) * outputs.batch_variance
            )
        return outputs.y
