"""Sliding organs: two blocks with opposite motion along the plane between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from textures import indices, positions_mm, texture

from convexadam import ConvexSearch, Grid, Image, RegistrationConfig, register
from convexadam.continuous import (
    Adam,
    BilateralSmoothing,
    Compositional,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Refinement,
    StationaryVelocity,
)
from convexadam.errors import ConfigError, InputError
from convexadam.registration.working_grid import NativeGrid

GRID = Grid((24, 28, 20))
FIRST = indices(GRID)[..., 0] < 12
SPEED = 2.0
TRUTH = torch.where(FIRST, SPEED, -SPEED)
MIDDLE = (slice(None), slice(6, -6), slice(5, -5))
"""Away from the borders that the motion crosses."""

GAUSSIAN, BILATERAL = GaussianSmoothing(sigma=0.8), BilateralSmoothing(sigma=0.8)
STEPS: Any = {"lm": LevenbergMarquardt(), "adam": Adam(learning_rate=0.3)}


def _blocks(shift: float, contrast: float = 1500.0) -> Image:
    along = torch.tensor([0.0, shift, 0.0], dtype=torch.float64)
    positions = positions_mm(GRID)
    sides = (
        sign * contrast + texture(positions - sign * along, wavelengths_mm=(7, 16), seed=seed)
        for seed, sign in enumerate((1, -1))
    )
    first, second = sides
    return Image(torch.where(FIRST, first, second)[None], GRID)


def _register(smoothing: Any, *, kind: Any = Compositional, contrast: float = 1500.0, **options: Any) -> Any:
    optimiser, symmetric = options.pop("optimiser", LevenbergMarquardt()), options.pop("symmetric", False)
    config = RegistrationConfig(
        grid=NativeGrid(),
        linear=None,
        discrete=ConvexSearch(spacing=4, radius=2),
        symmetric=symmetric,
        continuous=Refinement(
            levels=(Level(spacing=1, iterations=20),),
            regularisers=(),
            optimiser=optimiser,
            parametrisation=kind(total_smoothing=smoothing),
        ),
    )
    return register(_blocks(0, contrast), _blocks(SPEED, contrast), config, **options)


def _jump(transform: Any, reverse: bool = False) -> float:
    """Difference of the displacement between the planes of voxels on either side of the boundary."""
    along = transform.to_displacement_field(GRID).disp_mm[1][MIDDLE].mean((1, 2))
    return float(along[11] - along[12]) * (-1 if reverse else 1)


@pytest.mark.parametrize("optimiser", list(STEPS))
@pytest.mark.parametrize("symmetric", [False, True])
def test_the_discontinuity_is_preserved(optimiser: str, symmetric: bool) -> None:
    plain, sliding = (_register(s, optimiser=STEPS[optimiser], symmetric=symmetric) for s in (GAUSSIAN, BILATERAL))
    for result in (plain, sliding):
        assert result.diagnostics["folded_percent"] == 0
        error = (result.transform.disp_mm[1] - TRUTH)[MIDDLE].abs().mean((1, 2))
        assert error[3:8].max() < 0.3  # both are accurate within the blocks
    # a smooth field has at most half of the true discontinuity, the bilateral one more than half
    assert _jump(plain.transform) < SPEED
    assert 2 * SPEED + 0.5 > _jump(sliding.transform) > SPEED
    if symmetric:
        assert _jump(plain.estimated_inverse, reverse=True) < SPEED < _jump(sliding.estimated_inverse, reverse=True)


def test_a_stationary_velocity_preserves_it_too() -> None:
    plain, sliding = (_register(s, kind=StationaryVelocity) for s in (GAUSSIAN, BILATERAL))
    assert _jump(sliding.transform) > 1.5 * _jump(plain.transform)
    assert sliding.diagnostics["folded_percent"] == 0


@pytest.mark.parametrize("symmetric", [False, True])
def test_regions_define_a_boundary_without_contrast(symmetric: bool) -> None:
    labels = torch.where(FIRST, 3, 7)
    known = _register(BILATERAL, contrast=0.0, symmetric=symmetric, sliding_regions=labels)
    wide = _register(BilateralSmoothing(sigma_guide=1e3), contrast=0.0, symmetric=symmetric, sliding_regions=labels)
    assert _jump(known.transform) > 2 * _jump(wide.transform)
    assert known.diagnostics["folded_percent"] == 0
    if symmetric:
        assert _jump(known.estimated_inverse, reverse=True) > 2 * _jump(wide.estimated_inverse, reverse=True)


def test_regions_may_have_another_grid() -> None:
    # twice as fine, so that each voxel contains eight of one region
    fine = Grid(tuple(2 * n for n in GRID.shape), GRID.affine @ _halve())
    labels = Image((indices(fine)[..., 0] >= 24).to(torch.uint8)[None], fine)
    same = _register(BILATERAL, sliding_regions=(~FIRST).to(torch.uint8))
    assert torch.equal(_register(BILATERAL, sliding_regions=labels).transform.disp_mm, same.transform.disp_mm)


def _halve() -> Any:
    matrix = np.diag([0.5, 0.5, 0.5, 1.0])
    matrix[:3, 3] = -0.25
    return matrix


def test_unusable_regions() -> None:
    message = r"sliding_regions must be used by .*, got none that does; set total_smoothing=BilateralSmoothing\(\)"
    with pytest.raises(ConfigError, match=message):
        _register(GAUSSIAN, sliding_regions=FIRST)
    with pytest.raises(InputError, match=r"sliding_regions must be whole numbers, got torch\.float32; round them"):
        _register(BILATERAL, sliding_regions=FIRST.float())
    with pytest.raises(InputError, match=r"sliding_regions must have the shape of the fixed .*, got \(3, 4, 5\)"):
        _register(BILATERAL, sliding_regions=torch.ones(3, 4, 5, dtype=torch.uint8))
