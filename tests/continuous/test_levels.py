"""Several levels, the settings of each, an early end, and regularisers of other packages."""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch

from convexadam.continuous import (
    Adam,
    Additive,
    Bending,
    BoxSmoothing,
    Compositional,
    Diffusion,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Refinement,
    StationaryVelocity,
    VolumePreserving,
)
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.objective import RegistrationObjective
from convexadam.errors import ConfigError
from convexadam.kernels.feature_level import FeatureLevel
from convexadam.kernels.warp_ssd import prepare_ssd

SHAPE = (9, 8, 7)
OPTIMISERS: list[Any] = [Adam(learning_rate=0.1), LevenbergMarquardt()]


def _maps(shape: tuple[int, int, int] = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    return oracles.noise(2, *shape), oracles.noise(2, *shape, seed=1)


def _resample(displacement: torch.Tensor, old: tuple[int, int, int], new: tuple[int, int, int]) -> torch.Tensor:
    """Resample from control points of one spacing to those of another, and convert to their units."""
    old_spacing, new_spacing = (np.array(spacing, float).reshape(3, 1, 1, 1) for spacing in (old, new))
    positions = (oracles.control_point_positions(SHAPE, new) - (old_spacing - 1) / 2) / old_spacing
    return torch.from_numpy(oracles.trilinear(displacement.numpy() * old_spacing, positions) / new_spacing)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_each_level_starts_from_the_result_of_the_one_before(optimiser: Any, weighted: bool) -> None:
    fixed, moving = _maps()
    weights: Any = {}
    if weighted:
        weights = {f"{n}_weight": oracles.uniform(*SHAPE, seed=s) for n, s in (("fixed", 2), ("moving", 3))}
    spacings = [(3, 2, 2), (2, 2, 1), (1, 1, 1)]
    levels = tuple(Level(spacing=spacing, iterations=n) for spacing, n in zip(spacings, (3, 0, 2), strict=True))
    common: Any = {"optimiser": optimiser, "parametrisation": Compositional(total_smoothing=None)}
    start = oracles.uniform(3, *SHAPE, seed=4, low=-1, high=1)
    found = Refinement(levels=levels, **common)(fixed, moving, start=start, **weights)
    displacement = torch.from_numpy(
        oracles.voxels_to_control_points(start.numpy(), spacings[0]) / np.array(spacings[0]).reshape(3, 1, 1, 1)
    )
    for number, (level, spacing) in enumerate(zip(levels, spacings, strict=True)):
        if number:
            displacement = _resample(displacement, spacings[number - 1], spacing)
        arrays = [None if w is None else w.numpy() for w in (weights.get("fixed_weight"), weights.get("moving_weight"))]
        maps = [
            torch.from_numpy(oracles.pool(m.numpy(), spacing, w)) for m, w in zip((fixed, moving), arrays, strict=True)
        ]
        pooled = [None if w is None else torch.from_numpy(oracles.node_weights(w, spacing)) for w in arrays]
        features = FeatureLevel(
            fixed=maps[0], moving=maps[1], fixed_weight=pooled[0], moving_weight=pooled[1], spacing=spacing
        )
        displacement = Refinement(levels=(level,), **common).refine_level(features, displacement)
    torch.testing.assert_close(found, displacement, rtol=0, atol=1e-9)  # Adam divides by gradients of 1e-5 and more
    assert (found - start).abs().max() > 0.1


def test_coarse_levels_find_what_fine_ones_do_not() -> None:
    shape, shift = (24, 20, 18), (5.0, -4.0, 3.0)
    ticks = oracles.indices(shape)
    pair = [
        oracles.blobs(x, shape, channels=2, sigma=3.0) for x in (ticks, ticks - np.array(shift).reshape(3, 1, 1, 1))
    ]
    fixed, moving = (torch.from_numpy(p).float() for p in pair)

    def error(*levels: Level) -> float:
        refinement = Refinement(
            levels=levels,
            regularisers=(Diffusion(weight=0.1),),
            optimiser=LevenbergMarquardt(),
            parametrisation=Compositional(),
        )
        inner = refinement(fixed, moving)[:, 6:-6, 6:-6, 6:-6]
        return float((inner - torch.tensor(shift).reshape(3, 1, 1, 1)).norm(dim=0).mean())

    coarse, fine = Level(spacing=4, iterations=15), Level(spacing=1, iterations=5)
    assert error(coarse, fine) < 0.5 * error(Level(spacing=1, iterations=20))
    assert error(coarse, fine) < error(coarse)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("kind", [Additive, Compositional, StationaryVelocity])
def test_a_level_may_set_its_own_smoothing(kind: Any, optimiser: Any) -> None:
    fixed, moving = _maps()
    wide, own = GaussianSmoothing(sigma=1.5), BoxSmoothing(width=5, passes=1)
    whole = {} if kind is Additive else {"total_smoothing": own}

    def found(level: Level, **settings: Any) -> torch.Tensor:
        return Refinement(levels=(level,), optimiser=optimiser, **settings)(fixed, moving)

    plain = found(Level(spacing=1, iterations=3), parametrisation=kind())
    stepped = found(Level(spacing=1, iterations=3, update_smoothing=wide), parametrisation=kind())
    assert torch.equal(stepped, found(Level(spacing=1, iterations=3), update_smoothing=wide, parametrisation=kind()))
    assert not torch.equal(stepped, plain)
    smooth = found(Level(spacing=1, iterations=3, total_smoothing=own), parametrisation=kind())
    assert torch.equal(smooth, found(Level(spacing=1, iterations=3), parametrisation=kind(**whole)))
    assert torch.equal(smooth, plain) == (kind is Additive)  # it has no total smoothing


def test_a_setting_of_one_level_does_not_change_the_others() -> None:
    fixed, moving = _maps()
    first, second = Level(spacing=2, iterations=3), Level(spacing=1, iterations=3)
    own = dataclasses.replace(first, update_smoothing=GaussianSmoothing(sigma=1.5))
    refinement = Refinement(levels=(own, second), regularisers=())
    coarse = Refinement(levels=(own,), regularisers=())(fixed, moving)
    assert not torch.equal(coarse, Refinement(levels=(first,), regularisers=())(fixed, moving))
    fine = Refinement(levels=(second,), regularisers=())
    maps = [torch.from_numpy(oracles.pool(t.numpy(), (2, 2, 2))) for t in (fixed, moving)]
    level = FeatureLevel(fixed=maps[0], moving=maps[1], spacing=(2, 2, 2))
    start = _resample(refinement.refine_level(level, level=0), (2, 2, 2), (1, 1, 1))
    expected = fine.refine_level(FeatureLevel(fixed=fixed, moving=moving), start)
    torch.testing.assert_close(refinement(fixed, moving), expected, rtol=0, atol=1e-9)


def test_adam_ends_early_once_the_value_hardly_falls() -> None:
    fixed, moving = _maps()
    values: list[float] = []

    class Recorded(RegistrationObjective):
        """Records each value that is computed; values cost time, and gradients alone do not need them."""

        def __call__(self, displacement: torch.Tensor, *, out: torch.Tensor) -> tuple[float, torch.Tensor]:
            value, gradient = super().__call__(displacement, out=out)
            values.append(value)
            return value, gradient

    def minimise(most: int, tolerance: float) -> tuple[int, torch.Tensor]:
        objective = Recorded(prepare_ssd(fixed, moving), [Diffusion(weight=1.0)], (fixed, moving, None, None))
        state = Additive().initialise(torch.zeros(3, *SHAPE, dtype=torch.float64), BoxSmoothing(), None)
        iterations = list(Adam(learning_rate=0.2).minimise(objective, state, Convergence(most, tolerance)))
        assert iterations == list(range(1, len(iterations) + 1))
        return len(iterations), state.displacement

    count, found = minimise(80, 0.02)
    assert 6 <= count < 80
    assert count % 5 == 1
    assert len(values) == (count + 4) // 5
    falls = [(a - b) / a for a, b in itertools.pairwise(values)]
    assert min(falls[:-1], default=1) >= 0.02 > falls[-1]
    _, plain = minimise(count, 0.0)
    assert len(values) == len(falls) + 1  # no value is computed without a tolerance
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)


