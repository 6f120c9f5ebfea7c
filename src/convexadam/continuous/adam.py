"""The Adam optimiser's memory."""

from __future__ import annotations

from typing import final

import torch

from convexadam._typing import Field
from convexadam.kernels.adam import adam_step


@final
class Adam:
    """First and second moment of the gradients seen so far (Kingma and Ba, ICLR 2015; no weight decay)."""

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
