"""PCP and PDJ of a model beside the floor and what the paper reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from deeppose_tf import metrics
from deeppose_tf.pipelines.evaluation import figures, scores
from deeppose_tf.pipelines.paper import experiment, published, transfer
from deeppose_tf.pipelines.paper.experiment import Measured, Result
from deeppose_tf.plot import Bars, Curve, plot_bars

# Colours of published points in matplotlib's cycle, after those of the stages.
POINT_COLORS = (8, 9, 6, 5)


def limbs(measured: Measured, paper: published.Experiment) -> Result:
    """PCP of the four kinds of limbs and their mean (Tables 1 and 2)."""
    skeleton, said = measured.skeleton, measured.said
    transfer.require(_limb_joints(skeleton), measured.model, skeleton)
    columns = (*metrics.PAPER_TYPES, "mean4")
    found = {
        name: scores.scores(poses, measured.people, skeleton)
        for name, poses in measured.named
    }
    strict = [
        _limb_row(name, one["pcp_strict"], columns) for name, one in found.items()
    ]
    loose = [
        _limb_row(f"{name}, loose", found[name]["pcp_loose"], columns)
        for name in (measured.named[0][0], measured.named[-1][0])
    ]
    others = experiment.published_rows(paper, columns)
    picture = plot_bars(
        [column.replace("_", " ") for column in columns],
        _bars(strict, columns) + _bars(others, columns),
        figures.title(said, "PCP at 0.5, strict"),
        "correct limbs (PCP)",
    )
    meanings = [
        f"PCP at 0.5: {said['meanings']['pcp_strict']} (strict); in rows named loose: "
        f"{said['meanings']['pcp_loose']}",
        f"mean4: {said['meanings']['mean4']}",
    ]
    rows = [*strict, *loose, *others]
    return Result(experiment.PER_CENT, columns, rows, meanings, picture)


def joints_by_stage(
    measured: Measured,
    paper: published.Experiment,
    groups: Sequence[str],
    shares: Sequence[float],
    farthest: float,
) -> Result:
    """PDJ of some joints, a curve per stage (Figs. 3, 5 and 7).

    Args:
      groups: joints, left and right together; see `figures.joint_groups`.
      shares: of the torso diameter, for the table.
      farthest: end of the curves, likewise.
    """
    columns, rows = _joint_rows(measured, paper, groups, shares)
    picture = figures.stage_curves(
        measured.named,
        measured.people,
        measured.skeleton,
        figures.title(measured.said),
        groups,
        metrics.CURVE_THRESHOLDS[metrics.CURVE_THRESHOLDS <= farthest],
        {group: _points(paper, group) for group in groups},
    )
    meanings = _meanings(measured, columns)
    return Result(experiment.PER_CENT, columns, rows, meanings, picture)


def joints_of_limbs(
    measured: Measured,
    paper: published.Experiment,
    panels: Mapping[str, Sequence[str]],
    shares: Sequence[float],
) -> Result:
    """PDJ of the joints of limbs, as curves after the last stage (Fig. 4).

    Args:
      panels: groups of joints by the name of their panel.
      shares: as of `joints_by_stage`.
    """
    groups = [group for panel in panels.values() for group in panel]
    columns, rows = _joint_rows(measured, paper, groups, shares)
    picture = figures.joint_curves(
        measured.named[0],
        measured.named[-1],
        measured.people,
        measured.skeleton,
        figures.title(measured.said),
        panels,
    )
    meanings = _meanings(measured, columns)
    return Result(experiment.PER_CENT, columns, rows, meanings, picture)


def _limb_joints(skeleton):
    """The joints of the limbs of each of the paper's types."""
    return {
        kind: [
            joint
            for limb in skeleton.limbs
            if limb.type == kind
            for joint in limb.start + limb.end
        ]
        for kind in metrics.PAPER_TYPES
    }


def _limb_row(name, entries, columns):
    values = {
        c: {"value": entries[c]["fraction"], "scored": entries[c]["scored"]}
        for c in columns
    }
    return experiment.row(name, values)


def _bars(rows, columns):
    """The floor in grey; others' results pale, in the colours of our stages."""
    bars = []
    for i, one in enumerate(rows):
        values = [one["values"].get(c, {}).get("value") for c in columns]
        values = [np.nan if value is None else value for value in values]
        published = one["source"] != experiment.MEASURED
        color = i if published else (i - 1) % figures.FLOOR_COLOR
        color = color if published or i else figures.FLOOR_COLOR
        bars.append(Bars(one["name"], values, color, published))
    return bars


def _joint_rows(measured, paper, groups, shares):
    skeleton = measured.skeleton
    joints = figures.joint_groups(skeleton)
    needed = {group: joints.get(group, []) for group in groups}
    transfer.require(needed, measured.model, skeleton)
    rows = [
        experiment.row(name, _joint_values(poses, measured, groups, shares))
        for name, poses in measured.named
    ]
    columns = list(rows[0]["values"])
    return columns, rows + experiment.published_rows(paper, columns)


def _joint_values(poses, measured, groups, shares):
    found = figures.group_pdj(poses, measured.people, measured.skeleton, shares)
    values = {}
    for group in groups:
        if group not in found:
            raise ValueError(
                f"nobody in the data has a labeled {group} and the torso to measure it "
                f"by, {measured.said['meanings']['diameter']}"
            )
        fractions, scored = found[group]
        for share, fraction in zip(shares, fractions, strict=True):
            entry = {"value": float(fraction), "scored": scored}
            values[f"{group}@{share:g}"] = entry
    return values


def _points(paper, group):
    """Published values of a group of joints as dots."""
    curves = []
    for color, one in zip(POINT_COLORS, paper.rows, strict=False):
        places = [
            (float(column.split("@")[1]), value)
            for column, value in one.values.items()
            if column.startswith(group + "@")
        ]
        if places:
            at, values = np.transpose(places)
            curves.append(Curve(f"{one.method}, quoted", values, color, at=at))
    return curves


def _meanings(measured, columns):
    said = measured.said["meanings"]
    return [
        f"{columns[0]} and so on: PDJ, {said['pdj']}, the number being that share; "
        f"left and right together; the diameter: {said['diameter']}"
    ]
