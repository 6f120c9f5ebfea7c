"""Adam, as a value and as the memory of one minimisation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_number
from convexadam._typing import Field, Float, Tensor
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.objective import is_recordable
from convexadam.continuous.protocols import DisplacementState, Objective
from convexadam.continuous.smoothing import Smoothing
from convexadam.kernels.adam import adam_step
from convexadam.kernels.recording import repeat


@final
@dataclass(frozen=True, kw_only=True)
class Adam:
    """First-order steps of about one length wherever the gradient is steady (Kingma and Ba, ICLR 2015).

    Attributes
    ----------
    learning_rate
        Typical update of a control point, in control points, before smoothing.

    Raises
    ------
    ConfigError
        If the learning rate is not positive.

    Examples
    --------
    >>> from convexadam.continuous import Adam, Refinement
    >>> Refinement(optimiser=Adam(learning_rate=0.5)).optimiser
    Adam(learning_rate=0.5)
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        check_number(self.learning_rate, "learning_rate", above=True)

    @check_arguments
    def minimise(
        self,
        objective: Objective,
        state: DisplacementState,
        convergence: Convergence,
        smoothing: Smoothing | None = None,
    ) -> Iterator[int]:
        """Move until convergence; see `convexadam.continuous.Optimiser`. The state smooths the updates itself."""
        record = is_recordable(objective, state, convergence)
        moments = Moments(
            state.displacement,
            learning_rate=self.learning_rate,
            eps=objective.least_gradient(state.displacement),
            counted_on_device=record,
        )
        gradient = torch.empty_like(state.displacement)

        def step() -> None:
            if convergence.due:
                convergence.record(objective(state.displacement, out=gradient)[0])
            else:
                objective.gradient(state.displacement, out=gradient)
            state.move(gradient, moments)

        yield from repeat(step, convergence, record_on=gradient.device if record else None)


@final
class Moments:
    """First and second moment of the gradients seen so far; no weight decay."""

    def __init__(
        self,
        like: Field,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float | Float[Tensor, ""] = 1e-8,
        counted_on_device: bool = False,
    ) -> None:
        self._first = torch.zeros_like(like, memory_format=torch.contiguous_format)
        self._second = torch.zeros_like(self._first)
        # a recorded step has to count by itself: see convexadam.kernels.recording
        self._steps = torch.zeros((), dtype=torch.int64, device=like.device) if counted_on_device else 0
        self._learning_rate, self._betas, self._eps = learning_rate, betas, eps

    def update(self, variable: Field, gradient: Field, *, accumulate: bool = True) -> None:
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
