"""How each table and figure of Sec. 4 is made, beside what the paper reports.

PCP (Tables 1 and 2), PDJ (Figs. 3, 4, 5 and 7), sheets of poses (Figs. 6, 8 and 9) and
the running time. A model and a data set may differ in their joints, which are matched
by name, and in how first boxes are made.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deeppose_tf import metrics
from deeppose_tf.cascade import Cascade
from deeppose_tf.pipelines.data import first_boxes, records
from deeppose_tf.pipelines.evaluation import figures, scores
from deeppose_tf.pipelines.paper import published
from deeppose_tf.pipelines.profiling import timer
from deeppose_tf.plot import Bars, Curve, plot_bars
from deeppose_tf.skeleton import Skeleton

PER_CENT, SECONDS, MEASURED = "per cent", "seconds", "measured"
# Colours of published points in matplotlib's cycle, after those of the stages.
POINT_COLORS = (8, 9, 6, 5)
# People on the sheets of Figs. 6 and 8.
REFINED, SHOWN = 5, 24
# Torso diameters below which errors make no difference.
NEGLIGIBLE = 1e-3
# Columns of the running time.
TIMES = ("median", "mean", "90th percentile", "processor")


@dataclasses.dataclass(frozen=True)
class Measured:
    """What a model predicts for the people of a data set, in the data's joints.

    Attributes:
      model: the skeleton that the model predicts.
      truth: the people of the data, their skeleton of K joints, and their images.
      protocol: see `scores.protocol`.
      predict: makes `named`; takes its time.
    """

    model: Skeleton
    truth: figures.Truth
    protocol: dict
    predict: Callable[[], Sequence[figures.Named]]

    @functools.cached_property
    def named(self) -> Sequence[figures.Named]:
        """(name, [N, K, 2] pixels) of the baseline, then of each stage; of a stage, NaN
        for joints that the model does not predict. Predicted when first asked for."""
        return self.predict()

    @property
    def shared(self) -> np.ndarray:
        """[K] bool: which of the data's joints the model predicts."""
        return np.isin(self.truth.skeleton.canonical, self.model.canonical)


class Result(NamedTuple):
    """A table and a picture.

    Attributes:
      unit: of all values.
      columns: their names.
      rows: see `_row`; the first says in `scored` how much each column is made of.
      meanings: how to read the numbers, a sentence each.
      picture: [H, W, 3] uint8 RGB.
    """

    unit: str
    columns: Sequence[str]
    rows: Sequence[dict]
    meanings: Sequence[str]
    picture: np.ndarray


def distances(skeleton: Skeleton) -> str:
    """The unit of errors, true for skeletons without a torso too."""
    return "torso diameters" if skeleton.diagonals else "extents of the pose"


def limbs(measured: Measured, paper: published.Experiment) -> Result:
    """PCP of the four kinds of limbs and their mean (Tables 1 and 2)."""
    skeleton, protocol = measured.truth.skeleton, measured.protocol
    needed = {
        kind: [j for x in skeleton.limbs if x.type == kind for j in x.start + x.end]
        for kind in metrics.PAPER_TYPES
    }
    _require(measured, needed)
    columns = (*metrics.PAPER_TYPES, "mean4")
    found = {
        name: scores.scores(poses, measured.truth.people, skeleton)
        for name, poses in measured.named
    }

    def limb_row(name, of):
        entries = ((of[c]["fraction"], of[c]["scored"]) for c in columns)
        return _row(name, _entries(columns, entries))

    strict = [limb_row(name, one["pcp_strict"]) for name, one in found.items()]
    first, *_, last = found
    loose = [limb_row(f"{x}, loose", found[x]["pcp_loose"]) for x in (first, last)]
    others = _published_rows(paper, columns)
    picture = plot_bars(
        [column.replace("_", " ") for column in columns],
        _bars(strict, columns) + _bars(others, columns),
        figures.title(protocol, "PCP at 0.5, strict"),
        "correct limbs (PCP)",
    )
    meanings = [
        f"PCP at 0.5: {protocol['meanings']['pcp_strict']} (strict); in rows named "
        f"loose: {protocol['meanings']['pcp_loose']}",
        f"mean4: {protocol['meanings']['mean4']}",
    ]
    return Result(PER_CENT, columns, [*strict, *loose, *others], meanings, picture)


