"""Poses of some people, and how far off they are (Figs. 6 and 8)."""

from __future__ import annotations

import numpy as np

from deeppose_tf import metrics
from deeppose_tf.pipelines.evaluation import figures
from deeppose_tf.pipelines.paper import experiment, published, transfer
from deeppose_tf.pipelines.paper.experiment import Measured, Result

# People on the sheets of Figs. 6 and 8.
REFINED, SHOWN = 5, 24
# Torso diameters below which errors make no difference.
NEGLIGIBLE = 1e-3


def refinement(measured: Measured, paper: published.Experiment) -> Result:
    """Some people stage by stage (Fig. 6), from those whom later stages helped most to
    those whom they harmed."""
    del paper  # it shows examples and has no numbers
    _require_shared(measured)
    errors = _errors(measured)
    first, last = (errors[measured.named[i][0]] for i in (1, -1))
    known = np.flatnonzero(np.isfinite(first) & np.isfinite(last))
    # Shares of the first error: a torso seen end-on makes all of them large.
    left = (last[known] + NEGLIGIBLE) / (first[known] + NEGLIGIBLE)
    ranked = known[np.argsort(left, kind="stable")]
    if not len(ranked):
        raise ValueError("nobody in the data has labels to rank the poses by")
    chosen = ranked[figures.evenly(len(ranked), REFINED)]
    picture = figures.stage_sheet(
        measured.named[1:],
        measured.people,
        measured.skeleton,
        measured.images,
        chosen,
    )
    how = (
        f"{len(chosen)} of {len(ranked)} people, ranked by the share of the first "
        "stage's error that is left after the last: the one helped most, then evenly "
        "down to the one harmed most"
    )
    return _result(measured, errors, chosen, how, picture)


def examples(measured: Measured, paper: published.Experiment) -> Result:
    """The poses of some people after the last stage (Fig. 8)."""
    del paper  # as above
    _require_shared(measured)
    total = len(measured.people.ids)
    chosen = figures.evenly(total, SHOWN)
    picture = figures.pose_sheet(
        measured.named[-1][1],
        measured.people,
        measured.skeleton,
        measured.images,
        chosen,
    )
    how = (
        f"{len(chosen)} of {total} people, evenly from the first to the last and not "
        "chosen; predictions alone are drawn, left in orange and right in blue"
    )
    return _result(measured, _errors(measured), chosen, how, picture)


def _require_shared(measured):
    model, data = measured.model, measured.skeleton
    if not transfer.shared(model, data).any():
        raise ValueError(
            f"the model predicts none of the data's joints; its joints ({model.name}): "
            f"{', '.join(model.joints)}; those of the data ({data.name}): "
            f"{', '.join(data.joints)}"
        )


def _errors(measured):
    """[N] errors of the floor and of every stage by name, in what both predict."""
    people, skeleton = measured.people, measured.skeleton
    shared = transfer.shared(measured.model, skeleton)
    return {
        name: metrics.person_errors(
            poses, people.keypoints, people.labeled, skeleton, shared
        )
        for name, poses in measured.named
    }


def _result(measured, errors, chosen, how, picture):
    def entry(error):
        return {"value": float(error) if np.isfinite(error) else None}

    rows = [
        experiment.row(
            measured.people.ids[person],
            {name: entry(values[person]) for name, values in errors.items()},
        )
        for person in chosen
    ]
    shared = transfer.shared(measured.model, measured.skeleton)
    joints = np.array(measured.skeleton.joints)[shared]
    which = "" if shared.all() else f" ({', '.join(joints)} alone)"
    meanings = [
        how,
        f"numbers: mean distance of a person's labeled joints{which} to their places, "
        f"in torso diameters, {measured.said['meanings']['diameter']}",
    ]
    return Result(experiment.DIAMETERS, list(errors), rows, meanings, picture)
