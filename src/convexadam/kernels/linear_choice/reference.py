"""The choice of linear transforms in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from convexadam._typing import Float, Shaped, Tensor, Volume

if TYPE_CHECKING:
    from convexadam.kernels.linear_choice import Candidate

MAX_VOLUME_CHANGE = 8.0
"""Change of volume, as a factor, beyond which a fit is not plausible: it is a fit to noise."""


def compute_mean(values: Volume, weight: Volume) -> Float[Tensor, ""]:
    """See `convexadam.kernels.linear_choice.Candidate`."""
    mean: Tensor = 1 + (weight * (values - 1)).sum(dtype=torch.float64)
    return mean


def apply_update(
    matrix: Float[Tensor, "4 4"],
    active: Shaped[Tensor, ""],
    update: Float[Tensor, "4 4"],
    corners: Float[Tensor, "8 4"],
    *,
    close: float,
) -> None:
    """See the package."""
    fitted = matrix @ update
    accepted = active & is_plausible(fitted)
    identity = torch.eye(4, dtype=update.dtype, device=update.device)
    longest = (corners @ (update - identity).T).norm(dim=1).max()
    matrix.copy_(torch.where(accepted, fitted, matrix))
    active.copy_(accepted & (longest >= close))


def is_plausible(matrix: Float[Tensor, "4 4"]) -> Shaped[Tensor, ""]:
    """Whether a transform changes volume by a moderate factor."""
    a, b, c = matrix[:3, :3].unbind(1)
    volume: Tensor = torch.linalg.cross(a, b) @ c
    return torch.logical_and(volume > 1 / MAX_VOLUME_CHANGE, volume < MAX_VOLUME_CHANGE)


def keep_better(best: Candidate, other: Candidate, *, min_improvement: tuple[float, float], by_mean: bool) -> None:
    """See the package."""
    overlap = torch.minimum(other.weight, best.weight)
    sums = overlap, other.weight, best.weight, overlap * other.values, overlap * best.values
    common, weight, best_weight, value, best_value = torch.stack([s.sum() for s in sums]).double().unbind()
    apart = (common < torch.maximum(weight, best_weight) / 2) | by_mean
    value, best_value = torch.where(apart, other.mean, value), torch.where(apart, best.mean, best_value)
    is_initial, (first, following) = best.model < 0, min_improvement
    limit = torch.where(is_initial, (1 - first) * best_value, (1 - following) * best_value)
    better = (other.model >= 0) & is_plausible(other.matrix) & (value < limit)
    for kept, new in (
        (best.values, other.values),
        (best.weight, other.weight),
        (best.matrix, other.matrix),
        (best.model, other.model),
    ):
        kept.copy_(torch.where(better, new, kept))
