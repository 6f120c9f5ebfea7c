"""Figures that tell whether a registration can be trusted."""

from __future__ import annotations

import torch

from convexadam._typing import Field
from convexadam.geometry import DisplacementField
from convexadam.kernels.warp_ssd import compared, evidence_under
from convexadam.metrics.folding import folded_share, inner_determinant
from convexadam.registration.levels import Level


def similarity(level: Level, nodes: Field) -> dict[str, float]:
    """Mean squared feature difference before and after, summed over channels, and the share of the volume compared.

    All on the nodes of a level, with the displacement ``[3, i, j, k]`` counted in them.
    """
    fixed, moving = level.weights
    compare = compared(*level.features, fixed_weight=fixed, moving_weight=moving)
    before, after = (compare(u)[0] for u in (torch.zeros_like(nodes), nodes))
    met = (evidence_under(nodes, fixed, moving) > 0).float().mean()
    return {
        "feature_difference_before": float(before),
        "feature_difference_after": float(after),
        "compared_percent": 100 * float(met),
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
