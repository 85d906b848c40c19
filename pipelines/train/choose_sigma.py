"""Chooses sigma and the number of stages as Sec. 4.1 does; `deeppose-choose`.

Trains a cascade for every sigma, each in a folder of its own, and compares them by
PDJ@0.2 of the held-out people. What it found is written as JSON, table and plot.
"""

from __future__ import annotations

import functools
import pathlib
import shutil
from collections.abc import Callable, Sequence

import numpy as np

from deeppose_tf import cascade as cascades
from deeppose_tf import draw, files
from deeppose_tf.pipelines.cli.outputs import counted
from deeppose_tf.pipelines.data import first_boxes, records
from deeppose_tf.pipelines.data.config import InputConfig
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.evaluation import scores
from deeppose_tf.pipelines.train import cascade as training
from deeppose_tf.pipelines.train import fingerprint, recipes, validation
from deeppose_tf.pipelines.train.loop import Options
from deeppose_tf.plot import Curve, plot_curves
from deeppose_tf.stage import load_stage

FORMAT = "deeppose-tf choice 2"
NAME = "choice"
SPLIT = "validation"
PAPER = (
    "The paper chose sigma 1.0 of 0.8, 1.0, 1.2 for FLIC and 2.0 of 1.5, 1.7, 2.0, 2.3 "
    "for LSP, each with 50 held-out people, and arrived at three stages for both."
)


def choose(
    folder: str,
    index: records.Index,
    recipe_for: Callable[[float, int], recipes.Recipe],
    sigmas: Sequence[float],
    stages: int | None,
    options: Options,
) -> dict:
    """Trains what is not trained yet, and compares.

    Args:
      folder: of the candidates and of `choice.md`, `choice.json`, `choice.png`, which
        are written anew after each candidate.
      index: the prepared data set, with a validation split.
      recipe_for: sigma and number of a stage -> its recipe.
      sigmas: the candidates.
      stages: S; None adds stages while they help.
      options: see `loop.Options`.

    Returns:
      What `choice.json` holds: `baseline`, PDJ@0.2 of the mean pose, `candidates` and,
      of these, the `winner`.

    Raises:
      ValueError: see `cascade.train_stages`; or there are no held-out people, or a
        first stage in `folder` was made with other settings.
    """
    people = read_people(index, SPLIT)
    content = {
        "format": FORMAT,
        "data": index.directory,
        "datasets": index.provenance.get("arguments", {}).get("dataset", []),
        "split": SPLIT,
        "people": len(people.ids),
        "first_box": first_boxes.describe(index.provenance, SPLIT, len(people.ids)),
        "baseline": validation.pdj(
            scores.mean_pose_baseline(people, read_people(index, "train")),
            *(people.keypoints, people.labeled, index.skeleton),
        ),
        "asked": list(sigmas),
        "candidates": [],
    }
    root = pathlib.Path(folder)
    _require_same_settings(root, recipe_for(sigmas[0], 1), index, options)
    for sigma in sigmas:
        if options.verbose:
            print(f"sigma {sigma}", flush=True)
        run, recipe = root / f"sigma_{sigma}", functools.partial(recipe_for, sigma)
        _share_first_stage(root, run)
        count = training.train_stages(str(run), index, recipe, stages, options)
        # With the one that did not help; what an earlier call had more does not count.
        most = count + (stages is None)
        found = _held_out(run, most, index, recipe(count).inputs)
        one = {"sigma": sigma, "run": str(run), "stages": count, "pdj": found}
        content["candidates"].append(one)
        content["winner"] = max(content["candidates"], key=_reached)
        _write(root, content)
    return content


