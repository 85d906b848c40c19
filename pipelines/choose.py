"""`deeppose-choose`: chooses sigma and the number of stages as Sec. 4.1 does.

Trains a cascade for every sigma, each in a folder of its own below --run, and compares
them by PDJ@0.2 of the held-out people, mean over joints. The first stage, which has no
use for a sigma, is trained once. A run that was stopped goes on with the same command.
"""

from __future__ import annotations

import functools
import json
import pathlib
import shutil
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags

from deeppose_tf import cascade as cascades
from deeppose_tf import draw, files
from deeppose_tf.pipelines import (
    command,
    figures,
    held_out,
    inputs,
    recipes,
    records,
    scores,
    train_cascade,
    training_flags,
)
from deeppose_tf.pipelines.people import read_people
from deeppose_tf.plot import Curve, plot_curves
from deeppose_tf.stage import load_stage

FORMAT = "deeppose-tf choice 1"
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
    options: training_flags.Options,
) -> dict:
    """Trains what is not trained yet, and compares.

    Args:
      folder: of the candidates and of `choice.md`, `choice.json`, `choice.png`, which
        are written anew after each candidate.
      index: the prepared data set, with a validation split.
      recipe_for: sigma and number of a stage -> its recipe.
      sigmas: the candidates.
      stages: S; None adds stages while they help.
      options: see `training_flags.Options`.

    Returns:
      What `choice.json` holds: `floor`, `candidates` and, of these, the `winner`.

    Raises:
      ValueError: see `train_cascade.train_cascade`; or there are no held-out people.
    """
    people = read_people(index, SPLIT)
    floor = scores.floor(people, read_people(index, scores.floor_split(index, SPLIT)))
    content = {
        "format": FORMAT,
        "protocol": scores.protocol(index, SPLIT, people),
        "floor": held_out.pdj(floor, people.keypoints, people.labeled, index.skeleton),
        "asked": list(sigmas),
        "candidates": [],
    }
    root = pathlib.Path(folder)
    for sigma in sigmas:
        if options.verbose:
            print(f"sigma {sigma:g}", flush=True)
        run, recipe = root / f"sigma_{sigma:g}", functools.partial(recipe_for, sigma)
        _share_first_stage(root, run)
        trained = train_cascade.train_cascade(str(run), index, recipe, stages, options)
        found = _held_out(run, index, recipe(trained.count).inputs)
        one = {"sigma": sigma, "run": str(run), "stages": trained.count, "pdj": found}
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
        rows.append([f"{one['sigma']:g}", *cells, str(one["stages"]), chosen])
    winner, left = content["winner"], len(content["asked"]) - len(candidates)
    so_far = f" so far, {left} to come" if left else ""
    said = content["protocol"]
    return "\n".join(
        [
            scores.heading(said),
            "",
            scores.markdown(rows),
            "",
            f"Best{so_far}: sigma {winner['sigma']:g} with {winner['stages']} stages, "
            f"{winner['run']}.",
            "",
            "PDJ@0.2, mean over joints, per cent; in brackets, stages that were "
            f"trained and did not help. Floor: {100 * content['floor']:.1f}, "
            f"{scores.floor_meaning(said)}. PDJ: {said['meanings']['pdj']}, the "
            f"diameter being {said['meanings']['diameter']}. {PAPER}",
        ]
    )


def _reached(one):
    """PDJ of a candidate after the last stage that helped."""
    return one["pdj"][one["stages"] - 1]


def _share_first_stage(root, run):
    """Copies the first stage that is there already into a candidate without one."""
    wanted, there = run / "stage_1", sorted(root.glob("sigma_*/stage_1"))
    if there and wanted not in there:
        partial = run / ".stage_1.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(there[0], partial)
        files.sync_all(partial)
        partial.rename(wanted)


def _held_out(run, index, config: inputs.InputConfig):
    """PDJ@0.2 of all stages that were trained, also of one that did not help."""
    stages = []
    while (folder := run / f"stage_{len(stages) + 1}").exists():
        stages.append(load_stage(str(folder)))
    found, truth, labeled, _ = held_out.predict_split(
        cascades.Cascade(stages), index, SPLIT, config
    )
    return [
        held_out.pdj(found[:, s], truth, labeled, index.skeleton)
        for s in range(len(stages))
    ]


def _write(root, content):
    draw.write_image(root / f"{NAME}.png", _picture(content))
    files.write_bytes(root / f"{NAME}.md", table(content).encode() + b"\n")
    text = json.dumps(content, indent=1).encode() + b"\n"
    files.write_bytes(root / f"{NAME}.json", text)


def _picture(content):
    """A line per sigma over the number of stages, the floor dashed."""
    most = max(len(one["pdj"]) for one in content["candidates"])
    places = np.arange(1, most + 1)
    curves = [Curve("floor", np.full(most, content["floor"]), 7, True)]
    for i, one in enumerate(content["candidates"]):
        best = ", best" if one is content["winner"] else ""
        label = f"sigma {one['sigma']:g}{best}"
        at = places[: len(one["pdj"])]
        curves.append(Curve(label, np.array(one["pdj"]), i % 7, at=at))
    title = figures.title(content["protocol"], "PDJ@0.2, mean over joints")
    return plot_curves(places, [("", curves)], title, "stages", "PDJ@0.2", None)


def define_flags() -> None:
    """Flags of this script: those of training, and what is tried."""
    training_flags.define_flags()
    flags.DEFINE_list(
        "sigmas",
        None,
        "The sides of a joint's box to try, in pose diameters, joined by commas. The "
        "paper tried 1.5,1.7,2.0,2.3 for LSP and 0.8,1.0,1.2 for FLIC. Each is trained "
        "in a folder of its own below --run, such as RUN/sigma_1.5.",
        required=True,
    )
    flags.DEFINE_string(
        "stages",
        "auto",
        "How many stages, or auto: add stages while PDJ@0.2 of the held-out people "
        "grows.",
    )


def main(argv: list[str]) -> None:
    """Makes the choice that the flags describe and prints it."""
    del argv
    values = flags.FLAGS
    if values.sigma is not None:
        raise ValueError("--sigma is what is chosen here: give --sigmas=1.5,1.7,2.0")
    if values.strategy == "multiworker":
        raise ValueError("--strategy=multiworker: candidates train on one machine")
    sigmas = _parse(values.sigmas)
    stages = train_cascade.parse_stages(values.stages)

    def recipe_for(sigma, number):
        return training_flags.recipe_from_flags(number, sigma)

    for sigma in sigmas:  # better now than after days
        for number in range(1, (stages or train_cascade.MOST_STAGES) + 1):
            recipe_for(sigma, number)
    content = choose(
        values.run,
        records.read_index(values.data),
        recipe_for,
        sigmas,
        stages,
        training_flags.options_from_flags(),
    )
    print(table(content))


def _parse(texts):
    try:
        sigmas = [float(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"--sigmas={','.join(texts)}: {error}") from error
    if not sigmas or len(set(sigmas)) < len(sigmas):
        raise ValueError(f"--sigmas={','.join(texts)}: give different numbers")
    return sigmas


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__, folder="run")


if __name__ == "__main__":
    run()
