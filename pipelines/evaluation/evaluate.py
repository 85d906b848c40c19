"""Scores a cascade, or anyone's predictions, on prepared data.

Poses are predicted from the whole images. `kept_poses` keeps them in a file, so that a
stopped run goes on, and what is predicted once serves every table and figure.
"""

from __future__ import annotations

import functools
import io
import pathlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from deeppose_tf import draw, files, metrics
from deeppose_tf.datasets import coco_results
from deeppose_tf.pipelines.cli import progress
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.evaluation import figures, oks, scores

TABLE = "table.md"
RESULTS = "coco_results.json"
# People on `poses.png`.
SHOWN = 6
PICTURES = (
    *("pdj_stages.png", "pdj_joints.png", "poses.png", "cases.png"),
    "reliability.png",  # of a model alone
)
WRITTEN = (scores.METRICS, TABLE, RESULTS, *PICTURES)

Pose = tuple[np.ndarray, np.ndarray]


class _Asked(NamedTuple):
    """Whom to score: some people of a split, and what OKS compares them with."""

    index: records.Index
    split: str
    people: records.People
    truth: oks.Truth | str | None


def evaluate(
    cascade,
    data: str | records.Index,
    split: str = "test",
    output: str | None = None,
    limit: int | None = None,
    annotations: str | None = None,
    settings: dict | None = None,
    verbose: int = 1,
) -> dict:
    """Scores every stage of a cascade, beside the mean-pose baseline.

    Args:
      cascade: `cascade.Cascade`, or anything with its `skeleton` and `predict`.
      data: the prepared data: its folder or its index.
      output: the folder for all files; nothing is written without one.
      limit: score the first people of the split only.
      annotations: the COCO file that the data was made of, for OKS as COCO has it.
      settings: JSON value to keep in `metrics.json`: what was asked for.

    Returns:
      What `metrics.json` holds: `protocol`; `rows` of `name` and `scores`, first the
      baseline, then the stages; and `reliability`, see `metrics.reliability`.

    Raises:
      ValueError: the split is empty, or of another skeleton than the cascade.
    """
    asked = _asked(data, split, limit, annotations)
    scores.require_joints(cascade.skeleton, asked.index)
    if output is not None:  # A folder that cannot be made is no news for the end.
        pathlib.Path(output).mkdir(parents=True, exist_ok=True)
    count = len(asked.people.ids)
    found, weights = _stacked(
        list(_predict(cascade, asked.index, split, 0, count, verbose))
    )
    named = [(f"stage {s + 1}", found[:, s]) for s in range(found.shape[1])]
    labels = scores.convention(scores.learned(cascade))
    return _report(named, weights, asked, output, settings, labels)


def evaluate_results(
    path: str,
    data: str | records.Index,
    split: str = "test",
    output: str | None = None,
    limit: int | None = None,
    annotations: str | None = None,
    settings: dict | None = None,
) -> dict:
    """As `evaluate`, for predictions in a file; see `coco_results.read`."""
    asked = _asked(data, split, limit, annotations)
    index, people = asked.index, asked.people
    sources = index.provenance.get("arguments", {}).get("source", [])
    found = coco_results.read(
        *(path, people.ids, len(index.skeleton.joints), people.first_boxes),
        [annotations] if annotations else sources,
    )
    return _report([("predictions", found)], None, asked, output, settings)


def kept_poses(
    cascade,
    index: records.Index,
    split: str,
    count: int,
    path: pathlib.Path,
    verbose: int = 1,
) -> Pose:
    """The poses of the first people of a split, of whom only those are predicted whom a
    file does not have yet.

    Args:
      path: the file, of this cascade and split alone; written as `files.kept` does.

    Returns:
      [N, S, K, 2] pixels, NaN for those who cannot be answered; [N, K] scores.
    """
    found = _read(path, cascade.count, len(cascade.skeleton.joints))
    with files.kept(lambda: _write(path, found)) as done:
        for pose in _predict(cascade, index, split, len(found), count, verbose):
            found.append(pose)
            done()
    return _stacked(found[:count])


def _asked(data, split, limit, annotations) -> _Asked:
    index = data if isinstance(data, records.Index) else records.read_index(data)
    people = records.read_people(index, split, limit)
    return _Asked(index, split, people, _oks_truth(annotations, people, index))


def _oks_truth(annotations, people, index) -> oks.Truth | str | None:
    """What OKS compares with; why there is none, in words; None where nobody asks."""
    if annotations:
        oks.require()
        return oks.from_annotations(annotations, people.ids, index.skeleton)
    if "coco" not in index.provenance.get("arguments", {}).get("dataset", []):
        return None
    try:
        oks.require()
        return oks.from_people(people, index.skeleton)
    except ValueError as error:
        return f"not computed: {error}"


