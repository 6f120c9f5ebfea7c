"""Types, devices and finiteness of tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from convexadam._typing import Shaped, Tensor

_WITHOUT_FLOAT64 = ("mps",)
"""Types of devices without float64."""


def finest_float(device: torch.device) -> torch.dtype:
    """Return float64, or float32 for devices without it."""
    return torch.float32 if device.type in _WITHOUT_FLOAT64 else torch.float64


def to_finest_float(values: Tensor, device: torch.device) -> Tensor:
    """Move values to a device in its `finest_float`, without creating float64 on a device that lacks it."""
    if finest_float(device) == torch.float64:
        return values.to(device).to(torch.float64)
    return values.to(torch.float32).to(device)


def working_dtype(values: Tensor) -> torch.dtype:
    """Return the type to compute in: that of the values if it is float32 or float64, else float32."""
    return values.dtype if values.dtype in (torch.float32, torch.float64) else torch.float32


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Move values to a device; float64 becomes float32 on devices without it."""
    target = torch.device(device)
    return to_finest_float(values, target) if values.dtype == torch.float64 else values.to(target)


def all_finite(values: Tensor) -> bool:
    """Whether a floating-point tensor has neither NaN nor Inf, without a temporary of its size."""
    return bool(finiteness(values))


def finiteness(values: Tensor) -> Shaped[Tensor, ""]:
    """Return `all_finite` as a tensor on the device."""
    low, high = torch.aminmax(values.detach())  # both are NaN if any value is
    return low.isfinite() & high.isfinite()


def to_matrix(values: Any) -> np.ndarray:
    """Copy real numbers (lists, an array, a tensor) to a float64 array; TypeError or ValueError for others."""
    array = np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
    if array.dtype.kind == "c":
        raise TypeError("values must be real numbers, got complex ones")
    return np.array(array, dtype=np.float64)
