"""`deeppose-reproduce`: the tables and figures of Sec. 4, beside the paper's numbers.

Of each experiment it writes a table (Markdown and JSON) and a picture. Predictions are
kept beside them, so that a stopped command goes on where it was.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence

from absl import flags

from deeppose_tf import config, files
from deeppose_tf.pipelines.cli import command, outputs
from deeppose_tf.pipelines.cli.command import Flag
from deeppose_tf.pipelines.evaluation import commands as evaluation
from deeppose_tf.pipelines.paper import published

# What to get where the paper does not say whose an experiment is.
ANY = "lsp"


REPRODUCE_FLAGS = {
    "experiment": Flag(
        list,
        f"What to make: one or more of {', '.join(published.EXPERIMENTS)}, joined by "
        "commas. table1, fig4 and fig8 are the paper's of LSP, table2 of a model "
        "of LSP on Image Parse, fig3, fig5 and fig9 of FLIC, fig7 of a model of FLIC "
        "on Buffy; whose fig6 and runtime are it does not say. Other data with the "
        "same kinds of joints will do; the output says what was taken.",
    ),
    "model": Flag(str, command.MODEL),
    "data": Flag(
        str,
        "The prepared data to score on: a folder that deeppose-prepare wrote. Joints "
        "of model and data are matched by name.",
    ),
    "split": evaluation.SPLIT,
    "output": Flag(
        str,
        "The folder for EXPERIMENT.md, EXPERIMENT.json and EXPERIMENT.png, and for "
        "predictions, which all experiments in the same folder share. It is made where "
        "it is missing.",
    ),
    "overwrite": evaluation.OVERWRITE,
    "limit": Flag(
        int,
        "The first people of the split only, for a quick look. By default all, and for "
        f"runtime {published.TIMED_IMAGES}.",
        low=1,
    ),
}


@command.command(
    __doc__,
    REPRODUCE_FLAGS,
    required=("experiment", "model", "data", "output"),
    folder="output",
)
def run_reproduce(values: flags.FlagValues) -> None:
    """Makes the experiments that the flags name and prints their tables."""
    given = {n: values[n].value for n in ("model", "data", "split", "limit")}
    asked = {n: {"experiment": n} | given for n in _known(values.experiment)}
    for name, settings in asked.items():
        if not values.overwrite:
            written = [f"{name}.{ending}" for ending in ("json", "md", "png")]
            outputs.require_free(
                values.output, written[0], published.FORMAT, settings, written
            )
    paper = published.EXPERIMENTS[values.experiment[0]]
    _advised(_require_data, "data", paper)
    _advised(config.check_run, "model", paper)

    from deeppose_tf.cascade import Cascade  # takes seconds, as what follows
    from deeppose_tf.pipelines.data import records
    from deeppose_tf.pipelines.paper import reproduce

    index = _advised(records.read_index, "data", paper)
    cascade = _advised(Cascade.load, "model", paper)
    given = cascade, values.model, index, values.split, values.output, values.limit
    with files.alone(values.output, "reproduction"):
        for name, settings in asked.items():
            content = reproduce.reproduce(name, *given, settings)
            print(reproduce.markdown(content), end="\n\n")


def _known(names: Sequence[str]) -> list[str]:
    wrong = [name for name in names if name not in published.EXPERIMENTS]
    if wrong or not names:
        raise ValueError(
            f"--experiment={','.join(names)}: expected one or more of "
            f"{', '.join(published.EXPERIMENTS)}"
        )
    return list(names)


def _require_data(folder):
    if not (pathlib.Path(folder) / "dataset.json").is_file():
        raise ValueError(f"{folder}: no dataset.json there, so no prepared data set")


def _advised(read: Callable, flag: str, paper: published.Experiment):
    """`read(folder)` of --data or --model; where there is none, the error says what to
    get and to run. What is there and damaged is not to be begun from nothing."""
    is_model, folder = flag == "model", flags.FLAGS[flag].value
    there = pathlib.Path(folder) / (config.INDEX if is_model else "dataset.json")
    try:
        return read(folder)
    except ValueError as error:
        if there.exists():
            again = f"\nGet a whole copy of {folder}, or delete it and train it again"
            raise ValueError(f"--{flag}: {error}{again if is_model else ''}") from error
        needed = (paper.trained if is_model else paper.scored) or ANY
        what, prepare = published.DATA[needed]
        steps = [f"get {what} from its authors", f"run {prepare}"]
        if is_model:
            steps.append(
                "run deeppose-train --data=DATA --recipe=compact --stages=3 "
                f"--run={folder}"
            )
        order = "; then ".join(steps)
        raise ValueError(f"--{flag}: {error}\nFor {paper.title}: {order}") from error
