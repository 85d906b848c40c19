"""Weights of a TFLite file as float16, and nothing else.

The converter's own float16 halves geometry as well, where 0.04 % of a box are tenths of
a pixel and 1e6 becomes infinite, and small layers, in which rounding costs the most and
saves the least: the first ones see pixels, whose mean multiplies what was rounded off,
and the last ones answer places.
"""

from __future__ import annotations

import copy

import numpy as np

from deeppose_tf.export.tflite import flatbuffer
from deeppose_tf.export.tflite.flatbuffer import schema

# Weights of fewer numbers stay float32.
SMALLEST = 20_000
# Of a first stage: where it is wrong, later ones look elsewhere, and a tenth of a pixel
# may become two. Its largest weights, which answer last, cost the least of that.
SMALLEST_OF_FIRST = 500_000
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def halved(content: bytes, smallest: int = SMALLEST) -> bytes:
    """Stores the large weights of a float32 file as float16.

    Interpreters and delegates expand them once, when they load the file.

    Args:
      content: of the file.
      smallest: weights of fewer numbers stay as they are.
    """
    model = flatbuffer.read(content)
    code = len(model.operatorCodes)
    model.operatorCodes.append(_dequantize_code())
    replaced = set()
    for graph in model.subgraphs:
        weights = [
            index
            for index in _weights(model, graph)
            if np.prod(graph.tensors[index].shape) >= smallest
        ]
        expanded = {index: _expand(graph, index) for index in weights}
        for operator in graph.operators:
            operator.inputs = [expanded.get(i, i) for i in operator.inputs]
        graph.operators[:0] = [_dequantize(code, *pair) for pair in expanded.items()]
        replaced |= {_halve(model, graph.tensors[index]) for index in weights}
    used = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    for index in replaced - used:
        model.buffers[index].data = None
    return flatbuffer.write(model)


def _weights(model, graph):
    """Indices of the tensors of a subgraph that are weights of float32."""
    found = []
    for operator in graph.operators:
        if flatbuffer.operator_name(model, operator) in WEIGHTED:
            tensor = graph.tensors[operator.inputs[1]]
            floats = tensor.type == schema.TensorType.FLOAT32
            if floats and flatbuffer.is_constant(model, tensor):
                found.append(int(operator.inputs[1]))
    return list(dict.fromkeys(found))


def _expand(graph, index):
    """Adds the float32 tensor that the weights become when the file is loaded."""
    tensor = copy.copy(graph.tensors[index])
    tensor.name, tensor.buffer = tensor.name + b"/float32", 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _halve(model, tensor):
    """Gives a tensor float16 values in a buffer of its own. Returns the index of the
    old one, which tensors of other subgraphs may share."""
    buffer = schema.BufferT()
    values = flatbuffer.constant(model, tensor).astype(np.float16)
    buffer.data = values.view(np.uint8)
    model.buffers.append(buffer)
    before, tensor.buffer = tensor.buffer, len(model.buffers) - 1
    tensor.type = schema.TensorType.FLOAT16
    return before


def _dequantize_code():
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 3  # the first that reads float16
    return code


def _dequantize(code, weights, expanded):
    operator = schema.OperatorT()
    operator.opcodeIndex = code
    operator.inputs, operator.outputs = [weights], [expanded]
    operator.builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    operator.builtinOptions = schema.DequantizeOptionsT()
    return operator
