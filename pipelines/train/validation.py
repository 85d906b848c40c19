"""How a cascade does on people of a data set while it is trained.

Scores of the finished cascade are `evaluate`'s, on whole images; this looks at
canvases.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from deeppose_tf import cascade as cascades
from deeppose_tf import draw, geometry, metrics
from deeppose_tf.pipelines.cli import progress
from deeppose_tf.pipelines.data import inputs, records
from deeppose_tf.pipelines.data.config import InputConfig, require_extent
from deeppose_tf.skeleton import Skeleton

# People whose poses are looked at during training, and how many of them are drawn.
HELD_OUT = 200
DRAWN = 8
# Of fewer people no score says whether a training has collapsed.
JUDGED = 10
# Nor where labels vary less, as a share of people's boxes.
LEAST_VARIED = 0.002
BATCH = 32
# So many records in random order give standard deviations to within three per cent.
MEASURED = 1000


def evaluator(
    cascade: cascades.Cascade,
    index: records.Index,
    config: InputConfig,
    target: np.ndarray,
    limit: int | None = None,
) -> Callable[[int], dict]:
    """What `loop.train` asks for between steps.

    Args:
      cascade: trained stages, and last the one in training, whose weights change.
      index: the prepared data set; its validation split is looked at, or the first
        training people where there is none, or a limit says that they are overfit.
      config: of the canvases.
      target: [K, 2] normalized mean pose, in stage 1.
      limit: how many people are overfit.

    Returns:
      step -> `pdj`, PDJ@0.2 of the last stage, mean over joints; in stage 1 `baseline`,
      that of the mean pose, later `before`, that of the stage before; in stage 1 of
      enough people `spread` and `l2`, see `loop.check_collapse`. Draws some of the
      people for TensorBoard.

    Raises:
      ValueError: see `require_extent`.
    """
    require_extent(index.skeleton.joints, index.provenance)
    split = "validation" if index.counts.get("validation") and not limit else "train"
    # One for all evaluations: to make it takes longer than to read it.
    dataset = inputs.evaluation_dataset(index, split, config, BATCH, limit or HELD_OUT)

    def evaluate(step):
        poses, truth, labeled, boxes = _predict(cascade, dataset)
        sheet = _sheet(dataset, poses[:, -1], index.skeleton)
        tf.summary.image("held out", sheet[None], step)
        report = {"pdj": pdj(poses[:, -1], truth, labeled, index.skeleton)}
        if cascade.count > 1:
            report["before"] = pdj(poses[:, -2], truth, labeled, index.skeleton)
            return report
        baseline = _baseline(cascade.stages[0], target, boxes)
        report["baseline"] = pdj(baseline, truth, labeled, index.skeleton)
        if len(truth) >= JUDGED:
            report |= _variation(poses[:, -1], baseline, truth, labeled, boxes)
        return report

    return evaluate


def predict_split(
    cascade: cascades.Cascade,
    index: records.Index,
    split: str,
    config: InputConfig,
    limit: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The poses of a split's people by stage, on their canvases.

    Returns:
      poses [N, S, K, 2], truth [N, K, 2], labeled [N, K] and first boxes [N, 4], all in
      pixels of the canvases.
    """
    dataset = inputs.evaluation_dataset(index, split, config, BATCH, limit)
    return _predict(cascade, dataset)


@inputs.released()
def _predict(cascade, dataset, bar=None):
    found = []
    for canvases, keypoints, labeled, boxes in dataset:
        answer = cascade.predict_batch(canvases, boxes)
        found.append((answer["keypoints_by_stage"], keypoints, labeled, boxes))
        if bar is not None:
            bar.update(len(boxes))
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def observed_displacements(
    cascade: cascades.Cascade,
    index: records.Index,
    config: InputConfig,
    limit: int | None = None,
    verbose: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Mean [K, 2] and covariance [K, 2, 2] of y^s - y over the training data.

    A person is predicted once, and counts as often as the next stage will see them: it
    draws from these statistics. Of many people the first `MEASURED` records say as
    much.
    """
    limit = min(limit or MEASURED, MEASURED)
    counts = index.people["train"].weights[:limit]
    dataset = inputs.evaluation_dataset(index, "train", config, BATCH, limit)
    title = f"Displacements that stage {cascade.count} leaves"
    with progress.bar(len(counts), title, "person", shown=bool(verbose)) as bar:
        predicted = _predict(cascade, dataset, bar)
    poses, truth, labeled, _ = (np.repeat(part, counts, axis=0) for part in predicted)
    displaced, known = cascades.displacements(
        poses[:, -1], truth, labeled, index.skeleton
    )
    threshold = cascade.stages[-1].config.outlier_threshold
    return cascades.displacement_statistics(displaced.numpy(), known.numpy(), threshold)


def pdj(
    predicted: np.ndarray, truth: np.ndarray, labeled: np.ndarray, skeleton: Skeleton
) -> float:
    """PDJ@0.2 of [N, K, 2] pixels each, by which Sec. 4.1 chooses: the mean over
    joints, 0 where there is nothing to score."""
    detected = metrics.pdj(predicted, truth, labeled, skeleton, [0.2])
    scored = ~np.isnan(detected)
    return float(detected[scored].mean()) if scored.any() else 0.0


def _baseline(stage, target, boxes):
    """The mean pose placed into everyone's person box."""
    boxes = geometry.first_boxes(boxes, stage.config.margin, stage.config.square)
    return np.asarray(geometry.denormalize(target[None], boxes))


def _variation(predicted, baseline, truth, labeled, boxes):
    """`spread` and `l2` as `loop.check_collapse` takes them; nothing where labels
    hardly vary, so that the same pose for everyone is right."""
    predicted, baseline, truth = (
        np.where(labeled[..., None], geometry.normalize(points, boxes), np.nan)
        for points in (predicted, baseline, truth)
    )
    seen = labeled.any(axis=0)  # [K]; nothing is known of the others
    if not seen.any():
        return {}
    varied, spread = (
        np.mean(np.nanstd(points[:, seen], axis=0)) for points in (truth, predicted)
    )
    if varied < LEAST_VARIED:
        return {}
    loss, other = (np.nansum((points - truth) ** 2) for points in (predicted, baseline))
    return {"spread": float(spread / varied), "l2": float(loss / other)}


def _sheet(dataset, poses, skeleton):
    """The first people, truth in green and prediction in red, as one image."""
    canvases, truth, labeled, _ = next(iter(dataset.take(1).as_numpy_iterator()))
    people = list(zip(canvases, truth, poses, labeled, strict=False))[:DRAWN]
    drawn = [draw.draw_truth(*person, skeleton) for person in people]
    return draw.contact_sheet(drawn, [""] * len(drawn), columns=4)
