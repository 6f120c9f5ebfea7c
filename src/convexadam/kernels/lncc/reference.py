"""Local normalised cross-correlation in torch."""

from __future__ import annotations

import torch

from convexadam._typing import Channels, Field, Float, Tensor, Triple, Volume
from convexadam.kernels.diffusion.reference import diffusion_gradient
from convexadam.kernels.smooth.reference import smooth
from convexadam.kernels.warp import identity_positions, sample_linear
from convexadam.kernels.warp_ssd.reference import needs_graph, overlap_weight, squared_slope

ROUNDINGS = 4
"""A map counts as constant if its standard deviation is at most this many rounding errors of its mean."""


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
    """Compute ``1/N sum_x w(x) sum_c (1 - cc_c(x))`` over the ``N`` points; differentiable.

    ``cc = cov^2 / (vf vm)`` is the squared correlation of ``F_c`` and ``M_c(x + u(x))`` within the window around each
    point, with weights ``w``, 0 outside the volume. ``vf`` and ``vm`` are the local variances plus ``floor`` times the
    variance of the map, which suppresses noise in homogeneous regions; ``cc`` is 0 for constant maps. The weights are
    those of `convexadam.kernels.warp_ssd.ssd`, constant in the gradient.

    Parameters
    ----------
    fixed, moving
        Maps ``[c, i, j, k]`` of one shape.
    displacement
        ``u``, ``[3, i, j, k]``, in grid units.
    radius
        Radius of the window, of ``2 radius + 1`` points along each axis.
    floor
        Constant added to local variances, as a fraction of the variance of the map; above 0.
    fixed_weight, moving_weight
        ``[i, j, k]``, not negative; ``None`` for 1.
    """
    weight = overlap_weight(displacement, fixed_weight, moving_weight)
    maps = normalise(fixed, fixed_weight), normalise(moving, moving_weight)
    return _mean(weight, *_local_statistics(*maps, displacement, weight, radius, floor)[:3])


def normalise(features: Channels, weight: Volume | None) -> Channels:
    """Shift and scale each channel to weighted mean 0 and variance 1; constant channels become 0.

    The correlation is invariant, and moments in float32 lose fewer digits.
    """
    weights = torch.ones_like(features[0]) if weight is None else weight
    total = weights.sum(dtype=torch.float64).clamp_min(torch.finfo(torch.float32).tiny)
    if needs_graph(features):
        return torch.stack([_normalise_differentiably(channel, weights, total) for channel in features])
    result = torch.empty_like(features, memory_format=torch.contiguous_format)
    for channel, target in zip(features, result, strict=True):
        mean = (weights * channel).sum(dtype=torch.float64) / total
        torch.sub(channel, mean.to(channel.dtype), out=target)
        deviation = ((weights * target * target).sum(dtype=torch.float64) / total).sqrt()
        rounding = ROUNDINGS * torch.finfo(channel.dtype).eps * mean.abs()
        target.mul_(torch.where(deviation > rounding, 1 / deviation, 0.0).to(channel.dtype))
    return result


def _normalise_differentiably(channel: Volume, weights: Volume, total: Tensor) -> Volume:
    mean = (weights * channel).sum(dtype=torch.float64) / total
    centred = channel - mean.to(channel.dtype)
    variance = (weights * centred * centred).sum(dtype=torch.float64) / total
    varies = variance.sqrt() > ROUNDINGS * torch.finfo(channel.dtype).eps * mean.abs()
    # both sides of a selection have a gradient, which must not be NaN where the other one is selected
    factor = torch.where(varies, 1 / torch.where(varies, variance, 1.0).sqrt(), 0.0)
    return centred * factor.to(channel.dtype)


class Correlation:
    """See `convexadam.kernels.lncc.prepare_lncc`."""

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
        self._maps = normalise(fixed, fixed_weight), normalise(moving, moving_weight)
        self._weights = fixed_weight, moving_weight
        self._radius, self._floor = radius, floor

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        weight = overlap_weight(displacement.detach(), *self._weights)
        with torch.enable_grad():
            variable = displacement.detach().requires_grad_()
            loss = _mean(weight, *_local_statistics(*self._maps, variable, weight, self._radius, self._floor)[:3])
            (gradient,) = torch.autograd.grad(loss, variable)
        if diffusion:
            gradient += diffusion * diffusion_gradient(displacement.detach())
        value = loss.detach()
        if needs_graph(*self._maps, displacement):
            value = _mean(weight, *_local_statistics(*self._maps, displacement, weight, self._radius, self._floor)[:3])
        return value, gradient if out is None else out.copy_(gradient)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self(displacement, diffusion=diffusion, out=out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        u = displacement.detach()
        weight = overlap_weight(u, *self._weights)
        with torch.no_grad():
            cov, vf, vm, inverse = _local_statistics(*self._maps, u, weight, self._radius, self._floor)
            factors = (
                _box_sum(weight * inverse * 2 * cov.square() / (vf * vm * vm), self._radius) * weight / weight.numel()
            )
        squared = torch.stack([squared_slope(channel, u) for channel in self._maps[1][:, None]])
        value, gradient = self(u, diffusion=diffusion)
        result = torch.cat([gradient, (factors * squared).sum(0, keepdim=True) / 3])
        return value, result if out is None else out.copy_(result)


def _mean(weight: Volume, cov: Channels, vf: Channels, vm: Channels) -> Float[Tensor, ""]:
    """Compute the mean over the points of ``w sum_c (1 - cc_c)``."""
    return (weight * (1 - cov.square() / (vf * vm)).sum(0)).mean()


def _local_statistics(
    fixed: Channels, moving: Channels, displacement: Field, weight: Volume, radius: int, floor: float
) -> tuple[Channels, Channels, Channels, Volume]:
    """Compute covariance, both variances plus ``floor``, and ``1 / W`` of each window, 0 where the weight is 0."""
    shape: Triple = (displacement.shape[1], displacement.shape[2], displacement.shape[3])
    warped = sample_linear(moving, displacement + identity_positions(shape, like=displacement))
    total = _box_sum(weight[None], radius)[0]
    inverse = torch.where(weight > 0, 1 / torch.where(weight > 0, total, 1), 0)
    mean_f, mean_m = (_box_sum(weight * x, radius) * inverse for x in (fixed, warped))
    squared_f, squared_m = (_box_sum(weight * x * x, radius) * inverse for x in (fixed, warped))
    cov = _box_sum(weight * fixed * warped, radius) * inverse - mean_f * mean_m
    vf, vm = (squared_f - mean_f.square()).clamp_min(0), (squared_m - mean_m.square()).clamp_min(0)
    return cov, vf + floor, vm + floor, inverse


def _box_sum(values: Channels, radius: int) -> Channels:
    """Sum over the window of each point, truncated at the border."""
    return smooth(values, (1.0,) * (2 * radius + 1))