def table(content: dict) -> str:
    """`choice.json` as Markdown."""
    candidates = content["candidates"]
    most = max(len(one["pdj"]) for one in candidates)
    rows = [["sigma", *(f"stage {s + 1}" for s in range(most)), "S", "PDJ@0.2"]]
    for one in candidates:
        cells = [f"{100 * value:.1f}" for value in one["pdj"]]
        for s in range(one["stages"], len(cells)):
            cells[s] = f"({cells[s]})"
        cells += [""] * (most - len(cells))
        chosen = f"{100 * _reached(one):.1f}"
        rows.append([str(one["sigma"]), *cells, str(one["stages"]), chosen])
    winner, left = content["winner"], len(content["asked"]) - len(candidates)
    so_far = f" so far, {left} to come" if left else ""
    box = content["first_box"]
    return "\n".join(
        [
            f"{_title(content)}." + (f" First box: {box}." if box else ""),
            "",
            scores.markdown(rows),
            "",
            f"Best{so_far}: sigma {winner['sigma']} with {winner['stages']} stages, "
            f"{winner['run']}.",
            "",
            "PDJ@0.2, mean over joints, per cent; in brackets, stages that were "
            "trained and did not help. Mean-pose baseline: "
            f"{100 * content['baseline']:.1f}. {PAPER}",
        ]
    )


def _reached(one):
    """PDJ of a candidate after the last stage that helped."""
    return one["pdj"][one["stages"] - 1]


def _title(content):
    data = " + ".join(content["datasets"]) or pathlib.Path(content["data"]).name
    people = counted(content["people"], "person")
    return f"{people} of the split {content['split']} of {data}"


def _write(root, content):
    """Into the folder of the candidates, each file whole or not at all."""
    draw.write_image(root / f"{NAME}.png", _picture(content))
    files.write_bytes(root / f"{NAME}.md", table(content).encode() + b"\n")
    files.write_json(root / f"{NAME}.json", content)


def _picture(content):
    """A line per sigma over the number of stages, the baseline dashed."""
    most = max(len(one["pdj"]) for one in content["candidates"])
    places = np.arange(1, most + 1)
    baseline = np.full(most, content["baseline"])
    curves = [Curve("mean-pose baseline", baseline, 7, True)]
    for i, one in enumerate(content["candidates"]):
        best = ", best" if one is content["winner"] else ""
        label = f"sigma {one['sigma']}{best}"
        at = places[: len(one["pdj"])]
        curves.append(Curve(label, np.array(one["pdj"]), i % 7, at=at))
    title = f"PDJ@0.2, mean over joints, {_title(content)}"
    return plot_curves(places, [("", curves)], title, "stages", "PDJ@0.2", None)


def _first_stages(root):
    """Those that are there, by candidate."""
    return sorted(root.glob("sigma_*/stage_1"))


def _require_same_settings(root, recipe, index, options):
    """Before anything is trained or copied: a copy would look like one of these."""
    asked = fingerprint.of(recipe, options, index, [])
    for folder in _first_stages(root):
        kept = load_stage(str(folder)).training
        more = fingerprint.missing_steps(folder, kept, asked)
        if more:
            raise ValueError(
                f"{folder} is finished, and {more} more steps are asked for: its later "
                "stages were trained on what it leaves. Give another --run"
            )


def _share_first_stage(root, run):
    """Copies the first stage that is there already into a candidate without one."""
    wanted, there = run / "stage_1", _first_stages(root)
    if there and wanted not in there:
        partial = files.hidden(wanted, "partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(there[0], partial)
        files.sync_all(partial)
        partial.rename(wanted)
        files.sync(run)


def _held_out(run, most, index, config: InputConfig):
    """PDJ@0.2 of the stages that were trained, at most so many."""
    folders = [run / f"stage_{number}" for number in range(1, most + 1)]
    stages = [load_stage(str(folder)) for folder in folders if folder.exists()]
    found, truth, labeled, _ = validation.predict_split(
        cascades.Cascade(stages), index, SPLIT, config
    )
    return [
        validation.pdj(found[:, s], truth, labeled, index.skeleton)
        for s in range(len(stages))
    ]
