"""Second-order steps: what they find, and when they are taken."""

from __future__ import annotations

import importlib
import itertools
import math
import random
from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch

from convexadam.continuous import (
    Adam,
    BoxSmoothing,
    Compositional,
    Diffusion,
    Displacement,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Refinement,
    StationaryVelocity,
)
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.problem import Problem
from convexadam.data import phantom_pair
from convexadam.errors import ConfigError
from convexadam.features import MindSSC
from convexadam.kernels import use_backend
from convexadam.kernels.warp_ssd import compared

SHAPE = (5, 4, 6)
PARAMETRISATIONS: list[Any] = [Displacement(), Compositional(), StationaryVelocity()]


CURVATURE, SCALE = 2.0, 0.5
"""Of the bowl below: of all there is, and of the similarity alone."""


def _goal() -> torch.Tensor:
    return oracles.uniform(3, *SHAPE, low=-0.3, high=0.3)


def _left(damping: float) -> float:
    """Share of the way to the bottom of the bowl that a step leaves."""
    return damping * SCALE / (CURVATURE + damping * SCALE)


def _rejected(times: int, then: Callable[[float, float], float] = lambda before, value: value) -> Any:
    """What to tell of a step: that it doubled the value for so many times, and then something else."""
    count = itertools.count()
    return lambda before, value: 2 * before if next(count) < times else then(before, value)


class _Bowl(Problem):
    """``CURVATURE/2 sum |u - goal|^2``, whose value after each step may be told otherwise."""

    def __init__(self, after: Callable[[float, float], float] = lambda before, value: value) -> None:
        self.goal, self._after, self._before = _goal(), after, 0.0

    def _at(self, displacement: torch.Tensor, out: torch.Tensor) -> float:
        out[:3] = CURVATURE * (displacement - self.goal)
        return float(CURVATURE / 2 * (displacement - self.goal).square().sum())

    def curvature(self, displacement: torch.Tensor, *, out: torch.Tensor) -> tuple[float, torch.Tensor, float]:
        out[3] = CURVATURE
        self._before = self._at(displacement, out)
        return self._before, out, SCALE

    def __call__(self, displacement: torch.Tensor, *, out: torch.Tensor) -> tuple[float, torch.Tensor]:
        return self._after(self._before, self._at(displacement, out)), out


