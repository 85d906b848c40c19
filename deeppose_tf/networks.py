"""The networks a stage can be: Fig. 2's, a compact one, MoveNet's, EfficientNet-Lite0
or a Keras backbone, each with a head of 2k linear outputs or of a map per joint.

All map crops [M, S, S, 3] float32 in [-1, 1) to normalized joints [M, K, 2] float32.
They are plain Keras models, and can be saved, loaded and fitted as such.
"""

from __future__ import annotations

import os

import numpy as np
import tensorflow as tf

from deeppose_tf import layers, sampling
from deeppose_tf.config import LITES, MOVENETS, StageConfig

keras = tf.keras

MAPS, MAP_LOGITS, EXPECTATION = "maps", "map_logits", "expectation"


def build(
    config: StageConfig, joints: int, mean_target: np.ndarray, weights: str | None
) -> keras.Model:
    """Builds the network that a `StageConfig` describes; see `stage.build_stage`."""
    crops = keras.Input([config.size, config.size, 3], name="crops")
    if config.network == "paper":
        features = _paper(crops)
    elif config.network == "compact":
        features = _compact(crops, config)
    elif config.network in MOVENETS:
        features = _movenet(crops, *MOVENETS[config.network])
    elif config.network in LITES:
        features = _lite0(crops, config)
    else:
        features = _application(crops, config, weights)
    if weights and config.network in ("paper", "compact"):
        raise ValueError(f"there are no weights to start {config.network} from")
    head = _linear if config.head == "linear" else _integral
    outputs = head(features, config, joints, mean_target)
    return keras.Model(crops, outputs, name=config.network)


def with_maps(model: keras.Model) -> keras.Model:
    """The same network, with the logits of its maps [M, K, P] as second output."""
    logits = model.get_layer(MAP_LOGITS).output
    return keras.Model(model.input, [model.output, logits])


def suits_xla(model: keras.Model, replicas: int = 1) -> bool:
    """Whether XLA compiles the network's training step in seconds. Those of networks
    with depthwise convolutions were not done after 150 s on a GPU, and run 7 to 14
    times slower on a CPU. Nor is what several replicas do together left to it, which
    normalisation does in the midst of the network."""
    kinds = [keras.layers.DepthwiseConv2D]
    if replicas > 1:
        kinds.append(keras.layers.BatchNormalization)
    return not any(isinstance(layer, tuple(kinds)) for layer in model.layers)


def map_places(model: keras.Model) -> np.ndarray:
    """[P, 2] normalized: the middle of each place of an integral head's maps."""
    return model.get_layer(EXPECTATION).places


def with_spread(model: keras.Model) -> keras.Model:
    """The same network, which also says how sure its maps are.

    Returns:
      [M, S, S, 3] -> [M, K, 4]: x and y as before, and the variance of each under the
      joint's map, normalized. A network without maps is returned as it is.
    """
    if not isinstance(model, keras.Model):
        return model  # of an export, which made it from such a network
    if not any(layer.name == EXPECTATION for layer in model.layers):
        return model
    expectation = model.get_layer(EXPECTATION)
    moments = layers.Moments(
        expectation.height, expectation.width, expectation.window, dtype="float32"
    )
    return keras.Model(model.input, moments(model.get_layer(MAP_LOGITS).output))


def with_mirror(model: keras.Model, mirror: tuple[int, ...]) -> keras.Model:
    """The same network, which averages its maps of a crop with those of the mirrored
    one ("flip test"); for prediction alone.

    Args:
      model: of an integral head.
      mirror: [K], see `Skeleton.mirror`.

    Raises:
      ValueError: it has no maps.
    """
    if not any(layer.name == EXPECTATION for layer in model.layers):
        raise ValueError("mirrored maps are to be averaged, and the network has none")
    maps = keras.Model(model.input, model.get_layer(MAP_LOGITS).output)
    expectation = model.get_layer(EXPECTATION)
    crops = keras.Input(model.input.shape[1:])
    logits = layers.MirrorAverage(
        maps, expectation.width, mirror, name=MAP_LOGITS, dtype="float32"
    )(crops)
    again = layers.Expectation.from_config(expectation.get_config())
    return keras.Model(crops, again(logits), name=model.name)


# Convolutions of Fig. 2: filters, side, stride, and whether LRN and pooling follow.
PAPER = (
    (96, 11, 4, True, True),
    (256, 5, 1, True, True),
    (384, 3, 1, False, False),
    (384, 3, 1, False, False),
    (256, 3, 1, False, True),
)


