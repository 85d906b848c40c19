"""deeppose-client: as deeppose-predict, by a cascade on TensorFlow Serving.

Files are sent as they are where the server's decoder sees the same pixels, and as PNG
where EXIF turns them or they are unusual. Boxes and poses are in the upright image's
pixels either way.
"""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

import cv2
import numpy as np
from absl import flags

from deeppose_tf import detect
from deeppose_tf import skeleton as skeletons
from deeppose_tf.datasets import images
from deeppose_tf.export.serving.client import FORMATS, Client
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.cli.command import Flag
from deeppose_tf.pipelines.predict import commands as predict_commands
from deeppose_tf.pipelines.predict import media

# What HTTP allows as the name of a header (RFC 9110, Sec. 5.1).
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


class ServedCascade(NamedTuple):
    """What `predict.predict_files` asks for poses: a server, which cannot name the
    joints."""

    client: Client
    skeleton: skeletons.Skeleton

    def predict(self, image: np.ndarray, boxes: np.ndarray) -> dict:
        """As `Cascade.predict`; the pixels are sent as PNG, which loses nothing."""
        _, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return self.client.predict([png.tobytes()] * len(boxes), boxes)

    def predict_file(self, path: str, image: np.ndarray, boxes: np.ndarray) -> dict:
        """The same, by the file that holds the image where it is usual and upright."""
        try:
            content, _, _ = images.encoded(path)
        except images.Unusual:
            return self.predict(image, boxes)
        return self.client.predict([content] * len(boxes), boxes)


def skeleton_of(client: Client, named: skeletons.Skeleton | None) -> skeletons.Skeleton:
    """That one; or, without one, numbers in place of names and no limbs.

    Raises:
      ValueError: the served model has another number of joints.
      ServerError: see `Client.predict`.
    """
    joints = client.shapes["scores"][1]
    if named is None:
        numbers = tuple(f"joint_{i + 1}" for i in range(joints))
        return skeletons.Skeleton("unknown", numbers, (), (), ())
    if len(named.joints) != joints:
        raise ValueError(
            f"--skeleton has {len(named.joints)} joints, and the served model answers "
            f"{joints}"
        )
    return named


def read_headers(path: str) -> dict[str, str]:
    """Reads lines such as `Authorization: Bearer abc`.

    Raises:
      ValueError: a line is another; it is not repeated, for it may be a secret.
      OSError: the file cannot be read.
    """
    headers, text = {}, pathlib.Path(path).read_text("utf-8-sig")
    for number, line in enumerate(text.splitlines(), 1):
        name, colon, value = (part.strip() for part in line.partition(":"))
        if line.strip():
            plain = value.isascii() and value.isprintable()
            if not HEADER_NAME.fullmatch(name) or not colon or not plain:
                raise ValueError(
                    f"{path}, line {number}: expected 'Name: value', in plain ASCII "
                    "and without spaces in the name"
                )
            headers[name] = value
    return headers


CLIENT_FLAGS = {
    "server": Flag(
        "http://localhost:8501",
        "Where TensorFlow Serving is: http(s):// with its REST port, usually 8501, or "
        "grpc(s)://, usually 8500, which needs pip install 'deeppose-tf[serving]'.",
    ),
    "model_name": Flag("deeppose", "The server's name for the model."),
    **predict_commands.FILE_FLAGS,
    "skeleton": Flag(
        str,
        "The names and limbs of the model's joints, which the server cannot tell: "
        f"{', '.join(skeletons.SKELETONS)}, or the JSON file in the exported model's "
        "assets. By default joints have numbers, and no limbs are drawn.",
    ),
    "timeout": Flag(60.0, "Seconds to wait for one answer.", low=0.001),
    "retries": Flag(
        4,
        "How often to ask a server again that is not there or busy, after pauses.",
        low=0,
    ),
    "header_file": Flag(
        str,
        "A file of lines such as 'Authorization: Bearer abc' to send along with every "
        "request, for a proxy before the server.",
    ),
}


@command.command(__doc__, CLIENT_FLAGS, required=("input", "output"), folder="output")
def run_client(values: flags.FlagValues) -> None:
    """Predicts what the flags describe; leaves with 1 if a file was passed over."""
    found = media.find_files(values.input)
    command.require_paths("header_file")
    detect.require_finder(values.boxes, values.detector)
    if values.boxes == "face" and values.skeleton is None:
        raise ValueError("--boxes=face needs --skeleton: has the model legs?")
    headers = read_headers(values.header_file) if values.header_file else None
    named = skeletons.load(values.skeleton, FORMATS) if values.skeleton else None
    client = Client(
        values.server, values.model_name, values.timeout, values.retries, headers
    )
    cascade = ServedCascade(client, skeleton_of(client, named))
    skeleton, names = cascade.skeleton, ("server", "model_name", "skeleton")
    finder = detect.make_finder(values.boxes, skeleton, detector=values.detector)
    predict_commands.write_results(
        skeleton, lambda: (cascade, finder), found, names, []
    )
