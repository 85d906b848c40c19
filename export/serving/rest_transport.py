"""TensorFlow Serving's REST interface, by the standard library alone."""

from __future__ import annotations

import base64
import http.client
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence

import numpy as np

from deeppose_tf.export.serving.answers import (
    MOST_BYTES,
    SIGNATURE,
    Busy,
    NotThere,
    Refused,
    ServerError,
    Shapes,
    understood,
)


class Rest:
    """One model of a server. Every method is one request.

    Raises:
      ServerError, Busy, NotThere, Refused: from every method.
    """

    def __init__(
        self, server: str, model_name: str, timeout: float, headers: Mapping[str, str]
    ):
        self._server = server
        self._model = f"{server}/v1/models/{urllib.parse.quote(model_name, safe='')}"
        self._timeout = timeout
        self._headers = {"Content-Type": "application/json", **headers}
        # Not the usual opener, which follows redirects: it would lose the images on
        # the way, and take the headers to whoever is named.
        self._opener = urllib.request.OpenerDirector()
        self._opener.add_handler(urllib.request.ProxyHandler())
        self._opener.add_handler(urllib.request.HTTPHandler())
        self._opener.add_handler(urllib.request.HTTPSHandler())

    def signatures(self) -> dict[str, Shapes]:
        """The outputs' shapes of every signature."""
        answer = self._call("/metadata")
        with understood(self._server):
            found = answer["metadata"]["signature_def"]["signature_def"]
            return {
                name: {k: _shape(it) for k, it in one.get("outputs", {}).items()}
                for name, one in found.items()
            }

    def states(self) -> list[str]:
        """What the server says of each version of the model."""
        answer = self._call("")
        with understood(self._server):
            return [
                f"version {one['version']} is {one['state']} "
                f"{one.get('status', {}).get('error_message', '')}".strip()
                for one in answer["model_version_status"]
            ]

    def predict(self, image_bytes: Sequence[bytes], boxes: np.ndarray) -> dict:
        """Poses of [B] people in images with boxes [B, 4], as lists."""
        instances = [
            {"image_bytes": {"b64": base64.b64encode(content).decode()}, "boxes": box}
            for content, box in zip(image_bytes, boxes.tolist(), strict=True)
        ]
        request = {"signature_name": SIGNATURE, "instances": instances}
        answer = self._call(":predict", json.dumps(request).encode())
        with understood(self._server):
            rows = answer["predictions"]
            return {name: [row[name] for row in rows] for name in rows[0]}

    def _call(self, ending, body=None):
        request = urllib.request.Request(self._model + ending, body, self._headers)
        latest = time.monotonic() + self._timeout
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                status, answer = response.status, _body(response, latest)
                length = response.headers.get("Content-Length", len(answer))
        except (OSError, http.client.HTTPException) as error:
            raise self._unreached(getattr(error, "reason", error), body) from error
        if status != 200:
            raise self._refusal(status, answer, body)
        if len(answer) > MOST_BYTES:
            raise ServerError(f"{self._server}: an answer of over {MOST_BYTES} bytes")
        with understood(self._server):
            if len(answer) < int(length):
                raise Busy(f"{self._server} broke off in the middle of its answer")
            return json.loads(answer)

    def _unreached(self, reason, body):
        if isinstance(reason, TimeoutError):
            return ServerError(f"{self._server}: no answer in {self._timeout:g} s")
        return Busy(f"{self._server}: {str(reason) or repr(reason)}{_of_size(body)}")

    def _refusal(self, status, answer, body):
        said = f"{self._server} answered {status}: {_words(answer)}"
        if status in (429, 503):
            return Busy(said)
        if status == 404:
            return NotThere(said)
        if status == 413:
            return Refused(f"{said}: too large for it, or a proxy{_of_size(body)}")
        return Refused(said) if status in (400, 422) else ServerError(said)


def _body(response, latest):
    """What is answered until that moment: a socket's own timeout is for each piece.

    Of what is longer than `MOST_BYTES`, a little more than that.
    """
    answer = bytearray()
    while len(answer) <= MOST_BYTES and (piece := response.read1(2**20)):
        answer += piece
        if time.monotonic() > latest:
            raise TimeoutError
    return bytes(answer)


def _shape(output):
    return tuple(int(one["size"]) for one in output["tensor_shape"].get("dim", []))


def _of_size(body):
    return f" (a request of {len(body) / 1e6:.1f} MB)" if body else ""


def _words(answer):
    """The beginning of an error: the server's repeats what it was asked."""
    try:
        answer = json.loads(answer)["error"]
    except (KeyError, RecursionError, TypeError, ValueError):
        answer = answer.decode("utf-8", "replace")
    return " ".join(str(answer).split())[:300]
