"""Transforms as notebooks show them: the matrix, or the deformed grid and the volume change."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from convexadam.geometry import Affine, Composite, Transform
from convexadam.geometry.delegates import implement
from convexadam.geometry.matrices import decompose_matrix
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.viz.html import make_block, make_pictures, make_table, or_text
from convexadam.viz.images import LONGEST, describe_grid
from convexadam.viz.pictures import colour_jacobian, draw_grid, fit_size, resize_colours
from convexadam.viz.slices import IN_PLANE, Section, list_sections

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
