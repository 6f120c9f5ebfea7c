"""Transforms as notebooks show them: the matrix, or the deformed grid and the volume change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from convexadam.errors import InputError
from convexadam.geometry import Affine, Composite, Grid, Transform
from convexadam.geometry.delegates import implement
from convexadam.geometry.matrices import decompose_matrix
from convexadam.geometry.planes import IN_PLANE
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.viz.canvas import PANEL_INCH, label_axis, new_figure
from convexadam.viz.figures import draw_deformed_grid
from convexadam.viz.html import make_block, make_pictures, make_table, or_text
from convexadam.viz.images import LONGEST, describe_grid
from convexadam.viz.pictures import LARGEST_CHANGE, colour_jacobian, draw_grid, fit_size, resize_colours
from convexadam.viz.slices import Section, list_sections

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # annotations can be resolved without matplotlib
    Axes = Figure = object

_LINES = 20
"""Lines of the deformed grid along the longer side of a slice."""


@implement("Transform._repr_html_")
@or_text
@torch.no_grad()
def make_transform_html(transform: Transform) -> str:
    """Return the matrix of an affine transform, or the middle slices of a field; those of a chain on its grid."""
    name = type(transform).__name__
    if isinstance(transform, Affine):
        return make_block(name, make_table(_describe_affine(transform)))
    rows: dict[str, str] = {}
    if isinstance(transform, Composite):
        rows |= {f"part {number}": repr(part) for number, part in enumerate(transform.transforms, start=1)}
    if transform.fixed_grid is None:
        return make_block(name, make_table(rows))
    drawn = [_draw(transform, section) for section in list_sections(transform.fixed_grid, margin=1)]
    lengths, determinants = (np.concatenate([part[key].ravel() for part in drawn]) for key in ("length", "jacobian"))
    rows |= describe_grid(transform.fixed_grid) | {
        "displacement": f"up to {lengths.max():.3g} mm in these slices",
        "Jacobian": f"{determinants.min():.3g} (purple) to {determinants.max():.3g} (orange) in these slices, "
        f"{(determinants <= 0).sum()} folded voxels (black)",
    }
    pictures = [(part["title"], part["grid"]) for part in drawn], [("Jacobian", part["map"]) for part in drawn]
    return make_block(name, *map(make_pictures, pictures), make_table(rows))


@implement("Transform.plot")
@torch.no_grad()
def plot_transform(transform: Transform, grid: Grid, point_mm: Sequence[float] | None) -> Figure:
    """See `Transform.plot`."""
    sections = list_sections(grid, margin=1, point_mm=point_mm)
    if not sections:
        raise InputError(f"reference must have two voxels along two axes for a picture, got {grid!r}; pass another")
    figure = new_figure((len(sections) * 1.5 * PANEL_INCH, 2.5 * PANEL_INCH))
    axes = figure.subplots(2, len(sections), squeeze=False)
    fields = [transform.to_displacement_field(section.grid).to_voxels() for section in sections]
    shifts_mm = [
        section.take(disp_vox) * np.array(section.grid.spacing_mm)[:, None, None]
        for section, disp_vox in zip(sections, fields, strict=True)
    ]
    most_mm = max(float(np.linalg.norm(shift_mm, axis=0).max()) for shift_mm in shifts_mm) or 1.0
    for column, (section, disp_vox, shift_mm) in enumerate(zip(sections, fields, shifts_mm, strict=True)):
        lengths = np.linalg.norm(shift_mm, axis=0)
        shown = axes[0, column].imshow(lengths, cmap="viridis", vmin=0, vmax=most_mm, aspect=section.aspect)
        draw_deformed_grid(axes[0, column], shift_mm, section, "white")
        label_axis(axes[0, column], f"{section.plane}, {section.position_mm:.0f} mm", "" if column else "displacement")
        colours = colour_jacobian(section.take(jacobian_determinant(disp_vox)))
        axes[1, column].imshow(colours, aspect=section.aspect, interpolation="nearest")
        label_axis(axes[1, column], "", "" if column else "Jacobian determinant")
    figure.colorbar(shown, ax=list(axes[0]), shrink=0.8, label="mm")
    _draw_jacobian_scale(figure, list(axes[1]))
    return figure


def _draw_jacobian_scale(figure: Figure, axes: list[Axes]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    scale = ScalarMappable(LogNorm(1 / LARGEST_CHANGE, LARGEST_CHANGE), "PuOr_r")
    bar = figure.colorbar(scale, ax=axes, shrink=0.8, label="volume (black: folded)")
    bar.set_ticks([1 / LARGEST_CHANGE, 1, LARGEST_CHANGE], labels=["1/4", "1", "4"], minor=False)
    bar.minorticks_off()


def _describe_affine(transform: Affine) -> dict[str, str]:
    parts = decompose_matrix(transform.matrix)
    numbers = [[f"{value:.4g}" for value in row] for row in transform.matrix[:3]]
    return {
        "matrix": "; ".join(map(" ".join, numbers)) + " (mm RAS+)",
        "rotation": f"{parts['rotation_degrees']:.3g}°",
        "scales": ", ".join(f"{scale:.4g}" for scale in parts["scales"]),
        "translation": ", ".join(f"{shift:.4g}" for shift in parts["translation_mm"]) + " mm",
    }


def _draw(transform: Transform, section: Section) -> dict[str, Any]:
    """Draw one slice of a field: the deformed grid, and the Jacobian determinant in colour."""
    disp_vox = transform.to_displacement_field(section.grid).to_voxels()
    determinants = section.take(jacobian_determinant(disp_vox))
    size = fit_size(determinants.shape, section.aspect, LONGEST)
    shift = section.take(disp_vox)
    spacing_mm = np.array(section.grid.spacing_mm)[:, None, None]
    return {
        "title": f"{section.plane}, {section.position_mm:.0f} mm",
        "grid": _draw_grid(shift, section, size),
        "map": resize_colours(colour_jacobian(determinants), size),
        "jacobian": determinants,
        "length": np.linalg.norm(shift * spacing_mm, axis=0),
    }


def _draw_grid(shift_vox: np.ndarray, section: Section, size: tuple[int, int]) -> np.ndarray:
    across, up = IN_PLANE[section.plane]
    rows, columns = shift_vox.shape[1:]
    y, x = np.indices((rows, columns))
    x_end, y_end = x - shift_vox[across], y - shift_vox[up]  # both axes of a picture are opposite to R, A and S
    step = max(1, max(rows, columns) // _LINES)
    return draw_grid((x_end + 0.5) * size[0] / columns, (y_end + 0.5) * size[1] / rows, size, step)
