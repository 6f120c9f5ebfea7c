"""What differs between a CPU and a GPU besides the kernels: how much is in flight, and what waits."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Mapping

import numpy as np
import torch

from convexadam._typing import Float, Shaped, Tensor


def send(values: Shaped[Tensor, ...], like: Tensor) -> Tensor:
    """Copy a few numbers to the device and type of a tensor; a GPU is not waited for, also not from the CPU."""
    values = values.to(like.dtype).contiguous()
    if like.device.type != "cuda" or values.device.type != "cpu":
        return values.to(like.device)
    if torch.cuda.is_current_stream_capturing():  # a replay would copy from memory that is another's by then
        raise RuntimeError("numbers must be on the device within a recording, got some of the host; use send_constant")
    return values.pin_memory().to(like.device, non_blocking=True)


def send_constant(values: Shaped[Tensor, ...], like: Tensor) -> Tensor:
    """Do as `send` with numbers that depend on settings and shapes alone; a GPU keeps them, and they must not change.

    They are never released, because recordings use them.
    """
    values = values.to(like.dtype).contiguous()
    if like.device.type != "cuda" or values.device.type != "cpu":
        return values.to(like.device)
    kept = _send_once(values.numpy().tobytes(), values.numpy().dtype.str, like.device)
    return kept.reshape(values.shape)


@functools.cache
def _send_once(values: bytes, dtype: str, device: torch.device) -> Tensor:
    sent = torch.from_numpy(np.frombuffer(values, dtype).copy())
    return send(sent, torch.empty(0, dtype=sent.dtype, device=device))


def allocate(*shape: int, like: Tensor) -> Float[Tensor, ...]:
    """Allocate a large result of the device and type of a tensor.

    On the CPU with numpy, which requests huge pages from the system: half the time of torch until all is written.
    """
    if like.device.type == "cpu" and like.dtype == torch.float32:
        return torch.from_numpy(np.empty(shape, np.float32))
    return like.new_empty(shape)


def chunk_size(like: Tensor, *, cpu: int, gpu: int) -> int:
    """Return how many voxels to process at a time: few stay in the cache of a CPU, many keep a GPU busy."""
    return gpu if like.is_cuda else cpu


def release_memory() -> None:
    """Ask the C library to return freed memory to the system; glibc keeps blocks of up to 32 MB.

    Otherwise the large blocks of one stage would add to the smaller ones of the stage before.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
        if trim is not None:
            trim(0)


def read_numbers(numbers: Mapping[str, Tensor]) -> dict[str, float]:
    """Return 0-dimensional tensors of one device as numbers; a GPU is waited for once."""
    first, *others = (value.detach() for value in numbers.values())
    values = torch.stack([first.double(), *others]).tolist()  # which converts the others
    return dict(zip(numbers, values, strict=True))
