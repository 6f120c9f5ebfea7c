"""Both directions at once."""

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
    in_voxels,
    moved_mm,
    organs_mm,
    second_order,
    still,
    thick_pair,
)

from convexadam import (
    Affine,
    ConvexSearch,
    DisplacementField,
    GivenGrid,
    Grid,
    Image,
    Intensity,
    Refinement,
    RegistrationConfig,
    RegistrationResult,
    register,
)
from convexadam.continuous import (
    Compositional,
    Displacement,
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
    """Mean distance between a point and where both ways in a row take it, in voxels."""
    assert result.inverse is not None
    points = organs_mm(pair)
    return float(in_voxels(pair, result.inverse(result.transform(points)) - points).mean())


# Both directions --------------------------------------------------------------------------------------------------


def test_without_it_there_is_no_inverse(pair: PhantomPair) -> None:
    assert register(pair.fixed, pair.moving, QUICK).inverse is None


def test_both_directions_are_each_others_inverse(pair: PhantomPair, both: RegistrationResult) -> None:
    assert isinstance(both.inverse, DisplacementField)
    assert both.inverse.grid.same_as(pair.fixed.grid)
    assert inconsistency(both, pair) < 0.1
    # both of them tell the truth, and it is not that nothing moves
    assert still(pair) > 1
    assert error(both, pair) < 0.4 * still(pair)
    back = both.inverse(moved_mm(pair)) - organs_mm(pair)
    assert float(in_voxels(pair, back).mean()) < 0.4 * still(pair)


def test_as_accurate_as_one_direction(pair: PhantomPair, both: RegistrationResult) -> None:
    assert error(both, pair) < 1.1 * error(register(pair.fixed, pair.moving, QUICK), pair)


def test_swapped_images_swap_the_directions(pair: PhantomPair, both: RegistrationResult) -> None:
    swapped = register(pair.moving, pair.fixed, BOTH)
    assert isinstance(both.inverse, DisplacementField)
    assert isinstance(swapped.inverse, DisplacementField)
    # the two come out of the same steps, of which none knows which is first
    for one, other in ((swapped.transform, both.inverse), (swapped.inverse, both.transform)):
        torch.testing.assert_close(one.to_voxels(), other.to_voxels(), rtol=0, atol=1e-3)


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
    "added": {"continuous": dataclasses.replace(ADAM, parametrisation=Displacement())},
    "searches in a row": {"discrete": (ConvexSearch(spacing=6, radius=2), ConvexSearch(spacing=3, radius=1))},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_whatever_the_stages(name: str, pair: PhantomPair) -> None:
    result = register(pair.fixed, pair.moving, dataclasses.replace(BOTH, **CONFIGS[name]))
    assert inconsistency(result, pair) < 0.1
    assert error(result, pair) < 0.6 * still(pair)


def test_on_an_anisotropic_oblique_grid_of_two_contrasts(thick: PhantomPair) -> None:
    for grid in ({}, {"grid": GivenGrid()}):
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
    # the start is part of both
    assert result.inverse is not None
    apart = in_voxels(thick, result.inverse(moved_mm(thick, matrix)) - organs_mm(thick))
    assert float(apart.mean()) < 0.6 * still(thick)


def test_after_a_start_that_bends(pair: PhantomPair) -> None:
    half = DisplacementField.from_voxels(0.5 * pair.disp_vox, pair.fixed.grid)
    result = register(pair.fixed, pair.moving, BOTH, initial_transform=half)
    assert inconsistency(result, pair) < 0.1
    assert error(result, pair) < 0.4 * still(pair)


@pytest.mark.parametrize("iterations", [0, 15])
def test_beyond_what_the_refinement_reaches(iterations: int) -> None:
    # Regression: without a backward search the refinement began at zero there, and the two met half way.
    shift = (9.0, -6.0, 3.0)
    fixed, moving = shifted_pair(Grid((48, 44, 40)), shift, (8.0, 24.0))
    search = ConvexSearch(spacing=3, radius=4, window="ball", inverse_consistency=iterations)
    result = register(fixed, moving, dataclasses.replace(BOTH, grid=GivenGrid(), discrete=search))
    truth = torch.tensor(shift).reshape(3, 1, 1, 1)
    assert isinstance(result.inverse, DisplacementField)
    for field, expected in ((result.transform, truth), (result.inverse, -truth)):
        apart = (field.to_voxels() - expected)[:, 10:-10, 10:-10, 10:-10]
        assert apart.norm(dim=0).mean() < 0.1


def test_a_level_of_one_way_goes_from_fixed_to_moving_alone(pair: PhantomPair) -> None:
    def found(level: Level, **options: Any) -> RegistrationResult:
        alone = dataclasses.replace(QUICK, discrete=None, continuous=Refinement(levels=(level,)))
        return register(pair.fixed, pair.moving, dataclasses.replace(alone, **options))

    level = Level(iterations=20)
    one_way = found(dataclasses.replace(level, one_way=True), symmetric=True)
    assert torch.equal(one_way.transform.disp_mm, found(level).transform.disp_mm)
    assert not torch.equal(one_way.transform.disp_mm, found(level, symmetric=True).transform.disp_mm)
    assert inconsistency(one_way, pair) < 0.1  # found afterwards


def test_without_contrast_nothing_moves_either_way() -> None:
    flat = torch.full((20, 18, 16), 7.0)
    result = register(flat, flat, BOTH)
    assert isinstance(result.inverse, DisplacementField)
    assert not result.transform.disp_mm.any()
    assert not result.inverse.disp_mm.any()


def test_neither_of_them_folds() -> None:
    noise = [Image(oracles.uniform(1, 24, 20, 22, seed=s).float(), Grid((24, 20, 22))) for s in (0, 1)]
    rough = Refinement(
        levels=(Level(spacing=1, iterations=5),),
        regularisers=(),
        smoothing=None,
        parametrisation=Compositional(field_smoothing=None),
    )
    config = RegistrationConfig(
        grid=GivenGrid(), linear=None, features=Intensity(), discrete=SEARCH, continuous=rough, symmetric=True
    )
    result = register(*noise, config)
    assert isinstance(result.inverse, DisplacementField)
    for field in (result.transform, result.inverse):
        assert oracles.jacobian(field.to_voxels().double().numpy()).min() > 0


def test_the_report_says_so(both: RegistrationResult, tmp_path: Path) -> None:
    both.save_report(tmp_path / "report.json")
    config = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["config"]
    assert config["symmetric"] is True
    assert config["continuous_features"] == {"type": "none"}
    assert config["continuous"]["levels"][0]["iterations"] == 20
    assert config["continuous"]["optimiser"] == {"type": "Adam", "learning_rate": 1.0}


def test_the_report_has_every_search(pair: PhantomPair) -> None:
    searches = (ConvexSearch(spacing=6, radius=2), ConvexSearch(spacing=3, radius=1))
    report = register(pair.fixed, pair.moving, dataclasses.replace(QUICK, discrete=searches, continuous=None)).report()
    assert [s["spacing"] for s in report["config"]["discrete"]] == [6, 3]
    assert json.loads(json.dumps(report)) == report
