"""Gauss-Newton steps of constant damping, all of which are taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from convexadam._checks import check_number
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.objective import is_recordable
from convexadam.continuous.protocols import DisplacementState, Objective
from convexadam.continuous.smoothing import Smoothing
from convexadam.kernels.damped_step import damped_step, momentum_step
from convexadam.kernels.recording import repeat
from convexadam.kernels.smooth import smooth

_MOST_MOMENTUM = 0.99
"""Of which an update that is repeated for ever would become a hundred times as long."""


@final
@dataclass(frozen=True, kw_only=True)
class GaussNewton:
    """Second-order updates ``v <- momentum v - B(g) / (B(h) + damping mean h)``, none of which is tested.

    ``g``, ``h`` and ``B`` are those of `LevenbergMarquardt`, which evaluates the similarity twice in each step: once
    for the update, and once to test it. With composed and limited updates hardly any is rejected, and this takes half
    of the time.

    Attributes
    ----------
    damping
        Relative to the mean curvature of the similarity: control points with less curvature than that move little by
        themselves.
    momentum
        Share of an update that is repeated in the next one, from 0 to 0.99: updates that agree get ahead faster, and
        those that are in turn too far and too short settle.

    Raises
    ------
    ConfigError
        If ``damping`` is not positive, or ``momentum`` is above 0.99 or negative.

    Notes
    -----
    Momentum is the heavy ball of Polyak, USSR Computational Mathematics and Mathematical Physics 1964.

    Examples
    --------
    >>> from convexadam.continuous import GaussNewton, Refinement
    >>> Refinement(optimiser=GaussNewton(damping=0.2)).optimiser.damping
    0.2
    """

    damping: float = 0.1
    momentum: float = 0.0

    def __post_init__(self) -> None:
        check_number(self.damping, "damping", above=True)
        check_number(self.momentum, "momentum", most=_MOST_MOMENTUM)

    def minimise(
        self,
        objective: Objective,
        state: DisplacementState,
        convergence: Convergence,
        smoothing: Smoothing | None,
    ) -> Iterator[int]:
        """Move until convergence; see `convexadam.continuous.Optimiser`. ``smoothing`` is the window ``B``."""
        record = is_recordable(objective, state, convergence)
        taps = (1.0,) if smoothing is None else smoothing.taps()
        derivatives = state.displacement.new_empty((4, *state.displacement.shape[1:]))
        smoothed = torch.empty_like(derivatives)
        velocity = torch.zeros_like(derivatives[: 3 if self.momentum else 0])
        is_flat = False

        def step() -> None:
            nonlocal is_flat
            value, slopes, mean = objective.curvature(state.displacement, out=derivatives)
            if convergence.due:
                convergence.record(value)
            if not mean.is_cuda and mean <= 0:  # no slope anywhere: any step would be arbitrary
                is_flat = True
                return
            means = smooth(slopes, taps, out=smoothed, spare=bool(self.momentum))  # without, the step needs both
            if self.momentum:
                change, condition = momentum_step(
                    slopes,
                    means,
                    velocity,
                    momentum=self.momentum,
                    damping=self.damping,
                    scale=mean,
                    longest=state.longest,
                )
            else:
                change, _ = damped_step(slopes, means, damping=self.damping, scale=mean, longest=state.longest)
                condition = mean > 0
            state.propose(change)
            state.accept(condition if mean.is_cuda else None)

        for iteration in repeat(step, convergence, record_on=derivatives.device if record else None):
            if is_flat:
                return
            yield iteration
