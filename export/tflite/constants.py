"""The networks of a cascade as graphs of constants, as TFLite's converter wants them.

Variables reach the body of a loop as its arguments. TFLite then folds nothing into
them, quantises nothing, and rearranges all weights at every stage. A network whose
weights are constants is copied into wherever it is called, whole: the converter sees
stand-ins there, and each network by itself.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

# Not public, but what TensorFlow's own guides freeze a function with.
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)

from deeppose_tf import networks
from deeppose_tf.cascade import Cascade

# Operations of a stage's network have names that begin so, and with its number.
STAGE = "stage_"


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that can be called as the Keras model that it was.

    Attributes:
      name: prefix of its operations wherever it is called.
      graph: a `GraphDef` without variables.
      input: name of the tensor [M, S, S, 3] that crops are fed to.
      output: name of the tensor [M, K, 2 or 4] of its answer.
      crops: shape of the one.
      answer: shape of the other.
    """

    name: str
    graph: Any
    input: str
    output: str
    crops: tuple[int, ...]
    answer: tuple[int, ...]

    def __call__(self, crops: tf.Tensor, training: bool = False) -> tf.Tensor:
        """[M, S, S, 3] -> [M, K, 2 or 4]; there is nothing that could be trained."""
        return self.tensors(crops, [self.output])[0]

    def tensors(self, crops: tf.Tensor, names: list[str]) -> list[tf.Tensor]:
        """The tensors of these names, for these crops."""
        return tf.graph_util.import_graph_def(
            self.graph, {self.input: crops}, names, name=self.name
        )


def frozen(cascade: Cascade) -> Cascade:
    """The same cascade of constants, for one person at a time."""
    joints = len(cascade.skeleton.joints)
    return with_networks(
        cascade,
        [
            _frozen(stage.spreading, f"{STAGE}{i + 1}", joints if i else 1)
            for i, stage in enumerate(cascade.stages)
        ],
    )


def with_networks(cascade: Cascade, called: Iterable) -> Cascade:
    """The same cascade with other things to call for the networks of its stages."""
    return Cascade(
        [
            dataclasses.replace(stage, model=model)
            for stage, model in zip(cascade.stages, called, strict=True)
        ]
    )


def _frozen(model, name, crops):
    spec = tf.TensorSpec([crops, *model.input.shape[1:]], tf.float32, "crops")
    with networks.delegable():
        function = tf.function(
            lambda x: model(x, training=False), input_signature=[spec], autograph=False
        ).get_concrete_function()
    function = convert_variables_to_constants_v2(function, lower_control_flow=False)
    network = Network(
        name,
        function.graph.as_graph_def(),
        function.inputs[0].name,
        function.outputs[0].name,
        tuple(spec.shape),
        tuple(function.outputs[0].shape),
    )
    del function
    forget()
    return network


def forget() -> None:
    """Frees the copies of weights in functions that nobody calls any more.

    Functions refer to themselves, so that they stay until Python looks for such things,
    which it does by their number: a network's few hold gigabytes.
    """
    gc.collect()


def stand_in(network: Network) -> Callable[..., tf.Tensor]:
    """What can be called as a network, and becomes a custom operation of its name.

    See https://ai.google.dev/edge/litert/conversion/tensorflow/operation_fusion.
    """
    fused = 'attr { key: "tfl_fusable_op" value { b: true } }'

    @tf.function(
        input_signature=[tf.TensorSpec(network.crops, tf.float32)],
        autograph=False,
        experimental_implements=f'name: "{network.name}" {fused}',
    )
    def stand(crops):  # its shapes are all that is looked at
        return tf.zeros(network.answer) + tf.reduce_sum(crops)

    return lambda crops, training=False: stand(crops)
