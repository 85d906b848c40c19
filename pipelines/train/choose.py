"""`deeppose-choose`: chooses sigma and the number of stages as Sec. 4.1 does.

Trains a cascade for every sigma, each in a folder of its own below --run, and compares
them by PDJ@0.2 of the held-out people, mean over joints. The first stage, which has no
use for a sigma, is trained once. A run that was stopped goes on with the same command.
"""

from __future__ import annotations

import functools
import math
import pathlib
import shutil
from collections.abc import Callable, Sequence

from absl import flags

from deeppose_tf import cascade as cascades
from deeppose_tf import files
from deeppose_tf.pipelines.cli import command
from deeppose_tf.pipelines.data import records
from deeppose_tf.pipelines.data.config import InputConfig
from deeppose_tf.pipelines.data.records import read_people
from deeppose_tf.pipelines.evaluation import scores
from deeppose_tf.pipelines.train import cascade as train_cascade
from deeppose_tf.pipelines.train import choice, recipes, settings, training_flags
from deeppose_tf.pipelines.train import validation as held_out
from deeppose_tf.stage import load_stage

SPLIT = "validation"


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
      ValueError: see `train_cascade.train_cascade`; or there are no held-out people,
        or a first stage in `folder` was made with other settings.
    """
    people = read_people(index, SPLIT)
    floor = scores.mean_pose_baseline(
        people, read_people(index, scores.baseline_split(index, SPLIT))
    )
    content = {
        "format": choice.FORMAT,
        "protocol": scores.protocol(index, SPLIT, people),
        "floor": held_out.pdj(floor, people.keypoints, people.labeled, index.skeleton),
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
        trained = train_cascade.train_cascade(str(run), index, recipe, stages, options)
        # With the one that did not help; what an earlier call had more does not count.
        most = trained.count + (stages is None)
        found = _held_out(run, most, index, recipe(trained.count).inputs)
        one = {"sigma": sigma, "run": str(run), "stages": trained.count, "pdj": found}
        content["candidates"].append(one)
        content["winner"] = max(content["candidates"], key=choice.reached)
        choice.write(root, content)
    return content


def _first_stages(root):
    """Those that are there, by candidate."""
    return sorted(root.glob("sigma_*/stage_1"))


def _require_same_settings(root, recipe, index, options):
    """Before anything is trained or copied: a copy would look like one of these."""
    asked = settings.of(recipe, options, index, [])
    for folder in _first_stages(root):
        settings.check_finished(folder, load_stage(str(folder)).training, asked)


def _share_first_stage(root, run):
    """Copies the first stage that is there already into a candidate without one."""
    wanted, there = run / "stage_1", _first_stages(root)
    if there and wanted not in there:
        partial = run / ".stage_1.partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(there[0], partial)
        files.sync_all(partial)
        partial.rename(wanted)


def _held_out(run, most, index, config: InputConfig):
    """PDJ@0.2 of the stages that were trained, at most so many."""
    folders = [run / f"stage_{number}" for number in range(1, most + 1)]
    stages = [load_stage(str(folder)) for folder in folders if folder.exists()]
    found, truth, labeled, _ = held_out.predict_split(
        cascades.Cascade(stages), index, SPLIT, config
    )
    return [
        held_out.pdj(found[:, s], truth, labeled, index.skeleton)
        for s in range(len(stages))
    ]


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
    if values.overfit:
        raise ValueError("--overfit: what was learned by heart has nothing to choose")
    sigmas = _parse(values.sigmas)
    stages = train_cascade.parse_stages(values.stages)
    if stages == 1:
        raise ValueError("--stages=1: a first stage has no use for a sigma")

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
    print(choice.table(content))


def _parse(texts):
    try:
        sigmas = [float(text) for text in texts]
    except ValueError as error:
        raise ValueError(f"--sigmas={','.join(texts)}: {error}") from error
    sound = all(math.isfinite(sigma) and sigma > 0 for sigma in sigmas)
    if not sigmas or not sound or len(set(sigmas)) < len(sigmas):
        raise ValueError(
            f"--sigmas={','.join(texts)}: give different numbers above zero"
        )
    return sigmas


def run() -> None:
    """Console entry point."""
    command.run(define_flags, main, __doc__, folder="run")


if __name__ == "__main__":
    run()
