"""Published weights of pose networks, read without running code from them.

MoveNet SinglePose Lightning and Thunder are published as TensorFlow.js graphs: a JSON
file that lists the tensors, and files of their float16 numbers beside it.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import warnings

import numpy as np
import tensorflow as tf

from deeppose_tf import networks
from deeppose_tf.skeleton import COCO, Skeleton

# SHA-256 of the files of numbers known to be MoveNet's.
PUBLISHED = {
    "bf97bc10d9c8a11200b0190ed64ce039b6252f1aff7cb552aca99b3d191c2f34": "Lightning",
    "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c": "Thunder",
}
JOINTS = COCO.joints  # of MoveNet's maps
# What a joint that MoveNet has no map of begins as: the mean of the maps of others.
SHOULDERS, HIPS = ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")
NEIGHBOURS = {
    "neck": SHOULDERS,
    "upper_neck": ("nose", *SHOULDERS),
    "thorax": SHOULDERS,
    "pelvis": HIPS,
    "head_top": ("nose",),
    "head": ("nose",),
}
MANIFEST_BYTES = 16 * 2**20
TENSOR_BYTES = 256 * 2**20


def start(model: tf.keras.Model, skeleton: Skeleton, path: str) -> None:
    """Begins a network of `MOVENETS` as MoveNet: layers by their names, and of the last
    one the columns of the skeleton's joints by theirs.

    A joint that MoveNet does not know begins as its neighbours: see `NEIGHBOURS`, or
    the joints that limbs join it to.

    Args:
      model: with an integral head; changed.
      skeleton: names the K joints.
      path: the graph's JSON file, or a folder that holds it as
        `movenet-lightning.json` or `movenet-thunder.json`.

    Raises:
      ValueError: there is no such file, it is damaged, or not of this network.
    """
    tensors = _by_layer(read_tensorflowjs(_graph(path, model.name)))
    for layer in model.layers:
        if layer.name == networks.MAPS or not layer.weights:
            continue
        values = tensors.get(layer.name)
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if layer.name == "conv2d_16":
            continue  # takes the place of layers that this network does without
        if values is None or [value.shape for value in values] != shapes:
            raise ValueError(f"{path}: not of {model.name}: its {layer.name} differs")
        layer.set_weights(values)
    kernel, bias = tensors["conv2d_5"]
    shares = columns(skeleton)
    model.get_layer(networks.MAPS).set_weights([kernel @ shares, bias @ shares])


def columns(skeleton: Skeleton) -> np.ndarray:
    """[17, K]: of which of MoveNet's maps each joint's begins as the mean."""
    shares = np.zeros([len(JOINTS), len(skeleton.joints)], np.float32)
    for i, name in enumerate(skeleton.canonical):
        known = (
            (name,) if name in JOINTS else NEIGHBOURS.get(name) or _joined(i, skeleton)
        )
        for other in known:
            shares[JOINTS.index(other), i] = 1 / len(known)
    return shares


def read_tensorflowjs(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Name -> float32 array of all float tensors of a TensorFlow.js graph.

    Raises:
      ValueError: a file is missing, damaged, or larger than such graphs are.
    """
    try:
        if path.stat().st_size > MANIFEST_BYTES:
            raise ValueError("too large for a graph")
        groups = json.loads(path.read_bytes())["weightsManifest"]
        return {
            name: value
            for group in groups
            for name, value in _group(path.parent, group).items()
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: no graph of TensorFlow.js: {error}") from error


def _group(folder, group):
    """The float tensors of the files that hold one part of the numbers."""
    paths = [folder / pathlib.PurePath(name).name for name in group["paths"]]
    if sum(path.stat().st_size for path in paths) > TENSOR_BYTES:
        raise ValueError("more numbers than such a graph has")
    content = b"".join(path.read_bytes() for path in paths)
    if hashlib.sha256(content).hexdigest() not in PUBLISHED:
        warnings.warn(f"{paths[0]}: not MoveNet's published numbers", stacklevel=2)
    found, at = {}, 0
    for entry in group["weights"]:
        stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
        kind = np.dtype({"float16": "<f2", "float32": "<f4", "int32": "<i4"}[stored])
        shape = tuple(map(int, entry["shape"]))
        count = int(np.prod(shape, dtype=np.int64))
        values = np.frombuffer(content, kind, count, at).reshape(shape)
        at += count * kind.itemsize
        if entry["dtype"] == "float32":
            found[entry["name"]] = values.astype(np.float32)
    if at != len(content):
        raise ValueError(f"{len(content)} bytes of numbers, and {at} are listed")
    return found


def _graph(path, network):
    """The JSON file for a network, of the path that a user gave."""
    graph = pathlib.Path(path)
    published = "_".join(network.split("_")[:2])
    if graph.is_dir():
        graph = graph / f"{published.replace('_', '-')}.json"
    if not graph.is_file():
        raise ValueError(f"{graph}: no such file")
    return graph


def _by_layer(tensors):
    """Name of a layer -> its kernel and, where it has one, its bias."""
    layers = {}
    for name, value in tensors.items():
        parts = name.split("/")
        if value.ndim not in (1, 4):
            continue
        layer = parts[-3] if parts[-1].startswith("ReadVariable") else parts[-2]
        if value.ndim == 4 and value.shape[-1] == 1 and value.shape[0] == 3:
            if layer.startswith("separable"):
                layer += "_depthwise"
        layers.setdefault(layer, {})[value.ndim] = value
    return {name: [x[n] for n in (4, 1) if n in x] for name, x in layers.items()}


def _joined(joint, skeleton):
    """MoveNet's joints that limbs join a joint to, or all of them."""
    others = {
        skeleton.canonical[other]
        for limb in skeleton.limbs
        if joint in limb.start + limb.end
        for other in limb.start + limb.end
    }
    return sorted(others & set(JOINTS)) or JOINTS