def _paper(x):
    """C-LRN-P-C-LRN-P-C-C-C-P of Fig. 2; SAME convolutions give 55, 27, 13, 6."""
    for filters, kernel, strides, normalize, pool in PAPER:
        x = layers.Convolution(
            filters,
            kernel,
            strides,
            padding="same",
            activation="relu",
            kernel_initializer="he_normal",
        )(x)
        if normalize:
            x = layers.LocalResponseNormalization()(x)
        if pool:
            x = layers.MaxPooling(3, 2)(x)
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


def _normalized(x, gamma="ones", name=None):
    # Its numbers stay float32 whatever precision passes through.
    return layers.FusedBatchNormalization(
        momentum=0.98, gamma_initializer=gamma, name=name, dtype="float32"
    )(x)


def _movenet(x, stem, first, widths):
    """MoveNet up to the features of its joints' maps, at a quarter of the crop.

    MobileNetV2 whose normalisation is folded into its convolutions, and a pyramid that
    adds what is doubled in size to what was there before. Layers have the names of the
    published graphs, by which `weights` finds what belongs to them.
    """
    # Theirs is 1 at pixels of 255.
    x = keras.layers.Rescaling(128 / 127.5, 128 / 127.5 - 1)(x)
    x = _relu6(_named(x, "Conv1", stem, 3, 2))
    x = _relu6(_depthwise(x, "expanded_conv_depthwise"))
    x = _named(x, "expanded_conv_project", first)
    block, laterals = 0, []
    blocks, strides = (2, 3, 4, 3, 3, 1), (2, 2, 2, 1, 2, 1)
    for width, count, stride in zip(widths, blocks, strides, strict=False):
        for i in range(count):
            block += 1
            name, before = f"block_{block}", x
            x = _relu6(_named(x, f"{name}_expand", 6 * x.shape[-1]))
            x = _relu6(_depthwise(x, f"{name}_depthwise", stride if i == 0 else 1))
            x = _named(x, f"{name}_project", width)
            if i:
                x = keras.layers.Add()([before, x])
        if block in (2, 5, 9):
            laterals.append(x)
    if len(widths) == len(blocks):
        x = _named(_relu6(_named(x, "Conv_1", 1280)), "conv2d", 64)
    else:
        x = _named(x, "conv2d_16", 64)
    for i, width in enumerate((64, 32, 24)):
        beside = laterals.pop()
        if x.shape[1] != beside.shape[1]:
            x = keras.layers.UpSampling2D(interpolation="bilinear")(x)
        x = keras.layers.Add()([x, _named(beside, f"conv2d_{i + 1}", width)])
        name = f"separable_conv2d_{i}" if i else "separable_conv2d"
        x = _separable(x, name, (32, 24, 24)[i])
    return _separable(x, "separable_conv2d_4", 96)


def _lite0(x, config):
    """EfficientNet-Lite0 up to its last block, or to that at a 16th of the crop, and a
    pyramid. Layers have the names of the published checkpoint, by which `weights` finds
    what belongs to them.
    """
    x = keras.layers.Rescaling(1.0, 1 / 128)(x)  # theirs is (pixel - 127) / 128
    x = _named(x, "conv_stem", 32, 3, 2, bias=False)
    x = _relu6(_normalized(x, name="bn0"))
    block, levels = 0, {}
    for width, count, kernel, stride in (
        (16, 1, 3, 1),
        (24, 2, 3, 2),
        (40, 2, 5, 2),
        (80, 3, 3, 2),
        (112, 3, 5, 1),
        (192, 4, 5, 2),
        (320, 1, 3, 1),
    ):
        if width > 112 and LITES[config.network] == 16:
            break
        for i in range(count):
            name, before = f"blocks_{block}", x
            if block:
                x = _named(x, f"{name}_expand_conv", 6 * x.shape[-1], bias=False)
                x = _relu6(_normalized(x, name=f"{name}_bn0"))
            strides = 1 if i else stride
            x = _depthwise(x, f"{name}_depthwise_conv", strides, False, kernel)
            x = _relu6(_normalized(x, name=f"{name}_bn1"))
            x = _named(x, f"{name}_project_conv", width, bias=False)
            x = _normalized(x, name=f"{name}_bn2")
            if i:
                x = keras.layers.Add()([before, x])
            block += 1
        levels[x.shape[1]] = x
    return _pyramid(levels, config, LITES[config.network], config.stride or 8)


