"""deeppose-reproduce: the tables and figures of Sec. 4, beside the paper's numbers.

Of each experiment it writes a table (Markdown and JSON) and a picture. Predictions are
kept beside them, so that a stopped command goes on where it was.
"""

from __future__ import annotations

from absl import flags

from deeppose_tf import files
from deeppose_tf.datasets import where_from
from deeppose_tf.pipelines.cli import command, outputs
from deeppose_tf.pipelines.cli.command import Flag
from deeppose_tf.pipelines.evaluation import commands as evaluation
from deeppose_tf.pipelines.paper import published

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
    wrong = [n for n in values.experiment if n not in published.EXPERIMENTS]
    if wrong or not values.experiment:
        raise ValueError(
            f"--experiment={','.join(values.experiment)}: expected one or more of "
            f"{', '.join(published.EXPERIMENTS)}"
        )
    given = {n: values[n].value for n in ("model", "data", "split", "limit")}
    asked = {n: {"experiment": n} | given for n in values.experiment}
    for name, settings in asked.items():
        if not values.overwrite:
            written = [f"{name}.{ending}" for ending in ("json", "md", "png")]
            outputs.require_free(
                values.output, written[0], published.FORMAT, settings, written
            )
    _require(published.EXPERIMENTS[values.experiment[0]])

    from deeppose_tf.cascade import Cascade  # takes seconds, as what follows
    from deeppose_tf.pipelines.data import records
    from deeppose_tf.pipelines.paper import reproduce

    index, cascade = records.read_index(values.data), Cascade.load(values.model)
    given = cascade, values.model, index, values.split, values.output, values.limit
    with files.alone(values.output, "reproduction"):
        for name, settings in asked.items():
            content = reproduce.reproduce(name, *given, settings)
            print(reproduce.markdown(content), end="\n\n")


def _require(paper: published.Experiment) -> None:
    """Checks that data and model are there, and says what to get and to run if not."""
    train = "deeppose-prepare and deeppose-train"
    for flag, require, dataset, run in (
        ("data", command.require_paths, paper.scored, "deeppose-prepare"),
        ("model", command.require_run, paper.trained, train),
    ):
        try:
            require(flag)
        except ValueError as error:
            which = dataset or "lsp"  # where the paper does not say
            raise ValueError(
                f"{error}\nFor {paper.title}: run {run} with --dataset={which}, as "
                f"docs/paper.md says{where_from(which)}"
            ) from error
