"""What an export is worth, measured on prepared data; not a test.

    python tests/measure_saved_model.py RUN MODEL DATA [PEOPLE]

RUN is what deeppose-train wrote, MODEL a version's folder of deeppose-export, DATA what
deeppose-prepare wrote, of which the first PEOPLE of the test split are taken.
Prints how far the signatures are from the Keras cascade; how scores are correlated with
true errors, by ranks; and how poses differ between resolutions of one photo.
"""

import sys

import cv2
import numpy as np
import scipy.stats
import tensorflow as tf

from deeppose_tf import metrics
from deeppose_tf.cascade import Cascade
from deeppose_tf.pipelines import records

HIGHEST = 4


def main(run, model, data, people=200):
    cascade = Cascade.load(run)
    signatures = tf.saved_model.load(model).signatures
    examples = read(data, int(people))
    print(f"{len(examples)} people of {data}")
    apart, scores, errors, keypoints = [], [], [], []
    for example in examples:
        image = decode(example)
        served = [
            call(signatures["serving_default"], "images", image[None], example["box"]),
            call(signatures["jpeg"], "image_bytes", [example["image"]], example["box"]),
        ]
        expected = cascade.predict(image, example["box"][None])
        wanted = expected["keypoints_by_stage"]
        apart.append(
            [np.abs(one["keypoints_by_stage"] - wanted).max() for one in served]
        )
        assert all(one["valid"].all() for one in served)
        keypoints.append(served[0]["keypoints"][0])
        scores.append(served[0]["scores"][0])
        errors.append(np.linalg.norm(keypoints[-1] - example["keypoints"], axis=-1))
    for name, far in zip(
        ("serving_default", "jpeg"), np.max(apart, axis=0), strict=True
    ):
        print(f"{name}: at most {far:.2g} px from the Keras cascade")
    correlations(cascade, examples, np.array(scores), np.array(errors))
    resolutions(signatures["serving_default"], examples)


def correlations(cascade, examples, scores, errors):
    """Spearman's, of -score and of the error in true torso diameters."""
    true = np.stack([example["keypoints"] for example in examples])
    labeled = np.stack([example["labeled"] for example in examples])
    torso = metrics.torso_diameters(true, labeled, cascade.skeleton)
    known = labeled & np.isfinite(torso)[:, None]
    relative = errors / torso[:, None]
    joints = scipy.stats.spearmanr(-scores[known], relative[known])[0]
    means = [
        np.nanmean(np.where(known, each, np.nan), 1) for each in (scores, relative)
    ]
    whole = scipy.stats.spearmanr(-means[0], means[1], nan_policy="omit")[0]
    print(
        f"rank correlation of 1 - score with the error: {joints:.2f} of joints,", end=""
    )
    print(f" {whole:.2f} of people's means")
    order = np.argsort(scores[known])
    for name, part in zip(
        ("least sure quarter", "second", "third", "surest quarter"),
        np.array_split(relative[known][order], 4),
        strict=True,
    ):
        print(f"  {name}: PDJ@0.2 {100 * (part <= 0.2).mean():.0f}")


def resolutions(serve, examples):
    """Photos enlarged, and shrunk from what they are; changes per person's height."""
    for what, sides in (
        ("enlarged", [1, 2, 4]),
        ("shrunk", [1, 1 / 2, 1 / 4]),
    ):
        changes = []
        for example in examples:
            image = decode(example)
            poses = [at_size(serve, image, example["box"], side) for side in sides]
            low, high = poses[0].min(axis=0), poses[0].max(axis=0)
            person = (high - low).max()
            moved = [np.linalg.norm(pose - poses[0], axis=-1) for pose in poses[1:]]
            changes.append(np.array(moved) / person)
        changes = 100 * np.array(changes)  # [N, 2, K] per cent
        for side, change in zip(sides[1:], changes.swapaxes(0, 1), strict=True):
            print(
                f"{what} {side} times: joints move by {change.mean():.2f} % of the "
                f"person in the mean, 95 % of them by at most "
                f"{np.percentile(change, 95):.2f} %; within 1 % in the mean over "
                f"their joints are {100 * (change.mean(axis=1) < 1).mean():.0f} % of "
                "people"
            )


def at_size(serve, image, box, times):
    """The pose in pixels of the image when it is given so many times as large."""
    how = cv2.INTER_CUBIC if times > 1 else cv2.INTER_AREA
    sides = [round(side * times) for side in image.shape[1::-1]]
    resized = cv2.resize(image, sides, interpolation=how)
    scale = np.divide(sides, image.shape[1::-1])
    found = call(serve, "images", resized[None], box * np.tile(scale, 2))
    return found["keypoints"][0] / scale


def call(function, name, value, box):
    inputs = {name: tf.constant(value), "boxes": tf.constant(box[None], tf.float32)}
    return {key: value.numpy() for key, value in function(**inputs).items()}


def decode(example):
    return cv2.cvtColor(
        cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR),
        cv2.COLOR_BGR2RGB,
    )


def read(data, people):
    index = records.read_index(data)
    shards = tf.data.TFRecordDataset(list(index.shards["test"]))
    joints = len(index.skeleton.joints)
    parsed = shards.map(lambda one: records.parse(one, joints)).take(people)
    return list(parsed.as_numpy_iterator())


if __name__ == "__main__":
    main(*sys.argv[1:])
