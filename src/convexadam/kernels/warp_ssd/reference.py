"""Squared differences in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Field, Float, Tensor, Triple, Volume
from convexadam.kernels.warp import identity_positions, inside, sample_linear

_ALL_KNOWN = 0.999
"""A feature is interpolated between eight nodes; where one of them has no evidence, neither has the mixture."""


def ssd(
    fixed: Channels,
    moving: Channels,
    displacement: Field,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> Float[Tensor, ""]:
    """Compute ``1/N sum_x w(x) sum_c (M_c(x + u(x)) - F_c(x))^2`` over the ``N`` nodes; differentiable.

    ``w(x) = fixed_weight(x) moving_weight(x + u(x))``, and 0 where ``x + u(x)`` leaves the field of view: there
    is no evidence. The weight itself is held constant in the gradient.

    Parameters
    ----------
    fixed, moving
        Features ``[c, i, j, k]`` of one shape.
    displacement
        ``u``, ``[3, i, j, k]``, in nodes.
    fixed_weight, moving_weight
        ``[i, j, k]``, not negative; 1 where ``None``.
    """
    shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
    positions = displacement + identity_positions(shape, like=displacement)
    residual = (sample_linear(moving, positions) - fixed).square().sum(0)
    return (residual * evidence_under(displacement, fixed_weight, moving_weight)).mean()


def evidence_under(displacement: Field, fixed_weight: Volume | None, moving_weight: Volume | None) -> Volume:
    """Weight of each node under a displacement: ``fixed_weight(x) moving_weight(x + u(x))``, 0 outside; no gradient."""
    shape: Triple = (displacement.shape[1], displacement.shape[2], displacement.shape[3])
    with torch.no_grad():
        positions = displacement + identity_positions(shape, like=displacement)
        weight = inside(positions, shape).to(displacement.dtype)
        if moving_weight is not None:
            known = (moving_weight > 0).to(weight.dtype)
            sampled, share = sample_linear(torch.stack([moving_weight, known]), positions)
            weight *= torch.where(share > _ALL_KNOWN, sampled, 0.0)
        if fixed_weight is not None:
            weight *= fixed_weight
    return weight


def warp_ssd(
    fixed: Channels,
    moving: Channels,
    displacement: Field,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> tuple[Float[Tensor, ""], Field]:
    """Return the value of `ssd` and its gradient with respect to the displacement, ``[3, i, j, k]``."""
    with torch.enable_grad():
        moved = displacement.detach().requires_grad_()
        loss = ssd(fixed, moving, moved, fixed_weight=fixed_weight, moving_weight=moving_weight)
        (gradient,) = torch.autograd.grad(loss, moved)
    return loss.detach(), gradient
