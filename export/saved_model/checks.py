"""What a SavedModel must pass before it is put in place: it is loaded and run."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model.signatures import Limits

# How far exported keypoints may be from those of the Keras cascade, in pixels; or, of
# networks that magnify rounding, how far boxes moved by so much move its own.
NEAR = 1e-2
NUDGE = 1e-3

# Of TensorFlow's core, and no newer than 2.15: what any server of that age or later
# runs, without Python. Those of networks include all of `keras.applications`.
OPERATIONS = frozenset(
    """
    Abs Add AddV2 All Any Assert AvgPool BatchMatMulV2 BiasAdd BroadcastTo Case Cast
    ConcatV2 ConcatenateDataset Const Conv2D CropAndResize Cumsum
    DatasetToSingleElement DecodeJpeg DecodePng DecodeRaw DenseBincount DepthToSpace
    DepthwiseConv2dNative Elu EnsureShape Equal Erf Erfc Exp ExpandDims
    ExtractJpegShape Fill Floor FloorDiv FloorMod FusedBatchNormV3 GatherV2 Greater
    GreaterEqual Identity IdentityN If IgnoreErrorsDataset LRN LeakyRelu Less
    LessEqual Log LogicalAnd LogicalNot LogicalOr MapDataset MatMul MatrixDiagPartV3
    MatrixDiagV3 Max MaxPool Maximum Mean Min Minimum Mul Neg NoOp NotEqual OnesLike
    Pack Pad PadV2 PartitionedCall Placeholder Pow Prod Range ReadVariableOp RealDiv
    Relu Relu6 Reshape ResizeBilinear Rsqrt Select SelectV2 Selu Shape Sigmoid Sign Size
    Slice Softmax Softplus Split SplitV Sqrt Square SquaredDifference Squeeze
    StatefulPartitionedCall StatelessCase StatelessIf StatelessWhile StopGradient
    StridedSlice StringSplitV2 Sub Substr Sum TakeDataset Tanh TensorDataset
    TensorListFromTensor TensorListGetItem TensorListReserve TensorListSetItem
    TensorListStack Tile Transpose Unpack While ZerosLike
    """.split()
)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """[H, W, 3] uint8: patches of smooth colour. What a crop of it shows changes little
    when the crop moves little."""
    patches = np.random.default_rng(seed).uniform(0, 255, (6, 5, 3))
    large = tf.image.resize(patches, [height, width], "bicubic").numpy()
    return np.clip(large, 0, 255).astype(np.uint8)


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Pictures [B, H, W, 3] uint8 and boxes [B, 4] float32 to try a model on.

    The boxes are: the whole image, a part that reaches over its edge, and one that
    cannot be answered.
    """
    boxes = [[0, 0, 0, 0], [30, 50, 170, 140], [80, 90, 70, np.inf]]
    pictures = [picture(192, 160, seed) for seed in range(len(boxes))]
    return np.stack(pictures), np.float32(boxes)


def operations(function) -> set[str]:
    """The names of all operations of a concrete function and of what it calls.

    Raises:
      ValueError: one of them is compiled by XLA, which servers have not enabled.
    """
    content = function.graph.as_graph_def()
    for called in content.library.function:
        if called.attr["_XlaMustCompile"].b:
            raise ValueError(
                f"{called.signature.name} needs XLA, which servers have switched off. "
                "Keras 3 writes grouped convolutions so: choose another network"
            )
    names = {node.op for node in content.node}
    return names | {node.op for f in content.library.function for node in f.node_def}


def check(folder: str, cascade: Cascade, limits: Limits) -> float:
    """Reads a SavedModel back, runs its signatures, and compares with the cascade: how
    far keypoints are from the cascade's at most, in pixels.

    Raises:
      ValueError: the signatures are not as they should be, an operation is not one
        that every server has, or the answers differ.
    """
    signatures = tf.saved_model.load(folder).signatures
    for name, function in signatures.items():
        foreign = sorted(operations(function) - OPERATIONS)
        if foreign:
            raise ValueError(f"signature {name} needs operations {foreign}")
    pictures, boxes = examples()
    encoded = [tf.io.encode_png(picture).numpy() for picture in pictures[:2]]
    answers = [
        signatures["serving_default"](
            images=tf.constant(pictures), boxes=tf.constant(boxes)
        ),
        signatures["jpeg"](
            image_bytes=tf.constant([*encoded, b"no picture"]), boxes=tf.constant(boxes)
        ),
    ]
    if not answers[0]["valid"].numpy()[:2].all():
        raise ValueError("the networks' answers are no finite numbers: they diverged")
    expected = cascade.predict_batch(pictures, boxes)
    near = max(NEAR, _sensitivity(cascade, pictures, boxes, expected))
    return max(_distance(answer, expected, limits, near) for answer in answers)


def _sensitivity(cascade, pictures, boxes, expected):
    """How far poses move when their first boxes do by `NUDGE`, in pixels."""
    whole = np.float32([0, 0, pictures.shape[2], pictures.shape[1]])
    boxes = np.where(boxes.any(axis=1, keepdims=True), boxes, whole)
    moved = cascade.predict_batch(pictures, boxes + np.float32(NUDGE))
    return np.abs(moved["keypoints_by_stage"] - expected["keypoints_by_stage"]).max()


def _distance(answer, expected, limits, near):
    found = {name: value.numpy() for name, value in answer.items()}
    if set(found) != set(expected):
        raise ValueError(f"outputs are {sorted(found)}, not {sorted(expected)}")
    poses, wanted = found["keypoints_by_stage"], expected["keypoints_by_stage"]
    apart = np.abs(poses - wanted).max(axis=(2, 3))  # [B, S]
    if limits.tolerance is not None:
        # Stages after the last one that was run repeat its pose.
        repeated = (poses[:, 1:] == poses[:, :-1]).all(axis=(2, 3))
        apart[:, 1:][repeated] = 0.0
    same = (found["keypoints"] == poses[:, -1]).all()
    if not (
        same and apart.max() <= near and (found["valid"] == expected["valid"]).all()
    ):
        raise ValueError(
            f"answers are up to {apart.max():.4g} pixels from the Keras cascade's, or "
            f"valid differs: {found['valid']}, expected {expected['valid']}"
        )
    return float(apart.max())
