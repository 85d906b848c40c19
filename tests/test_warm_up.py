"""Warm-up requests against bytes worked out by hand, and TensorFlow Serving's own."""

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf.export.saved_model import export


def test_by_hand():
    """Each field is its number times eight plus two, the length, and the content."""
    tensor = tf.make_tensor_proto(np.float32([[1, 2]])).SerializeToString()
    assert len(tensor) < 100
    entry = b"\x0a\x01x" + b"\x12" + bytes([len(tensor)]) + tensor
    spec = b"\x0a\x06" + b"\x1a\x04jpeg"  # model_spec { signature_name: "jpeg" }
    request = spec + b"\x12" + bytes([len(entry)]) + entry  # and inputs
    log = b"\x0a" + bytes([len(request)]) + request  # PredictLog { request }
    expected = b"\x32" + bytes([len(log)]) + log  # PredictionLog { predict_log }
    assert export.prediction_log("jpeg", {"x": np.float32([[1, 2]])}) == expected


def test_as_tensorflow_serving_reads_it():
    """Longer than one byte of length, with both kinds of input."""
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    inputs = {
        "images": np.arange(3000, dtype=np.uint8).reshape(1, 20, 50, 3),
        "image_bytes": np.array([b"\xff\x00" * 40_000], object),
    }
    log = logs.PredictionLog.FromString(export.prediction_log("both", inputs))
    request = log.predict_log.request
    assert request.model_spec.signature_name == "both"
    assert set(request.inputs) == set(inputs)
    for name, value in inputs.items():
        np.testing.assert_array_equal(tf.make_ndarray(request.inputs[name]), value)
    # Nothing that it does not know.
    assert log.SerializeToString(deterministic=True)
    assert len(log.SerializeToString()) == len(export.prediction_log("both", inputs))


def test_damage_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(export.tf.data, "TFRecordDataset", lambda path: empty)
    empty = tf.data.Dataset.from_tensor_slices(np.array([b"something else"]))
    with pytest.raises(ValueError, match="was not written as it should be"):
        export.write_warm_up(tmp_path, {"jpeg": {"boxes": np.zeros([1, 4])}})
