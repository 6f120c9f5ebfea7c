"""The diffusion energy of the CPU and its gradient against torch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, noise, on_cpu, scattered

from convexadam.kernels.diffusion import diffusion, diffusion_gradient, reference


def _scaled(function: Any) -> Any:
    """Weigh by the number of nodes over the diagonal of the Hessian: gradients about as large as the field."""

    def run(field: torch.Tensor) -> Any:
        nodes = field[0].numel()
        value, gradient = function(field, weight=nodes / 4)
        return value / nodes, gradient

    return run


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", [*SHAPES, (2, 2, 2), (3, 2, 1), NODES])
def test_errs_no_more_than_torch(shape: Shape) -> None:
    assert_within_budget(_scaled(on_cpu(diffusion)), _scaled(reference.diffusion), noise(3, *shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shift", [0.3, -2.5, 1000.1])
def test_a_constant_shift_is_free(shape: Shape, shift: float) -> None:
    value, gradient = on_cpu(diffusion)(torch.full((3, *shape), shift))
    assert value == 0
    assert not gradient.any()


@pytest.mark.usefixtures("threads")
def test_the_gradient_alone_is_the_same() -> None:
    field = noise(3, 7, 9, 8)
    assert torch.equal(on_cpu(diffusion_gradient)(field, weight=3.0), on_cpu(diffusion)(field, weight=3.0)[1])


@pytest.mark.usefixtures("threads")
def test_adds_where_it_is_told_and_leaves_its_input_alone() -> None:
    field, before = noise(3, 7, 9, 8), noise(3, 7, 9, 8, seed=1)
    kept, gradient = field.clone(), on_cpu(diffusion_gradient)(field, weight=100.0)
    for add_to in (before.clone(), scattered(before)):
        assert on_cpu(diffusion)(field, weight=100.0, add_to=add_to)[1] is add_to
        # rounded once more where the sum is a step of its own
        torch.testing.assert_close(add_to, before + gradient, rtol=1e-6, atol=1e-6)
    assert torch.equal(field, kept)


@pytest.mark.usefixtures("threads")
def test_a_non_contiguous_field() -> None:
    field = scattered(noise(3, 7, 9, 8))
    assert not field.is_contiguous()
    assert_within_budget(_scaled(on_cpu(diffusion)), _scaled(reference.diffusion), field)