def joints(
    measured: Measured,
    paper: published.Experiment,
    groups: Sequence[str],
    shares: Sequence[float],
    largest: float = 0.5,
    panels: Mapping[str, Sequence[str]] | None = None,
) -> Result:
    """PDJ of some joints, a curve per stage (Figs. 3, 5 and 7); with panels, a curve
    per joint after the last stage (Fig. 4).

    Args:
      groups: joints, left and right together; see `figures.joint_groups`.
      shares: of the torso diameter, for the table.
      largest: share that ends the curves of stages.
      panels: which of the groups, by the name of the panel.
    """
    known = figures.joint_groups(measured.truth.skeleton)
    _require(measured, {group: known.get(group, []) for group in groups})
    named, truth, protocol = measured.named, measured.truth, measured.protocol
    title, said = figures.title(protocol), protocol["meanings"]
    rows = [
        _row(name, _joint_values(poses, measured, groups, shares))
        for name, poses in named
    ]
    columns = list(rows[0]["values"])
    meanings = [
        f"{columns[0]} and so on: PDJ, {said['pdj']}, the number being that share; "
        f"left and right together; the diameter: {said['diameter']}"
    ]
    if panels:
        picture = figures.joint_curves(named[0], named[-1], truth, title, panels)
    else:
        shown = metrics.CURVE_THRESHOLDS[metrics.CURVE_THRESHOLDS <= largest]
        points = {group: _points(paper, group) for group in groups}
        picture = figures.stage_curves(named, truth, title, groups, shown, points)
    rows += _published_rows(paper, columns)
    return Result(PER_CENT, columns, rows, meanings, picture)


def refinement(measured: Measured, paper: published.Experiment) -> Result:
    """Some people stage by stage (Fig. 6), from those whom later stages helped most to
    those whom they harmed."""
    del paper  # it shows examples and has no numbers
    errors = _person_errors(measured)
    first, last = (errors[measured.named[i][0]] for i in (1, -1))
    known = np.flatnonzero(np.isfinite(first) & np.isfinite(last))
    # Shares of the first error: a torso seen end-on makes all of them large.
    left = (last[known] + NEGLIGIBLE) / (first[known] + NEGLIGIBLE)
    ranked = known[np.argsort(left, kind="stable")]
    if not len(ranked):
        raise ValueError("nobody in the data has labels to rank the poses by")
    chosen = ranked[figures.evenly(len(ranked), REFINED)]
    picture = figures.stage_sheet(measured.named[1:], measured.truth, chosen)
    how = (
        f"{len(chosen)} of {len(ranked)} people, ranked by the share of the first "
        "stage's error that is left after the last: the one helped most, then evenly "
        "down to the one harmed most"
    )
    return _sheet(measured, errors, chosen, how, picture)


def examples(measured: Measured, paper: published.Experiment) -> Result:
    """The poses of some people after the last stage (Figs. 8 and 9)."""
    del paper  # as above
    errors = _person_errors(measured)
    total = len(measured.truth.people.ids)
    chosen = figures.evenly(total, SHOWN)
    picture = figures.pose_sheet(measured.named[-1][1], measured.truth, chosen)
    how = (
        f"{len(chosen)} of {total} people, evenly from the first to the last and not "
        "chosen; predictions alone are drawn, left in orange and right in blue"
    )
    return _sheet(measured, errors, chosen, how, picture)


def running_time(
    cascade: Cascade,
    index: records.Index,
    split: str,
    count: int,
    paper: published.Experiment,
    verbose: int = 1,
) -> Result:
    """Times the first `count` people of a split, one image after the other.

    Every image is decoded and predicted by all shorter cascades in turn.
    """
    parts = {"decoding": lambda one: lambda: records.decode(one[0])}
    for number in range(1, cascade.count + 1):
        shorter = Cascade(cascade.stages[:number])
        name = f"{number} stage{'s' if number > 1 else ''}"
        parts[name] = functools.partial(_prediction, shorter)
    boxes = index.people[split].boxes[:count]
    people = ((records.read(index, split, i), box) for i, box in enumerate(boxes))
    taken = timer.in_turns(
        parts, people, lambda part, person: part(person), shown=bool(verbose)
    )
    rows = [_row(name, _times(*pairs.T)) for name, pairs in taken.items()]
    others = _published_rows(paper, TIMES)
    # Without those that are many times slower.
    shown = [
        Bars(one["name"], [one["values"]["mean"]["value"]], i, one in others)
        for i, one in enumerate(rows + others[:1])
    ]
    where = f"{timer.cores()} cores, {timer.device()}, TensorFlow {tf.__version__}"
    what = f"{count} images one by one, {where}"
    picture = plot_bars(["mean"], shown, what, "seconds per image", None)
    meanings = [
        what,
        "seconds that pass for one image and its one person; processor: mean of the "
        "seconds that cores work, which other programs disturb less. The images are in "
        "memory and decoded before; decoding is a row of its own",
    ]
    return Result(SECONDS, TIMES, rows + others, meanings, picture)


def onto(poses: np.ndarray, model: Skeleton, data: Skeleton) -> np.ndarray:
    """Predictions as joints of the data.

    Args:
      poses: [..., K of the model, 2]

    Returns:
      [..., K of the data, 2], NaN for joints that the model does not predict.
    """
    moved = np.full((*poses.shape[:-2], len(data.joints), 2), np.nan, poses.dtype)
    for i, joint in enumerate(data.canonical):
        if joint in model.canonical:
            moved[..., i, :] = poses[..., model.canonical.index(joint), :]
    return moved


