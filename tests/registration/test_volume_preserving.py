"""Volume preservation: a tumour that is larger in the moving image, in an otherwise smooth motion."""

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
from convexadam.registration.working_grid import NativeGrid

GRID = Grid((40, 44, 36))
CENTRE = torch.tensor([20.0, 22.0, 18.0], dtype=torch.float64)
RADIUS, GROWN = 8.0, 1.3
WHERE = positions_mm(GRID)
BALL = (WHERE - CENTRE).norm(dim=-1) < RADIUS
FULL = VolumePreserving()
LM, ADAM = LevenbergMarquardt(), Adam(learning_rate=0.3)


def _to_fixed(points: Tensor) -> Tensor:
    """Map points from moving to fixed: invert the motion, then a growth that fades out at twice the radius."""
    x, y, z = (points - CENTRE).unbind(-1)
    waves = [1.5 * torch.sin(y / 12 + 0.3), 1.2 * torch.cos(z / 11), -1.5 * torch.sin(x / 13)]
    static = points - torch.stack(waves, -1) - CENTRE
    small = GROWN ** (-1 / 3)
    t = ((static.norm(dim=-1, keepdim=True) - RADIUS / small) / RADIUS).clamp(0, 1)
    return CENTRE + (small + (1 - small) * t * t * (3 - 2 * t)) * static


def _scan(points: Tensor) -> Image:
    inside = (points - CENTRE).norm(dim=-1) < RADIUS
    return Image((texture(points, wavelengths_mm=(8, 20)) + 1500 * inside)[None], GRID)


@cache
def _register(*regularisers: Any, optimiser: Any = LM, symmetric: bool = False, masked: bool = False) -> Any:
    config = RegistrationConfig(
        grid=NativeGrid(),
        linear=None,
        discrete=ConvexSearch(spacing=4, radius=1),
        symmetric=symmetric,
        continuous=Refinement(
            levels=(Level(spacing=2, iterations=30),),
            regularisers=regularisers,
            optimiser=optimiser,
            parametrisation=Compositional(total_smoothing=GaussianSmoothing(sigma=0.8)),
        ),
    )
    return register(_scan(WHERE), _scan(_to_fixed(WHERE)), config, volume_preserving_mask=BALL if masked else None)


def _growth(result: RegistrationResult) -> float:
    """Volume of the ball in the moving image, according to the transform, over that in the fixed one."""
    return float(result.transform.jacobian()[BALL].mean())


def _error_outside_mm(result: RegistrationResult) -> float:
    moving = WHERE[5:-5:3, 5:-5:3, 5:-5:3].reshape(-1, 3)
    fixed = _to_fixed(moving)
    far = (fixed - CENTRE).norm(dim=1) > 2.2 * RADIUS
    found = result.transform.warp_points(fixed[far], space="mm")
    return float((found - moving[far]).norm(dim=1).mean())


@pytest.mark.parametrize("optimiser", [LM, ADAM])
def test_a_masked_tumour_keeps_its_volume_and_the_rest_is_aligned_as_well(optimiser: Any) -> None:
    free, kept = _register(optimiser=optimiser), _register(FULL, optimiser=optimiser, masked=True)
    assert _growth(free) == pytest.approx(GROWN, abs=0.08)
    assert _growth(kept) == pytest.approx(1, abs=0.06)
    assert _error_outside_mm(kept) < 1.1 * _error_outside_mm(free) < 0.3
    assert kept.diagnostics["folded_percent"] == 0


def test_the_backward_direction_preserves_volume_too() -> None:
    free, kept = _register(symmetric=True), _register(FULL, symmetric=True, masked=True)
    assert _growth(free) == pytest.approx(GROWN, abs=0.08)
    assert _growth(kept) == pytest.approx(1, abs=0.06)
    # the tumour in the moving image, which a free inverse shrinks
    tumour = (_to_fixed(WHERE) - CENTRE).norm(dim=-1) < RADIUS
    shrunk, same = (float(r.estimated_inverse.jacobian(GRID)[tumour].mean()) for r in (free, kept))
    assert shrunk < 0.9
    assert same == pytest.approx(1, abs=0.06)
    assert _error_outside_mm(kept) < 1.1 * _error_outside_mm(free)


