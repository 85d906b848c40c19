"""Curves and bars of scores, as RGB arrays. No TensorFlow and no windows."""

from __future__ import annotations

import dataclasses
import textwrap
from collections.abc import Sequence

import matplotlib.figure
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

_BESIDE = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of `plot_curves`.

    Attributes:
      label: shown in the legend; curves without one are left out of it.
      values: [T]
      color: index into matplotlib's cycle, so that two curves can share one.
      at: [T] places of its own on the horizontal axis, each marked by a dot: what is
        known at single places only. None for those of the plot, without dots.
    """

    label: str
    values: np.ndarray
    color: int
    dashed: bool = False
    at: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Bars:
    """One bar in each group of `plot_bars`, as `Curve`; NaN for no bar."""

    label: str
    values: Sequence[float]
    color: int
    pale: bool = False


def plot_curves(
    thresholds: np.ndarray,
    panels: Sequence[tuple[str, Sequence[Curve]]],
    title: str,
    across: str,
    up: str,
    highest: float | None = 1.0,
) -> np.ndarray:
    """PDJ curves as in Figs. 4 and 5: an RGB image, one panel beside the other.

    Args:
      thresholds: [T] the horizontal axis: fractions of the torso diameter, or
        integers, such as numbers of stages.
      panels: (title, curves). Legends stand outside of the axes: one for all panels
        where they show the same curves, and otherwise one below each.
      title: above all of it; the place to say what was measured and how.
      highest: end of the vertical axis, which starts at 0; None to fit the values.
    """
    columns = min(len(panels), 4)
    rows = -(-len(panels) // columns)
    # A panel alone is larger, and has its legend beside it.
    size = (4.2 * columns, 3.4 * rows + 0.5) if len(panels) > 1 else (8.0, 5.0)
    figure = _figure(size, title)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    for ax, (name, curves) in zip(axes, panels, strict=False):
        for curve in curves:
            _draw_curve(ax, thresholds, curve)
        ax.set_title(name, fontsize=10)
        ax.set_xlabel(across)
        if np.issubdtype(np.asarray(thresholds).dtype, np.integer):
            ax.set_xticks(thresholds)
            ax.margins(x=0.1)
        else:
            ax.set_xlim(thresholds[0], thresholds[-1])
            ax.locator_params("x", nbins=5)
        _finish(ax, up, highest)
    _add_legends(figure, axes[: len(panels)], [curves for _, curves in panels])
    return _rendered(figure)


def plot_bars(
    groups: Sequence[str],
    bars: Sequence[Bars],
    title: str,
    up: str,
    highest: float | None = 1.0,
) -> np.ndarray:
    """Groups of bars beside each other, with their names below and a legend beside
    them, as an RGB image; the other arguments are as of `plot_curves`."""
    figure = _figure((11.0, 5.0), title)
    ax = figure.subplots()
    width = 0.85 / len(bars)
    for i, one in enumerate(bars):
        places = np.arange(len(groups)) + (i - (len(bars) - 1) / 2) * width
        opacity = 0.45 if one.pale else 1.0
        ax.bar(
            places, one.values, width, color=f"C{one.color}", alpha=opacity,
            label=one.label,
        )  # fmt: skip
    ax.set_xticks(np.arange(len(groups)), groups)
    _finish(ax, up, highest)
    ax.legend(**_BESIDE)
    return _rendered(figure)


def _figure(size, title):
    figure = matplotlib.figure.Figure(figsize=size, dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    wide = int(14 * size[0])  # letters of this size that fit beside each other
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, wide)]
    figure.suptitle("\n".join(lines), fontsize=10)
    return figure


def _draw_curve(ax, thresholds, curve):
    ax.plot(
        thresholds if curve.at is None else curve.at,
        curve.values,
        color=f"C{curve.color}",
        linestyle="--" if curve.dashed else "-",
        marker=None if curve.at is None else "o",
        clip_on=curve.at is None,  # a dot on the edge is shown whole
        label=curve.label or "_",
    )


def _add_legends(figure, axes, panels):
    """Where they cover no curve."""
    shown = [
        [(c.label, c.color, c.dashed) for c in curves if c.label] for curves in panels
    ]
    if len(axes) == 1:
        axes[0].legend(**_BESIDE)
    elif all(one == shown[0] for one in shown):
        handles, labels = axes[0].get_legend_handles_labels()
        columns = min(len(labels), 5)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns)
    else:
        for ax in axes:
            place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}
            ax.legend(fontsize=8, ncols=2, **place)


def _finish(ax, up, highest):
    ax.set_ylabel(up)
    if highest is not None:
        ax.set_ylim(0, highest)
    ax.grid(alpha=0.3)


def _rendered(figure):
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
