"""Pairs of landmarks on a grid of control points: as costs of a search, and as a cost of a displacement."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias, final

import torch

from convexadam._typing import Field, Float, Points, Shaped, Tensor, Triple, Volume
from convexadam.kernels.warp import sample_linear
from convexadam.kernels.window import Window

_CUT = 2.0
"""Standard deviations at which a Gaussian is truncated."""

_FIXED_POINT_ITERATIONS = 20

_SAMPLED_CONTROL_POINTS = 4096
"""About as many are enough to estimate the scale of the costs."""

PerAxisTable: TypeAlias = tuple[Shaped[Tensor, "n a"], Shaped[Tensor, "n b"], Shaped[Tensor, "n d"]]
"""One row for each landmark, along i, j and k."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class LandmarkPairs:
    """Points with the displacements that they should have; float64 on the CPU, because they are few.

    Attributes
    ----------
    points
        ``[n, 3]``, continuous indices of control points.
    displacements
        ``[n, 3]``, in control points.
    weights
        ``[n]``, not negative: weight of each pair relative to the similarity.
    sigma
        Standard deviation of the Gaussian around each point, in control points along each axis; 0 for none.
    robust_scale
        Distance in control points at which the cost of a pair is half its squared distance; infinite for none.
    """

    points: Points
    displacements: Points
    weights: Float[Tensor, " n"]
    sigma: tuple[float, float, float] = (0.0, 0.0, 0.0)
    robust_scale: float = math.inf

    @cached_property
    def mass(self) -> float:
        """Integral of the Gaussian of height 1, with ``sigma`` of at least 1 control point."""
        return math.prod(math.sqrt(2 * math.pi) * max(s, 1.0) for s in self.sigma)

    def interpolation(self, shape: Triple) -> tuple[PerAxisTable, PerAxisTable]:
        """Control points around each landmark along each axis, and their separable weights.

        The product of the weights evaluates a field of ``shape`` at a landmark: linear interpolation of the field
        smoothed by the Gaussian, with edge values outside. Linear fields are evaluated exactly for any ``sigma``.
        """
        (i, in_i), (j, in_j), (k, in_k) = (self._interpolation_along(axis, shape[axis]) for axis in range(3))
        return (i, j, k), (in_i, in_j, in_k)

    def relative_to(self, start: Field) -> LandmarkPairs:
        """Return the displacements ``d`` left to find from a start ``[3, i, j, k]``: ``d + start(x + d) = u``."""
        field, points = start.detach().cpu().double(), self.points
        ends = points + self.displacements
        reached = points
        for _ in range(_FIXED_POINT_ITERATIONS):
            reached = ends - sample_linear(field, reached.T[:, :, None, None])[:, :, 0, 0].T
        return replace(self, displacements=reached - points)

    def _interpolation_along(self, axis: int, n: int) -> tuple[Shaped[Tensor, "n a"], Shaped[Tensor, "n a"]]:
        half = math.ceil(_CUT * self.sigma[axis])
        steps = torch.arange(-half, half + 1, dtype=torch.float64, device="cpu")
        taps = torch.exp(-0.5 * (steps / max(self.sigma[axis], 1e-6)) ** 2)
        taps = torch.nn.functional.pad(taps / taps.sum(), (1, 1))
        position = self.points[:, axis, None]
        below = position.floor()
        weights = (1 - (position - below)) * taps[1:] + (position - below) * taps[:-1]
        indices = below + torch.arange(-half, half + 2, dtype=torch.float64, device="cpu")
        return indices.clamp(0, n - 1).long(), weights


