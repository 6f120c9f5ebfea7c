"""Points of two images that may belong together before anything is known."""

from __future__ import annotations

import numpy as np
import torch

from convexadam.geometry import Grid, Image
from convexadam.geometry.resample import resample


def centre_of_box(grid: Grid) -> np.ndarray:
    """Return the middle of the field of view in mm RAS+, ``(3,)``."""
    middle = np.append((np.array(grid.shape) - 1) / 2, 1.0)
    return np.asarray((grid.affine @ middle)[:3])


def centre_of_content(image: Image, mask: Image | None = None) -> np.ndarray:
    """Return the centre of mass in mm RAS+, ``(3,)``; mass is the difference from the median of the border.

    With a mask, in [0, 1] and on any grid, only what is inside has any mass.
    """
    values = image.data[0].float()
    faces = [values.select(axis, end).flatten() for axis in range(3) for end in (0, -1)]
    mass = (values - torch.cat(faces).median()).abs()
    mass = mass.clamp(max=float(torch.quantile(mass.flatten()[:: max(1, mass.numel() // 100_000)], 0.99)))
    if mask is not None:
        mass = mass * resample(mask, image.grid, mode="linear", background=0.0).data[0]
    total = float(mass.double().sum())
    if total <= 0:
        return centre_of_box(image.grid)
    sums = [mass.double().sum([a for a in range(3) if a != axis]) for axis in range(3)]
    centre = [float((s * torch.arange(len(s), device=s.device)).sum()) / total for s in sums]
    return np.asarray((image.grid.affine @ np.append(centre, 1.0))[:3])
