"""The gRPC half of `serving_peer`; needs tensorflow-serving-api."""

import concurrent.futures
import contextlib

import grpc
import tensorflow as tf
from serving_peer import Error
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)


def start(peer, most_bytes):
    """Starts a server of tensorflow_serving/apis, and tells the peer its address."""

    class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            with _codes(context):
                fault = peer.fault()
                peer.find(request.model_spec.name)
                inputs = {k: tf.make_ndarray(it) for k, it in request.inputs.items()}
                headers = dict(context.invocation_metadata())
                signature = request.model_spec.signature_name or "serving_default"
                answer = peer.predict(signature, inputs, headers, fault)
                response = predict_pb2.PredictResponse()
                for key, value in answer.items():
                    response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
                return response

        def GetModelMetadata(self, request, context):
            with _codes(context):
                peer.fault()
                peer.find(request.model_spec.name)
                found = get_model_metadata_pb2.SignatureDefMap()
                for key, one in peer.model.signatures.items():
                    found.signature_def[key].CopyFrom(one)
                response = get_model_metadata_pb2.GetModelMetadataResponse()
                response.metadata["signature_def"].Pack(found)
                return response

    class Models(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):
            with _codes(context):
                response = get_model_status_pb2.GetModelStatusResponse()
                for version, state in peer.status(request.model_spec.name).items():
                    response.model_version_status.add(version=version, state=state)
                return response

    workers = concurrent.futures.ThreadPoolExecutor(4)
    options = [("grpc.max_receive_message_length", most_bytes or -1)]
    server = grpc.server(workers, options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Prediction(), server
    )
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
    peer.grpc = f"grpc://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    return server


@contextlib.contextmanager
def _codes(context):
    try:
        yield
    except Error as error:
        code, words = error.args
        context.abort(grpc.StatusCode[code], words)
