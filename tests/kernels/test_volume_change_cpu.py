"""The cost of volume changes on the CPU and its gradient against torch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, gaps, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.volume_change import reference, volume_change


def _scaled(height: float) -> Any:
    """Fields of a height; gradients times the nodes over the largest slope of the cost: about as large as 1."""

    def scaled(function: Any) -> Any:
        def run(field: torch.Tensor, **options: Any) -> Any:
            nodes = field[0].numel()
            value, gradient = function(height * field, weight=nodes / (120 if height > 0.2 else 1), **options)
            return value / nodes, gradient

        return run

    return scaled(on_cpu(volume_change)), scaled(reference.volume_change)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "height", "masked"),
    pairwise([1, 3], [*SHAPES, (2, 2, 2), (3, 2, 1), (2, 1, 3), NODES], [0.05, 0.5], [False, True]),
    indirect=["threads"],
)
def test_errs_no_more_than_torch(shape: Shape, height: float, masked: bool) -> None:
    mask = gaps(*shape) if masked else None
    assert_within_budget(*_scaled(height), noise(3, *shape), soft_mask=mask)


def test_logarithms_of_all_sizes() -> None:
    # determinants from 0.05 to 20, and 1 with its neighbours: one axis is stretched
    factors = torch.cat([torch.logspace(-1.3, 1.3, 200), 1 + torch.linspace(-1e-3, 1e-3, 101)])
    for factor in factors.tolist():
        field = torch.zeros(3, 1, 1, 8)
        field[2] = (factor - 1) * torch.arange(8.0)
        found, _ = on_cpu(volume_change)(field)
        exact, _ = reference.volume_change(field.double())
        # positions of up to 140 are rounded, and the logarithm's derivative is 1 / factor
        slope = 2 * abs(factor - 1) / min(factor, 1) ** 2 + 1e-6
        assert abs(found.double() - exact) <= slope * 8 * (1 + factor) * torch.finfo(torch.float32).eps


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("masked", [False, True])
def test_adds_where_it_is_told_and_leaves_its_inputs_alone(masked: bool) -> None:
    shape = (7, 9, 8)
    field, before, mask = 0.05 * noise(3, *shape), noise(3, *shape, seed=1), gaps(*shape) if masked else None
    kept, share = field.clone(), None if mask is None else mask.clone()
    _, gradient = on_cpu(volume_change)(field, soft_mask=mask, weight=500.0)
    for add_to in (before.clone(), scattered(before)):
        assert on_cpu(volume_change)(field, soft_mask=mask, weight=500.0, add_to=add_to)[1] is add_to
        # six sums of numbers of up to 10
        torch.testing.assert_close(add_to, before + gradient, rtol=0, atol=64 * torch.finfo(torch.float32).eps)
    assert torch.equal(field, kept)
    assert mask is None or torch.equal(mask, share)


@pytest.mark.usefixtures("threads")
def test_non_contiguous_inputs() -> None:
    field, mask = scattered(noise(3, 7, 9, 8)), scattered(gaps(7, 9, 8))
    assert not field.is_contiguous()
    assert_within_budget(*_scaled(0.05), field, soft_mask=mask)


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    field, mask, results = 0.2 * noise(3, 11, 6, 9), gaps(11, 6, 9), []
    for threads in (1, 2, 5, 40):
        monkeypatch.setattr("convexadam.kernels._cpu.torch.get_num_threads", lambda threads=threads: threads)
        results.append(on_cpu(volume_change)(field, soft_mask=mask)[1])
    assert all(torch.equal(result, results[0]) for result in results[1:])
