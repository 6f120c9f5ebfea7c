"""Several searches and levels, other features for the refinement, and the memory of all these."""

from __future__ import annotations

import dataclasses
import sys
import weakref
from typing import Any

import pytest
import torch
from textures import shifted_pair
from torso import QUICK, SEARCH, cubic_pair, error, second_order, still, thick_pair

from convexadam import (
    ConvexSearch,
    Grid,
    Image,
    Intensity,
    MindSSC,
    NativeGrid,
    Refinement,
    RegistrationConfig,
    estimate_memory,
    register,
)
from convexadam.continuous import (
    Level,
    Lncc,
    Ssd,
    WeightedSum,
)
from convexadam.data import PhantomPair
from convexadam.features import Concat
from convexadam.kernels.warp_ssd import tensor_of
from convexadam.registration.pair import WorkingPair
from convexadam.registration.pipeline import resample_to_working_grid


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return cubic_pair()


@pytest.fixture(scope="module")
def thick() -> PhantomPair:
    return thick_pair()


# Several searches and levels --------------------------------------------------------------------------------------


def search_error(shift: tuple[float, float, float], *searches: ConvexSearch) -> float:
    """Mean error of searches alone for a translation, in voxels."""
    fixed, moving = shifted_pair(Grid((48, 44, 40)), shift, (8.0, 24.0))
    config = dataclasses.replace(QUICK, grid=NativeGrid(), discrete=searches, continuous=None)
    found = register(fixed, moving, config).transform.to_voxels()
    return float((found - torch.tensor(shift).reshape(3, 1, 1, 1))[:, 10:-10, 10:-10, 10:-10].norm(dim=0).mean())


def test_several_searches_find_larger_displacements() -> None:
    shift, near = (9.0, -6.0, 3.0), ConvexSearch(spacing=3, radius=2)
    assert search_error(shift, near) > 2  # 9 voxels are 3 control points
    assert search_error(shift, near, near) < 0.3
    # fractions are found except at the border of the window: 9 voxels are 1.5 control points of 6
    assert search_error(shift, ConvexSearch(spacing=6, radius=3), ConvexSearch(spacing=2, radius=2)) < 0.3
    # regression: the backward search after a forward-only one started from zero
    assert search_error(shift, dataclasses.replace(near, radius=3, inverse_consistency=0), near) < 0.3


@pytest.mark.parametrize("shift", [(2.4, -3.7, 1.3), (-1.6, 2.2, 5.1)])
def test_a_finer_search_after_a_coarse_one_is_more_accurate(shift: tuple[float, float, float]) -> None:
    coarse, fine = ConvexSearch(spacing=4, radius=2), ConvexSearch(spacing=2, radius=1)
    assert search_error(shift, coarse, fine) < 0.7 * search_error(shift, coarse)


def test_several_levels_are_more_accurate_than_one(pair: PhantomPair) -> None:
    alone = dataclasses.replace(QUICK, discrete=None)
    errors = {
        spacings: error(
            register(pair.fixed, pair.moving, dataclasses.replace(alone, continuous=second_order(*spacings))), pair
        )
        for spacings in ((4,), (2,), (4, 2))
    }
    assert errors[4, 2] < 0.5 * still(pair)
    assert errors[4, 2] < min(errors[4,], errors[2,])


