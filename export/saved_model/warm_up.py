"""Requests that TensorFlow Serving sends to a model before anyone else may.

They are `PredictionLog` messages of tensorflow-serving-api. Few of its fields are
needed, all of them are length-delimited, and so they are encoded here: an exporter
needs no further package, whose version would have to match TensorFlow's.
"""

from __future__ import annotations

import pathlib

import numpy as np
import tensorflow as tf

NAME = "assets.extra/tf_serving_warmup_requests"

# Numbers of fields in prediction_log.proto, predict.proto and model.proto.
_PREDICT_LOG = 6  # of PredictionLog
_REQUEST = 1  # of PredictLog
_MODEL_SPEC, _INPUTS = 1, 2  # of PredictRequest
_SIGNATURE_NAME = 3  # of ModelSpec
_KEY, _VALUE = 1, 2  # of an entry of a map


def write(folder: str, requests: dict[str, dict[str, np.ndarray]]) -> None:
    """Writes requests into a SavedModel's directory, and reads them back.

    Args:
      folder: of the SavedModel.
      requests: for each signature's name the inputs by name.

    Raises:
      ValueError: what is read back is not what was written.
    """
    path = pathlib.Path(folder) / NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    logs = [prediction_log(name, inputs) for name, inputs in requests.items()]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            writer.write(log)
    # A damaged file keeps a server from loading the model at all.
    if list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) != logs:
        raise ValueError(f"{path} was not written as it should be")


def prediction_log(signature: str, inputs: dict[str, np.ndarray]) -> bytes:
    """An encoded `PredictionLog` that holds one `PredictRequest`."""
    spec = _field(_SIGNATURE_NAME, signature.encode())
    request = _field(_MODEL_SPEC, spec)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        entry = _field(_KEY, name.encode()) + _field(_VALUE, tensor)
        request += _field(_INPUTS, entry)
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field of a protocol buffer."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
