"""Images, masks and label maps resampled to the working grid, with the weight of each voxel."""

from __future__ import annotations

import math

import torch

from convexadam._typing import Volume
from convexadam.geometry.grid import Grid, sides_mm
from convexadam.geometry.image import Image
from convexadam.geometry.resample import coverage, covers, resample
from convexadam.geometry.sampling import Mode
from convexadam.geometry.tensors import to_finest_float, to_float32
from convexadam.kernels.resize import pool
from convexadam.kernels.smooth import smooth

_BOX = (1.0, 1.0, 1.0)


def resample_to_grid(image: Image, grid: Grid) -> Image:
    """Resample an image to a grid with antialiasing; the same voxels in another axis order are only reordered."""
    if image.grid.canonical().is_close(grid):
        return Image(image.canonical().data, grid)
    image = image.canonical()  # axes in the order of the grid are sampled faster
    return resample(to_floating(image), grid, mode="linear", antialias=True)


def resample_labels_to_grid(labels: Image, grid: Grid) -> Image:
    """Resample labels to a grid: label maps in label mode, probabilities linearly.

    Outside the field of view the value is label 0, or the smallest value of all classes.
    """
    if not labels.is_label or labels.grid.canonical().is_close(grid):
        return resample_to_grid(labels, grid)
    return resample(labels.canonical(), grid, mode="label", fill_value=0)


def to_floating(image: Image) -> Image:
    """Convert integer images to the finest floating-point type of the device, and half precision to float32."""
    if not image.data.is_floating_point():
        return Image(to_finest_float(image.data, image.data.device), image.grid)
    return image if image.data.dtype.itemsize >= 4 else Image(image.data.float(), image.grid)


def fill_outside_mask(image: Image, mask: Image | None, reach_mm: float) -> Image:
    """Extend the values at the edge of a mask to the outside, so that features inside do not depend on excluded voxels.

    The values are extended by ``reach_mm`` and one voxel for interpolation; voxels farther away keep their values. The
    result is float32 if there is a mask.
    """
    if mask is None:
        return image
    inside = (_resample_mask(mask, image.grid) > 0).float()
    values = to_float32(image.data)
    for _ in range(min(math.ceil(reach_mm / min(sides_mm(image.grid))) + 1, max(image.grid.shape))):
        total, count = smooth(values * inside, _BOX), smooth(inside[None], _BOX)[0]
        edge = (inside == 0) & (count > 0)
        values = torch.where(edge, total / count.clamp_min(torch.finfo(count.dtype).tiny), values)
        inside = inside.masked_fill_(edge, 1)
    return Image(values, image.grid)


def weight_on_grid(image: Image, mask: Image | None, grid: Grid, margin: int) -> Volume | None:
    """Compute the weight of each voxel of a grid; ``None`` if it is 1 everywhere.

    0 outside the field of view and within ``margin`` voxels of its edge, where features depend on extrapolated values;
    else the value of the mask: 0 or 1 for integer masks, in [0, 1] for others.
    """
    covered = covers(image.grid, grid, margin=margin)
    if covered and mask is None:
        return None
    weight = coverage(
        image.grid, grid, like=torch.empty(0, dtype=torch.float32, device=image.data.device), margin=margin
    )
    if mask is None:
        return weight
    weight = weight * _resample_mask(mask, grid)
    return None if covered and bool((weight == 1).all()) else weight


def block_average(image: Image, side_mm: float, mask: Image | None = None) -> Image:
    """Average an image over blocks of up to ``side_mm``, weighted by a mask; float32, of one voxel the image itself."""
    image = image.canonical()
    i, j, k = (
        min(n, max(1, int(side_mm / s + 1e-3))) for n, s in zip(image.grid.shape, image.grid.spacing_mm, strict=True)
    )
    if mask is None and (i, j, k) == (1, 1, 1):
        return Image(to_float32(image.data), image.grid)
    weight = None if mask is None else _resample_mask(mask, image.grid).float()
    return Image(pool(to_float32(image.data), (i, j, k), weight=weight), image.grid.pool((i, j, k)))


def _resample_mask(mask: Image, grid: Grid) -> Volume:
    """Resample a mask to the voxels of a grid; 0 outside."""
    if mask.grid.canonical().is_close(grid):
        return mask.canonical().data[0]
    return resample(mask, grid, mode=select_mask_mode(mask), fill_value=0.0).data[0]


def select_mask_mode(mask: Image) -> Mode:
    """Return the interpolation mode of a mask: nearest for integer masks, which stay 0 or 1, else linear."""
    return "nearest" if mask.is_label else "linear"
