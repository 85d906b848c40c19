"""What an export is worth, measured on prepared data; not a test.

    python tests/measure_saved_model.py RUN MODEL DATA [PEOPLE]

RUN is what deeppose-train wrote, MODEL a version's folder of deeppose-export, DATA what
deeppose-prepare wrote, of which the first PEOPLE of the test split are taken.
Prints how far the signatures are from the Keras cascade, here and in the C program; how
scores are correlated with true errors, by ranks; and how poses differ between
resolutions of one photo.
"""

import pathlib
import sys
import tempfile

import cv2
import example_program
import numpy as np
import scipy.stats
import tensorflow as tf

from deeppose_tf import metrics
from deeppose_tf.cascade import Cascade
from deeppose_tf.pipelines.data import records

# What photos are resized to, from what, and how many times. Most photos of LSP have
# nothing to lose: so they are made large, with the noise of a camera, which would be
# taken for something if they were not antialiased.
RESOLUTIONS = {
    "enlarged": (1, [1, 2, 4]),
    "large, with noise, and shrunk": (4, [1, 1 / 2, 1 / 4]),
    "shrunk, below what the networks look at": (1, [1, 1 / 2, 1 / 4]),
}
NOISE = 20  # shades, the standard deviation


def main(run, model, data, people=200):
    cascade = Cascade.load(run)
    signatures = tf.saved_model.load(model).signatures
    examples = read(data, int(people))
    print(f"{len(examples)} people of {data}")
    served, expected = [], []
    for example in examples:
        image = decode(example)
        box = example["box"]
        both = [
            call(signatures["serving_default"], "images", image[None], box),
            call(signatures["jpeg"], "image_bytes", [example["image"]], box),
        ]
        assert all(one["valid"].all() for one in both)
        served.append([one["keypoints_by_stage"][0] for one in both])
        expected.append(cascade.predict(image, box[None])["keypoints_by_stage"][0])
        example["scores"] = both[0]["scores"][0]
        moved = both[0]["keypoints"][0] - example["keypoints"]
        example["errors"] = np.linalg.norm(moved, axis=-1)
    served, expected = np.array(served), np.array(expected)  # [N, 2, S, K, 2]
    far = np.linalg.norm(served - expected[:, None], axis=-1).max(axis=(0, 2, 3))
    print(f"serving_default: at most {far[0]:.2g} px from the Keras cascade")
    print(f"jpeg: at most {far[1]:.2g} px from the Keras cascade")
    in_c(model, examples, expected[:, -1])
    correlations(cascade, examples)
    resolutions(signatures["serving_default"], examples)


def in_c(model, examples, expected):
    """The same people by the C program, all of one signature in one process."""
    if example_program.missing():
        print(f"C program: {example_program.missing()}")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder, model = pathlib.Path(temporary), pathlib.Path(model).absolute()
        program = example_program.build(folder)
        for signature, ending in (("serving_default", "ppm"), ("jpeg", "file")):
            pictures = []
            for i, example in enumerate(examples):
                raw = example_program.ppm(decode(example))
                content = raw if ending == "ppm" else example["image"]
                (folder / f"{i}.{ending}").write_bytes(content)
                box = ",".join(f"{number:.9g}" for number in example["box"])
                pictures.append(f"{i}.{ending}:{box}")
            valid, found, _ = example_program.run(program, model, pictures, folder)
            assert valid.all()
            far = np.linalg.norm(found - expected, axis=-1).max()
            print(
                f"C program, {signature}: at most {far:.2g} px from the Keras cascade"
            )


def correlations(cascade, examples):
    """Spearman's, of -score and of the error in true torso diameters."""
    scores = np.stack([example["scores"] for example in examples])
    errors = np.stack([example["errors"] for example in examples])
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
    """How far joints move between resolutions of a photo, in shares of the person."""
    for what, (times, sides) in RESOLUTIONS.items():
        changes = []
        for number, example in enumerate(examples):
            image, box = decode(example), example["box"] * times
            if times > 1:
                image = with_noise(enlarged(image, times), number)
            poses = [at_size(serve, image, box, side) / times for side in sides]
            known = example["keypoints"][example["labeled"]]
            person = (known.max(axis=0) - known.min(axis=0)).max()
            moved = [np.linalg.norm(pose - poses[0], axis=-1) for pose in poses[1:]]
            changes.append(np.array(moved) / person)
        changes = 100 * np.array(changes).swapaxes(0, 1)  # [2, N, K] per cent
        for side, change in zip(sides[1:], changes, strict=True):
            print(
                f"{what}, to {side:g} times its sides; joints move by, of the person:"
            )
            print(
                f"  {change.mean():.2f} % in the mean, {np.percentile(change, 95):.2f} "
                f"% at most of 95 % of joints, {change.max():.2f} % at most of all"
            )
            print(
                f"  within 1 %: {100 * (change < 1).mean():.1f} % of joints; of "
                f"{100 * (change < 1).all(axis=1).mean():.1f} % of people all joints"
            )


def enlarged(image, times):
    return cv2.resize(image, None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)


def with_noise(image, seed):
    noise = np.random.default_rng(seed).normal(0, NOISE, image.shape)
    return np.clip(np.round(image + noise), 0, 255).astype(np.uint8)


def at_size(serve, image, box, times):
    """The pose in pixels of the image when it is given so many times as large."""
    sides = [round(side * times) for side in image.shape[1::-1]]
    how = cv2.INTER_CUBIC if times > 1 else cv2.INTER_AREA
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
    labels = records.read_people(index, "test", people)
    return [
        {
            "image": records.read(index, "test", i),
            "box": labels.boxes[i],
            "keypoints": labels.keypoints[i],
            "labeled": labels.labeled[i],
        }
        for i in range(len(labels.ids))
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
