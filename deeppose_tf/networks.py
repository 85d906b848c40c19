"""The networks a stage can be: Fig. 2's, a compact one, or a Keras backbone.

All map crops [M, S, S, 3] float32 in [-1, 1) to normalized joints [M, K, 2] float32.
"""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from deeppose_tf import heads, sampling
from deeppose_tf.normalization import (
    FusedBatchNormalization,
    LocalResponseNormalization,
)

keras = tf.keras


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
    head = heads.linear if config.head == "linear" else heads.integral
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
