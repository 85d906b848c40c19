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

import numpy as np
import tensorflow as tf

from deeppose_tf import networks
from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import graph
from deeppose_tf.export.tflite import lite

# Bytes that a file can have: offsets in it are signed numbers of 32 bits.
LARGEST = 2**31 - 1
SIGNATURE = "serving_default"
# float16: weights of fewer numbers stay float32. Of a first stage only the largest are
# halved: where it is wrong, later ones look elsewhere, and a tenth of a pixel may
# become two.
SMALLEST = 20_000
SMALLEST_OF_FIRST = 500_000
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
# int8: what stands between the weighted operations of networks.
BETWEEN = """
    ADD AVERAGE_POOL_2D CONCATENATION HARD_SWISH MAX_POOL_2D MEAN MUL PAD PADV2 RELU
    RESHAPE
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
      cascade: any.
      kind: how numbers are stored: `float32`; `float16`: large weights, see `SMALLEST`;
        `dynamic_range`: weights as int8; `int8`: activations of networks too, except
        those of the last layer of each, which answers places.
      size: H and W of all images, for a graph without branches and gathers that
        delegates take whole. None leaves them free.
      people: image [H, W, 3] uint8 and first box [4] of each, for `int8`: the ranges
        of activations are those seen when the cascade looks at them.

    Raises:
      ValueError: the kind is unknown, there are no people for `int8`, the file would be
        larger than such files can be, or ai-edge-quantizer is not there.
    """
    if kind not in lite.KINDS:
        raise ValueError(f"kind {kind!r} is none of {', '.join(lite.KINDS)}")
    _require_small(cascade)
    function = _function(cascade, size)
    module = tf.Module()
    module.weights = list(function.variables)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], module)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    with quietly():
        content = converter.convert()
    if kind == "float32":
        return content
    stages = [_layers(function.graph, i + 1) for i in range(cascade.count)]
    return _quantized(content, kind, stages, people)


def _require_small(cascade):
    size = 4 * sum(stage.model.count_params() for stage in cascade.stages)
    if size > LARGEST:
        raise ValueError(
            f"all weights are {size / 1e9:.1f} GB, and a TFLite file holds "
            f"{LARGEST / 1e9:.1f}: such a network is not for phones"
        )


def _function(cascade, size):
    height, width = size or (None, None)

    def pose(images, boxes):
        if size is None:
            answer = graph.person(cascade, images[0], boxes[0], loop=False)
        else:
            answer = graph.person_of_known_size(cascade, images[0], boxes[0])
        return {name: value[None] for name, value in answer.items()}

    with networks.delegable():
        return tf.function(
            pose,
            input_signature=[
                tf.TensorSpec([1, height, width, 3], tf.uint8, "images"),
                tf.TensorSpec([1, 4], tf.float32, "boxes"),
            ],
            autograph=False,
        ).get_concrete_function()


def _layers(traced, number):
    """The layers of a stage's network that have weights.

    Returns:
      (scope, size) of each in order: its name in the graph, with which those of its
      operations in the file begin, and how many numbers its weights are; and the
      scopes of the last of them and of all that comes after it.
    """
    prefix = f"{graph.STAGE}{number}/"
    inner = [one for one in traced.get_operations() if one.name.startswith(prefix)]
    weighted = [
        (place, one)
        for place, one in enumerate(inner)
        if one.type in ("Conv2D", "DepthwiseConv2dNative", "MatMul")
        # Not what crops are made by, nor the places that maps are multiplied by.
        and _scope(one.name) != prefix
        and one.inputs[1].op.type != "Const"
    ]
    last = weighted[-1][0]
    sizes = {
        _scope(one.name): one.inputs[1].shape.num_elements() for _, one in weighted
    }
    outer = {_scope(one.name) for one in inner[last:]} - {prefix}
    return list(sizes.items()), sorted(outer)


def _scope(name):
    return name.rpartition("/")[0] + "/"


def _quantized(content, kind, stages, people):
    """The file with the weighted layers of each stage, see `_layers`, rounded."""
    try:
        from ai_edge_quantizer import quantizer
    except ImportError as error:
        raise ValueError(
            f"kind {kind} needs ai-edge-quantizer: pip install 'deeppose_tf[tflite]', "
            "or take kind float32"
        ) from error
    seen = _examples(content, people) if kind == "int8" else None
    with quietly():
        rounding = quantizer.Quantizer(_with_unique_names(content))
        for number, (layers, outer) in enumerate(stages):
            if kind == "float16":
                first = number == 0 and len(stages) > 1
                _halve(rounding, layers, SMALLEST_OF_FIRST if first else SMALLEST)
            elif kind == "dynamic_range":
                for scope, _ in layers:
                    for name in WEIGHTED:
                        rounding.add_dynamic_config(re.escape(scope), name, 8)
            elif len(layers) > 1:
                _round(rounding, [scope for scope, _ in layers], outer)
        if not rounding.get_quantization_recipe():
            return content  # nothing is large enough
        if seen is not None:
            seen = rounding.calibrate({SIGNATURE: seen})
        return bytes(rounding.quantize(seen).quantized_model)


def _with_unique_names(content):
    """TensorFlow 2.15 names tensors of several branches alike, which the quantizer
    refuses. Signatures find theirs by number."""
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(content))
    names = set()
    for i, branch in enumerate(model.subgraphs):
        for k, tensor in enumerate(branch.tensors):
            if tensor.name in names:
                tensor.name = b"%s_%d_%d" % (tensor.name, i, k)
            names.add(tensor.name)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _halve(rounding, layers, smallest):
    """Weights of so many numbers as float16, expanded once, when the file is loaded."""
    from ai_edge_quantizer import qtyping

    halved = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=16, dtype=qtyping.TensorDataType.FLOAT
        ),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    for scope, size in layers:
        if size >= smallest:
            for name in WEIGHTED:
                rounding.update_quantization_recipe(
                    re.escape(scope), name, halved, "float_casting"
                )


def _round(rounding, scopes, outer):
    """Weights and activations of a network before its last weighted layer."""
    network = re.escape(os.path.commonpath(scopes) + "/")
    after = "|".join(map(re.escape, outer))
    for name in (*WEIGHTED, *BETWEEN):
        rounding.add_static_config(f"^(?!.*({after})).*{network}", name, 8, 8)


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
