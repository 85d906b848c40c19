"""Training that takes seconds: sixteen generated figures and networks to match.

Run as a program it trains the first stage in processes of their own; see `main`.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
import json
import os
import pathlib
import random
import signal
import socket
import sys
import time
import traceback

import tensorflow as tf

from deeppose_tf import layers, sampling
from deeppose_tf.config import StageConfig
from deeppose_tf.datasets import generated
from deeppose_tf.pipelines.data import canvases, inputs, records
from deeppose_tf.pipelines.data.config import AugmentConfig, InputConfig
from deeppose_tf.pipelines.train import cascade as train_cascade
from deeppose_tf.pipelines.train import loop, recipes, strategies, validation
from deeppose_tf.pipelines.train import step as steps
from deeppose_tf.pipelines.train.recipes import TrainConfig

keras = tf.keras

COUNTS = {"train": 16, "validation": 4, "test": 0}
JOINTS = 14
# Normalisation, dropout, a schedule and a moving average: everything with a memory.
RECIPE = recipes.Recipe(
    StageConfig("compact", 32, "linear", (4,), (0,), dropout=0.3),
    InputConfig(canvas=48, batch=6),
    AugmentConfig(flip=True, translation=0.1, rotation=20.0),
    TrainConfig(
        steps=12,
        optimizer="adamw",
        learning_rate=1e-2,
        schedule="cosine",
        warmup=0.2,
        weight_decay=0.1,
        ema=0.9,
    ),
)
REFINER = dataclasses.replace(
    RECIPE,
    inputs=InputConfig(canvas=48, batch=12, views=2),
    augment=AugmentConfig(flip=True),
)
CACHES = "none", "device", "memory", "disk"
QUIET = loop.Options(verbose=0, guard=False, checkpoint_seconds=0, evaluations=1)


def make_index(folder: pathlib.Path) -> records.Index:
    """Prepares the figures."""
    splits = {
        split: generated.read(str(folder / "figures"), split, COUNTS)
        for split in ("train", "validation")
    }
    return records.write(splits, str(folder / "data"))


def dense(precision: str = "float32") -> keras.Model:
    """Crops of 32 -> joints, through one matrix: nothing differs between replicas."""
    parts = [
        keras.Input([32, 32, 3]),
        keras.layers.AveragePooling2D(4),
        keras.layers.Flatten(),
        keras.layers.Dense(2 * JOINTS, kernel_initializer="zeros"),
        keras.layers.Reshape([JOINTS, 2], dtype="float32"),
    ]
    return keras.Sequential(parts)


def forgetful(precision: str = "float32") -> keras.Model:
    """As `dense`, with normalisation and dropout, whose states a resume must keep."""
    crops = keras.Input([32, 32, 3])
    x = keras.layers.Conv2D(4, 3, 4)(crops)
    x = keras.layers.BatchNormalization()(x)
    x = layers.Dropout(0.5, 0)(keras.layers.Flatten()(x))
    x = keras.layers.Dense(2 * JOINTS)(x)
    return keras.Model(crops, keras.layers.Reshape([JOINTS, 2])(x))


def plain(canvases, keypoints, labeled, boxes, draws):
    """The middle of every canvas, in a contrast that is drawn. To compile the crops of
    a recipe takes longer than all else in a training of a few steps."""
    crops = sampling.preprocess(canvases[:, 8:-8, 8:-8]) * draws[:, :1, :1, None]
    weight = tf.cast(labeled, tf.float32)
    return crops, (keypoints - 24) / 32 * weight[..., None], weight


# What a training looks like without the crops of its recipe and without scores.
PLAIN = (
    (train_cascade, "make_examples", lambda *_: plain),
    (validation, "evaluator", lambda *_: lambda step: {}),
)


def train(
    index,
    directory,
    config,
    build=dense,
    strategy=None,
    evaluate=lambda step: {},
    **options,
):
    """`loop.train` on `plain` figures, looking at `evaluate`, step -> report, twice."""
    shown = RECIPE.inputs
    strategy = strategy or strategies.make_strategy("one")
    state = steps.make_state(build, config, strategy)
    options = {"evaluations": 2, "between": 1, "verbose": 0, "guard": False} | options
    options = loop.Options(**options)
    people = canvases.open_people(index, shown, options.cache)
    data = loop.StageData(
        functools.partial(inputs.training_dataset, people, shown, options.seed),
        plain,
        shown.batch,
        shown.batch,
        evaluate,
        people,
    )
    return loop.train(state, data, config, str(directory), strategy, options)


def recipe_for(number: int) -> recipes.Recipe:
    """Six steps of either stage."""
    recipe = RECIPE if number == 1 else REFINER
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, steps=6))


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on."""
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def main(data: str, folder: str, length: str, kills: str) -> None:
    """Trains stage 1 into `folder/whole`, and beside it into `folder/killed`, killed so
    many times, and resumed each time.

    Every step writes a checkpoint. Every other kill comes before one gets its name, the
    first of all among them; the rest come at random. Each goes on with its people kept
    elsewhere. Where kills are few it is `PLAIN`.
    The work is done in forks of this process, which spares them TensorFlow's import.
    """
    if int(kills) < 3:
        for module, name, value in PLAIN:
            setattr(module, name, value)
    gc.freeze()  # A training begins with a collection, which has nothing to look for.
    whole = _fork(data, pathlib.Path(folder) / "whole", int(length), "disk")
    run = pathlib.Path(folder) / "killed"
    moments = _kill(data, run, int(length), int(kills))
    os.waitpid(whole, 0)
    os.waitpid(_fork(data, run, int(length), "memory"), 0)
    print(json.dumps(moments))