@pytest.fixture
def dampings(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The damping of each step, as a share of the similarity's mean curvature, as they are made."""
    module = importlib.import_module("convexadam.continuous.levenberg_marquardt")
    made, plain = [], module.damped_step

    def noted(slopes: torch.Tensor, means: torch.Tensor, *, damping: float, longest: float) -> Any:
        made.append(damping / SCALE)
        return plain(slopes, means, damping=damping, longest=longest)

    monkeypatch.setattr(module, "damped_step", noted)
    return made


def _minimise(
    problem: Problem, iterations: int, optimiser: LevenbergMarquardt | None = None, parametrisation: Any = None
) -> tuple[torch.Tensor, Any]:
    """Minimise from zero, each node by itself; the result, and the motion."""
    zero = torch.zeros(3, *SHAPE, dtype=torch.float64)
    motion = (parametrisation or Displacement()).begin(zero, None, None)
    optimiser = LevenbergMarquardt(temperature=0.0) if optimiser is None else optimiser
    optimiser.minimise(problem, motion, Convergence(iterations, 0.0), None)
    return motion.displacement.clone(), motion


# What is found ----------------------------------------------------------------------------------------------------


def test_steps_into_a_bowl() -> None:
    # damping stays what it is at the start: it does not fall below
    for number in range(1, 6):
        expected = (1 - _left(0.1) ** number) * _goal()
        torch.testing.assert_close(_minimise(_Bowl(), number)[0], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("spacing", [1, 2])
@pytest.mark.parametrize("parametrisation", [Displacement(), Compositional(), StationaryVelocity(field_smoothing=None)])
def test_a_translation_is_found(spacing: int, parametrisation: Any) -> None:
    # Features that are linear in position lose nothing by pooling and interpolation: at the true shift the value is 0.
    shift = torch.tensor([1.4, -1.0, 0.7], dtype=torch.float64).reshape(3, 1, 1, 1)
    ticks = torch.from_numpy(oracles.indices((11, 10, 9))) / 4

    def error(optimiser: Any, iterations: int) -> float:
        refinement = Refinement(
            levels=(Level(spacing=spacing, iterations=iterations),),
            regularisers=(Diffusion(weight=0.1),),
            optimiser=optimiser,
            parametrisation=parametrisation,
        )
        return float((refinement(ticks + shift / 4, ticks) - shift).abs().max())

    # A tenth of a node, as Adam after 80 iterations with steps of that length; up to the border.
    assert error(LevenbergMarquardt(), 10) < 0.1 * spacing
    assert error(Adam(), 20) > 0.1 * spacing


@pytest.fixture(scope="module")
def phantom() -> tuple[torch.Tensor, torch.Tensor, Callable[[torch.Tensor], float]]:
    """Descriptors of both scans, and the mean error of a field within the organs, in voxels."""
    pair = phantom_pair((40, 34, 30), contrasts=("t1", "t1"), displacement_mm=14, seed=3)
    organs = pair.fixed_labels.data[0] > 0

    def error(found: torch.Tensor) -> float:
        return float((found - pair.disp_vox).norm(dim=0)[organs].mean())

    assert error(torch.zeros_like(pair.disp_vox)) > 0.7
    return MindSSC()(pair.fixed), MindSSC()(pair.moving), error


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_a_smooth_motion_is_found_in_fewer_iterations_than_with_adam(phantom: Any, parametrisation: Any) -> None:
    fixed, moving, error = phantom

    def found(optimiser: Any, iterations: int, smoothing: Any) -> float:
        refinement = Refinement(
            levels=(Level(iterations=iterations),),
            regularisers=(Diffusion(weight=0.2),),
            optimiser=optimiser,
            smoothing=smoothing,
            parametrisation=parametrisation,
        )
        return float(error(refinement(fixed, moving)))

    for smoothing in (BoxSmoothing(), GaussianSmoothing(sigma=1.5)):
        assert found(LevenbergMarquardt(), 5, smoothing) < 0.25
        assert found(LevenbergMarquardt(), 5, smoothing) < found(Adam(), 15, smoothing)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_the_value_never_rises_at_temperature_0(parametrisation: Any) -> None:
    # Nothing is smoothed after a step has been judged.
    fixed, moving = oracles.noise(3, *SHAPE), oracles.noise(3, *SHAPE, seed=1)
    if not isinstance(parametrisation, Displacement):
        parametrisation = type(parametrisation)(field_smoothing=None)
    values = []
    for iterations in range(8):
        found = Refinement(
            levels=(Level(spacing=1, iterations=iterations),),
            regularisers=(),
            optimiser=LevenbergMarquardt(temperature=0.0),
            parametrisation=parametrisation,
        )(fixed, moving).numpy()
        values.append(oracles.ssd(fixed.numpy(), moving.numpy(), found, oracles.ssd_weights(found)))
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(values))
    assert values[-1] < 0.8 * values[0]


# What is taken, and what is not -----------------------------------------------------------------------------------


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize("told", [lambda before, _: before + 1e-9, lambda *_: math.nan, lambda *_: math.inf])
def test_a_step_that_raises_the_value_leaves_no_trace(parametrisation: Any, told: Any) -> None:
    found, motion = _minimise(_Bowl(told), 4, parametrisation=parametrisation)
    begun = parametrisation.begin(torch.zeros_like(found), None, None)
    assert torch.equal(found, begun.displacement)
    # nor in what is not seen: the next step starts from there
    for each in (motion, begun):
        each.tried(0.1 * _goal())
        each.keep()
    assert torch.equal(motion.displacement, begun.displacement)
    assert motion.displacement.any()


@pytest.mark.parametrize("first", [0.1, 7.0])
def test_damping_falls_with_good_steps_down_to_where_it_began(first: float, dampings: list[float]) -> None:
    _minimise(_Bowl(_rejected(4)), 14, LevenbergMarquardt(damping=first, temperature=0.0))
    expected = [first * 3.0**n for n in range(5)] + [first * max(3.0**4 * 0.5**n, 1) for n in range(1, 10)]
    np.testing.assert_allclose(dampings, expected, rtol=1e-12)


def test_damping_rises_with_rejected_steps_up_to_a_ceiling(dampings: list[float]) -> None:
    _minimise(_Bowl(lambda before, _: 2 * before), 20)
    expected = [min(0.1 * 3.0**n, 1e6) for n in range(20)]
    np.testing.assert_allclose(dampings, expected, rtol=1e-12)


@pytest.mark.parametrize(("share", "factor"), [(0.9, 0.5), (0.74, 1.0), (0.26, 1.0), (0.24, 3.0), (0.0, 3.0)])
def test_damping_follows_the_share_of_what_was_promised(share: float, factor: float, dampings: list[float]) -> None:
    # of a bowl all that is promised is gained; here a share of it, after a rejected step, so that damping can fall
    found, _ = _minimise(_Bowl(_rejected(1, lambda before, value: before - share * (before - value))), 3)
    assert dampings == pytest.approx([0.1, 0.3, 0.3 * factor], rel=1e-9)
    assert found.any()  # it was taken all the same


def test_steps_are_cut_to_what_the_parametrisation_allows() -> None:
    found, _ = _minimise(_Bowl(), 1, parametrisation=Compositional(field_smoothing=None, largest_step=0.25))
    free = (1 - _left(0.1)) * _goal()
    lengths = free.norm(dim=0)
    assert lengths.min() < 0.25 < lengths.max()
    torch.testing.assert_close(found, free * (0.25 / lengths).clamp_max(1), rtol=1e-12, atol=0)


# By chance --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_a_rise_is_taken_with_the_chance_that_is_said(
    seed: int, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    zero, taken = torch.zeros(3, *SHAPE, dtype=torch.float64), []
    motion = Displacement().begin(zero, None, None)
    kept = type(motion).keep
    monkeypatch.setattr(type(motion), "keep", lambda self: (taken.append(True), kept(self))[1])
    rise, steps = 0.02, 60
    problem = _Bowl(lambda before, _: (1 + rise) * before)
    LevenbergMarquardt(temperature=temperature, seed=seed).minimise(problem, motion, Convergence(steps, 0.0), None)
    chance = random.Random(seed)
    expected = sum(chance.random() < math.exp(-rise / temperature) for _ in range(steps))
    assert len(taken) == expected
    # of 60 steps 8 or 49 are expected, with a deviation of 3
    assert 0 < expected < steps


def test_another_seed_is_another_result_and_the_same_one_the_same() -> None:
    def found(temperature: float, seed: int) -> torch.Tensor:
        rising = _Bowl(lambda before, _: 1.02 * before)
        return _minimise(rising, 5, LevenbergMarquardt(temperature=temperature, seed=seed))[0]

    assert torch.equal(found(0.03, 1), found(0.03, 1))
    assert not torch.equal(found(0.03, 1), found(0.03, 2))  # one in two is taken
    assert torch.equal(found(0.0, 1), found(0.0, 2))


# Ends -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("iterations", [0, 3])
def test_constant_maps_move_nothing(parametrisation: Any, backend: Any, iterations: int) -> None:
    flat = torch.full((2, *SHAPE), 0.1)
    start = oracles.uniform(3, *SHAPE, low=-0.4, high=0.4).float()
    refinement = Refinement(
        levels=(Level(spacing=1, iterations=iterations),),
        optimiser=LevenbergMarquardt(),
        parametrisation=parametrisation,
    )
    with use_backend(backend):
        found = refinement(flat, 3 * flat, start=start)
    begun = parametrisation.begin(start, BoxSmoothing(), torch.ones(SHAPE)).displacement
    torch.testing.assert_close(found, begun, rtol=0, atol=1e-6)


def test_what_is_equal_stays() -> None:
    fixed = oracles.noise(2, *SHAPE)
    found = Refinement(levels=(Level(spacing=1, iterations=5),), optimiser=LevenbergMarquardt())(fixed, fixed)
    assert found.abs().max() < 1e-12


@pytest.mark.parametrize("tolerance", [1e-3, 0.1])
def test_ends_early_where_little_is_gained(tolerance: float) -> None:
    fixed, moving = (oracles.noise(2, *SHAPE, seed=s) for s in (0, 1))
    values: list[float] = []

    class Seen(Problem):
        """Notes the value at the beginning of each iteration."""

        def curvature(self, displacement: torch.Tensor, *, out: torch.Tensor) -> tuple[float, torch.Tensor, float]:
            value, found, scale = super().curvature(displacement, out=out)
            values.append(value)
            return value, found, scale

    def minimised(tolerance: float) -> tuple[int, torch.Tensor]:
        problem = Seen(compared(fixed, moving), [Diffusion(weight=1.0)], (fixed, moving, None, None))
        motion = Displacement().begin(torch.zeros(3, *SHAPE, dtype=torch.float64), BoxSmoothing(), None)
        convergence = Convergence(60, tolerance)
        LevenbergMarquardt(temperature=0.0).minimise(problem, motion, convergence, BoxSmoothing())
        return convergence.count, motion.displacement

    assert minimised(0.0)[0] == len(values) == 60
    every = values.copy()
    count, found = minimised(tolerance)
    ends = [n for n in range(6, 60, 5) if every[n - 6] - every[n - 1] < tolerance * every[n - 6]]
    assert count == ends[0]
    assert values[60:] == every[:count]
    assert found.any()


def test_inputs_are_left_alone() -> None:
    fixed, moving, start = oracles.noise(2, 7, 6, 5), oracles.noise(2, 7, 6, 5, seed=1), oracles.noise(3, 7, 6, 5)
    weight = oracles.uniform(7, 6, 5)
    before = [t.clone() for t in (fixed, moving, start, weight)]
    for parametrisation in PARAMETRISATIONS:
        Refinement(
            levels=(Level(spacing=1, iterations=3),), optimiser=LevenbergMarquardt(), parametrisation=parametrisation
        )(fixed, moving, start=start, fixed_weight=weight, moving_weight=weight)
    assert all(torch.equal(a, b) for a, b in zip(before, (fixed, moving, start, weight), strict=True))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"damping": 0.0}, "damping"),
        ({"damping": math.inf}, "damping"),
        ({"damping": "1"}, "damping"),
        ({"temperature": -1e-9}, "temperature"),
        ({"temperature": math.nan}, "temperature"),
        ({"seed": 1.5}, "seed"),
        ({"seed": -1}, "seed"),
        ({"seed": True}, "seed"),
    ],
)
def test_unusable_settings(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As users have it: without the tests' own check of annotations, which would come first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        LevenbergMarquardt(**setting)
