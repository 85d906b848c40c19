"""Published weights of other networks, read without running code from them.

MoveNet SinglePose Lightning and Thunder are published as TensorFlow.js graphs: a JSON
file that lists the tensors, and files of their float16 numbers beside it. ImageNet's
EfficientNet-Lite0 is a checkpoint of PyTorch: pickles, of which only what tensors are
made of is admitted, and their numbers.
"""

from __future__ import annotations

import hashlib
import io
import math
import pathlib
import pickle
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from deeppose_tf import files, networks
from deeppose_tf.config import MOVENETS
from deeppose_tf.skeleton import COCO, Skeleton

# SHA-256 of the files of numbers that are known, and whose they are.
PUBLISHED = {
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db": "Lite0",
    "bf97bc10d9c8a11200b0190ed64ce039b6252f1aff7cb552aca99b3d191c2f34": "Lightning",
    "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c": "Thunder",
}
JOINTS = COCO.joints  # of MoveNet's maps
# What a joint that a network does not know begins as: the mean of those that it does.
SHOULDERS, HIPS = ("left_shoulder", "right_shoulder"), ("left_hip", "right_hip")
HEAD = ("nose", "left_eye", "right_eye", "neck", "head_top")
NEIGHBOURS = {
    **dict.fromkeys(("nose", "left_eye", "right_eye", "left_ear", "right_ear"), HEAD),
    **{f"{side}_hand": (f"{side}_wrist",) for side in ("left", "right")},
    **{f"{side}_foot": (f"{side}_ankle",) for side in ("left", "right")},
    "neck": SHOULDERS,
    "upper_neck": ("nose", *SHOULDERS),
    "thorax": SHOULDERS,
    "pelvis": HIPS,
    "head_top": ("nose",),
    "head": ("nose", "head_top"),
}
MANIFEST_BYTES = 16 * 2**20
TENSOR_BYTES = 256 * 2**20
# With it checkpoints of PyTorch before 1.6 begin.
PYTORCH = 0x1950A86A20F9469CFC6C


def start(model: tf.keras.Model, skeleton: Skeleton, path: str) -> None:
    """Begins a network of `MOVENETS` or `LITES` as the published one: layers by their
    names, and of MoveNet's last one the columns of the skeleton's joints by theirs.

    Lite0 knows no joints: what comes after its blocks stays at random.

    Args:
      model: of MoveNet with an integral head; changed.
      path: MoveNet's: the graph's JSON file, or a folder that holds it as
        `movenet-lightning.json` or `movenet-thunder.json`. Lite0's: its checkpoint.

    Raises:
      ValueError: there is no such file, it is damaged, or not of this network.
    """
    if model.name not in MOVENETS:
        layers = _of_pytorch(read_pytorch(pathlib.Path(path)))
        _fill(model, layers, ("pyramid", networks.MAPS), path)
        return
    layers = _by_layer(read_tensorflowjs(_graph(path, model.name)))
    # conv2d_16 takes the place of layers that the shorter network does without.
    _fill(model, layers, ("conv2d_16", networks.MAPS), path)
    kernel, bias = layers["conv2d_5"]
    shares = columns(skeleton)
    model.get_layer(networks.MAPS).set_weights([kernel @ shares, bias @ shares])


def origins(
    skeleton: Skeleton, joints: Sequence[str] = JOINTS
) -> list[tuple[str, ...]]:
    """[K]: of which joints of a network each one begins as the mean: that of its name;
    or its `NEIGHBOURS`; or those that limbs join it to; or all of them."""
    return [
        (name,) if name in joints else _neighbours(i, skeleton, joints)
        for i, name in enumerate(skeleton.canonical)
    ]


def columns(skeleton: Skeleton, joints: Sequence[str] = JOINTS) -> np.ndarray:
    """[joints, K]: the share of each joint of a network in each of the skeleton's."""
    shares = np.zeros([len(joints), len(skeleton.joints)], np.float32)
    for i, names in enumerate(origins(skeleton, joints)):
        for name in names:
            shares[joints.index(name), i] = 1 / len(names)
    return shares


