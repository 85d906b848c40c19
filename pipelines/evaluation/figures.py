"""Figures of an evaluation: PDJ curves as in Figs. 3 to 5, sheets as in 6 and 8."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from deeppose_tf import draw, metrics
from deeppose_tf.pipelines.data.records import People
from deeppose_tf.plot import Curve, plot_curves
from deeppose_tf.skeleton import Skeleton

FLOOR_COLOR = 7  # grey in matplotlib's cycle
CELL = 260
# Shown around people's first boxes on sheets, as a share of their longer side.
MARGIN = 0.05
MEAN = "mean over joints"

# Index of a person -> image [H, W, 3] uint8 RGB.
Images = Callable[[int], np.ndarray]


def title(said: dict, what: str = "PDJ") -> str:
    """What a figure measures, from `scores.protocol`."""
    data = " + ".join(said["datasets"]) or pathlib.Path(said["data"]).name
    labels = said["labels"].split(":")[0]
    return (
        f"{what}, {said['people']} people of {said['split']} of {data}, labels "
        f"{labels}\nfirst box: {said['first_box']}"
    )


def stage_curves(
    named: Sequence[tuple[str, np.ndarray]],
    people: People,
    skeleton: Skeleton,
    title: str,
    groups: Sequence[str] = (),
    thresholds: np.ndarray = metrics.CURVE_THRESHOLDS,
    more: Mapping[str, Sequence[Curve]] | None = None,
) -> np.ndarray:
    """One line per stage, a panel for each of the groups of joints (Figs. 3, 5, 7).

    Args:
      named: (name, [N, K, 2] predictions in pixels) of the floor, then of each stage.
      people: the truth.
      skeleton: names the joints; left and right are pooled.
      title: says what is measured.
      groups: of `group_pdj`; by default all.
      thresholds: [T] the horizontal axis.
      more: further curves by group.
    """
    curves = [
        (name, group_pdj(poses, people, skeleton, thresholds)) for name, poses in named
    ]
    panels = []
    for panel in groups or curves[0][1]:
        lines = []
        for i, (name, found) in enumerate(curves):
            color = FLOOR_COLOR if i == 0 else (i - 1) % FLOOR_COLOR
            lines.append(Curve(name, found[panel][0], color, dashed=i == 0))
        panels.append((panel, lines + list((more or {}).get(panel, ()))))
    return plot_curves(thresholds, panels, title)


def joint_curves(
    floor: tuple[str, np.ndarray],
    named: tuple[str, np.ndarray],
    people: People,
    skeleton: Skeleton,
    title: str,
    panels: Mapping[str, Sequence[str]] | None = None,
) -> np.ndarray:
    """One line per joint of one stage, dashed for the floor (Fig. 4).

    Args:
      floor, named: (name, [N, K, 2] predictions in pixels).
      people, skeleton, title: as `stage_curves`.
      panels: the groups of joints of each panel by its name; by default all in one.
    """
    lower, upper = (
        group_pdj(one[1], people, skeleton, metrics.CURVE_THRESHOLDS)
        for one in (floor, named)
    )
    panels = panels or {"": [name for name in upper if name != MEAN]}
    meaning = f"solid: {named[0]}, dashed: {floor[0]}"
    drawn = []
    for panel, groups in panels.items():
        lines = [Curve(name, upper[name][0], i) for i, name in enumerate(groups)]
        lines += [Curve("", lower[name][0], i, True) for i, name in enumerate(groups)]
        drawn.append((f"{panel}; {meaning}" if panel else meaning, lines))
    return plot_curves(metrics.CURVE_THRESHOLDS, drawn, title)


def evenly(total: int, count: int) -> np.ndarray:
    """Indices of at most `count` of `total`, evenly from the first to the last."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))


def stage_sheet(
    named: Sequence[tuple[str, np.ndarray]],
    people: People,
    skeleton: Skeleton,
    images: Images,
    chosen: Sequence[int],
) -> np.ndarray:
    """Some people in rows, a column per stage: truth green, predictions red
    (Fig. 6).

    Args:
      named: (name, [N, K, 2] predictions in pixels) of each stage.
      chosen: indices of the people.
    """
    cells, captions = [], []
    for person in chosen:
        image = images(person)
        every = [poses[person] for _, poses in named]
        for (name, _), pose in zip(named, every, strict=True):
            cells.append(_pose_cell(image, pose, people, person, skeleton, every))
            captions.append(f"{_short(people, person)}, {name}")
    # A single column would be a tower; nobody's stages are torn apart.
    columns = len(named) * -(-3 // len(named))
    return draw.contact_sheet(cells, captions, columns, CELL)


def pose_sheet(
    poses: np.ndarray,
    people: People,
    skeleton: Skeleton,
    images: Images,
    chosen: Sequence[int],
    columns: int = 6,
) -> np.ndarray:
    """[N, K, 2] predictions of some people without the truth, sides told apart by
    colour (Fig. 8)."""
    cells = []
    for person in chosen:
        cell, move = _cut(images(person), people, person, [poses[person]])
        cells.append(draw.draw_pose(cell, move(poses[person]), skeleton))
    captions = [_short(people, person) for person in chosen]
    return draw.contact_sheet(cells, captions, columns, CELL)


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


def group_pdj(
    poses: np.ndarray, people: People, skeleton: Skeleton, thresholds: np.ndarray
) -> dict[str, tuple[np.ndarray, int]]:
    """PDJ of [N, K, 2] predictions: fractions [T] over the thresholds, and how many
    joints were scored; `MEAN` over all joints first, then by `joint_groups`."""
    detected, scored = metrics.pdj_counts(
        poses, people.keypoints, people.labeled, skeleton, thresholds
    )
    known = np.flatnonzero(scored)
    mean = (detected[:, known] / scored[known]).mean(axis=1)
    found = {MEAN: (mean, int(scored.sum()))}
    for name, joints in joint_groups(skeleton).items():
        count = int(scored[joints].sum())
        if count:
            found[name] = detected[:, joints].sum(axis=1) / count, count
    return found


def _pose_cell(image, pose, people, person, skeleton, every=()):
    """Drawn at the size it is shown at: thin lines, whatever the size of the photo. Cut
    in the same way for `every` pose of the person."""
    truth, labeled = people.keypoints[person], people.labeled[person]
    cell, move = _cut(image, people, person, [truth[labeled], pose, *every])
    return draw.draw_truth(cell, move(truth), move(pose), labeled, skeleton)


def _cut(image, people, person, points):
    """What an image shows around a person's first box and all [..., 2] points, pixels,
    made as large as a cell; and a function that takes points there."""
    boxes = people.first_boxes[person].reshape(2, 2)
    shown = np.concatenate([boxes, *points])
    shown = shown[np.isfinite(shown).all(axis=1)]
    size = np.array(image.shape[1::-1])
    low, high = (edge(shown, axis=0) for edge in (np.min, np.max))
    margin = MARGIN * (high - low).max()
    low = np.clip(np.floor(low - margin), 0, size).astype(int)
    high = np.clip(np.ceil(high + margin), 0, size).astype(int)
    if (high <= low).any():  # a box beside the image
        low, high = np.zeros(2, int), size
    part = image[low[1] : high[1], low[0] : high[0]]
    cell, factors = draw.resize_to(part, CELL)
    return cell, lambda some: (some - low) * factors


def _short(people, person):
    return people.ids[person].rsplit("/", 1)[-1]