def test_the_first_five_iterations_always_run() -> None:
    fixed, moving = _maps()
    few, many = Level(spacing=1, iterations=6), Level(spacing=1, iterations=40)
    common: Any = {"optimiser": Adam(learning_rate=0.1)}
    never = Refinement(levels=(many,), tolerance=1e9, **common)(fixed, moving)
    torch.testing.assert_close(never, Refinement(levels=(few,), **common)(fixed, moving), rtol=0, atol=1e-12)


# Regularisers -----------------------------------------------------------------------------------------------------


class _Towards:
    """A regulariser of another package: the mean squared distance to a target, without a curvature."""

    def __init__(self, target: torch.Tensor) -> None:
        self.target, self.masks = target, []

    def __call__(
        self, displacement: torch.Tensor, *, add_to: torch.Tensor | None = None, soft_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.masks.append(soft_mask)
        gradient = 2 / displacement[0].numel() * (displacement - self.target)
        value = (displacement - self.target).square().sum(0).mean()
        return value, gradient if add_to is None else add_to.add_(gradient)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_any_regulariser_is_minimised_with_the_similarity(optimiser: Any) -> None:
    ramps = torch.from_numpy(oracles.indices(SHAPE)) / 4  # both maps are equal at zero displacement
    target, mask = torch.full((3, *SHAPE), 0.5, dtype=torch.float64), oracles.uniform(*SHAPE)
    towards = _Towards(target)
    refinement = Refinement(levels=(Level(spacing=1, iterations=60),), regularisers=(towards,), optimiser=optimiser)
    found = refinement.refine_level(FeatureLevel(fixed=ramps, moving=ramps), soft_mask=mask)
    # the similarity's curvature is 2 / 16, the regulariser's is 2: both gradients cancel at 16 / 17 of the target
    inner = found[:, 2:-2, 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5 * 16 / 17), rtol=0, atol=0.05)
    assert towards.masks
    assert all(m is mask for m in towards.masks)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize(
    ("regulariser", "energy"),
    [
        (Diffusion(weight=50.0), oracles.diffusion_energy),
        (Bending(weight=50.0), oracles.bending_energy),
        (VolumePreserving(weight=20.0), oracles.volume_change),
    ],
)
def test_each_regulariser_lowers_its_own_energy(optimiser: Any, regulariser: Any, energy: Any) -> None:
    fixed, moving = _maps()
    free, kept = (
        Refinement(levels=(Level(spacing=1, iterations=12),), regularisers=chosen, optimiser=optimiser)(fixed, moving)
        for chosen in ((), (regulariser,))
    )
    assert energy(kept.numpy()) < 0.5 * energy(free.numpy())


