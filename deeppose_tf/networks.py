"""The networks a stage can be: Fig. 2's, a compact one, or a Keras backbone.

All map crops [M, S, S, 3] float32 in [-1, 1) to normalized joints [M, K, 2] float32.
"""

from __future__ import annotations

import contextlib
import os
import threading

import numpy as np
import tensorflow as tf

from deeppose_tf import sampling
from deeppose_tf.normalization import (
    FusedBatchNormalization,
    LocalResponseNormalization,
)

keras = tf.keras

HEADS = ("linear", "integral")
MAP_LOGITS, EXPECTATION = "map_logits", "expectation"


def build(
    config, joints: int, mean_target: np.ndarray, weights: str | None
) -> keras.Model:
    """Builds the network that a `StageConfig` describes; see `stage.build_stage`."""
    crops = keras.Input([config.size, config.size, 3], name="crops")
    if config.network == "paper":
        features = _paper(crops)
    elif config.network == "compact":
        features = _compact(crops, config)
    else:
        features = _application(crops, config.network, weights)
    if weights and config.network in ("paper", "compact"):
        raise ValueError(f"there are no weights to start {config.network} from")
    head = _linear if config.head == "linear" else _integral
    outputs = head(features, config, joints, mean_target)
    return keras.Model(crops, outputs, name=config.network)


def _paper(x):
    """C-LRN-P-C-LRN-P-C-C-C-P of Fig. 2; SAME convolutions give 55, 27, 13, 6."""
    for filters, kernel, strides, normalize, pool in (
        (96, 11, 4, True, True),
        (256, 5, 1, True, True),
        (384, 3, 1, False, False),
        (384, 3, 1, False, False),
        (256, 3, 1, False, True),
    ):
        x = keras.layers.Conv2D(
            filters,
            kernel,
            strides,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
        )(x)
        if normalize:
            x = LocalResponseNormalization()(x)
        if pool:
            x = keras.layers.MaxPooling2D(3, 2)(x)
    return x  # [M, 6, 6, 256] from crops of 220


def _compact(x, config):
    """Halve, then residual blocks of two 3 x 3 convolutions, at each resolution."""
    for width, blocks in zip(config.widths, config.blocks, strict=True):
        x = _normalized(_convolution(x, width, 2))
        x = keras.layers.ReLU()(x)
        for _ in range(blocks):
            y = keras.layers.ReLU()(_normalized(_convolution(x, width)))
            # Blocks begin as the identity: their last scale is zero.
            y = _normalized(_convolution(y, width), gamma="zeros")
            x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    return x


def _convolution(x, width, strides=1):
    return keras.layers.Conv2D(
        width,
        3,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
    )(x)


def _normalized(x, gamma="ones"):
    # Its numbers stay float32 whatever precision passes through.
    return FusedBatchNormalization(
        momentum=0.98, gamma_initializer=gamma, dtype="float32", autocast=False
    )(x)


def _application(x, name, weights):
    """A `keras.applications` backbone behind its own pre-processing."""
    network, preprocess = _find_application(name)
    if weights and weights != "imagenet" and not os.path.isfile(weights):
        raise ValueError(f"no file {weights} to take the backbone's weights from")
    x = BackbonePreprocessing(preprocess)(x)
    backbone = network(include_top=False, weights=weights, input_tensor=x)
    return backbone.output  # not nested: every layer stays in the one model


class BackbonePreprocessing(keras.layers.Layer):
    """From our [-1, 1) to whatever a backbone of `keras.applications` was fed."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs):
        return self.function((inputs + 1.0) * sampling.PADDING)


def _find_application(name):
    """A network of `keras.applications`, and the pre-processing of its module."""
    network = getattr(keras.applications, name, None)
    # Names of networks begin in capitals; modules and functions stand beside them.
    if network is None or not name[:1].isupper():
        raise ValueError(
            f"network {name!r} is neither paper nor compact nor of keras.applications"
        )
    # Not every module holds its networks by name: mobilenet_v3 does not.
    module = getattr(keras.applications, network.__module__.split(".")[-1])
    return network, module.preprocess_input


def _linear(x, config, joints, mean_target):
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


def _integral(x, config, joints, mean_target):
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
