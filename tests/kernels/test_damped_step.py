"""A damped second-order step against a naive loop."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairwise import pairwise

from convexadam.kernels.damped_step import damped_step, judge_step

Shape = tuple[int, int, int]


def _maps(shape: Shape, seed: int = 0) -> list[torch.Tensor]:
    """Gradient and curvature of each node, and others in the place of their means; some nodes have no curvature."""
    maps = [
        torch.cat([oracles.noise(3, *shape, seed=s), oracles.uniform(1, *shape, seed=s + 2)]) for s in (seed, seed + 1)
    ]
    for each in maps:
        each[3] = (each[3] - 0.2).clamp_min(0)
    return maps


@pytest.mark.parametrize(
    ("shape", "damping", "longest"), pairwise([(1, 1, 1), (1, 7, 5), (3, 4, 6)], [0.01, 3.0], [math.inf, 0.5])
)
def test_equals_the_formula(shape: Shape, damping: float, longest: float) -> None:
    slopes, means = _maps(shape)
    expected, gain = oracles.damped_step(slopes.numpy(), means.numpy(), damping, longest)
    step, predicted = damped_step(slopes, means, damping=damping, longest=longest)
    np.testing.assert_allclose(step.numpy(), expected, rtol=1e-12, atol=0)
    # steps of up to 3 / 0.01 nodes, the squares of which are added up
    assert predicted == pytest.approx(gain, rel=1e-12, abs=1e-9)


@settings(deadline=None, max_examples=25, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(1, 5)] * 3),
    seed=st.integers(0, 999),
    damping=st.floats(1e-3, 1e3),
    longest=st.floats(1e-3, 1e3),
)
def test_cut_steps_keep_their_direction(shape: Shape, seed: int, damping: float, longest: float) -> None:
    slopes, means = _maps(shape, seed)
    free, cut = (damped_step(slopes, means.clone(), damping=damping, longest=at)[0] for at in (math.inf, longest))
    lengths = free.norm(dim=0)
    torch.testing.assert_close(cut.norm(dim=0), lengths.clamp_max(longest), rtol=1e-12, atol=0)
    torch.testing.assert_close(cut * lengths, free * cut.norm(dim=0), rtol=1e-12, atol=0)


@pytest.mark.parametrize("damping", [0.1, 1.0, 10.0])
def test_of_a_parabola_the_gain_is_known(damping: float) -> None:
    # h / 2 |u - goal|^2 of each node, from 0: the step goes the share h / (h + damping) of the way, which gains so much
    goal, curvature = oracles.noise(3, 4, 5, 3), 2.0
    slopes = torch.cat([-curvature * goal, torch.full((1, 4, 5, 3), curvature, dtype=goal.dtype)])
    step, predicted = damped_step(slopes, slopes.clone(), damping=damping)
    share = curvature / (curvature + damping)
    torch.testing.assert_close(step, share * goal, rtol=1e-12, atol=0)
    left = (1 - share) ** 2
    assert predicted == pytest.approx(float(curvature / 2 * goal.square().sum()) * (1 - left), rel=1e-12)


def test_the_step_lies_where_the_means_were_and_the_rest_is_left_alone() -> None:
    slopes, means = _maps((3, 4, 5))
    before = slopes.clone(), means.clone()
    step, _ = damped_step(slopes, means, damping=0.5, longest=0.3)
    assert step.data_ptr() == means.data_ptr()
    assert torch.equal(step, means[:3])
    assert torch.equal(means[3], before[1][3])
    assert torch.equal(slopes, before[0])


def test_no_gradient_no_step_and_no_gain() -> None:
    slopes, means = _maps((2, 3, 4))
    slopes[:3] = means[:3] = 0
    step, predicted = damped_step(slopes, means, damping=0.5, longest=0.5)
    assert not step.any()
    assert predicted == 0


def test_non_contiguous_maps() -> None:
    slopes, means = (m.transpose(1, 3) for m in _maps((5, 4, 3)))
    expected = damped_step(slopes.contiguous(), means.contiguous(), damping=0.2, longest=0.5)
    assert not means.is_contiguous()
    step, predicted = damped_step(slopes, means, damping=0.2, longest=0.5)
    assert torch.equal(step, means[:3])
    torch.testing.assert_close(step, expected[0], rtol=1e-14, atol=0)
    assert float(predicted) == pytest.approx(float(expected[1]), rel=1e-12)


def test_the_scale_multiplies_the_damping() -> None:
    slopes, means = _maps((3, 4, 6))
    expected, gain = damped_step(slopes, means.clone(), damping=0.75)
    damping, scale = torch.tensor(1.5, dtype=torch.float64), torch.tensor(0.5)
    step, predicted = damped_step(slopes, means, damping=damping, scale=scale)
    assert step.equal(expected)
    assert predicted == gain


@pytest.mark.parametrize(
    ("decrease", "scale", "taken", "factor"),
    [
        (0.9, 2.0, True, 0.5),
        (0.75, 2.0, True, 1.0),
        (0.3, 2.0, True, 1.0),
        (0.2, 2.0, True, 3.0),
        (0.0, 2.0, True, 3.0),
        (-0.1, 2.0, False, 3.0),
        (0.9, 0.0, False, 0.5),
        (math.nan, 2.0, False, 1.0),
    ],
)
def test_judges_by_the_decrease(decrease: float, scale: float, taken: bool, factor: float) -> None:
    damping = torch.tensor(8.0, dtype=torch.float64)
    value, new_value, predicted = (torch.tensor(v, dtype=torch.float64) for v in (4.0, 4 - 4 * decrease, 4.0))
    assert bool(judge_step(damping, value, new_value, predicted, torch.tensor(scale), least=0.5)) == taken
    assert damping == 8 * factor


@pytest.mark.parametrize(("decrease", "before", "after"), [(1.0, 0.75, 0.5), (0.0, 5e5, 1e6)])
def test_damping_has_limits(decrease: float, before: float, after: float) -> None:
    damping, one = torch.tensor(before, dtype=torch.float64), torch.tensor(1.0)
    judge_step(damping, torch.tensor(decrease), torch.tensor(0.0), one, one, least=0.5)
    assert damping == after
