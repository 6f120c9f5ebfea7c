"""The Adam update on a plain tensor."""

from __future__ import annotations

from typing import final

import torch

from convexadam._typing import Field


@final
class Adam:
    """First and second moment of the gradients seen so far (Kingma and Ba, ICLR 2015; no weight decay)."""

    def __init__(
        self, like: Field, *, learning_rate: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        self._first = torch.zeros_like(like)
        self._second = torch.zeros_like(like)
        self._steps = 0
        self._learning_rate, self._betas, self._eps = learning_rate, betas, eps

    def direction(self, gradient: Field) -> Field:
        """Return the step to *subtract*: learning rate times bias-corrected ``m / (sqrt(v) + eps)``."""
        first, second = self._betas
        self._steps += 1
        self._first.mul_(first).add_(gradient, alpha=1 - first)
        self._second.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = (self._second / (1 - second**self._steps)).sqrt_().add_(self._eps)
        return (self._first / scale).mul_(self._learning_rate / (1 - first**self._steps))
