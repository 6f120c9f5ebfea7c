"""Several searches and levels in a row, other features for the refinement, and the memory of all that."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from textures import shifted_pair
from torso import QUICK, SEARCH, cubic_pair, error, second_order, still, thick_pair

from convexadam import (
    ConvexSearch,
    GivenGrid,
    Grid,
    Image,
    Intensity,
    MindSSC,
    Refinement,
    estimate_memory,
    register,
)
from convexadam.continuous import (
    Adam,
    Compositional,
    Diffusion,
    Level,
    Lncc,
    MutualInformation,
    Ssd,
    WeightedSum,
)
from convexadam.data import PhantomPair
from convexadam.features import Concat
from convexadam.registration import levels


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return cubic_pair()


@pytest.fixture(scope="module")
def thick() -> PhantomPair:
    return thick_pair()


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
    # fractions are found but for the last cell of a window: 9 voxels are 1.5 cells of 6
    assert apart(shift, ConvexSearch(spacing=6, radius=3), ConvexSearch(spacing=2, radius=2)) < 0.3
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
    assert errors[4, 2] < 0.5 * still(pair)
    assert errors[4, 2] < min(errors[4,], errors[2,])


def test_each_stage_sees_the_images_at_its_own_spacing(pair: PhantomPair, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, tuple[Any, ...]]] = []
    plain = levels.checked_features

    def noted(features: Any, scans: Any, spacings: Any) -> Any:
        asked.append((features, spacings))
        return plain(features, scans, spacings)

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


@pytest.mark.parametrize(
    ("features", "similarity"),
    [
        (Intensity(), Lncc()),
        (
            Concat(parts=(MindSSC(), Intensity())),
            WeightedSum(terms=(Ssd(), Lncc()), weights=(1.0, 0.2), channels=(12, 1)),
        ),
    ],
)
def test_the_refinement_may_compare_other_features(pair: PhantomPair, features: Any, similarity: Any) -> None:
    refinement = dataclasses.replace(second_order(2), similarity=similarity)
    config = dataclasses.replace(QUICK, continuous=refinement, continuous_features=features)
    search = register(pair.fixed, pair.moving, dataclasses.replace(QUICK, continuous=None))
    assert error(register(pair.fixed, pair.moving, config), pair) < 0.8 * error(search, pair)


def test_the_same_features_once_more_change_nothing(pair: PhantomPair) -> None:
    plain, again = (
        register(pair.fixed, pair.moving, dataclasses.replace(QUICK, continuous_features=f)).transform.disp_mm
        for f in (None, MindSSC())
    )
    assert torch.equal(plain, again)


def test_mutual_information_of_two_contrasts(thick: PhantomPair) -> None:
    def found(similarity: Any) -> float:
        refinement = Refinement(
            levels=(Level(iterations=30),),
            similarity=similarity,
            regularisers=(Diffusion(weight=0.01),),
            optimiser=Adam(learning_rate=0.3),
            parametrisation=Compositional(),
        )
        config = dataclasses.replace(QUICK, discrete=None, continuous=refinement, continuous_features=Intensity())
        return error(register(thick.fixed, thick.moving, config), thick)

    # alone, one finds more than half of the motion, as differences of intensities do not
    half = 0.5 * still(thick)
    assert found(MutualInformation()) < half < found(Ssd())


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


def test_memory_of_all_that() -> None:
    shape = (160, 160, 160)
    plain = estimate_memory(shape, QUICK)
    assert estimate_memory(shape, dataclasses.replace(QUICK, continuous_features=MindSSC())) <= plain
    wide = dataclasses.replace(QUICK, features=Intensity(), continuous_features=MindSSC())
    assert estimate_memory(shape, wide) > estimate_memory(shape, dataclasses.replace(QUICK, features=Intensity()))
    fine = dataclasses.replace(QUICK, continuous=second_order(4, 1))
    assert estimate_memory(shape, fine) > 2 * plain
    far = dataclasses.replace(QUICK, discrete=(SEARCH, ConvexSearch(spacing=2, radius=5)))
    assert estimate_memory(shape, far) > 2 * plain