def read_tensorflowjs(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Name -> float32 array of all float tensors of a TensorFlow.js graph.

    Raises:
      ValueError: a file is missing, damaged, or larger than such graphs are.
    """
    try:
        if path.stat().st_size > MANIFEST_BYTES:
            raise ValueError("too large for a graph")
        groups = files.load_json(path)["weightsManifest"]
        return {
            name: value
            for group in groups
            for name, value in _group(path.parent, group).items()
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: no graph of TensorFlow.js: {error}") from error


def read_pytorch(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Name -> array of all tensors of a checkpoint of PyTorch before 1.6.

    Raises:
      ValueError: it is missing, damaged, too large, or its pickles hold something other
        than tensors, which is not run.
    """
    try:
        if path.stat().st_size > TENSOR_BYTES:
            raise ValueError("larger than such checkpoints are")
        content = path.read_bytes()
        file = io.BytesIO(content)
        # A number to know it by, its format, its machine; the tensors; whose numbers
        # follow in which order.
        magic, _, _, tensors, keys = (_Unpickler(file).load() for _ in range(5))
        if magic != PYTORCH:
            raise ValueError("it does not begin as one")
        kinds = {tensor.key: tensor.kind for tensor in tensors.values()}
        numbers = {}
        for key in keys:
            size = int.from_bytes(file.read(8), "little") * kinds[key].itemsize
            numbers[key] = np.frombuffer(file.read(size), kinds[key])
        found = {
            str(name): tensor.of(numbers[tensor.key])
            for name, tensor in tensors.items()
        }
    # Pickles that are damaged, or made to harm, raise anything.
    except Exception as error:
        raise ValueError(f"{path}: no checkpoint of PyTorch: {error}") from error
    if hashlib.sha256(content).hexdigest() not in PUBLISHED:
        warnings.warn(
            f"{path}: not EfficientNet-Lite0's published numbers", stacklevel=2
        )
    return found


class _Tensor:
    """What a pickle says of a tensor whose numbers come later."""

    def __init__(self, storage, offset, shape, strides, *_):
        self.kind, self.key = storage[1:3]
        self.offset, self.shape, self.strides = offset, shape, strides

    def of(self, numbers):
        """The tensor, of the numbers that were stored for it."""
        steps = zip(self.shape, self.strides, strict=True)
        ends = [(n - 1) * step for n, step in steps]
        beyond = self.offset + sum(ends) >= numbers.size
        beyond |= math.prod(self.shape) > numbers.size
        if beyond or min(self.offset, *ends, 0) < 0:
            raise ValueError("a tensor reaches beyond its numbers")
        return np.lib.stride_tricks.as_strided(
            numbers[self.offset :],
            self.shape,
            [step * numbers.itemsize for step in self.strides],
            writeable=False,
        )


class _Unpickler(pickle._Unpickler):  # In Python: it takes no memory on a file's word.
    """Admits what a dictionary of tensors is made of; all else is an error."""

    def find_class(self, module, name):
        # Anew each time: a pickle may set attributes of what it is given.
        admitted = {
            "collections.OrderedDict": type("Dictionary", (dict,), {}),
            "torch._utils._rebuild_tensor_v2": lambda *parts: _Tensor(*parts),
            "torch.FloatStorage": np.dtype("<f4"),
            "torch.LongStorage": np.dtype("<i8"),
        }
        if f"{module}.{name}" not in admitted:
            raise ValueError(f"{module}.{name} is no part of a tensor")
        return admitted[f"{module}.{name}"]

    def persistent_load(self, pid):
        return pid


def _of_pytorch(tensors: Mapping) -> dict[str, list[np.ndarray]]:
    """Name of a layer of ours -> its weights in the order of Keras."""
    layers = {}
    for name, value in tensors.items():
        module, _, _ = name.rpartition(".")
        layer = module.replace("._", "_").lstrip("_").replace(".", "_")
        if value.ndim == 4:  # [out, in, h, w]; of a depthwise one [channels, 1, h, w]
            depthwise = layer.endswith("depthwise_conv")
            value = value.transpose((2, 3, 0, 1) if depthwise else (2, 3, 1, 0))
        if value.ndim:  # not how many batches a normalisation saw
            layers.setdefault(layer, []).append(value)
    return layers


def _fill(model, layers: Mapping, own: Sequence[str], path) -> None:
    """Sets the weights of every layer that has some by its name, but for those whose
    names begin as one of `own`."""
    for layer in model.layers:
        if not layer.weights or layer.name.startswith(tuple(own)):
            continue
        values = layers.get(layer.name)
        shapes = [tuple(weight.shape) for weight in layer.weights]
        if values is None or [value.shape for value in values] != shapes:
            raise ValueError(f"{path}: not of {model.name}: its {layer.name} differs")
        layer.set_weights(values)


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
    if graph.is_dir():
        graph /= "-".join(network.split("_")[:2]) + ".json"
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


def _neighbours(joint, skeleton, joints):
    """What `origins` says of a joint that is not among a network's."""
    near = NEIGHBOURS.get(skeleton.canonical[joint], ())
    if known := tuple(name for name in near if name in joints):
        return known
    others = {
        skeleton.canonical[other]
        for limb in skeleton.limbs
        if joint in limb.start + limb.end
        for other in limb.start + limb.end
    }
    return tuple(sorted(others & set(joints)) or joints)
