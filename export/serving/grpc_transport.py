"""TensorFlow Serving's gRPC interface; needs what the extra `serving` installs."""

from __future__ import annotations

import math
import urllib.parse
from collections.abc import Mapping, Sequence

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import json_format, message
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from deeppose_tf.export.serving.client import (
    MOST_BYTES,
    SIGNATURE,
    Busy,
    NotFound,
    Refused,
    ServerError,
    words,
)

OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MOST_BYTES),
    # The client pauses by itself; a channel that waits for longer would foil it.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
KINDS = {
    grpc.StatusCode.UNAVAILABLE: Busy,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Busy,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.INVALID_ARGUMENT: Refused,
}


class Grpc:
    """One model of a server, as `client.Rest`."""

    def __init__(
        self, server: str, model_name: str, timeout: float, headers: Mapping[str, str]
    ):
        self._server, self._name, self._timeout = server, model_name, timeout
        self._headers = [(name.lower(), value) for name, value in headers.items()]
        scheme, address = urllib.parse.urlsplit(server)[:2]
        if scheme == "grpcs":
            credentials = grpc.ssl_channel_credentials()
            channel = grpc.secure_channel(address, credentials, OPTIONS)
        else:
            channel = grpc.insecure_channel(address, OPTIONS)
        self._service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(channel)

    def signatures(self) -> dict[str, dict]:
        """What the server says of every signature."""
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec={"name": self._name}, metadata_field=["signature_def"]
        )
        answer = self._call(self._service.GetModelMetadata, request)
        found = get_model_metadata_pb2.SignatureDefMap()
        try:
            answer.metadata["signature_def"].Unpack(found)
        except message.DecodeError as error:
            raise ServerError(f"{self._server}: its metadata is damaged") from error
        return _as_rest(found).get("signature_def", {})

    def versions(self) -> list[dict]:
        """What it says of each version of the model."""
        request = get_model_status_pb2.GetModelStatusRequest(
            model_spec={"name": self._name}
        )
        answer = self._call(self._models.GetModelStatus, request)
        return _as_rest(answer)["model_version_status"]

    def predict(self, image_bytes: Sequence[bytes], boxes: np.ndarray) -> dict:
        """Poses of [B] people in images with boxes [B, 4], as NumPy."""
        images = tf.make_tensor_proto(list(image_bytes), tf.string, [len(image_bytes)])
        request = predict_pb2.PredictRequest(
            model_spec={"name": self._name, "signature_name": SIGNATURE},
            inputs={"image_bytes": images, "boxes": tf.make_tensor_proto(boxes)},
        )
        answer = self._call(self._service.Predict, request)
        return {name: _array(tensor) for name, tensor in answer.outputs.items()}

    def _call(self, method, request):
        try:
            return method(request, timeout=self._timeout, metadata=self._headers)
        except grpc.RpcError as error:
            size = f" (a request of {request.ByteSize() / 1e6:.1f} MB)"
            raise self._error(error.code(), error.details() or "", size) from error

    def _error(self, code, details, size):
        said = f"{self._server}: {code.name}: {words(details)}"
        if code == grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerError(f"{self._server}: no answer in {self._timeout:g} s")
        if "CLIENT: Received message larger than max" in details:
            return ServerError(f"{self._server}: an answer of over {MOST_BYTES} bytes")
        if "larger than max" in details:  # RESOURCE_EXHAUSTED, but not for a while
            return Refused(said + size)
        return KINDS.get(code, ServerError)(said)


def _as_rest(answer):
    return json_format.MessageToDict(answer, preserving_proto_field_name=True)


def _array(tensor):
    """`tf.make_ndarray`, which repeats one number as often as a shape asks for.

    Raises:
      TypeError, ValueError: it is damaged, or larger than any pose.
    """
    if math.prod(one.size for one in tensor.tensor_shape.dim) > MOST_BYTES:
        raise ValueError(f"an output of over {MOST_BYTES} numbers")
    return tf.make_ndarray(tensor)
