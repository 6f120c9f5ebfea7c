"""Adam, as a value and as the memory of one minimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from convexadam._axes import checked_number
from convexadam._typing import Field
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.parametrisation import Motion
from convexadam.continuous.problem import Problem
from convexadam.continuous.smoothing import Smoothing
from convexadam.kernels.adam import adam_step
from convexadam.kernels.recording import recordable, repeat


@final
@dataclass(frozen=True, kw_only=True)
class Adam:
    """First-order steps of about one length wherever the gradient is steady (Kingma and Ba, ICLR 2015).

    Attributes
    ----------
    learning_rate
        Typical step of a node, in nodes, before smoothing.

    Raises
    ------
    ConfigError
        If the rate is not positive.
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        checked_number(self.learning_rate, "learning_rate", above=True)

    def minimise(
        self, problem: Problem, motion: Motion, convergence: Convergence, smoothing: Smoothing | None = None
    ) -> None:
        """Move until convergence; see `LevenbergMarquardt.minimise`."""
        record = not convergence.watched and recordable(*problem.compared)
        moments = Moments(
            motion.displacement,
            learning_rate=self.learning_rate,
            eps=problem.least_gradient(motion.displacement),
            counted_on_device=record,
        )
        gradient = torch.empty_like(motion.displacement)

        def step() -> None:
            problem.gradient(motion.displacement, out=gradient)
            motion.move(gradient, moments)

        if not convergence.watched:
            for times in convergence.stretches():
                repeat(step, times, record_on=gradient.device if record else None)
            return
        for _ in convergence:
            if convergence.due:
                convergence.saw(problem(motion.displacement, out=gradient)[0])
                motion.move(gradient, moments)
            else:
                step()


@final
class Moments:
    """First and second moment of the gradients seen so far; no weight decay."""

    def __init__(
        self,
        like: Field,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        counted_on_device: bool = False,
    ) -> None:
        self._first = torch.zeros_like(like, memory_format=torch.contiguous_format)
        self._second = torch.zeros_like(self._first)
        # a recorded step has to count by itself: see convexadam.kernels.recording
        self._steps = torch.zeros((), dtype=torch.int64, device=like.device) if counted_on_device else 0
        self._learning_rate, self._betas, self._eps = learning_rate, betas, eps

    def descend(self, variable: Field, gradient: Field, *, accumulate: bool = True) -> None:
        """Move ``variable``, in place, by one step against the gradient; or replace it by the step alone."""
        self._steps += 1
        adam_step(
            variable,
            gradient,
            self._first,
            self._second,
            step=self._steps,
            learning_rate=self._learning_rate,
            eps=self._eps,
            betas=self._betas,
            accumulate=accumulate,
        )
