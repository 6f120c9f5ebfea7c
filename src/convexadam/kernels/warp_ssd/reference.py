"""Squared differences in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Field, Float, Tensor, Triple, Volume
from convexadam.kernels.diffusion.reference import diffusion_gradient
from convexadam.kernels.warp import identity_positions, inside, sample_linear

_ALL_KNOWN = 0.999
"""A feature is interpolated between eight nodes; where one of them has no evidence, neither has the mixture."""

_ROUNDINGS = 32
"""A slope is a sum of eight values with both signs: as many roundings of the largest one, or fewer, are none."""


def ssd(
    fixed: Channels,
    moving: Channels,
    displacement: Field,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
    outlier: float | None = None,
) -> Float[Tensor, ""]:
    """Compute ``1/N sum_x w(x) r(x)``, ``r(x) = sum_c (M_c(x + u(x)) - F_c(x))^2``; differentiable.

    With an ``outlier`` ``t`` it is ``1/N sum_x w(x) r / (1 + r / t)`` (Geman and McClure, Bulletin of the ISI 1987):
    what has no partner in the other image, ``r >> t``, costs the same wherever it is moved.

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
    outlier
        ``t``, more than 0; ``None`` for no limit.
    """
    residual = _residual(fixed, moving, displacement)
    if outlier is not None:
        residual = residual / (1 + residual / outlier)
    return (residual * evidence_under(displacement, fixed_weight, moving_weight)).mean()


def _residual(fixed: Channels, moving: Channels, displacement: Field) -> Volume:
    shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
    positions = displacement + identity_positions(shape, like=displacement)
    return (sample_linear(moving, positions) - fixed).square().sum(0)


def evidence_under(displacement: Field, fixed_weight: Volume | None, moving_weight: Volume | None) -> Volume:
    """See the package."""
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


class WarpSsd:
    """See `convexadam.kernels.warp_ssd.compared`."""

    def __init__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        outlier: float | None = None,
    ) -> None:
        self._fixed, self._moving, self._outlier = fixed, moving, outlier
        self._fixed_weight, self._moving_weight = fixed_weight, moving_weight

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        with torch.enable_grad():
            moved = displacement.detach().requires_grad_()
            weights = {"fixed_weight": self._fixed_weight, "moving_weight": self._moving_weight}
            loss = ssd(self._fixed, self._moving, moved, **weights, outlier=self._outlier)
            (gradient,) = torch.autograd.grad(loss, moved)
        if diffusion:
            gradient += diffusion * diffusion_gradient(displacement.detach())
        return loss.detach(), gradient if out is None else out.copy_(gradient)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        return self(displacement, diffusion=diffusion, out=out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        u = displacement.detach()
        weight = evidence_under(u, self._fixed_weight, self._moving_weight)
        if self._outlier is not None:
            weight /= (1 + _residual(self._fixed, self._moving, u) / self._outlier).square()
        squared = sum(squared_slope(channel, u) for channel in self._moving[:, None])
        value, gradient = self(u, diffusion=diffusion)
        found = torch.cat([gradient, 2 / (3 * weight.numel()) * weight[None] * squared])
        return value, found if out is None else out.copy_(found)


def squared_slope(channel: Channels, displacement: Field) -> Volume:
    """Square the derivative of one warped channel ``[1, i, j, k]`` at each node by the displacement there."""
    shape: Triple = (displacement.shape[1], displacement.shape[2], displacement.shape[3])
    with torch.enable_grad():
        moved = displacement.detach().requires_grad_()
        warped = sample_linear(channel, moved + identity_positions(shape, like=moved))
        (slopes,) = torch.autograd.grad(warped.sum(), moved)
    least = _ROUNDINGS * torch.finfo(channel.dtype).eps * channel.abs().amax()
    return torch.where(slopes.abs() > least, slopes, 0.0).square().sum(0)
