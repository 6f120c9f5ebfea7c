"""The cost volume, its reverse and its gaps against naive loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.kernels import cost_volume as operation
from convexadam.kernels.cost_volume import reference
from convexadam.kernels.cost_volume.reference import fill_gaps
from convexadam.kernels.window import Window

CASES = [
    ((1, 1, 1), (0, 0, 0)),
    ((1, 5, 3), (0, 2, 1)),
    ((5, 7, 6), (1, 2, 1)),
    ((7, 3, 2), (2, 1, 3)),  # the radius exceeds the last axis
]


def cost_volume(fixed: torch.Tensor, moving: torch.Tensor, radius: tuple[int, int, int], **o: Any) -> torch.Tensor:
    """Costs ``[di, dj, dk, i, j, k]`` of a box."""
    costs = operation.cost_volume(fixed, moving, Window(radius), **o)
    return costs.unflatten(0, [2 * r + 1 for r in radius])


def feature_distances(fixed: torch.Tensor, moving: torch.Tensor, radius: tuple[int, int, int]) -> torch.Tensor:
    """Distances ``[di, dj, dk, i, j, k]`` of a box."""
    return reference.feature_distances(fixed, moving, Window(radius)).unflatten(0, [2 * r + 1 for r in radius])


def mean_over_neighbours(distances: torch.Tensor, **options: torch.Tensor) -> torch.Tensor:
    """Means of distances ``[di, dj, dk, i, j, k]`` of a box."""
    widths = distances.shape[:3]
    window = Window((widths[0] // 2, widths[1] // 2, widths[2] // 2))
    return reference.mean_over_neighbours(distances.flatten(0, 2), window, **options).unflatten(0, widths)


def _pair(shape: tuple[int, int, int], channels: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return oracles.noise(channels, *shape, seed=seed), oracles.noise(channels, *shape, seed=seed + 1)


def _expected(*args: Any, **options: Any) -> np.ndarray:
    return oracles.fill_without_evidence(oracles.cost_volume(*args, **options))


def _weights(shape: tuple[int, int, int], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    fixed, moving = oracles.uniform(*shape, seed=seed), oracles.uniform(*shape, seed=seed + 1)
    fixed[: shape[0] // 2] = 0
    moving[..., shape[2] // 2 :] = 0
    return fixed, moving


@pytest.mark.parametrize(("shape", "radius"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_equals_naive_loops(shape: tuple[int, int, int], radius: tuple[int, int, int], channels: int) -> None:
    fixed, moving = _pair(shape, channels)
    found = cost_volume(fixed, moving, radius)
    expected = torch.from_numpy(_expected(fixed.numpy(), moving.numpy(), radius))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "radius"), CASES[1:])
def test_weights_equal_naive_loops(shape: tuple[int, int, int], radius: tuple[int, int, int]) -> None:
    fixed, moving = _pair(shape, seed=2)
    fixed_weight, moving_weight = _weights(shape, seed=3)
    found = cost_volume(fixed, moving, radius, fixed_weight=fixed_weight, moving_weight=moving_weight)
    arrays = [a.numpy() for a in (fixed, moving)]
    expected = _expected(*arrays, radius, fixed_weight.numpy(), moving_weight.numpy())
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_one_weight_alone(which: str) -> None:
    shape, radius = (3, 5, 4), (1, 1, 1)
    fixed, moving = _pair(shape, seed=5)
    weight = oracles.uniform(*shape, seed=6)
    found = cost_volume(fixed, moving, radius, **{f"{which}_weight": weight})
    expected = _expected(fixed.numpy(), moving.numpy(), radius, **{f"{which}_weight": weight.numpy()})
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("shape", "radius"), CASES)
@pytest.mark.parametrize("channels", [1, 3])
def test_distances_equal_naive_loops(shape: tuple[int, int, int], radius: tuple[int, int, int], channels: int) -> None:
    fixed, moving = _pair(shape, channels, seed=1)
    found = feature_distances(fixed, moving, radius)
    expected = torch.from_numpy(oracles.feature_distances(fixed.numpy(), moving.numpy(), radius))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)  # three squares added in any order


@pytest.mark.parametrize(("shape", "radius"), CASES)
@pytest.mark.parametrize("weighted", [False, True])
def test_costs_are_the_means_of_the_distances(
    shape: tuple[int, int, int], radius: tuple[int, int, int], weighted: bool
) -> None:
    fixed, moving = _pair(shape, 3, seed=4)
    a, b = _weights(shape, seed=5)
    options = {"fixed_weight": a, "moving_weight": b} if weighted else {}
    distances = feature_distances(fixed, moving, radius)
    found = mean_over_neighbours(distances, **options)
    assert torch.equal(fill_gaps(found.flatten(0, 2)).view_as(found), cost_volume(fixed, moving, radius, **options))


def test_float32_errs_no_more_than_rounding_explains() -> None:
    shape, radius = (5, 7, 6), (1, 2, 1)
    fixed, moving = (a.float() for a in _pair(shape, 12))
    found = cost_volume(fixed, moving, radius).double()
    expected = torch.from_numpy(_expected(fixed.double().numpy(), moving.double().numpy(), radius))
    # Only positive terms are added: 12 channels, then five taps along three axes in the sum and in the divisor. The
    # subtraction before the square is exact to half an eps of the difference, doubled by the square.
    rtol = (12 + 2 * 3 * 5 + 4) * torch.finfo(torch.float32).eps
    torch.testing.assert_close(found, expected, rtol=rtol, atol=0)


def test_non_contiguous_inputs() -> None:
    fixed, moving = oracles.noise(6, 4, 5, 2, seed=7), oracles.noise(2, 4, 5, 12, seed=8)
    fixed, moving = fixed.movedim(-1, 0), moving[..., ::2]  # [2, 6, 4, 5] and [2, 4, 5, 6]
    moving = moving.permute(0, 3, 1, 2)
    weight = oracles.uniform(5, 6, 4, seed=9).permute(1, 2, 0)
    assert not any(t.is_contiguous() for t in (fixed, moving, weight))
    found = cost_volume(fixed, moving, (1, 0, 2), fixed_weight=weight, moving_weight=weight)
    copies = [t.contiguous() for t in (fixed, moving)]
    kept = weight.contiguous()
    torch.testing.assert_close(found, cost_volume(*copies, (1, 0, 2), fixed_weight=kept, moving_weight=kept))
    expected = _expected(fixed.numpy(), moving.numpy(), (1, 0, 2), weight.numpy(), weight.numpy())
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-12, atol=1e-12)


def test_constant_difference_costs_the_same_up_to_the_border() -> None:
    fixed, moving = torch.full((3, 4, 5, 6), 2.0), torch.full((3, 4, 5, 6), 0.5)
    costs = cost_volume(fixed, moving, (2, 2, 2))
    # 3 channels of 1.5 squared; no zero padding: each displacement that has evidence costs the same.
    torch.testing.assert_close(costs, torch.full_like(costs, 6.75), rtol=1e-6, atol=0)


def test_inputs_are_left_alone() -> None:
    fixed, moving = _pair((3, 4, 5))
    weight = oracles.uniform(3, 4, 5)
    before = [t.clone() for t in (fixed, moving, weight)]
    cost_volume(fixed, moving, (1, 1, 1), fixed_weight=weight, moving_weight=weight)
    distances = feature_distances(fixed, moving, (1, 1, 1))
    mean_over_neighbours(distances, fixed_weight=weight, moving_weight=weight)
    assert all(torch.equal(a, b) for a, b in zip(before, (fixed, moving, weight), strict=True))


@pytest.mark.parametrize("weighted", [False, True])
def test_the_other_direction_has_the_same_costs_far_from_the_border(weighted: bool) -> None:
    shape, radius = (9, 8, 7), (2, 1, 1)
    fixed, moving = _pair(shape, seed=12)
    a, b = oracles.uniform(*shape, seed=13, low=0.1), oracles.uniform(*shape, seed=14, low=0.1)
    forward = cost_volume(fixed, moving, radius, **({"fixed_weight": a, "moving_weight": b} if weighted else {}))
    backward = cost_volume(moving, fixed, radius, **({"fixed_weight": b, "moving_weight": a} if weighted else {}))
    compared = 0
    for index, step in oracles.labels(radius):
        # Where neither filter window (two cells) reaches a border: x and x + d at least two cells inside.
        low = [2 + max(-s, 0) for s in step]
        high = [n - 2 - max(s, 0) for n, s in zip(shape, step, strict=True)]
        part = (*index, *(slice(p, q) for p, q in zip(low, high, strict=True)))
        opposite = tuple(2 * r - n for r, n in zip(radius, index, strict=True))
        partner = (*opposite, *(slice(p + s, q + s) for p, q, s in zip(low, high, step, strict=True)))
        torch.testing.assert_close(backward[part], forward[partner], rtol=1e-12, atol=1e-12)
        compared += backward[part].numel()
    assert compared > 500


def test_gaps_are_filled_with_the_mean() -> None:
    costs = oracles.noise(3, 3, 5, 4, 3, 2, seed=15)
    costs[oracles.uniform(*costs.shape, seed=16) < 0.4] = torch.inf
    costs[..., 0, 0, 0] = torch.inf
    expected = torch.from_numpy(oracles.fill_without_evidence(costs.numpy()))
    flat = costs.flatten(0, 2)
    found = fill_gaps(flat).view_as(costs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert torch.equal(found[..., 0, 0, 0], torch.zeros(3, 3, 5, dtype=torch.float64))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), axes=st.permutations(range(3)))
def test_swapping_axes_swaps_the_costs(seed: int, axes: list[int]) -> None:
    fixed, moving = _pair((3, 4, 5), seed=seed)
    radius = (1, 0, 2)
    turned = [t.permute(0, *(a + 1 for a in axes)) for t in (fixed, moving)]
    i, j, k = (radius[a] for a in axes)
    expected = cost_volume(fixed, moving, radius).permute(*axes, *(a + 3 for a in axes))
    torch.testing.assert_close(cost_volume(*turned, (i, j, k)), expected, rtol=1e-12, atol=1e-12)
