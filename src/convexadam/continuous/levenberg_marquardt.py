"""Levenberg-Marquardt with one damping for all control points, and no memory of earlier gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_number
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.objective import is_recordable
from convexadam.continuous.protocols import DisplacementState, Objective
from convexadam.continuous.smoothing import Smoothing
from convexadam.kernels.damped_step import damped_step, judge_step
from convexadam.kernels.recording import repeat
from convexadam.kernels.smooth import smooth


@final
@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt:
    """Second-order updates ``v = -B(g) / (B(h) + damping mean h)``, accepted if they lower the value.

    ``g`` is the gradient and ``h`` the mean curvature of each control point, a third of the trace of its Gauss-Newton
    block; smoothed by the same window ``B``, the block is close to that multiple of the identity. Damping follows the
    ratio of actual to predicted decrease, and an update that raises the value is rejected. The value is that before
    total smoothing.

    Attributes
    ----------
    damping
        Initial and smallest damping, relative to the mean curvature of the similarity: control points with less
        curvature than that move little by themselves.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    After "Factored Levenberg-Marquardt for diffeomorphic registration", arXiv 2603.19371, with a window before the
    division (Lucas and Kanade, IJCAI 1981) in place of smoothing after it.

    Examples
    --------
    >>> from convexadam.continuous import LevenbergMarquardt, Refinement
    >>> Refinement(optimiser=LevenbergMarquardt(damping=0.1)).optimiser
    LevenbergMarquardt(damping=0.1)
    """

    damping: float = 0.1

    def __post_init__(self) -> None:
        check_number(self.damping, "damping", above=True)

    @check_arguments
    def minimise(
        self,
        objective: Objective,
        state: DisplacementState,
        convergence: Convergence,
        smoothing: Smoothing | None,
    ) -> Iterator[int]:
        """Move until convergence; see `convexadam.continuous.Optimiser`.

        ``smoothing`` is the window ``B``, and a rejected step counts as an iteration.
        """
        record = is_recordable(objective, state, convergence)
        taps = (1.0,) if smoothing is None else smoothing.taps()
        # gradient and curvature share one tensor, which the next value overwrites: nothing else is kept per step
        derivatives = torch.empty_like(state.displacement[:1]).expand(4, -1, -1, -1).contiguous()
        smoothed = torch.empty_like(derivatives)
        # numbers that decide stay on the device, where a recorded step reads and writes them
        damping = torch.full((), self.damping, dtype=torch.float64, device=derivatives.device)
        is_flat = False

        def step() -> None:
            nonlocal is_flat
            value, slopes, mean = objective.curvature(state.displacement, out=derivatives)
            if convergence.due:
                convergence.record(value)
            if not mean.is_cuda and mean <= 0:  # no slope anywhere: any step would be arbitrary
                is_flat = True
                return
            means = smooth(slopes, taps, out=smoothed)
            change, predicted = damped_step(slopes, means, damping=damping, scale=mean, longest=state.longest)
            new_value, _ = objective(state.propose(change), out=derivatives[:3])
            state.accept(judge_step(damping, value, new_value, predicted, mean, least=self.damping))

        for iteration in repeat(step, convergence, record_on=derivatives.device if record else None):
            if is_flat:
                return
            yield iteration
