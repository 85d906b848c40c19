"""Which operations of a TFLite file the XNNPACK and the GPU delegate take.

From their documentation and source at version 2.3 of LiteRT: XNNPACK from
tflite/delegates/xnnpack/README.md and xnnpack_delegate.cc, of its float32 and int8
operators; the GPU delegate from tflite/tools/versioning/gpu_compatibility.cc, where
`model_builder.cc` asks. A test compares the first with what XNNPACK takes here.
Operations that are taken are not computed faster by being alone between others that are
not: every change between delegate and interpreter copies.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from deeppose_tf.export.tflite import flatbuffer

XNNPACK = frozenset(
    """
    ABS ADD AVERAGE_POOL_2D BATCH_MATMUL CEIL CONCATENATION CONV_2D COS
    DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV ELU EXP EXPAND_DIMS FLOOR
    FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC MAXIMUM MAX_POOL_2D MEAN
    MINIMUM MUL NEG PAD PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1
    RESHAPE RESIZE_BILINEAR ROUND RSQRT SIN SLICE SOFTMAX SPACE_TO_DEPTH SPLIT SQRT
    SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TANH TRANSPOSE TRANSPOSE_CONV
    """.split()
)
GPU = frozenset(
    """
    ABS ADD ADD_N AVERAGE_POOL_2D BATCH_MATMUL CAST CEIL CONCATENATION CONV_2D COS
    CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV ELU EQUAL EXP FLOOR
    FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GELU GREATER GREATER_EQUAL HARD_SWISH
    LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LSTM
    MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD
    PADV2 POW PRELU QUANTIZE REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD
    RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR
    REVERSE_V2 ROUND RSQRT SELECT SELECT_V2 SIGN SIN SLICE SOFTMAX SPACE_TO_DEPTH
    SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE STRIDED_SLICE SUB SUM TANH TILE
    TOPK_V2 TRANSPOSE TRANSPOSE_CONV
    """.split()
)


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of a file.

    Attributes:
      name: such as `CONV_2D`; custom ones, Flex among them, `CUSTOM` or `CUSTOM ...`.
      inputs: (type, shape) of those that are no constants; -1 for unknown sides.
      outputs: as the inputs.
      options: of the schema, such as masks of slices; may be None.
      strides: of slices; empty for others.
    """

    name: str
    inputs: tuple[tuple[str, tuple[int, ...]], ...]
    outputs: tuple[tuple[str, tuple[int, ...]], ...]
    options: object
    strides: tuple[int, ...]


def operations(content: bytes) -> list[Operation]:
    """All operations of a TFLite file, those of loops and branches included."""
    model = flatbuffer.read(content)
    return [
        _operation(model, graph, operator)
        for graph in model.subgraphs
        for operator in graph.operators
    ]


def table(content: bytes) -> list[dict]:
    """Per kind of operation, how many there are and how many each delegate takes."""
    rows = {}
    for one in operations(content):
        row = rows.setdefault(
            one.name, {"operation": one.name, "count": 0, "xnnpack": 0, "gpu": 0}
        )
        row["count"] += 1
        row["xnnpack"] += xnnpack_takes(one)
        row["gpu"] += gpu_takes(one)
    return sorted(rows.values(), key=lambda row: (-row["count"], row["operation"]))


def xnnpack_takes(one: Operation) -> bool:
    """Whether XNNPACK takes an operation: of nothing but float32 or int8."""
    tensors = one.inputs + one.outputs
    if one.name == "CONCATENATION" and len(one.inputs) > 4:
        return False
    return (
        one.name in XNNPACK
        and all(kind in ("float32", "int8") for kind, _ in tensors)
        and all(stride == 1 for stride in one.strides)
        and not _masked(one)
    )


def gpu_takes(one: Operation) -> bool:
    """Whether the GPU delegate takes an operation: at most four known dimensions."""
    tensors = one.inputs + one.outputs
    known = all(len(shape) <= 4 and -1 not in shape for _, shape in tensors)
    if one.name not in GPU or not known:
        return False
    if one.name == "CAST":
        (source, _), (target, _) = tensors
        floats, numbers = {"float32", "float16"}, {"float32", "int32"}
        return {source, target} <= numbers or (
            "bool" in (source, target) and bool({source, target} & floats)
        )
    if one.name == "GATHER":
        return len(one.inputs[-1][1]) == 1
    if one.name in ("SLICE", "STRIDED_SLICE"):
        return len(one.inputs[0][1]) in (3, 4) and not _masked(one)
    return all(kind != "uint8" for kind, _ in tensors)


def _masked(one):
    """Whether a slice makes or drops dimensions."""
    masks = ("ellipsisMask", "newAxisMask", "shrinkAxisMask")
    return any(getattr(one.options, mask, 0) for mask in masks)


def _operation(model, graph, operator):
    name = flatbuffer.operator_name(model, operator)
    inputs = [graph.tensors[i] for i in operator.inputs if i >= 0]
    strides = ()
    if name == "STRIDED_SLICE" and flatbuffer.is_constant(model, inputs[3]):
        strides = flatbuffer.constant(model, inputs[3], np.int32)
    return Operation(
        name,
        tuple(_spec(t) for t in inputs if not flatbuffer.is_constant(model, t)),
        tuple(_spec(graph.tensors[i]) for i in operator.outputs),
        operator.builtinOptions,
        tuple(map(int, strides)),
    )


def _spec(tensor):
    shape = tensor.shape if tensor.shapeSignature is None else tensor.shapeSignature
    sides = () if shape is None else tuple(map(int, shape))
    return flatbuffer.TYPES[tensor.type], sides
