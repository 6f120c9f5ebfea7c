"""Moments of a mass in torch, from its profiles along the axes."""

from __future__ import annotations

import numpy as np
import torch

from convexadam._typing import Float, Tensor, Triple, Volume
from convexadam.kernels._device import send


def sum_moments(
    volume: Volume, middle: Float[Tensor, ""], limit: Float[Tensor, ""], mask: Volume | None
) -> Float[Tensor, " 4"]:
    """See the package."""
    mass = (volume - middle).abs().clamp(max=limit)
    mass = (mass if mask is None else mass * mask).double()
    profiles = torch.cat([mass.sum([a for a in range(3) if a != axis]) for axis in range(3)])
    i, j, k = volume.shape
    return send(torch.from_numpy(_moment_rows((i, j, k))), profiles) @ profiles


def _moment_rows(shape: Triple) -> np.ndarray:
    """Return what sums the profiles along the axes of a volume, one after the other, and each times its indices."""
    rows, first = np.zeros((4, sum(shape))), 0
    for axis, size in enumerate(shape):
        rows[0, first : first + size] = axis == 0
        rows[1 + axis, first : first + size] = np.arange(size)
        first += size
    return rows
