"""Full float32 precision, independent of the caller's settings."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ParamSpec, TypeVar

import torch

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run a function without autocast and without TF32 products, whose precision is insufficient for positions."""

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        with ExitStack() as stack:
            for device in ("cpu", "cuda"):
                if torch.is_autocast_enabled(device):
                    stack.enter_context(torch.autocast(device, enabled=False))
            _require_full_products(stack)
            return function(*args, **kwargs)

    return wrapped


def _require_full_products(stack: ExitStack) -> None:
    """Compute matrix products in float32 until the stack is closed, which restores the caller's setting."""
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # the caller has set fp32_precision (torch 2.9), after which this function only raises
        products: tuple[Any, ...] = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
        for product in products:
            stack.callback(setattr, product, "fp32_precision", product.fp32_precision)
            product.fp32_precision = "ieee"
        return
    if precision != "highest":
        torch.set_float32_matmul_precision("highest")
        stack.callback(torch.set_float32_matmul_precision, precision)
