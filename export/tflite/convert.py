"""A cascade -> the bytes of one TFLite file of built-in operations, whole.

The stages follow one another in its graph: each has a network of its own, so that a
loop would make the file no smaller, and delegates of phones take no loops. TensorFlow
converts; `ai-edge-quantizer` rounds networks, and nothing else: in geometry 0.04 % of a
box are tenths of a pixel.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeppose_tf import layers
from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import graph
from deeppose_tf.export.tflite import lite

SIGNATURE = "serving_default"
HALVED = "float_casting"  # as the quantizer calls it
# Weights of fewer numbers stay float32: in a first stage that others follow, and
# elsewhere. Where a first stage is wrong, later ones look elsewhere, and a tenth of a
# pixel may become two. What 1,024 numbers say, of which a network's first layer may
# have fewer, is worth more than the thousandth of a file that rounding them saves.
SMALLEST = {"float16": (500_000, 20_000), "dynamic_range": (1024, 1024)}
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# int8: what may stand between the layers with weights of a network.
BETWEEN = """
    ADD AVERAGE_POOL_2D CONCATENATION HARD_SWISH MAX_POOL_2D MEAN MUL PAD PADV2 RELU
    RESHAPE RESIZE_BILINEAR
""".split()


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
      kind: how numbers are stored: `float32`; `float16`: large weights, see `SMALLEST`;
        `dynamic_range`: weights as int8; `int8`: activations of networks too, except
        those of the last layer of each, which answers places.
      size: H and W of all images, for a graph without branches and gathers that
        delegates take whole. None leaves them free.
      people: image [H, W, 3] uint8 and first box [4] of each, for `int8`: the ranges
        of activations are those seen when the cascade looks at them.

    Raises:
      ValueError: the kind is unknown, there are no people for `int8`, or
        ai-edge-quantizer is not there.
    """
    if kind not in lite.KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(lite.KINDS)}")
    content, weighted = _converted(cascade, size)
    if kind == "float32":
        return content
    return _quantized(content, kind, weighted, people)


def _converted(cascade, size):
    """The file before anything is rounded, and the names of its networks' layers with
    weights."""
    function = _function(cascade, size)
    module = tf.Module()
    module.weights = list(function.variables)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    with quietly():
        return converter.convert(), _layers(function.graph)


def _function(cascade, size):
    height, width = size or (None, None)

    def pose(images, boxes):
        answer = graph.unrolled(cascade, tf.squeeze(images, 0), boxes[0])
        return {name: value[None] for name, value in answer.items()}

    with layers.delegable():
        return tf.function(
            pose,
            input_signature=[
                tf.TensorSpec([1, height, width, 3], tf.uint8, "images"),
                tf.TensorSpec([1, 4], tf.float32, "boxes"),
            ],
            autograph=False,
        ).get_concrete_function()


def _layers(traced):
    """The names that the graph has for its networks' layers with weights."""
    scopes = {
        one.name.rpartition("/")[0]
        for one in traced.get_operations()
        if one.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul")
        # Not the places that maps are multiplied by.
        and one.inputs[1].op.type != "Const"
    }
    # Nor what crops are made by, which is right below its stage.
    return [f"{scope}/" for scope in scopes if "/" in scope]


def _quantized(content, kind, weighted, people):
    """The file with its networks rounded, whose layers with weights are these."""
    lite.require_quantizer(kind)
    from ai_edge_quantizer import quantizer

    seen = _examples(content, people) if kind == "int8" else None
    with quietly():
        content, operations = _operations(content, weighted)
        rounding = quantizer.Quantizer(content)
        for one in _chosen(operations, kind):
            # Exactly this one: names hold those of others, merged or shared with it.
            place = f"^{re.escape(one.name)};$", one.kind
            if kind == "float16":  # expanded once, when the file is loaded
                rounding.add_weight_only_config(*place, 16, algorithm_key=HALVED)
            elif kind == "dynamic_range":
                rounding.add_dynamic_config(*place, 8)
            else:
                rounding.add_static_config(*place, 8, 8)
        if not rounding.get_quantization_recipe():
            return content  # nothing is large enough
        if seen is not None:
            seen = rounding.calibrate({SIGNATURE: seen})
        return bytes(rounding.quantize(seen).quantized_model)


