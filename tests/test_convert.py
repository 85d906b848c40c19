"""TFLite files of every kind: what is in them, and that they answer as the cascade."""

import functools
import os
import sys

import numpy as np
import pytest
import tensorflow as tf
from toy_cascade import CONFIGS, make

from deeppose_tf import geometry, sampling
from deeppose_tf.cascade import Cascade
from deeppose_tf.config import StageConfig
from deeppose_tf.export.saved_model import checks, signatures
from deeppose_tf.export.tflite import convert, export, lite
from deeppose_tf.skeleton import LSP
from deeppose_tf.stage import Stage

keras = tf.keras

SIZE = (60, 91)
BOXES = np.float32([[20, 10, 70, 50], [0, 0, 0, 0], [-300, -200, 500, 400]])
HOSTILE = np.float32(
    [
        [np.nan, 0, 10, 10],
        [0, 0, np.inf, 10],
        [-np.inf, 0, 10, 10],
        [10, 10, 5, 20],
        [10, 10, 10, 20],
        [-1e30, -1e30, 1e30, 1e30],
        [1e30, 1e30, 1e30, 1e30],
    ]
)
# Pixels of images of 60 x 91, of a cascade that was never trained to be steady. The
# kinds differ by what they round; float32 by the last place, magnified by two stages.
NEAR = {"float32": 0.01, "float16": 0.25, "dynamic_range": 1.5, "int8": 5.0}
CASES = [
    ("float32", None),
    ("float32", SIZE),
    ("float16", None),
    ("dynamic_range", SIZE),
    ("int8", None),
    ("int8", SIZE),
]


