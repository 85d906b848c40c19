"""Optimizers by name: Keras's own, and those of tensorflow-addons where installed.

tensorflow-addons is imported only when one of its optimizers is asked for.
"""

from __future__ import annotations

import inspect
import platform
import types

import tensorflow as tf

keras = tf.keras

NAMES = {
    "adagrad": "Adagrad",
    "sgd": "SGD",
    "adam": "Adam",
    "adamw": "AdamW",
    "lamb": "Lamb",
}

# Biases and normalisation parameters set a level, not a slope: they are not decayed.
UNDECAYED = [r"\b(bias|beta|gamma)\b"]


def build(
    name: str,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float = 0.0,
    initial_accumulator: float = 0.1,
) -> keras.optimizers.Optimizer:
    """Makes an optimizer for `apply_gradients`, under any strategy.

    In a `strategy.run` step `apply_gradients` sums the gradients over the replicas, so
    the loss has to be divided by the global batch.

    Args:
      name: one of `NAMES`, or `addons.` and the name of an optimizer of
        tensorflow-addons, such as `addons.LAMB`. `sgd` has momentum 0.9.
      learning_rate: a number or a Keras schedule over steps.
      weight_decay: the fraction of a weight that a step takes off, times the learning
        rate. Biases and normalisation parameters are spared, except by
        `addons.RectifiedAdam`, `addons.AdaBelief` and `addons.NovoGrad`.
      initial_accumulator: for `adagrad`, where the sum of squared gradients starts. A
        weight's first step is -learning_rate * g / sqrt(initial_accumulator + g^2).

    Raises:
      ValueError: the name is unknown, or what is installed does not have it.
    """
    if name.startswith("addons."):
        return _build_addons(name.removeprefix("addons."), learning_rate, weight_decay)
    if name == "lamb" and not hasattr(keras.optimizers, "Lamb"):
        raise ValueError(
            "optimizer lamb needs the Keras 3 of a newer TensorFlow; on TensorFlow "
            f"{tf.__version__} use addons.LAMB"
        )
    if name not in NAMES:
        raise ValueError(
            f"optimizer {name} is unknown: choose one of {', '.join(NAMES)}, or "
            "addons.NAME for one of tensorflow-addons, such as addons.LAMB"
        )
    more = {
        "adagrad": {"initial_accumulator_value": initial_accumulator},
        "sgd": {"momentum": 0.9},
    }
    # Only AdamW takes zero.
    decay = weight_decay if weight_decay or name == "adamw" else None
    optimizer = getattr(keras.optimizers, NAMES[name])(
        learning_rate, weight_decay=decay, **more.get(name, {})
    )
    if decay:
        optimizer.exclude_from_weight_decay(var_names=UNDECAYED)
    return optimizer


def create_state(
    optimizer: keras.optimizers.Optimizer, variables: list[tf.Variable]
) -> None:
    """Creates what the optimizer keeps per variable, before the first step.

    Call it under the strategy's scope: Keras 3 cannot do so inside a replica. The
    optimizers of tensorflow-addons can, and have no other way.
    """
    if hasattr(optimizer, "build"):
        optimizer.build(variables)


def _build_addons(name, learning_rate, weight_decay):
    module = _import_addons(name)
    choices = {key: kind for key, kind in vars(module).items() if _is_choice(kind)}
    if name not in choices:
        raise ValueError(
            f"optimizer addons.{name} does not exist, or needs more than a learning "
            f"rate: choose one of {', '.join(sorted(choices))}"
        )
    kind, decay = choices[name], float(weight_decay)
    if "weight_decay" not in inspect.signature(kind).parameters:
        if decay:
            raise ValueError(
                f"optimizer addons.{name} has no weight decay, and {decay} was asked "
                "for: set it to 0, or choose another optimizer"
            )
        return kind(learning_rate)
    if kind is module.LAMB:
        return kind(
            learning_rate, weight_decay=decay, exclude_from_weight_decay=UNDECAYED
        )
    if not issubclass(kind, module.DecoupledWeightDecayExtension):
        return kind(learning_rate, weight_decay=decay)
    # These leave the learning rate out of the decay. Keras does not.
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        decay = _Scaled(learning_rate, decay)
    else:
        decay *= learning_rate
    return kind(
        learning_rate=learning_rate,
        weight_decay=decay,
        exclude_from_weight_decay=UNDECAYED,
    )


class _Scaled(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule times a number."""

    def __init__(self, schedule, factor):
        self.schedule = schedule
        self.factor = factor

    def __call__(self, step):
        return self.factor * self.schedule(step)


def _import_addons(name) -> types.ModuleType:
    try:
        from tensorflow_addons import optimizers
    except ImportError as error:
        own = name.lower() if name.lower() in NAMES else None
        raise ValueError(
            f"optimizer addons.{name} needs tensorflow-addons, which does not work "
            f"here ({error}; Python {platform.python_version()}, TensorFlow "
            f"{tf.__version__}). Its last release, 0.23.0, is for Python 3.10 and 3.11 "
            "with TensorFlow 2.15 and nothing newer: make an environment with one of "
            "them and run pip install '.[addons]' in the project's folder"
            + (f", or choose {own}, which Keras itself has" if own else "")
        ) from error
    return optimizers


def _is_choice(value) -> bool:
    """Whether it is an optimizer that can be made from a rate and a decay."""
    legacy = keras.optimizers.legacy.Optimizer
    if not (isinstance(value, type) and issubclass(value, legacy)):
        return False
    parameters = inspect.signature(value).parameters
    needed = {
        name
        for name, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind is not parameter.VAR_KEYWORD
    }
    return "learning_rate" in parameters and needed <= {"learning_rate", "weight_decay"}
