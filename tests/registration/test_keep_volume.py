"""A tumour that is larger in the moving image, in an otherwise smooth motion."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import jaxtyping
import pytest
import torch
from textures import positions_mm, texture
from torch import Tensor

from convexadam import ConvexSearch, Grid, Image, RegistrationConfig, RegistrationResult, register
from convexadam.continuous import (
    Adam,
    Compositional,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Refinement,
    VolumePreserving,
)
from convexadam.errors import ConfigError, InputError
from convexadam.registration.working_grid import GivenGrid

GRID = Grid((40, 44, 36))
CENTRE = torch.tensor([20.0, 22.0, 18.0], dtype=torch.float64)
RADIUS, GROWN = 8.0, 1.3
WHERE = positions_mm(GRID)
BALL = (WHERE - CENTRE).norm(dim=-1) < RADIUS
FULL = VolumePreserving()
LM, ADAM = LevenbergMarquardt(), Adam(learning_rate=0.3)


def _back(points: Tensor) -> Tensor:
    """Where points of the moving image come from: a motion undone, then a growth that fades at twice the radius."""
    x, y, z = (points - CENTRE).unbind(-1)
    waves = [1.5 * torch.sin(y / 12 + 0.3), 1.2 * torch.cos(z / 11), -1.5 * torch.sin(x / 13)]
    still = points - torch.stack(waves, -1) - CENTRE
    small = GROWN ** (-1 / 3)
    t = ((still.norm(dim=-1, keepdim=True) - RADIUS / small) / RADIUS).clamp(0, 1)
    return CENTRE + (small + (1 - small) * t * t * (3 - 2 * t)) * still


def _scan(points: Tensor) -> Image:
    inside = (points - CENTRE).norm(dim=-1) < RADIUS
    return Image((texture(points, wavelengths_mm=(8, 20)) + 1500 * inside)[None], GRID)


@cache
def _registered(*regularisers: Any, optimiser: Any = LM, symmetric: bool = False, keep: bool = False) -> Any:
    config = RegistrationConfig(
        grid=GivenGrid(),
        linear=None,
        discrete=ConvexSearch(spacing=4, radius=1),
        symmetric=symmetric,
        continuous=Refinement(
            levels=(Level(spacing=2, iterations=30),),
            regularisers=regularisers,
            optimiser=optimiser,
            parametrisation=Compositional(field_smoothing=GaussianSmoothing(sigma=0.8)),
        ),
    )
    return register(_scan(WHERE), _scan(_back(WHERE)), config, keep_volume=BALL if keep else None)


def _growth(result: RegistrationResult) -> float:
    """Volume of the ball in the moving image, by the transform, over that in the fixed one."""
    return float(result.transform.jacobian()[BALL].mean())


def _error_outside_mm(result: RegistrationResult) -> float:
    there = WHERE[5:-5:3, 5:-5:3, 5:-5:3].reshape(-1, 3)
    here = _back(there)
    far = (here - CENTRE).norm(dim=1) > 2.2 * RADIUS
    found = result.transform.warp_points(here[far], space="mm")
    return float((found - there[far]).norm(dim=1).mean())


@pytest.mark.parametrize("optimiser", [LM, ADAM])
def test_a_given_tumour_keeps_its_volume_and_the_rest_is_aligned_as_well(optimiser: Any) -> None:
    free, kept = _registered(optimiser=optimiser), _registered(FULL, optimiser=optimiser, keep=True)
    assert _growth(free) == pytest.approx(GROWN, abs=0.08)
    assert _growth(kept) == pytest.approx(1, abs=0.06)
    assert _error_outside_mm(kept) < 1.1 * _error_outside_mm(free) < 0.3
    assert kept.diagnostics["folded_percent"] == 0


def test_the_other_direction_keeps_it_as_well() -> None:
    free, kept = _registered(symmetric=True), _registered(FULL, symmetric=True, keep=True)
    assert _growth(free) == pytest.approx(GROWN, abs=0.08)
    assert _growth(kept) == pytest.approx(1, abs=0.06)
    # of the tumour as the moving image has it, where the inverse is free to shrink it
    there = (_back(WHERE) - CENTRE).norm(dim=-1) < RADIUS
    shrunk, same = (float(r.inverse.jacobian(GRID)[there].mean()) for r in (free, kept))
    assert shrunk < 0.9
    assert same == pytest.approx(1, abs=0.06)
    assert _error_outside_mm(kept) < 1.1 * _error_outside_mm(free)


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_tumour_that_nobody_drew_is_found(symmetric: bool) -> None:
    free = _registered(symmetric=symmetric)
    found = _registered(VolumePreserving(where="conspicuous"), symmetric=symmetric)
    assert _growth(found) == pytest.approx(1, abs=0.06)
    assert _error_outside_mm(found) < 1.1 * _error_outside_mm(free)


def test_a_given_mask_takes_the_place_of_an_estimated_one() -> None:
    given = _registered(FULL, keep=True)
    either = _registered(VolumePreserving(where="conspicuous"), keep=True)
    assert torch.equal(either.transform.disp_mm, given.transform.disp_mm)


def test_without_a_mask_volume_is_kept_everywhere() -> None:
    free, everywhere = (_registered(*r).transform.jacobian().log().abs() for r in ((), (FULL,)))
    assert everywhere[BALL].mean() < 0.3 * free[BALL].mean()
    assert everywhere[~BALL].mean() < 0.5 * free[~BALL].mean()


def test_refinement_of_features_estimates_a_mask_as_well() -> None:
    fixed, moving = ((_scan(p).data / 1000) for p in (WHERE, _back(WHERE)))
    growths = []
    for regularisers in ((), (VolumePreserving(where="conspicuous", weight=30.0),)):
        refine = Refinement(
            levels=(Level(spacing=2, iterations=40),),
            regularisers=regularisers,
            optimiser=LM,
            parametrisation=Compositional(),
        )
        grown = refine(fixed, moving)
        growths.append(float(_volume(grown)[BALL].mean()))
    assert growths[0] > 1.2
    assert abs(growths[1] - 1) < 0.4 * (growths[0] - 1)


def _volume(disp_vox: Tensor) -> Tensor:
    rows = [torch.stack([g + float(a == b) for b, g in enumerate(torch.gradient(disp_vox[a]))], -1) for a in range(3)]
    return torch.linalg.det(torch.stack(rows, -2).double())


def test_settings_and_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"no setting keeps volumes; add VolumePreserving\(\) to continuous.regul"):
        _registered(keep=True)
    with pytest.raises(ConfigError, match="no setting keeps volumes"):
        register(_scan(WHERE), _scan(WHERE), RegistrationConfig(continuous=None), keep_volume=BALL)
    with pytest.raises((ConfigError, jaxtyping.TypeCheckError), match="somewhere"):
        VolumePreserving(where="somewhere")  # type: ignore[arg-type]
    config = RegistrationConfig(continuous=Refinement(regularisers=(FULL,)))
    for wrong, message in (
        (torch.zeros_like(BALL), "the keep_volume mask is empty"),
        (BALL[1:], r"the keep_volume mask has shape \(39, 44, 36\) but the fixed image \(40, 44, 36\)"),
        (2.0 * BALL, r"the keep_volume mask is of floating-point numbers, which are weights in \[0, 1\]"),
    ):
        with pytest.raises(InputError, match=message):
            register(_scan(WHERE), _scan(WHERE), config, keep_volume=wrong)


def test_curvature_of_the_cost_is_that_of_small_motion() -> None:
    # of every third node in turn, a third of the trace of the second differences of the cost, by the cost itself
    shape, weight, tiny = (6, 5, 7), 2.0, 1e-3
    soft_mask = torch.linspace(0.2, 1, 6, dtype=torch.float64).reshape(6, 1, 1).expand(shape).contiguous()
    cost, zeros = VolumePreserving(weight=weight), torch.zeros(3, *shape, dtype=torch.float64)
    found = cost.curvature(zeros, onto=torch.ones(shape, dtype=torch.float64), soft_mask=soft_mask) - 1
    for node in ((2, 2, 3), (3, 2, 2)):  # further inside than one-sided differences reach
        second = 0.0
        for axis in range(3):
            moved = zeros.clone()
            moved[(axis, *node)] = tiny
            values = [float(cost(u, soft_mask=soft_mask)[0]) for u in (moved, -moved)]
            second += sum(values) / tiny**2
        assert float(found[node]) == pytest.approx(second / 3, rel=1e-3)
    assert math.isclose(float(cost.curvature(zeros, onto=torch.zeros(shape)).sum()), weight, rel_tol=1e-5)
