"""Several levels, what each may set for itself, an early end, and costs of one's own."""

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
    Bending,
    BoxSmoothing,
    Compositional,
    Diffusion,
    Displacement,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Refinement,
    StationaryVelocity,
    VolumePreserving,
)
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.problem import Problem
from convexadam.errors import ConfigError
from convexadam.kernels.warp_ssd import compared

SHAPE = (9, 8, 7)
OPTIMISERS: list[Any] = [Adam(learning_rate=0.1), LevenbergMarquardt()]


def _maps(shape: tuple[int, int, int] = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    return oracles.noise(2, *shape), oracles.noise(2, *shape, seed=1)


def _between(nodes: torch.Tensor, before: tuple[int, int, int], after: tuple[int, int, int]) -> torch.Tensor:
    """Displacements on the nodes of one spacing, read at those of another, and counted in them."""
    here, there = (np.array(spacing, float).reshape(3, 1, 1, 1) for spacing in (before, after))
    positions = (oracles.node_positions(SHAPE, after) - (here - 1) / 2) / here
    return torch.from_numpy(oracles.trilinear(nodes.numpy() * here, positions) / there)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("weighted", [False, True])
def test_each_level_goes_on_from_the_one_before(optimiser: Any, weighted: bool) -> None:
    fixed, moving = _maps()
    weights: Any = {}
    if weighted:
        weights = {f"{n}_weight": oracles.uniform(*SHAPE, seed=s) for n, s in (("fixed", 2), ("moving", 3))}
    spacings = [(3, 2, 2), (2, 2, 1), (1, 1, 1)]
    levels = tuple(Level(spacing=spacing, iterations=n) for spacing, n in zip(spacings, (3, 0, 2), strict=True))
    common: Any = {"optimiser": optimiser, "parametrisation": Compositional(field_smoothing=None)}
    start = oracles.uniform(3, *SHAPE, seed=4, low=-1, high=1)
    found = Refinement(levels=levels, **common)(fixed, moving, start=start, **weights)
    nodes = torch.from_numpy(
        oracles.voxels_to_nodes(start.numpy(), spacings[0]) / np.array(spacings[0]).reshape(3, 1, 1, 1)
    )
    for number, (level, spacing) in enumerate(zip(levels, spacings, strict=True)):
        if number:
            nodes = _between(nodes, spacings[number - 1], spacing)
        arrays = [None if w is None else w.numpy() for w in (weights.get("fixed_weight"), weights.get("moving_weight"))]
        maps = [
            torch.from_numpy(oracles.pool(m.numpy(), spacing, w)) for m, w in zip((fixed, moving), arrays, strict=True)
        ]
        given = [None if w is None else torch.from_numpy(oracles.node_weights(w, spacing)) for w in arrays]
        nodes = Refinement(levels=(level,), **common).on_nodes(
            *maps, start=nodes, fixed_weight=given[0], moving_weight=given[1]
        )
    torch.testing.assert_close(found, nodes, rtol=0, atol=1e-9)  # Adam divides by gradients of 1e-5 and more
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
@pytest.mark.parametrize("kind", [Displacement, Compositional, StationaryVelocity])
def test_a_level_has_smoothing_of_its_own(kind: Any, optimiser: Any) -> None:
    fixed, moving = _maps()
    wide, own = GaussianSmoothing(sigma=1.5), BoxSmoothing(width=5, passes=1)
    whole = {} if kind is Displacement else {"field_smoothing": own}

    def found(level: Level, **settings: Any) -> torch.Tensor:
        return Refinement(levels=(level,), optimiser=optimiser, **settings)(fixed, moving)

    plain = found(Level(spacing=1, iterations=3), parametrisation=kind())
    stepped = found(Level(spacing=1, iterations=3, smoothing=wide), parametrisation=kind())
    assert torch.equal(stepped, found(Level(spacing=1, iterations=3), smoothing=wide, parametrisation=kind()))
    assert not torch.equal(stepped, plain)
    smooth = found(Level(spacing=1, iterations=3, field_smoothing=own), parametrisation=kind())
    assert torch.equal(smooth, found(Level(spacing=1, iterations=3), parametrisation=kind(**whole)))
    assert torch.equal(smooth, plain) == (kind is Displacement)  # which has none


def test_only_the_level_that_sets_it() -> None:
    fixed, moving = _maps()
    first, second = Level(spacing=2, iterations=3), Level(spacing=1, iterations=3)
    own = dataclasses.replace(first, smoothing=GaussianSmoothing(sigma=1.5))
    refinement = Refinement(levels=(own, second), regularisers=())
    coarse = Refinement(levels=(own,), regularisers=())(fixed, moving)
    assert not torch.equal(coarse, Refinement(levels=(first,), regularisers=())(fixed, moving))
    fine = Refinement(levels=(second,), regularisers=())
    maps = [torch.from_numpy(oracles.pool(t.numpy(), (2, 2, 2))) for t in (fixed, moving)]
    nodes = _between(refinement.on_nodes(*maps, level=0), (2, 2, 2), (1, 1, 1))
    torch.testing.assert_close(refinement(fixed, moving), fine.on_nodes(fixed, moving, start=nodes), rtol=0, atol=1e-9)


def test_adam_ends_early_where_little_is_gained() -> None:
    fixed, moving = _maps()
    values: list[float] = []

    class Seen(Problem):
        """Notes the values it is asked for, or whenever it is asked for a gradient."""

        def __call__(self, displacement: torch.Tensor, *, out: torch.Tensor) -> tuple[float, torch.Tensor]:
            value, gradient = super().__call__(displacement, out=out)
            values.append(value)
            return value, gradient

    def minimised(most: int, tolerance: float) -> tuple[int, torch.Tensor]:
        problem = Seen(compared(fixed, moving), [Diffusion(weight=1.0)], (fixed, moving, None, None))
        motion = Displacement().begin(torch.zeros(3, *SHAPE, dtype=torch.float64), BoxSmoothing(), None)
        convergence = Convergence(most, tolerance)
        Adam(learning_rate=0.2).minimise(problem, motion, convergence)
        return convergence.count, motion.displacement

    count, found = minimised(80, 0.02)
    assert 6 <= count < 80
    assert count % 5 == 1
    assert len(values) == (count + 4) // 5  # and no more
    falls = [(a - b) / a for a, b in itertools.pairwise(values)]
    assert min(falls[:-1], default=1) >= 0.02 > falls[-1]
    _, plain = minimised(count, 0.0)
    assert len(values) == len(falls) + 1  # without a tolerance nobody looks
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-12)


