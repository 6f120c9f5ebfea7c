"""Weights of atlases that minimise the expected error of their weighted vote."""

from __future__ import annotations

from convexadam._typing import Channels, Float, Shaped, Tensor
from convexadam.kernels._backend import get_implementation

__all__ = ["compute_joint_weights"]


def compute_joint_weights(
    target: Channels,
    atlases: Float[Tensor, "n c i j k"],
    offsets: Shaped[Tensor, "n i j k"],
    mask: Shaped[Tensor, "i j k"],
    *,
    patch_radius: int = 2,
    search_radius: int = 3,
    alpha: float = 0.1,
    beta: float = 2.0,
) -> Float[Tensor, "n i j k"]:
    """Compute ``w = (M + alpha I)^-1 1 / (1^T (M + alpha I)^-1 1)`` at each voxel.

    ``M_ab = (1/c sum_p |T(p) - A_a(p)| |T(p) - A_b(p)|)^beta`` estimates how often two atlases err at the same place:
    ``T`` and ``A_a`` are the standardised patches of `match_patches`, of all channels, that of an atlas at its offset.
    Weights may be negative: they cancel an error that atlases have in common.

    Wang, Suh, Das, Pluta, Craige, Yushkevich, "Multi-atlas segmentation with joint label fusion", PAMI 2013.

    Parameters
    ----------
    target, atlases
        Maps ``[c, i, j, k]`` and ``[n, c, i, j, k]`` on one grid, scaled to a variance of about 1.
    offsets
        Rows of `list_offsets` for each atlas, ``[n, i, j, k]``, int16, from `match_patches`.
    mask
        Voxels to compute, ``[i, j, k]``, bool. All others have weights 0.
    patch_radius, search_radius
        Those of `match_patches`.
    alpha
        Added to the diagonal, above 0: larger values make the weights more equal.
    beta
        Exponent, above 0: larger values favour the best atlases.

    Returns
    -------
    ``[n, i, j, k]``, with the sum 1 at each voxel of the mask.
    """
    module = get_implementation(__name__, target, atlases)
    weights: Tensor = module.compute_joint_weights(
        target,
        atlases,
        offsets,
        mask,
        patch_radius=patch_radius,
        search_radius=search_radius,
        alpha=alpha,
        beta=beta,
    )
    return weights
