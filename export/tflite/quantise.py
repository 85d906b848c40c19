"""Eight bits for a network: where to round its activations, and to which steps.

Only networks are rounded; geometry stays float32. A network's graph says by itself
which activations TFLite keeps in memory between two operations; their ranges are those
seen on the crops of every stage when the cascade looks at real people. The converter
then quantises what lies between rounded activations, weights by channel. The last layer
stays float32: what it answers is a place.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from deeppose_tf.cascade import Cascade
from deeppose_tf.export.tflite.constants import Network, with_networks

WEIGHTED = ("Conv2D", "DepthwiseConv2dNative", "MatMul")
# What the converter merges into the weighted operation before it.
MERGED = "BiasAdd FusedBatchNormV3 AddV2 Mul RealDiv Sub Relu Relu6".split()


def quantised(
    cascade: Cascade, people: Iterable[tuple[np.ndarray, np.ndarray]]
) -> Cascade:
    """Rounds activations to 256 steps over the ranges that they have on real crops.

    Args:
      cascade: of constants, see `constants.frozen`.
      people: image [H, W, 3] uint8 and first box [4] of each.

    Raises:
      ValueError: there are no people.
    """
    networks = [stage.model for stage in cascade.stages]
    names = [rounded_tensors(network) for network in networks]
    seen = [[] for _ in networks]
    observed = with_networks(
        cascade,
        [_observed(*each) for each in zip(networks, names, seen, strict=True)],
    )
    for image, box in people:
        observed.poses(image[None], np.float32(box)[None], np.zeros(1, np.int32))
    if not seen[0]:
        raise ValueError("nobody to see the ranges of activations on")
    return with_networks(
        cascade,
        [
            _rounded(network, dict(zip(tensors, _ranges(rows), strict=True)))
            for network, tensors, rows in zip(networks, names, seen, strict=True)
        ],
    )


def rounded_tensors(network: Network) -> list[str]:
    """The operations of a network whose results are rounded.

    They are what weighted operations read, and what is left of these once others are
    merged into them, up to the last weighted operation, which is not quantised.
    """
    live = _live(network)
    readers = {name: [] for name in live}
    for node in network.graph.node:
        for name in live.get(node.name, ()):
            readers[name].append(node)

    def single(node, kinds):
        return node.op in kinds and len(live[node.name]) == 1

    inner = _before_weights(network, readers, single)
    # Results: of weighted operations and sums, and of what is merged into them.
    found, results = [], set()
    for node in network.graph.node:
        if node.name not in inner:
            continue
        goes_on = single(node, MERGED) and live[node.name][0] in results
        sums = node.op == "AddV2" and len(live[node.name]) == 2
        if single(node, WEIGHTED) or sums or goes_on:
            results.add(node.name)
        after = readers[node.name]
        read = any(single(n, WEIGHTED) and n.name in inner for n in after)
        ends = node.name in results and not (
            len(after) == 1 and single(after[0], MERGED)
        )
        if read or ends:
            found.append(node.name)
    return found


def _before_weights(network, readers, single):
    """Names of the operations that a weighted one comes after, sooner or later."""
    found = set()
    for node in reversed(network.graph.node):
        after = readers.get(node.name, ())
        if any(single(n, WEIGHTED) or n.name in found for n in after):
            found.add(node.name)
    return found


def _live(network):
    """By name of an operation that depends on crops: of which that do it reads."""
    live = {_operation(network.input): []}
    for node in network.graph.node:
        sources = [name for name in map(_operation, node.input) if name in live]
        if sources:
            live[node.name] = sources
    return live


def _operation(name):
    return name.lstrip("^").split(":")[0]


def _observed(network, names, seen):
    """The network, which notes the range [T, 2] of each tensor at each call."""

    @tf.function(autograph=False)
    def observe(crops):
        answer, *tensors = network.tensors(
            crops, [network.output, *(f"{name}:0" for name in names)]
        )
        ranges = [tf.stack([tf.reduce_min(t), tf.reduce_max(t)]) for t in tensors]
        return answer, tf.stack(ranges)

    def call(crops, training=False):
        answer, ranges = observe(crops)
        seen.append(ranges.numpy())
        return answer

    return call


def _ranges(rows):
    """[N, T, 2] -> [T, 2], with zero in it, which has to be one of the steps."""
    rows = np.asarray(rows)
    low, high = rows[..., 0].min(0), rows[..., 1].max(0)
    return np.stack([np.minimum(low, 0), np.maximum(high, 1e-6)], axis=-1)


def _rounded(network, ranges):
    """The network with an operation that rounds after each of these."""
    graph = type(network.graph)()
    graph.CopyFrom(network.graph)
    del graph.node[:]
    renamed = {}
    for node in network.graph.node:
        copy = graph.node.add()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            copy.input[i] = renamed.get(name.removesuffix(":0"), name)
        if node.name in ranges:
            low, high = map(float, ranges[node.name])
            rounding = graph.node.add(
                name=f"{node.name}/rounded",
                op="FakeQuantWithMinMaxArgs",
                input=[node.name],
            )
            rounding.attr["min"].f, rounding.attr["max"].f = low, high
            rounding.attr["num_bits"].i = 8
            renamed[node.name] = rounding.name
    return dataclasses.replace(network, graph=graph)
