"""One stage of the cascade: its network, and the folder that rebuilds it.

A stage maps crops [M, S, S, 3] to normalized joints [M, K, 2]. In stage 1 these are the
pose; in later stages joint i is read from the crop around joint i (Sec. 3.2), so that
one network per stage serves all joints.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
import safetensors.numpy
import tensorflow as tf

from deeppose_tf import files, networks
from deeppose_tf import weights as foreign
from deeppose_tf.config import (
    LITES,
    MOVENETS,
    StageConfig,
    config_from_json,
    require_stage,
)
from deeppose_tf.skeleton import Skeleton, from_json, to_json

keras = tf.keras

FORMATS = (1, 2)  # of stage.json; 1 has other names for fields of the configuration


# A file of weights has no more bytes beside its numbers.
NAMES_BYTES = 2**20


@dataclasses.dataclass(frozen=True)
class Stage:
    """A trained stage.

    Attributes:
      config: see `StageConfig`.
      skeleton: the K joints.
      model: [M, S, S, 3] pre-processed crops -> [M, K, 2] normalized.
      mean: [K, 2] mean of this stage's displacements y^s - y over the training
        data, in pose diameters (Sec. 3.2); zeros before they are measured.
      covariance: [K, 2, 2] their covariance.
      training: how it was trained; any JSON value.
    """

    config: StageConfig
    skeleton: Skeleton
    model: keras.Model
    mean: np.ndarray
    covariance: np.ndarray
    training: dict

    @functools.cached_property
    def spreading(self) -> keras.Model:
        """The network with the variances of its maps; see `networks.with_spread`."""
        return networks.with_spread(self.model)


def build_stage(
    config: StageConfig,
    skeleton: Skeleton,
    mean_target: np.ndarray | None = None,
    precision: str = "float32",
    weights: str | None = None,
) -> keras.Model:
    """Builds the network of a stage with fresh weights.

    Args:
      config: see `StageConfig`.
      skeleton: gives K.
      mean_target: [K, 2] normalized, what the untrained network answers: the mean
        pose. Zeros if left out.
      precision: a Keras policy such as `mixed_bfloat16`. Weights are float32.
      weights: what the network starts from: None; of a `keras.applications` backbone
        `imagenet` or a file; of MoveNet and Lite0 see `weights.start`.

    Returns:
      [M, S, S, 3] float32 in [-1, 1) -> [M, K, 2] float32, normalized.

    Raises:
      ValueError: the config names a network that does not exist.
    """
    joints = len(skeleton.joints)
    if mean_target is None:
        mean_target = np.zeros([joints, 2], np.float32)
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(precision)
    try:
        if config.network not in {*MOVENETS, *LITES}:
            return networks.build(config, joints, mean_target, weights)
        model = networks.build(config, joints, mean_target, None)
        if weights:
            foreign.start(model, skeleton, weights)
        return model
    finally:
        keras.mixed_precision.set_global_policy(before)


def save_stage(stage: Stage, directory: str, dtype: str = "float32") -> None:
    """Writes `stage.json` and `weights.safetensors` beside, then renames into place.

    Args:
      stage: to be saved.
      directory: where; what is there is replaced.
      dtype: of the weights in the file: `float32`, or `float16` for half its size.
    """
    target = pathlib.Path(directory)
    partial = files.hidden(target, "partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    description = {
        "format": FORMATS[-1],
        "config": dataclasses.asdict(stage.config),
        "skeleton": to_json(stage.skeleton),
        "displacement": {
            "unit": "pose diameters",
            "mean": np.asarray(stage.mean).tolist(),
            "covariance": np.asarray(stage.covariance).tolist(),
        },
        "training": stage.training,
    }
    arrays = {
        name: np.asarray(value).astype(dtype)
        for name, value in _named_weights(stage.model)
    }
    weights = safetensors.numpy.save(arrays)
    description["sha256"] = hashlib.sha256(weights).hexdigest()
    files.write_bytes(partial / "weights.safetensors", weights)
    files.write_json(partial / "stage.json", description, digest=True)
    replaced = files.hidden(target, "replaced")
    shutil.rmtree(replaced, ignore_errors=True)
    if target.exists():
        target.rename(replaced)
    partial.rename(target)
    files.sync(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def load_stage(directory: str) -> Stage:
    """Rebuilds a stage from its folder; runs no code from it.

    Raises:
      ValueError: a file is missing, damaged, of an unknown format, or of another
        network; names it.
    """
    path = pathlib.Path(directory)
    require_stage(path)
    value = files.read_json(path / "stage.json", FORMATS)
    try:
        config = config_from_json(value["config"])
        skeleton = from_json(value["skeleton"])
        displacement = value["displacement"]
        joints = len(skeleton.joints)
        mean = _array(displacement["mean"], (joints, 2))
        covariance = _array(displacement["covariance"], (joints, 2, 2))
        training = dict(value["training"])
        model = build_stage(config, skeleton)
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"{path / 'stage.json'} is damaged: {error}") from error
    _load_weights(model, path / "weights.safetensors", value.get("sha256"))
    return Stage(config, skeleton, model, mean, covariance, training)


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Copies all weights between two builds of one network."""
    for (_, from_), (_, to) in zip(
        _named_weights(source), _named_weights(target), strict=True
    ):
        to.assign(from_)