@pytest.fixture(scope="module", autouse=True)
def converted_once():
    """A cascade is converted once for a size; what is rounded, for each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "_converted", functools.cache(convert._converted))
        yield


@pytest.fixture(scope="module")
def cascade():
    return make(LSP)


@pytest.fixture(scope="module")
def content(cascade):
    """(kind, size) -> bytes of the file."""
    seen = [(checks.picture(*SIZE, seed), box) for seed in (0, 1) for box in BOXES]
    return functools.cache(
        lambda kind, size=None: convert.convert(cascade, kind, size, seen)
    )


def distances(cascade, model, image, boxes=BOXES):
    expected, found = cascade.predict(image, boxes), model.predict(image, boxes)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype
    np.testing.assert_array_equal(found["valid"], expected["valid"])
    apart = found["keypoints_by_stage"] - expected["keypoints_by_stage"]
    np.testing.assert_array_equal(
        found["keypoints"], found["keypoints_by_stage"][:, -1]
    )
    return np.linalg.norm(apart, axis=-1)  # [N, S, K]


@pytest.mark.parametrize("kind, size", CASES)
def test_every_kind_answers_as_the_cascade(cascade, content, kind, size):
    model = lite.Lite(content(kind, size), LSP)
    assert model.size == size
    apart = distances(cascade, model, checks.picture(*SIZE))
    assert apart.max() <= NEAR[kind]
    # What is rounded differs at all: the file is of this kind.
    assert (apart.max() > 0.02) == (kind in ("dynamic_range", "int8"))


@pytest.fixture(scope="module")
def linear():
    """Without maps, whose scores are of a second look of the first stage."""
    first = StageConfig("compact", 48, "linear", (8, 16), (0, 1), margin=0.1)
    later = StageConfig("compact", 32, "linear", (8, 16), (1, 0), sigma=1.5)
    return make(LSP, (first, later))


@pytest.mark.parametrize(
    ("head", "size"), [("integral", None), ("integral", SIZE), ("linear", None)]
)
def test_keypoints_and_scores_are_the_same_by_every_way(head, size, cascade, linear):
    """To a hundredth of a pixel and a thousandth of each score."""
    cascade = {"integral": cascade, "linear": linear}[head]
    image = checks.picture(*SIZE)
    boxes = np.float32([*BOXES, [80, 50, 110, 90]])  # partly beside the image
    expected = cascade.predict(image, boxes)
    assert expected["scores"].max() > 2 * expected["scores"].min() > 0
    model = lite.Lite(convert.convert(cascade, size=size), LSP)
    ways = [model.predict(image, boxes)]
    if size is None:
        functions = signatures.functions(cascade, signatures.Limits())
        ways += [functions["serving_default"](np.stack([image] * len(boxes)), boxes)]
    for found in ways:
        for name, near in (("keypoints", {"atol": 0.01}), ("scores", {"rtol": 1e-3})):
            np.testing.assert_allclose(found[name], expected[name], **near)


def test_int8_of_a_linear_head_whose_first_stage_looks_twice(linear):
    """The two calls of one network have no name in common but that of the stage, in
    which the geometry is: where that was taken for the network, int8 failed."""
    cascade, image = linear, checks.picture(*SIZE)
    seen = [(image, box) for box in BOXES]
    content = convert.convert(cascade, "int8", None, seen)
    kinds = [one[:2] for one in convolutions(content)]
    # Four convolutions a network, of which the first stays float32; three networks.
    assert kinds.count(("float32", "float32")) == 3
    assert kinds.count(("int8", "int8")) == 9
    # Of boxes 50, 91 and 800 pixels wide; an untrained linear head magnifies rounding.
    apart = distances(cascade, lite.Lite(content, LSP), image)[:, 0] / [
        [50],
        [91],
        [800],
    ]
    assert apart.max() <= 0.25


def doubling():
    """A stage of the layers of phones: depthwise convolutions, bilinear doublings."""
    keras.utils.set_random_seed(0)  # with some weights int8 is eight pixels away
    crops = keras.Input([32, 32, 3])
    x = keras.layers.Conv2D(8, 3, 2, padding="same", activation="relu")(crops)
    y = keras.layers.DepthwiseConv2D(3, 2, padding="same", use_bias=False)(x)
    y = keras.layers.BatchNormalization()(y)
    y = keras.layers.Conv2D(8, 1, activation="relu")(keras.layers.ReLU(6.0)(y))
    y = keras.layers.UpSampling2D(2, interpolation="bilinear")(y)
    x = keras.layers.Conv2D(8, 1, activation="relu")(keras.layers.Add()([x, y]))
    x = keras.layers.Dense(28)(keras.layers.GlobalAveragePooling2D()(x))
    model = keras.Model(crops, keras.layers.Reshape([14, 2])(x))
    config = StageConfig("compact", 32, "linear", (8,), (0,), margin=0.1)
    return Stage(config, LSP, model, np.zeros([14, 2]), np.zeros([14, 2, 2]), {})


def test_depthwise_convolutions_and_bilinear_doublings_are_rounded():
    cascade, image = Cascade([doubling()]), checks.picture(*SIZE)
    served = signatures.functions(cascade, signatures.Limits())["serving_default"]
    assert checks.operations(served.get_concrete_function()) <= checks.OPERATIONS
    content = convert.convert(cascade, "int8", SIZE, [(image, box) for box in BOXES])
    operations, tensors = details(content)
    for name in ("DEPTHWISE_CONV_2D", "RESIZE_BILINEAR"):
        found = [one for one in operations if one["op_name"] == name]
        assert len(found) == 2  # a linear head looks twice
        for one in found:
            for i in (one["inputs"][0], one["outputs"][0]):
                assert np.dtype(tensors[i]["dtype"]) == np.int8
    assert distances(cascade, lite.Lite(content, LSP), image).max() <= NEAR["int8"]


def test_images_of_any_size(cascade, content):
    model = lite.Lite(content("float32"), LSP)
    for size in ((200, 130), (1, 1), (7, 300), (31, 2)):
        assert distances(cascade, model, checks.picture(*size)).max() <= 0.01


@pytest.mark.parametrize("kind, size", CASES)
def test_hostile_boxes_are_not_valid_and_harm_nothing(content, kind, size):
    model = lite.Lite(content(kind, size), LSP)
    answer = model.predict(checks.picture(*SIZE), HOSTILE)
    assert not answer["valid"].any()
    for name in ("keypoints", "keypoints_by_stage", "scores"):
        assert not answer[name].any()
    assert model.predict(checks.picture(*SIZE), BOXES)["valid"].all()


@pytest.mark.parametrize("kind, size", CASES)
def test_nothing_but_builtin_operations(content, kind, size):
    names = {row["operation"] for row in export.operations(content(kind, size))}
    assert not any(name.startswith(("CUSTOM", "Flex")) for name in names)
    assert "WHILE" not in names
    assert size is None or not names & {"GATHER", "GATHER_ND", "IF", "SHAPE"}


def details(content):
    """(operations, tensors by number) of the first subgraph, as they are in the file.

    A part of the interpreter's inside: no public function tells them.
    """
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    resolver = interpreter.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    model = interpreter.Interpreter(
        model_content=content, experimental_op_resolver_type=resolver
    )
    tensors = {one["index"]: one for one in model.get_tensor_details()}
    return model._get_ops_details(), tensors


@pytest.mark.parametrize("size", [None, SIZE])
def test_images_are_not_sliced(content, size):
    """Of bytes TFLite copies a slice one by one: that took a quarter of the time."""
    operations, tensors = details(content("float32", size))
    for one in operations:
        if tensors[one["inputs"][0]]["dtype"] == np.uint8:
            assert one["op_name"] != "STRIDED_SLICE"


def convolutions(content):
    """(type of input, type of weights, stage) of all convolutions, in order."""
    operations, tensors = details(content)
    made = {one["outputs"][0]: one for one in operations if len(one["outputs"]) == 1}
    found = []
    for one in operations:
        if one["op_name"] == "CONV_2D":
            weights = one["inputs"][1]
            if weights in made:  # float16, which is expanded
                weights = made[weights]["inputs"][0]
            kinds = [
                np.dtype(tensors[i]["dtype"]).name for i in (one["inputs"][0], weights)
            ]
            name = tensors[one["outputs"][0]]["name"]
            found.append((*kinds, int(name.split("stage_")[1][0])))
    return found


@pytest.mark.parametrize("size", [None, SIZE])
def test_networks_alone_are_int8(content, size):
    """Two convolutions that halve, two of one block and the head: five a stage. The
    first of them and the head stay float32."""
    found = [one[:2] for one in convolutions(content("int8", size))]
    assert found.count(("float32", "float32")) == 6
    assert found.count(("int8", "int8")) == 9
    # Nothing of the geometry is rounded, nor what makes places of maps.
    operations, tensors = details(content("int8", size))
    kinds = {
        np.dtype(tensors[i]["dtype"]).name
        for one in operations
        if one["op_name"]
        in ("SUB", "DIV", "BATCH_MATMUL", "SQRT", "FLOOR", "SUM", "SOFTMAX")
        for i in (*one["inputs"], *one["outputs"])
        if i in tensors
    }
    assert "int8" not in kinds


def test_dynamic_range_stores_large_weights_alone_as_int8(content):
    """Of 3 x 3 places, 3, 8 or 16 channels and 8 or 16 filters, and the heads: 216,
    1152, 2304, 2304 and 896 numbers in two stages, 216, 576, 576, 1152, 224 in one."""
    found = convolutions(content("dynamic_range", SIZE))
    assert {one[0] for one in found} == {"float32"}
    rounded = [kind == "int8" for _, kind, _ in found]
    assert rounded == 2 * [False, True, True, True, False] + [False] * 3 + [True, False]


@pytest.mark.parametrize("size", [None, SIZE])
def test_float16_halves_large_weights_of_networks_and_nothing_else(
    cascade, content, size, monkeypatch
):
    # Of convolutions of 8 and more channels: 9 x 8 x 8 = 576.
    monkeypatch.setitem(convert.SMALLEST, "float16", (10**6, 600))
    whole, halves = content("float32", size), convert.convert(cascade, "float16", size)
    found = convolutions(halves)
    assert {kind for _, kind, stage in found if stage == 1} == {"float32"}
    later = [kind for _, kind, stage in found if stage == 2]
    assert later.count("float16") >= 3 and "float32" in later
    _, tensors = details(halves)
    for one in tensors.values():
        if np.dtype(one["dtype"]) == np.float16:
            assert len(one["shape"]) == 4  # weights: no geometry
    # 2 bytes less for each of 2 x 6,000, but ten operations and tensors more.
    assert len(halves) < len(whole) - 12_000
    apart = distances(cascade, lite.Lite(halves, LSP), checks.picture(*SIZE))
    assert 1e-3 < apart[:, 1:].max() <= 0.25
    assert apart[:, 0].max() < 1e-3  # stage 1 is as it was


def test_only_large_weights_of_a_first_stage_are_halved(cascade, monkeypatch):
    """The largest of the toy's: 9 places of 16 by 16 channels."""
    monkeypatch.setitem(convert.SMALLEST, "float16", (9 * 16 * 16, 10**6))
    kinds = convolutions(convert.convert(cascade, "float16"))
    first = [kind for _, kind, stage in kinds if stage == 1]
    assert first.count("float16") == 2  # of one block


