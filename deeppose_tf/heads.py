"""How a network answers: 2k linear outputs, or the place expected under a map.

Both map the last layer of a network of `networks` to normalized joints [M, K, 2].
"""

from __future__ import annotations

import contextlib
import threading

import numpy as np
import tensorflow as tf

keras = tf.keras

MAP_LOGITS, EXPECTATION = "map_logits", "expectation"


def linear(x: tf.Tensor, config, joints: int, mean_target: np.ndarray) -> tf.Tensor:
    """Sec. 3.1: fully connected layers and 2k linear outputs that begin at the mean."""
    if config.network == "paper":
        x = keras.layers.Flatten()(x)
        for i in range(2):
            x = keras.layers.Dense(
                4096, activation="relu", kernel_initializer="he_normal"
            )(x)
            x = Dropout(config.dropout, i)(x)
    else:
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = Dropout(config.dropout, 0)(x)
    x = keras.layers.Dense(
        2 * joints,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(np.ravel(mean_target)),
        dtype="float32",
    )(x)
    return keras.layers.Reshape([joints, 2], dtype="float32")(x)


class Dropout(keras.layers.Layer):
    """Dropout whose mask is given by the training step and the layer's number.

    Keras's own keeps a hidden state, with which a resumed run would draw other masks.
    """

    def __init__(self, rate, number, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.number = number

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        step = getattr(_CURRENT, "step", tf.constant(0, tf.int64))
        seed = tf.stack([step, tf.cast(self.number, tf.int64)])
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed)


@contextlib.contextmanager
def dropout_step(step: tf.Tensor):
    """Within it, dropout draws its masks from this step, a scalar int64, and from the
    replica that it runs on."""
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    _CURRENT.step = tf.cast(step, tf.int64) * 4096 + tf.cast(replica, tf.int64)
    try:
        yield
    finally:
        del _CURRENT.step


# Replicas are traced in threads of their own.
_CURRENT = threading.local()


def integral(x: tf.Tensor, config, joints: int, mean_target: np.ndarray) -> tf.Tensor:
    """A map per joint, its softmax, and the place expected under it.

    Each cell of the network's last layer is divided into `subcells` squared places, at
    the cost of channels alone. There is no bias that could begin at the mean pose: a
    flat map answers the middle of the crop.
    """
    del mean_target
    x = keras.layers.Conv2D(
        joints * config.subcells**2,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
    )(x)
    height, width = (side * config.subcells for side in x.shape[1:3])
    logits = MapLogits(joints, config.subcells, name=MAP_LOGITS, dtype="float32")(x)
    return Expectation(height, width, name=EXPECTATION, dtype="float32")(logits)


def with_maps(model: keras.Model) -> keras.Model:
    """The same network, with the logits of its maps [M, K, P] as second output."""
    logits = model.get_layer(MAP_LOGITS).output
    return keras.Model(model.input, [model.output, logits])


def map_places(model: keras.Model) -> np.ndarray:
    """[P, 2] normalized: the middle of each place of an integral head's maps."""
    return model.get_layer(EXPECTATION).places


class MapLogits(keras.layers.Layer):
    """[M, h, w, n n K] -> [M, K, P] float32, P = h n w n places row by row."""

    def __init__(self, joints, subcells, **kwargs):
        super().__init__(**kwargs)
        self.joints = joints
        self.subcells = subcells

    def call(self, inputs):
        maps = tf.cast(inputs, tf.float32)
        if self.subcells > 1:
            maps = tf.nn.depth_to_space(maps, self.subcells)  # [M, h n, w n, K]
        maps = tf.reshape(maps, [-1, maps.shape[1] * maps.shape[2], self.joints])
        return tf.transpose(maps, [0, 2, 1])


class Expectation(keras.layers.Layer):
    """Logits [M, K, P] -> [M, K, 2]: the place expected under their softmax."""

    def __init__(self, height, width, **kwargs):
        super().__init__(**kwargs)
        y, x = np.meshgrid(
            (np.arange(height) + 0.5) / height - 0.5,
            (np.arange(width) + 0.5) / width - 0.5,
            indexing="ij",
        )
        self.places = np.stack([x.ravel(), y.ravel()], axis=-1).astype(np.float32)

    def call(self, inputs):
        return tf.matmul(tf.nn.softmax(inputs), self.places)
