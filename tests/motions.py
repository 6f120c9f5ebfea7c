"""Helpers of the tests of parametrisations: an update rule without memory, and smoothing by naive loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import torch


class GradientDescent:
    """Steps of minus the gradient."""

    def update(self, variable: torch.Tensor, gradient: torch.Tensor, *, accumulate: bool = True) -> None:
        variable.copy_((variable if accumulate else 0) - gradient)


def smooth(field: np.ndarray, smoothing: Any, weight: torch.Tensor | None = None) -> np.ndarray:
    """Smooth a displacement; ``None`` returns it unchanged."""
    weights = None if weight is None else weight.numpy()
    return field if smoothing is None else oracles.smooth(field, smoothing.taps(), weights)
