"""What a TFLite file loses beside the cascade that it was made of, on real people."""

from __future__ import annotations

import time

import numpy as np
import tensorflow as tf

from deeppose_tf.cascade import Cascade
from deeppose_tf.export.tflite import lite
from deeppose_tf.pipelines.data import inputs, records
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.evaluation import scores

keras = tf.keras

# Names of scores in the report, and where `scores.scores` has them.
SCORES = {
    "PDJ@0.2": ("pdj", "0.2"),
    "PCP strict": ("pcp_strict", "mean10"),
    "PCP loose": ("pcp_loose", "mean10"),
}


def compare(
    cascade: Cascade,
    model: lite.Lite,
    index: records.Index,
    split: str,
    limit: int | None = None,
    verbose: int = 1,
) -> dict:
    """Runs both on the same pixels, in turn, so that both find the machine as busy.

    Args:
      cascade: what the file was made of.
      model: the file. Images for one of a fixed size are fitted to it, for both.
      index: prepared data.
      split: of it.
      limit: look at the first people of the split only.
      verbose: 0 hides the progress bar.

    Returns:
      A JSON value: `people`; `pixels`, how far joints are apart, in those of the image
      that both saw; `scores` of both, in per cent; `milliseconds` of both.

    Raises:
      ValueError: nobody is in the split, or it has other joints.
    """
    if cascade.skeleton.joints != index.skeleton.joints:
        raise ValueError(
            f"the model predicts the joints {', '.join(cascade.skeleton.joints)}; "
            f"{index.directory} has {', '.join(index.skeleton.joints)}"
        )
    people = read_people(index, split, limit)
    bar = keras.utils.Progbar(len(people.ids), verbose=verbose, unit_name="person")
    both, milliseconds, scales = ([], []), ([], []), []
    for i, (image, box) in enumerate(read_images(index, split, len(people.ids))):
        scale = np.ones(2, np.float32)
        if model.size is not None:
            image, box, scale = lite.fit(image, box, model.size)
        for one, poses, times in zip((cascade, model), both, milliseconds, strict=True):
            start = time.perf_counter()
            poses.append(_pose(one, image, box))
            times.append(1e3 * (time.perf_counter() - start))
        scales.append(scale)
        bar.update(i + 1)
    before, after = map(np.stack, both)  # [N, K, 2]
    scales = np.stack(scales)[:, None]
    return {
        "people": len(people.ids),
        "split": split,
        "pixels": _apart(before, after),
        "scores": {
            name: _scores(poses / scales, people, index.skeleton)
            for name, poses in (("keras", before), ("tflite", after))
        },
        "milliseconds": {
            # The first call makes the graph.
            name: {"least": min(times[1:] or times), "median": float(np.median(times))}
            for name, times in zip(("keras", "tflite"), milliseconds, strict=True)
        },
    }


def read_images(index: records.Index, split: str, count: int):
    """Image [H, W, 3] uint8 and first box [4] of the first people of a split."""
    joints = len(index.skeleton.joints)
    dataset = tf.data.TFRecordDataset(list(index.shards[split])).take(count)
    for record in dataset.map(lambda one: records.parse(one, joints)):
        yield inputs.decode(record["image"]).numpy(), record["box"].numpy()


def require(report: dict, max_drop: float) -> None:
    """Refuses a file that finds fewer joints than it may.

    Raises:
      ValueError: PDJ@0.2 is lower by more than `max_drop` points, or nobody could be
        scored.
    """
    before, after = (report["scores"][name]["PDJ@0.2"] for name in ("keras", "tflite"))
    if before is None:
        raise ValueError(f"nobody in {report['split']} can be scored by PDJ")
    if before - after > max_drop:
        raise ValueError(
            f"PDJ@0.2 falls from {before:.2f} to {after:.2f} per cent, by more than "
            f"--max_drop={max_drop}: nothing was written. Try another --kind"
        )


def table(report: dict) -> str:
    """The report as Markdown."""
    pixels, scored, times = (
        report[name] for name in ("pixels", "scores", "milliseconds")
    )
    lines = [
        f"{report['kind']}, {report['bytes'] / 1e6:.2f} MB, {report['people']} people "
        f"of {report['split']}: joints are {pixels['mean']:.4f} pixels from Keras in "
        f"the mean, {pixels['largest']:.4f} at most",
        "",
        "| | Keras | TFLite |",
        "| --- | ---: | ---: |",
        *(
            f"| {name}, per cent | {_number(scored['keras'][name])} | "
            f"{_number(scored['tflite'][name])} |"
            for name in SCORES
        ),
        *(
            f"| milliseconds, {name} | {times['keras'][name]:.1f} | "
            f"{times['tflite'][name]:.1f} |"
            for name in ("least", "median")
        ),
        "",
        "| operation | count | XNNPACK takes | GPU delegate takes |",
        "| --- | ---: | ---: | ---: |",
        *(
            f"| {row['operation']} | {row['count']} | {row['xnnpack']} | {row['gpu']} |"
            for row in report["operations"]
        ),
    ]
    return "\n".join(lines)


def _pose(model, image, box):
    answer = model.predict(image, box[None])
    return np.where(answer["valid"][0], answer["keypoints"][0], np.nan)


def _apart(before, after):
    distances = np.linalg.norm(before - after, axis=-1)
    both = np.isfinite(distances)
    unlike = np.isfinite(before).all((1, 2)) != np.isfinite(after).all((1, 2))
    return {
        "mean": float(distances[both].mean()) if both.any() else None,
        "largest": float(distances[both].max()) if both.any() else None,
        "answered_by_one_only": int(unlike.sum()),
    }


def _scores(poses, people, skeleton):
    found = scores.scores(poses, people, skeleton)
    fractions = {name: found[kind][key] for name, (kind, key) in SCORES.items()}
    return {
        name: None if one["fraction"] is None else 100 * one["fraction"]
        for name, one in fractions.items()
    }


def _number(value):
    return "-" if value is None else f"{value:.2f}"
