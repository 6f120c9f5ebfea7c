"""Figures that tell whether a registration can be trusted."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Field, Volume
from convexadam.geometry import DisplacementField
from convexadam.kernels.resize import pool, voxels_to_nodes
from convexadam.kernels.warp_ssd import evidence_under, ssd
from convexadam.metrics.folding import folded_share, inner_determinant

_SPACING = 2
"""Similarity is measured on features pooled by this many voxels."""


def similarity(
    features: tuple[Channels, Channels], weights: tuple[Volume | None, Volume | None], disp_vox: Field
) -> dict[str, float]:
    """Mean squared feature difference before and after, summed over channels, and the share of the volume compared."""
    i, j, k = (min(_SPACING, n) for n in disp_vox.shape[1:])
    spacing = (i, j, k)
    fixed, moving = (pool(f, spacing, weight=w) for f, w in zip(features, weights, strict=True))
    fixed_weight, moving_weight = (None if w is None else pool(w[None], spacing)[0] for w in weights)
    scale = torch.tensor(spacing, dtype=disp_vox.dtype, device=disp_vox.device).reshape(3, 1, 1, 1)
    after = voxels_to_nodes(disp_vox, spacing) / scale
    values = [
        ssd(fixed, moving, u, fixed_weight=fixed_weight, moving_weight=moving_weight)
        for u in (torch.zeros_like(after), after)
    ]
    compared = (evidence_under(after, fixed_weight, moving_weight) > 0).float().mean()
    return {
        "feature_difference_before": float(values[0]),
        "feature_difference_after": float(values[1]),
        "compared_percent": 100 * float(compared),
    }


def describe_field(transform: DisplacementField) -> dict[str, float]:
    """Folding, volume change and size of a displacement field.

    The first two on voxels that have both neighbours, as in `convexadam.metrics`: nothing is folded exactly where the
    smallest determinant is above 0.
    """
    length = transform.disp_mm.norm(dim=0)
    determinants = inner_determinant(transform.to_voxels())
    return {
        "folded_percent": 100 * folded_share(determinants),
        "jacobian_min": float(determinants.min()),
        "jacobian_max": float(determinants.max()),
        "displacement_mean_mm": float(length.mean()),
        "displacement_max_mm": float(length.max()),
    }
