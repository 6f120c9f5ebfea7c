"""Coupled convex optimisation against naive loops."""

from __future__ import annotations

from typing import Any

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam import discrete
from convexadam.discrete import Window
from convexadam.discrete.coupled_convex import COUPLING_WEIGHTS

CASES = [((1, 1, 1), (0, 0, 0)), ((1, 5, 3), (0, 1, 1)), ((5, 3, 4), (1, 2, 1)), ((3, 7, 2), (2, 1, 0))]


def coupled_convex(costs: torch.Tensor, **options: Any) -> torch.Tensor:
    """Call `coupled_convex` with costs ``[di, dj, dk, i, j, k]`` of a box."""
    window = Window((costs.shape[0] // 2, costs.shape[1] // 2, costs.shape[2] // 2))
    return discrete.coupled_convex(costs.flatten(0, 2), window, **options)


def _costs(shape: tuple[int, int, int], radius: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    return oracles.noise(*(2 * r + 1 for r in radius), *shape, seed=seed)


def test_the_coupling_weights_are_the_published_ones() -> None:
    assert COUPLING_WEIGHTS == oracles.COUPLING_WEIGHTS


@pytest.mark.parametrize(("shape", "radius"), CASES)
def test_equals_naive_loops(shape: tuple[int, int, int], radius: tuple[int, int, int]) -> None:
    costs = _costs(shape, radius)  # noise has no ties, even after rounding of the means
    expected = torch.from_numpy(oracles.coupled_convex(costs.numpy()))
    torch.testing.assert_close(coupled_convex(costs), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "radius"), CASES)
def test_subcell_refinement_equals_naive_loops(shape: tuple[int, int, int], radius: tuple[int, int, int]) -> None:
    costs = _costs(shape, radius, seed=5)
    expected = torch.from_numpy(oracles.coupled_convex(costs.numpy(), parabolic_fit=True))
    # seven iterations, each with sums of up to 1e2 and of ten roundings over the curvature at the minimum
    torch.testing.assert_close(coupled_convex(costs, parabolic_fit=True), expected, rtol=0, atol=1e-10)
    if max(radius) > 0:
        assert (coupled_convex(costs, parabolic_fit=True) - coupled_convex(costs)).abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lowest", [(0.3, -0.45, 1.2), (-1.5, 0.5, 0.0)])
def test_the_minimum_of_a_quadratic_cost_is_exact(lowest: tuple[float, float, float], dtype: torch.dtype) -> None:
    # equal at all control points, so that means and coupling do not change it
    shape, radius = (5, 7, 3), (2, 1, 2)
    costs = torch.empty(5, 3, 5, *shape, dtype=dtype)
    for index, step in oracles.labels(radius):
        costs[index] = sum((a - b) ** 2 for a, b in zip(step, lowest, strict=True))
    expected = torch.tensor(lowest, dtype=dtype).reshape(3, 1, 1, 1).expand(3, *shape)
    # costs and coupling terms of up to 30 with ten roundings, over a curvature of 2; then three means of three
    allowed = (10 * 30 / 2 + 2 * 12) * torch.finfo(dtype).eps
    torch.testing.assert_close(coupled_convex(costs, parabolic_fit=True), expected, rtol=0, atol=allowed)
    whole = (coupled_convex(costs) - expected).abs().amax((1, 2, 3))  # whole steps
    assert all(w > abs(m - round(m)) - 1e-5 for w, m in zip(whole.tolist(), lowest, strict=True))


@pytest.mark.parametrize("coupling_weights", [(), (0.5,), (1.0, 0.01), (0.0, 0.0)])
def test_coupling_weights_are_used_in_their_order(coupling_weights: tuple[float, ...]) -> None:
    costs = _costs((5, 3, 4), (1, 2, 1), seed=1)
    expected = torch.from_numpy(oracles.coupled_convex(costs.numpy(), coupling_weights))
    torch.testing.assert_close(coupled_convex(costs, coupling_weights=coupling_weights), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_clear_minimum_is_found_up_to_the_border(dtype: torch.dtype) -> None:
    shape, radius, step = (5, 7, 3), (2, 1, 2), (-2, 1, 0)
    costs = torch.empty(5, 3, 5, *shape, dtype=dtype)
    for index, other in oracles.labels(radius):
        costs[index] = sum((a - b) ** 2 for a, b in zip(step, other, strict=True))
    expected = torch.tensor(step, dtype=dtype).reshape(3, 1, 1, 1).expand(3, *shape)
    # means of equal numbers: three sums of three, with weights of one rounding each
    torch.testing.assert_close(coupled_convex(costs), expected, rtol=0, atol=2 * 12 * torch.finfo(dtype).eps)


def test_constant_costs_give_zero_displacement() -> None:
    for parabolic_fit in (False, True):
        assert not coupled_convex(torch.full((3, 5, 3, 4, 5, 6), 0.3), parabolic_fit=parabolic_fit).any()


def test_coupling_overrules_a_single_deviating_control_point() -> None:
    costs = torch.ones(3, 3, 3, 7, 7, 7, dtype=torch.float64)
    costs[2, 1, 1] = 0.5  # all control points prefer +1 along i
    costs[2, 1, 1, 3, 3, 3], costs[0, 1, 1, 3, 3, 3] = 0.6, 0.5  # and one, slightly, -1
    uncoupled, coupled = coupled_convex(costs, coupling_weights=()), coupled_convex(costs)
    assert uncoupled[0, 3, 3, 3] == pytest.approx(1 - 2 / 27)
    torch.testing.assert_close(coupled[0], torch.ones_like(coupled[0]), rtol=0, atol=1e-12)


def test_non_contiguous_costs() -> None:
    costs = oracles.noise(3, 4, 5, 3, 1, 5, seed=2).permute(3, 4, 5, 0, 1, 2)
    expected = torch.from_numpy(oracles.coupled_convex(costs.numpy()))
    torch.testing.assert_close(coupled_convex(costs), expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), axes=st.permutations(range(3)))
def test_swapping_axes_swaps_the_field(seed: int, axes: list[int]) -> None:
    costs = _costs((2, 3, 4), (1, 2, 0), seed)
    permuted = costs.permute(*axes, *(a + 3 for a in axes))
    expected = coupled_convex(costs)[axes].permute(0, *(a + 1 for a in axes))
    torch.testing.assert_close(coupled_convex(permuted), expected, rtol=0, atol=1e-12)
