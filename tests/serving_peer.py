"""A small server that speaks TensorFlow Serving's protocols over a SavedModel.

It answers Predict, metadata and status as the ModelServer's documents and sources say,
over REST and, where tensorflow-serving-api is installed, gRPC. It runs signatures as
the ModelServer does, by a session over the names of tensors. Faults are handed to it
one for each request to come, to see what a client makes of them.
"""

import base64
import collections
import contextlib
import dataclasses
import http.server
import importlib.util
import json
import re
import threading

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

NAME = "deeppose"
CODES = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "RESOURCE_EXHAUSTED": 429}
CODES |= {"INTERNAL": 500, "UNAVAILABLE": 503, "PERMISSION_DENIED": 403}


class Error(Exception):
    """A status of TensorFlow: the name of its code, and words."""


@dataclasses.dataclass
class Peer:
    """A server that is running.

    Attributes:
      rest, grpc: its addresses; grpc is None where it is not installed.
      faults: what to do to the requests to come: the name of a code in `CODES`, `hang`,
        or a function that spoils the answer {name: array}, or bytes that replace the
        body of REST's 200, cut to the half with `truncated`; with `drip` it, or with
        `drip headers` what is before it, comes byte by byte and never ends.
      seen: of each request for poses, the image bytes, boxes and headers.
      states: of each version; the model answers while one of them is AVAILABLE.
    """

    model: "Model"
    states: dict = dataclasses.field(default_factory=lambda: {1: "AVAILABLE"})
    faults: collections.deque = dataclasses.field(default_factory=collections.deque)
    seen: list = dataclasses.field(default_factory=list)
    stopped: threading.Event = dataclasses.field(default_factory=threading.Event)
    rest: str = ""
    grpc: str | None = None

    def find(self, name):
        if name != NAME or "AVAILABLE" not in self.states.values():
            raise Error("NOT_FOUND", f"Servable not found for request: Latest({name})")

    def status(self, name):
        if name != NAME:
            raise Error("NOT_FOUND", f"Could not find any versions of model {name}")
        return self.states

    def fault(self):
        """Takes the next fault, and does those that are the same on both protocols."""
        fault = self.faults.popleft() if self.faults else None
        if fault == "hang":
            self.stopped.wait(20)
        if fault in CODES:
            raise Error(fault, f"a fault of the test: {fault}")
        return fault

    def predict(self, signature, inputs, headers, fault):
        """{name: array} of a signature's inputs; a function as fault spoils it."""
        if signature not in self.model.signatures:
            raise Error("INVALID_ARGUMENT", f"Serving signature key {signature!r}?")
        self.seen.append((inputs["image_bytes"], inputs["boxes"], headers))
        answer = self.model.run(signature, inputs)
        return fault(answer) if callable(fault) else answer


class Model:
    """A SavedModel in a session, and its signatures."""

    def __init__(self, folder):
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph)
        with graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self._session, ["serve"], folder)
        self.signatures = dict(loaded.signature_def)

    def run(self, name, inputs):
        signature = self.signatures[name]
        if set(inputs) != set(signature.inputs):
            raise Error("INVALID_ARGUMENT", f"expected {list(signature.inputs)}")
        try:
            return self._session.run(
                {key: info.name for key, info in signature.outputs.items()},
                {signature.inputs[key].name: it for key, it in inputs.items()},
            )
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            raise Error("INVALID_ARGUMENT", str(error)) from error


@contextlib.contextmanager
def serving(folder, most_bytes=None):
    """A `Peer` that serves a SavedModel's folder; requests may be limited in size."""
    peer = Peer(Model(str(folder)))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Rest)
    server.peer, server.most_bytes = peer, most_bytes
    peer.rest = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    other = None
    if importlib.util.find_spec("tensorflow_serving"):
        import serving_peer_grpc  # which imports this module

        other = serving_peer_grpc.start(peer, most_bytes)
    try:
        yield peer
    finally:
        peer.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()
        if other:
            other.stop(None).wait()


class Rest(http.server.BaseHTTPRequestHandler):
    """tensorflow_serving/g3doc/api_rest.md"""

    def do_GET(self):
        self._reply(self._get)

    def do_POST(self):
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(length)
        if self.server.most_bytes and length > self.server.most_bytes:
            self._send(413, b"<html>Request Entity Too Large</html>")
        else:
            self._reply(self._predict, body)

    def log_message(self, *arguments):
        pass

    def _reply(self, work, *arguments):
        try:
            status, body = 200, work(*arguments)
        except Error as error:
            code, words = error.args
            status, body = CODES[code], json.dumps({"error": words}).encode()
        with contextlib.suppress(ConnectionError):  # a client that has left
            if body == "truncated":
                self._send(200, b'{"predictions": [{"keypoi', length=1000)
            elif body in ("drip", "drip headers"):
                if body == "drip":
                    self._send(200, b"", length=1000)
                else:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\nServer: ")
                while not self.server.peer.stopped.wait(0.02):
                    self.wfile.write(b" ")
            else:
                self._send(status, body)

    def _send(self, status, body, length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _get(self):
        name, what = re.fullmatch("/v1/models/([^/:]+)(/metadata)?", self.path).groups()
        peer = self.server.peer
        fault = peer.fault()
        if isinstance(fault, bytes):
            return fault
        if not what:
            versions = [
                {"version": str(version), "state": state, "status": {}}
                for version, state in peer.status(name).items()
            ]
            return json.dumps({"model_version_status": versions}).encode()
        peer.find(name)
        found = {
            key: json_format.MessageToDict(one, preserving_proto_field_name=True)
            for key, one in peer.model.signatures.items()
        }
        metadata = {"signature_def": {"signature_def": found}}
        return json.dumps({"model_spec": {}, "metadata": metadata}).encode()

    def _predict(self, body):
        name = re.fullmatch("/v1/models/([^/:]+):predict", self.path).group(1)
        peer = self.server.peer
        fault = peer.fault()
        if fault in ("truncated", "drip", "drip headers") or isinstance(fault, bytes):
            return fault
        peer.find(name)
        request = json.loads(body)
        rows = request["instances"]
        inputs = {key: _tensor(key, [row[key] for row in rows]) for key in rows[0]}
        signature = request.get("signature_name", "serving_default")
        answer = peer.predict(signature, inputs, dict(self.headers), fault)
        rows = [
            {key: value[i].tolist() for key, value in answer.items()}
            for i in range(len(rows))
        ]
        return json.dumps({"predictions": rows}).encode()


def _tensor(name, values):
    """A tensor of JSON values; binary ones come in {"b64": standard base64}."""
    if name != "image_bytes":
        return np.array(values, np.float32)
    try:
        found = [base64.b64decode(value["b64"], validate=True) for value in values]
    except ValueError as error:
        raise Error("INVALID_ARGUMENT", "Unable to base64 decode") from error
    return np.array(found, object)
