"""Corresponding points, on the nodes of a grid."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias, final

import torch

from convexadam._typing import Field, Float, Points, Shaped, Tensor, Triple
from convexadam.kernels.warp import sample_linear

_CUT = 2.0
"""Standard deviations at which a Gaussian ends."""

_ROUNDS = 20

Along: TypeAlias = tuple[Shaped[Tensor, "n a"], Shaped[Tensor, "n b"], Shaped[Tensor, "n d"]]
"""A list for each point, along i, j and k."""


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """Points and the displacements that they should have; float64 on the CPU, since they are few.

    Attributes
    ----------
    points
        ``[n, 3]``, continuous node indices.
    displacements
        ``[n, 3]``, in nodes.
    weights
        ``[n]``, not negative: how much the nodes at each point heed it, in multiples of what they heed the image.
    sigma
        Standard deviation of the Gaussian that spreads each point, in nodes along each axis; 0 for none.
    outlier
        Distance in nodes at which a pair costs half as much as it would without outliers; infinite for no limit.
    """

    points: Points
    displacements: Points
    weights: Float[Tensor, " n"]
    sigma: tuple[float, float, float] = (0.0, 0.0, 0.0)
    outlier: float = math.inf

    @cached_property
    def mass(self) -> float:
        """Nodes that a point speaks for: the integral of its Gaussian of height 1, taken to be at least 1 node wide."""
        return math.prod(math.sqrt(2 * math.pi) * max(s, 1.0) for s in self.sigma)

    def around(self, shape: Triple) -> tuple[Along, Along]:
        """Nodes around each point along each axis, and their shares in its value.

        The product of the shares reads a field of ``shape`` at a point: linear interpolation of what the Gaussian makes
        of it, with the edge value beyond the edge. It reads linear fields exactly, whatever the Gaussian.
        """
        found = [self._along(axis, shape[axis]) for axis in range(3)]
        (i, in_i), (j, in_j), (k, in_k) = found
        return (i, j, k), (in_i, in_j, in_k)

    def after(self, start: Field) -> Pairs:
        """Return what remains to be searched from a start ``[3, i, j, k]``: ``d`` with ``d + start(x + d) = u``."""
        field, points = start.detach().cpu().double(), self.points
        ends = points + self.displacements
        reached = points
        for _ in range(_ROUNDS):
            reached = ends - sample_linear(field, reached.T[:, :, None, None])[:, :, 0, 0].T
        return replace(self, displacements=reached - points)

    def _along(self, axis: int, n: int) -> tuple[Shaped[Tensor, "n a"], Shaped[Tensor, "n a"]]:
        half = math.ceil(_CUT * self.sigma[axis])
        steps = torch.arange(-half, half + 1, dtype=torch.float64, device="cpu")
        taps = torch.exp(-0.5 * (steps / max(self.sigma[axis], 1e-6)) ** 2)
        taps = taps / taps.sum()
        at = self.points[:, axis, None]
        below = at.floor()
        taps = torch.nn.functional.pad(taps, (1, 1))
        shares = (1 - (at - below)) * taps[1:] + (at - below) * taps[:-1]
        nodes = below + torch.arange(-half, half + 2, dtype=torch.float64, device="cpu")
        return nodes.clamp(0, n - 1).long(), shares
