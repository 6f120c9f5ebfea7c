"""Which implementation of an operation runs."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Literal, TypeAlias, get_args

import torch

from convexadam.errors import ConfigError

Backend: TypeAlias = Literal["auto", "reference", "cpu", "triton"]
"""``"reference"`` is torch, on any device and in any precision; ``"cpu"`` is numba, ``"triton"`` runs on GPUs."""

_requested: ContextVar[Backend] = ContextVar("convexadam_backend", default="auto")


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Choose the implementation of all operations within a ``with`` block.

    ``"auto"`` takes compiled kernels for float32 on the CPU and on CUDA devices, and torch for everything else: other
    devices, other precisions, and wherever a gradient has to flow through. Any other choice holds or raises.

    Raises
    ------
    ConfigError
        If there is no such backend; within the block, if an operation cannot run on it.

    Examples
    --------
    >>> from convexadam import use_backend
    >>> with use_backend("reference"):
    ...     pass  # register(fixed, moving)
    """
    token = _requested.set(checked_backend(backend))
    try:
        yield
    finally:
        _requested.reset(token)


@contextmanager
def compiled_for_float32(values: torch.Tensor) -> Iterator[None]:
    """Let what was asked for run on float32 values, and torch on all others: work that any type of data may ask for."""
    with use_backend(requested_backend() if values.dtype == torch.float32 else "reference"):
        yield


def checked_backend(backend: Backend) -> Backend:
    """Return the name of a backend, or raise if there is none of that name."""
    if backend not in get_args(Backend):
        raise ConfigError(f"the backend is one of {', '.join(get_args(Backend))}, but {backend!r} came")
    return backend


def requested_backend() -> Backend:
    """Return what `use_backend` asked for."""
    return _requested.get()


def backend_for(*tensors: torch.Tensor | None) -> Literal["reference", "cpu", "triton"]:
    """Return the implementation that runs for these tensors.

    Raises
    ------
    ConfigError
        If the one that was asked for cannot.
    """
    given = [t for t in tensors if t is not None]
    backend = _requested.get()
    if backend == "reference":
        return "reference"
    if backend == "auto":
        kernel: Literal["cpu", "triton"] | None = {"cpu": "cpu", "cuda": "triton"}.get(given[0].device.type)  # type: ignore[assignment]
        return kernel if kernel is not None and not _hindrance(kernel, given) else "reference"
    if hindrance := _hindrance(backend, given):
        raise ConfigError(f"the backend {backend!r} was asked for, but {hindrance}; use 'auto' or 'reference'")
    return backend


def implementation(operation: str, *tensors: torch.Tensor | None) -> ModuleType:
    """Return the module that implements an operation (the name of its package) for these tensors."""
    return importlib.import_module(f"{operation}.{backend_for(*tensors)}")


def _hindrance(backend: Literal["cpu", "triton"], tensors: list[torch.Tensor]) -> str:
    """Why a compiled backend cannot take these tensors; empty if it can."""
    if not _installed("numba" if backend == "cpu" else "triton"):
        return f"{'numba' if backend == 'cpu' else 'triton'} is not installed"
    interpreted = backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    device = "cpu" if backend == "cpu" or interpreted else "cuda"
    for tensor in tensors:
        if tensor.device.type != device:
            return f"it runs on {device} tensors and one on {tensor.device} came"
        if tensor.dtype != torch.float32:
            return f"it computes in float32 and a tensor of type {tensor.dtype} came"
        if tensor.requires_grad and torch.is_grad_enabled():
            return "a gradient has to flow through it"
    return ""


@functools.cache
def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