@final
class LandmarkCost:
    """Squared distance of landmarks from their targets: ``1/2 sum_n c_n |u(p_n) - t_n|^2``, with linear ``u(p)``.

    ``c_n = curvature mass w_n``, so that a landmark of weight 1 balances the similarity of the control points around
    it. With a robust scale ``t`` the squared distance ``r`` becomes ``r / (1 + r / t^2)``, as in
    `convexadam.kernels.warp_ssd.ssd`.

    The gradient is spread over the Gaussian of each landmark, as are the updates that follow it. (The gradient of a
    cost of the Gaussian mean of ``u`` would be spread the same way, but where Gaussians overlap its minimum
    overshoots.)

    Parameters
    ----------
    pairs
        On the control points.
    like
        A displacement ``[3, i, j, k]`` with the shape, type and device of those to evaluate.
    curvature
        Mean curvature of the similarity per control point.
    """

    def __init__(self, pairs: LandmarkPairs, like: Field, *, curvature: float) -> None:
        shape: Triple = (like.shape[1], like.shape[2], like.shape[3])
        self._value_weights = _flatten_interpolation(replace(pairs, sigma=(0.0, 0.0, 0.0)), shape, like)
        self._indices, self._weights = _flatten_interpolation(pairs, shape, like)
        self._targets: Float[Tensor, "3 n"] = pairs.displacements.T.to(like)
        self._factors: Float[Tensor, " n"] = (curvature * pairs.mass * pairs.weights).to(like)
        self._robust_scale = pairs.robust_scale

    def __call__(
        self, displacement: Field, *, add_to: Field | None = None, soft_mask: Volume | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return the cost of a displacement and its gradient, as `convexadam.continuous.Diffusion` does."""
        difference, squared, damping = self._distances(displacement)
        value = (self._factors * squared * damping).sum() / 2
        gradient = torch.zeros_like(displacement) if add_to is None else add_to
        self._spread(gradient, self._factors * damping.square() * difference)
        return value, gradient

    def curvature(self, displacement: Field, *, add_to: Volume, soft_mask: Volume | None = None) -> Volume:
        """Add the curvature of each control point, for updates that vary slowly around it."""
        damping = self._distances(displacement)[2]
        self._spread(add_to[None], (self._factors * damping.square())[None])
        return add_to

    def _distances(self, displacement: Field) -> tuple[Float[Tensor, "3 n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Difference of each landmark from its target, its square ``r``, and ``1 / (1 + r / t^2)``."""
        indices, weights = self._value_weights
        difference = (displacement.flatten(1)[:, indices] * weights).sum(-1) - self._targets
        squared = difference.square().sum(0)
        return difference, squared, 1 / (1 + squared / self._robust_scale**2)

    def _spread(self, add_to: Float[Tensor, "c i j k"], values: Float[Tensor, "c n"]) -> None:
        """Add the value of each landmark to the control points around it."""
        total = add_to.contiguous()
        total.view(len(add_to), -1).index_add_(
            1, self._indices.flatten(), (values[:, :, None] * self._weights).flatten(1)
        )
        if total is not add_to:
            add_to.copy_(total)


def add_landmark_costs(costs: Float[Tensor, "n i j k"], window: Window, pairs: LandmarkPairs) -> None:
    """Add ``curvature w_n g_n(x) |d - t_n|^2`` to the costs of control point ``x`` and displacement ``d``, in place.

    ``g_n`` is the Gaussian of a landmark, of height 1, and the curvature is that of the costs
    (`mean_cost_curvature`). The smallest cost that a pair adds to a control point is 0. With a robust scale ``t`` the
    squared distance ``r`` becomes ``r / (1 + r / t^2)``. Values beyond the range of half precision are clamped to it.

    Parameters
    ----------
    costs
        ``[n, i, j, k]`` in the order of ``window.steps``.
    window
        The displacements, in control points.
    pairs
        On the control points.
    """
    shape: Triple = (costs.shape[1], costs.shape[2], costs.shape[3])
    dtype = torch.promote_types(costs.dtype, torch.float32)
    scale = mean_cost_curvature(costs, window)
    steps = torch.from_numpy(window.table).double()
    squared = (steps[None] - pairs.displacements[:, None]).square().sum(2)
    added = scale * pairs.weights[:, None] * squared / (1 + squared / pairs.robust_scale**2)
    largest = torch.finfo(costs.dtype).max
    added = (added - added.amin(1, keepdim=True)).clamp_max_(largest).to(costs.device, dtype)
    indices, weights = pairs.interpolation(shape)
    rows = [
        torch.zeros((len(index), n), dtype=torch.float64, device="cpu").scatter_add_(1, index, weight)
        for n, index, weight in zip(shape, indices, weights, strict=True)
    ]
    for number, cost in enumerate(added):
        first = [int(index[number, 0]) for index in indices]
        i, j, k = (slice(f, int(index[number, -1]) + 1) for f, index in zip(first, indices, strict=True))
        in_i, in_j, in_k = rows[0][number, i], rows[1][number, j], rows[2][number, k]
        height = (pairs.mass * in_i[:, None, None] * in_j[:, None] * in_k).clamp_max_(1).to(added)
        block = costs[:, i, j, k]
        block.copy_(torch.addcmul(block.to(dtype), cost[:, None, None, None], height).clamp_max_(largest))


def mean_cost_curvature(costs: Float[Tensor, "n i j k"], window: Window) -> float:
    """Cost per squared control point: mean minus smallest cost, over the mean squared displacement of the window.

    Averaged over a sample of the control points whose costs differ at all; 0 if there are none.
    """
    flat = costs.flatten(1)
    sample = flat[:, :: max(1, flat.shape[1] // _SAMPLED_CONTROL_POINTS)]
    sample = sample.to(torch.promote_types(costs.dtype, torch.float32))
    excess = sample.mean(0) - sample.amin(0)
    squared = float((window.table**2).sum(1).mean())
    return float(excess.sum() / (excess > 0).sum().clamp_min(1)) / squared if squared > 0 else 0.0


def _flatten_interpolation(
    pairs: LandmarkPairs, shape: Triple, like: Tensor
) -> tuple[Shaped[Tensor, "n m"], Float[Tensor, "n m"]]:
    """Flat indices of the control points around each landmark, and their weights."""
    (i, j, k), (in_i, in_j, in_k) = pairs.interpolation(shape)
    indices = (i[:, :, None, None] * shape[1] + j[:, None, :, None]) * shape[2] + k[:, None, None, :]
    weights = in_i[:, :, None, None] * in_j[:, None, :, None] * in_k[:, None, None, :]
    return indices.flatten(1).to(like.device), weights.flatten(1).to(like)
