"""Centres of an image, from which a linear alignment can be initialised."""

from __future__ import annotations

import numpy as np
import torch

from convexadam._typing import Float, Tensor, Volume
from convexadam.geometry import Grid, Image
from convexadam.geometry.grid import axes_with_extent
from convexadam.geometry.resample import resample
from convexadam.geometry.tensors import quantiles
from convexadam.kernels.mass_moments import sum_moments

_MASS_QUANTILE = 0.99
"""Quantile at which the mass of a voxel is clipped: a few very bright voxels (metal) must not decide the centre."""

_SAMPLES = 100_000
"""Approximate number of evenly spaced voxels from which that quantile is computed."""


def geometric_centre(grid: Grid) -> np.ndarray:
    """Return the centre of the field of view in mm RAS+, ``(3,)``."""
    middle = np.append((np.array(grid.shape) - 1) / 2, 1.0)
    return np.asarray((grid.affine @ middle)[:3])


def centre_offset(fixed: Image, moving: Image, masks: tuple[Image | None, Image | None]) -> np.ndarray:
    """Return the centre of mass of the moving image minus that of the fixed image in mm RAS+, ``(3,)``.

    The mass of a voxel is the absolute difference of its value in the first channel from the median of the six faces
    of the volume. An image without any mass has its geometric centre.

    Parameters
    ----------
    fixed, moving
        ``[c, i, j, k]``.
    masks
        Weight of each voxel in [0, 1], on any grids; multiplies the mass.
    """
    images = fixed, moving
    moments = torch.stack([_sum_mass(image, mask) for image, mask in zip(images, masks, strict=True)]).tolist()
    fixed_mm, moving_mm = (_find_centre(image.grid, sums) for image, sums in zip(images, moments, strict=True))
    return np.asarray(moving_mm - fixed_mm)


def _sum_mass(image: Image, mask: Image | None) -> Float[Tensor, " 4"]:
    """Return the mass, and the sums of mass times each index, on the device."""
    values = image.data[0].float()
    faces = [_take_faces(values, axis).flatten() for axis in axes_with_extent(image.grid)]
    middle = torch.cat(faces).median()
    apart = (values.flatten()[:: max(1, values.numel() // _SAMPLES)] - middle).abs()
    weight = None if mask is None else resample(mask, image.grid, mode="linear", fill_value=0.0).data[0]
    return sum_moments(values, middle, quantiles(apart, (_MASS_QUANTILE,))[0], weight)


def _take_faces(values: Volume, axis: int) -> Float[Tensor, "_ _ _"]:
    """Return the first and the last plane along an axis, as a view."""
    step: list[slice] = [slice(None)] * 3
    step[axis] = slice(None, None, max(values.shape[axis] - 1, 1))
    return values[tuple(step)]


def _find_centre(grid: Grid, sums: list[float]) -> np.ndarray:
    total, *along = sums
    if total <= 0:
        return geometric_centre(grid)
    return np.asarray((grid.affine @ np.append([moment / total for moment in along], 1.0))[:3])
