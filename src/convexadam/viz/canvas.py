"""Empty figures of matplotlib, which is imported within the functions; ``pyplot`` is not used."""

from __future__ import annotations

import functools
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from convexadam.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # annotations can be resolved without matplotlib
    Axes = Figure = object

_PIXELS_PER_INCH = 110

_NOTEBOOK_PIXELS_PER_INCH = 80
"""Keeps saved notebooks small."""

PANEL_INCH = 2.5

FIXED_COLOUR, MOVED_COLOUR = "#e69f00", "#56b4e9"
"""Orange and sky blue of the palette of Okabe and Ito, which colour-blind people tell apart."""

LEVELS = 0.3, 0.65
"""Iso-contours, as shares of the window of an image."""


def new_figure(inches: tuple[float, float]) -> Figure:
    """Return an empty figure without a window, which draws itself in a notebook.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = 'pip install "convexadam-torch[report]"'
        raise MissingExtraError(f"matplotlib must be installed for figures, got no such package; {hint}") from error
    figure: Figure = _derive_class(Figure)(figsize=inches, dpi=_PIXELS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


@functools.cache
def _derive_class(kind: type) -> Any:
    """Return a class of figures that a notebook shows, as it does by itself only for those of ``pyplot``."""
    return type("NotebookFigure", (kind,), {"_repr_png_": _encode_png})


def _encode_png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_NOTEBOOK_PIXELS_PER_INCH)
    return buffer.getvalue()


def label_axis(axis: Axes, title: str, side: str = "") -> None:
    """Write a title and what is at the left of a picture, whose pixels are not numbered."""
    axis.set_xticks([])
    axis.set_yticks([])
    if title:
        axis.set_title(title, fontsize=8)
    if side:
        axis.set_ylabel(side, fontsize=8)


def draw_contours(axis: Axes, picture: np.ndarray, colour: Any, levels: tuple[float, ...] = LEVELS) -> None:
    """Draw iso-contours of a picture, as far as it has them."""
    low, high = float(picture.min()), float(picture.max())
    inner = [level for level in levels if low < level < high]
    if inner and min(picture.shape) > 1:
        axis.contour(picture, inner, colors=[colour], linewidths=0.7)


def draw_label_outlines(axis: Axes, labels: np.ndarray, colour: str) -> None:
    """Draw the outline of each label of a picture; 0 is the background."""
    for label in np.unique(labels[labels != 0]):
        draw_contours(axis, (labels == label).astype(float), colour, (0.5,))
