"""What is minimised: a similarity and regularisers, added up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
import torch

from convexadam.continuous import Bending, Diffusion, VolumePreserving
from convexadam.continuous.problem import Problem
from convexadam.kernels.warp_ssd import compared

SHAPE = (4, 5, 3)
COSTS: dict[str, list[Any]] = {
    "none": [],
    "diffusion": [Diffusion(weight=0.7)],
    "twice": [Diffusion(weight=0.3), Diffusion(weight=0.4)],
    "bending": [Bending(weight=0.2)],
    "all": [Diffusion(weight=0.7), Bending(weight=0.2), VolumePreserving(weight=1.5), Diffusion(weight=0.1)],
}


class Pull:
    """A cost of one's own: ``weight`` times the squared length, summed."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(
        self, displacement: torch.Tensor, *, onto: torch.Tensor | None = None, soft_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gradient = 2 * self.weight * displacement
        return self.weight * displacement.square().sum(), gradient if onto is None else onto.add_(gradient)


def _maps() -> tuple[torch.Tensor, ...]:
    """Features of two channels and weights without gaps."""
    features = (oracles.noise(2, *SHAPE), oracles.noise(2, *SHAPE, seed=1))
    return *features, *(oracles.uniform(*SHAPE, seed=s, low=0.2) for s in (2, 3))


def _problem(costs: list[Any], soft_mask: torch.Tensor | None = None) -> Problem:
    fixed, moving, wf, wm = _maps()
    comparison = compared(fixed, moving, fixed_weight=wf, moving_weight=wm)
    return Problem(comparison, costs, (fixed, moving, wf, wm), soft_mask=soft_mask)


def _cost(u: np.ndarray, costs: list[Any], soft_mask: torch.Tensor | None) -> float:
    share = None if soft_mask is None else soft_mask.numpy()
    energies: dict[type, Callable[[], float]] = {
        Diffusion: lambda: oracles.diffusion_energy(u),
        Bending: lambda: oracles.bending_energy(u),
        VolumePreserving: lambda: oracles.volume_change(u, share),
        Pull: lambda: float((u**2).sum()),
    }
    return sum(cost.weight * energies[type(cost)]() for cost in costs)


def _start() -> torch.Tensor:
    """Displacements that lead to places between nodes, within the volume."""
    return oracles.uniform(3, *SHAPE, seed=4, low=0.1, high=0.3)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("masked", [False, True])
def test_values_add_up_and_the_gradient_is_theirs(name: str, masked: bool) -> None:
    costs, soft_mask = [*COSTS[name], Pull(0.05)], oracles.uniform(*SHAPE, seed=5) if masked else None
    problem, u = _problem(costs, soft_mask), _start()
    fixed, moving, wf, wm = (t.numpy() for t in _maps())
    weights = oracles.ssd_weights(u.numpy(), wf, wm)
    value, gradient = problem(u, out=torch.empty_like(u))
    expected = oracles.ssd(fixed, moving, u.numpy(), weights) + _cost(u.numpy(), costs, soft_mask)
    assert value == pytest.approx(expected, rel=1e-12)
    # The weight is held constant, as said of a comparison.
    slopes = oracles.ssd_gradient(fixed, moving, u.numpy(), weights)
    for at in np.ndindex(*u.shape):
        up, down = u.numpy().copy(), u.numpy().copy()
        up[at] += 1e-5
        down[at] -= 1e-5
        slopes[at] += (_cost(up, costs, soft_mask) - _cost(down, costs, soft_mask)) / 2e-5
    # Values of about 1 have digits of 1e-16, over 2e-5; third derivatives are below 1e2.
    np.testing.assert_allclose(gradient.numpy(), slopes, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", COSTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_however_it_is_asked(name: str, dtype: torch.dtype) -> None:
    fixed, moving, wf, wm = (t.to(dtype) for t in _maps())
    comparison = compared(fixed, moving, fixed_weight=wf, moving_weight=wm)
    soft_mask = oracles.uniform(*SHAPE, seed=5).to(dtype)
    problem = Problem(comparison, [*COSTS[name], Pull(0.05)], (fixed, moving, wf, wm), soft_mask=soft_mask)
    u = _start().to(dtype)
    value, gradient = problem(u, out=torch.empty_like(u))
    out = torch.full_like(u, torch.nan)
    assert problem.gradient(u, out=out) is out
    four = torch.full((4, *SHAPE), torch.nan, dtype=dtype)
    again, found, scale = problem.curvature(u, out=four)
    close = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(out, gradient, rtol=0, atol=close)
    assert found is four
    assert again == pytest.approx(value, rel=close)
    torch.testing.assert_close(found[:3], gradient, rtol=0, atol=close)
    # volumes are the only cost with a curvature of its own, of which the scale has no part
    plain = comparison.curvature(u)[1][3]
    own = 1.5 / soft_mask.numel() * soft_mask if name == "all" else 0
    torch.testing.assert_close(found[3], plain + own, rtol=0, atol=close)
    assert scale == pytest.approx(float(plain.mean()), rel=close)
    assert u.equal(_start().to(dtype))


def test_the_least_gradient_is_that_of_a_hundredth_of_a_node() -> None:
    _, moving, wf, wm = (t.numpy() for t in _maps())
    u = _start()
    curvature = oracles.gauss_newton(moving, u.numpy(), oracles.ssd_weights(u.numpy(), wf, wm))[[0, 3, 5]].mean(0)
    assert (curvature > 0).sum() == 59  # but for the last node, which is held at the edge along each axis
    assert _problem([]).least_gradient(u) == pytest.approx(0.01 * curvature[curvature > 0].mean(), rel=1e-9)
    assert _problem(COSTS["all"]).least_gradient(u) == _problem([]).least_gradient(u)


def test_nodes_that_nothing_is_known_of_do_not_lower_it() -> None:
    fixed, moving, _, _ = _maps()
    moving[:, :2] = 0  # flat: a displacement within changes nothing
    u = torch.zeros(3, *SHAPE, dtype=torch.float64) + 0.25
    half = Problem(compared(fixed, moving), [], (fixed, moving, None, None)).least_gradient(u)
    curvature = oracles.gauss_newton(moving.numpy(), u.numpy(), np.ones(SHAPE))[[0, 3, 5]].mean(0)
    assert not curvature[0].any()
    assert half == pytest.approx(0.01 * curvature[curvature > 0].mean(), rel=1e-9)


def test_of_flat_maps_it_is_one() -> None:
    flat = torch.ones(2, *SHAPE)
    assert Problem(compared(flat, flat), [], (flat, flat, None, None)).least_gradient(_start().float()) == 1
