"""Functions of one volume, applied to several."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, cast

import torch

P = ParamSpec("P")

_BATCH_OF_WEIGHTS = 4


def over_batch(axes: int) -> Callable[[Callable[P, torch.Tensor]], Callable[P, torch.Tensor]]:
    """Let a function of tensors with so many ``axes`` take one more in front, the batch, and stack the results.

    Weights, which are passed by name, are one volume for all, or one for each.
    """

    def decorate(function: Callable[P, torch.Tensor]) -> Callable[P, torch.Tensor]:
        @functools.wraps(function)
        def apply(*args: P.args, **kwargs: P.kwargs) -> torch.Tensor:
            first: Any = args[0] if args else None
            if not isinstance(first, torch.Tensor) or first.ndim != axes + 1 or not len(first):
                return function(*args, **kwargs)
            each: Any = function
            results = [
                each(
                    *(_pick(value, n, axes + 1) for value in args),
                    **{name: _pick(value, n, _BATCH_OF_WEIGHTS) for name, value in kwargs.items()},
                )
                for n in range(len(first))
            ]
            return torch.stack(results)

        return cast("Callable[P, torch.Tensor]", apply)

    return decorate


def _pick(value: Any, number: int, axes: int) -> Any:
    return value[number] if isinstance(value, torch.Tensor) and value.ndim == axes else value