def _pyramid(levels, config, last, stride):
    """128 features of the levels from cells of `last` pixels to those of `stride`, each
    added to the doubled ones of the level before.

    Args:
      levels: side of the map -> the last features of that size.
    """
    x, cells = None, last
    while cells >= stride:
        beside = levels.get(config.size // cells)
        if beside is None or config.size % cells:
            raise ValueError(
                f"{config.network} of crops of {config.size} pixels has no map with a "
                f"cell for every {cells} of them, down to stride {stride}"
            )
        name = f"pyramid_{cells}"
        beside = _named(beside, f"{name}_lateral", 128, bias=False)
        beside = _normalized(beside, name=f"{name}_bn0")
        if x is not None:
            x = keras.layers.UpSampling2D(interpolation="bilinear")(x)
            beside = keras.layers.Add()([x, beside])
        x = _depthwise(beside, f"{name}_depthwise_conv", bias=False)
        x = _named(x, f"{name}_project_conv", 128, bias=False)
        x = keras.layers.ReLU()(_normalized(x, name=f"{name}_bn1"))
        cells //= 2
    return x


def _named(x, name, width, kernel=1, strides=1, bias=True):
    layer = layers.Convolution(
        width, kernel, strides, padding="same", use_bias=bias, name=name
    )
    return layer(x)


def _depthwise(x, name, strides=1, bias=True, kernel=3):
    layer = layers.DepthwiseConvolution(
        kernel, strides, padding="same", use_bias=bias, name=name
    )
    return layer(x)


def _separable(x, name, width):
    x = _depthwise(x, f"{name}_depthwise", bias=False)
    return keras.layers.ReLU()(_named(x, name, width))


def _relu6(x):
    return keras.layers.ReLU(6.0)(x)


def _application(x, config, weights):
    """A `keras.applications` backbone behind its own pre-processing."""
    name = config.network
    network, _ = _find_application(name)
    if weights and weights != "imagenet" and not os.path.isfile(weights):
        raise ValueError(f"no file {weights} to take the backbone's weights from")
    x = BackbonePreprocessing(name)(x)
    backbone = network(include_top=False, weights=weights, input_tensor=x)
    layers.synchronize(backbone.layers)
    # Not nested: every layer stays in the one model.
    if not config.stride:
        return backbone.output
    outputs = [layer.output for layer in backbone.layers if _is_map(layer.output)]
    levels = {output.shape[1]: output for output in outputs}
    return _pyramid(levels, config, 32, config.stride)


def _is_map(output):
    """Whether a layer's output is square features, and only one tensor."""
    shape = getattr(output, "shape", ())
    return len(shape) == 4 and shape[1] == shape[2]


def _find_application(name):
    """A network of `keras.applications`, and the pre-processing of its module."""
    network = getattr(keras.applications, name, None)
    # Names of networks begin in capitals; modules and functions stand beside them.
    if network is None or not name[:1].isupper():
        raise ValueError(
            f"network {name!r} is neither paper, compact, "
            f"{', '.join([*MOVENETS, *LITES])} nor of keras.applications"
        )
    # Not every module holds its networks by name: mobilenet_v3 does not.
    module = getattr(keras.applications, network.__module__.split(".")[-1])
    return network, module.preprocess_input


def _linear(x: tf.Tensor, config, joints: int, mean_target: np.ndarray) -> tf.Tensor:
    """Sec. 3.1: fully connected layers and 2k linear outputs that begin at the mean."""
    if config.network == "paper":
        x = keras.layers.Flatten()(x)
        for i in range(2):
            x = keras.layers.Dense(
                4096, activation="relu", kernel_initializer="he_normal"
            )(x)
            x = layers.Dropout(config.dropout, i)(x)
    else:
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = layers.Dropout(config.dropout, 0)(x)
    x = keras.layers.Dense(
        2 * joints,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(np.ravel(mean_target).tolist()),
        dtype="float32",
    )(x)
    return keras.layers.Reshape([joints, 2], dtype="float32")(x)


def _integral(x: tf.Tensor, config, joints: int, mean_target: np.ndarray) -> tf.Tensor:
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
        name=MAPS,
    )(x)
    height, width = (side * config.subcells for side in x.shape[1:3])
    logits = layers.MapLogits(
        joints, config.subcells, name=MAP_LOGITS, dtype="float32"
    )(x)
    return layers.Expectation(
        height, width, config.window, name=EXPECTATION, dtype="float32"
    )(logits)


@layers.registered
class BackbonePreprocessing(keras.layers.Layer):
    """From our [-1, 1) to whatever a backbone of `keras.applications` was fed."""

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        self.network = network

    def get_config(self):
        return super().get_config() | {"network": self.network}

    def call(self, inputs):
        _, preprocess = _find_application(self.network)
        return preprocess((inputs + 1.0) * sampling.PADDING)
