"""A client of TensorFlow Serving: encoded images go there, poses come back.

    client = deeppose_tf.export.serving.Client("http://localhost:8501", "deeppose")
    poses = client.predict([pathlib.Path("photo.jpg").read_bytes()])

REST is here and needs the standard library alone; gRPC is in `grpc_transport`, and
needs what the extra `serving` installs.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import functools
import http.client
import json
import random
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from deeppose_tf import files

# Of `deeppose.json`, what an exported model says of itself.
FORMATS = (1,)
# The signature that takes encoded images.
SIGNATURE = "jpeg"
# A request holds no more people, for the server's batches have a limit, ...
ROWS_AT_ONCE = 8
# ... nor bytes of images, unless the first alone has more: proxies have limits, too.
BYTES_AT_ONCE = 16 * 2**20
# No honest answer is larger, nor has it more joints times stages.
MOST_BYTES, MOST_POINTS = 64 * 2**20, 10_000
# Nor coordinates beyond this: that is how a network that diverged answers.
FARTHEST = 1e9
# Seconds before the second attempt, doubled before every later one up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
# A day: what is far more is no time that a system can wait for.
LONGEST_TIMEOUT = 86_400


class ServerError(OSError):
    """The server cannot be reached, or does not answer as it should."""


class Refused(ValueError):
    """The server takes this request for a wrong one; another image may be fine."""


class Busy(ServerError):
    """It was not reached or had too much to do: the same request may do later."""


class NotFound(ServerError):
    """It has no such model, or has it not ready."""


# Errors by HTTP status; `ServerError` for all others.
STATUSES = {429: Busy, 503: Busy, 404: NotFound, 400: Refused, 422: Refused}


class Client:
    """A cascade that a server has loaded.

    Args:
      server: `http://`, `https://`, `grpc://` or `grpcs://`, host and port. Those with
        an s check the server's certificate.
      timeout: seconds to wait for one answer, whole.
      retries: how often a request is sent again, after pauses, where the server was not
        reached or said that it had too much to do (429 and 503; UNAVAILABLE and
        RESOURCE_EXHAUSTED). Nothing else is tried again.
      headers: sent along with every request, as for a proxy that asks who is there.

    Raises:
      ValueError: an argument is not of that form, or gRPC is not installed.
    """

    def __init__(
        self,
        server: str,
        model_name: str = "deeppose",
        timeout: float = 60.0,
        retries: int = 4,
        headers: Mapping[str, str] | None = None,
    ):
        if not 0 < timeout <= LONGEST_TIMEOUT:
            raise ValueError(
                f"timeout is {timeout}; expected seconds, at most {LONGEST_TIMEOUT}"
            )
        if retries < 0:
            raise ValueError(f"retries are {retries}; expected zero or more")
        self.server = server.rstrip("/")
        self._name, self._retries = model_name, retries
        transport = _transport(self.server)
        self._transport = transport(self.server, model_name, timeout, headers or {})

    @functools.cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the answers by name, the first size -1; the server is asked.

        Raises:
          ServerError: see `predict`; or the model does not answer poses.
        """
        return self._ask(
            lambda: _output_shapes(self.server, self._transport.signatures())
        )

    def predict(
        self, image_bytes: Sequence[bytes], boxes: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """The pose of one person in each of B images.

        Args:
          image_bytes: B JPEG or PNG files. The server looks at the pixels as they are
            stored, and turns nothing as EXIF says.
          boxes: [B, 4] person boxes, pixels of those images; all zeros, or None, for
            the whole image.

        Returns:
          As `Cascade.predict`: `keypoints` [B, K, 2] pixels, `keypoints_by_stage`
          [B, S, K, 2], `scores` [B, K], and `valid` [B], False for a person whose image
          or box the server cannot work on.

        Raises:
          ValueError: an argument has another form; nothing was sent.
          Refused: a ValueError: the server takes the request for a wrong one.
          ServerError: an OSError: the server cannot be reached, is too slow or still
            busy after all retries, does not have the model, or answers nonsense.
        """
        image_bytes, boxes = _checked(image_bytes, boxes)
        nobody = {
            name: np.zeros((0, *shape[1:]), _kind(name))
            for name, shape in self.shapes.items()
        }
        answers = [nobody] + [
            self._ask(self._answer, image_bytes[part], boxes[part])
            for part in portions([len(content) for content in image_bytes])
        ]
        return {name: np.concatenate([one[name] for one in answers]) for name in nobody}

    def _answer(self, image_bytes, boxes):
        answer = self._transport.predict(image_bytes, boxes)
        return {
            name: _array(name, answer.get(name), (len(boxes), *shape[1:]))
            for name, shape in self.shapes.items()
        }

    def _ask(self, request: Callable, *arguments):
        """The answer to a request that is tried again while the server is busy."""
        for attempt in range(self._retries + 1):
            try:
                return request(*arguments)
            except NotFound as error:
                raise ServerError(f"{error}. {self._versions()}") from error
            except Busy as error:
                if attempt == self._retries:
                    raise ServerError(
                        f"{error}. Tried {attempt + 1} times. Where nothing answers: "
                        "the usual ports are 8501 for http:// and 8500 for grpc://"
                    ) from error
            except (ServerError, Refused):
                raise
            except Exception as error:  # whatever taking nonsense apart raises
                raise ServerError(
                    f"{self.server}: the answer is not TensorFlow Serving's, or "
                    f"damaged ({words(repr(error))})"
                ) from error
            pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
            time.sleep(pause * random.uniform(0.5, 1))  # not all clients at once

    def _versions(self):
        found = []
        with contextlib.suppress(Exception):  # more would only cover the first error
            for one in self._transport.versions():
                why = one.get("status", {}).get("error_message", "")
                said = f"version {one['version']} is {one['state']} {why}"
                found.append(said.strip())
        found = words(", ".join(found)) or "no version"
        return f"Of the model {self._name!r} it has: {found}"


def portions(sizes: Sequence[int]) -> Iterator[slice]:
    """Slices of images of so many bytes, each of them for one request."""
    start = held = 0
    for i, size in enumerate(sizes):
        full = i - start == ROWS_AT_ONCE or held + size > BYTES_AT_ONCE
        if full and i > start:
            yield slice(start, i)
            start, held = i, 0
        held += size
    if sizes:
        yield slice(start, len(sizes))


class Rest:
    """One model of a server by its REST interface. Every method is one request.

    Raises:
      ServerError, Busy, NotFound, Refused: from every method.
    """

    def __init__(
        self, server: str, model_name: str, timeout: float, headers: Mapping[str, str]
    ):
        self._server, self._timeout = server, timeout
        self._model = f"{server}/v1/models/{urllib.parse.quote(model_name, safe='')}"
        self._headers = {"Content-Type": "application/json", **headers}
        # Not the usual opener, which follows redirects: it would lose the images on
        # the way, and take the headers to whoever is named.
        self._opener = urllib.request.OpenerDirector()
        self._opener.add_handler(urllib.request.ProxyHandler())
        self._opener.add_handler(urllib.request.HTTPHandler())
        self._opener.add_handler(urllib.request.HTTPSHandler())

    def signatures(self) -> dict[str, dict]:
        """What the server says of every signature."""
        return self._call("/metadata")["metadata"]["signature_def"]["signature_def"]

    def versions(self) -> list[dict]:
        """What it says of each version of the model."""
        return self._call("")["model_version_status"]

    def predict(self, image_bytes: Sequence[bytes], boxes: np.ndarray) -> dict:
        """Poses of [B] people in images with boxes [B, 4], as lists by output."""
        instances = [
            {"image_bytes": {"b64": base64.b64encode(content).decode()}, "boxes": box}
            for content, box in zip(image_bytes, boxes.tolist(), strict=True)
        ]
        request = {"signature_name": SIGNATURE, "instances": instances}
        rows = self._call(":predict", json.dumps(request).encode())["predictions"]
        return {name: [row[name] for row in rows] for name in rows[0]}

    def _call(self, ending, body=None):
        request = urllib.request.Request(self._model + ending, body, self._headers)
        size = f" (a request of {len(body) / 1e6:.1f} MB)" if body else ""
        try:
            response, answer = _within(self._timeout, self._exchange, request)
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            if isinstance(reason, TimeoutError):
                late = f"{self._server}: no answer in {self._timeout:g} s"
                raise ServerError(late) from error
            raise Busy(
                f"{self._server}: {words(str(reason) or repr(reason))}{size}"
            ) from error
        if response.status != 200:
            raise _refusal(self._server, response.status, answer, size)
        if len(answer) > MOST_BYTES:
            raise ServerError(f"{self._server}: an answer of over {MOST_BYTES} bytes")
        if len(answer) < int(response.headers.get("Content-Length", 0)):
            raise Busy(f"{self._server} broke off in the middle of its answer")
        return json.loads(answer)

    def _exchange(self, request):
        """The response and its body, or a little more of it than `MOST_BYTES`."""
        latest = time.monotonic() + self._timeout
        answer = bytearray()
        with self._opener.open(request, timeout=self._timeout) as response:
            while len(answer) <= MOST_BYTES and (piece := response.read1(2**20)):
                answer += piece
                if time.monotonic() > latest:
                    break  # nobody waits for it any more
        return response, bytes(answer)


def _within(seconds, work, *arguments):
    """What `work` returns, or TimeoutError: the timeout of a socket is of each piece,
    and looking up a name has none. What is late is left to end by itself."""
    future = concurrent.futures.Future()

    def run():
        try:
            future.set_result(work(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(seconds)
    except concurrent.futures.TimeoutError as error:  # another class before 3.11
        raise TimeoutError from error


def words(text: str) -> str:
    """The beginning of what a server says, for an error's line: it repeats what it was
    asked, and may say whatever it likes."""
    return files.escaped(" ".join(text.split())[:300])


def _refusal(server, status, answer, size):
    """The error of a status other than 200."""
    try:
        reason = str(json.loads(answer)["error"])
    except Exception:  # of a proxy, for one
        reason = answer.decode("utf-8", "replace")
    said = f"{server} answered {status}: {words(reason)}"
    if status == 413:
        return Refused(f"{said}: too large for it, or a proxy{size}")
    return STATUSES.get(status, ServerError)(said)


def _transport(server):
    """The class that speaks the server's protocol."""
    address = urllib.parse.urlsplit(server)
    port = address.port  # ValueError where it is no number
    if "@" in address.netloc or address.query or address.fragment:
        raise ValueError("server: more than host and port belongs into headers")
    if address.hostname and address.scheme in ("http", "https"):
        return Rest
    if not address.hostname or address.scheme not in ("grpc", "grpcs"):
        raise ValueError(
            f"server {server!r}: expected one such as http://localhost:8501 or "
            "grpc://localhost:8500"
        )
    if not port or address.path:
        raise ValueError(f"server {server!r}: gRPC needs host and port, nothing else")
    try:
        from deeppose_tf.export.serving.grpc_transport import Grpc
    except ImportError as error:
        raise ValueError(
            f"{server} needs gRPC: pip install 'deeppose-tf[serving]', or take the "
            f"server's http:// port ({error})"
        ) from error
    return Grpc


def _checked(image_bytes, boxes):
    image_bytes = list(image_bytes)
    count = len(image_bytes)
    if not all(isinstance(content, bytes) for content in image_bytes):
        raise ValueError("image_bytes are not a list of files' contents as bytes")
    boxes = np.asarray(np.zeros([count, 4]) if boxes is None else boxes, np.float32)
    if boxes.shape != (count, 4):
        raise ValueError(f"boxes are {boxes.shape}, expected [{count}, 4]")
    if not np.isfinite(boxes).all():
        raise ValueError("boxes have numbers that are not finite")
    return image_bytes, boxes


def _output_shapes(server, signatures) -> dict[str, tuple[int, ...]]:
    """The shapes of the outputs of `SIGNATURE`, of which only the first size is -1.

    Raises:
      ServerError: the model has no such signature, or it is no pose's.
    """
    if SIGNATURE not in signatures:
        raise ServerError(
            f"{server}: the model has no signature {SIGNATURE!r} but "
            f"{words(str(list(signatures)))}. Serve one that deeppose-export wrote"
        )
    shapes = {
        name: tuple(int(one["size"]) for one in output["tensor_shape"].get("dim", []))
        for name, output in signatures[SIGNATURE]["outputs"].items()
    }
    stages, joints = (*shapes.get("keypoints_by_stage", ())[1:3], -1, -1)[:2]
    expected = {
        "keypoints": (-1, joints, 2),
        "keypoints_by_stage": (-1, stages, joints, 2),
        "scores": (-1, joints),
        "valid": (-1,),
    }
    sound = min(joints, stages) > 0 and joints * stages <= MOST_POINTS
    if not sound or not expected.items() <= shapes.items():
        raise ServerError(
            f"{server}: {SIGNATURE!r} answers {words(str(shapes))}, which is no pose"
        )
    return expected


def _kind(name):
    return bool if name == "valid" else np.float32


def _array(name, value, shape):
    """One output as NumPy. ValueError if it has another shape or no sound numbers."""
    with np.errstate(over="ignore"):
        array = np.asarray(value)  # ValueError where lists differ in length
        kinds = "b" if name == "valid" else "fiu"
        if array.shape != shape or array.dtype.kind not in kinds:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {shape}")
        array = array.astype(_kind(name))
    if not np.isfinite(array).all():
        raise ValueError(f"{name} has numbers that are not finite")
    least, most = (0, 1) if name == "scores" else (-FARTHEST, FARTHEST)
    if array.size and not least <= array.min() <= array.max() <= most:
        raise ValueError(f"{name} has numbers beyond {least}..{most}")
    return array
