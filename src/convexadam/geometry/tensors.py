"""What tensors can hold, and where."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from convexadam._typing import Tensor

_WITHOUT_FLOAT64 = ("mps",)
"""Kinds of devices that know no float64."""


def finest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 where the device has none."""
    return torch.float32 if device.type in _WITHOUT_FLOAT64 else torch.float64


def as_finest(values: Tensor, device: torch.device) -> Tensor:
    """Values on a device in its `finest_float`; neither device ever holds a type that it does not know."""
    if finest_float(device) == torch.float64:
        return values.to(device).to(torch.float64)
    return values.to(torch.float32).to(device)


def computing_float(values: Tensor) -> torch.dtype:
    """Return the type to compute in: that of the values where it is float32 or float64, else float32."""
    return values.dtype if values.dtype in (torch.float32, torch.float64) else torch.float32


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Values on a device, in their own type; float64 becomes float32 where the device has none."""
    target = torch.device(device)
    return as_finest(values, target) if values.dtype == torch.float64 else values.to(target)


def all_finite(values: Tensor) -> bool:
    """Whether a floating-point tensor holds neither NaN nor Inf; nothing of its size is made on the way."""
    low, high = torch.aminmax(values.detach())  # either is NaN where one value is
    return bool(low.isfinite() & high.isfinite())


def as_matrix(values: Any) -> np.ndarray:
    """Copy of real numbers (lists, an array, a tensor) as a float64 array; TypeError or ValueError for others."""
    found = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    if found.dtype.kind == "c":
        raise TypeError("complex numbers")
    return np.array(found, dtype=np.float64)
