"""Fold-free fields, on every voxel of the fixed grid; folds are counted by a naive loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch

from convexadam import (
    Affine,
    ConvexSearch,
    Grid,
    Image,
    Intensity,
    NativeGrid,
    Refinement,
    RegistrationConfig,
    RegistrationResult,
    register,
)
from convexadam.continuous import Additive, Compositional, Diffusion, Level
from convexadam.kernels.feature_level import ForwardBackward
from convexadam.registration.inputs import RegistrationInputs
from convexadam.registration.pipeline import Initialisation, make_transform

SHAPE = (24, 20, 22)
AFFINE = oracles.oblique_affine((0.7, 1.3, 3.0), flips=(True, False, True))
NOISE = [Image(oracles.uniform(1, *SHAPE, seed=seed, high=1.0).float(), Grid(SHAPE, AFFINE)) for seed in (0, 1)]


ROUGH = Compositional(total_smoothing=None)


def register_noise(parametrisation: Any = ROUGH, initial: np.ndarray | None = None) -> RegistrationResult:
    """Register noise to other noise, with nothing that makes the field smooth."""
    config = RegistrationConfig(
        grid=NativeGrid(),
        linear=None,
        features=Intensity(),
        discrete=ConvexSearch(spacing=3, radius=3),
        continuous=Refinement(
            levels=(Level(spacing=1, iterations=5),),
            regularisers=(Diffusion(weight=0.0),),
            update_smoothing=None,
            parametrisation=parametrisation,
        ),
    )
    return register(*NOISE, config, initial_transform=initial)


def determinants(result: RegistrationResult) -> np.ndarray:
    return oracles.jacobian(result.transform.to_voxels().double().numpy())


def register_unrepaired(monkeypatch: pytest.MonkeyPatch, *options: Any) -> RegistrationResult:
    """The same registration, without the repair."""
    with monkeypatch.context() as patch:
        patch.setattr(Compositional, "fold_free", False)
        return register_noise(*options)


def test_folds_of_compositional_fields_are_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = register_unrepaired(monkeypatch), register_noise()
    assert determinants(before).min() < 0
    assert before.diagnostics["repaired_voxels"] == before.diagnostics["repaired_largest_mm"] == 0
    found = after.diagnostics
    assert determinants(after).min() > 0
    assert (found["folded_percent"], found["jacobian_min"] > 0) == (0, True)
    change = (after.transform.disp_mm - before.transform.disp_mm).double().norm(dim=0)
    assert found["repaired_voxels"] == int((change > 0).sum()) > 0
    assert found["repaired_largest_mm"] == pytest.approx(float(change.max()), rel=1e-6)
    assert found["displacement_max_mm"] == pytest.approx(float(after.transform.disp_mm.norm(dim=0).max()))


def test_folds_are_repaired_after_a_linear_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole transform counts: a field without folds may fold after a start that shears, and the reverse."""
    start = np.array([[1.2, 0.3, 0, -5], [0, 0.8, 0.1, 3], [0.1, 0, 1, 0], [0, 0, 0, 1.0]])
    assert determinants(register_unrepaired(monkeypatch, ROUGH, start)).min() < 0
    after = register_noise(ROUGH, start)
    assert after.diagnostics["repaired_voxels"] > 0
    assert determinants(after).min() > 0


def test_a_reflection_is_reported_and_not_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = 2 * (AFFINE[:3] @ [*(np.array(SHAPE) - 1) / 2, 1])[0]  # about the middle of the image
    before = register_unrepaired(monkeypatch, ROUGH, mirror)
    after = register_noise(ROUGH, mirror)
    assert torch.equal(after.transform.disp_mm, before.transform.disp_mm)
    assert after.diagnostics["folded_percent"] > 50
    assert after.diagnostics["repaired_voxels"] == after.diagnostics["repaired_largest_mm"] == 0


def test_the_published_form_is_not_repaired() -> None:
    result = register_noise(Additive())
    assert determinants(result).min() < 0
    assert result.diagnostics["folded_percent"] > 0
    assert result.diagnostics["repaired_voxels"] == 0


def test_a_field_without_folds_is_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = register_unrepaired(monkeypatch, Compositional()), register_noise(Compositional())
    assert determinants(after).min() > 0
    assert torch.equal(after.transform.disp_mm, before.transform.disp_mm)
    assert after.diagnostics == before.diagnostics


def test_the_parametrisation_decides_on_the_repair() -> None:
    grid, displacement = Grid(SHAPE), oracles.noise(3, *SHAPE).float()
    inputs = RegistrationInputs(fixed=Image(NOISE[0].data, grid), moving=Image(NOISE[1].data, grid))
    start = Initialisation(start=Affine(), linear=None, masks=(None, None))
    fields = ForwardBackward(forward=displacement)
    for continuous, repaired in (
        (None, False),
        (Refinement(parametrisation=Additive()), False),
        (Refinement(parametrisation=Compositional()), True),
    ):
        config = RegistrationConfig(continuous=continuous)
        transform, diagnostics = make_transform(inputs, start, config, grid, fields)
        kept = torch.allclose(transform.disp_mm, displacement, rtol=0, atol=1e-5)  # rounding of positions
        assert kept != repaired
        assert (oracles.jacobian(transform.disp_mm.double().numpy()).min() > 0) == repaired
        assert (diagnostics["jacobian_min"] > 0) == (diagnostics["repaired_voxels"] > 0) == repaired
