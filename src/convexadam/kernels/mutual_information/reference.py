"""Normalised mutual information in torch."""

from __future__ import annotations

import itertools

import torch

from convexadam._typing import Field, Float, Tensor, Triple, Volume
from convexadam.kernels.diffusion.reference import diffusion_gradient
from convexadam.kernels.warp import identity_positions, sample_linear
from convexadam.kernels.warp_ssd.reference import overlap_weight


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

    It is 1 for independent maps and 0 at the minimum. The entropies are those of a weighted joint histogram (Studholme,
    Hill and Hawkes, Pattern Recognition 1999), with linear Parzen windows along the fixed intensities and cubic
    B-splines along the moving ones (Mattes et al., IEEE TMI 2003). The bins cover the range of the values of positive
    weight of each map. The weights are those of `convexadam.kernels.warp_ssd.ssd`, constant in the gradient; if all are
    0, the loss is 1.

    Parameters
    ----------
    fixed, moving
        Maps ``[1, i, j, k]`` of one shape.
    displacement
        ``u``, ``[3, i, j, k]``, in grid units.
    bins
        Number of bins of the histogram along each axis, at least 4.
    fixed_weight, moving_weight
        ``[i, j, k]``, not negative; ``None`` for 1.
    """
    shape: Triple = (displacement.shape[1], displacement.shape[2], displacement.shape[3])
    weight = overlap_weight(displacement, fixed_weight, moving_weight)
    warped = sample_linear(moving, displacement + identity_positions(shape, like=displacement))[0]
    low, scale = intensity_range(fixed, fixed_weight, bins - 1)
    position = ((fixed[0] - low) * scale).clamp(0, bins - 1)
    row = position.floor().clamp(max=bins - 2)
    low, scale = intensity_range(moving, moving_weight, bins - 3)
    column_position = ((warped - low) * scale + 1).clamp(1, bins - 2)
    column = column_position.detach().floor().clamp(max=bins - 3)
    joint = displacement.new_zeros(bins * bins, dtype=torch.float64)
    first = (row * bins + column).long().flatten()
    for (a, along_fixed), (b, along_moving) in itertools.product(
        enumerate(_linear_weights(position - row)), enumerate(_cubic_weights(column_position - column), -1)
    ):
        joint = joint.index_add(0, first + a * bins + b, (weight * along_fixed * along_moving).flatten().double())
    return _loss(joint.reshape(bins, bins)).to(displacement.dtype)


def intensity_range(
    values: Float[Tensor, "1 i j k"], weight: Volume | None, bins: int
) -> tuple[Float[Tensor, ""], ...]:
    """Return the smallest value of positive weight, and ``bins`` over the range of such values; 0 if all are equal."""
    positive = torch.ones_like(values, dtype=torch.bool) if weight is None else weight[None] > 0
    low = torch.where(positive, values, torch.inf).amin()
    high = torch.where(positive, values, -torch.inf).amax()
    scale = bins / (high - low)
    defined = (scale > 0) & scale.isfinite()
    return torch.where(defined, low, 0.0), torch.where(defined, scale, 0.0)


def loss_and_slopes(joint: Float[Tensor, "f m"]) -> tuple[Float[Tensor, ""], Float[Tensor, "f m"]]:
    """Compute the loss of a histogram and its derivatives by the entries, up to a constant per row; 0 for empty bins.

    A displacement moves weight between the bins of a row without changing its sum, so that such constants cancel.
    """
    probability, loss = _probabilities(joint), _loss(joint)
    slopes = (_log(probability.sum(0)) - (2 - loss) * _log(probability)) / (_entropy(probability) * joint.sum())
    return loss, torch.where(probability > 0, slopes, 0.0)


def _loss(joint: Float[Tensor, "f m"]) -> Float[Tensor, ""]:
    probability = _probabilities(joint)
    joint_entropy = _entropy(probability)
    defined = joint_entropy > 0
    marginal_entropies = _entropy(probability.sum(0)) + _entropy(probability.sum(1))
    return torch.where(defined, 2 - marginal_entropies / torch.where(defined, joint_entropy, 1.0), 1.0)


def _probabilities(joint: Tensor) -> Tensor:
    return joint / joint.sum().clamp_min(torch.finfo(joint.dtype).tiny)


def _entropy(probability: Tensor) -> Float[Tensor, ""]:
    return -(probability * _log(probability)).sum()


def _log(probability: Tensor) -> Tensor:
    return probability.clamp_min(torch.finfo(probability.dtype).tiny).log()


def _linear_weights(x: Volume) -> tuple[Volume, ...]:
    """Return the window weights of the bins 0 and 1 for a value in between."""
    return 1 - x, x


def _cubic_weights(x: Volume) -> tuple[Volume, ...]:
    """Return the B-spline weights of the bins -1, 0, 1 and 2 for a value between 0 and 1."""
    y = 1 - x
    return y**3 / 6, 2 / 3 - x**2 + x**3 / 2, 2 / 3 - y**2 + y**3 / 2, x**3 / 6


class MutualInformation:
    """See `convexadam.kernels.mutual_information.prepare_mutual_information`."""

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
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        with torch.enable_grad():
            column_position = displacement.detach().requires_grad_()
            loss = nmi_loss(self._fixed, self._moving, column_position, bins=self._bins, **self._weights)
            (gradient,) = torch.autograd.grad(loss, column_position)
        if diffusion:
            gradient += diffusion * diffusion_gradient(displacement.detach())
        return loss.detach(), gradient if out is None else out.copy_(gradient)

    def gradient(self, displacement: Field, *, diffusion: float = 0.0, out: Field | None = None) -> Field:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        return self(displacement, diffusion=diffusion, out=out)[1]

    def curvature(
        self, displacement: Field, *, diffusion: float = 0.0, out: Float[Tensor, "4 i j k"] | None = None
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"]]:
        """See `convexadam.kernels.warp_ssd.SimilarityTerm`."""
        value, gradient = self(displacement)
        length = torch.linalg.vector_norm(gradient, dim=0, keepdim=True, dtype=torch.float64).to(gradient.dtype)
        if diffusion:
            gradient += diffusion * diffusion_gradient(displacement.detach())
        result = torch.cat([gradient, length])
        return value, result if out is None else out.copy_(result)
