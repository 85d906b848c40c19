"""TFLite files of every kind: what is in them, and that they answer as the cascade."""

import numpy as np
import pytest
import tensorflow as tf
from toy_cascade import make

from deeppose_tf import geometry, sampling
from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import checks
from deeppose_tf.export.tflite import convert, delegates, flatbuffer, half, lite
from deeppose_tf.skeleton import LSP

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


@pytest.fixture(scope="module")
def cascade():
    return make(LSP)


@pytest.fixture(scope="module")
def content(cascade):
    """(kind, size) -> bytes of the file; each is converted once."""
    made = {}

    def of(kind, size=None):
        if (kind, size) not in made:
            seen = [
                (checks.picture(*SIZE, seed), box) for seed in (0, 1) for box in BOXES
            ]
            made[kind, size] = convert.convert(cascade, kind, size, seen)
        return made[kind, size]

    return of


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
    names = {one.name for one in delegates.operations(content(kind, size))}
    assert not any(name.startswith("CUSTOM") for name in names)
    assert ("WHILE" in names) == (size is None)
    assert size is None or not names & {"GATHER", "GATHER_ND", "IF", "SHAPE"}


def convolutions(content):
    """(type of input, type of weights) of all convolutions, in order."""
    model = flatbuffer.read(content)
    return [
        tuple(
            flatbuffer.TYPES[graph.tensors[i].type] for i in list(operator.inputs)[:2]
        )
        for graph in model.subgraphs
        for operator in graph.operators
        if flatbuffer.operator_name(model, operator) == "CONV_2D"
    ]


@pytest.mark.parametrize("size", [None, SIZE])
def test_networks_alone_are_int8(content, size):
    """Two convolutions that halve, two of one block and the head: five a stage."""
    found = convolutions(content("int8", size))
    assert found.count(("float32", "float32")) == 3  # the heads
    assert found.count(("int8", "int8")) == 12
    # Nothing of the geometry is rounded.
    kinds = {
        kind
        for one in delegates.operations(content("int8", size))
        if one.name in ("SUB", "DIV", "BATCH_MATMUL", "SQRT", "FLOOR", "SUM")
        for kind, _ in one.inputs + one.outputs
    }
    assert "int8" not in kinds


def test_dynamic_range_stores_weights_alone_as_int8(content):
    found = convolutions(content("dynamic_range", SIZE))
    assert ("float32", "int8") in found and {kind for kind, _ in found} == {"float32"}


def weights(content):
    """By name, the type of the constant weights of convolutions."""
    model = flatbuffer.read(content)
    found = {}
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if flatbuffer.is_constant(model, tensor) and len(tensor.shape) == 4:
                found[tensor.name.decode()] = flatbuffer.TYPES[tensor.type]
    return found


@pytest.mark.parametrize("size", [None, SIZE])
def test_float16_halves_weights_of_later_stages_and_nothing_else(
    cascade, content, size, monkeypatch
):
    # More than the 512 numbers of the 16 x 16 places whose mean the head answers.
    monkeypatch.setattr(half, "SMALLEST", 600)
    whole = content("float32", size)
    halves = convert.convert(cascade, "float16", size)
    found = weights(halves)
    first = {kind for name, kind in found.items() if name.startswith("stage_1/")}
    later = [kind for name, kind in found.items() if "stage_2/" in name]
    assert first == {"float32"} and later.count("float16") >= 4
    model = flatbuffer.read(halves)
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            if tensor.type == flatbuffer.schema.TensorType.FLOAT16:
                assert len(tensor.shape) == 4  # weights: no geometry
    # 2 bytes less for each of 2 x 6,000, but ten operations and tensors more.
    assert len(halves) < len(whole) - 12_000
    apart = distances(cascade, lite.Lite(halves, LSP), checks.picture(*SIZE))
    assert 1e-3 < apart[:, 1:].max() <= 0.25
    assert apart[:, 0].max() < 1e-3  # stage 1 is as it was


def test_only_large_weights_of_a_first_stage_are_halved(cascade, content, monkeypatch):
    model = flatbuffer.read(content("float32", None))
    sizes = sorted(
        int(np.prod(graph.tensors[index].shape))
        for graph in model.subgraphs
        for index in half._weights(model, graph)
        if graph.tensors[index].name.startswith(b"stage_1/")
    )
    monkeypatch.setattr(half, "SMALLEST_OF_FIRST", sizes[-1])
    found = weights(convert.convert(cascade, "float16"))
    first = [kind for name, kind in found.items() if name.startswith("stage_1/")]
    assert first.count("float16") == sizes.count(sizes[-1])


def test_a_single_stage_is_halved(cascade, monkeypatch):
    monkeypatch.setattr(half, "SMALLEST", 200)
    found = weights(convert.convert(Cascade(cascade.stages[:1]), "float16"))
    assert "float16" in {
        kind for name, kind in found.items() if name.startswith("stage_1/")
    }


def taken(content):
    """What XNNPACK takes of the first subgraph: by partition, numbers of operations."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    count = len(flatbuffer.read(content).subgraphs[0].operators)
    details = interpreter._get_ops_details()
    operators = [one for one in details if one["op_name"] != "DELEGATE"][:count]
    made = {t: i for i, one in enumerate(operators) for t in one["outputs"]}
    partitions = []
    for one in details:
        if one["op_name"] == "DELEGATE":
            found, todo = set(), list(one["outputs"])
            while todo:
                tensor = todo.pop()
                if tensor in one["inputs"] or made.get(tensor) in (None, *found):
                    continue
                found.add(made[tensor])
                todo += [i for i in operators[made[tensor]]["inputs"] if i >= 0]
            partitions.append(found)
    return partitions


@pytest.mark.parametrize("kind, size", CASES)
def test_the_table_of_delegates_is_what_xnnpack_takes(content, kind, size):
    pytest.importorskip("ai_edge_litert")
    partitions = taken(content(kind, size))
    count = len(flatbuffer.read(content(kind, size)).subgraphs[0].operators)
    operations = delegates.operations(content(kind, size))[:count]
    said = {i for i, one in enumerate(operations) if delegates.xnnpack_takes(one)}
    assert said == set().union(*partitions)


@pytest.mark.parametrize("kind", ["float32", "dynamic_range", "int8"])
def test_delegates_take_files_of_a_known_size_whole(content, kind):
    """All arithmetic from the first crop to the last pose is one partition. What is
    left looks at the box, casts the image, and marks what is not valid."""
    pytest.importorskip("ai_edge_litert")
    operations = delegates.operations(content(kind, SIZE))
    whole = max(taken(content(kind, SIZE)), key=len)
    for i, one in enumerate(operations):
        if one.name in ("CONV_2D", "BATCH_MATMUL", "SOFTMAX", "FULLY_CONNECTED"):
            assert i in whole and delegates.gpu_takes(one)
    left = [one.name for one in operations if not delegates.gpu_takes(one)]
    assert set(left) <= {"CAST", "STRIDED_SLICE"} and len(left) < 15


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
    for image in (np.zeros([60, 91, 3]), np.zeros([0, 91, 3], np.uint8)):
        with pytest.raises(ValueError, match="expected uint8 .* at least one pixel"):
            model.predict(image)
    with pytest.raises(ValueError, match="expected .N, 4."):
        model.predict(checks.picture(*SIZE), np.zeros([3]))