def _report(named, weights, asked, output, settings, labels=scores.UNKNOWN) -> dict:
    """Scores named predictions and the baseline; writes all of it where asked to."""
    index, split, people, truth = asked
    skeleton = index.skeleton
    source = records.read_people(index, scores.baseline_split(index, split))
    rows = [(scores.BASELINE, scores.mean_pose_baseline(people, source)), *named]
    last = named[-1][1]
    protocol = scores.protocol(index, split, people) | {"model_labels": labels}
    protocol["unanswered"] = int(np.sum(~np.isfinite(last).all(axis=(1, 2))))
    if weights is None:
        protocol["first_box"] += " for the baseline; that of the predictions is unknown"
    content = {
        "format": scores.FORMAT,
        "settings": settings or {},
        "protocol": protocol,
        "rows": [
            {"name": name, "scores": scores.scores(found, people, skeleton)}
            for name, found in rows
        ],
        "provenance": index.provenance,
    }
    if isinstance(truth, oks.Truth):
        protocol["oks"] = truth.words
        nobody = np.ones(len(people.ids))
        for i, (row, (_, found)) in enumerate(zip(content["rows"], rows, strict=True)):
            ranks = weights.mean(axis=1) if i and weights is not None else nobody
            row["scores"]["oks"] = oks.scores(found, ranks, people, skeleton, truth)
    elif truth:
        protocol["oks"] = truth
    if weights is not None:
        errors = metrics.joint_errors(last, people.keypoints, people.labeled, skeleton)
        content["reliability"] = metrics.reliability(weights, errors)
    if output is not None:
        folder = pathlib.Path(output)
        with files.alone(folder, "evaluation"):
            # First the record of whose files these are, for `outputs.require_free`.
            files.write_json(folder / scores.METRICS, content, digest=True)
            if weights is not None:
                coco_results.write(folder / RESULTS, people.ids, last, weights)
            _write_pictures(folder, rows, people, index, content)
            text = scores.table(content).encode() + b"\n"
            files.write_bytes(folder / TABLE, text)
    return content


def _write_pictures(folder, rows, people, index, content) -> None:
    protocol, stages = content["protocol"], rows[1:]
    read = functools.partial(records.read_image, index, protocol["split"])
    truth = figures.Truth(people, index.skeleton, functools.lru_cache(64)(read))
    title = figures.title(protocol)
    # Spread evenly over the split, not chosen.
    some = figures.evenly(len(people.ids), SHOWN)
    pictures = [
        figures.stage_curves(rows, truth, title),
        figures.joint_curves(rows[0], stages[-1], truth, title),
        figures.stage_sheet(stages, truth, some),
        figures.case_sheet(stages[-1][1], truth),
    ]
    if found := content.get("reliability"):
        name = figures.title(protocol, f"scores of {stages[-1][0]}")
        pictures.append(figures.reliability_plot(found, index.skeleton, name))
    for file, picture in zip(PICTURES, pictures, strict=False):
        draw.write_image(folder / file, picture)


def _predict(cascade, index, split, first, count, verbose) -> Iterator[Pose]:
    """[S, K, 2] pixels and [K] scores of the people from `first` to before `count`."""
    if first >= count:
        return
    boxes = index.people[split].boxes
    with progress.bar(count, "Predicting", "person", first, bool(verbose)) as bar:
        for i in range(first, count):
            image = records.read_image(index, split, i)
            answer = cascade.predict(image, boxes[i : i + 1])
            poses, valid = answer["keypoints_by_stage"][0], answer["valid"][0]
            yield np.where(valid, poses, np.nan), answer["scores"][0]
            bar.update(1)


def _stacked(found: list[Pose]) -> Pose:
    poses, weights = zip(*found, strict=True)
    return np.stack(poses), np.stack(weights)


def _read(path, stages, joints) -> list[Pose]:
    """Nobody where there is no file, or a damaged one or one of other shapes."""
    try:
        # By way of bytes: of a damaged file NumPy would leave the handle open.
        with np.load(io.BytesIO(path.read_bytes())) as content:
            poses, weights = content["poses"], content["scores"]
    except Exception:  # NumPy raises nearly any of a file that is no archive of arrays
        return []
    count = len(poses) if poses.ndim else 0
    fits = poses.shape == (count, stages, joints, 2)
    fits = fits and weights.shape == (count, joints)
    fits = fits and poses.dtype.kind == weights.dtype.kind == "f"
    return list(zip(poses, weights, strict=True)) if fits else []


def _write(path, found) -> None:
    poses, weights = _stacked(found)
    content = io.BytesIO()
    np.savez(content, poses=poses, scores=weights)
    files.write_bytes(path, content.getvalue())
