"""The objective: a similarity plus regularisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import oracles
import pytest
import torch

from convexadam.continuous import Bending, Diffusion, VolumePreserving
from convexadam.continuous.objective import RegistrationObjective
from convexadam.kernels.warp_ssd import prepare_ssd

SHAPE = (4, 5, 3)
REGULARISERS: dict[str, list[Any]] = {
    "none": [],
    "diffusion": [Diffusion(weight=0.7)],
    "twice": [Diffusion(weight=0.3), Diffusion(weight=0.4)],
    "bending": [Bending(weight=0.2)],
    "all": [Diffusion(weight=0.7), Bending(weight=0.2), VolumePreserving(weight=1.5), Diffusion(weight=0.1)],
}


class Pull:
    """A regulariser of another package: ``weight`` times the squared length, summed."""

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def __call__(
        self, displacement: torch.Tensor, *, add_to: torch.Tensor | None = None, soft_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        gradient = 2 * self.weight * displacement
        return self.weight * displacement.square().sum(), gradient if add_to is None else add_to.add_(gradient)


def _maps() -> tuple[torch.Tensor, ...]:
    """Features of two channels and weights without gaps."""
    features = (oracles.noise(2, *SHAPE), oracles.noise(2, *SHAPE, seed=1))
    return *features, *(oracles.uniform(*SHAPE, seed=s, low=0.2) for s in (2, 3))


def _objective(regularisers: list[Any], soft_mask: torch.Tensor | None = None) -> RegistrationObjective:
    fixed, moving, wf, wm = _maps()
    term = prepare_ssd(fixed, moving, fixed_weight=wf, moving_weight=wm)
    return RegistrationObjective(term, regularisers, (fixed, moving, wf, wm), soft_mask=soft_mask)


def _cost(u: np.ndarray, regularisers: list[Any], soft_mask: torch.Tensor | None) -> float:
    share = None if soft_mask is None else soft_mask.numpy()
    energies: dict[type, Callable[[], float]] = {
        Diffusion: lambda: oracles.diffusion_energy(u),
        Bending: lambda: oracles.bending_energy(u),
        VolumePreserving: lambda: oracles.volume_change(u, share),
        Pull: lambda: float((u**2).sum()),
    }
    return sum(r.weight * energies[type(r)]() for r in regularisers)


def _start() -> torch.Tensor:
    """Displacements to positions between control points, within the volume."""
    return oracles.uniform(3, *SHAPE, seed=4, low=0.1, high=0.3)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] * (name == "all")) for name in REGULARISERS]
)
@pytest.mark.parametrize("masked", [False, True])
def test_value_and_gradient_are_sums(name: str, masked: bool) -> None:
    regularisers, soft_mask = [*REGULARISERS[name], Pull(0.05)], oracles.uniform(*SHAPE, seed=5) if masked else None
    objective, u = _objective(regularisers, soft_mask), _start()
    fixed, moving, wf, wm = (t.numpy() for t in _maps())
    weights = oracles.ssd_weights(u.numpy(), wf, wm)
    value, gradient = objective(u, out=torch.empty_like(u))
    expected = oracles.ssd(fixed, moving, u.numpy(), weights) + _cost(u.numpy(), regularisers, soft_mask)
    assert value == pytest.approx(expected, rel=1e-12)
    # The gradient holds the overlap weight constant (see `SimilarityTerm`).
    slopes = oracles.ssd_gradient(fixed, moving, u.numpy(), weights)
    for at in np.ndindex(*u.shape):
        up, down = u.numpy().copy(), u.numpy().copy()
        up[at] += 1e-5
        down[at] -= 1e-5
        slopes[at] += (_cost(up, regularisers, soft_mask) - _cost(down, regularisers, soft_mask)) / 2e-5
    # Values of about 1 are rounded to 1e-16, over 2e-5; third derivatives are below 1e2.
    np.testing.assert_allclose(gradient.numpy(), slopes, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", REGULARISERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_all_methods_agree(name: str, dtype: torch.dtype) -> None:
    fixed, moving, wf, wm = (t.to(dtype) for t in _maps())
    term = prepare_ssd(fixed, moving, fixed_weight=wf, moving_weight=wm)
    soft_mask = oracles.uniform(*SHAPE, seed=5).to(dtype)
    objective = RegistrationObjective(
        term, [*REGULARISERS[name], Pull(0.05)], (fixed, moving, wf, wm), soft_mask=soft_mask
    )
    u = _start().to(dtype)
    value, gradient = objective(u, out=torch.empty_like(u))
    out = torch.full_like(u, torch.nan)
    assert objective.gradient(u, out=out) is out
    four = torch.full((4, *SHAPE), torch.nan, dtype=dtype)
    again, found, scale = objective.curvature(u, out=four)
    close = 20 * torch.finfo(dtype).eps
    torch.testing.assert_close(out, gradient, rtol=0, atol=close)
    assert found is four
    assert float(again) == pytest.approx(float(value), rel=close)
    torch.testing.assert_close(found[:3], gradient, rtol=0, atol=close)
    # only `VolumePreserving` has a curvature, which does not count in the scale
    plain = term.curvature(u)[1][3]
    own = 1.5 / soft_mask.numel() * soft_mask if name == "all" else 0
    torch.testing.assert_close(found[3], plain + own, rtol=0, atol=close)
    assert float(scale) == pytest.approx(float(plain.mean()), rel=close)
    assert u.equal(_start().to(dtype))


class Wrapped:
    """A similarity term of another package, which does not add the gradient of `Diffusion` itself."""

    def __init__(self, term: Any) -> None:
        self.term = term

    def __call__(self, displacement: torch.Tensor, *, out: torch.Tensor | None = None) -> Any:
        return self.term(displacement, out=out)

    def gradient(self, displacement: torch.Tensor, *, out: torch.Tensor | None = None) -> torch.Tensor:
        return self.term.gradient(displacement, out=out)

    def curvature(self, displacement: torch.Tensor, *, out: torch.Tensor | None = None) -> Any:
        return self.term.curvature(displacement, out=out)


@pytest.mark.parametrize("name", REGULARISERS)
def test_a_term_that_does_not_fuse_diffusion_gives_the_same(name: str) -> None:
    fixed, moving, wf, wm = _maps()
    term = prepare_ssd(fixed, moving, fixed_weight=wf, moving_weight=wm)
    fused, plain = (
        RegistrationObjective(each, REGULARISERS[name], (fixed, moving, wf, wm)) for each in (term, Wrapped(term))
    )
    u = _start()
    for found, expected in zip(plain(u, out=torch.empty_like(u)), fused(u, out=torch.empty_like(u)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    out = torch.empty_like(u)
    torch.testing.assert_close(plain.gradient(u, out=out), fused(u, out=torch.empty_like(u))[1], rtol=0, atol=1e-12)


def test_the_least_gradient_is_that_of_a_hundredth_of_a_control_point() -> None:
    _, moving, wf, wm = (t.numpy() for t in _maps())
    u = _start()
    curvature = oracles.gauss_newton(moving, u.numpy(), oracles.ssd_weights(u.numpy(), wf, wm))[[0, 3, 5]].mean(0)
    assert (curvature > 0).sum() == 59  # all but the last control point, which is clamped to the edge along each axis
    assert _objective([]).least_gradient(u) == pytest.approx(0.01 * curvature[curvature > 0].mean(), rel=1e-9)
    assert _objective(REGULARISERS["all"]).least_gradient(u) == _objective([]).least_gradient(u)


def test_control_points_without_contrast_do_not_lower_it() -> None:
    fixed, moving, _, _ = _maps()
    moving[:, :2] = 0
    u = torch.zeros(3, *SHAPE, dtype=torch.float64) + 0.25
    found = RegistrationObjective(prepare_ssd(fixed, moving), [], (fixed, moving, None, None)).least_gradient(u)
    curvature = oracles.gauss_newton(moving.numpy(), u.numpy(), np.ones(SHAPE))[[0, 3, 5]].mean(0)
    assert not curvature[0].any()
    assert found == pytest.approx(0.01 * curvature[curvature > 0].mean(), rel=1e-9)


def test_for_constant_features_it_is_one() -> None:
    flat = torch.ones(2, *SHAPE)
    objective = RegistrationObjective(prepare_ssd(flat, flat), [], (flat, flat, None, None))
    assert objective.least_gradient(_start().float()) == 1
