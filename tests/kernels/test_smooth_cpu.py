"""Smoothing on the CPU against torch in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, gaps, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.smooth import reference, smooth


def _taps(count: int) -> list[float]:
    """Symmetric, falling from the middle, all different; of sum 1."""
    middle = count // 2
    values = [math.exp(-0.5 * (n - middle) ** 2 / (0.4 * count) ** 2) for n in range(count)]
    return [v / sum(values) for v in values]


def _factors(shape: Shape, given: str) -> dict[str, torch.Tensor | None]:
    return {
        "before": gaps(*shape, seed=1) if given in ("before", "both") else None,
        "after": 1 + gaps(*shape, seed=3) if given in ("after", "both") else None,
    }


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "count", "given"),
    pairwise([1, 3], SHAPES, [1, 3, 7, 9, 41], ["none", "before", "after", "both"]),
    indirect=["threads"],
)
def test_errs_no_more_than_torch(shape: Shape, count: int, given: str) -> None:
    factors: dict[str, Any] = _factors(shape, given)
    assert_within_budget(on_cpu(smooth), reference.smooth, noise(3, *shape), _taps(count), **factors)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("channels", [1, 12, 17])
def test_any_number_of_channels(channels: int) -> None:
    factors = _factors((7, 9, 8), "both")
    assert_within_budget(on_cpu(smooth), reference.smooth, noise(channels, 7, 9, 8), _taps(5), **factors)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("given", ["none", "both"])
def test_of_a_usual_size(given: str) -> None:
    factors = _factors(NODES, given)
    assert_within_budget(on_cpu(smooth), reference.smooth, noise(3, *NODES), _taps(7), **factors)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("given", ["none", "before", "both"])
@pytest.mark.parametrize("shape", SHAPES)
def test_adds_the_weighted_field(shape: Shape, given: str) -> None:
    field, factors, taps = noise(3, *shape), _factors(shape, given), _taps(7)
    before: Any = 1.0 if factors["before"] is None else factors["before"]
    expected = reference.smooth(field.double(), taps, **factors) + before * field.double()
    torch.testing.assert_close(reference.smooth(field.double(), taps, keep=True, **factors), expected)
    assert_within_budget(on_cpu(smooth), reference.smooth, field, taps, keep=True, **factors)


@pytest.mark.parametrize("count", [3, 9])
def test_is_its_own_adjoint(count: int) -> None:
    shape = (5, 7, 6)
    x, y, (a, b) = noise(3, *shape), noise(3, *shape, seed=1), (gaps(*shape), gaps(*shape, seed=2))
    left = (on_cpu(smooth)(x, _taps(count), before=a, after=b) * y).sum()
    right = (x * on_cpu(smooth)(y, _taps(count), before=b, after=a)).sum()
    allowed = 3 * (count + 1) * torch.finfo(torch.float32).eps * x.norm() * y.norm()
    assert abs(left - right) <= allowed


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("given", ["none", "both"])
def test_writes_where_it_is_told_and_leaves_its_inputs_alone(given: str) -> None:
    shape = (5, 7, 6)
    field, factors = noise(3, *shape), _factors(shape, given)
    before = field.clone()
    expected = on_cpu(smooth)(field, _taps(5), **factors)
    for out in (torch.full_like(field, torch.nan), scattered(torch.zeros_like(field))):
        assert on_cpu(smooth)(field, _taps(5), **factors, out=out) is out
        assert torch.equal(out, expected)
    assert torch.equal(field, before)
    for factor, untouched in zip(factors.values(), _factors(shape, given).values(), strict=True):
        assert factor is None or torch.equal(factor, untouched)


@pytest.mark.usefixtures("threads")
def test_non_contiguous_inputs() -> None:
    shape = (7, 9, 8)
    field, before, after = scattered(noise(3, *shape)), scattered(gaps(*shape)), scattered(gaps(*shape, seed=2))
    assert not any(t.is_contiguous() for t in (field, before, after))
    assert_within_budget(on_cpu(smooth), reference.smooth, field, _taps(7), before=before, after=after)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("implementation", [on_cpu(smooth), reference.smooth])
def test_writes_only_if_a_condition_holds(implementation: Any) -> None:
    field, kept = noise(3, 4, 5, 6), noise(3, 4, 5, 6, seed=1)
    for holds in (False, True):
        out = kept.clone()
        assert implementation(field, _taps(5), out=out, condition=torch.tensor(holds)) is out
        assert torch.equal(out, implementation(field, _taps(5)) if holds else kept)
