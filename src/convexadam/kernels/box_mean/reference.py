"""The mean of neighbours by a separable filter."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convexadam._typing import Channels, Float, Tensor
from convexadam.kernels.smooth import smooth


def box_mean(field: Channels) -> Channels:
    """See the package."""
    return smooth(field, (1.0, 1.0, 1.0), after=_reciprocal_counts(field.shape[1:], like=field))


def _reciprocal_counts(shape: Sequence[int], *, like: Tensor) -> Float[Tensor, "i j k"]:
    """Return one over the number of points that are averaged at each point."""
    i, j, k = (_count_neighbours(n).to(like) for n in shape)
    return (i[:, None, None] * j[:, None] * k).reciprocal_()


def _count_neighbours(size: int) -> Float[Tensor, " n"]:
    counts = torch.full((size,), 3.0, dtype=torch.float64, device="cpu")
    counts[0] -= 1
    counts[-1] -= 1
    return counts
