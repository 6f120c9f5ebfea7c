"""Linear transforms fitted to the displacements of a search by trimmed least squares."""

from __future__ import annotations

import torch

from convexadam._typing import Field, Float, Shaped, Tensor, Volume
from convexadam.kernels._backend import get_implementation
from convexadam.kernels.trimmed_fit.reference import MODELS, Model, fit_trimmed, fit_weighted

__all__ = ["MODELS", "Model", "fit_displacements", "fit_trimmed", "fit_weighted"]


def fit_displacements(
    disp: Field,
    weights: Volume,
    affine: Float[Tensor, "4 4"],
    *,
    model: Shaped[Tensor, ""],
    inlier_fraction: float,
    target_map: Float[Tensor, "4 4"] | None = None,
) -> Float[Tensor, "4 4"]:
    """Fit ``M`` to ``M A x = target_map A (x + disp(x))`` over all points ``x``; see `fit_trimmed`.

    Parameters
    ----------
    disp
        ``[3, i, j, k]`` in units of the grid.
    weights
        ``[i, j, k]``, at least 0; points of weight 0 are ignored.
    affine
        ``A``, from indices of the grid to mm, float64 on the device of the displacements.
    model
        Number of the model in `MODELS`, on that device.
    inlier_fraction
        Share of the points that are inliers, above 0 and at most 1.
    target_map
        Map of the displaced points; ``None`` for the identity.

    Returns
    -------
    4x4, float64 on that device; ``target_map`` if no point has weight.
    """
    module = get_implementation(__name__, disp, weights)
    target = torch.eye(4, dtype=affine.dtype, device=affine.device) if target_map is None else target_map
    fitted: Float[Tensor, "4 4"] = module.fit_displacements(
        disp, weights, affine, target, model=model, inlier_fraction=inlier_fraction
    )
    return fitted
