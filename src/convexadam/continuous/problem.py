"""What is minimised on one level: a similarity, and what the displacement costs by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, final, runtime_checkable

from convexadam._typing import Channels, Field, Float, Tensor, Volume
from convexadam.continuous.regularisers import Diffusion
from convexadam.kernels.diffusion import diffusion
from convexadam.kernels.warp_ssd import Comparison

_RESOLUTION = 0.01
"""Nodes. Adam takes gradients that stand for less than this for noise instead of scaling them up to full steps."""


@runtime_checkable
class Cost(Protocol):
    """What a displacement costs by itself: a regulariser, or a function of yours."""

    def __call__(
        self, displacement: Field, *, onto: Field | None = None, soft_mask: Volume | None = None
    ) -> tuple[Float[Tensor, ""], Field]:
        """Return the cost of a displacement ``[3, i, j, k]`` in nodes, and its gradient, added to ``onto``."""
        ...


@final
class Problem:
    """Value, gradient and curvature of similarity plus regularisers.

    Parameters
    ----------
    comparison
        The similarity, lower is better.
    costs
        Regularisers.
    compared
        What is compared, as it came: both feature maps and both weights.
    soft_mask
        Where volume is to be kept, ``[i, j, k]`` in [0, 1].
    """

    def __init__(
        self,
        comparison: Comparison,
        costs: Sequence[Cost],
        compared: tuple[Channels, Channels, Volume | None, Volume | None],
        *,
        soft_mask: Volume | None = None,
    ) -> None:
        self.compared = compared
        self._comparison, self._soft_mask = comparison, soft_mask
        # kernels of similarities take the gradient of first differences along, nearly for free
        self._diffusion = sum((cost.weight for cost in costs if isinstance(cost, Diffusion)), 0.0)
        self._others = [cost for cost in costs if not isinstance(cost, Diffusion)]

    def __call__(self, displacement: Field, *, out: Field) -> tuple[float, Field]:
        """Return the value, and the gradient in ``out``."""
        value, gradient = self._comparison(displacement, diffusion=self._diffusion, out=out)
        return float(value) + self._own(displacement, gradient), gradient

    def gradient(self, displacement: Field, *, out: Field) -> Field:
        """Return the gradient, in ``out``."""
        gradient = self._comparison.gradient(displacement, diffusion=self._diffusion, out=out)
        for cost in self._others:
            cost(displacement, onto=gradient, soft_mask=self._soft_mask)
        return gradient

    def curvature(
        self, displacement: Field, *, out: Float[Tensor, "4 i j k"]
    ) -> tuple[float, Float[Tensor, "4 i j k"]]:
        """Return the value, and in ``out`` the gradient and the mean curvature of the similarity."""
        value, found = self._comparison.curvature(displacement, diffusion=self._diffusion, out=out)
        return float(value) + self._own(displacement, found[:3]), found

    def least_gradient(self, displacement: Field) -> float:
        """Gradient that an error of `_RESOLUTION` nodes causes, at the mean curvature under a displacement.

        A fixed number, as usual for Adam's ``eps``, would mean another length for each kind of volume.
        """
        curved = self._comparison.curvature(displacement)[1][3]
        mean = float(curved.sum() / (curved > 0).sum().clamp_min(1))
        return _RESOLUTION * mean if mean > 0 else 1.0

    def _own(self, displacement: Field, gradient: Field) -> float:
        """Cost of the displacement by itself; its gradient is added, but for that of first differences."""
        total = 0.0
        if self._diffusion:
            total += float(diffusion(displacement, weight=self._diffusion)[0])
        for cost in self._others:
            total += float(cost(displacement, onto=gradient, soft_mask=self._soft_mask)[0])
        return total
