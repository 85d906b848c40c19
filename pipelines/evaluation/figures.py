"""Figures of an evaluation: PDJ curves as in Figs. 3 to 5, sheets as in 6 and 8."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from deeppose_tf import draw, metrics
from deeppose_tf.pipelines.cli.outputs import counted
from deeppose_tf.pipelines.evaluation import scores
from deeppose_tf.plot import Curve, plot_curves
from deeppose_tf.skeleton import Skeleton

if TYPE_CHECKING:
    from deeppose_tf.pipelines.data.records import People

BASELINE_COLOR = 7  # grey in matplotlib's cycle
CELL, COLUMNS = 260, 6
CASES = 12  # the best and the worst people
# Shown around people's first boxes on sheets, as a share of their longer side.
MARGIN = 0.05
MEAN = "mean over joints"

# (name, [N, K, 2] predictions in pixels)
Named = tuple[str, np.ndarray]
# Index of a person -> image [H, W, 3] uint8 RGB.
Images = Callable[[int], np.ndarray]


class Truth(NamedTuple):
    """What predictions are drawn beside: labels, and images of sheets."""

    people: People
    skeleton: Skeleton
    images: Images | None = None


def title(protocol: dict, what: str = "") -> str:
    """What a figure measures, from `scores.protocol`; by default joints."""
    what = what or scores.joint_score(protocol)
    data = " + ".join(protocol["datasets"]) or pathlib.Path(protocol["data"]).name
    labels = protocol["labels"].split(":")[0]
    return (
        f"{what}, {counted(protocol['people'], 'person')} of {protocol['split']} of "
        f"{data}, labels {labels}\nfirst box: {protocol['first_box']}"
    )


def unit(skeleton: Skeleton) -> str:
    """What distances are measured in."""
    return "torso diameter" if skeleton.diagonals else "extent of the pose"


def axes(skeleton: Skeleton) -> tuple[str, str]:
    """Both axes of curves of joints, true for skeletons without a torso too."""
    score = "PDJ" if skeleton.diagonals else "PCK"
    distance = f"distance to the true joint / {unit(skeleton)}"
    return distance, f"detected joints ({score})"


def stage_curves(
    named: Sequence[Named],
    truth: Truth,
    title: str,
    groups: Sequence[str] = (),
    thresholds: np.ndarray = metrics.CURVE_THRESHOLDS,
    more: Mapping[str, Sequence[Curve]] | None = None,
) -> np.ndarray:
    """One line per stage, a panel for each of the groups of joints (Figs. 3, 5, 7).

    Args:
      named: the baseline, then each stage.
      title: says what is measured.
      groups: of `group_pdj`; by default all.
      thresholds: [T] the horizontal axis.
      more: further curves by group.
    """
    curves = [(name, group_pdj(poses, truth, thresholds)) for name, poses in named]
    panels = []
    for panel in groups or curves[0][1]:
        lines = []
        for i, (name, found) in enumerate(curves):
            color = (i - 1) % BASELINE_COLOR if i else BASELINE_COLOR
            lines.append(Curve(name, found[panel][0], color, dashed=i == 0))
        panels.append(
            (panel.replace("_", " "), lines + list((more or {}).get(panel, ())))
        )
    return plot_curves(thresholds, panels, title, *axes(truth.skeleton))


def joint_curves(
    baseline: Named,
    named: Named,
    truth: Truth,
    title: str,
    panels: Mapping[str, Sequence[str]] | None = None,
) -> np.ndarray:
    """One line per joint of one stage, dashed for the baseline (Fig. 4).

    Args:
      panels: the groups of joints of each panel by its name; by default all in one.
    """
    lower, upper = (
        group_pdj(poses, truth, metrics.CURVE_THRESHOLDS)
        for _, poses in (baseline, named)
    )
    panels = panels or {"": [name for name in upper if name != MEAN]}
    meaning = f"solid: {named[0]}, dashed: {baseline[0]}"
    drawn = []
    for panel, groups in panels.items():
        lines = [
            Curve(name.replace("_", " "), upper[name][0], i)
            for i, name in enumerate(groups)
        ]
        lines += [Curve("", lower[name][0], i, True) for i, name in enumerate(groups)]
        drawn.append((f"{panel}; {meaning}" if panel else meaning, lines))
    thresholds = metrics.CURVE_THRESHOLDS
    return plot_curves(thresholds, drawn, title, *axes(truth.skeleton))


def reliability_plot(found: dict, skeleton: Skeleton, title: str) -> np.ndarray:
    """How many joints are right by their score, from `metrics.reliability`."""
    rank = found["rank_correlation"]
    words = "not defined, as all are the same" if rank is None else f"{rank:.2f}"
    name = f"{title}\nSpearman's rank correlation of scores with small errors: {words}"
    at, values = (np.array(found[key]) for key in ("score", "correct"))
    smallest, largest = min(found["count"]), max(found["count"])
    counts = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
    curves = [
        Curve(f"{counts} joints each", values, 0, at=at),
        Curve("score = share", np.array([0, 1]), BASELINE_COLOR, True),
    ]
    up = f"share of joints within {found['within']:g} of the {unit(skeleton)}"
    ends = np.array([0.0, 1.0])
    return plot_curves(ends, [("", curves)], name, "score of a joint", up)


def evenly(total: int, count: int) -> np.ndarray:
    """Indices of at most `count` of `total`, evenly from the first to the last."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int))


