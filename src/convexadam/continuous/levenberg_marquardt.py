"""Levenberg-Marquardt with one number of damping, and nothing remembered for single nodes."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import final

import torch

from convexadam._axes import checked_count, checked_number
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.parametrisation import Motion
from convexadam.continuous.problem import Problem
from convexadam.continuous.smoothing import Smoothing
from convexadam.kernels.damped_step import damped_step
from convexadam.kernels.smooth import smooth

_GOOD, _POOR = 0.75, 0.25
"""Share of the predicted decrease above which damping falls, and below which it rises."""

_FALL, _RISE, _MOST = 0.5, 3.0, 1e6


@final
@dataclass(frozen=True, kw_only=True)
class LevenbergMarquardt:
    """Second-order steps ``v = -B(g) / (B(h) + damping mean h)``, accepted or rejected by what they gain.

    ``g`` is the gradient and ``h`` the mean curvature of each node, a third of the trace of its Gauss-Newton block:
    smoothed by the same window ``B``, the block is near that multiple of the identity. Damping follows the ratio of
    actual to predicted decrease, and a step that raises the value is rejected, but for a chance of
    ``exp(-rise / (temperature value))``. The value is judged before the field is smoothed as a whole.

    Attributes
    ----------
    damping
        At the start and at least, as a share of the similarity's mean curvature: what has less than that moves little
        by itself.
    temperature
        Relative rise that one step in ``e`` may bring all the same; 0 for none.
    seed
        Of that chance.

    Raises
    ------
    ConfigError
        If a setting is out of range.

    Notes
    -----
    After "Factored Levenberg-Marquardt for diffeomorphic registration", arXiv 2603.19371, with a window before the
    division (Lucas and Kanade, IJCAI 1981) in place of smoothing after it.
    """

    damping: float = 0.1
    temperature: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        checked_number(self.damping, "damping", above=True)
        checked_number(self.temperature, "temperature")
        checked_count(self.seed, "seed")

    def minimise(self, problem: Problem, motion: Motion, convergence: Convergence, smoothing: Smoothing | None) -> None:
        """Move until convergence.

        Parameters
        ----------
        problem
            What to minimise.
        motion
            The displacement, from its start.
        convergence
            Counts iterations; a rejected step is one.
        smoothing
            The window ``B``; ``None`` takes each node by itself.
        """
        chance, damping = random.Random(self.seed), self.damping
        taps = (1.0,) if smoothing is None else smoothing.taps()
        found = torch.empty_like(motion.displacement[:1]).expand(4, -1, -1, -1).contiguous()
        means = torch.empty_like(found)
        for _ in convergence:
            value, found, mean = problem.curvature(motion.displacement, out=found)
            if convergence.due:
                convergence.saw(value)
            if mean <= 0:  # no slope anywhere: nothing tells where to move
                return
            means = smooth(found, taps, out=means)
            step, predicted = damped_step(found, means, damping=damping * mean, longest=motion.longest)
            moved, _ = problem(motion.tried(step), out=found[:3])
            gain = value - moved
            if gain >= 0 or self._by_chance(-gain / abs(value), chance):
                motion.keep()
            damping *= _FALL if gain > _GOOD * predicted else _RISE if gain < _POOR * predicted else 1.0
            damping = min(max(damping, self.damping), _MOST)

    def _by_chance(self, rise: float, chance: random.Random) -> bool:
        return self.temperature > 0 and chance.random() < math.exp(-rise / self.temperature)
