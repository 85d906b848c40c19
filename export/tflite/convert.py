"""A cascade -> the bytes of one TFLite file of built-in operations, whole.

TensorFlow's converter keeps many copies of all weights at a time. So it sees one
network at a time, and the cascade with a stand-in for each: see `splice`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import graph
from deeppose_tf.export.tflite import constants, flatbuffer, half, quantise, splice

KINDS = ("float32", "float16", "dynamic_range", "int8")


def convert(
    cascade: Cascade,
    kind: str = "float32",
    size: tuple[int, int] | None = None,
    people: Iterable[tuple[np.ndarray, np.ndarray]] = (),
) -> bytes:
    """Converts a cascade, for one person at a time.

    Its signature `serving_default` has the names of the SavedModel's: `images`
    [1, H, W, 3] uint8 and `boxes` [1, 4] float32; `keypoints`, `keypoints_by_stage`,
    `scores` and `valid`, see `Cascade.predict`.

    Args:
      cascade: any.
      kind: how numbers are stored: `float32`; `float16`: large weights, see `half`;
        `dynamic_range`: weights as int8; `int8`: activations of networks too, see
        `quantise`.
      size: H and W of all images, for a graph without loops, branches and gathers
        that delegates take whole. None leaves them free, and loops over the stages.
      people: for `int8`, whose activations are looked at; see `quantise.quantised`.

    Raises:
      ValueError: the kind is unknown, there are no people for `int8`, or a network or
        the file would be larger than such files can be.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    _require_small(cascade)
    cascade = constants.frozen(cascade)
    if kind == "int8":
        cascade = quantise.quantised(cascade, people)
    networks = [stage.model for stage in cascade.stages]
    stand_ins = constants.with_networks(cascade, map(constants.stand_in, networks))
    # Of a single stage nothing comes later.
    first = half.SMALLEST_OF_FIRST if networks[1:] else half.SMALLEST
    contents = {
        network.name: _network(network, kind, half.SMALLEST if number else first)
        for number, network in enumerate(networks)
    }
    whole = _converted(_function(stand_ins, size), custom=True)
    return splice.filled(whole, contents)


def _require_small(cascade):
    for number, stage in enumerate(cascade.stages, start=1):
        size = 4 * stage.model.count_params()
        if size > flatbuffer.LARGEST:
            raise ValueError(
                f"stage {number} has {size / 1e9:.1f} GB of weights, and TensorFlow "
                f"converts networks of up to {flatbuffer.LARGEST / 1e9:.1f}"
            )


def _network(network, kind, smallest=half.SMALLEST):
    """The file of a network alone."""
    spec = tf.TensorSpec(network.crops, tf.float32, "crops")
    function = tf.function(
        lambda crops: network(crops), input_signature=[spec], autograph=False
    ).get_concrete_function()
    content = _converted(function, small=kind in ("dynamic_range", "int8"))
    return half.halved(content, smallest) if kind == "float16" else content


def _converted(function, small=False, custom=False):
    constants.forget()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    converter.allow_custom_ops = custom
    if small:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    return converter.convert()


def _function(cascade, size):
    height, width = size or (None, None)

    def pose(images, boxes):
        if size is None:
            answer = graph.person(cascade, images[0], boxes[0], choose=graph.by_conds)
        else:
            answer = graph.person_of_known_size(cascade, images[0], boxes[0])
        return {name: value[None] for name, value in answer.items()}

    return tf.function(
        pose,
        input_signature=[
            tf.TensorSpec([1, height, width, 3], tf.uint8, "images"),
            tf.TensorSpec([1, 4], tf.float32, "boxes"),
        ],
        autograph=False,
    ).get_concrete_function()
