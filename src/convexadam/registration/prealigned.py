"""Before the deformable stages: a linear or given transform, and the moving image as it sees it."""

from __future__ import annotations

import torch

from convexadam._typing import Volume
from convexadam.geometry import Affine, Grid, Image, Transform
from convexadam.geometry.onto_grid import as_floating, evidence, labels_on_grid, mode_of_mask, on_grid
from convexadam.linear import LinearAlignment, LinearFit

_WHOLE = 0.999
"""Share of a voxel's neighbourhood that has to be seen."""


def prealigned(
    fixed: Image,
    moving: Image,
    masks: tuple[Image | None, Image | None],
    linear: LinearAlignment | None,
    initial: Transform | None,
) -> tuple[Transform, LinearFit | None]:
    """Where the deformable stages begin, and what the linear alignment found, if it ran."""
    if linear is None or not (initial is None or isinstance(initial, Affine)):
        return (Affine() if initial is None else initial), None
    fit = linear(fixed, moving, fixed_mask=masks[0], moving_mask=masks[1], initial=initial)
    return fit.transform, fit


def pulled_onto(
    grid: Grid, moving: Image, mask: Image | None, start: Transform, margin: int
) -> tuple[Image, Volume | None]:
    """Bring the moving image through a transform onto a grid of fixed space, with the evidence of each voxel."""
    if isinstance(start, Affine):
        there = Grid(grid.shape, start.matrix @ grid.affine)
        return Image(on_grid(moving, there).data, grid), evidence(moving, mask, there, margin)
    image = as_floating(moving)
    seen = Image(torch.ones_like(image.data[:1]), image.grid)
    weight = start.warp(seen, grid, mode="linear", background=0.0).data[0]
    if mask is not None:
        weight = weight * start.warp(mask, grid, mode=mode_of_mask(mask), background=0.0).data[0]
    return start.warp(image, grid, mode="linear"), torch.where(weight > _WHOLE, weight, torch.zeros_like(weight))


def labels_pulled_onto(grid: Grid, labels: Image, start: Transform) -> Image:
    """Bring labels of the moving image through a transform onto a grid of fixed space; whole numbers stay whole."""
    if isinstance(start, Affine):
        there = Grid(grid.shape, start.matrix @ grid.affine)
        return Image(labels_on_grid(labels, there).data, grid)
    return start.warp(labels, grid, mode="label" if labels.is_label else "linear")
