"""A picture of what a search found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from convexadam.io import atomic_path
from convexadam.tuning.report import Tuning
from convexadam.viz import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # annotations can be resolved without matplotlib
    Figure = object

_NAMES = {
    "dice": "Dice",
    "tre_mm": "target registration error (mm)",
    "inverse_error_mm": "inverse-consistency error (mm)",
    "sdlogj": "SDlogJ",
    "folded_percent": "folded voxels (%)",
}


def tradeoff_figure(result: Tuning, *, path: Path | str | None = None) -> Figure:
    """Draw accuracy against smoothness: a point for all that the second stage tried, the best of them and the first.

    Parameters
    ----------
    result
        Of a search.
    path
        Where to write a PNG. It appears whole or not at all.

    Raises
    ------
    FileError
        If the picture cannot be written.
    MissingExtraError
        If matplotlib is not installed.
    """
    accuracy = result.metrics[0]
    smoothness = next(name for name in ("sdlogj", "folded_percent") if name in result.metrics)

    def place(figures: Mapping[str, float]) -> tuple[float, float]:
        return figures[smoothness], figures[accuracy]

    figure = new_figure((6.0, 4.5))
    axes = figure.subplots()
    tried = [place(c.figures) for c in result.candidates if c.stage == result.best.stage]
    axes.plot(*zip(*tried, strict=True), ".", color="0.6", label="tried")
    if result.base is not None:
        axes.plot(*place(result.base.figures), "s", color="tab:blue", label="as begun")
    axes.plot(*place(result.best.figures), "*", markersize=12, color="tab:red", label="best score")
    axes.set(xlabel=_NAMES[smoothness], ylabel=_NAMES[accuracy])
    axes.legend()
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png")
    return figure
