"""What the tests of the compiled CPU kernels share: sizes, inputs, and functions as they run on that backend."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
import oracles
import torch

from convexadam import use_backend

P = ParamSpec("P")
R = TypeVar("R")
Shape = tuple[int, int, int]

SHAPES: list[Shape] = [(1, 1, 1), (1, 7, 5), (5, 1, 6), (13, 17, 19)]
NODES: Shape = (40, 48, 52)
"""As many as a registration has."""


def on_cpu(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function as it runs on the compiled CPU kernels, or raises."""

    def run(*args: P.args, **options: P.kwargs) -> R:
        with use_backend("cpu"):
            return function(*args, **options)

    return run


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return seeded normal noise in float32."""
    return oracles.noise(*shape, seed=seed, dtype=torch.float32)


def gaps(*shape: int, seed: int = 0) -> torch.Tensor:
    """Return weights in (0, 1) with holes: single voxels and a part of the volume; never nothing at all."""
    weight = oracles.uniform(*shape, seed=seed).float()
    weight[oracles.uniform(*shape, seed=seed + 1) < 0.1] = 0
    weight[:, : shape[1] // 3] = 0
    weight[-1, -1, -1] = 0.5
    return weight


def scattered(tensor: torch.Tensor) -> torch.Tensor:
    """Return the same values with gaps between them in memory, the last axis slowest."""
    backwards = list(range(tensor.ndim))[::-1]
    turned = torch.stack([tensor, torch.full_like(tensor, torch.nan)], -1)[..., 0].permute(backwards)
    wide = torch.empty((*turned.shape[:-1], 2 * turned.shape[-1]), dtype=tensor.dtype)[..., ::2]
    return wide.copy_(turned).permute(backwards)


def is_vectorised(kernel: Any, *args: Any) -> bool:
    """Whether LLVM vectorises a compiled kernel; compiled anew, because functions from the cache keep no code."""
    options = {name: kernel.targetoptions[name] for name in ("nogil", "error_model", "fastmath")}
    fresh = numba.njit(**options)(kernel.py_func)
    fresh(*args)
    (code,) = fresh.inspect_llvm().values()
    return re.search(r"<\d+ x float>", code) is not None
