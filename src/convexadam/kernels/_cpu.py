"""Compilation and multithreading of the CPU kernels.

A kernel takes ``first`` and ``last``, the range of its slab, followed by numpy views of tensors. Kernels release the
global interpreter lock, so that Python threads run them concurrently, as many threads as torch uses.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast, no_type_check

import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, event, types
from numba.extending import intrinsic

from convexadam.kernels._compile import compile_cached
from convexadam.kernels._prebuilt import load_prebuilt

_LOGGER = logging.getLogger("convexadam")

_FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}
"""LLVM flags that allow reordering of sums; those that assume finite values are not set."""

_SLABS_PER_THREAD = 4

Function = TypeVar("Function", bound=Callable[..., Any])


def compile_kernel(function: Function) -> Function:
    """Compile a function at its first call, unless the package brings it along; see `compile_cached`.

    Such functions must be decorated with ``no_type_check`` as well: the run-time type checker of the tests would wrap
    them in functions that numba cannot compile.
    """
    options = {"nogil": True, "error_model": "numpy", "fastmath": _FAST}
    return cast("Function", compile_cached(function, find_prebuilt=load_prebuilt, **options))


@no_type_check
@functools.partial(compile_cached, nogil=True, fastmath=False)  # explicit, because the default is that of the caller
def subtract(a, b):
    """Compute ``a - b`` without reassociation, so that the difference of equal numbers is exactly 0; for kernels."""
    return a - b


@no_type_check
@intrinsic
def prefetch(typing, array, index):
    """Prefetch the cache line of an element; for kernels. The index may lie outside the array."""

    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, number(0), number(3), number(1)])  # read access, all cache levels, data
        return context.get_dummy_value()

    return types.void(array, index), code


def run_in_slabs(kernel: Callable[..., Any], count: int, *arguments: Any, multiple: int = 1) -> list[Any]:
    """Run ``kernel(first, last, *arguments)`` over slabs of ``range(count)`` that start at multiples of ``multiple``.

    Returns the results of all slabs, in arbitrary order.
    """
    threads = min(torch.get_num_threads(), -(-count // multiple))
    if threads <= 1:
        return [kernel(0, count, *arguments)]
    step = multiple * max(1, -(-count // (multiple * threads * _SLABS_PER_THREAD)))
    # shared by the threads: next is atomic
    slabs = iter([(first, min(first + step, count)) for first in range(0, count, step)])

    def work() -> list[Any]:
        return [kernel(first, last, *arguments) for first, last in slabs]

    others = [_get_workers().submit(work) for _ in range(threads - 1)]
    return work() + [result for other in others for result in other.result()]


def to_numpy(*tensors: torch.Tensor) -> list[np.ndarray]:
    """Return tensors as contiguous numpy arrays, which are views of tensors that are contiguous."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def get_output(out: torch.Tensor | None, *, like: torch.Tensor) -> torch.Tensor:
    """Return ``out`` if it is a contiguous tensor, otherwise a new tensor; kernels write to contiguous memory only."""
    if out is not None and out.is_contiguous():
        return out
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def get_accumulator(add_to: torch.Tensor | None, *, like: torch.Tensor) -> torch.Tensor:
    """Return ``add_to`` if it is a contiguous tensor, otherwise a new tensor of zeros."""
    if add_to is not None and add_to.is_contiguous():
        return add_to
    return torch.from_numpy(np.zeros(tuple(like.shape), np.float32))


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Allocate a large result on the CPU.

    With numpy, which requests huge pages from the system where available: fewer page faults and TLB misses.
    """
    storage = {torch.float32: np.float32, torch.float16: np.float16}[dtype]
    return torch.from_numpy(np.empty(shape, storage))


def fill_weights(*weights: torch.Tensor | None, like: torch.Tensor) -> list[torch.Tensor]:
    """Replace weights that are ``None`` by ones of the shape of ``like``."""
    known = [w for w in weights if w is not None]
    if len(known) == len(weights):  # without allocating a volume of ones
        return known
    one = torch.ones_like(like, memory_format=torch.contiguous_format)
    return [one if w is None else w for w in weights]


def view_channels_last(features: torch.Tensor) -> np.ndarray:
    """Return features ``[c, i, j, k]`` as ``[i, j, k, c]``; a view if the memory has that order."""
    return to_numpy(features.permute(1, 2, 3, 0))[0]


def make_constant(number: int) -> tuple[int, ...]:
    """Return a tuple of ``number`` zeros, whose length is a compile-time constant, so that loops are unrolled."""
    return (0,) * number


@functools.cache
def _get_workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(os.cpu_count() or 1, 2), thread_name_prefix="convexadam")


class _FirstCompilation(event.Listener):
    """Logs one line before the first compilation of this process, which takes up to a minute.

    Other settings may use kernels that no process has compiled yet, and are announced again.
    """

    printed = False

    def on_start(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        if not _FirstCompilation.printed and function.__module__.startswith("convexadam."):
            _FirstCompilation.printed = True
            _LOGGER.warning(
                "convexadam: compiling CPU kernels that are used for the first time; later runs load them ..."
            )

    def on_end(self, event: Any) -> None:
        pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_get_workers.cache_clear)  # a forked child process has no threads
event.register("numba:compile", _FirstCompilation())  # type: ignore[no-untyped-call]