@pytest.mark.parametrize("symmetric", [False, True])
def test_an_unmasked_tumour_is_found(symmetric: bool) -> None:
    free = _register(symmetric=symmetric)
    found = _register(VolumePreserving(region="auto"), symmetric=symmetric)
    assert _growth(found) == pytest.approx(1, abs=0.06)
    assert _error_outside_mm(found) < 1.1 * _error_outside_mm(free)


def test_a_given_mask_replaces_the_estimated_one() -> None:
    given = _register(FULL, masked=True)
    auto = _register(VolumePreserving(region="auto"), masked=True)
    assert torch.equal(auto.transform.disp_mm, given.transform.disp_mm)


def test_without_a_mask_volume_is_preserved_everywhere() -> None:
    free, everywhere = (_register(*r).transform.jacobian().log().abs() for r in ((), (FULL,)))
    assert everywhere[BALL].mean() < 0.3 * free[BALL].mean()
    assert everywhere[~BALL].mean() < 0.5 * free[~BALL].mean()


def test_a_refinement_of_features_estimates_a_mask_too() -> None:
    fixed, moving = ((_scan(p).data / 1000) for p in (WHERE, _to_fixed(WHERE)))
    growths = []
    for regularisers in ((), (VolumePreserving(region="auto", weight=30.0),)):
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


def test_a_mask_without_a_regulariser_that_uses_it_raises() -> None:
    message = r"volume_preserving_mask must be used by a regulariser, got none that does; add VolumePreserving\(\)"
    with pytest.raises(ConfigError, match=message):
        _register(masked=True)
    with pytest.raises(ConfigError, match=message):
        register(_scan(WHERE), _scan(WHERE), RegistrationConfig(continuous=None), volume_preserving_mask=BALL)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros_like(BALL), "volume_preserving_mask must have a value above 0, got an empty mask"),
        (
            BALL[1:],
            r"volume_preserving_mask must have the shape of the fixed image, \(40, 44, 36\), got \(39, 44, 36\)",
        ),
        (2.0 * BALL, r"volume_preserving_mask must hold weights in \[0, 1\] .*, got values from 0 to 2"),
    ],
)
def test_unusable_masks(mask: Tensor, message: str) -> None:
    config = RegistrationConfig(continuous=Refinement(regularisers=(FULL,)))
    with pytest.raises(InputError, match=message):
        register(_scan(WHERE), _scan(WHERE), config, volume_preserving_mask=mask)


def test_an_unknown_region_raises() -> None:
    with pytest.raises((ConfigError, jaxtyping.TypeCheckError), match="somewhere"):
        VolumePreserving(region="somewhere")  # type: ignore[arg-type]


def test_curvature_of_the_cost_is_that_of_small_motion() -> None:
    # a third of the trace of the second differences of the cost
    shape, weight, tiny = (6, 5, 7), 2.0, 1e-3
    soft_mask = torch.linspace(0.2, 1, 6, dtype=torch.float64).reshape(6, 1, 1).expand(shape).contiguous()
    cost, zeros = VolumePreserving(weight=weight), torch.zeros(3, *shape, dtype=torch.float64)
    found = cost.curvature(zeros, add_to=torch.ones(shape, dtype=torch.float64), soft_mask=soft_mask) - 1
    for point in ((2, 2, 3), (3, 2, 2)):  # beyond one-sided differences at the border
        second = 0.0
        for axis in range(3):
            moved = zeros.clone()
            moved[(axis, *point)] = tiny
            values = [float(cost(u, soft_mask=soft_mask)[0]) for u in (moved, -moved)]
            second += sum(values) / tiny**2
        assert float(found[point]) == pytest.approx(second / 3, rel=1e-3)
    assert math.isclose(float(cost.curvature(zeros, add_to=torch.zeros(shape)).sum()), weight, rel_tol=1e-5)