def test_the_first_five_iterations_always_run() -> None:
    fixed, moving = _maps()
    few, many = Level(spacing=1, iterations=6), Level(spacing=1, iterations=40)
    common: Any = {"optimiser": Adam(learning_rate=0.1)}
    never = Refinement(levels=(many,), tolerance=1e9, **common)(fixed, moving)
    torch.testing.assert_close(never, Refinement(levels=(few,), **common)(fixed, moving), rtol=0, atol=1e-12)


# Costs ------------------------------------------------------------------------------------------------------------


class _Towards:
    """A cost of one's own: the mean squared distance to a given field."""

    def __init__(self, goal: torch.Tensor) -> None:
        self.goal, self.masks = goal, []

    def __call__(
        self, displacement: torch.Tensor, *, onto: torch.Tensor | None = None, soft_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.masks.append(soft_mask)
        gradient = 2 / displacement[0].numel() * (displacement - self.goal)
        value = (displacement - self.goal).square().sum(0).mean()
        return value, gradient if onto is None else onto.add_(gradient)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_a_cost_of_ones_own_pulls(optimiser: Any) -> None:
    ticks = torch.from_numpy(oracles.indices(SHAPE)) / 4  # at zero displacement both maps are equal
    goal, mask = torch.full((3, *SHAPE), 0.5, dtype=torch.float64), oracles.uniform(*SHAPE)
    pull = _Towards(goal)
    refinement = Refinement(levels=(Level(spacing=1, iterations=60),), regularisers=(), optimiser=optimiser)
    found = refinement.on_nodes(ticks, ticks, costs=(pull,), soft_mask=mask)
    # the similarity's curvature is 2 / 16, the cost's is 2: at 16 / 17 of the way both pulls are equal
    inner = found[:, 2:-2, 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.5 * 16 / 17), rtol=0, atol=0.05)
    assert pull.masks
    assert all(m is mask for m in pull.masks)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize(
    ("regulariser", "energy"),
    [
        (Diffusion(weight=50.0), oracles.diffusion_energy),
        (Bending(weight=50.0), oracles.bending_energy),
        (VolumePreserving(weight=20.0), oracles.volume_change),
    ],
)
def test_each_regulariser_keeps_down_what_it_is_about(optimiser: Any, regulariser: Any, energy: Any) -> None:
    fixed, moving = _maps()
    free, kept = (
        Refinement(levels=(Level(spacing=1, iterations=12),), regularisers=chosen, optimiser=optimiser)(fixed, moving)
        for chosen in ((), (regulariser,))
    )
    assert energy(kept.numpy()) < 0.5 * energy(free.numpy())


