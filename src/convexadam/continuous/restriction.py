"""Motion along chosen axes only, or stiffer along some: an objective and a state whose components have weights."""

from __future__ import annotations

from typing import final

import torch

from convexadam._typing import AxisWeights, Field, Float, Shaped, Tensor, Volume
from convexadam.continuous.protocols import DisplacementState, Objective, UpdateRule
from convexadam.kernels._device import send_constant


def restrict(
    objective: Objective, state: DisplacementState, weights: AxisWeights
) -> tuple[Objective, DisplacementState]:
    """Return both so that updates along each axis are multiplied by a weight; unchanged if all are 1.

    Along an axis of weight 0 the gradient is 0, and so is every update. Second-order updates are proportional to the
    gradient. First-order rules such as Adam divide it by its size, so that what they return is weighted as well.
    """
    if all(weight == 1 for weight in weights):
        return objective, state
    scale = send_constant(torch.tensor(weights, dtype=torch.float64, device="cpu"), state.displacement).reshape(
        3, 1, 1, 1
    )
    restricted = RestrictedObjective(objective, scale)
    return restricted, RestrictedState(state, scale) if any(0 < weight < 1 for weight in weights) else state


@final
class RestrictedObjective:
    """An objective whose gradient is multiplied by a weight for each axis."""

    def __init__(self, objective: Objective, scale: Float[Tensor, "3 1 1 1"]) -> None:
        self._objective, self._scale = objective, scale

    @property
    def compared(self) -> tuple[Tensor, Tensor, Volume | None, Volume | None]:
        """See `convexadam.continuous.Objective`."""
        return self._objective.compared

    @property
    def is_recordable(self) -> bool:
        """See `convexadam.continuous.Objective`."""
        return self._objective.is_recordable

    def __call__(self, displacement: Field, *, out: Field) -> tuple[Float[Tensor, ""], Field]:
        """Return the value, and the weighted gradient in ``out``."""
        value, gradient = self._objective(displacement, out=out)
        return value, gradient.mul_(self._scale)

    def gradient(self, displacement: Field, *, out: Field) -> Field:
        """Return the weighted gradient, in ``out``."""
        return self._objective.gradient(displacement, out=out).mul_(self._scale)

    def curvature(
        self, displacement: Field, *, out: Float[Tensor, "4 i j k"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "4 i j k"], Float[Tensor, ""]]:
        """Return what `convexadam.continuous.Objective` says, with a weighted gradient."""
        value, derivatives, mean = self._objective.curvature(displacement, out=out)
        derivatives[:3].mul_(self._scale)
        return value, derivatives, mean

    def least_gradient(self, displacement: Field) -> float | Float[Tensor, ""]:
        """See `convexadam.continuous.Objective`."""
        return self._objective.least_gradient(displacement)


@final
class RestrictedState:
    """A displacement whose first-order updates are multiplied by a weight for each axis."""

    def __init__(self, state: DisplacementState, scale: Float[Tensor, "3 1 1 1"]) -> None:
        self.inner, self._scale = state, scale

    @property
    def displacement(self) -> Field:
        """See `convexadam.continuous.DisplacementState`."""
        return self.inner.displacement

    @property
    def longest(self) -> float:
        """See `convexadam.continuous.DisplacementState`."""
        return self.inner.longest

    def move(self, gradient: Field, rule: UpdateRule) -> None:
        """See `convexadam.continuous.DisplacementState`."""
        self.inner.move(gradient, _WeightedRule(rule, self._scale))

    def propose(self, step: Field) -> Field:
        """See `convexadam.continuous.DisplacementState`; the step is that of a weighted gradient already."""
        return self.inner.propose(step)

    def accept(self, condition: Shaped[Tensor, ""] | None = None) -> None:
        """See `convexadam.continuous.DisplacementState`."""
        self.inner.accept(condition)


class _WeightedRule:
    """An update rule whose steps are multiplied by a weight for each axis."""

    def __init__(self, rule: UpdateRule, scale: Float[Tensor, "3 1 1 1"]) -> None:
        self._rule, self._scale = rule, scale

    def update(self, variable: Field, gradient: Field, *, accumulate: bool = True) -> None:
        step = torch.empty_like(variable) if accumulate else variable
        self._rule.update(step, gradient, accumulate=False)
        step.mul_(self._scale)
        if accumulate:
            variable.add_(step)
