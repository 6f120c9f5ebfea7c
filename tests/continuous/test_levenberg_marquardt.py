"""Levenberg-Marquardt: its results, and when steps are accepted."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam.continuous import (
    Adam,
    Additive,
    BoxSmoothing,
    Compositional,
    Diffusion,
    GaussianSmoothing,
    Level,
    LevenbergMarquardt,
    Objective,
    Refinement,
    StationaryVelocity,
)
from convexadam.continuous.convergence import Convergence
from convexadam.continuous.objective import RegistrationObjective
from convexadam.data import phantom_pair
from convexadam.errors import ConfigError
from convexadam.features import MindSSC
from convexadam.kernels import use_backend
from convexadam.kernels.warp_ssd import prepare_ssd

SHAPE = (5, 4, 6)
PARAMETRISATIONS: list[Any] = [Additive(), Compositional(), StationaryVelocity()]


CURVATURE, SCALE = 2.0, 0.5
"""Of the quadratic below: total, and of the similarity alone."""


def _goal() -> torch.Tensor:
    return oracles.uniform(3, *SHAPE, low=-0.3, high=0.3)


def _left(damping: float) -> float:
    """Share of the distance to the minimum that remains after a step."""
    return damping * SCALE / (CURVATURE + damping * SCALE)


def _rejected(times: int, then: Callable[[float, float], float] = lambda before, value: value) -> Any:
    """Report for so many steps that they doubled the value, and then something else."""
    count = itertools.count()
    return lambda before, value: 2 * before if next(count) < times else then(before, value)


class _Quadratic:
    """``CURVATURE/2 sum |u - goal|^2``; the value after each step may be reported differently.

    ``dampings`` are those of the steps, as shares of the similarity's mean curvature. They follow from the steps,
    ``-g / (h + damping SCALE)``, if updates are added without smoothing.
    """

    def __init__(self, after: Callable[[float, float], float] = lambda before, value: value) -> None:
        self.goal, self._after, self._before = _goal(), after, 0.0
        features = torch.zeros(1, *SHAPE)
        self.compared = (features, features, None, None)
        self.dampings: list[float] = []

    def _evaluate(self, displacement: torch.Tensor, out: torch.Tensor) -> float:
        out[:3] = CURVATURE * (displacement - self.goal)
        return float(CURVATURE / 2 * (displacement - self.goal).square().sum())

    is_recordable = False

    def __call__(self, displacement: torch.Tensor, *, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        step = (displacement - self._start).flatten()
        longest = int(step.abs().argmax())
        self.dampings.append(float((-self._gradient.flatten()[longest] / step[longest] - CURVATURE) / SCALE))
        value = self._after(self._before, self._evaluate(displacement, out))
        return torch.tensor(value, dtype=torch.float64), out

    def gradient(self, displacement: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError  # only first-order methods use it

    def curvature(
        self, displacement: torch.Tensor, *, out: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        out[3] = CURVATURE
        self._before = self._evaluate(displacement, out)
        self._start, self._gradient = displacement.clone(), out[:3].clone()
        return torch.tensor(self._before, dtype=torch.float64), out, torch.tensor(SCALE, dtype=torch.float64)

    def least_gradient(self, displacement: torch.Tensor) -> float:
        raise NotImplementedError  # only first-order methods use it


def _minimise(
    objective: Objective,
    iterations: int,
    optimiser: LevenbergMarquardt | None = None,
    parametrisation: Any = None,
) -> tuple[torch.Tensor, Any]:
    """Minimise from zero without smoothing; return the result and the state."""
    zero = torch.zeros(3, *SHAPE, dtype=torch.float64)
    state = (parametrisation or Additive()).initialise(zero, None, None)
    optimiser = LevenbergMarquardt() if optimiser is None else optimiser
    for _ in optimiser.minimise(objective, state, Convergence(iterations, 0.0), None):
        pass
    return state.displacement.clone(), state


# Results ----------------------------------------------------------------------------------------------------------


def test_steps_on_a_quadratic() -> None:
    # damping does not fall below its initial value
    for number in range(1, 6):
        expected = (1 - _left(0.1) ** number) * _goal()
        torch.testing.assert_close(_minimise(_Quadratic(), number)[0], expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("spacing", [1, 2])
@pytest.mark.parametrize("parametrisation", [Additive(), Compositional(), StationaryVelocity(total_smoothing=None)])
def test_a_translation_is_found(spacing: int, parametrisation: Any) -> None:
    # pooling and interpolation of linear features are exact: the value at the true shift is 0
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

    # a tenth of a control point, up to the border, as Adam after 80 iterations with steps of that length
    assert error(LevenbergMarquardt(), 10) < 0.1 * spacing
    assert error(Adam(), 20) > 0.1 * spacing


@pytest.fixture(scope="module")
def phantom() -> tuple[torch.Tensor, torch.Tensor, Callable[[torch.Tensor], float]]:
    """Features of both images, and a function for the mean error of a displacement within the organs, in voxels."""
    pair = phantom_pair((40, 34, 30), contrasts=("t1", "t1"), displacement_mm=14, seed=3)
    organs = pair.fixed_labels.data[0] > 0

    def error(found: torch.Tensor) -> float:
        return float((found - pair.disp_vox).norm(dim=0)[organs].mean())

    assert error(torch.zeros_like(pair.disp_vox)) > 0.7
    return MindSSC()(pair.fixed), MindSSC()(pair.moving), error


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_a_smooth_displacement_takes_fewer_iterations_than_with_adam(phantom: Any, parametrisation: Any) -> None:
    fixed, moving, error = phantom

    def found(optimiser: Any, iterations: int, smoothing: Any) -> float:
        refinement = Refinement(
            levels=(Level(iterations=iterations),),
            regularisers=(Diffusion(weight=0.2),),
            optimiser=optimiser,
            update_smoothing=smoothing,
            parametrisation=parametrisation,
        )
        return float(error(refinement(fixed, moving)))

    for smoothing in (BoxSmoothing(), GaussianSmoothing(sigma=1.5)):
        assert found(LevenbergMarquardt(), 5, smoothing) < 0.25
        assert found(LevenbergMarquardt(), 5, smoothing) < found(Adam(), 15, smoothing)


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
def test_the_value_never_increases(parametrisation: Any) -> None:
    # no smoothing after a step has been evaluated
    fixed, moving = oracles.noise(3, *SHAPE), oracles.noise(3, *SHAPE, seed=1)
    if not isinstance(parametrisation, Additive):
        parametrisation = type(parametrisation)(total_smoothing=None)
    values = []
    for iterations in range(8):
        found = Refinement(
            levels=(Level(spacing=1, iterations=iterations),),
            regularisers=(),
            optimiser=LevenbergMarquardt(),
            parametrisation=parametrisation,
        )(fixed, moving).numpy()
        values.append(oracles.ssd(fixed.numpy(), moving.numpy(), found, oracles.ssd_weights(found)))
    assert all(after <= before + 1e-12 for before, after in itertools.pairwise(values))
    assert values[-1] < 0.8 * values[0]


# Acceptance -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS)
@pytest.mark.parametrize("report", [lambda before, _: before + 1e-9, lambda *_: math.nan, lambda *_: math.inf])
def test_a_step_that_increases_the_value_is_undone_completely(parametrisation: Any, report: Any) -> None:
    found, state = _minimise(_Quadratic(report), 4, parametrisation=parametrisation)
    fresh = parametrisation.initialise(torch.zeros_like(found), None, None)
    assert torch.equal(found, fresh.displacement)
    # hidden variables, such as a velocity, are unchanged as well: the next step has the same result
    for each in (state, fresh):
        each.propose(0.1 * _goal())
        each.accept()
    assert torch.equal(state.displacement, fresh.displacement)
    assert state.displacement.any()


@pytest.mark.parametrize("first", [0.1, 7.0])
def test_damping_decreases_with_good_steps_down_to_its_initial_value(first: float) -> None:
    objective = _Quadratic(_rejected(4))
    _minimise(objective, 12, LevenbergMarquardt(damping=first))
    expected = [first * 3.0**n for n in range(5)] + [first * max(3.0**4 * 0.5**n, 1) for n in range(1, 8)]
    # rounding of the displacement, 1e-17, over the last steps, of 1e-9
    np.testing.assert_allclose(objective.dampings, expected, rtol=1e-6)


def test_damping_increases_with_rejected_steps_up_to_a_maximum() -> None:
    objective = _Quadratic(lambda before, _: 2 * before)
    _minimise(objective, 20)
    expected = [min(0.1 * 3.0**n, 1e6) for n in range(20)]
    np.testing.assert_allclose(objective.dampings, expected, rtol=1e-9)


@pytest.mark.parametrize(("share", "factor"), [(0.9, 0.5), (0.74, 1.0), (0.26, 1.0), (0.24, 3.0), (0.0, 3.0)])
def test_damping_follows_the_ratio_of_actual_to_predicted_decrease(share: float, factor: float) -> None:
    # on a quadratic the ratio is 1; a share of it is reported, after a rejected step, so that damping can decrease
    objective = _Quadratic(_rejected(1, lambda before, value: before - share * (before - value)))
    found, _ = _minimise(objective, 3)
    assert objective.dampings == pytest.approx([0.1, 0.3, 0.3 * factor], rel=1e-9)
    assert found.any()  # the step was accepted in any case


def test_steps_are_limited_to_the_longest_of_the_parametrisation() -> None:
    found, _ = _minimise(_Quadratic(), 1, parametrisation=Compositional(total_smoothing=None, max_step=0.25))
    free = (1 - _left(0.1)) * _goal()
    lengths = free.norm(dim=0)
    assert lengths.min() < 0.25 < lengths.max()
    torch.testing.assert_close(found, free * (0.25 / lengths).clamp_max(1), rtol=1e-12, atol=0)


# Termination ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parametrisation", "backend", "iterations"), pairwise(PARAMETRISATIONS, ["auto", "reference"], [0, 3])
)
def test_constant_features_do_not_move_the_start(parametrisation: Any, backend: Any, iterations: int) -> None:
    flat = torch.full((2, *SHAPE), 0.1)
    start = oracles.uniform(3, *SHAPE, low=-0.4, high=0.4).float()
    refinement = Refinement(
        levels=(Level(spacing=1, iterations=iterations),),
        optimiser=LevenbergMarquardt(),
        parametrisation=parametrisation,
    )
    with use_backend(backend):
        found = refinement(flat, 3 * flat, start=start)
    expected = parametrisation.initialise(start, BoxSmoothing(), torch.ones(SHAPE)).displacement
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_equal_features_do_not_move() -> None:
    fixed = oracles.noise(2, *SHAPE)
    found = Refinement(levels=(Level(spacing=1, iterations=5),), optimiser=LevenbergMarquardt())(fixed, fixed)
    assert found.abs().max() < 1e-12


@pytest.mark.parametrize("tolerance", [1e-3, 0.1])
def test_ends_early_once_the_value_hardly_falls(tolerance: float) -> None:
    fixed, moving = (oracles.noise(2, *SHAPE, seed=s) for s in (0, 1))
    values: list[float] = []

    class Recorded(RegistrationObjective):
        """Records the value at the beginning of each iteration."""

        def curvature(
            self, displacement: torch.Tensor, *, out: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            value, found, scale = super().curvature(displacement, out=out)
            values.append(value)
            return value, found, scale

    def minimise(tolerance: float) -> tuple[int, torch.Tensor]:
        objective = Recorded(prepare_ssd(fixed, moving), [Diffusion(weight=1.0)], (fixed, moving, None, None))
        state = Additive().initialise(torch.zeros(3, *SHAPE, dtype=torch.float64), BoxSmoothing(), None)
        iterations = list(LevenbergMarquardt().minimise(objective, state, Convergence(60, tolerance), BoxSmoothing()))
        assert iterations == list(range(1, len(iterations) + 1))
        return len(iterations), state.displacement

    assert minimise(0.0)[0] == len(values) == 60
    every = values.copy()
    count, found = minimise(tolerance)
    ends = [n for n in range(6, 60, 5) if every[n - 6] - every[n - 1] < tolerance * every[n - 6]]
    assert count == ends[0]
    assert values[60:] == every[:count]
    assert found.any()


def test_inputs_are_not_modified() -> None:
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
    ],
)
def test_unusable_settings(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the run-time check of annotations, which only the tests have and which would raise first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        LevenbergMarquardt(**setting)
