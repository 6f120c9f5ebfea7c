"""Centres of an image, from which a linear alignment can be initialised."""

from __future__ import annotations

import numpy as np
import torch

from convexadam.geometry import Grid, Image
from convexadam.geometry.resample import resample

_MASS_QUANTILE = 0.99
"""Quantile at which the mass of a voxel is clipped: a few very bright voxels (metal) must not decide the centre."""


def geometric_centre(grid: Grid) -> np.ndarray:
    """Return the centre of the field of view in mm RAS+, ``(3,)``."""
    middle = np.append((np.array(grid.shape) - 1) / 2, 1.0)
    return np.asarray((grid.affine @ middle)[:3])


def centre_of_mass(image: Image, mask: Image | None = None) -> np.ndarray:
    """Return the centre of mass in mm RAS+, ``(3,)``.

    The mass of a voxel is the absolute difference of its value in the first channel from the median of the six faces
    of the volume. An image without any mass has its geometric centre.

    Parameters
    ----------
    image
        ``[c, i, j, k]``.
    mask
        Weight of each voxel in [0, 1], on any grid; multiplies the mass.
    """
    values = image.data[0].float()
    faces = [values.select(axis, end).flatten() for axis in range(3) for end in (0, -1)]
    mass = (values - torch.cat(faces).median()).abs()
    # torch.quantile refuses more than 16 million values
    mass = mass.clamp(max=torch.quantile(mass.flatten()[:: max(1, mass.numel() // 100_000)], _MASS_QUANTILE))
    if mask is not None:
        mass = mass * resample(mask, image.grid, mode="linear", fill_value=0.0).data[0]
    sums = [mass.double().sum([a for a in range(3) if a != axis]) for axis in range(3)]
    moments = [(s * torch.arange(len(s), device=s.device)).sum() for s in sums]
    total, *along = torch.stack([mass.double().sum(), *moments]).tolist()  # waits for a GPU once
    if total <= 0:
        return geometric_centre(image.grid)
    return np.asarray((image.grid.affine @ np.append([moment / total for moment in along], 1.0))[:3])
