"""Figures that tell whether a registration can be trusted."""

from __future__ import annotations

import numpy as np
import torch

from convexadam._typing import Field
from convexadam.geometry import DisplacementField
from convexadam.geometry.determinants import determinants_by_slab, everywhere
from convexadam.geometry.resample import linear_part
from convexadam.kernels.warp_ssd import compared, evidence_under
from convexadam.registration.levels import Described


def similarity(level: Described, nodes: Field) -> dict[str, float]:
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

    All on every voxel; `convexadam.metrics` leaves out the outer ones, as Learn2Reg does. Nothing is folded just where
    the smallest determinant is above 0.
    """
    into_voxels = np.linalg.inv(transform.grid.affine)
    ends, folded = [], torch.zeros((), dtype=torch.int64, device=transform.disp_mm.device)
    box = everywhere(transform.grid.shape)
    for _, found in determinants_by_slab(transform.disp_mm, box, lambda part: linear_part(into_voxels, part)):
        ends.append(torch.stack(torch.aminmax(found)))
        folded = folded + (found <= 0).sum()
    low, high = torch.stack(ends).unbind(1)
    squared = torch.addcmul(transform.disp_mm[0].square(), transform.disp_mm[1], transform.disp_mm[1])
    length = squared.addcmul_(transform.disp_mm[2], transform.disp_mm[2]).sqrt_()
    return {
        "folded_percent": 100 * float(folded) / transform.grid.n_voxels,
        "jacobian_min": float(low.min()),
        "jacobian_max": float(high.max()),
        "displacement_mean_mm": float(length.mean()),
        "displacement_max_mm": float(length.max()),
    }