def warm_start(model: keras.Model, skeleton: Skeleton, earlier: Stage) -> int:
    """Begins a network as a trained stage, layer by layer, up to the first that
    differs; joints in its last layer by their names, see `weights.columns`.

    Args:
      model: changed.
      skeleton: names its K joints.
      earlier: of whatever joints.

    Returns:
      How many weights it begins with.
    """
    common, last = _common(model, earlier.model), _last(model)
    shares = foreign.columns(skeleton, earlier.skeleton.canonical)
    for source, target in common:
        values, front = np.asarray(source), source.shape[:-1]
        if any(target is weight for weight in last.weights):
            if earlier.config.head == "integral":  # [..., subcells^2 K]
                values = values.reshape(*front, -1, len(shares)) @ shares
            else:  # [..., 2 K], x and y of a joint side by side
                values = shares.T @ values.reshape(*front, len(shares), 2)
        target.assign(values.reshape(target.shape))
    return len(common)


def count_common(model: keras.Model, earlier: keras.Model) -> int:
    """How many weights `warm_start` would copy."""
    return len(_common(model, earlier))


def _common(model, earlier) -> list[tuple[tf.Variable, tf.Variable]]:
    """The weights of both networks, side by side, up to the first that differ by more
    than the number of joints; those of MoveNet's and Lite0's by their layers' names."""
    pairs, shapes = [], _shapes(model) | _shapes(earlier)
    if any({model.name, earlier.name} <= set(named) for named in (MOVENETS, LITES)):
        layers = {layer.name: layer for layer in earlier.layers}
        for layer in model.layers:
            before = layers[layer.name].weights if layer.name in layers else []
            kept = [shapes[id(weight)] for weight in before]
            if kept == [shapes[id(weight)] for weight in layer.weights]:
                pairs += zip(before, layer.weights, strict=True)
            elif layer.name == "Conv1":
                return []  # Thunder and Lightning: what fits further on means nothing
        return pairs
    both = zip(_named_weights(earlier), _named_weights(model), strict=False)
    for (name, source), (own, target) in both:
        if name != own or shapes[id(source)] != shapes[id(target)]:
            break
        pairs.append((source, target))
    return pairs


def _shapes(model):
    """id of a weight -> its shape; in the last layer, that of one joint."""
    joints = model.output.shape[1]
    shapes = {id(weight): tuple(weight.shape) for weight in model.weights}
    for weight in _last(model).weights:
        shapes[id(weight)] = (*weight.shape[:-1], weight.shape[-1] / joints)
    return shapes


def _last(model):
    """The layer whose outputs are those of the joints."""
    return [layer for layer in model.layers if layer.weights][-1]


def _array(value, shape):
    array = np.asarray(value, np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"expected finite numbers {shape}, found {array.shape}")
    return array


def _load_weights(model, path, digest):
    """Weights of a file of this digest; None of earlier versions, which kept none."""
    most = 8 * model.count_params() + NAMES_BYTES
    try:
        content = files.read_bytes(path, most)
        if digest not in (None, hashlib.sha256(content).hexdigest()):
            raise ValueError(
                f"{path} is damaged: its digest is not that of stage.json beside it"
            )
        arrays = safetensors.numpy.load(content)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing") from error
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    variables = dict(_named_weights(model))
    if set(arrays) != set(variables):
        raise ValueError(f"{path} holds the weights of another network")
    for name, variable in variables.items():
        if tuple(arrays[name].shape) != tuple(variable.shape):
            raise ValueError(
                f"{path}: {name} is {arrays[name].shape}, not {tuple(variable.shape)}"
            )
        variable.assign(arrays[name].astype(np.float32))


def _named_weights(model) -> Iterator[tuple[str, tf.Variable]]:
    """(name, variable) by the layer's place: names of layers differ between Keras 2
    and 3 and from one build to the next."""
    layers = [layer for layer in model.layers if layer.weights]
    for i, layer in enumerate(layers):
        for variable in layer.weights:
            short = variable.name.split("/")[-1].split(":")[0]
            yield f"{i:03d}.{_COMMON_NAMES.get(short, short)}", variable


# What Keras 2 and 3 name differently: the kernel of a depthwise convolution.
_COMMON_NAMES = {"depthwise_kernel": "kernel"}