def other_boxes(cascade, provenance: dict) -> bool:
    """Whether first boxes of data are enlarged otherwise than those that the cascade
    learned from, as far as it says; `provenance` is the data's."""
    if "provenance" not in cascade.stages[0].training.get("data", {}):
        return False
    own, here = first_boxes.of_model(cascade), first_boxes.enlargements(provenance)
    return bool(own) != bool(here) or any(own.get(k) != by for k, by in here.items())


def _row(name: str, values: dict, source: str = MEASURED) -> dict:
    """A row as a JSON value; `values` by column are like {"value": 0.5, "scored": 9},
    the value None where there is none."""
    return {"name": name, "source": source, "values": values}


def _entries(columns, values) -> dict:
    """Of each column its value, and how much that is made of."""
    pairs = zip(columns, values, strict=True)
    return {c: {"value": float(v), "scored": n} for c, (v, n) in pairs}


def _published_rows(paper: published.Experiment, columns: Sequence[str]) -> list[dict]:
    """The rows of the paper, with what they have of the columns."""
    return [
        _row(
            one.method,
            {c: {"value": one.values[c]} for c in columns if c in one.values},
            one.source,
        )
        for one in paper.rows
    ]


def _require(measured: Measured, needed: Mapping[str, Sequence[int]]) -> None:
    """Checks that the model predicts what is to be scored: indices of the data's joints
    by the name of what is made of them."""
    model, data = measured.model, measured.truth.skeleton
    for part, joints in needed.items():
        part = part.replace("_", " ")
        if not joints:
            raise ValueError(
                f"the data has no {part} to score; its joints ({data.name}): "
                f"{', '.join(data.joints)}"
            )
        names = [data.canonical[i] for i in joints]
        missing = [joint for joint in names if joint not in model.canonical]
        if missing:
            raise ValueError(
                f"the model does not predict {', '.join(missing)}, which {part} needs; "
                f"its joints ({model.name}): {', '.join(model.joints)}"
            )


def _bars(rows, columns):
    """The baseline in grey; others' results pale, in the colours of our stages."""
    grey, bars = figures.BASELINE_COLOR, []
    for i, one in enumerate(rows):
        values = [one["values"].get(c, {}).get("value") for c in columns]
        values = [np.nan if value is None else value for value in values]
        pale = one["source"] != MEASURED
        color = i if pale else (i - 1) % grey if i else grey
        bars.append(Bars(one["name"], values, color, pale))
    return bars


def _joint_values(poses, measured, groups, shares):
    found = figures.group_pdj(poses, measured.truth, shares)
    values = {}
    for group in groups:
        if group not in found:
            raise ValueError(
                f"nobody in the data has a labeled {group} and the torso to measure it "
                f"by, {measured.protocol['meanings']['diameter']}"
            )
        fractions, scored = found[group]
        columns = [f"{group}@{share:g}" for share in shares]
        values |= _entries(columns, ((one, scored) for one in fractions))
    return values


def _points(paper, group):
    """Published values of a group of joints as dots."""
    curves = []
    for color, one in zip(POINT_COLORS, paper.rows, strict=False):
        own = {c: value for c, value in one.values.items() if c.startswith(f"{group}@")}
        if own:
            at, values = [float(c.split("@")[1]) for c in own], list(own.values())
            name = f"{one.method}, quoted"
            curves.append(Curve(name, np.array(values), color, at=np.array(at)))
    return curves


def _person_errors(measured):
    """[N] errors of the baseline and of every stage by name, in what both predict."""
    model, (people, data, _) = measured.model, measured.truth
    if not measured.shared.any():
        raise ValueError(
            f"the model predicts none of the data's joints; its joints ({model.name}): "
            f"{', '.join(model.joints)}; those of the data ({data.name}): "
            f"{', '.join(data.joints)}"
        )
    truth = people.keypoints, people.labeled, data, measured.shared
    return {
        name: metrics.person_errors(poses, *truth) for name, poses in measured.named
    }


def _sheet(measured, errors, chosen, how, picture):
    rows = []
    for person in chosen:
        own = {name: float(values[person]) for name, values in errors.items()}
        known = {name: x if np.isfinite(x) else None for name, x in own.items()}
        entries = {name: {"value": x} for name, x in known.items()}
        rows.append(_row(measured.truth.people.ids[person], entries))
    shared = measured.shared
    joints = np.array(measured.truth.skeleton.joints)[shared]
    unit = distances(measured.truth.skeleton)
    which = "" if shared.all() else f" ({', '.join(joints)} alone)"
    meanings = [
        how,
        f"numbers: mean distance of a person's labeled joints{which} to their places, "
        f"in {unit}, {measured.protocol['meanings']['diameter']}",
    ]
    return Result(unit, list(errors), rows, meanings, picture)


def _prediction(cascade, person):
    image, box = records.decode(person[0]), person[1]
    return lambda: cascade.predict(image, box[np.newaxis])


def _times(passed, worked):
    values = np.median(passed), passed.mean(), np.quantile(passed, 0.9), worked.mean()
    return _entries(TIMES, ((value, len(passed)) for value in values))
