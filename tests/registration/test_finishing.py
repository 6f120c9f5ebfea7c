"""Fields that are promised to be free of folds are, on every voxel of the fixed grid; the judge is a naive loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch

from convexadam import (
    ConvexSearch,
    GivenGrid,
    Grid,
    Image,
    Intensity,
    Refinement,
    RegistrationConfig,
    RegistrationResult,
    register,
)
from convexadam.continuous import Compositional, Diffusion, Displacement, Level
from convexadam.registration.finishing import finished

SHAPE = (24, 20, 22)
AFFINE = oracles.oblique_affine((0.7, 1.3, 3.0), flips=(True, False, True))
NOISE = [Image(oracles.uniform(1, *SHAPE, seed=seed, high=1.0).float(), Grid(SHAPE, AFFINE)) for seed in (0, 1)]


ROUGH = Compositional(field_smoothing=None)


def registered(parametrisation: Any = ROUGH, initial: np.ndarray | None = None) -> RegistrationResult:
    """Fit noise to other noise, with nothing that keeps the field smooth."""
    config = RegistrationConfig(
        grid=GivenGrid(),
        linear=None,
        features=Intensity(),
        discrete=ConvexSearch(spacing=3, radius=3),
        continuous=Refinement(
            levels=(Level(spacing=1, iterations=5),),
            regularisers=(Diffusion(weight=0.0),),
            smoothing=None,
            parametrisation=parametrisation,
        ),
    )
    return register(*NOISE, config, initial_transform=initial)


def determinants(result: RegistrationResult) -> np.ndarray:
    return oracles.jacobian(result.transform.to_voxels().double().numpy())


def unrepaired(monkeypatch: pytest.MonkeyPatch, *options: Any) -> RegistrationResult:
    """The same registration without the promise."""
    with monkeypatch.context() as patch:
        patch.setattr(Compositional, "fold_free", False)
        return registered(*options)


def test_compositional_fields_are_unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = unrepaired(monkeypatch), registered()
    assert determinants(before).min() < 0
    assert before.diagnostics["repaired_voxels"] == before.diagnostics["repaired_largest_mm"] == 0
    found = after.diagnostics
    assert determinants(after).min() > 0
    assert (found["folded_percent"], found["jacobian_min"] > 0) == (0, True)
    change = (after.transform.disp_mm - before.transform.disp_mm).double().norm(dim=0)
    assert found["repaired_voxels"] == int((change > 0).sum()) > 0
    assert found["repaired_largest_mm"] == pytest.approx(float(change.max()), rel=1e-6)
    assert found["displacement_max_mm"] == pytest.approx(float(after.transform.disp_mm.norm(dim=0).max()))


def test_after_a_linear_start_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is the whole transform: a field without folds may fold after a start that shears, and the reverse."""
    start = np.array([[1.2, 0.3, 0, -5], [0, 0.8, 0.1, 3], [0.1, 0, 1, 0], [0, 0, 0, 1.0]])
    assert determinants(unrepaired(monkeypatch, ROUGH, start)).min() < 0
    after = registered(ROUGH, start)
    assert after.diagnostics["repaired_voxels"] > 0
    assert determinants(after).min() > 0


def test_a_start_that_mirrors_is_reported_only(monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = np.diag([-1.0, 1, 1, 1])
    mirror[0, 3] = 2 * (AFFINE[:3] @ [*(np.array(SHAPE) - 1) / 2, 1])[0]  # about the middle of the image
    before = unrepaired(monkeypatch, ROUGH, mirror)
    after = registered(ROUGH, mirror)
    assert torch.equal(after.transform.disp_mm, before.transform.disp_mm)
    assert after.diagnostics["folded_percent"] > 50
    assert after.diagnostics["repaired_voxels"] == after.diagnostics["repaired_largest_mm"] == 0


def test_the_published_form_is_left_as_it_is() -> None:
    result = registered(Displacement())
    assert determinants(result).min() < 0
    assert result.diagnostics["folded_percent"] > 0
    assert result.diagnostics["repaired_voxels"] == 0


def test_what_does_not_fold_keeps_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = unrepaired(monkeypatch, Compositional()), registered(Compositional())
    assert determinants(after).min() > 0
    assert torch.equal(after.transform.disp_mm, before.transform.disp_mm)
    assert after.diagnostics == before.diagnostics


def test_only_what_is_asked_for() -> None:
    disp_mm = oracles.noise(3, *SHAPE).float()
    transform, figures = finished(disp_mm.clone(), Grid(SHAPE), fold_free=False)
    assert torch.equal(transform.disp_mm, disp_mm)
    assert figures["jacobian_min"] < 0
    transform, figures = finished(disp_mm.clone(), Grid(SHAPE), fold_free=True)
    assert oracles.jacobian(transform.disp_mm.double().numpy()).min() > 0
    assert figures["repaired_voxels"] > 0
