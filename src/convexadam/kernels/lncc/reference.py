"""Local correlation in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Field, Float, Tensor, Triple, Volume
from convexadam.kernels.diffusion.reference import diffusion_gradient
from convexadam.kernels.smooth.reference import smooth
from convexadam.kernels.warp import identity_positions, sample_linear
from convexadam.kernels.warp_ssd.reference import evidence_under, squared_slope

_CONSTANT = 4
"""A map whose deviation is as many roundings of its mean, or fewer, is constant."""


def lncc(
    fixed: Channels,
    moving: Channels,
    displacement: Field,
    *,
    radius: int = 2,
    floor: float = 1e-3,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> Float[Tensor, ""]:
    """Compute ``1/N sum_x w(x) sum_c (1 - cc_c(x))`` over the ``N`` nodes; differentiable.

    ``cc = cov^2 / (vf vm)``, the squared correlation of ``F_c`` and ``M_c(x + u(x))`` within the window around each
    node, where each node counts by its weight ``w``; what lies outside the volume does not. ``vf`` and ``vm`` are
    local variances plus ``floor`` times the variance of the whole map, so that noise where there is nothing else does
    not count, and constant maps correlate with nothing. Weights are those of `ssd`, constant in the gradient.

    Parameters
    ----------
    fixed, moving
        Maps ``[c, i, j, k]`` of one shape.
    displacement
        ``u``, ``[3, i, j, k]``, in nodes.
    radius
        Of the window: ``2 radius + 1`` nodes along each axis.
    floor
        What is added to local variances, as a share of the map's whole variance; more than 0.
    fixed_weight, moving_weight
        ``[i, j, k]``, not negative; 1 where ``None``.
    """
    weight = evidence_under(displacement, fixed_weight, moving_weight)
    maps = normalised(fixed, fixed_weight), normalised(moving, moving_weight)
    return _mean(weight, *_local(*maps, displacement, weight, radius, floor)[:3])


def normalised(features: Channels, weight: Volume | None) -> Channels:
    """Shift and scale each channel to mean 0 and variance 1, each node counted by its weight; 0 where it is constant.

    Correlations do not notice, and moments of float32 lose little.
    """
    counted = torch.ones_like(features[0]) if weight is None else weight
    total = counted.sum(dtype=torch.float64).clamp_min(torch.finfo(torch.float32).tiny)
    found = torch.empty_like(features, memory_format=torch.contiguous_format)
    for channel, target in zip(features, found, strict=True):
        mean = (counted * channel).sum(dtype=torch.float64) / total
        torch.sub(channel, mean.to(channel.dtype), out=target)
        deviation = ((counted * target * target).sum(dtype=torch.float64) / total).sqrt()
        rounding = _CONSTANT * torch.finfo(channel.dtype).eps * mean.abs()
        target.mul_(torch.where(deviation > rounding, 1 / deviation, 0.0).to(channel.dtype))
    return found


class Correlation:
    """See `convexadam.kernels.lncc.correlated`."""

    def __init__(
        self,
        fixed: Channels,
        moving: Channels,
        *,
        radius: int = 2,
        floor: float = 1e-3,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
    ) -> None:
        self._maps = normalised(fixed, fixed_weight), normalised(moving, moving_weight)
        self._weights = fixed_weight, moving_weight
        self._radius, self._floor = radius, floor

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        weight = evidence_under(displacement.detach(), *self._weights)
        with torch.enable_grad():
            moved = displacement.detach().requires_grad_()
            loss = _mean(weight, *_local(*self._maps, moved, weight, self._radius, self._floor)[:3])
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
        weight = evidence_under(u, *self._weights)
        with torch.no_grad():
            cov, vf, vm, share = _local(*self._maps, u, weight, self._radius, self._floor)
            factors = _box(weight * share * 2 * cov.square() / (vf * vm * vm), self._radius) * weight / weight.numel()
        squared = torch.stack([squared_slope(channel, u) for channel in self._maps[1][:, None]])
        value, gradient = self(u, diffusion=diffusion)
        found = torch.cat([gradient, (factors * squared).sum(0, keepdim=True) / 3])
        return value, found if out is None else out.copy_(found)


def _mean(weight: Volume, cov: Channels, vf: Channels, vm: Channels) -> Float[Tensor, ""]:
    """Mean over the nodes of ``w sum_c (1 - cc_c)``."""
    return (weight * (1 - cov.square() / (vf * vm)).sum(0)).mean()


def _local(
    fixed: Channels, moving: Channels, displacement: Field, weight: Volume, radius: int, floor: float
) -> tuple[Channels, Channels, Channels, Volume]:
    """Covariance and both variances within each window, these plus ``floor``, and ``1 / W``: 0 without evidence."""
    shape: Triple = (displacement.shape[1], displacement.shape[2], displacement.shape[3])
    warped = sample_linear(moving, displacement + identity_positions(shape, like=displacement))
    total = _box(weight[None], radius)[0]
    share = torch.where(weight > 0, 1 / torch.where(weight > 0, total, 1), 0)
    mean_f, mean_m = (_box(weight * x, radius) * share for x in (fixed, warped))
    squared_f, squared_m = (_box(weight * x * x, radius) * share for x in (fixed, warped))
    cov = _box(weight * fixed * warped, radius) * share - mean_f * mean_m
    vf, vm = (squared_f - mean_f.square()).clamp_min(0), (squared_m - mean_m.square()).clamp_min(0)
    return cov, vf + floor, vm + floor, share


def _box(values: Channels, radius: int) -> Channels:
    """Sum of each window; what lies outside the volume is left out."""
    return smooth(values, (1.0,) * (2 * radius + 1))
