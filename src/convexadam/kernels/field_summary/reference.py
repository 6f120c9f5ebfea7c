"""The summary of a displacement field in torch, slab by slab to bound memory."""

from __future__ import annotations

from functools import reduce

import torch

from convexadam._typing import Field, Float, Tensor
from convexadam.kernels._backend import compiled_for_float32
from convexadam.kernels._device import chunk_size, send
from convexadam.kernels.jacobian import jacobian_determinant

_CHUNK_VOXELS = {"cpu": 2**18, "gpu": 2**23}
"""Voxels per slab, whose displacements in voxels are in memory."""


def summarise_field(displacement: Field, to_voxels: Float[Tensor, "3 3"]) -> list[Float[Tensor, ""]]:
    """See the package."""
    n0, points = displacement.shape[1], displacement[0].numel()
    matrix, ends, counts = send(to_voxels, displacement), list[Tensor](), list[Tensor]()
    rows = max(1, chunk_size(displacement, **_CHUNK_VOXELS) // displacement[0, 0].numel())
    for first in range(0, n0, rows):
        last, low, high = min(first + rows, n0), max(first - 1, 0), min(first + rows + 1, n0)
        around = displacement[:, low:high]  # central differences need one neighbour on each side
        with compiled_for_float32(around):
            found = jacobian_determinant((matrix @ around.reshape(3, -1)).reshape(around.shape))
        determinants = found[first - low : last - low]
        ends.append(torch.stack(torch.aminmax(determinants)))
        counts.append((determinants <= 0).sum())
    least, most = torch.stack(ends).unbind(1)
    squared = torch.addcmul(displacement[0].square(), displacement[1], displacement[1])
    length = squared.addcmul_(displacement[2], displacement[2]).sqrt_()
    return [100 * reduce(torch.add, counts).double() / points, least.min(), most.max(), length.mean(), length.max()]
