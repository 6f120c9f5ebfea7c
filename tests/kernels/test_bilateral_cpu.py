"""Edge-preserving smoothing on the CPU against torch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.bilateral import bilateral, reference


def _options(radius: int, sigma_field: float | None) -> dict[str, Any]:
    return {"radius": radius, "sigma": 1.1, "sigma_guide": 0.7, "sigma_field": sigma_field}


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "radius", "sigma_field", "channels"),
    pairwise([1, 3], [*SHAPES, (2, 1, 3)], [1, 2, 3], [None, 1.3], [1, 3]),
    indirect=["threads"],
)
def test_errs_no_more_than_torch(shape: Shape, radius: int, sigma_field: float | None, channels: int) -> None:
    options = _options(radius, sigma_field)
    assert_within_budget(on_cpu(bilateral), reference.bilateral, noise(3, *shape), noise(channels, *shape), **options)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("sigma_field", [None, 1.3])
def test_of_a_usual_size(sigma_field: float | None) -> None:
    options = _options(1, sigma_field)
    assert_within_budget(on_cpu(bilateral), reference.bilateral, noise(3, *NODES), noise(12, *NODES), **options)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("apart", [0.0, 1e-3, 1.0, 13.0, 14.0, 1e3, 1e18])
def test_weights_of_any_size(apart: float) -> None:
    # of exp(-apart^2 / 2): all of it, some, below the least normal number, and squares beyond the largest one
    guide = apart * torch.arange(7.0).expand(1, 4, 5, 7)
    options: dict[str, Any] = {"sigma": 1e3, "sigma_guide": 1.0}
    assert_within_budget(on_cpu(bilateral), reference.bilateral, noise(3, 4, 5, 7), guide, **options)


@pytest.mark.usefixtures("threads")
def test_writes_where_it_is_told_and_leaves_its_inputs_alone() -> None:
    field, guide, options = noise(3, 5, 7, 6), noise(2, 5, 7, 6, seed=1), _options(1, None)
    before = field.clone(), guide.clone()
    expected = on_cpu(bilateral)(field, guide, **options)
    for out in (torch.full_like(field, torch.nan), scattered(torch.zeros_like(field))):
        assert on_cpu(bilateral)(field, guide, **options, out=out) is out
        assert torch.equal(out, expected)
    assert torch.equal(field, before[0])
    assert torch.equal(guide, before[1])


@pytest.mark.usefixtures("threads")
def test_non_contiguous_inputs() -> None:
    field, guide = scattered(noise(3, 7, 9, 8)), scattered(noise(2, 7, 9, 8, seed=1))
    assert not any(t.is_contiguous() for t in (field, guide))
    assert_within_budget(on_cpu(bilateral), reference.bilateral, field, guide, **_options(2, 1.0))