def _kill(data, run, length, kills):
    """Steps at which trainings were killed, and whether in the midst of writing."""
    chance = random.Random(kills)
    folder = run / "training_1" / "checkpoints"
    moments = []
    for number in range(kills):
        begun, halfway = _newest(folder), number % 2 == 0
        cache = CACHES[number % len(CACHES)]
        child = _fork(data, run, length, cache, begun + 1 if halfway else None)
        if not halfway:
            while _newest(folder) <= begun:
                _rest(child)
            until = time.monotonic() + chance.uniform(0, 0.1)
            while _newest(folder) <= begun + 2 and time.monotonic() < until:
                _rest(child)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        partial = bool(list(folder.glob(f"*{loop.PARTIAL}.index")))
        moments.append([_newest(folder), partial])
    return moments


def share(data: str, run: str) -> None:
    """Trains two stages, with whom TF_CONFIG names, where it is set."""
    workers = "multiworker" if "TF_CONFIG" in os.environ else "one"
    options = dataclasses.replace(QUIET, strategy=workers)
    train_cascade.train_cascade(run, records.read_index(data), recipe_for, 2, options)


def _fork(data, run, length, cache, fatal=None):
    """The process of a training that keeps people in this `cache`; `fatal` is the step
    whose checkpoint is its last."""
    child = os.fork()
    if child:
        return child

    def rename(source, target):
        if pathlib.Path(target).name.startswith(f"ckpt-{fatal}."):
            os.kill(os.getpid(), signal.SIGKILL)
        os.rename(source, target)

    os.replace = rename
    status = 1
    try:
        tf.config.experimental.enable_op_determinism()
        config = dataclasses.replace(RECIPE.train, steps=length)
        recipe = dataclasses.replace(RECIPE, train=config)
        options = dataclasses.replace(QUIET, cache=cache)
        index = records.read_index(data)
        train_cascade.train_stage(str(run), 1, index, recipe, options)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(status)


def _newest(folder):
    """The step of the newest checkpoint that is whole."""
    return max(loop.checkpoint_steps(folder), default=0)


def _rest(child):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        raise SystemExit(f"training ended by itself, with status {status}")
    time.sleep(0.0005)


if __name__ == "__main__":
    main(*sys.argv[1:]) if len(sys.argv) > 3 else share(*sys.argv[1:])
