"""A client of TensorFlow Serving: encoded images go there, poses come back.

    client = serving.Client("http://localhost:8501", "deeppose")
    answer = client.predict([pathlib.Path("photo.jpg").read_bytes()])

REST needs nothing but the standard library, gRPC the extra `serving`.
"""

from __future__ import annotations

import functools
import random
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from deeppose_tf.export.serving import answers as serving_answers
from deeppose_tf.export.serving import rest_transport as serving_rest
from deeppose_tf.export.serving.answers import Busy, NotThere, Refused, ServerError

__all__ = ["Client", "Refused", "ServerError"]

# A request holds no more people, for the server's batches have a limit, ...
ROWS_AT_ONCE = 8
# ... nor bytes of images, unless the first alone has more: proxies have limits, too.
BYTES_AT_ONCE = 16 * 2**20
# Seconds before the second attempt, doubled before every later one up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
# A day: what is far more is no time that a system can wait for.
LONGEST_TIMEOUT = 86_400


class Client:
    """A cascade that a server has loaded.

    Args:
      server: `http://`, `https://`, `grpc://` or `grpcs://`, host and port. Those with
        an s check the server's certificate.
      model_name: under which the server knows it.
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
        service = _service(self.server)
        self._service = service(self.server, model_name, timeout, headers or {})

    @functools.cached_property
    def shapes(self) -> serving_answers.Shapes:
        """The shapes of the answers by name, the first size -1; the server is asked.

        Raises:
          ServerError: see `predict`.
        """
        signatures = self._patiently(self._service.signatures)
        return serving_answers.output_shapes(self.server, signatures)

    def predict(
        self, image_bytes: Sequence[bytes], boxes: np.ndarray | None = None
    ) -> dict:
        """The pose of one person in each of B images.

        Args:
          image_bytes: B JPEG or PNG files. The server looks at the pixels as they are
            stored, and turns nothing as EXIF says.
          boxes: [B, 4] first boxes, pixels of those images; all zeros, or None, for the
            whole image.

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
        shapes = self.shapes
        answers = [serving_answers.nobody(shapes)]
        for part in portions([len(content) for content in image_bytes]):
            some = image_bytes[part]
            answer = self._patiently(self._service.predict, some, boxes[part])
            answers.append(
                serving_answers.arrays(self.server, answer, shapes, len(some))
            )
        return {name: np.concatenate([one[name] for one in answers]) for name in shapes}

    def _patiently(self, ask, *arguments):
        for attempt in range(self._retries + 1):
            try:
                return ask(*arguments)
            except NotThere as error:
                raise ServerError(f"{error}. {self._states()}") from error
            except Busy as error:
                if attempt == self._retries:
                    raise ServerError(
                        f"{error}. Tried {attempt + 1} times. Where nothing answers: "
                        "the usual ports are 8501 for http:// and 8500 for grpc://"
                    ) from error
            pause = min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)
            time.sleep(pause * random.uniform(0.5, 1))  # not all clients at once

    def _states(self):
        try:
            states = ", ".join(self._service.states())
        except (ServerError, Refused):
            states = ""
        return f"Of the model {self._name!r} it has: {states or 'no version'}"


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


def _service(server):
    """The class that speaks the server's protocol."""
    address = urllib.parse.urlsplit(server)
    port = address.port  # ValueError where it is no number
    if "@" in address.netloc or address.query or address.fragment:
        raise ValueError(
            "server: expected host and port; who is there and what else a proxy wants "
            "to hear belongs into headers"
        )
    if address.hostname and address.scheme in ("http", "https"):
        return serving_rest.Rest
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
    if not all(isinstance(content, bytes) for content in image_bytes):
        raise ValueError("image_bytes are not a list of files' contents as bytes")
    if boxes is None:
        boxes = np.zeros([len(image_bytes), 4])
    boxes = np.asarray(boxes, np.float32)
    if boxes.shape != (len(image_bytes), 4):
        raise ValueError(
            f"boxes are {boxes.shape}, expected [{len(image_bytes)}, 4], one for each "
            "image"
        )
    if not np.isfinite(boxes).all():
        raise ValueError("boxes have numbers that are not finite")
    return image_bytes, boxes
