"""TensorFlow.js graphs in the form of MoveNet's, of random numbers."""

import json

from deeppose_tf import networks

MODEL = "center_net_mobile_net_v2fpn_feature_extractor/model_1"


def published(model, random):
    """Name, as in the published graph, -> random numbers of a network of MoveNet."""
    tensors = {}
    for layer in model.layers:
        if not layer.weights or layer.name == networks.MAPS:
            continue
        name, shapes = layer.name, [tuple(weight.shape) for weight in layer.weights]
        ends = [f"{name}/Conv2D_weights", f"{name}/Conv2D_bn_offset"]
        if name.startswith("conv2d"):
            ends = [
                f"{name}/Conv2D/ReadVariableOp",
                f"{name}/BiasAdd/ReadVariableOp",
            ]
        elif name.startswith("separable"):
            plain = name.removesuffix("_depthwise")
            ends = [f"{plain}/{plain}_weights", f"{plain}/{plain}_bn_offset"]
            if plain.endswith("_4"):
                ends = [
                    f"{plain}/separable_conv2d/ReadVariableOp_1",
                    f"{plain}/BiasAdd/ReadVariableOp",
                ]
            if plain != name:
                ends = [f"{plain}/separable_conv2d/ReadVariableOp"]
        for end, shape in zip(ends, shapes, strict=True):
            tensors[f"{MODEL}/{end}"] = random.normal(0, 0.1, shape)
    tensors["kpt_heatmap_0/conv2d_5/Conv2D/ReadVariableOp"] = random.normal(
        0, 1, (1, 1, 96, 17)
    )
    tensors["kpt_heatmap_0/conv2d_5/BiasAdd/ReadVariableOp"] = random.normal(0, 1, 17)
    return {name: value.astype("<f2") for name, value in tensors.items()}


def write_graph(path, tensors, prefix="numbers"):
    """A TensorFlow.js graph of these tensors, in two files of numbers."""
    names = list(tensors)
    groups = []
    for i, part in enumerate((names[:50], names[50:])):
        numbers = f"{prefix}{i}.bin"
        content = b"".join(tensors[name].tobytes() for name in part)
        (path.parent / numbers).write_bytes(content)
        quantization = {"dtype": "float16", "original_dtype": "float32"}
        entries = [
            {
                "name": name,
                "shape": list(tensors[name].shape),
                "dtype": "float32",
                "quantization": quantization,
            }
            for name in part
        ]
        groups.append({"paths": [numbers], "weights": entries})
    path.write_text(json.dumps({"weightsManifest": groups}))
