"""Images, and where they have evidence, on the grid that work is done on."""

from __future__ import annotations

import torch

from convexadam._typing import Volume
from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image
from convexadam.geometry.resample import coverage, resample
from convexadam.geometry.sampling import Mode
from convexadam.geometry.tensors import as_finest


def on_grid(image: Image, grid: Grid) -> Image:
    """Bring an image to another grid; the same voxels in another order are only reordered."""
    if image.grid.canonical().same_as(grid):
        return Image(image.canonical().data, grid)
    image = image.canonical()  # axes parallel to those of the grid are quicker to read
    return resample(as_floating(image), grid, mode="linear", antialias=True)


def as_floating(image: Image) -> Image:
    """Return an image of whole numbers in the finest floating-point type, and one of short numbers in float32."""
    if not image.data.is_floating_point():
        return Image(as_finest(image.data, image.data.device), image.grid)
    return image if image.data.dtype.itemsize >= 4 else Image(image.data.float(), image.grid)


def evidence(image: Image, mask: Image | None, grid: Grid, margin: int) -> Volume | None:
    """Weight of each voxel of a grid; ``None`` for 1 everywhere.

    0 outside the field of view and within ``margin`` voxels of its edge (where descriptions are guesswork), else
    that of the mask: 0 or 1 for whole numbers, in [0, 1] otherwise.
    """
    weight = coverage(image.grid, grid, like=torch.empty(0, device=image.data.device), margin=margin)
    if mask is not None:
        reordered = mask.grid.canonical().same_as(grid)
        mode: Mode = "nearest" if mask.is_label else "linear"
        inside = mask.canonical() if reordered else resample(mask, grid, mode=mode, background=0.0)
        weight = weight * inside.data[0]
    return None if bool((weight == 1).all()) else weight
