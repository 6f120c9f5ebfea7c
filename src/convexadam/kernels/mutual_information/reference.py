"""Normalised mutual information in torch."""

from __future__ import annotations

import itertools

import torch

from convexadam._typing import Field, Float, Tensor, Triple, Volume
from convexadam.kernels.diffusion.reference import diffusion_gradient
from convexadam.kernels.warp import identity_positions, sample_linear
from convexadam.kernels.warp_ssd.reference import evidence_under


def nmi_loss(
    fixed: Float[Tensor, "1 i j k"],
    moving: Float[Tensor, "1 i j k"],
    displacement: Field,
    *,
    bins: int = 32,
    fixed_weight: Volume | None = None,
    moving_weight: Volume | None = None,
) -> Float[Tensor, ""]:
    """Compute ``2 - (H(F) + H(M)) / H(F, M)`` of ``F(x)`` and ``M(x + u(x))``; differentiable.

    It is 1 for unrelated maps, and 0 would be the best. The entropies are those of a joint histogram (Studholme, Hill
    and Hawkes, Pattern Recognition 1999), to which each node counts by its weight, with linear windows along the fixed
    intensities and cubic B-splines along the moving ones (Mattes et al., IEEE TMI 2003). Its bins reach from the least
    to the largest value that has any weight in its map. Weights are those of `ssd`, constant in the gradient; without
    any evidence, the maps are unrelated.

    Parameters
    ----------
    fixed, moving
        Maps ``[1, i, j, k]`` of one shape.
    displacement
        ``u``, ``[3, i, j, k]``, in nodes.
    bins
        Of the histogram along each axis, at least 4.
    fixed_weight, moving_weight
        ``[i, j, k]``, not negative; 1 where ``None``.
    """
    shape: Triple = (displacement.shape[1], displacement.shape[2], displacement.shape[3])
    weight = evidence_under(displacement, fixed_weight, moving_weight)
    warped = sample_linear(moving, displacement + identity_positions(shape, like=displacement))[0]
    low, scale = span(fixed, fixed_weight, bins - 1)
    place = ((fixed[0] - low) * scale).clamp(0, bins - 1)
    row = place.floor().clamp(max=bins - 2)
    low, scale = span(moving, moving_weight, bins - 3)
    moved = ((warped - low) * scale + 1).clamp(1, bins - 2)
    column = moved.detach().floor().clamp(max=bins - 3)
    joint = displacement.new_zeros(bins * bins, dtype=torch.float64)
    first = (row * bins + column).long().flatten()
    for (a, along_fixed), (b, along_moving) in itertools.product(
        enumerate(_linear(place - row)), enumerate(_cubic(moved - column), -1)
    ):
        joint = joint.index_add(0, first + a * bins + b, (weight * along_fixed * along_moving).flatten().double())
    return _loss(joint.reshape(bins, bins)).to(displacement.dtype)


def span(values: Float[Tensor, "1 i j k"], weight: Volume | None, bins: int) -> tuple[Float[Tensor, ""], ...]:
    """Least value that has any weight, and bins per unit if ``bins`` reach up to the largest; 0 if all are equal."""
    counted = torch.ones_like(values, dtype=torch.bool) if weight is None else weight[None] > 0
    low = torch.where(counted, values, torch.inf).amin()
    high = torch.where(counted, values, -torch.inf).amax()
    scale = bins / (high - low)
    known = (scale > 0) & scale.isfinite()
    return torch.where(known, low, 0.0), torch.where(known, scale, 0.0)


def loss_and_slopes(joint: Float[Tensor, "f m"]) -> tuple[Float[Tensor, ""], Float[Tensor, "f m"]]:
    """Loss of a histogram, and its derivative by each entry but for constants along a row; 0 for entries of 0.

    What a node takes from some bins of a row it gives to others, so that the constants do not count.
    """
    share, loss = _shares(joint), _loss(joint)
    slopes = (_log(share.sum(0)) - (2 - loss) * _log(share)) / (_entropy(share) * joint.sum())
    return loss, torch.where(share > 0, slopes, 0.0)


def _loss(joint: Float[Tensor, "f m"]) -> Float[Tensor, ""]:
    share = _shares(joint)
    both = _entropy(share)
    known = both > 0
    alone = _entropy(share.sum(0)) + _entropy(share.sum(1))
    return torch.where(known, 2 - alone / torch.where(known, both, 1.0), 1.0)


def _shares(joint: Tensor) -> Tensor:
    return joint / joint.sum().clamp_min(torch.finfo(joint.dtype).tiny)


def _entropy(share: Tensor) -> Float[Tensor, ""]:
    return -(share * _log(share)).sum()


def _log(share: Tensor) -> Tensor:
    return share.clamp_min(torch.finfo(share.dtype).tiny).log()


def _linear(x: Volume) -> tuple[Volume, ...]:
    """Shares of the bins 0 and 1 in a value between them."""
    return 1 - x, x


def _cubic(x: Volume) -> tuple[Volume, ...]:
    """Shares of the bins -1, 0, 1 and 2 in a value between 0 and 1."""
    y = 1 - x
    return y**3 / 6, 2 / 3 - x**2 + x**3 / 2, 2 / 3 - y**2 + y**3 / 2, x**3 / 6


class MutualInformation:
    """See `convexadam.kernels.mutual_information.shared`."""

    def __init__(
        self,
        fixed: Float[Tensor, "1 i j k"],
        moving: Float[Tensor, "1 i j k"],
        *,
        bins: int = 32,
        fixed_weight: Volume | None = None,
        moving_weight: Volume | None = None,
    ) -> None:
        self._fixed, self._moving, self._bins = fixed, moving, bins
        self._weights = {"fixed_weight": fixed_weight, "moving_weight": moving_weight}

    def __call__(
        self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """See `convexadam.kernels.warp_ssd.Comparison`."""
        with torch.enable_grad():
            moved = displacement.detach().requires_grad_()
            loss = nmi_loss(self._fixed, self._moving, moved, bins=self._bins, **self._weights)
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
        value, gradient = self(displacement)
        length = torch.linalg.vector_norm(gradient, dim=0, keepdim=True, dtype=torch.float64).to(gradient.dtype)
        if diffusion:
            gradient += diffusion * diffusion_gradient(displacement.detach())
        found = torch.cat([gradient, length])
        return value, found if out is None else out.copy_(found)