def stage_sheet(
    named: Sequence[Named], truth: Truth, chosen: Sequence[int]
) -> np.ndarray:
    """Some people, by their indices, in rows, a column per stage: labels green,
    predictions red (Fig. 6)."""
    cells, captions = [], []
    for person in chosen:
        image = truth.images(person)
        every = [poses[person] for _, poses in named]
        for (name, _), pose in zip(named, every, strict=True):
            cells.append(_pose_cell(image, pose, truth, person, every))
            captions.append(f"{_short(truth, person)}, {name}")
    # A single column would be a tower; nobody's stages are torn apart.
    columns = len(named) * -(-3 // len(named))
    return draw.contact_sheet(cells, captions, columns, CELL, draw.TRUTH_LEGEND)


def pose_sheet(poses: np.ndarray, truth: Truth, chosen: Sequence[int]) -> np.ndarray:
    """[N, K, 2] predictions of some people without the labels, sides told apart by
    colour (Fig. 8)."""
    cells = []
    for person in chosen:
        image = truth.images(person)
        cell, move = _cut(image, truth.people, person, [poses[person]])
        cells.append(draw.draw_pose(cell, move(poses[person]), truth.skeleton))
    captions = [_short(truth, person) for person in chosen]
    columns = min(COLUMNS, len(cells))
    return draw.contact_sheet(cells, captions, columns, CELL, draw.COLORS)


def case_sheet(poses: np.ndarray, truth: Truth) -> np.ndarray:
    """The best and the worst people of [N, K, 2] predictions, labels green, them
    red."""
    people, skeleton = truth.people, truth.skeleton
    errors = metrics.person_errors(poses, people.keypoints, people.labeled, skeleton)
    order = [i for i in np.argsort(errors, kind="stable") if not np.isnan(errors[i])]
    half = min(CASES, len(order)) // 2
    chosen = [("best", i) for i in order[:half]]
    chosen += [("worst", i) for i in order[::-1][:half]]
    if not chosen:
        chosen = [("only", 0)]
    cells = [_pose_cell(truth.images(i), poses[i], truth, i) for _, i in chosen]
    captions = [
        f"{kind}: {_short(truth, i)}, error {errors[i]:.2f}" for kind, i in chosen
    ]
    legend = {**draw.TRUTH_LEGEND, f"error: mean distance / {unit(skeleton)}": None}
    return draw.contact_sheet(cells, captions, max(half, 1), CELL, legend)


def joint_groups(skeleton: Skeleton) -> dict[str, list[int]]:
    """Joint indices by name, left and right together."""
    partner = {a: b for pair in skeleton.pairs for a, b in (pair, pair[::-1])}
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(skeleton.canonical):
        if i not in partner:
            groups[name] = [i]
        elif skeleton.side(i) == "left":
            stem = name.replace("left", "").strip("_") or name
            groups[stem if stem not in groups else name] = [i, partner[i]]
    return groups


def group_pdj(
    poses: np.ndarray, truth: Truth, thresholds: np.ndarray
) -> dict[str, tuple[np.ndarray, int]]:
    """PDJ of [N, K, 2] predictions: fractions [T] over the thresholds, and how many
    joints were scored; `MEAN` over all joints first, then by `joint_groups`."""
    people, skeleton = truth.people, truth.skeleton
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


def _pose_cell(image, pose, truth, person, every=()):
    """Drawn at the size it is shown at: thin lines, whatever the size of the photo. Cut
    in the same way for `every` pose of the person."""
    people = truth.people
    places, labeled = people.keypoints[person], people.labeled[person]
    cell, move = _cut(image, people, person, [places[labeled], pose, *every])
    return draw.draw_truth(cell, move(places), move(pose), labeled, truth.skeleton)


def _cut(image, people, person, points):
    """What an image shows around a person's first box and all [..., 2] points, pixels,
    made as large as a cell; and a function that takes points there."""
    boxes = people.first_boxes[person].reshape(2, 2)
    return draw.cut(image, [boxes, *points], CELL, MARGIN)


def _short(truth, person):
    return truth.people.ids[person].rsplit("/", 1)[-1]
