"""What the compiled CPU kernels share: compilation, and slabs of work on as many threads as torch uses.

Kernels take ``first`` and ``last``, the range of their slab, and then numpy views of tensors. They release the
interpreter lock, so that plain Python threads run them side by side.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar, cast, no_type_check

import numba
import numpy as np
import torch
from llvmlite import ir
from numba.core import cgutils, event, types
from numba.extending import intrinsic

_FAST = {"reassoc", "contract", "arcp", "nsz", "afn"}
"""Freedom to reorder sums; NaN and Inf keep their meaning."""

_SLABS_PER_THREAD = 4

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile at first use, once for each machine: the result is kept beside the source (or in the user's cache).

    Functions are marked ``no_type_check`` as well: what checks shapes in the tests would hide their source.
    """
    kernel: Any = numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=_FAST)(function)
    return cast("Function", kernel)


@no_type_check
@numba.njit(nogil=True, cache=True, fastmath=False)  # unless told, it would take over that of its caller
def minus(a, b):
    """Return ``a - b``, which no compiler moves apart: equal numbers give 0, close ones lose nothing; in kernels."""
    return a - b


@no_type_check
@intrinsic
def prefetch(typing, array, index):
    """Ask for the cache line of an element that will be read soon; within kernels, and harmless beyond the array."""

    def code(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, number(0), number(3), number(1)])  # to read, soon and often, data
        return context.get_dummy_value()

    return types.void(array, index), code


def in_slabs(kernel: Callable[..., Any], count: int, *arguments: Any, multiple: int = 1) -> list[Any]:
    """Run ``kernel(first, last, *arguments)`` over ``range(count)``, cut at multiples of ``multiple``.

    Returns what the slabs return, in no particular order.
    """
    threads = min(torch.get_num_threads(), -(-count // multiple))
    if threads <= 1:
        return [kernel(0, count, *arguments)]
    step = multiple * max(1, -(-count // (multiple * threads * _SLABS_PER_THREAD)))
    slabs = iter([(first, min(first + step, count)) for first in range(0, count, step)])  # shared: next is atomic

    def work() -> list[Any]:
        return [kernel(first, last, *arguments) for first, last in slabs]

    others = [_workers().submit(work) for _ in range(threads - 1)]
    return work() + [result for other in others for result in other.result()]


def views(*tensors: torch.Tensor) -> list[np.ndarray]:
    """Return the numpy views of contiguous tensors."""
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def written_to(out: torch.Tensor | None, *, like: torch.Tensor) -> torch.Tensor:
    """Return ``out`` if a kernel can write there: if it was given and is contiguous; else new memory."""
    if out is not None and out.is_contiguous():
        return out
    return torch.empty_like(like, memory_format=torch.contiguous_format)


def addend(onto: torch.Tensor | None, *, like: torch.Tensor) -> torch.Tensor:
    """Return ``onto`` if a kernel can add there: if it was given and is contiguous; else new memory that holds 0."""
    if onto is not None and onto.is_contiguous():
        return onto
    return torch.from_numpy(np.zeros(tuple(like.shape), np.float32))


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return new memory for a large result on the CPU.

    numpy's, because it asks for large pages where the system has them: fewer of them have to be set up and looked up.
    """
    kind = {torch.float32: np.float32, torch.float16: np.float16}[dtype]
    return torch.from_numpy(np.empty(shape, kind))


def weights_or_ones(*given: torch.Tensor | None, like: torch.Tensor) -> list[torch.Tensor]:
    """Return weights as they are; ones, shaped as ``like``, for those that are ``None``."""
    known = [w for w in given if w is not None]
    if len(known) == len(given):  # a volume of ones is not made in vain
        return known
    one = torch.ones_like(like, memory_format=torch.contiguous_format)
    return [one if w is None else w for w in given]


def channels_last(features: torch.Tensor) -> np.ndarray:
    """Return ``[i, j, k, c]`` of features ``[c, i, j, k]``; a view where memory is in that order already."""
    return views(features.permute(1, 2, 3, 0))[0]


def constant(number: int) -> tuple[int, ...]:
    """Return a tuple of that length: kernels take its length as a constant, and unroll loops over it."""
    return (0,) * number


@functools.cache
def _workers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(os.cpu_count() or 1, 2), thread_name_prefix="convexadam")


class _FirstCompilation(event.Listener):
    """Says once why the first call takes so long."""

    told = False

    def on_start(self, event: Any) -> None:
        function = event.data["dispatcher"].py_func
        if not _FirstCompilation.told and function.__module__.startswith("convexadam."):
            _FirstCompilation.told = True
            sys.stderr.write("convexadam: compiling its CPU kernels, once on this machine ...\n")

    def on_end(self, event: Any) -> None:
        pass


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)  # threads do not survive a fork
event.register("numba:compile", _FirstCompilation())  # type: ignore[no-untyped-call]