def test_a_single_stage_is_halved_without_a_word(cascade, monkeypatch, capfd):
    """The converter, the quantizer and their C++ print dozens of lines."""
    monkeypatch.setitem(convert.SMALLEST, "float16", (10**6, 200))
    content = convert.convert(Cascade(cascade.stages[:1]), "float16")
    assert capfd.readouterr() == ("", "")
    assert "float16" in {kind for _, kind, _ in convolutions(content)}


@pytest.mark.parametrize("kind", ["float32", "dynamic_range", "int8"])
def test_delegates_take_files_of_a_known_size_whole(content, kind):
    """XNNPACK takes all arithmetic from the first crop to the last pose as one piece.
    What is left looks at the box, casts the image, and marks what is not valid."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    model = interpreter.Interpreter(model_content=content(kind, SIZE), num_threads=1)
    model.allocate_tensors()
    operations = model._get_ops_details()
    made = {
        tensor: one
        for one in operations
        if one["op_name"] != "DELEGATE"
        for tensor in one["outputs"]
    }

    def inside(delegate):
        found, todo = {}, list(delegate["outputs"])
        while todo:
            tensor = todo.pop()
            one = made.get(tensor)
            if tensor in delegate["inputs"] or one is None or one["index"] in found:
                continue
            found[one["index"]] = one["op_name"]
            todo += [i for i in one["inputs"] if i >= 0]
        return found

    pieces = [inside(one) for one in operations if one["op_name"] == "DELEGATE"]
    whole = max(pieces, key=len)
    for one in operations:
        if one["op_name"] in ("CONV_2D", "BATCH_MATMUL", "SOFTMAX", "FULLY_CONNECTED"):
            assert one["index"] in whole


def test_what_was_said_before_a_failure_is_shown(capfd):
    with pytest.raises(RuntimeError), convert.quietly():
        os.write(1, b"why")
        raise RuntimeError
    assert capfd.readouterr() == ("", "why")


def test_without_the_quantizer(cascade, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(ValueError, match="float16 needs ai-edge-quantizer: pip"):
        convert._quantized(b"", "float16", [], ())


def test_diverged_networks_and_empty_images_by_every_way():
    """Cascade.predict raised where exports answered `valid` = false."""
    diverged = make(LSP, [CONFIGS[0]])
    for variable in diverged.stages[0].model.weights:
        variable.assign(np.full(variable.shape, np.nan, np.float32))
    image, nothing = checks.picture(*SIZE), np.zeros([0, 91, 3], np.uint8)
    served = signatures.functions(diverged, signatures.Limits())["serving_default"]
    model = lite.Lite(convert.convert(diverged), LSP)
    for one in (image, nothing):
        answers = [
            diverged.predict(one),
            served(one[None], np.zeros([1, 4], np.float32)),
            model.predict(one),
        ]
        for answer in answers:
            assert not any(np.any(np.asarray(value)) for value in answer.values())


def test_what_cannot_be_converted(cascade):
    with pytest.raises(ValueError, match="kind 'int4' is none of float32, float16"):
        convert.convert(cascade, "int4")
    with pytest.raises(ValueError, match="nobody to see the ranges"):
        convert.convert(cascade, "int8")


def test_a_canvas_of_a_fixed_size(cascade, content):
    """An image of twice the height: shrunk to a half, at the top left, grey beside."""
    image = np.repeat(np.repeat(checks.picture(60, 50), 2, 0), 2, 1)  # 120 x 100
    canvas, box, scale = lite.fit(image, np.float32([10, 20, 90, 110]), SIZE)
    np.testing.assert_array_equal(scale, [0.5, 0.5])
    np.testing.assert_array_equal(box, [5, 10, 45, 55])
    np.testing.assert_array_equal(canvas[:, :50], checks.picture(60, 50))
    assert (canvas[:, 50:] == sampling.PADDING).all()
    _, whole, _ = lite.fit(image, np.zeros(4), SIZE)
    height, width = image.shape[:2]
    for beyond in ([width, 0, width + 9, 9], [-9, 0, 0, 9], [0, height, 9, height + 9]):
        assert np.isnan(lite.fit(image, np.float32(beyond), SIZE)[1]).all()
    np.testing.assert_array_equal(whole, [0, 0, 50, 60])
    small, _, scale = lite.fit(checks.picture(9, 5), np.zeros(4), SIZE)
    np.testing.assert_array_equal(scale, [1, 1])
    np.testing.assert_array_equal(small[:9, :5], checks.picture(9, 5))
    center = geometry.box_center(tf.constant([box])).numpy()
    np.testing.assert_allclose(center / scale, [[25, 32.5]])


def test_lite_says_what_it_cannot_take(content):
    model = lite.Lite(content("float32", SIZE), LSP)
    with pytest.raises(ValueError, match="takes .60, 91. only"):
        model.predict(checks.picture(10, 10))
    with pytest.raises(ValueError, match="expected uint8"):
        model.predict(np.zeros([60, 91, 3]))
    with pytest.raises(ValueError, match="expected .N, 4."):
        model.predict(checks.picture(*SIZE), np.zeros([3]))
