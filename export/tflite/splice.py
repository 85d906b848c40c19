"""Networks of TFLite files in the place of the operations that stand in for them."""

from __future__ import annotations

from typing import Any

from deeppose_tf.export.tflite import flatbuffer


def filled(content: bytes, networks: dict[str, bytes]) -> bytes:
    """Puts networks where custom operations have their names.

    Args:
      content: of a file with these operations, of one input and one output.
      networks: by name, files of one subgraph with one input and one output.

    Raises:
      ValueError: a network has more than that, an operation has no network, or the
        file would be too large.
    """
    model = flatbuffer.read(content)
    for graph in model.subgraphs:
        operators, graph.operators = graph.operators, []
        for operator in operators:
            name = flatbuffer.operator_name(model, operator)
            if name.startswith("CUSTOM "):
                _fill(model, graph, operator, networks, name.removeprefix("CUSTOM "))
            else:
                graph.operators.append(operator)
    _forget_custom(model)
    return flatbuffer.write(model)


def _fill(model, graph, operator, networks, name):
    """Adds the operations of a network to a subgraph, and what they need."""
    if name not in networks:
        raise ValueError(f"operation {name} is not one of TFLite")
    network = flatbuffer.read(networks[name])
    if len(network.subgraphs) > 1:
        raise ValueError(f"{name} has loops or branches, which cannot be converted")
    inner = network.subgraphs[0]
    # Where tensors, buffers and codes of the network are in the model.
    tensors = dict(zip(inner.inputs, operator.inputs, strict=True))
    tensors |= dict(zip(inner.outputs, operator.outputs, strict=True))
    buffers = {0: 0}  # the one of what is computed
    codes = [_code(model, code) for code in network.operatorCodes]
    for index, tensor in enumerate(inner.tensors):
        if index in tensors:
            continue
        if tensor.buffer not in buffers:
            buffers[tensor.buffer] = len(model.buffers)
            model.buffers.append(network.buffers[tensor.buffer])
        tensor.buffer = buffers[tensor.buffer]
        tensors[index] = len(graph.tensors)
        graph.tensors.append(tensor)
    for one in inner.operators:
        one.opcodeIndex = codes[one.opcodeIndex]
        one.inputs = [tensors.get(i, i) for i in one.inputs]  # -1: left out
        one.outputs = [tensors[i] for i in one.outputs]
        graph.operators.append(one)


def _code(model: Any, code: Any) -> int:
    """Where the model has this kind of operation; adds it if need be."""
    for index, own in enumerate(model.operatorCodes):
        if vars(own) == vars(code):
            return index
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _forget_custom(model):
    """Leaves out the kinds of operations that stood in."""
    kept = [i for i, code in enumerate(model.operatorCodes) if not code.customCode]
    places = {before: after for after, before in enumerate(kept)}
    model.operatorCodes = [model.operatorCodes[i] for i in kept]
    for graph in model.subgraphs:
        for operator in graph.operators:
            operator.opcodeIndex = places[operator.opcodeIndex]