def test_volume_is_kept_within_the_soft_mask() -> None:
    # without smoothing each node is moved by itself, but for volumes, in which both its neighbours have a part
    fixed, moving = _maps()
    mask = torch.zeros(SHAPE, dtype=torch.float64)
    mask[:5] = 1
    refinement = Refinement(
        levels=(Level(spacing=1, iterations=12),),
        regularisers=(VolumePreserving(weight=20.0),),
        optimiser=Adam(learning_rate=0.1),
        smoothing=None,
    )
    free, kept = (refinement.on_nodes(fixed, moving, soft_mask=m) for m in (torch.zeros_like(mask), mask))
    assert torch.equal(kept[:, 6:], free[:, 6:])
    assert not torch.equal(kept[:, 5], free[:, 5])
    changes = [np.log(np.maximum(oracles.jacobian(u.numpy()), 0.05)) ** 2 for u in (free, kept)]
    assert changes[1][:5].mean() < 0.1 * changes[0][:5].mean()


# Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"levels": ()}, r"levels is a tuple of at least one Level .*but \(\) and .* came; .*\(Level\(spacing=2\),\)"),
        ({"levels": Level()}, "levels is a tuple of at least one Level"),
        ({"levels": [Level()]}, "levels is a tuple of at least one Level"),
        ({"levels": (Level(), 3)}, "each of levels is Level, but 3 came"),
        ({"levels": (Level(one_way=True), Level())}, "levels that are one_way come last"),
        ({"regularisers": Diffusion()}, "regularisers a tuple"),
        ({"regularisers": (3,)}, "each of regularisers is Diffusion or Bending or VolumePreserving, but 3 came"),
        (
            {"regularisers": (Diffusion,)},
            "each of regularisers is Diffusion or Bending or VolumePreserving, but <class",
        ),
        ({"similarity": None}, "similarity is Ssd or Lncc or MutualInformation or WeightedSum, but None came"),
        ({"optimiser": "adam"}, "optimiser is Adam or LevenbergMarquardt, but 'adam' came"),
        ({"optimiser": Adam}, "optimiser is Adam or LevenbergMarquardt, but <class"),
        ({"smoothing": 3}, "smoothing is .*BoxSmoothing or .* or None, but 3 came"),
        ({"final_smoothing": Level()}, "final_smoothing is .*BoxSmoothing or .* or None, but Level"),
        ({"parametrisation": None}, "parametrisation is Displacement or Compositional or StationaryVelocity, but None"),
        ({"tolerance": -0.1}, "tolerance"),
        ({"tolerance": math.nan}, "tolerance"),
        ({"tolerance": "1"}, "tolerance"),
    ],
)
def test_unusable_settings(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As users have it: without the tests' own check of annotations, which would come first.
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
        ({"smoothing": 3}, "smoothing is .* or None, but 3 came"),
        ({"field_smoothing": "wide"}, "field_smoothing is .* or None, but 'wide' came"),
        ({"one_way": 1}, "one_way is bool, but 1 came"),
    ],
)
def test_unusable_levels(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        Level(**setting)


def test_a_level_of_fractions_needs_millimetres() -> None:
    level = Level(spacing=2.5)
    with pytest.raises(ConfigError, match=r"spacing is a whole number where the unit is 'voxel', but 2\.5 came"):
        Refinement(levels=(Level(), level))
    assert Refinement(levels=(level,), unit="mm").nodes((20, 20, 20), (1.0, 2.5, 0.5)) == ((2, 1, 5),)


def test_the_nodes_of_each_level() -> None:
    refinement = Refinement(levels=(Level(spacing=4), Level(spacing=(3, 2, 1))))
    assert refinement.nodes((20, 3, 20)) == ((4, 3, 4), (3, 2, 1))