class _Operation(NamedTuple):
    """An operation of a file."""

    kind: str
    name: str  # that the quantizer calls it by
    stage: int
    size: int  # how many numbers are in its weights; 0: it is no layer with weights
    reads: frozenset[int]  # tensors
    makes: frozenset[int]


def _operations(content, weighted):
    """The file with names of its own for each tensor, and its main operations.

    TensorFlow 2.15 names tensors of several branches alike, which the quantizer
    refuses. Signatures find theirs by number.
    """
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    names = set()
    for i, branch in enumerate(model.subgraphs):
        for k, tensor in enumerate(branch.tensors):
            if tensor.name in names:
                tensor.name = b"%s_%d_%d" % (tensor.name, i, k)
            names.add(tensor.name)
    tensors, found = model.subgraphs[0].tensors, []
    for one in model.subgraphs[0].operators:
        kind = flatbuffer_utils.opcode_to_name(model, one.opcodeIndex)
        name = ";".join(tensors[i].name.decode() for i in one.outputs)
        stage = re.match(rf"{graph.STAGE}(\d+)/", name)
        number, size = int(stage[1]) if stage else 0, 0
        if kind in WEIGHTED and any(layer in name for layer in weighted):
            size = int(np.prod(tensors[one.inputs[1]].shape))
        ends = frozenset(one.inputs), frozenset(one.outputs)
        found.append(_Operation(kind, name, number, size, *ends))
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model)), found


def _chosen(operations, kind):
    """What is rounded."""
    sized = [one for one in operations if one.size]
    if kind != "int8":
        several = any(one.stage > 1 for one in sized)
        first, other = SMALLEST[kind]
        return [
            one
            for one in sized
            if one.size >= (first if several and one.stage == 1 else other)
        ]
    found = set()
    for stage in {one.stage for one in sized}:
        # Between the first layer, where rounding costs most, and the last, which
        # answers places.
        own = {one for one in sized if one.stage == stage}
        inner = _reached(operations, own) & _reached(operations, own, backwards=True)
        found |= {one for one in inner if one in own or one.kind in BETWEEN}
    return [one for one in operations if one in found]


def _reached(operations, starts, backwards=False):
    """Those that read what some of these made, by way of others too; or the reverse."""
    live, found = set(), set()
    for one in reversed(operations) if backwards else operations:
        reads, makes = one.reads, one.makes
        if backwards:
            reads, makes = makes, reads
        if live & reads:
            found.add(one)
        if one in found or one in starts:
            live |= makes
    return found


def _examples(content, people):
    """What the signature is called with to see the ranges of activations."""
    size = lite.Lite(content, None).size
    found = []
    for image, box in people:
        if size is not None:
            image, box, _ = lite.fit(image, box, size)
        found.append({"images": image[None], "boxes": np.float32(box)[None]})
    if not found:
        raise ValueError("nobody to see the ranges of activations on: int8 needs data")
    return found


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps back what is printed within it, by C++ too; shows it where that fails."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    with tempfile.TemporaryFile() as kept, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = [(number, os.dup(number)) for number in (1, 2)]
        failed = True
        try:
            for number, _ in before:
                os.dup2(kept.fileno(), number)
            with (
                open(os.devnull, "w") as nowhere,
                contextlib.redirect_stdout(nowhere),
                contextlib.redirect_stderr(nowhere),
            ):
                yield
            failed = False
        finally:
            for number, copy in before:
                os.dup2(copy, number)
                os.close(copy)
            if failed:
                kept.seek(0)
                os.write(2, kept.read())
