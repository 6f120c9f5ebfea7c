"""What tests of parametrisations share: steps without an optimiser, and smoothing by naive loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import torch


class Plain:
    """Gradient descent with steps of one gradient."""

    def descend(self, variable: torch.Tensor, gradient: torch.Tensor, *, accumulate: bool = True) -> None:
        variable.copy_((variable if accumulate else 0) - gradient)


def smoothed(field: np.ndarray, smoothing: Any, evidence: torch.Tensor | None = None) -> np.ndarray:
    shares = None if evidence is None else evidence.numpy()
    return field if smoothing is None else oracles.smooth(field, smoothing.taps(), shares)
