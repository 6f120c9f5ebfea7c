"""Stationary velocities, integrated over unit time."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from motions import GradientDescent, smooth

from convexadam.continuous import Additive, Compositional, GaussianSmoothing, StationaryVelocity
from convexadam.kernels.warp import add_step

SHAPE = (5, 4, 6)
WIDE = (16, 14, 18)


def _integrate(velocity: np.ndarray, start: np.ndarray) -> np.ndarray:
    """``w + start o (id + w)``, with ``w`` a 64th of the velocity composed with itself six times."""
    flow = velocity / 64
    for _ in range(6):
        flow = flow + oracles.compose(flow, flow)
    return flow + oracles.compose(start, flow)


def _limit(step: np.ndarray, longest: float) -> np.ndarray:
    return step * np.minimum(1, longest / np.maximum(np.sqrt((step**2).sum(0)), 1e-30))


def _waves(length: float) -> torch.Tensor:
    """Waves of 14 control points on the wide grid; the longest vector has that length."""
    i, j, k = 2 * np.pi / 14 * oracles.indices(WIDE)
    field = np.stack([np.sin(i) * np.cos(j), np.sin(j + 1) * np.cos(k), np.sin(k + 2) * np.cos(i)])
    return torch.from_numpy(field * length / np.linalg.norm(field, axis=0).max())


@pytest.mark.parametrize("update", [None, GaussianSmoothing(sigma=0.8)])
@pytest.mark.parametrize("whole", [None, GaussianSmoothing(sigma=0.7)])
def test_limited_smooth_steps_are_added_to_the_velocity(update: Any, whole: Any) -> None:
    start = oracles.noise(3, *SHAPE)
    state = StationaryVelocity(total_smoothing=whole, max_step=0.3).initialise(start, update, None)
    assert torch.equal(state.displacement, start)
    velocity = np.zeros((3, *SHAPE))
    for seed in (1, 2):
        direction = 0.4 * oracles.noise(3, *SHAPE, seed=seed)  # steps longer and shorter than 0.3
        state.move(direction, GradientDescent())
        step = -smooth(direction.numpy(), update)
        length = np.sqrt((step**2).sum(0))
        assert length.min() < 0.3 < length.max()
        velocity = smooth(velocity + _limit(step, 0.3), whole)
        expected = _integrate(velocity, start.numpy())
        np.testing.assert_allclose(state.displacement.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("whole", [None, GaussianSmoothing(sigma=0.7)])
def test_a_proposed_step_counts_only_once_it_is_accepted(whole: Any) -> None:
    start, steps = oracles.noise(3, *SHAPE), [0.4 * oracles.noise(3, *SHAPE, seed=s) for s in (1, 2, 3)]
    state = StationaryVelocity(total_smoothing=whole, max_step=0.3).initialise(start, None, None)
    velocity = np.zeros((3, *SHAPE))
    for number, step in enumerate(steps):
        proposed = velocity + _limit(step.numpy(), 0.3)
        np.testing.assert_allclose(state.propose(step).numpy(), _integrate(proposed, start.numpy()), rtol=0, atol=1e-12)
        if number != 1:  # the second one is not accepted
            state.accept()
            velocity = smooth(proposed, whole)
        np.testing.assert_allclose(state.displacement.numpy(), _integrate(velocity, start.numpy()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [4.0, 5.0])
def test_long_steps_do_not_fold(length: float) -> None:
    zero, step = torch.zeros(3, *WIDE, dtype=torch.float64), _waves(length)
    options: Any = {"total_smoothing": None, "max_step": 2 * length}
    integrated, composed = (
        kind(**options).initialise(zero, None, None).propose(step) for kind in (StationaryVelocity, Compositional)
    )
    assert oracles.jacobian(composed.numpy()).min() < 0
    assert oracles.jacobian(integrated.numpy()).min() > 0
    assert integrated.norm(dim=0).max() > 0.75 * length


def test_a_rotation_is_integrated_and_the_opposite_velocity_is_its_inverse() -> None:
    # linear interpolation is exact here: 64 steps of a 64th of the rotation are (1 + A / 64)^64
    shape, inner = (24, 22, 26), (slice(None), *(slice(8, -8),) * 3)
    generator = np.array([[0, -0.3, 0.2], [0.3, 0, -0.4], [-0.2, 0.4, 0]])
    positions = oracles.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    zero = torch.zeros(3, *shape, dtype=torch.float64)
    forward, backward = (
        StationaryVelocity(max_step=20.0).initialise(zero, None, None).propose(torch.from_numpy(v))
        for v in (np.einsum("ab,bijk->aijk", sign * generator, positions) for sign in (1, -1))
    )
    for found, matrix in (
        (forward, np.linalg.matrix_power(np.eye(3) + generator / 64, 64)),
        (
            add_step(backward, forward),
            np.linalg.matrix_power(np.eye(3) - generator @ generator / 64**2, 64),
        ),  # nearly the identity
    ):
        expected = np.einsum("ab,bijk->aijk", matrix - np.eye(3), positions)
        np.testing.assert_allclose(found.numpy()[inner], expected[inner], rtol=0, atol=1e-10)


def test_the_start_is_composed_with_the_flow() -> None:
    # a reflection, which is not the flow of any velocity
    start = torch.zeros(3, *SHAPE, dtype=torch.float64)
    start[0] = SHAPE[0] - 1 - 2 * torch.arange(SHAPE[0], dtype=torch.float64)[:, None, None]
    state = StationaryVelocity(total_smoothing=None).initialise(start, None, None)
    shift = torch.full_like(start, 0.25)
    state.move(-shift, GradientDescent())
    # a shift by a quarter, then the reflection: linear, so exact except in the last layer
    expected = start + torch.tensor([-0.25, 0.25, 0.25]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(state.displacement[:, :-1], expected[:, :-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("parametrisation", [Additive(), Compositional(), StationaryVelocity()])
def test_steps_keep_their_memory(parametrisation: Any) -> None:
    # a CUDA graph replays a step on the memory that it was recorded with
    state = parametrisation.initialise(oracles.noise(3, *SHAPE), GaussianSmoothing(), None)
    address = state.displacement.data_ptr()
    for seed in (1, 2, 3):
        before = state.displacement.clone()
        state.move(oracles.noise(3, *SHAPE, seed=seed), GradientDescent())
        assert state.displacement.data_ptr() == address
        assert not torch.equal(state.displacement, before)


def test_inputs_are_not_modified() -> None:
    start, step = oracles.noise(3, *SHAPE), oracles.noise(3, *SHAPE, seed=1)
    before = start.clone(), step.clone()
    state = StationaryVelocity().initialise(start, GaussianSmoothing(), None)
    for _ in range(2):
        state.move(step, GradientDescent())
        state.propose(step)
        state.accept()
    assert torch.equal(start, before[0])
    assert torch.equal(step, before[1])
