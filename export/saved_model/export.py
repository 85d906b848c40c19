"""A cascade as a SavedModel that loops over its stages, for servers."""

from __future__ import annotations

import hashlib
import pathlib
import platform
import re
import shutil
import tempfile

import numpy as np
import tensorflow as tf

import deeppose_tf
from deeppose_tf import files
from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import checks
from deeppose_tf.export.saved_model.signatures import Limits, functions
from deeppose_tf.export.serving.client import FORMATS
from deeppose_tf.skeleton import to_json

DESCRIPTION = "deeppose.json"
WARM_UP = "assets.extra/tf_serving_warmup_requests"

# Where people are looked at one by one, large batches gain nothing: they only save
# calls. Where several are at once, a batch should have as many.
# Requests whose images differ in size fail together unless they are sent to `jpeg`.
BATCHING = """\
max_batch_size { value: %d }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
"""


def export(
    cascade: Cascade,
    output: str,
    version: int | None = None,
    limits: Limits | None = None,
) -> tuple[pathlib.Path, float]:
    """Writes OUTPUT/<version>/, the layout of TensorFlow Serving, beside and renames it
    into place once it has been read back, run, and found to answer as the cascade.

    Args:
      output: folder of all versions of the model; made where it is missing.
      version: a positive number; the next free one if None.

    Returns:
      The version's folder, and how far its keypoints are from the cascade's at most,
      in pixels.

    Raises:
      ValueError: the version is there already, another export to the same folder is
        under way, or what was written does not answer as the cascade. Then nothing is
        left behind.
      OSError: it cannot be written, because the disk is full for example. The same.
    """
    limits = limits or Limits()
    folder = _version_folder(pathlib.Path(output), version)
    partial = files.hidden(folder, "partial")
    with files.alone(folder.parent, "export"):
        shutil.rmtree(partial, ignore_errors=True)
        try:
            _write_or_say_why(cascade, limits, describe(cascade, limits), partial)
            apart = checks.check(str(partial), cascade, limits)
            files.sync_all(partial)
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    files.sync(folder.parent)
    return folder, apart


def write(
    cascade: Cascade, limits: Limits, description: dict, folder: pathlib.Path
) -> None:
    """Writes the SavedModel, its description, warm-up requests and batching."""
    # Traced once: of functions TensorFlow would trace those that it saves anew.
    signatures = {
        name: function.get_concrete_function()
        for name, function in functions(cascade, limits).items()
    }
    module = tf.Module()
    # The networks' own variables, each once, whichever Keras they are of.
    variables = {id(v): v for one in signatures.values() for v in one.variables}
    module.weights = list(variables.values())
    with tempfile.TemporaryDirectory() as temporary:
        path = pathlib.Path(temporary) / DESCRIPTION
        files.write_json(path, description, digest=True)
        module.description = tf.saved_model.Asset(str(path))
        tf.saved_model.save(module, str(folder), signatures=signatures)
    batching = BATCHING % max(16, limits.people_at_once)
    files.write_bytes(folder / "batching_params.pbtxt", batching.encode())
    write_warm_up(folder, warm_up_requests(limits.people_at_once))


def describe(cascade: Cascade, limits: Limits) -> dict:
    """What a client has to know, and where the model comes from; a JSON value."""
    run = cascade.run and pathlib.Path(cascade.run)
    return {
        "format": FORMATS[-1],
        "joints": list(cascade.skeleton.joints),
        "skeleton": to_json(cascade.skeleton),
        "coordinates": "pixels (x, y) of the image as stored, not turned by EXIF; "
        "(0, 0) is the corner of the first pixel, (0.5, 0.5) its centre",
        "boxes": "[x0, y0, x1, y1] in the same pixels; all zeros: the whole image",
        "scores": "0..1: an estimate of how likely the joint is within 0.2 pose "
        "diameters of its place",
        "valid": "false: the box or the image cannot be answered, all numbers are zero",
        "tolerance": limits.tolerance,
        "max_pixels": limits.max_pixels,
        "people_at_once": limits.people_at_once,
        "stages": [
            _stage(stage, run and run / f"stage_{i + 1}")
            for i, stage in enumerate(cascade.stages)
        ],
        "versions": {
            "deeppose_tf": deeppose_tf.__version__,
            "tensorflow": tf.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def warm_up_requests(people_at_once: int = 1) -> dict[str, dict[str, np.ndarray]]:
    """For each signature the inputs, by name, that a server runs before others may: one
    person, and before that as many as are looked at together."""
    people = people_at_once + 1 if people_at_once > 1 else 1
    pictures = np.repeat(checks.examples()[0][:1], people, axis=0)
    whole = np.zeros([people, 4], np.float32)
    encoded = tf.io.encode_jpeg(pictures[0]).numpy()
    return {
        "serving_default": {"images": pictures, "boxes": whole},
        "jpeg": {"image_bytes": np.array([encoded] * people, object), "boxes": whole},
    }


def write_warm_up(folder: pathlib.Path, requests: dict[str, dict]) -> None:
    """Writes the requests that TensorFlow Serving sends to a model before anyone else
    may: for each signature inputs by name.

    Raises:
      ValueError: what is read back is not what was written.
    """
    path = folder / WARM_UP
    path.parent.mkdir(parents=True, exist_ok=True)
    logs = [prediction_log(name, inputs) for name, inputs in requests.items()]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            writer.write(log)
    # A damaged file keeps a server from loading the model at all.
    if list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator()) != logs:
        raise ValueError(f"{path} was not written as it should be")


def prediction_log(signature: str, inputs: dict[str, np.ndarray]) -> bytes:
    """An encoded `PredictionLog` that holds one `PredictRequest`.

    These are messages of tensorflow-serving-api. Few of their fields are needed, all of
    them are length-delimited, and so they are encoded here, by their numbers: an
    exporter needs no further package, whose version would have to match TensorFlow's.
    """
    model_spec = _field(3, signature.encode())  # signature_name
    request = _field(1, model_spec)
    for name, value in inputs.items():
        tensor = tf.make_tensor_proto(value).SerializeToString()
        entry = _field(1, name.encode()) + _field(2, tensor)  # key and value
        request += _field(2, entry)  # of the map inputs
    return _field(6, _field(1, request))  # predict_log, and in it request


def _field(number, content):
    """A length-delimited field of a protocol buffer."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value):
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    groups = []
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])


def _write_or_say_why(cascade, limits, description, folder):
    """What TensorFlow says of files, as everybody else does: it is no bug of ours."""
    try:
        write(cascade, limits, description, folder)
    except (tf.errors.PermissionDeniedError, tf.errors.ResourceExhaustedError) as error:
        raise OSError(error.message) from error


def _stage(stage, folder):
    digest = None
    if folder is not None:
        weights = folder / "weights.safetensors"
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    training = {
        name: stage.training[name]
        for name in ("recipe", "seed", "tensorflow")
        if name in stage.training
    }
    shown = ("network", "size", "sigma", "margin", "square", "step_size")
    config = {name: getattr(stage.config, name) for name in shown}
    return config | {"weights_sha256": digest, "training": training}


def _version_folder(output, version):
    if version is None:
        names = [path.name for path in output.glob("*")]
        # Of digits, int() reads no superscripts, and servers no others than these.
        taken = [int(name) for name in names if re.fullmatch("[0-9]+", name)]
        version = max(taken, default=0) + 1
    if version < 1:
        raise ValueError(f"--version is {version}; servers expect a positive number")
    if (output / str(version)).exists():
        raise ValueError(
            f"{output / str(version)} is there already: leave --version out for the "
            "next free number, or remove that folder"
        )
    return output / str(version)
