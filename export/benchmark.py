"""What a person's pose costs, exported in every way."""

from __future__ import annotations

import functools
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeppose_tf.cascade import Cascade
from deeppose_tf.export.saved_model import cropping, export, graph
from deeppose_tf.export.saved_model.signatures import Limits
from deeppose_tf.export.tflite import lite
from deeppose_tf.pipelines.evaluation import scores
from deeppose_tf.pipelines.profiling import timer
from deeppose_tf.pipelines.train import recipes
from deeppose_tf.skeleton import LSP
from deeppose_tf.stage import Stage, build_stage

BARE = "bare networks"


def untrained(stages: int = 3) -> Cascade:
    """The paper's networks, answering a pose that fills the box, and moving it."""
    chance = np.random.default_rng(0)
    joints = len(LSP.joints)
    built = []
    for number in range(1, stages + 1):
        config = recipes.recipe_for("paper", number).stage
        spread = 0.4 if number == 1 else 0.05
        mean = chance.uniform(-spread, spread, (joints, 2)).astype(np.float32)
        model = build_stage(config, LSP, mean)
        zeros = np.zeros([joints, 2, 2], np.float32)
        built.append(Stage(config, LSP, model, zeros[..., 0], zeros, {}))
    return Cascade(built)


def measure(
    cascade: Cascade,
    image: np.ndarray,
    files: list[str],
    rounds: int,
    batches: tuple[int, ...] = (),
    people_at_once: int = 1,
) -> dict[str, dict[str, float]]:
    """Times one person, who fills the image, in every way, and several at once.

    Args:
      image: [H, W, 3] uint8.
      files: TFLite files of the cascade, written by `deeppose-tflite`.
      rounds: turns of each way.
      batches: numbers of people that the SavedModel is asked for in one request.
      people_at_once: of them, see `Limits`.

    Returns:
      For each way what `timer.medians` finds, with ratios to the bare networks;
      `people` in a request, and `megabytes` of what is deployed.
    """
    with tempfile.TemporaryDirectory() as folder:
        model = pathlib.Path(folder) / "1"
        export.write(cascade, Limits(people_at_once=people_at_once), {}, model)
        loaded = tf.saved_model.load(str(model)).signatures
        megabytes = {"SavedModel": _megabytes(*model.rglob("*"))}
        ways = _networks(cascade) | _graphs(cascade, image) | _served(loaded, image)
        several = {f"SavedModel, {count} people": count for count in batches}
        for name, count in several.items():
            ways[name] = _request(loaded, image, count)
        for path in map(pathlib.Path, files):
            ways[path.name] = _lite(path, image)
            megabytes[path.name] = _megabytes(path)
        found = timer.medians(timer.in_turns(ways, range(rounds)), BARE)
    for name, one in found.items():
        one["people"] = several.get(name, 1)
    for name, size in megabytes.items():
        found[name]["megabytes"] = size
    return found


def table(found: dict[str, dict[str, float]]) -> str:
    """What was measured, as a table in Markdown."""
    lines = [["", "ms", "/ bare", "CPU ms", "/ bare", "people / s", "MB"]]
    for name, one in found.items():
        passed = f"{1000 * one['seconds']:.1f}", f"{one['ratio']:.2f}"
        worked = f"{1000 * one['cpu_seconds']:.1f}", f"{one['cpu_ratio']:.2f}"
        rate = f"{one['people'] / one['seconds']:.1f}"
        size = f"{one['megabytes']:.1f}" if "megabytes" in one else ""
        lines.append([name, *passed, *worked, rate, size])
    return scores.markdown(lines)


def _networks(cascade) -> dict[str, Callable[[], object]]:
    """1 + K + K forward passes on crops that are there: at once, and one by one."""
    joints = len(cascade.skeleton.joints)
    chance = np.random.default_rng(0)
    batches = [
        tf.constant(
            chance.uniform(-1, 1, (joints if i else 1, size, size, 3)), tf.float32
        )
        for i, size in enumerate(stage.config.size for stage in cascade.stages)
    ]
    networks = [
        tf.function(
            functools.partial(stage.model, training=False),
            input_signature=[tf.TensorSpec([None, *batch.shape[1:]])],
            autograph=False,
        )
        for stage, batch in zip(cascade.stages, batches, strict=True)
    ]
    calls = list(zip(networks, batches, strict=True))
    single = [(network, crop[None]) for network, batch in calls for crop in batch]

    def run(calls):
        return [network(crops).numpy() for network, crops in calls]

    return {
        BARE: functools.partial(run, calls),
        f"bare networks, {len(single)} single crops": functools.partial(run, single),
    }


def _graphs(cascade, image):
    """The same graph with and without a loop over the stages."""

    def way(person):
        function = tf.function(
            functools.partial(person, cascade),
            input_signature=[
                tf.TensorSpec([None, None, 3], tf.uint8),
                tf.TensorSpec([4]),
            ],
            autograph=False,
        )
        arguments = tf.constant(image), tf.zeros([4])
        return lambda: function(*arguments)["keypoints"].numpy()

    unrolled = functools.partial(graph.unrolled, view=cropping.framed)
    return {"unrolled graph": way(unrolled), "loop": way(graph.looped)}


def _served(signatures, image):
    boxes = tf.zeros([1, 4])
    encoded = tf.io.encode_jpeg(image, quality=90)[None]

    def jpeg():
        return signatures["jpeg"](image_bytes=encoded, boxes=boxes)["keypoints"].numpy()

    return {
        "SavedModel": _request(signatures, image, 1),
        "SavedModel, from a JPEG": jpeg,
    }


def _request(signatures, image, people):
    boxes = tf.zeros([people, 4])
    images = tf.constant(np.repeat(image[None], people, axis=0))

    def request():
        answer = signatures["serving_default"](images=images, boxes=boxes)
        return answer["keypoints"].numpy()

    return request


def _lite(path, image):
    model = lite.Lite.load(path, timer.cores() or 1)
    box = np.zeros(4, np.float32)
    if model.size is not None:
        image, box, _ = lite.fit(image, box, model.size)
    return lambda: model.predict(image, box[None])


def _megabytes(*paths):
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
