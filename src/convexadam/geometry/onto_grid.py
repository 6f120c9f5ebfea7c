"""Images, and where they have evidence, on the grid that work is done on."""

from __future__ import annotations

import torch

from convexadam._typing import Volume
from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image
from convexadam.geometry.resample import coverage, resample
from convexadam.geometry.tensors import as_finest


def on_grid(image: Image, grid: Grid) -> Image:
    """Bring an image to another grid; the same voxels in another order are only reordered."""
    if image.grid.canonical().same_as(grid):
        return Image(image.canonical().data, grid)
    image = image.canonical()  # axes parallel to those of the grid are quicker to read
    data = image.data if image.data.is_floating_point() else as_finest(image.data, image.data.device)
    return resample(Image(data, image.grid), grid, mode="linear", antialias=True)


def evidence(image: Image, mask: Image | None, grid: Grid, margin: int) -> Volume | None:
    """Weight of each voxel of a grid; ``None`` for 1 everywhere.

    0 outside the field of view, within ``margin`` voxels of its edge (where descriptions are guesswork) and outside
    the mask.
    """
    weight = coverage(image.grid, grid, like=torch.empty(0, device=image.data.device), margin=margin)
    if mask is not None:
        inside = Image((mask.data > 0).to(weight.dtype), mask.grid)
        reordered = mask.grid.canonical().same_as(grid)
        weight = weight * (inside.canonical() if reordered else resample(inside, grid, background=0.0)).data[0]
    return None if bool((weight == 1).all()) else weight
