"""Coverage in torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from convexadam._typing import Float, Tensor, Triple
from convexadam.kernels._device import send

_PARALLEL = 1e-4
"""Position along an axis, in voxels, up to which it does not depend on an index."""


def cover(
    rows: Sequence[Sequence[float]], limits: Sequence[tuple[float, float]], shape: Triple, *, like: Tensor
) -> Float[Tensor, "i j k"]:
    """See the package."""
    result = torch.ones((1, 1, 1), dtype=like.dtype, device=like.device)  # broadcast axis by axis
    for row, (low, high) in zip(rows, limits, strict=True):
        where = torch.full((1, 1, 1), row[3], dtype=torch.float32, device=like.device)
        for along, n in enumerate(shape):
            if abs(row[along]) * n > _PARALLEL:  # parallel axes need one line of positions, not a volume
                ticks = torch.arange(n, dtype=torch.float64, device="cpu") * row[along]
                where = where + send(ticks, where).reshape([-1 if a == along else 1 for a in range(3)])
        result = result * ((where >= low) & (where <= high))
    return result.expand(shape).contiguous()
