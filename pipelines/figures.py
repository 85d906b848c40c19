"""Figures of an evaluation: PDJ curves as in Figs. 4 and 5, sheets of poses as in 6."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from deeppose_tf import draw, metrics
from deeppose_tf.pipelines.people import People
from deeppose_tf.skeleton import Skeleton

FLOOR_COLOR = 7  # grey in matplotlib's cycle
CELL = 260
MEAN = "mean over joints"

# Index of a person -> image [H, W, 3] uint8 RGB.
Images = Callable[[int], np.ndarray]


def stage_curves(
    named: Sequence[tuple[str, np.ndarray]],
    people: People,
    skeleton: Skeleton,
    title: str,
) -> np.ndarray:
    """One line per stage, a panel for the mean over joints and for each joint (Fig. 5).

    Args:
      named: (name, [N, K, 2] predictions in pixels) of the floor, then of each stage.
      people: the truth.
      skeleton: names the joints; left and right are pooled.
      title: says what is measured.
    """
    curves = [(name, _curves(poses, people, skeleton)) for name, poses in named]
    panels = []
    for panel in curves[0][1]:
        lines = []
        for i, (name, values) in enumerate(curves):
            color = FLOOR_COLOR if i == 0 else (i - 1) % FLOOR_COLOR
            lines.append(draw.Curve(name, values[panel], color, dashed=i == 0))
        panels.append((panel, lines))
    return draw.plot_curves(metrics.CURVE_THRESHOLDS, panels, title)


def joint_curves(
    floor: tuple[str, np.ndarray],
    named: tuple[str, np.ndarray],
    people: People,
    skeleton: Skeleton,
    title: str,
) -> np.ndarray:
    """One line per joint of one stage, dashed for the floor (Fig. 4).

    Args:
      floor, named: (name, [N, K, 2] predictions in pixels).
      people, skeleton, title: as `stage_curves`.
    """
    lower, upper = (_curves(one[1], people, skeleton) for one in (floor, named))
    groups = [name for name in upper if name != MEAN]
    lines = [draw.Curve(name, upper[name], i) for i, name in enumerate(groups)]
    lines += [draw.Curve("", lower[name], i, True) for i, name in enumerate(groups)]
    panels = [(f"solid: {named[0]}, dashed: {floor[0]}", lines)]
    return draw.plot_curves(metrics.CURVE_THRESHOLDS, panels, title)


def stage_sheet(
    named: Sequence[tuple[str, np.ndarray]],
    people: People,
    skeleton: Skeleton,
    images: Images,
    count: int = 6,
) -> np.ndarray:
    """A row for each of some people, a column per stage: truth green, predictions red
    (Fig. 6). The people are spread evenly over the split, not chosen.

    Args:
      named: (name, [N, K, 2] predictions in pixels) of each stage.
    """
    total = len(people.ids)
    rows = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))
    cells, captions = [], []
    for person in rows:
        image = images(person)
        for name, poses in named:
            cells.append(_pose_cell(image, poses[person], people, person, skeleton))
            captions.append(f"{_short(people, person)}, {name}")
    # A single column would be a tower.
    return draw.contact_sheet(cells, captions, max(len(named), 3), CELL)


def case_sheet(
    poses: np.ndarray,
    people: People,
    skeleton: Skeleton,
    images: Images,
    count: int = 12,
) -> np.ndarray:
    """The best and the worst people of [N, K, 2] predictions, truth green, them red."""
    errors = metrics.person_errors(poses, people.keypoints, people.labeled, skeleton)
    order = [i for i in np.argsort(errors, kind="stable") if not np.isnan(errors[i])]
    half = min(count // 2, len(order) // 2)
    chosen = [("best", i) for i in order[:half]]
    chosen += [("worst", i) for i in order[::-1][:half]]
    if not chosen:
        chosen = [("only", 0)]
    cells = [_pose_cell(images(i), poses[i], people, i, skeleton) for _, i in chosen]
    captions = [
        f"{kind}: {_short(people, i)}, error {errors[i]:.2f}" for kind, i in chosen
    ]
    return draw.contact_sheet(cells, captions, max(half, 1), CELL)


def joint_groups(skeleton: Skeleton) -> dict[str, list[int]]:
    """Joint indices by name, left and right together."""
    partner = {a: b for pair in skeleton.pairs for a, b in (pair, pair[::-1])}
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(skeleton.joints):
        if i not in partner:
            groups[name] = [i]
        elif skeleton.side(i) == "left":
            stem = name.replace("left", "").strip("_ ") or name
            groups[stem if stem not in groups else name] = [i, partner[i]]
    return groups


def _curves(poses, people, skeleton):
    """PDJ [T] over the curve's thresholds: mean over joints, then by joint group."""
    detected, scored = metrics.pdj_counts(
        poses, people.keypoints, people.labeled, skeleton, metrics.CURVE_THRESHOLDS
    )
    known = np.flatnonzero(scored)
    mean = (detected[:, known] / scored[known]).mean(axis=1)
    return {MEAN: mean} | {
        name: detected[:, joints].sum(axis=1) / scored[joints].sum()
        for name, joints in joint_groups(skeleton).items()
        if scored[joints].sum()
    }


def _pose_cell(image, pose, people, person, skeleton):
    """Drawn at the size it is shown at: thin lines, whatever the size of the photo."""
    cell, factors = draw.resize_to(image, CELL)
    return draw.draw_truth(
        cell,
        people.keypoints[person] * factors,
        pose * factors,
        people.labeled[person],
        skeleton,
    )


def _short(people, person):
    return people.ids[person].rsplit("/", 1)[-1]
