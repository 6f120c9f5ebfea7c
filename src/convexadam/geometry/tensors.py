"""Types, devices and finiteness of tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from convexadam._arguments import find_obstacle
from convexadam._checks import show
from convexadam._claims import measure_memory
from convexadam._typing import Float, Points, Tensor
from convexadam.errors import ConfigError, InputError, OutOfMemoryError

_WITHOUT_FLOAT64 = ("mps",)
"""Types of devices without float64."""

_LARGEST = 1e30
"""Largest value of an image in float32; sums of its neighbours fit as well."""

_LEAST_CONTRAST = 2.0**-11
"""Range of values, as a share of the largest, of which float32 distinguishes 8192."""


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


def to_float32(values: Tensor) -> Tensor:
    """Convert to float32 without a loss of contrast.

    An offset so large that float32 would round the differences of the values away is subtracted first, and values
    beyond the range of float32 are divided by the largest one. No feature notices.
    """
    if values.dtype not in (torch.float64, torch.int32, torch.int64):
        return values.float()
    low, high = torch.stack(torch.aminmax(values.detach())).tolist()
    largest, span = max(high, -low), high - low
    if 0 < span < largest * _LEAST_CONTRAST:
        values, largest = (values if values.is_floating_point() else values.long()) - low, span
    if values.dtype == torch.float64 and largest > 0 and not 1 / _LARGEST <= largest <= _LARGEST:
        values = values / largest
    return values.float()


def to_device(values: Tensor, device: torch.device | str) -> Tensor:
    """Move values to a device; float64 becomes float32 on devices without it."""
    target = parse_device(device)
    return to_finest_float(values, target) if values.dtype == torch.float64 else values.to(target)


def all_finite(values: Tensor) -> bool:
    """Whether a floating-point tensor has neither NaN nor Inf, without a temporary of its size."""
    if values.is_cuda:  # in fewer operations, with the memory of the norm alone
        return bool(torch.linalg.vector_norm(values.detach(), torch.inf) < torch.inf)  # NaN if any value is
    low, high = torch.aminmax(values.detach())  # both are NaN if any value is
    return bool(torch.maximum(high, -low) < torch.inf)  # in fewer operations than ``isfinite``


def to_matrix(values: Any) -> np.ndarray:
    """Copy real numbers (lists, an array, a tensor) to a float64 array; TypeError or ValueError for others."""
    if isinstance(values, torch.Tensor):
        if obstacle := find_obstacle(values) or ("has no values" if values.device.type == "meta" else ""):
            raise TypeError(f"values must be real numbers, got a tensor that {obstacle}")
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
    array = np.asarray(values)
    if array.dtype.kind not in "iuf":  # truth values are none
        raise TypeError(f"values must be real numbers, got {array.dtype}")
    return np.array(array, dtype=np.float64)


def parse_device(device: Any) -> torch.device:
    """Return a device that torch can use.

    Raises
    ------
    ConfigError
        If torch cannot use it here.
    """
    try:
        target = torch.empty(0, dtype=torch.float32, device=device).device
    except (RuntimeError, AssertionError, TypeError, ValueError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(
            f"device must be one that torch can use here, got {show(str(device))} ({reason}); use 'cpu'"
        ) from error
    return target


def check_tensor(values: Tensor, name: str) -> None:
    """Raise `InputError` unless a tensor is dense and of a real type that torch can compute with."""
    if obstacle := find_obstacle(values):
        raise InputError(
            f"{name} must be a dense tensor of real numbers, got one that {obstacle}; convert it, for example with "
            ".to_dense() or .float()"
        )


def check_values(values: Tensor, name: str) -> None:
    """Raise as `check_tensor`, and for tensors on the meta device, which have no values."""
    check_tensor(values, name)
    if values.device.type == "meta":
        raise InputError(f"{name} must have values, got a tensor on the meta device; pass it on another device")
    if torch._C._functorch.is_batchedtensor(values):
        raise InputError(f"{name} must be one tensor, got all of torch.vmap; call the function for each")
    if type(values).__name__ == "FakeTensor":
        raise InputError(f"{name} must have values, got a FakeTensor; call the function outside of FakeTensorMode")


def parse_points(points: Any, name: str = "points", *, finite: bool = False) -> Points:
    """Return points (a tensor, an array or nested lists) as a tensor ``(n, 3)`` of a floating-point type.

    Raises
    ------
    InputError
        If they are not real numbers of that shape, or not finite if they have to be.
    """
    if isinstance(points, torch.Tensor):
        check_values(points, name)
        values = points
    else:
        try:
            values = torch.from_numpy(to_matrix(points))
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"{name} must be a tensor or array (n, 3) of real numbers, got {show(points)}; pass one row per point"
            ) from error
    if values.dtype == torch.bool:
        raise InputError(f"{name} must be real numbers, got truth values; pass coordinates")
    if values.ndim != 2 or values.shape[1] != 3:
        raise InputError(f"{name} must have shape (n, 3), got {tuple(values.shape)}; pass one row per point")
    if finite and not bool(values.isfinite().all()):
        raise InputError(f"{name} must be finite, got NaN or Inf; remove such rows")
    return values if values.is_floating_point() else to_finest_float(values, values.device)


def check_allocation(shape: tuple[int, ...], what: str) -> None:
    """Raise `OutOfMemoryError` if float32 values of a shape exceed the memory of the machine."""
    size, memory = 4.0 * float(np.prod(shape, dtype=np.float64)), measure_memory()
    if size > memory:
        raise OutOfMemoryError(
            f"{what} must fit into memory, {memory / 1e9:.3g} GB, got {shape}, which takes {size / 1e9:.3g} GB; take a "
            "coarser grid"
        )


def quantiles(values: Float[Tensor, " n"], shares: Sequence[float]) -> list[Float[Tensor, ""]]:
    """Interpolate linearly between the sorted values, as `torch.quantile` does in seven times as many operations.

    There are no NaN among the values. On the CPU, numpy sorts in a thirtieth of the time; and `torch.quantile` refuses
    more than 16 million values.
    """
    if values.device.type == "cpu" and not (values.requires_grad and torch.is_grad_enabled()):
        ordered = torch.from_numpy(np.sort(values.detach().numpy()))
    else:
        ordered = values.sort().values
    found = []
    for share in shares:
        rank = float(torch.tensor(share, dtype=values.dtype, device="cpu") * (len(ordered) - 1))
        low = math.floor(rank)
        found.append(ordered[low].lerp(ordered[math.ceil(rank)], rank - low))
    return found
