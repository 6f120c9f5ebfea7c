"""Every length is in voxels or derived from the grid: an image of any size of voxels registers alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch

from convexadam import ConvexSearch, Image, IsotropicGrid, LandmarkTerm, RegistrationConfig, preset, register
from convexadam.continuous import Level, Refinement
from convexadam.registration import AutoForeground

SHAPE = (26, 22, 18)
UNITS_MM = {"1 nm": 2.0**-20, "1 um": 2.0**-10, "1 m": 2.0**10}
"""Nearly: multiplication by a power of two is exact, so that choices between equal costs stay the same."""

POINTS_VOX = np.array([[6.0, 7, 8], [12, 10, 9], [18, 12, 6], [9, 15, 11]])


def images(unit_mm: float) -> tuple[Image, Image]:
    """A body with blobs in air, and the same displaced, on an oblique, anisotropic grid."""
    affine = oracles.oblique_affine()
    affine[:3] *= unit_mm
    positions = oracles.indices(SHAPE)
    centre = (np.array(SHAPE) - 1).reshape(3, 1, 1, 1) / 2
    volumes = []
    for shift in (0.0, 0.8):
        radius = np.sqrt((((positions + shift - centre) / (0.38 * np.array(SHAPE).reshape(3, 1, 1, 1))) ** 2).sum(0))
        body = 1 / (1 + np.exp(20 * (radius - 1)))
        volumes.append(body * (3 + oracles.blobs(positions + shift, SHAPE, channels=1, sigma=2.5)[0]))
    fixed, moving = (Image.from_array(volume.astype(np.float32), affine) for volume in volumes)
    return fixed, moving


def make_config(name: str, unit_mm: float) -> RegistrationConfig:
    """Settings without lengths, or with lengths in the unit."""
    if name == "lengths":
        return RegistrationConfig(
            linear=None,
            grid=IsotropicGrid(spacing_mm=1.7 * unit_mm),
            foreground=AutoForeground(margin_mm=3 * unit_mm),
            landmarks=LandmarkTerm(sigma_mm=4 * unit_mm, robust_scale_mm=9 * unit_mm),
            discrete=ConvexSearch(spacing=5 * unit_mm, radius=9 * unit_mm, unit="mm"),
            continuous=Refinement(levels=(Level(spacing=3.4 * unit_mm, iterations=8),), unit="mm"),
        )
    if name == "foreground":
        return RegistrationConfig(linear=None, foreground=AutoForeground())
    config = preset(name)
    return RegistrationConfig(**{**vars(config), "linear": None})


def estimate(name: str, unit_mm: float) -> tuple[torch.Tensor, dict[str, float]]:
    fixed, moving = images(unit_mm)
    points = [fixed.grid.index_to_world(torch.from_numpy(POINTS_VOX + shift)) for shift in (0.0, -0.8)]
    others: dict[str, Any] = {"fixed_landmarks": points[0], "moving_landmarks": points[1]}
    result = register(fixed, moving, make_config(name, unit_mm), **others)
    back = result.transform.inverse()
    assert back.inverse_error_mm is not None
    assert back.inverse_error_mm < unit_mm
    return result.transform.to_voxels(), result.diagnostics


@pytest.mark.parametrize("name", ["default", "published", "foreground", "lengths", "best"])
def test_the_same_field_in_voxels(name: str) -> None:
    expected, diagnostics = estimate(name, 1.0)
    assert expected.abs().max() > 0.3
    for unit_mm in UNITS_MM.values():
        found, others = estimate(name, unit_mm)
        # the transform is stored in mm in float32, and positions are rounded to it
        assert (found - expected).abs().max() < 2e-3
        assert others["displacement_max_mm"] == pytest.approx(unit_mm * diagnostics["displacement_max_mm"], rel=2e-3)
        assert others["overlap_percent"] == pytest.approx(diagnostics["overlap_percent"], abs=0.01)


@pytest.mark.parametrize("unit_mm", UNITS_MM.values(), ids=UNITS_MM)
def test_masks(unit_mm: float) -> None:
    values = np.zeros((40, 36, 32), np.float32)
    values[10:28, 9:27, 8:24] = 100
    values += np.random.default_rng(0).normal(size=values.shape).astype(np.float32)
    masks = []
    for unit in (1.0, unit_mm):
        mask = AutoForeground()(Image.from_array(values, np.diag([unit, 1.2 * unit, 1.5 * unit, 1.0])))
        assert mask is not None
        masks.append(mask.data)
    assert torch.equal(*masks)
