"""Slices of volumes as pictures: planes, windows and directions."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch

from convexadam._typing import Field
from convexadam.geometry import Image

Window: TypeAlias = tuple[float, float]

PLANES = ("axial", "coronal", "sagittal")
"""Planes of slices, in the order in which they are drawn."""

NORMAL = {"axial": 2, "coronal": 1, "sagittal": 0}
"""Axis of R, A, S along which the slices of a plane follow each other."""

IN_PLANE = {"axial": (0, 1), "coronal": (0, 2), "sagittal": (1, 2)}
"""Axes of R, A, S across and up a picture; both decrease, to the right and to the bottom."""


def robust_window(volume: np.ndarray) -> Window:
    """Return the values of black and white for a window that shows soft tissue with good contrast.

    The background (air, lungs in CT, zero padding) is the lowest fifth of the range of values without outliers. White
    is the 98.5th percentile of the rest. Black is the 5th percentile minus a quarter of the difference, but at least
    the minimum. NaN and Inf are ignored.
    """
    values = volume[np.isfinite(volume)].astype(np.float64)
    least, most = np.percentile(values, (0.5, 99.5))
    body = values[values > least + (most - least) / 5]
    dark, white = np.percentile(body if body.size else values, (5, 98.5))
    black = max(dark - (white - dark) / 4, values.min())
    return float(black), float(white if white > black else black + 1)


def to_canonical(image: Image) -> np.ndarray:
    """Return the first channel in axis order R, A, S; float64."""
    first = Image(image.data[:1].detach().cpu(), image.grid)
    return np.asarray(first.canonical().numpy(), dtype=np.float64)


def to_canonical_field(disp_mm: Field, image: Image) -> np.ndarray:
    """Return the displacement on the canonical grid, in mm along its axes.

    Vectors are decomposed along the unit directions of the axes, so that the deformed grid of an oblique volume is
    drawn in the planes of its slices.
    """
    canonical = Image(disp_mm.detach().cpu().to(torch.float64), image.grid).canonical()
    directions = canonical.grid.affine[:3, :3] / np.array(canonical.grid.spacing_mm)
    components = np.tensordot(np.linalg.inv(directions), np.asarray(canonical.data), axes=1)
    return np.asarray(components)


def take_slice(volume: np.ndarray, plane: str, index: int) -> np.ndarray:
    """Return a slice of the last three axes R, A, S as a picture: rows from the top, columns from the left.

    It is in radiological convention, as in `registration_figure`.
    """
    if plane == "axial":
        picture = volume[..., ::-1, ::-1, index]
    elif plane == "coronal":
        picture = volume[..., ::-1, index, ::-1]
    else:
        picture = volume[..., index, ::-1, ::-1]
    return np.swapaxes(picture, -1, -2)


def pixel_aspect(plane: str, spacing_mm: tuple[float, float, float]) -> float:
    """Return the ratio of height to width of a pixel of `take_slice`."""
    r, a, s = spacing_mm
    return {"axial": a / r, "coronal": s / r, "sagittal": s / a}[plane]


def apply_window(picture: np.ndarray, window: Window) -> np.ndarray:
    """Scale values from black (0) to white (1)."""
    low, high = window
    return np.asarray(np.clip((np.nan_to_num(picture, nan=low) - low) / (high - low), 0, 1))


def make_checkerboard(first: np.ndarray, second: np.ndarray, aspect: float) -> np.ndarray:
    """Combine two pictures in a checkerboard of square fields, about eight along the wider side."""
    rows, columns = np.indices(first.shape)
    field = max(first.shape[1], first.shape[0] * aspect) / 8
    odd = (np.floor(rows * aspect / field) + np.floor(columns / field)) % 2 == 1
    return np.where(odd, second, first)
