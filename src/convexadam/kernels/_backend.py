"""Selection of the implementation of an operation."""

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

from convexadam._checks import show
from convexadam.errors import ConfigError

Backend: TypeAlias = Literal["auto", "reference", "cpu", "triton"]
"""``"reference"``: torch, any device and precision; ``"cpu"``: numba; ``"triton"``: Triton, on GPUs."""

_requested: ContextVar[Backend] = ContextVar("convexadam_backend", default="auto")


@contextmanager
def use_backend(backend: Backend) -> Iterator[None]:
    """Select the implementation of all operations within a ``with`` block.

    ``"auto"`` uses compiled kernels for float32 tensors on the CPU and on CUDA devices, and torch for other devices,
    other precisions and tensors that require a gradient. Any other backend is used without fallback.

    Raises
    ------
    ConfigError
        If the backend is unknown; within the block, if an operation cannot run on it.

    Examples
    --------
    >>> from convexadam import use_backend
    >>> with use_backend("reference"):
    ...     pass  # register(fixed, moving)
    """
    token = _requested.set(check_backend(backend))
    try:
        yield
    finally:
        _requested.reset(token)


@contextmanager
def compiled_for_float32(values: torch.Tensor) -> Iterator[None]:
    """Use the requested backend for float32 values and torch for all others, for operations on data of any type.

    Examples
    --------
    >>> import torch
    >>> from convexadam.kernels import compiled_for_float32, requested_backend
    >>> with compiled_for_float32(torch.zeros(3, dtype=torch.float64)):
    ...     requested_backend()
    'reference'
    """
    with use_backend(requested_backend() if values.dtype == torch.float32 else "reference"):
        yield


@contextmanager
def override_backend(backend: Backend) -> Iterator[None]:
    """Use a backend; ``"auto"`` keeps that of the enclosing `use_backend` block.

    Examples
    --------
    >>> from convexadam.kernels import override_backend, requested_backend
    >>> with override_backend("reference"):
    ...     requested_backend()
    'reference'
    """
    with use_backend(requested_backend() if backend == "auto" else backend):
        yield


def check_backend(backend: Backend) -> Backend:
    """Return the name of a backend; raise `ConfigError` if it is unknown.

    Examples
    --------
    >>> from convexadam.kernels import check_backend
    >>> check_backend("cpu")
    'cpu'
    """
    if not isinstance(backend, str) or backend not in get_args(Backend):
        raise ConfigError(
            f"backend must be one of {', '.join(get_args(Backend))}, got {show(backend)}; the default is 'auto'"
        )
    return backend


def requested_backend() -> Backend:
    """Return the backend of the innermost `use_backend` block, ``"auto"`` outside of any.

    Examples
    --------
    >>> from convexadam.kernels import requested_backend, use_backend
    >>> requested_backend()
    'auto'
    >>> with use_backend("reference"):
    ...     requested_backend()
    'reference'
    """
    return _requested.get()


def backend_for(*tensors: torch.Tensor | None) -> Literal["reference", "cpu", "triton"]:
    """Return the implementation that operations on these tensors use.

    Raises
    ------
    ConfigError
        If the requested backend cannot run on them.

    Examples
    --------
    >>> import torch
    >>> from convexadam.kernels import backend_for, use_backend
    >>> with use_backend("reference"):
    ...     backend_for(torch.zeros(3))
    'reference'
    """
    given = [t for t in tensors if t is not None]
    backend = _requested.get()
    if backend == "reference":
        return "reference"
    if backend == "auto":
        kernel: Literal["cpu", "triton"] | None = {"cpu": "cpu", "cuda": "triton"}.get(given[0].device.type)  # type: ignore[assignment]
        return kernel if kernel is not None and not _find_obstacle(kernel, given) else "reference"
    if obstacle := _find_obstacle(backend, given):
        raise ConfigError(f"backend {backend!r} cannot be used: {obstacle}; use 'auto' or 'reference'")
    return backend


def get_implementation(operation: str, *tensors: torch.Tensor | None) -> ModuleType:
    """Return the module that implements an operation, given by the name of its package, for these tensors."""
    return importlib.import_module(f"{operation}.{backend_for(*tensors)}")


def _find_obstacle(backend: Literal["cpu", "triton"], tensors: list[torch.Tensor]) -> str:
    """Return why a compiled backend cannot use these tensors; empty if it can."""
    package = "numba" if backend == "cpu" else "triton"
    if not _is_installed(package):
        return f"{package} must be installed for the backend {backend!r}, got no such package"
    if backend == "triton" and (version := _triton_version()) < _OLDEST_TRITON:
        return f"triton must be 3.3 or newer for the backend 'triton', got {'.'.join(map(str, version))}"
    interpreted = backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1"
    device = "cpu" if backend == "cpu" or interpreted else "cuda"
    for tensor in tensors:
        if tensor.device.type != device:
            return f"tensors must be on {device} for the backend {backend!r}, got one on {tensor.device}"
        if tensor.dtype != torch.float32:
            return f"tensors must be float32 for the backend {backend!r}, got {tensor.dtype}"
        if tensor.requires_grad and torch.is_grad_enabled():
            return f"tensors must not require a gradient for the backend {backend!r}, got one that does"
    return ""


_OLDEST_TRITON = (3, 3)
"""The first version whose kernels may keep tuples in loops."""


@functools.cache
def _triton_version() -> tuple[int, int]:
    major, minor, *_ = importlib.import_module("triton").__version__.split(".")
    return int(major), int(minor)


@functools.cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
