"""Images, and where they have evidence, on the grid that work is done on."""

from __future__ import annotations

import math

import torch

from convexadam._typing import Volume
from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image
from convexadam.geometry.resample import coverage, resample
from convexadam.geometry.sampling import Mode
from convexadam.geometry.tensors import as_finest
from convexadam.kernels.resize import pool
from convexadam.kernels.smooth import smooth

_BOX = (1.0, 1.0, 1.0)


def on_grid(image: Image, grid: Grid) -> Image:
    """Bring an image to another grid; the same voxels in another order are only reordered."""
    if image.grid.canonical().same_as(grid):
        return Image(image.canonical().data, grid)
    image = image.canonical()  # axes parallel to those of the grid are quicker to read
    return resample(as_floating(image), grid, mode="linear", antialias=True)


def labels_on_grid(labels: Image, grid: Grid) -> Image:
    """Bring labels to another grid: whole numbers are never mixed, probabilities are read as images are.

    Outside their field of view lies label 0, or the smallest value of all classes.
    """
    if not labels.is_label or labels.grid.canonical().same_as(grid):
        return on_grid(labels, grid)
    return resample(labels.canonical(), grid, mode="label", background=0)


def as_floating(image: Image) -> Image:
    """Return an image of whole numbers in the finest floating-point type, and one of short numbers in float32."""
    if not image.data.is_floating_point():
        return Image(as_finest(image.data, image.data.device), image.grid)
    return image if image.data.dtype.itemsize >= 4 else Image(image.data.float(), image.grid)


def hidden(image: Image, mask: Image | None, reach_mm: float) -> Image:
    """Return an image in which what a mask excludes cannot be seen from inside: the values at its edge go on instead.

    As at the edge of the field of view. Only as far as ``reach_mm``, and one voxel for interpolation; what lies deeper
    is left as it is. float32 where there is a mask.
    """
    if mask is None:
        return image
    known = (_on_voxels_of(mask, image.grid) > 0).float()
    values = image.data.float()
    for _ in range(math.ceil(reach_mm / min(image.grid.spacing_mm)) + 1):
        total, count = smooth(values * known, _BOX), smooth(known[None], _BOX)[0]
        new = (known == 0) & (count > 0)
        values = torch.where(new, total / count.clamp_min(torch.finfo(count.dtype).tiny), values)
        known = known.masked_fill_(new, 1)
    return Image(values, image.grid)


def evidence(image: Image, mask: Image | None, grid: Grid, margin: int) -> Volume | None:
    """Weight of each voxel of a grid; ``None`` for 1 everywhere.

    0 outside the field of view and within ``margin`` voxels of its edge (where descriptions are guesswork), else
    that of the mask: 0 or 1 for whole numbers, in [0, 1] otherwise.
    """
    weight = coverage(image.grid, grid, like=torch.empty(0, device=image.data.device), margin=margin)
    if mask is not None:
        weight = weight * _on_voxels_of(mask, grid)
    return None if bool((weight == 1).all()) else weight


def shrunk(image: Image, side_mm: float, mask: Image | None = None) -> Image:
    """Return an image in floating point whose voxels are means over blocks of up to ``side_mm``, weighted by a mask."""
    image = image.canonical()
    i, j, k = (
        min(n, max(1, int(side_mm / s + 1e-3))) for n, s in zip(image.grid.shape, image.grid.spacing_mm, strict=True)
    )
    weight = None if mask is None else _on_voxels_of(mask, image.grid).float()
    return Image(pool(image.data.float(), (i, j, k), weight=weight), image.grid.pooled((i, j, k)))


def _on_voxels_of(mask: Image, grid: Grid) -> Volume:
    """Weights of a mask at the voxels of a grid."""
    if mask.grid.canonical().same_as(grid):
        return mask.canonical().data[0]
    return resample(mask, grid, mode=mode_of_mask(mask), background=0.0).data[0]


def mode_of_mask(mask: Image) -> Mode:
    """How a mask is read: one of whole numbers stays 0 or 1."""
    return "nearest" if mask.is_label else "linear"
