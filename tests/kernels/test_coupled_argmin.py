"""The coupled argmin against naive loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.kernels import coupled_argmin as operation
from convexadam.kernels.window import Window

CASES = [((1, 1, 1), (0, 0, 0)), ((1, 3, 5), (0, 1, 2)), ((5, 7, 6), (2, 1, 1)), ((11, 3, 7), (0, 2, 1))]


def coupled_argmin(costs: torch.Tensor, **options: Any) -> torch.Tensor:
    """Call it with costs ``[di, dj, dk, i, j, k]`` of a box."""
    window = Window((costs.shape[0] // 2, costs.shape[1] // 2, costs.shape[2] // 2))
    return operation.coupled_argmin(costs.flatten(0, 2), window, **options)


def _costs(shape: tuple[int, int, int], radius: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    return oracles.noise(*(2 * r + 1 for r in radius), *shape, seed=seed)


@pytest.mark.parametrize(("shape", "radius"), CASES)
@pytest.mark.parametrize("theta", [None, 0.0, 0.1, 3.0])
def test_equals_naive_loops(shape: tuple[int, int, int], radius: tuple[int, int, int], theta: float | None) -> None:
    costs, toward = _costs(shape, radius), oracles.noise(3, *shape, seed=1)  # float64 noise has no ties
    if theta is None:
        found, expected = coupled_argmin(costs), oracles.coupled_argmin(costs.numpy())
    else:
        found = coupled_argmin(costs, toward=toward, theta=theta)
        expected = oracles.coupled_argmin(costs.numpy(), toward.numpy(), theta)
    assert torch.equal(found, torch.from_numpy(expected))


def test_float32_chooses_a_label_as_cheap_as_the_best() -> None:
    shape, radius, theta = (5, 7, 6), (2, 1, 2), 0.3
    costs, toward = _costs(shape, radius).float(), oracles.noise(3, *shape, seed=1).float()
    chosen = coupled_argmin(costs, toward=toward, theta=theta)
    assert chosen.dtype == torch.float32
    totals = costs.double().clone()
    for index, step in oracles.labels(radius):
        apart = toward.double() - torch.tensor(step, dtype=torch.float64).reshape(3, 1, 1, 1)
        totals[index] += theta * apart.square().sum(0)
    label = (chosen + torch.tensor(radius).reshape(3, 1, 1, 1)).long()
    place = torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")
    paid = totals[label[0], label[1], label[2], place[0], place[1], place[2]]
    # Eight roundings (difference, square, weight, three sums) of numbers as large as the largest total, on both sides.
    allowed = 2 * 8 * torch.finfo(torch.float32).eps * totals.abs().amax((0, 1, 2))
    assert bool((paid <= totals.amin((0, 1, 2)) + allowed).all())


@pytest.mark.parametrize(("shape", "radius"), CASES)
def test_equal_costs_give_no_displacement(shape: tuple[int, int, int], radius: tuple[int, int, int]) -> None:
    assert not coupled_argmin(torch.full_like(_costs(shape, radius), 0.7)).any()


def test_of_equal_costs_the_smallest_displacement_wins() -> None:
    costs = torch.ones(7, 5, 5, 1, 2, 1)
    for step in [(3, 0, 0), (1, -2, 1), (-1, 1, 1), (-2, 2, 2)]:
        costs[step[0] + 3, step[1] + 2, step[2] + 2, 0, 0, 0] = 0.25
    found = coupled_argmin(costs)
    assert found[:, 0, 0, 0].tolist() == [-1, 1, 1]
    assert found[:, 0, 1, 0].tolist() == [0, 0, 0]


def test_of_equal_sums_the_smallest_displacement_wins() -> None:
    # Halfway between two labels both pulls are equal (exactly, in binary).
    costs, toward = torch.zeros(5, 1, 5, 1, 1, 1), torch.zeros(3, 1, 1, 1)
    toward[0], toward[2] = 0.5, -1.5
    assert coupled_argmin(costs, toward=toward, theta=1.0).ravel().tolist() == [0, 0, -1]


def test_a_strong_pull_rounds_the_field() -> None:
    toward = oracles.uniform(3, 4, 3, 5, low=-2.4, high=2.4)
    found = coupled_argmin(_costs((4, 3, 5), (2, 2, 2)), toward=toward, theta=1e6)
    assert torch.equal(found, toward.round())


def test_non_contiguous_costs_and_field() -> None:
    costs = oracles.noise(4, 3, 5, 3, 3, 3, seed=2).permute(3, 4, 5, 0, 1, 2)
    toward = oracles.noise(4, 3, 5, 3, seed=3).movedim(-1, 0)
    found = coupled_argmin(costs, toward=toward, theta=0.2)
    assert torch.equal(found, torch.from_numpy(oracles.coupled_argmin(costs.numpy(), toward.numpy(), 0.2)))
    fine = coupled_argmin(costs, toward=toward, theta=0.2, parabolic_fit=True)
    assert torch.equal(
        fine, coupled_argmin(costs.contiguous(), toward=toward.contiguous(), theta=0.2, parabolic_fit=True)
    )


def test_inputs_are_left_alone() -> None:
    costs, toward = _costs((2, 3, 4), (1, 1, 1)), oracles.noise(3, 2, 3, 4)
    before = costs.clone(), toward.clone()
    for parabolic_fit in (False, True):
        coupled_argmin(costs, toward=toward, theta=0.5, parabolic_fit=parabolic_fit)
        coupled_argmin(costs, parabolic_fit=parabolic_fit)
    assert torch.equal(costs, before[0])
    assert torch.equal(toward, before[1])


# Fractions of a cell ------------------------------------------------------------------------------------------------


def _quadratic(
    lowest: torch.Tensor, radius: tuple[int, int, int], steepness: tuple[float, float, float]
) -> torch.Tensor:
    """Costs ``sum_a steepness_a (d_a - lowest_a(x))^2``."""
    costs = lowest.new_empty((*(2 * r + 1 for r in radius), *lowest.shape[1:]))
    for index, step in oracles.labels(radius):
        costs[index] = sum(c * (s - lowest[a]) ** 2 for a, (c, s) in enumerate(zip(steepness, step, strict=True)))
    return costs


def _smallest_curvature(costs: torch.Tensor, toward: torch.Tensor | None, theta: float) -> float:
    """Least second difference around the minima inside the window, of the summed costs."""
    best = oracles.coupled_argmin(costs.numpy(), None if toward is None else toward.numpy(), theta)
    radius, least = [w // 2 for w in costs.shape[:3]], float("inf")
    for x in np.ndindex(*costs.shape[3:]):
        here = [int(s) + r for s, r in zip(best[(slice(None), *x)], radius, strict=True)]
        for axis in range(3):
            if 0 < here[axis] < 2 * radius[axis]:
                beside = [tuple(n + t * (a == axis) for a, n in enumerate(here)) for t in (-1, 1)]
                low, high = (float(costs[(*label, *x)]) for label in beside)
                pull = 0.0 if toward is None else 2 * theta  # second difference of theta t^2
                least = min(least, low + high - 2 * float(costs[(*here, *x)]) + pull)
    return least


@pytest.mark.parametrize(("shape", "radius"), CASES)
@pytest.mark.parametrize("theta", [None, 0.1, 3.0])
def test_fractions_equal_naive_loops(shape: tuple[int, int, int], radius: tuple[int, int, int], theta: Any) -> None:
    costs = _costs(shape, radius, seed=4)
    toward = None if theta is None else oracles.noise(3, *shape, seed=5)
    weight = theta or 0.0
    found = coupled_argmin(costs, toward=toward, theta=weight, parabolic_fit=True)
    expected = oracles.coupled_argmin(
        costs.numpy(), None if toward is None else toward.numpy(), weight, parabolic_fit=True
    )
    # The sums of the naive loop err by ten roundings of the largest, and so do differences of them; the offset is
    # their ratio to (twice) the curvature, and at most one half.
    largest = float(costs.abs().max()) + weight * 3 * (max(radius) + 6) ** 2
    allowed = 2 * 10 * torch.finfo(torch.float64).eps * largest / min(_smallest_curvature(costs, toward, weight), 1.0)
    assert allowed < 1e-9
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=allowed)
    if max(radius) > 0:
        assert (found - found.round()).abs().max() > 0.1


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), theta=st.floats(0, 2))
def test_fractions_stay_within_half_a_cell_of_the_choice(seed: int, theta: float) -> None:
    shape, radius = (3, 4, 2), (1, 2, 0)
    costs, toward = _costs(shape, radius, seed).float(), oracles.noise(3, *shape, seed=seed + 1).float()
    whole = coupled_argmin(costs, toward=toward, theta=theta)
    offset = coupled_argmin(costs, toward=toward, theta=theta, parabolic_fit=True) - whole
    assert offset.abs().max() <= 0.5
    for axis, r in enumerate(radius):  # at the window's border there is no neighbour on one side
        assert not offset[axis][whole[axis].abs() == r].any()


def test_a_flat_or_one_sided_minimum_has_its_limits() -> None:
    def offset(*values: float) -> float:
        costs = torch.ones(1, 1, 5, 1, 1, 1, dtype=torch.float64) * 9
        costs[0, 0, 1:4, 0, 0, 0] = torch.tensor(values, dtype=torch.float64)
        return coupled_argmin(costs, parabolic_fit=True)[2].item()

    assert offset(1, 1, 1) == 0  # nothing to fit
    assert offset(2, 1, 1) == 0.5  # half-way between two equal ones
    assert offset(1, 1, 2) == -0.5
    assert offset(3, 1, 3) == 0
    assert offset(4, 1, 2) == 0.25  # 2 t^2 - t + 1
    assert offset(1e-300, 0, 1e-300) == 0  # no division by nothing


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_lowest_point_of_a_quadratic_cost_is_exact(dtype: torch.dtype) -> None:
    shape, radius, steepness = (3, 5, 4), (2, 1, 3), (0.5, 2.0, 1.0)
    reach = torch.tensor(radius).reshape(3, 1, 1, 1) - 0.5  # up to there the nearest cell has both its neighbours
    lowest = (reach * oracles.uniform(3, *shape, low=-1, high=1)).to(dtype)
    found = coupled_argmin(_quadratic(lowest, radius, steepness), parabolic_fit=True)
    assert found.dtype == dtype
    # Costs of up to 40, of some ten roundings each, over a curvature of 2 * 0.5 and more.
    torch.testing.assert_close(found, lowest, rtol=0, atol=10 * 40 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("theta", [0.25, 1.0, 8.0])
def test_the_pull_enters_the_parabola(theta: float) -> None:
    # c (d - m)^2 + theta (d - u)^2 is lowest at (c m + theta u) / (c + theta).
    shape, radius, steepness = (3, 5, 4), (2, 2, 2), (0.5, 2.0, 1.0)
    lowest, toward = (oracles.uniform(3, *shape, seed=s, low=-1.4, high=1.4) for s in (1, 2))
    found = coupled_argmin(_quadratic(lowest, radius, steepness), toward=toward, theta=theta, parabolic_fit=True)
    c = torch.tensor(steepness, dtype=torch.float64).reshape(3, 1, 1, 1)
    torch.testing.assert_close(found, (c * lowest + theta * toward) / (c + theta), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), axes=st.permutations(range(3)))
def test_swapping_axes_swaps_the_fractions(seed: int, axes: list[int]) -> None:
    costs = _costs((2, 3, 4), (1, 2, 0), seed)
    found = coupled_argmin(costs.permute(*axes, *(a + 3 for a in axes)), parabolic_fit=True)
    assert torch.equal(found, coupled_argmin(costs, parabolic_fit=True)[axes].permute(0, *(a + 1 for a in axes)))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), axes=st.permutations(range(3)), theta=st.floats(0, 2))
def test_swapping_axes_swaps_the_field(seed: int, axes: list[int], theta: float) -> None:
    costs, toward = _costs((2, 3, 4), (1, 2, 0), seed), oracles.noise(3, 2, 3, 4, seed=seed + 1)
    turned = costs.permute(*axes, *(a + 3 for a in axes))
    found = coupled_argmin(turned, toward=toward[axes].permute(0, *(a + 1 for a in axes)), theta=theta)
    expected = coupled_argmin(costs, toward=toward, theta=theta)[axes].permute(0, *(a + 1 for a in axes))
    assert torch.equal(found, expected)
