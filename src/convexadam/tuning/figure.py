"""Figure of the result of a search."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from convexadam._arguments import check_arguments
from convexadam.io import atomic_path
from convexadam.tuning.report import TuningResult
from convexadam.viz.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # annotations can be resolved without matplotlib
    Figure = object

_AXIS_LABELS = {
    "dice": "Dice",
    "tre_mm": "target registration error (mm)",
    "inverse_error_mm": "inverse-consistency error (mm)",
    "sdlogj": "SDlogJ",
    "folded_percent": "folded voxels (%)",
}


@check_arguments
def tradeoff_figure(result: TuningResult, *, path: Path | str | None = None) -> Figure:
    """Plot accuracy against smoothness of all settings of the second stage, with the initial and the best ones marked.

    Parameters
    ----------
    result
        Result of a search.
    path
        PNG file to write.

    Raises
    ------
    FileError
        If the file cannot be written.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> from convexadam.tuning import tradeoff_figure, tune
    >>> figure = tradeoff_figure(tune("pairs.csv", "search"))  # doctest: +SKIP
    """
    accuracy = result.ranked_by[0]
    smoothness = next(name for name in ("sdlogj", "folded_percent") if name in result.ranked_by)

    def get_point(metrics: Mapping[str, float]) -> tuple[float, float]:
        return metrics[smoothness], metrics[accuracy]

    figure = new_figure((6.0, 4.5))
    axes = figure.subplots()
    points = [get_point(c.metrics) for c in result.candidates if c.stage == result.best.stage]
    axes.plot(*zip(*points, strict=True), ".", color="0.6", label="candidates")
    if result.base is not None:
        axes.plot(*get_point(result.base.metrics), "s", color="tab:blue", label="base settings")
    axes.plot(*get_point(result.best.metrics), "*", markersize=12, color="tab:red", label="best score")
    axes.set(xlabel=_AXIS_LABELS[smoothness], ylabel=_AXIS_LABELS[accuracy])
    axes.legend()
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png")
    return figure