def test_volume_is_preserved_within_the_soft_mask() -> None:
    # without smoothing control points are independent, except that a volume depends on both neighbours
    fixed, moving = _maps()
    mask = torch.zeros(SHAPE, dtype=torch.float64)
    mask[:5] = 1
    refinement = Refinement(
        levels=(Level(spacing=1, iterations=12),),
        regularisers=(VolumePreserving(weight=20.0),),
        optimiser=Adam(learning_rate=0.1),
        update_smoothing=None,
    )
    features = FeatureLevel(fixed=fixed, moving=moving)
    free, kept = (refinement.refine_level(features, soft_mask=m) for m in (torch.zeros_like(mask), mask))
    assert torch.equal(kept[:, 6:], free[:, 6:])
    assert not torch.equal(kept[:, 5], free[:, 5])
    changes = [np.log(np.maximum(oracles.jacobian(u.numpy()), 0.05)) ** 2 for u in (free, kept)]
    assert changes[1][:5].mean() < 0.1 * changes[0][:5].mean()


# Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            {"levels": ()},
            r"levels must be a tuple of at least one Level, got \(\); write \(Level\(spacing=2\),\) for one",
        ),
        ({"levels": Level()}, "levels must be a tuple of at least one Level"),
        ({"levels": [Level()]}, "levels must be a tuple of at least one Level"),
        ({"levels": (Level(), 3)}, "each of levels must be a Level, got 3"),
        ({"levels": (Level(forward_only=True), Level())}, r"forward_only must not be .*, got \[True, False\]; after a"),
        ({"regularisers": Diffusion()}, r"regularisers must be a tuple, got Diffusion\("),
        ({"regularisers": (3,)}, "each of regularisers must be a Regulariser, got 3"),
        ({"regularisers": (Diffusion,)}, r"each of regularisers must be .* got the class Diffusion; write Diffusion\("),
        ({"similarity": None}, "similarity must be a Similarity, got None"),
        ({"optimiser": "adam"}, "optimiser must be an Optimiser, got 'adam'"),
        ({"optimiser": Adam}, r"optimiser must be an instance, got the class Adam; write Adam\(\.\.\.\)"),
        ({"update_smoothing": 3}, "update_smoothing must be .* or None, got 3"),
        ({"final_smoothing": Level()}, r"final_smoothing must be .* or None, got Level\("),
        ({"parametrisation": None}, "parametrisation must be a Parametrisation, got None"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"tolerance": math.nan}, "tolerance"),
        ({"tolerance": "1"}, "tolerance"),
    ],
)
def test_unusable_settings(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the run-time check of annotations, which only the tests have and which would raise first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        Refinement(**setting)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"spacing": 0}, "spacing"),
        ({"spacing": (2, 2)}, "spacing"),
        ({"iterations": -1}, "iterations"),
        ({"iterations": 2.5}, "iterations"),
        ({"update_smoothing": 3}, "update_smoothing must be .* or None, got 3"),
        ({"total_smoothing": "wide"}, "total_smoothing must be .* or None, got 'wide'"),
        ({"forward_only": 1}, "forward_only must be True or False, got 1"),
    ],
)
def test_unusable_levels(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        Level(**setting)


def test_fractional_spacing_needs_millimetres() -> None:
    level = Level(spacing=2.5)
    with pytest.raises(ConfigError, match=r'spacing must be a whole number of voxels, got 2\.5; .*unit="mm"'):
        Refinement(levels=(Level(), level))
    in_mm = Refinement(levels=(level,), unit="mm")
    assert in_mm.control_point_spacings((20, 20, 20), (1.0, 2.5, 0.5)) == ((2, 1, 5),)


def test_the_spacing_of_each_level_does_not_exceed_the_volume() -> None:
    refinement = Refinement(levels=(Level(spacing=4), Level(spacing=(3, 2, 1))))
    assert refinement.control_point_spacings((20, 3, 20)) == ((4, 3, 4), (3, 2, 1))
