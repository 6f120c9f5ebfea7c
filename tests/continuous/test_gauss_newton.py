"""Gauss-Newton steps: their length, and that nothing is evaluated twice."""

from __future__ import annotations

from typing import Any

import oracles
import pytest
import torch

from convexadam.continuous import Additive, Convergence, GaussianSmoothing, GaussNewton, LevenbergMarquardt
from convexadam.errors import ConfigError

SHAPE = (5, 4, 6)
CURVATURE = 2.0


class _Quadratic:
    """``CURVATURE/2 sum |u - goal|^2``, which counts its evaluations."""

    is_recordable = False

    def __init__(self, curvature: float = CURVATURE) -> None:
        self.goal, self.count, self._curvature = oracles.uniform(3, *SHAPE, low=-0.3, high=0.3), 0, curvature
        self.compared = (torch.zeros(1, *SHAPE), torch.zeros(1, *SHAPE), None, None)

    def __call__(self, displacement: torch.Tensor, *, out: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.count += 1
        out[:3] = self._curvature * (displacement - self.goal)
        return self._curvature / 2 * (displacement - self.goal).square().sum(), out

    def gradient(self, displacement: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
        return self(displacement, out=out)[1]

    def curvature(
        self, displacement: torch.Tensor, *, out: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        value, _ = self(displacement, out=out)
        out[3] = self._curvature
        return value, out, torch.tensor(self._curvature)

    def least_gradient(self, displacement: torch.Tensor) -> float:
        return 1.0


def _minimise(optimiser: Any, objective: _Quadratic, iterations: int, tolerance: float = 0.0) -> tuple[Any, int]:
    state = Additive().initialise(torch.zeros(3, *SHAPE), None, None)
    *_, last = optimiser.minimise(objective, state, Convergence(iterations, tolerance), None)
    return state.displacement, last


def test_a_step_leaves_the_damped_share_of_the_distance() -> None:
    objective = _Quadratic()
    displacement, _ = _minimise(GaussNewton(damping=0.5), objective, 2)
    torch.testing.assert_close(displacement, (1 - (0.5 / 1.5) ** 2) * objective.goal.float(), rtol=1e-4, atol=1e-5)


def test_momentum_repeats_a_share_of_the_update_before() -> None:
    objective = _Quadratic()
    displacement, _ = _minimise(GaussNewton(damping=0.5, momentum=0.4), objective, 3)
    first = 1 / 1.5
    second = 0.4 * first + (1 - first) / 1.5
    third = 0.4 * second + (1 - first - second) / 1.5
    torch.testing.assert_close(displacement, (first + second + third) * objective.goal.float(), rtol=1e-4, atol=1e-5)


def test_it_evaluates_once_where_levenberg_marquardt_evaluates_twice() -> None:
    plain, tested = _Quadratic(), _Quadratic()
    _minimise(GaussNewton(), plain, 4)
    _minimise(LevenbergMarquardt(), tested, 4)
    assert (plain.count, tested.count) == (4, 8)


def test_tolerance_ends_it_early() -> None:
    _, count = _minimise(GaussNewton(damping=1e-6), _Quadratic(), 50, tolerance=0.01)
    assert count < 15


def test_without_any_slope_nothing_moves() -> None:
    objective = _Quadratic(curvature=0.0)
    state = Additive().initialise(torch.zeros(3, *SHAPE), None, None)
    assert list(GaussNewton().minimise(objective, state, Convergence(3), GaussianSmoothing())) == []
    assert not state.displacement.any()


@pytest.mark.parametrize("damping", [0.0, -1.0, float("nan")])
def test_damping_must_be_positive(damping: float) -> None:
    with pytest.raises(ConfigError, match="damping must be a finite number above 0"):
        GaussNewton(damping=damping)


@pytest.mark.parametrize("momentum", [1.0, -0.1, float("nan")])
def test_momentum_must_be_a_share(momentum: float) -> None:
    with pytest.raises(ConfigError, match=r"momentum must be a finite number of at least 0 and at most 0\.99"):
        GaussNewton(momentum=momentum)
