"""A cascade -> the bytes of one TFLite file of built-in operations, whole."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from deeppose_tf.cascade import Cascade
from deeppose_tf.export import constants, graph, half, quantise

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
      kind: how numbers are stored: `float32`; `float16`: large weights of the later
        stages, see `half`; `dynamic_range`: weights as int8; `int8`: activations of
        networks too, see `quantise`.
      size: H and W of all images, for a graph without loops, branches and gathers
        that delegates take whole. None leaves them free, and loops over the stages.
      people: for `int8`, whose activations are looked at; see `quantise.quantised`.

    Raises:
      ValueError: the kind is unknown, or there are no people for `int8`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    cascade = constants.frozen(cascade)
    if kind == "int8":
        cascade = quantise.quantised(cascade, people)
    function = _function(cascade, size).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], tf.Module())
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if kind in ("dynamic_range", "int8"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    content = converter.convert()
    if kind != "float16":
        return content
    # Where the first stage is wrong, later ones look elsewhere: a tenth of a pixel may
    # become two. Of a single stage nothing comes later.
    kept = f"{constants.STAGE}1/" if cascade.count > 1 else None
    return half.halved(content, kept)


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
    )
