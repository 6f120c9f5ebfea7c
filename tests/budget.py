"""What a fused kernel may err: twice as much as torch in float32, both judged by torch in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def assert_within_budget(
    fused: Callable[..., Any],
    reference: Callable[..., Any],
    *args: Any,
    factor: float = 2.0,
    floor: float = 1e-6,
    **options: Any,
) -> None:
    """Compare ``fused(*args, **options)`` with ``reference`` in float64.

    Tensors may come anywhere in the arguments, also within tuples and lists; results may be tensors or several of
    them. ``factor`` times the largest error of the float32 reference, plus ``floor``, is allowed.
    """
    found = _tensors(fused(*args, **options))
    plain = _tensors(reference(*args, **options))
    exact = _tensors(reference(*_in_double(args), **_in_double(options)))
    assert len(found) == len(exact), f"{len(found)} results came, not {len(exact)}"
    for number, (result, simple, oracle) in enumerate(zip(found, plain, exact, strict=True)):
        assert result.shape == oracle.shape, f"result {number} is {tuple(result.shape)}, not {tuple(oracle.shape)}"
        assert result.dtype == simple.dtype, f"result {number} has dtype {result.dtype}, not {simple.dtype}"
        assert bool(result.isfinite().all()), f"result {number} is not finite"
        if oracle.numel():
            allowed = factor * float((simple.double() - oracle).abs().max()) + floor
            error = float((result.double() - oracle).abs().max())
            assert error <= allowed, f"result {number} errs by {error:.3g}, but {allowed:.3g} is allowed"


def _in_double(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.double() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {name: _in_double(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_in_double(part) for part in value]
    if isinstance(value, tuple):
        return tuple(_in_double(part) for part in value)
    return value


def _tensors(result: Any) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else list(result)
