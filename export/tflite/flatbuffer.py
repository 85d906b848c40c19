"""TFLite files as objects of their schema, and back."""

from __future__ import annotations

from typing import Any

import flatbuffers
import numpy as np

try:
    from ai_edge_litert import schema_py_generated as schema
except ImportError:
    from tensorflow.lite.python import schema_py_generated as schema


# Bytes that a file can have: offsets in it are signed numbers of 32 bits.
LARGEST = 2**31 - 1
# Of these, for what is no weight.
ROOM = 1 << 20


def read(content: bytes) -> Any:
    """The `ModelT` of a file's bytes."""
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))


def write(model: Any) -> bytes:
    """The bytes of a file of a `ModelT`.

    Raises:
      ValueError: they would be more than a file can have.
    """
    weights = (one.data for one in model.buffers if one.data is not None)
    size = sum(map(len, weights)) + ROOM
    if size > LARGEST:
        raise ValueError(
            f"all weights are {size / 1e9:.1f} GB as they are stored, and a TFLite "
            f"file holds {LARGEST / 1e9:.1f}: another kind may be smaller"
        )
    # Room for all of it: a builder that has to grow copies.
    builder = flatbuffers.Builder(size)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def is_constant(model: Any, tensor: Any) -> bool:
    """Whether a tensor's numbers are in the file; others are computed."""
    return model.buffers[tensor.buffer].data is not None


def constant(model: Any, tensor: Any, kind: type = np.float32) -> np.ndarray:
    """The numbers of a tensor that are in the file, flat."""
    return np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(kind)


def operator_name(model: Any, operator: Any) -> str:
    """Such as `CONV_2D`; operations that are not built in are `CUSTOM ...`."""
    code = model.operatorCodes[operator.opcodeIndex]
    if code.customCode:
        return f"CUSTOM {code.customCode.decode()}"
    # Files older than the 128th operation know the second field alone.
    return OPERATORS[max(code.builtinCode, code.deprecatedBuiltinCode)]


def _names(enumeration):
    return {v: name for name, v in vars(enumeration).items() if isinstance(v, int)}


OPERATORS = _names(schema.BuiltinOperator)
TYPES = {value: name.lower() for value, name in _names(schema.TensorType).items()}
