"""What `deeppose-choose` found, as JSON, table and plot."""

from __future__ import annotations

import json
import pathlib

import numpy as np

from deeppose_tf import draw, files
from deeppose_tf.pipelines.evaluation import figures, scores
from deeppose_tf.plot import Curve, plot_curves

FORMAT = "deeppose-tf choice 1"
NAME = "choice"
PAPER = (
    "The paper chose sigma 1.0 of 0.8, 1.0, 1.2 for FLIC and 2.0 of 1.5, 1.7, 2.0, 2.3 "
    "for LSP, each with 50 held-out people, and arrived at three stages for both."
)


def reached(one: dict) -> float:
    """PDJ of a candidate after the last stage that helped."""
    return one["pdj"][one["stages"] - 1]


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
        chosen = f"{100 * reached(one):.1f}"
        rows.append([str(one["sigma"]), *cells, str(one["stages"]), chosen])
    winner, left = content["winner"], len(content["asked"]) - len(candidates)
    so_far = f" so far, {left} to come" if left else ""
    said = content["protocol"]
    return "\n".join(
        [
            scores.heading(said),
            "",
            scores.markdown(rows),
            "",
            f"Best{so_far}: sigma {winner['sigma']} with {winner['stages']} stages, "
            f"{winner['run']}.",
            "",
            "PDJ@0.2, mean over joints, per cent; in brackets, stages that were "
            f"trained and did not help. Floor: {100 * content['floor']:.1f}, "
            f"{scores.baseline_meaning(said)}. PDJ: {said['meanings']['pdj']}, the "
            f"diameter being {said['meanings']['diameter']}. {PAPER}",
        ]
    )


def write(root: pathlib.Path, content: dict) -> None:
    """Into the folder of the candidates, each file whole or not at all."""
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
        label = f"sigma {one['sigma']}{best}"
        at = places[: len(one["pdj"])]
        curves.append(Curve(label, np.array(one["pdj"]), i % 7, at=at))
    title = figures.title(content["protocol"], "PDJ@0.2, mean over joints")
    return plot_curves(places, [("", curves)], title, "stages", "PDJ@0.2", None)
