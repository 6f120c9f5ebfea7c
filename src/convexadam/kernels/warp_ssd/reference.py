"""Squared differences in torch."""

from __future__ import annotations

import copy

import torch

from convexadam._typing import Channels, Field, Float, Tensor, Triple, Volume
from convexadam.kernels.diffusion.reference import diffusion_gradient
from convexadam.kernels.warp import identity_positions, inside, sample_linear

_MIN_KNOWN = 0.999
"""Smallest interpolation weight of points of positive weight; 1 up to rounding. See `overlap_weight`."""

_ROUNDINGS = 32
"""A slope, a difference of sums of eight values, counts as 0 up to this many rounding errors of the largest value."""


def ssd(
    fixed: Channels,
    moving: Channels,
    displacement: Field,
    *,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
    outlier: float | Float[Tensor, ""] | None = None,
) -> Float[Tensor, ""]:
    """Compute ``1/N sum_x w(x) r(x)``, ``r(x) = sum_c (M_c(x + u(x)) - F_c(x))^2``; differentiable.

    With an ``outlier`` ``t`` it is ``1/N sum_x w(x) r / (1 + r / t)`` (Geman and McClure, Bulletin of the ISI 1987),
    which tends to the constant ``t`` where the images do not correspond, ``r >> t``.

    ``w(x) = fixed_weight(x) moving_weight(x + u(x))``, and 0 where ``x + u(x)`` is outside the field of view; see
    `convexadam.kernels.warp_ssd.overlap_weight`. It is constant in the gradient.

    Parameters
    ----------
    fixed, moving
        Features ``[c, i, j, k]`` of one shape.
    displacement
        ``u``, ``[3, i, j, k]``, in grid units.
    fixed_weight, moving_weight
        ``[i, j, k]``, not negative; ``None`` for 1.
    outlier
        ``t``, above 0; ``None`` for infinity.
    """
    residual = _residual(fixed, moving, displacement)
    if outlier is not None:
        residual = residual / (1 + residual / outlier)
    return (residual * overlap_weight(displacement, fixed_weight, moving_weight)).mean()


def _residual(fixed: Channels, moving: Channels, displacement: Field) -> Volume:
    shape: Triple = (fixed.shape[1], fixed.shape[2], fixed.shape[3])
    positions = displacement + identity_positions(shape, like=displacement)
    return (sample_linear(moving, positions) - fixed).square().sum(0)


def overlap_weight(displacement: Field, fixed_weight: Volume | None, moving_weight: Volume | None) -> Volume:
    """See the package."""
    shape: Triple = (displacement.shape[1], displacement.shape[2], displacement.shape[3])
    with torch.no_grad():
        positions = displacement + identity_positions(shape, like=displacement)
        weight = inside(positions, shape).to(displacement.dtype)
        if moving_weight is not None:
            positive = (moving_weight > 0).to(weight.dtype)
            sampled, share = sample_linear(torch.stack([moving_weight, positive]), positions)
            weight *= torch.where(share > _MIN_KNOWN, sampled, 0.0)
        if fixed_weight is not None:
            weight *= fixed_weight
    return weight


class WarpSsd:
    """See `convexadam.kernels.warp_ssd.prepare_ssd`."""

    def __init__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
        outlier: float | Float[Tensor, ""] | None = None,
    ) -> None:
        self._fixed, self._moving, self._outlier = fixed, moving, outlier
        self._fixed_weight, self._moving_weight = fixed_weight, moving_weight

    def with_outlier(self, outlier: float | Float[Tensor, ""]) -> WarpSsd:
        """See `convexadam.kernels.warp_ssd.SquaredDifferences`."""
        other = copy.copy(self)
        other._outlier = outlier.masked_fill(outlier <= 0, torch.inf) if isinstance(outlier, torch.Tensor) else outlier
        return other

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        with torch.enable_grad():
            variable = displacement.detach().requires_grad_()
            weights = {"fixed_weight": self._fixed_weight, "moving_weight": self._moving_weight}
            loss = ssd(self._fixed, self._moving, variable, **weights, outlier=self._outlier)
            (gradient,) = torch.autograd.grad(loss, variable)
        if diffusion:
            gradient += diffusion * diffusion_gradient(displacement.detach())
        value = loss.detach()
        if needs_graph(self._fixed, self._moving, displacement):
            value = ssd(self._fixed, self._moving, displacement, **weights, outlier=self._outlier)
        return value, gradient if out is None else out.copy_(gradient)

    def value(self, displacement: Field) -> Float[Tensor, ""]:
        """See `convexadam.kernels.warp_ssd.SquaredDifferences`."""
        weights = {"fixed_weight": self._fixed_weight, "moving_weight": self._moving_weight}
        return ssd(self._fixed, self._moving, displacement, **weights, outlier=self._outlier)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self(displacement, diffusion=diffusion, out=out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        u = displacement.detach()
        weight = overlap_weight(u, self._fixed_weight, self._moving_weight)
        if self._outlier is not None:
            weight /= (1 + _residual(self._fixed, self._moving, u) / self._outlier).square()
        squared = sum(squared_slope(channel, u) for channel in self._moving[:, None])
        value, gradient = self(u, diffusion=diffusion)
        result = torch.cat([gradient, 2 / (3 * weight.numel()) * weight[None] * squared])
        return value, result if out is None else out.copy_(result)


def needs_graph(*tensors: Tensor) -> bool:
    """Whether autograd records what is computed from these tensors."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def squared_slope(channel: Channels, displacement: Field) -> Volume:
    """Compute the squared derivative of one warped channel ``[1, i, j, k]`` by the displacement at each point."""
    shape: Triple = (displacement.shape[1], displacement.shape[2], displacement.shape[3])
    with torch.enable_grad():
        variable = displacement.detach().requires_grad_()
        warped = sample_linear(channel, variable + identity_positions(shape, like=variable))
        (slopes,) = torch.autograd.grad(warped.sum(), variable)
    threshold = _ROUNDINGS * torch.finfo(channel.dtype).eps * channel.abs().amax()
    return torch.where(slopes.abs() > threshold, slopes, 0.0).square().sum(0)
