"""Both directions at once, several levels and searches, and other features for the refinement."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from textures import shifted_pair

from convexadam import (
    Affine,
    ConvexSearch,
    DisplacementField,
    GivenGrid,
    Grid,
    Image,
    Intensity,
    MindSSC,
    Refinement,
    RegistrationConfig,
    RegistrationResult,
    estimate_memory,
    register,
)
from convexadam.continuous import (
    Adam,
    Compositional,
    Diffusion,
    Displacement,
    Level,
    LevenbergMarquardt,
    Lncc,
    MutualInformation,
    Ssd,
    StationaryVelocity,
    WeightedSum,
)
from convexadam.data import PhantomPair, phantom_pair
from convexadam.features import Concat
from convexadam.registration import levels

ANISOTROPIC = np.array([[-8.0, 0.4, 0, 190], [0.3, 0, 14, -140], [0, 9, 0.5, -160], [0, 0, 0, 1]])
TURNED = oracles.oblique_affine((1.0, 1.05, 0.95), degrees=(4, -3, 5))
SEARCH = ConvexSearch(spacing=4, radius=3, window="ball")
ADAM = Refinement(
    levels=(Level(iterations=20),), regularisers=(Diffusion(weight=0.2),), parametrisation=Compositional()
)
QUICK = RegistrationConfig(linear=None, discrete=SEARCH, continuous=ADAM)
BOTH = dataclasses.replace(QUICK, symmetric=True)


def second_order(*spacings: int, parametrisation: Any = None) -> Refinement:
    return Refinement(
        levels=tuple(Level(spacing=spacing, iterations=5) for spacing in spacings),
        regularisers=(Diffusion(weight=0.2),),
        optimiser=LevenbergMarquardt(),
        parametrisation=parametrisation or Compositional(),
    )


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return phantom_pair((48, 40, 36), contrasts=("t1", "t1"), displacement_mm=25, seed=3)


@pytest.fixture(scope="module")
def thick() -> PhantomPair:
    return phantom_pair((48, 40, 18), contrasts=("t1", "t2"), affine=ANISOTROPIC, displacement_mm=25, seed=3)


@pytest.fixture(scope="module")
def both(pair: PhantomPair) -> RegistrationResult:
    return register(pair.fixed, pair.moving, BOTH)


def organs_mm(pair: PhantomPair) -> torch.Tensor:
    """Points of the fixed image within organs, ``(n, 3)``."""
    where = pair.fixed_labels.data[0].numpy() > 0
    return torch.from_numpy(oracles.mm_of_voxels(pair.fixed.grid.affine, where.shape)[:, where].T.copy())


def moved_mm(pair: PhantomPair, linear: np.ndarray | None = None) -> torch.Tensor:
    """Where `organs_mm` have moved to."""
    where = pair.fixed_labels.data[0].numpy() > 0
    linear = np.eye(4) if linear is None else linear
    moved = pair.disp_vox.double().numpy()[:, where].T @ pair.fixed.grid.affine[:3, :3].T
    points = organs_mm(pair).numpy() + moved
    return torch.from_numpy(points @ linear[:3, :3].T + linear[:3, 3])


def in_voxels(pair: PhantomPair, apart_mm: torch.Tensor) -> torch.Tensor:
    """Lengths of vectors in mm, ``(n, 3)``, in voxels of the fixed image."""
    return torch.from_numpy(np.linalg.solve(pair.fixed.grid.affine[:3, :3], apart_mm.numpy().T)).norm(dim=0)


def error(result: RegistrationResult, pair: PhantomPair, linear: np.ndarray | None = None) -> float:
    return float(in_voxels(pair, result.transform(organs_mm(pair)) - moved_mm(pair, linear)).mean())


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
    points, truth = organs_mm(pair), moved_mm(pair)
    still = float(in_voxels(pair, truth - points).mean())
    assert still > 1
    assert error(both, pair) < 0.4 * still
    assert float(in_voxels(pair, both.inverse(truth) - points).mean()) < 0.4 * still


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
    still = float(in_voxels(pair, moved_mm(pair) - organs_mm(pair)).mean())
    assert error(result, pair) < 0.6 * still


def test_on_an_anisotropic_oblique_grid_of_two_contrasts(thick: PhantomPair) -> None:
    for grid in ({}, {"grid": GivenGrid()}):
        result = register(thick.fixed, thick.moving, dataclasses.replace(BOTH, **grid))
        assert inconsistency(result, thick) < 0.1
        assert error(result, thick) < 0.6 * float(in_voxels(thick, moved_mm(thick) - organs_mm(thick)).mean())


def test_after_a_linear_start(thick: PhantomPair) -> None:
    centre = oracles.mm_of_voxels(ANISOTROPIC, thick.fixed.grid.shape).reshape(3, -1).mean(1)
    matrix = TURNED.copy()
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + (20, -10, 15)
    moving = Image(thick.moving.data, Grid(thick.moving.grid.shape, matrix @ ANISOTROPIC))
    result = register(thick.fixed, moving, BOTH, initial_transform=Affine(matrix))
    assert inconsistency(result, thick) < 0.1
    assert error(result, thick, matrix) < 0.6 * float(in_voxels(thick, moved_mm(thick) - organs_mm(thick)).mean())
    # the start is part of both
    assert result.inverse is not None
    apart = in_voxels(thick, result.inverse(moved_mm(thick, matrix)) - organs_mm(thick))
    assert float(apart.mean()) < 0.6 * float(in_voxels(thick, moved_mm(thick) - organs_mm(thick)).mean())


def test_after_a_start_that_bends(pair: PhantomPair) -> None:
    half = DisplacementField.from_voxels(0.5 * pair.disp_vox, pair.fixed.grid)
    result = register(pair.fixed, pair.moving, BOTH, initial_transform=half)
    assert inconsistency(result, pair) < 0.1
    assert error(result, pair) < 0.4 * float(in_voxels(pair, moved_mm(pair) - organs_mm(pair)).mean())


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
    assert config["continuous"]["levels"][0] == {
        "type": "Level", "spacing": 2, "iterations": 20, "smoothing": None, "field_smoothing": None,
    }  # fmt: skip
    assert config["continuous"]["optimiser"] == {"type": "Adam", "learning_rate": 1.0}


def test_the_report_has_every_search(pair: PhantomPair) -> None:
    searches = (ConvexSearch(spacing=6, radius=2), ConvexSearch(spacing=3, radius=1))
    report = register(pair.fixed, pair.moving, dataclasses.replace(QUICK, discrete=searches, continuous=None)).report()
    assert [s["spacing"] for s in report["config"]["discrete"]] == [6, 3]
    assert json.loads(json.dumps(report)) == report


# Searches and levels in a row -------------------------------------------------------------------------------------


def apart(shift: tuple[float, float, float], *searches: ConvexSearch) -> float:
    """Mean error of searches alone for a pure shift, in voxels."""
    fixed, moving = shifted_pair(Grid((48, 44, 40)), shift, (8.0, 24.0))
    config = dataclasses.replace(QUICK, grid=GivenGrid(), discrete=searches, continuous=None)
    found = register(fixed, moving, config).transform.to_voxels()
    return float((found - torch.tensor(shift).reshape(3, 1, 1, 1))[:, 10:-10, 10:-10, 10:-10].norm(dim=0).mean())


def test_searches_in_a_row_reach_further() -> None:
    shift, near = (9.0, -6.0, 3.0), ConvexSearch(spacing=3, radius=2)
    assert apart(shift, near) > 2  # 9 voxels are 3 cells
    assert apart(shift, near, near) < 0.3
    assert apart(shift, ConvexSearch(spacing=6, radius=2), ConvexSearch(spacing=2, radius=2)) < 0.3
    # Regression: a search both ways after one of one direction began its way back at zero.
    assert apart(shift, dataclasses.replace(near, radius=3, inverse_consistency=0), near) < 0.3


@pytest.mark.parametrize("shift", [(2.4, -3.7, 1.3), (-1.6, 2.2, 5.1)])
def test_a_finer_search_after_a_coarse_one_finds_fractions_more_closely(shift: tuple[float, float, float]) -> None:
    coarse, fine = ConvexSearch(spacing=4, radius=2), ConvexSearch(spacing=2, radius=1)
    assert apart(shift, coarse, fine) < 0.7 * apart(shift, coarse)


def test_several_levels_go_on_from_each_other(pair: PhantomPair) -> None:
    alone = dataclasses.replace(QUICK, discrete=None)
    errors = {
        spacings: error(
            register(pair.fixed, pair.moving, dataclasses.replace(alone, continuous=second_order(*spacings))), pair
        )
        for spacings in ((4,), (2,), (4, 2))
    }
    still = float(in_voxels(pair, moved_mm(pair) - organs_mm(pair)).mean())
    assert errors[4, 2] < 0.5 * still
    assert errors[4, 2] < min(errors[4,], errors[2,])


def test_each_stage_sees_the_images_at_its_own_spacing(pair: PhantomPair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, tuple[Any, ...]]] = []
    plain = levels.checked_features

    def noted(features: Any, images: Any, weights: Any, spacings: Any) -> Any:
        asked.append((features, spacings))
        return plain(features, images, weights, spacings)

    monkeypatch.setattr(levels, "checked_features", noted)

    def seen(**options: Any) -> list[tuple[Any, tuple[Any, ...]]]:
        asked.clear()
        register(pair.fixed, pair.moving, dataclasses.replace(QUICK, grid=GivenGrid(), **options))
        return asked

    mind, other = MindSSC(), Intensity()
    six, four, three, two = ((n, n, n) for n in (6, 4, 3, 2))
    one_level = Refinement(levels=(Level(iterations=1),))
    levels_two = Refinement(levels=(Level(spacing=3, iterations=1), Level(iterations=1)))
    assert seen(continuous=one_level) == [(mind, (four, two))]  # one pass for both stages
    assert seen(continuous=one_level, discrete=None) == [(mind, (two,))]
    assert seen(continuous=None) == [(mind, (four,))]
    assert seen(continuous=levels_two) == [(mind, (four,)), (mind, (three,)), (mind, (two,))]
    searches = (ConvexSearch(spacing=6, radius=1), ConvexSearch(spacing=4, radius=1))
    assert seen(continuous=one_level, discrete=searches) == [(mind, (six, four, two))]
    assert seen(continuous=one_level, continuous_features=other) == [(mind, (four,)), (other, (two,))]
    assert seen(continuous=levels_two, continuous_features=other, discrete=None) == [(other, (three,)), (other, (two,))]


# Features of the refinement ---------------------------------------------------------------------------------------


def test_the_refinement_may_compare_other_features(pair: PhantomPair) -> None:
    correlated = dataclasses.replace(second_order(2), similarity=Lncc())
    config = dataclasses.replace(QUICK, continuous=correlated, continuous_features=Intensity())
    search = register(pair.fixed, pair.moving, dataclasses.replace(QUICK, continuous=None))
    assert error(register(pair.fixed, pair.moving, config), pair) < 0.8 * error(search, pair)


def test_the_same_features_once_more_change_nothing(pair: PhantomPair) -> None:
    plain, again = (
        register(pair.fixed, pair.moving, dataclasses.replace(QUICK, continuous_features=f)).transform.disp_mm
        for f in (None, MindSSC())
    )
    assert torch.equal(plain, again)


def test_several_features_with_a_similarity_each(pair: PhantomPair) -> None:
    features = Concat(parts=(MindSSC(), Intensity()))
    both = WeightedSum(terms=(Ssd(), Lncc()), weights=(1.0, 0.2), channels=(12, 1))
    config = dataclasses.replace(
        QUICK, continuous=dataclasses.replace(second_order(2), similarity=both), continuous_features=features
    )
    search = register(pair.fixed, pair.moving, dataclasses.replace(QUICK, continuous=None))
    assert error(register(pair.fixed, pair.moving, config), pair) < 0.8 * error(search, pair)


def test_mutual_information_of_two_contrasts(thick: PhantomPair) -> None:
    shared = Refinement(
        levels=(Level(iterations=30),),
        similarity=MutualInformation(),
        regularisers=(Diffusion(weight=0.01),),
        optimiser=Adam(learning_rate=0.3),
        parametrisation=Compositional(),
    )
    config = dataclasses.replace(QUICK, continuous=shared, continuous_features=Intensity())
    search = register(thick.fixed, thick.moving, dataclasses.replace(QUICK, continuous=None))
    assert error(register(thick.fixed, thick.moving, config), thick) < error(search, thick)


class _Reaching:
    """Features that say how far they look, and what evidence they were given."""

    def __init__(self, reach: int) -> None:
        self.reach, self.seen = reach, []

    def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        self.seen.append(weight)
        return image.data.float()


def test_the_edge_is_guesswork_as_far_as_either_features_look(pair: PhantomPair) -> None:
    def edge(first: int, second: int | None) -> torch.Tensor:
        features, other = _Reaching(first), None if second is None else _Reaching(second)
        config = dataclasses.replace(
            QUICK, grid=GivenGrid(), features=features, continuous_features=other, discrete=None,
            continuous=Refinement(levels=(Level(iterations=1),)),
        )  # fmt: skip
        register(pair.fixed, pair.moving, config)
        (weight, *_) = (features if other is None else other).seen
        assert weight is not None
        return (weight == 0).sum()

    assert edge(0, 3) == edge(3, 0) == edge(3, None) > 0


# Memory -----------------------------------------------------------------------------------------------------------


def test_memory_of_all_that(pair: PhantomPair) -> None:
    shape = (160, 160, 160)
    plain = estimate_memory(shape, QUICK)
    assert estimate_memory(shape, dataclasses.replace(QUICK, continuous_features=MindSSC())) <= plain
    wide = dataclasses.replace(QUICK, features=Intensity(), continuous_features=MindSSC())
    assert estimate_memory(shape, wide) > estimate_memory(shape, dataclasses.replace(QUICK, features=Intensity()))
    fine = dataclasses.replace(QUICK, continuous=second_order(4, 1))
    assert estimate_memory(shape, fine) > 2 * plain
    far = dataclasses.replace(QUICK, discrete=(SEARCH, ConvexSearch(spacing=2, radius=5)))
    assert estimate_memory(shape, far) > 2 * plain
    assert pair is not None
