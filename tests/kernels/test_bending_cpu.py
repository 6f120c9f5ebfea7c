"""The bending energy of the CPU and its gradient against torch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, noise, on_cpu, scattered

from convexadam.kernels.bending import bending, bending_gradient, reference


def _scaled(function: Any) -> Any:
    """Weigh by the number of nodes over the diagonal of the Hessian: gradients about as large as the field."""

    def run(field: torch.Tensor) -> Any:
        nodes = field[0].numel()
        value, gradient = function(field, weight=nodes / 28)
        return value / nodes, gradient

    return run


FUSED, TORCH = _scaled(on_cpu(bending)), _scaled(reference.bending)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", [*SHAPES, (2, 2, 2), (3, 2, 1), (3, 3, 3), (4, 4, 4), (2, 1, 9), NODES])
def test_errs_no_more_than_torch(shape: Shape) -> None:
    assert_within_budget(FUSED, TORCH, noise(3, *shape))


@pytest.mark.usefixtures("threads")
def test_large_shifts_cost_no_digits() -> None:
    # what is added has no rounding, and neither have its differences
    ripple = 2.0**-10 * torch.randint(-8, 9, (3, 6, 7, 20), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(FUSED(ripple + 512), FUSED(ripple), rtol=0, atol=0)


@pytest.mark.usefixtures("threads")
def test_the_gradient_alone_is_the_same() -> None:
    field = noise(3, 7, 9, 8)
    assert torch.equal(on_cpu(bending_gradient)(field, weight=3.0), on_cpu(bending)(field, weight=3.0)[1])


@pytest.mark.usefixtures("threads")
def test_adds_where_it_is_told_and_leaves_its_input_alone() -> None:
    field, before = noise(3, 7, 9, 8), noise(3, 7, 9, 8, seed=1)
    kept, gradient = field.clone(), on_cpu(bending_gradient)(field, weight=20.0)
    for add_to in (before.clone(), scattered(before)):
        assert on_cpu(bending)(field, weight=20.0, add_to=add_to)[1] is add_to
        # a few sums of numbers of up to 10, rounded in another order
        torch.testing.assert_close(add_to, before + gradient, rtol=0, atol=64 * torch.finfo(torch.float32).eps)
    assert torch.equal(field, kept)


@pytest.mark.usefixtures("threads")
def test_a_non_contiguous_field() -> None:
    field = scattered(noise(3, 7, 9, 8))
    assert not field.is_contiguous()
    assert_within_budget(FUSED, TORCH, field)


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    field, results = noise(3, 11, 6, 9), []
    for threads in (1, 2, 5, 40):
        monkeypatch.setattr("convexadam.kernels._cpu.torch.get_num_threads", lambda threads=threads: threads)
        results.append(on_cpu(bending_gradient)(field))
    assert all(torch.equal(result, results[0]) for result in results[1:])
