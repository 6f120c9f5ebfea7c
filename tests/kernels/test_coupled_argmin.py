"""The coupled argmin against naive loops."""

from __future__ import annotations

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.kernels.coupled_argmin import coupled_argmin

CASES = [((1, 1, 1), (0, 0, 0)), ((1, 3, 5), (0, 1, 2)), ((5, 7, 6), (2, 1, 1)), ((11, 3, 7), (0, 2, 1))]


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
    assert found.is_contiguous()


def test_inputs_are_left_alone() -> None:
    costs, toward = _costs((2, 3, 4), (1, 1, 1)), oracles.noise(3, 2, 3, 4)
    before = costs.clone(), toward.clone()
    coupled_argmin(costs, toward=toward, theta=0.5)
    assert torch.equal(costs, before[0])
    assert torch.equal(toward, before[1])


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), axes=st.permutations(range(3)), theta=st.floats(0, 2))
def test_swapping_axes_swaps_the_field(seed: int, axes: list[int], theta: float) -> None:
    costs, toward = _costs((2, 3, 4), (1, 2, 0), seed), oracles.noise(3, 2, 3, 4, seed=seed + 1)
    turned = costs.permute(*axes, *(a + 3 for a in axes))
    found = coupled_argmin(turned, toward=toward[axes].permute(0, *(a + 1 for a in axes)), theta=theta)
    expected = coupled_argmin(costs, toward=toward, theta=theta)[axes].permute(0, *(a + 1 for a in axes))
    assert torch.equal(found, expected)
