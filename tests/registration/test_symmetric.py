"""Symmetric registrations."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import oracles
import pytest
import torch
from textures import shifted_pair
from torso import (
    ADAM,
    ANISOTROPIC,
    QUICK,
    SEARCH,
    cubic_pair,
    error,
    moved_mm,
    organs_mm,
    scale_to_voxels,
    second_order,
    still,
    thick_pair,
)

from convexadam import (
    Affine,
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    Intensity,
    NativeGrid,
    Refinement,
    RegistrationConfig,
    RegistrationResult,
    register,
)
from convexadam.continuous import (
    Additive,
    Compositional,
    Level,
    StationaryVelocity,
)
from convexadam.data import PhantomPair

TURNED = oracles.oblique_affine((1.0, 1.05, 0.95), degrees=(4, -3, 5))
BOTH = dataclasses.replace(QUICK, symmetric=True)


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return cubic_pair()


@pytest.fixture(scope="module")
def thick() -> PhantomPair:
    return thick_pair()


@pytest.fixture(scope="module")
def both(pair: PhantomPair) -> RegistrationResult:
    return register(pair.fixed, pair.moving, BOTH)


def inconsistency(result: RegistrationResult, pair: PhantomPair) -> float:
    """Mean distance between a point and its image under the transform and then the inverse, in voxels."""
    points = organs_mm(pair)
    return float(scale_to_voxels(pair, result.inverse()(result.transform(points)) - points).mean())


def test_a_forward_registration_has_no_inverse(pair: PhantomPair) -> None:
    assert register(pair.fixed, pair.moving, QUICK).estimated_inverse is None


def test_transform_and_inverse_are_inverse_of_each_other(pair: PhantomPair, both: RegistrationResult) -> None:
    assert isinstance(both.estimated_inverse, DisplacementField)
    assert both.estimated_inverse.grid.is_close(pair.fixed.grid)
    assert inconsistency(both, pair) < 0.1
    # both are accurate, for a displacement that is not small
    assert still(pair) > 1
    assert error(both, pair) < 0.4 * still(pair)
    backward_error = both.estimated_inverse(moved_mm(pair)) - organs_mm(pair)
    assert float(scale_to_voxels(pair, backward_error).mean()) < 0.4 * still(pair)


def test_it_is_as_accurate_as_a_forward_registration(pair: PhantomPair, both: RegistrationResult) -> None:
    assert error(both, pair) < 1.1 * error(register(pair.fixed, pair.moving, QUICK), pair)


def test_exchanging_the_images_exchanges_transform_and_inverse(pair: PhantomPair, both: RegistrationResult) -> None:
    swapped = register(pair.moving, pair.fixed, BOTH)
    assert isinstance(both.estimated_inverse, DisplacementField)
    assert isinstance(swapped.estimated_inverse, DisplacementField)
    for found, expected in ((swapped.transform, both.estimated_inverse), (swapped.estimated_inverse, both.transform)):
        torch.testing.assert_close(found.to_voxels(), expected.to_voxels(), rtol=0, atol=1e-3)


CONFIGS: dict[str, dict[str, Any]] = {
    "search alone": {"continuous": None},
    "search of one direction alone": {
        "discrete": dataclasses.replace(SEARCH, inverse_consistency=0),
        "continuous": None,
    },
    "search of one direction": {"discrete": dataclasses.replace(SEARCH, inverse_consistency=0)},
    "refinement alone": {"discrete": None},
    "several levels, second order": {"continuous": second_order(4, 2)},
    "velocity": {"continuous": second_order(2, parametrisation=StationaryVelocity())},
    "added": {"continuous": dataclasses.replace(ADAM, parametrisation=Additive())},
    "searches in a row": {"discrete": (ConvexSearch(spacing=6, radius=2), ConvexSearch(spacing=3, radius=1))},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_any_stages(name: str, pair: PhantomPair) -> None:
    result = register(pair.fixed, pair.moving, dataclasses.replace(BOTH, **CONFIGS[name]))
    assert inconsistency(result, pair) < 0.1
    assert error(result, pair) < 0.6 * still(pair)


def test_on_an_anisotropic_oblique_grid_of_two_contrasts(thick: PhantomPair) -> None:
    for grid in ({}, {"grid": NativeGrid()}):
        result = register(thick.fixed, thick.moving, dataclasses.replace(BOTH, **grid))
        assert inconsistency(result, thick) < 0.1
        assert error(result, thick) < 0.6 * still(thick)


def test_after_a_linear_start(thick: PhantomPair) -> None:
    centre = oracles.mm_of_voxels(ANISOTROPIC, thick.fixed.grid.shape).reshape(3, -1).mean(1)
    matrix = TURNED.copy()
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + (20, -10, 15)
    moving = Image(thick.moving.data, Grid(thick.moving.grid.shape, matrix @ ANISOTROPIC))
    result = register(thick.fixed, moving, BOTH, initial_transform=Affine(matrix))
    assert inconsistency(result, thick) < 0.1
    assert error(result, thick, matrix) < 0.6 * still(thick)
    # the start is part of both transforms
    assert result.estimated_inverse is not None
    backward_error = scale_to_voxels(thick, result.estimated_inverse(moved_mm(thick, matrix)) - organs_mm(thick))
    assert float(backward_error.mean()) < 0.6 * still(thick)


def test_after_a_displacement_field(pair: PhantomPair) -> None:
    half = DisplacementField.from_voxels(0.5 * pair.disp_vox, pair.fixed.grid)
    result = register(pair.fixed, pair.moving, BOTH, initial_transform=half)
    assert inconsistency(result, pair) < 0.1
    assert error(result, pair) < 0.4 * still(pair)


@pytest.mark.parametrize("iterations", [0, 15])
def test_displacements_that_only_the_search_finds(iterations: int) -> None:
    # regression: without a backward search the backward refinement started from zero, which halved the displacement
    shift = (9.0, -6.0, 3.0)
    fixed, moving = shifted_pair(Grid((48, 44, 40)), shift, (8.0, 24.0))
    search = ConvexSearch(spacing=3, radius=4, window="ball", inverse_consistency=iterations)
    result = register(fixed, moving, dataclasses.replace(BOTH, grid=NativeGrid(), discrete=search))
    truth = torch.tensor(shift).reshape(3, 1, 1, 1)
    assert isinstance(result.estimated_inverse, DisplacementField)
    for field, expected in ((result.transform, truth), (result.estimated_inverse, -truth)):
        difference = (field.to_voxels() - expected)[:, 10:-10, 10:-10, 10:-10]
        assert difference.norm(dim=0).mean() < 0.1


def test_a_forward_only_level(pair: PhantomPair) -> None:
    def found(level: Level, **options: Any) -> RegistrationResult:
        alone = dataclasses.replace(QUICK, discrete=None, continuous=Refinement(levels=(level,)))
        return register(pair.fixed, pair.moving, dataclasses.replace(alone, **options))

    level = Level(iterations=20)
    forward_only = found(dataclasses.replace(level, forward_only=True), symmetric=True)
    assert torch.equal(forward_only.transform.disp_mm, found(level).transform.disp_mm)
    assert not torch.equal(forward_only.transform.disp_mm, found(level, symmetric=True).transform.disp_mm)
    assert forward_only.estimated_inverse is None  # it is computed from the transform, if somebody asks for it
    assert inconsistency(forward_only, pair) < 0.1


def test_without_contrast_both_displacements_are_zero() -> None:
    flat = torch.full((20, 18, 16), 7.0)
    with pytest.warns(UserWarning, match="an image has no contrast"):
        result = register(flat, flat, BOTH)
    inverse = result.inverse()
    assert isinstance(inverse, DisplacementField)
    assert not result.transform.disp_mm.any()
    assert not inverse.disp_mm.any()


def test_neither_transform_folds() -> None:
    noise = [Image(oracles.uniform(1, 24, 20, 22, seed=s).float(), Grid((24, 20, 22))) for s in (0, 1)]
    rough = Refinement(
        levels=(Level(spacing=1, iterations=5),),
        regularisers=(),
        update_smoothing=None,
        parametrisation=Compositional(total_smoothing=None),
    )
    config = RegistrationConfig(
        grid=NativeGrid(), linear=None, features=Intensity(), discrete=SEARCH, continuous=rough, symmetric=True
    )
    result = register(*noise, config)
    assert isinstance(result.estimated_inverse, DisplacementField)
    for field in (result.transform, result.estimated_inverse):
        assert oracles.jacobian(field.to_voxels().double().numpy()).min() > 0


def test_the_report_contains_the_settings(both: RegistrationResult, tmp_path: Path) -> None:
    both.save_summary(tmp_path / "report.json")
    config = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["config"]
    assert config["symmetric"] is True
    assert config["continuous_features"] == {"type": "none"}
    assert config["continuous"]["levels"][0]["iterations"] == 20
    assert config["continuous"]["optimiser"] == {"type": "Adam", "learning_rate": 1.0}


def test_the_report_contains_every_search(pair: PhantomPair) -> None:
    searches = (ConvexSearch(spacing=6, radius=2), ConvexSearch(spacing=3, radius=1))
    report = register(pair.fixed, pair.moving, dataclasses.replace(QUICK, discrete=searches, continuous=None)).summary()
    assert [s["spacing"] for s in report["config"]["discrete"]] == [6, 3]
    assert json.loads(json.dumps(report)) == report