class Counted:
    """Features of one channel that count how often they are extracted from a pair."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        self.images += 1
        return image.data.float() / 500

    @property
    def pairs(self) -> int:
        assert self.images % 2 == 0
        return self.images // 2


ONE = (Level(iterations=1),)
TWO = (Level(spacing=3, iterations=1), Level(iterations=1))
SIX, FOUR = ConvexSearch(spacing=6, radius=1), ConvexSearch(spacing=4, radius=1)


@pytest.mark.parametrize(
    ("discrete", "levels", "own_features", "expected"),
    [
        (FOUR, ONE, False, (1, 0)),  # one pass over the images for both stages
        ((SIX, FOUR), ONE, False, (1, 0)),
        (None, ONE, False, (1, 0)),
        (FOUR, None, False, (1, 0)),
        (None, None, False, (1, 0)),  # for the diagnostics
        (FOUR, TWO, False, (3, 0)),  # one level at a time
        (FOUR, ONE, True, (1, 1)),
        (None, TWO, True, (0, 2)),
    ],
)
def test_features_are_extracted_as_rarely_as_possible(
    pair: PhantomPair, discrete: Any, levels: Any, own_features: bool, expected: tuple[int, int]
) -> None:
    features, other = Counted(), Counted()
    config = dataclasses.replace(
        QUICK,
        grid=NativeGrid(),
        discrete=discrete,
        continuous=None if levels is None else Refinement(levels=levels),
        features=features,
        continuous_features=other if own_features else None,
    )
    register(pair.fixed, pair.moving, config)
    assert (features.pairs, other.pairs) == expected


def working_pair(config: RegistrationConfig) -> WorkingPair:
    pair = cubic_pair()
    return WorkingPair(config=config, images=(pair.fixed, pair.moving), weights=(None, None))


def test_each_stage_has_features_of_its_own_spacing() -> None:
    config = dataclasses.replace(
        QUICK, grid=NativeGrid(), discrete=(SIX, FOUR), continuous=Refinement(levels=TWO), features=Counted()
    )
    pair = working_pair(config)
    searches, fine = pair.extract()
    assert fine is None  # the refinement has several levels
    refinements = [pair.extract_refinement(number) for number in (0, 1)]
    shape = pair.grid.shape
    for level, n in zip([*searches, *refinements], (6, 4, 3, 2), strict=True):
        assert level.spacing == (n, n, n)
        assert level.shape == tuple(size // n for size in shape)
        for features, image in ((level.fixed, pair.images[0]), (level.moving, pair.images[1])):
            blocks = torch.nn.functional.avg_pool3d(image.data[None].float() / 500, n)[0]
            torch.testing.assert_close(features, blocks, rtol=1e-5, atol=1e-5)


def test_the_refinement_shares_the_pass_of_the_search_if_it_has_one_level() -> None:
    config = dataclasses.replace(QUICK, grid=NativeGrid(), continuous=Refinement(levels=ONE))
    pair = working_pair(config)
    searches, fine = pair.extract()
    assert fine is not None
    alone = pair.extract_refinement(0)
    assert fine.spacing == alone.spacing == (2, 2, 2)
    torch.testing.assert_close(fine.fixed, alone.fixed)
    torch.testing.assert_close(fine.moving, alone.moving)
    assert [level.spacing for level in searches] == [(4, 4, 4)]


@pytest.mark.parametrize("together", [True, False])
def test_the_refinement_takes_the_features_of_a_search_of_its_spacing(together: bool) -> None:
    features = Concat(parts=(Intensity(), MindSSC())) if together else None
    config = dataclasses.replace(
        QUICK, grid=NativeGrid(), discrete=(SIX, FOUR), continuous=Refinement(levels=(Level(spacing=4), Level())),
        features=MindSSC(), continuous_features=features,
    )  # fmt: skip
    expected = working_pair(config).extract_refinement(0)
    pair = working_pair(config)
    list(pair.extract()[0])
    ((spacing, maps),) = pair.extracted.items()
    maps[0].zero_()
    maps[1].zero_()
    found = pair.extract_refinement(0)
    assert spacing == found.spacing == (4, 4, 4)
    assert not pair.extracted  # and does not keep them
    shares = 1 if together else 0
    torch.testing.assert_close(tensor_of(found.fixed)[:shares], tensor_of(expected.fixed)[:shares])
    assert not tensor_of(found.fixed)[shares:].any()
    assert not tensor_of(found.moving)[shares:].any()


@pytest.mark.parametrize(("levels", "alive"), [(ONE, False), (TWO, True)])
def test_weights_and_images_are_released_after_the_last_extraction(levels: tuple[Level, ...], alive: bool) -> None:
    pair, seen = cubic_pair(), []

    def resample(*arguments: Any) -> WorkingPair:
        found = resample_to_working_grid(*arguments)
        weights = tuple(torch.ones(found.grid.shape) for _ in range(2))
        seen.extend(weakref.ref(weight) for weight in weights)
        return dataclasses.replace(found, weights=weights)

    def watch(stage: str, _: float) -> None:
        if stage == "discrete":
            assert [ref() is not None for ref in seen] == [alive, alive]

    config = dataclasses.replace(QUICK, grid=NativeGrid(), continuous=Refinement(levels=levels))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["convexadam.registration.register"], "resample_to_working_grid", resample)
        register(pair.fixed, pair.moving, config, progress=watch)
    assert len(seen) == 2


def test_the_features_of_a_search_are_released_once_it_is_done() -> None:
    config = dataclasses.replace(QUICK, grid=NativeGrid(), discrete=(SIX, FOUR, FOUR), features=Intensity())
    searches, _ = working_pair(config).extract()
    released = []
    for level in searches:
        released.append(weakref.ref(level))
        del level
        assert released[-1]() is None  # the iterator does not keep it
    assert len(released) == 3


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


class WithRadius:
    """Features with a receptive radius that keep the weights they are given."""

    def __init__(self, radius: int) -> None:
        self.receptive_radius, self.weights = radius, []

    def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        self.weights.append(weight)
        return image.data.float()


def test_the_border_has_no_weight_within_the_larger_receptive_radius(pair: PhantomPair) -> None:
    def edge(first: int, second: int | None) -> torch.Tensor:
        features, other = WithRadius(first), None if second is None else WithRadius(second)
        config = dataclasses.replace(
            QUICK, grid=NativeGrid(), features=features, continuous_features=other, discrete=None,
            continuous=Refinement(levels=(Level(iterations=1),)),
        )  # fmt: skip
        register(pair.fixed, pair.moving, config)
        (weight, *_) = (features if other is None else other).weights
        assert weight is not None
        return (weight == 0).sum()

    assert edge(0, 3) == edge(3, 0) == edge(3, None) > 0


# Memory -----------------------------------------------------------------------------------------------------------


def test_memory_of_several_stages() -> None:
    shape = (160, 160, 160)
    plain = estimate_memory(shape, QUICK)
    assert estimate_memory(shape, dataclasses.replace(QUICK, continuous_features=MindSSC())) <= plain
    wide = dataclasses.replace(QUICK, features=Intensity(), continuous_features=MindSSC())
    assert estimate_memory(shape, wide) > estimate_memory(shape, dataclasses.replace(QUICK, features=Intensity()))
    fine = dataclasses.replace(QUICK, continuous=second_order(4, 1))
    assert estimate_memory(shape, fine) > 2 * plain
    far = dataclasses.replace(QUICK, discrete=(SEARCH, ConvexSearch(spacing=2, radius=5)))
    assert estimate_memory(shape, far) > 2 * plain
