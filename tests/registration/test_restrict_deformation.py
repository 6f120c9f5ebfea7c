"""Motion along chosen axes of the fixed image: exactly 0 along others, and no less accurate."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from textures import affine, shifted_pair
from torso import ADAM, QUICK, SEARCH, second_order

from convexadam import (
    Affine,
    ConfigError,
    DisplacementField,
    Grid,
    Image,
    IsotropicGrid,
    Refinement,
    RegistrationConfig,
    preset,
    register,
)
from convexadam.continuous import (
    Additive,
    BilateralSmoothing,
    Compositional,
    GaussNewton,
    Level,
    Lncc,
    StationaryVelocity,
)
from convexadam.data import PhantomPair, phantom_pair
from convexadam.linear import LinearAlignment

# index i runs to the left, j to inferior, k to anterior
LIA = np.array([[-9.0, 0, 0, 180], [0, 0, 8.0, -140], [0, -10.0, 0, 150], [0, 0, 0, 1]])
EPI = (0.0, 1.0, 0.0)
"""Distortion from anterior to posterior, along index k."""


@functools.cache
def distorted() -> PhantomPair:
    return phantom_pair(
        (40, 28, 36), contrasts=("t1", "t2"), affine=LIA, displacement_mm=22, restrict_deformation=EPI, seed=4
    )


def in_voxels(transform: Any) -> torch.Tensor:
    assert isinstance(transform, DisplacementField)
    return transform.to_voxels()


def errors_vox(found: torch.Tensor, pair: PhantomPair) -> torch.Tensor:
    """Absolute error of each component within the organs."""
    return (found - pair.disp_vox).abs()[:, pair.fixed_labels.data[0] > 0].mean(1)


def test_the_phantom_moves_along_one_axis_only() -> None:
    disp = distorted().disp_vox
    assert not bool(disp[:2].any())
    assert float(disp[2].abs().max()) * 8 == pytest.approx(22, rel=1e-3)


def test_a_distortion_along_one_axis() -> None:
    pair = distorted()
    free = in_voxels(register(pair.fixed, pair.moving, QUICK).transform)
    config = dataclasses.replace(QUICK, restrict_deformation=EPI)
    result = register(pair.fixed, pair.moving, config)
    found = in_voxels(result.transform)
    assert not bool(found[:2].any())  # every bit
    before = pair.disp_vox.abs()[2, pair.fixed_labels.data[0] > 0].mean()
    assert errors_vox(found, pair)[2] < 0.35 * before
    assert errors_vox(found, pair)[2] <= errors_vox(free, pair)[2]
    assert float(free[:2].abs().max()) > 0.5  # which the images alone do not prevent
    inverse = result.transform.inverse(pair.moving)
    assert not bool(in_voxels(inverse)[:2].any())


VARIANTS = {
    "symmetric": {"symmetric": True},
    "second order": {"continuous": second_order(4, 2)},
    "gauss-newton": {"continuous": dataclasses.replace(second_order(2), optimiser=GaussNewton())},
    "local correlation": {"continuous": dataclasses.replace(second_order(2), similarity=Lncc())},
    "additive": {"continuous": dataclasses.replace(ADAM, parametrisation=Additive())},
    "velocity": {"continuous": dataclasses.replace(ADAM, parametrisation=StationaryVelocity())},
    "sliding": {
        "continuous": dataclasses.replace(
            second_order(2), parametrisation=Compositional(total_smoothing=BilateralSmoothing())
        )
    },
    "search alone": {"continuous": None},
    "two searches": {"discrete": (SEARCH, dataclasses.replace(SEARCH, spacing=2))},
    "affine": {"linear": LinearAlignment(min_improvement=0.0)},
}


@pytest.fixture(scope="module")
def shifted() -> tuple[Image, Image]:
    """Images apart along all axes, so that free motion is not 0 along any."""
    return shifted_pair(Grid((22, 20, 24), LIA), (1.2, -1.4, 1.5), (40.0, 110.0))


@pytest.mark.parametrize("name", VARIANTS)
def test_other_axes_are_exactly_0(name: str, shifted: tuple[Image, Image]) -> None:
    config = dataclasses.replace(QUICK, restrict_deformation=(1.0, 0.0, 0.0), **VARIANTS[name])
    result = register(*shifted, config)
    found = in_voxels(result.transform)
    assert not bool(found[1:].any())
    assert float(found[0].abs().max()) > 0.3
    if config.symmetric:
        assert not bool(in_voxels(result.estimated_inverse)[1:].any())


def test_a_repair_of_folds_keeps_to_the_axis() -> None:
    fixed, moving = (
        Image(oracles.uniform(1, 18, 16, 14, seed=seed, high=1.0).float(), Grid((18, 16, 14))) for seed in (0, 1)
    )
    rough = Refinement(
        levels=(Level(spacing=1, iterations=20),),
        regularisers=(),
        update_smoothing=None,
        parametrisation=Compositional(total_smoothing=None),
    )
    config = dataclasses.replace(QUICK, restrict_deformation=(0.0, 0.0, 1.0), continuous=rough)
    result = register(fixed, moving, config)
    assert result.diagnostics["repaired_voxels"] > 0
    assert not bool(in_voxels(result.transform)[:2].any())


def test_oblique_axes_are_those_of_the_fixed_image() -> None:
    grid = Grid((22, 20, 18), affine((9.0, 8.0, 10.0), (0.2, -0.15, 0.3)))
    fixed, moving = shifted_pair(grid, (1.2, -1.4, 1.5), (40.0, 110.0))
    result = register(fixed, moving, dataclasses.replace(QUICK, restrict_deformation=(0.0, 1.0, 1.0)))
    found = in_voxels(result.transform)
    assert float(found[0].abs().max()) < 1e-5  # of the rounding of vectors in mm
    assert float(found[1:].abs().amax((1, 2, 3)).min()) > 0.3


def test_an_axis_of_small_weight_moves_less(shifted: tuple[Image, Image]) -> None:
    grid = IsotropicGrid(spacing_mm=9.0)
    for continuous in (None, second_order(2), dataclasses.replace(ADAM, levels=(Level(iterations=5),))):
        base = dataclasses.replace(QUICK, grid=grid, continuous=continuous)
        lengths = []
        for weight in (0.0, 0.15, 1.0):
            config = dataclasses.replace(base, restrict_deformation=(weight, 1.0, 1.0))
            lengths.append(float(in_voxels(register(*shifted, config).transform)[0].abs().mean()))
        assert lengths[0] == 0.0
        assert 0.0 < lengths[1] < 0.8 * lengths[2]


@pytest.mark.parametrize("name", ["rigid", "similarity", "affine"])
def test_a_linear_transform_keeps_to_the_axes(name: str, shifted: tuple[Image, Image]) -> None:
    config = dataclasses.replace(preset(name), restrict_deformation=(1.0, 0.0, 1.0))
    result = register(*shifted, config)
    assert isinstance(result.transform, Affine)
    matrix = result.transform.matrix
    assert matrix[1].tolist() == [0.0, 1.0, 0.0, 0.0]  # RAS: the coordinate A of every point stays
    true_mm = LIA[:3, :3] @ (1.2, -1.4, 1.5)
    assert np.abs(matrix[[0, 2], 3] - true_mm[[0, 2]]).max() < 9  # about a voxel; motion along A blurs the match


def test_an_initial_transform_is_kept(shifted: tuple[Image, Image]) -> None:
    start = np.eye(4)
    start[1, 3] = 4.5
    for base in (QUICK, dataclasses.replace(QUICK, linear=LinearAlignment(min_improvement=0.0)), preset("affine")):
        config = dataclasses.replace(base, restrict_deformation=(1.0, 0.0, 1.0))
        result = register(*shifted, config, initial_transform=start)
        moved = result.transform.to_displacement_field(shifted[0]).disp_mm[1]
        torch.testing.assert_close(moved, torch.full_like(moved, 4.5))


@pytest.mark.parametrize(
    "weights", [(0.0, 0.0, 0.0), (1.0, 0.5), (1.0, 1.0, 1.5), (1.0, -0.1, 1.0), 1.0, [1, 0, 0], "y"]
)
def test_weights_are_three_numbers_from_0_to_1(weights: Any) -> None:
    with pytest.raises(ConfigError, match="restrict_deformation must be a tuple of three numbers from 0 to 1, one of"):
        RegistrationConfig(restrict_deformation=weights)


def test_tensors_are_restricted_as_images_are() -> None:
    fixed, moving = (oracles.uniform(2, 14, 12, 10, seed=seed).float() for seed in (0, 1))
    found = SEARCH(fixed, moving, restrict_deformation=(0.0, 1.0, 1.0))
    refined = dataclasses.replace(ADAM, levels=(Level(iterations=5),))(
        fixed, moving, start=found, restrict_deformation=(0.0, 1.0, 1.0)
    )
    for disp in (found, refined):
        assert not bool(disp[0].any())
        assert bool(disp[1].any())
