"""Figures that tell whether a registration can be trusted."""

from __future__ import annotations

import numpy as np
import torch

from convexadam._typing import Field
from convexadam.geometry import DisplacementField
from convexadam.geometry.resample import linear_part
from convexadam.kernels.warp_ssd import compared, evidence_under
from convexadam.metrics.folding import inner_determinants
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
    into_voxels = np.linalg.inv(transform.grid.affine)
    ends, folded, count = [], torch.zeros((), dtype=torch.int64, device=transform.disp_mm.device), 0
    for determinants in inner_determinants(transform.disp_mm, lambda part: linear_part(into_voxels, part)):
        ends.append(torch.stack(torch.aminmax(determinants)))
        folded, count = folded + (determinants <= 0).sum(), count + determinants.numel()
    low, high = torch.stack(ends).unbind(1)
    squared = torch.addcmul(transform.disp_mm[0].square(), transform.disp_mm[1], transform.disp_mm[1])
    length = squared.addcmul_(transform.disp_mm[2], transform.disp_mm[2]).sqrt_()
    return {
        "folded_percent": 100 * float(folded) / count,
        "jacobian_min": float(low.min()),
        "jacobian_max": float(high.max()),
        "displacement_mean_mm": float(length.mean()),
        "displacement_max_mm": float(length.max()),
    }
