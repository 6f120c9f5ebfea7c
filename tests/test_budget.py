"""The judge of the fused kernels tells right from wrong."""

from __future__ import annotations

import pytest
import torch
from budget import assert_within_budget


def _root(x: torch.Tensor, *, plus: torch.Tensor) -> torch.Tensor:
    return (x + plus).sqrt()


def _both(x: torch.Tensor, *, plus: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.clone(), _root(x, plus=plus)


ARGUMENTS = {"x": torch.linspace(1, 9, 50), "plus": torch.tensor(0.1)}


@pytest.mark.parametrize("reference", [_root, _both])
def test_the_reference_itself_passes(reference) -> None:
    assert_within_budget(reference, reference, ARGUMENTS["x"], plus=ARGUMENTS["plus"])


def test_a_small_error_passes_up_to_the_floor_only() -> None:
    def off(x: torch.Tensor, *, plus: torch.Tensor) -> torch.Tensor:
        return _root(x, plus=plus) + 5e-6

    assert_within_budget(off, _root, **ARGUMENTS, floor=1e-5)
    with pytest.raises(AssertionError, match="errs by"):
        assert_within_budget(off, _root, **ARGUMENTS)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda x, plus: _root(x, plus=plus)[1:], "is"),
        (lambda x, plus: _root(x, plus=plus).double(), "dtype"),
        (lambda x, plus: _root(x, plus=plus) * torch.nan, "finite"),
        (lambda x, plus: _both(x, plus=plus), "results"),
        (lambda x, plus: _root(x, plus=plus).flip(0), "errs by"),
    ],
)
def test_a_wrong_result_fails(wrong, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_within_budget(wrong, _root, **ARGUMENTS)


def test_tensors_within_lists_are_made_double() -> None:
    def total(parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(list(parts)).sum(0)

    seen: list[torch.dtype] = []

    def watched(parts: list[torch.Tensor]) -> torch.Tensor:
        seen.append(parts[0].dtype)
        return total(parts)

    assert_within_budget(total, watched, [torch.ones(3), torch.ones(3)])
    assert seen == [torch.float32, torch.float64]
