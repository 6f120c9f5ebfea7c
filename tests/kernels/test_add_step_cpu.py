"""Composition with a step on the CPU against torch in float64: short steps take one way, long ones another."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.warp import add_opposite_steps, add_step, reference

LENGTHS = [0.3, 1.0, 1.0001, 7.5]


def _fields(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    return noise(3, *shape), noise(3, *shape, seed=1)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "longest"),
    pairwise([1, 3], [*SHAPES, (2, 2, 2), (2, 3, 514), NODES], LENGTHS),
    indirect=["threads"],
)
def test_errs_no_more_than_torch(shape: Shape, longest: float) -> None:
    assert_within_budget(on_cpu(add_step), reference.add_step, *_fields(shape), longest=longest)


@pytest.mark.parametrize(
    ("shape", "longest", "factors"), pairwise(SHAPES, [0.3, 7.5, math.inf], [(0.5, -0.5), (1.0, 0.0), (0.0, -2.0)])
)
def test_factors_of_both_terms(shape: Shape, longest: float, factors: tuple[float, float]) -> None:
    options = {"longest": longest, "factors": factors}
    assert_within_budget(on_cpu(add_step), reference.add_step, *_fields(shape), **options)


def test_without_a_limit_no_step_is_cut() -> None:
    displacement, step = _fields((4, 5, 6))
    expected = on_cpu(add_step)(displacement, 9 * step, longest=1e9)
    assert torch.equal(on_cpu(add_step)(displacement, 9 * step), expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("longest", LENGTHS)
def test_an_axis_of_one_node(axis: int, longest: float) -> None:
    shape = [5, 7, 6]
    shape[axis] = 1
    displacement, step = _fields((shape[0], shape[1], shape[2]))
    assert_within_budget(on_cpu(add_step), reference.add_step, displacement, 3 * step, longest=longest)


@pytest.mark.parametrize("longest", LENGTHS)
def test_steps_far_beyond_the_border_read_the_edge(longest: float) -> None:
    displacement, step = _fields((4, 5, 6))
    assert_within_budget(on_cpu(add_step), reference.add_step, displacement, 100 * step, longest=100 * longest)


@pytest.mark.parametrize("longest", LENGTHS)
def test_no_step_changes_nothing(longest: float) -> None:
    displacement, step = _fields((4, 5, 6))
    assert torch.equal(on_cpu(add_step)(displacement, 0 * step, longest=longest), displacement)


@pytest.mark.parametrize("longest", LENGTHS)
def test_tiny_steps_are_not_lost(longest: float) -> None:
    step = 1e-30 * noise(3, 4, 5, 6)
    torch.testing.assert_close(on_cpu(add_step)(0 * step, step, longest=longest), step, rtol=3e-7, atol=0)


@pytest.mark.parametrize("longest", LENGTHS)
def test_steps_of_up_to_the_longest_are_not_cut(longest: float) -> None:
    step = torch.zeros(3, 3, 4, 5)
    step[1] = 0.25
    found = on_cpu(add_step)(torch.zeros_like(step), step, longest=longest)
    torch.testing.assert_close(found, step, rtol=3e-7, atol=0)
    step[1], cut = 100, torch.zeros_like(step)
    cut[1] = longest
    found = on_cpu(add_step)(torch.zeros_like(step), step, longest=longest)
    torch.testing.assert_close(found, cut, rtol=3e-7, atol=0)


def test_both_ways_agree_where_steps_are_short() -> None:
    displacement, step = _fields((9, 8, 7))
    step = 0.9 * step / torch.linalg.vector_norm(step, dim=0).clamp_min(0.9)
    near = on_cpu(add_step)(displacement, step, longest=1.0)
    far = on_cpu(add_step)(displacement, step, longest=1.5)
    # Shares are right to an eps of a position of up to 10, and the values differ by up to 2 max.
    allowed = 3 * 10 * torch.finfo(torch.float32).eps * 2 * displacement.abs().max()
    assert (near - far).abs().max() <= allowed


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("longest", LENGTHS)
def test_writes_where_it_is_told_and_leaves_its_other_inputs_alone(longest: float) -> None:
    displacement, step = _fields((5, 7, 6))
    before = displacement.clone(), step.clone()
    expected = on_cpu(add_step)(displacement, step, longest=longest)
    for out in (torch.full_like(step, torch.nan), scattered(torch.zeros_like(step))):
        assert on_cpu(add_step)(displacement, step, longest=longest, out=out) is out
        assert torch.equal(out, expected)
    assert torch.equal(displacement, before[0])
    assert torch.equal(step, before[1])
    assert on_cpu(add_step)(displacement, step, longest=longest, out=step) is step
    assert torch.equal(step, expected)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("longest", LENGTHS)
def test_non_contiguous_inputs(longest: float) -> None:
    displacement, step = (scattered(field) for field in _fields((7, 9, 8)))
    assert not displacement.is_contiguous()
    assert not step.is_contiguous()
    assert_within_budget(on_cpu(add_step), reference.add_step, displacement, step, longest=longest)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("implementation", [on_cpu(add_opposite_steps), reference.add_opposite_steps])
def test_opposite_steps(implementation: Any) -> None:
    forward, backward = _fields((5, 7, 6))
    factors = (0.5, -0.25)
    found = implementation(forward, backward, factors=factors)
    step = reference.add_step if implementation is reference.add_opposite_steps else on_cpu(add_step)
    assert torch.equal(found[0], step(backward, forward, longest=math.inf, factors=factors))
    assert torch.equal(found[1], step(forward, backward, longest=math.inf, factors=factors))
