"""`deeppose-client`: as `deeppose-predict`, by a cascade on TensorFlow Serving.

Files are sent as they are where the server's decoder sees the same pixels, and as PNG
where EXIF turns them or they are unusual. Boxes and poses are in the upright image's
pixels either way.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re

import cv2
import numpy as np
from absl import flags

from deeppose_tf import detect
from deeppose_tf import skeleton as skeletons
from deeppose_tf.datasets import images
from deeppose_tf.export.serving import serving
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.predict import media, predict

# What HTTP allows as the name of a header (RFC 9110, Sec. 5.1).
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


@dataclasses.dataclass(frozen=True)
class ServedCascade:
    """What `predict.predict_files` asks for poses.

    Attributes:
      client: asks the server.
      skeleton: names the joints, which the server cannot.
    """

    client: serving.Client
    skeleton: skeletons.Skeleton

    def predict(self, image: np.ndarray, boxes: np.ndarray) -> dict:
        """As `Cascade.predict`; the pixels are sent as PNG, which loses nothing."""
        _, png = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        return self._people(png.tobytes(), boxes)

    def predict_file(self, path: str, image: np.ndarray, boxes: np.ndarray) -> dict:
        """The same, by the file that holds the image where it is usual and upright."""
        try:
            content, _, _ = images.encoded(path)
        except images.Unusual:
            return self.predict(image, boxes)
        return self._people(content, boxes)

    def _people(self, content, boxes):
        return self.client.predict([content] * len(boxes), boxes)


def find_skeleton(name: str | None, joints: int) -> skeletons.Skeleton:
    """The skeleton of a served model, which itself tells the number of joints only.

    Args:
      name: of a known skeleton; a JSON file of one, or of anything that holds one under
        `skeleton`, as an export's does; None for numbers in place of names, no limbs.
      joints: how many the model answers.

    Raises:
      ValueError: there is no such skeleton, or it has another number of joints.
      OSError: the file cannot be read.
    """
    if name is None:
        numbered = tuple(f"joint_{i + 1}" for i in range(joints))
        return skeletons.Skeleton("unknown", numbered, (), (), ())
    found = skeletons.SKELETONS.get(name) or _read_skeleton(name)
    if len(found.joints) != joints:
        raise ValueError(
            f"--skeleton={name} has {len(found.joints)} joints, and the served model "
            f"answers {joints}"
        )
    return found


def _read_skeleton(name):
    path = pathlib.Path(name)
    if not path.is_file():
        raise ValueError(
            f"--skeleton={name}: no such file, and none of "
            f"{', '.join(skeletons.SKELETONS)}"
        )
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            content = content.get("skeleton", content)
        return skeletons.from_json(content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_headers(path: str) -> dict[str, str]:
    """Reads lines such as `Authorization: Bearer abc`.

    Raises:
      ValueError: a line is another; it is not repeated, for it may be a secret.
      OSError: the file cannot be read.
    """
    headers = {}
    for number, line in enumerate(pathlib.Path(path).read_text().splitlines(), 1):
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


def define_flags() -> None:
    """Flags of this script."""
    flags.DEFINE_string(
        "server",
        "http://localhost:8501",
        "Where TensorFlow Serving is: http:// or https:// with its REST port, usually "
        "8501, or grpc:// or grpcs:// with its gRPC port, usually 8500. gRPC needs "
        "pip install 'deeppose-tf[serving]'.",
    )
    flags.DEFINE_string("model_name", "deeppose", "The server's name for the model.")
    flags.DEFINE_string(
        "input",
        None,
        "What to look at: an image, a video, a folder of them (not the folders below "
        "it), or a glob in quotes such as 'photos/**/*.jpg'.",
    )
    flags.DEFINE_string(
        "output",
        None,
        "The folder for predictions.json and the overlays, as of deeppose-predict. It "
        "is made where it is missing.",
    )
    flags.DEFINE_string(
        "boxes",
        "full",
        "Where the people are, as for deeppose-predict: full, face, hog, or a JSON "
        'file {"photo.jpg": [[x0, y0, x1, y1], ...], ...} in pixels of the upright '
        "image. Faces and people are looked for here, not by the server.",
    )
    flags.DEFINE_string(
        "skeleton",
        None,
        "The names and limbs of the model's joints, which the server cannot tell: "
        f"{', '.join(skeletons.SKELETONS)}, or the JSON file in the assets of the "
        "exported model. By default joints have numbers, and no limbs are drawn.",
    )
    flags.DEFINE_float(
        "timeout", 60.0, "Seconds to wait for one answer.", lower_bound=0.001
    )
    flags.DEFINE_integer(
        "retries",
        4,
        "How often to send a request again, after half a second, one, two and so on, "
        "to a server that is not there or too busy.",
        lower_bound=0,
    )
    flags.DEFINE_string(
        "header_file",
        None,
        "A file of lines such as 'Authorization: Bearer abc' to send along with every "
        "request, for a proxy before the server.",
    )
    flags.DEFINE_bool("overlays", True, "Whether to draw the poses.")
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replace files in --output that are there already. The same command may "
        "always replace what it wrote itself.",
    )
    flags.mark_flags_as_required(["input", "output"])


def main(argv: list[str]) -> None:
    """Predicts what the flags describe; leaves with 1 if a file was passed over."""
    del argv
    values = flags.FLAGS
    found = media.find_files(values.input)
    headers = read_headers(values.header_file) if values.header_file else None
    client = serving.Client(
        values.server, values.model_name, values.timeout, values.retries, headers
    )
    if values.boxes == "face" and values.skeleton is None:
        raise ValueError("--boxes=face needs --skeleton: has the model legs?")
    joints = client.shapes["scores"][1]
    cascade = ServedCascade(client, find_skeleton(values.skeleton, joints))
    names = ("server", "model_name", "input", "boxes", "skeleton", "overlays")
    content = predict.predict_files(
        cascade,
        found,
        values.output,
        detect.make_finder(values.boxes, cascade.skeleton),
        {name: getattr(values, name) for name in names},
        values.overlays,
        values.overwrite,
        ask=cascade.predict_file,
    )
    failed = predict.report(content, values.boxes)
    print(f"results are in {values.output}")
    if failed:
        raise SystemExit(1)


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__, folder="output")


if __name__ == "__main__":
    run()
