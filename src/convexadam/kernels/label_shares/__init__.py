"""Share of each label in blocks of voxels."""

from __future__ import annotations

import torch

from convexadam._typing import Float, Shaped, Tensor, Triple, Volume
from convexadam.kernels._backend import backend_for
from convexadam.kernels.label_shares import reference

__all__ = ["pool_one_hot"]


def pool_one_hot(
    labels: Shaped[Tensor, "i j k"], values: list[int], spacing: Triple, *, weight: Volume | None = None
) -> Float[Tensor, "n _ _ _"]:
    """Compute the fraction of each of ``values`` in blocks of voxels, without a one-hot map at full resolution.

    Weighted as `convexadam.kernels.resize.pool` does.

    Parameters
    ----------
    labels
        Whole numbers.
    values
        Ascending.
    spacing
        Voxels of a block along each axis.
    weight
        Of each voxel, not negative; ``None`` for 1.

    Returns
    -------
    ``[n, i // si, j // sj, k // sk]``, with channels last in memory, the layout of the compiled kernels.
    """
    if backend_for(torch.empty(0, dtype=torch.float32, device=labels.device), weight) == "triton":
        from convexadam.kernels.label_shares import triton

        return triton.pool_one_hot(labels, values, spacing, weight=weight)
    return reference.pool_one_hot(labels, values, spacing, weight=weight)  # whose time is that of its reads
