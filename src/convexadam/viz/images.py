"""Images in figures, and as notebooks show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from convexadam.errors import InputError
from convexadam.geometry import Grid, Image
from convexadam.geometry.conversion import ImageLike
from convexadam.geometry.delegates import implement
from convexadam.io.convert import parse_on_grid_of
from convexadam.viz.canvas import PANEL_INCH, draw_contours, label_axis, new_figure
from convexadam.viz.html import make_block, make_pictures, make_table, or_text
from convexadam.viz.pictures import fit_size, resize
from convexadam.viz.slices import apply_window, choose_window, list_sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # annotations can be resolved without matplotlib
    Axes = Figure = object

_OPACITY = 0.7
"""Of the brightest voxels of an overlay."""

LONGEST = 220
"""Longest side of a picture in a notebook, in pixels."""


@implement("Image._repr_html_")
@or_text
@torch.no_grad()
def make_image_html(image: Image) -> str:
    """Return the middle slices of an image, and what it holds."""
    window, pictures = choose_window(image), []
    for section in list_sections(image.grid):
        pixels = apply_window(section.sample(image, nearest=image.data.dtype == torch.bool), window)
        size = fit_size(pixels.shape, section.aspect, LONGEST)
        pictures.append((f"{section.plane}, {section.position_mm:.0f} mm", resize(pixels, size)))
    rows = {
        "values": f"{describe_values(image)}, shown from {window[0]:.4g} to {window[1]:.4g}",
        **describe_grid(image.grid),
    }
    return make_block("Image", make_pictures(pictures), make_table(rows))


@implement("Image.plot")
@torch.no_grad()
def plot_image(
    image: Image, overlay: ImageLike | None, labels: ImageLike | None, point_mm: Sequence[float] | None
) -> Figure:
    """See `Image.plot`."""
    overlay = None if overlay is None else parse_on_grid_of(image, overlay, "overlay", "drawn")
    labels = None if labels is None else parse_on_grid_of(image, labels, "labels", "drawn")
    sections, window = list_sections(image.grid, point_mm=point_mm), choose_window(image)
    if not sections:
        raise InputError(f"image must have two voxels along two axes for a picture, got {image.grid!r}; pass another")
    over = None if overlay is None else choose_window(overlay)
    figure = new_figure((len(sections) * 1.4 * PANEL_INCH, 1.5 * PANEL_INCH))
    axes = figure.subplots(1, len(sections), squeeze=False)[0]
    for axis, section in zip(axes, sections, strict=True):
        pixels = section.sample(image, nearest=image.data.dtype == torch.bool)
        aspect = section.aspect
        axis.imshow(pixels, cmap="gray", vmin=window[0], vmax=window[1], aspect=aspect, interpolation="nearest")
        if overlay is not None and over is not None:
            values = section.sample(overlay)
            share = apply_window(values, over)
            axis.imshow(share, cmap="inferno", vmin=0, vmax=1, alpha=_OPACITY * share, aspect=aspect)
        if labels is not None:
            _paint_labels(axis, section.sample(labels, nearest=True), aspect)
        label_axis(axis, f"{section.plane}, {section.position_mm:.0f} mm")
    return figure


def _paint_labels(axis: Axes, labels: np.ndarray, aspect: float) -> None:
    """Draw labels as translucent colours, each under its outline."""
    from matplotlib import colormaps

    palette, picture = colormaps["tab10"], np.zeros((*labels.shape, 4))
    for label in np.unique(labels[labels != 0]):
        colour = palette(int(label - 1) % palette.N)[:3]
        picture[labels == label] = (*colour, _OPACITY / 2)
        draw_contours(axis, (labels == label).astype(float), colour, (0.5,))
    axis.imshow(picture, aspect=aspect, interpolation="nearest")


def describe_values(image: Image) -> str:
    """Return channels, type, device and range of an image in words."""
    channels = "" if len(image.data) == 1 else f"{len(image.data)} channels of "
    kind = str(image.data.dtype).removeprefix("torch.")
    low, high = torch.aminmax(image.data.detach().flatten()[:: max(1, image.data.numel() // 10_000_000)])
    return f"{channels}{kind} on {image.data.device}, {low.item():.4g} to {high.item():.4g}"


def describe_grid(grid: Grid) -> dict[str, str]:
    """Return size, voxel size and directions of a grid in words."""
    shape, spacing_mm = "x".join(map(str, grid.shape)), "x".join(f"{s:.3g}" for s in grid.spacing_mm)
    extent_mm = "x".join(f"{n * s:.0f}" for n, s in zip(grid.shape, grid.spacing_mm, strict=True))
    return {"grid": f"{shape} voxels of {spacing_mm} mm, {extent_mm} mm, axes {grid.orientation}"}
