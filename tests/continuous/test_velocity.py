"""A stationary velocity: what following it for a unit of time makes of steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from motions import Plain, smoothed

from convexadam.continuous import Compositional, Displacement, GaussianSmoothing, StationaryVelocity
from convexadam.kernels.warp import add_step

SHAPE = (5, 4, 6)
WIDE = (16, 14, 18)


def _followed(velocity: np.ndarray, start: np.ndarray) -> np.ndarray:
    """``w + start o (id + w)``, with ``w`` a 64th of the velocity composed with itself six times."""
    flow = velocity / 64
    for _ in range(6):
        flow = flow + oracles.compose(flow, flow)
    return flow + oracles.compose(start, flow)


def _cut(step: np.ndarray, longest: float) -> np.ndarray:
    return step * np.minimum(1, longest / np.maximum(np.sqrt((step**2).sum(0)), 1e-30))


def _waves(length: float) -> torch.Tensor:
    """Waves of 14 nodes on the wide grid, the longest vector of which has that length."""
    i, j, k = 2 * np.pi / 14 * oracles.indices(WIDE)
    field = np.stack([np.sin(i) * np.cos(j), np.sin(j + 1) * np.cos(k), np.sin(k + 2) * np.cos(i)])
    return torch.from_numpy(field * length / np.linalg.norm(field, axis=0).max())


@pytest.mark.parametrize("update", [None, GaussianSmoothing(sigma=0.8)])
@pytest.mark.parametrize("whole", [None, GaussianSmoothing(sigma=0.7)])
def test_short_smooth_steps_are_added_to_the_velocity(update: Any, whole: Any) -> None:
    start = oracles.noise(3, *SHAPE)
    motion = StationaryVelocity(field_smoothing=whole, largest_step=0.3).begin(start, update, None)
    assert torch.equal(motion.displacement, start)
    velocity = np.zeros((3, *SHAPE))
    for seed in (1, 2):
        direction = 0.4 * oracles.noise(3, *SHAPE, seed=seed)  # some nodes step further than 0.3, some do not
        motion.move(direction, Plain())
        step = -smoothed(direction.numpy(), update)
        length = np.sqrt((step**2).sum(0))
        assert length.min() < 0.3 < length.max()
        velocity = smoothed(velocity + _cut(step, 0.3), whole)
        expected = _followed(velocity, start.numpy())
        np.testing.assert_allclose(motion.displacement.numpy(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("whole", [None, GaussianSmoothing(sigma=0.7)])
def test_a_step_is_tried_before_it_is_kept(whole: Any) -> None:
    start, steps = oracles.noise(3, *SHAPE), [0.4 * oracles.noise(3, *SHAPE, seed=s) for s in (1, 2, 3)]
    motion = StationaryVelocity(field_smoothing=whole, largest_step=0.3).begin(start, None, None)
    velocity = np.zeros((3, *SHAPE))
    for number, step in enumerate(steps):
        tried = velocity + _cut(step.numpy(), 0.3)
        np.testing.assert_allclose(motion.tried(step).numpy(), _followed(tried, start.numpy()), rtol=0, atol=1e-12)
        if number != 1:  # the second one is not kept
            motion.keep()
            velocity = smoothed(tried, whole)
        np.testing.assert_allclose(motion.displacement.numpy(), _followed(velocity, start.numpy()), rtol=0, atol=1e-12)


@pytest.mark.parametrize("length", [4.0, 5.0])
def test_long_steps_do_not_fold(length: float) -> None:
    zero, step = torch.zeros(3, *WIDE, dtype=torch.float64), _waves(length)
    options: Any = {"field_smoothing": None, "largest_step": 2 * length}
    flowing, composed = (
        kind(**options).begin(zero, None, None).tried(step) for kind in (StationaryVelocity, Compositional)
    )
    assert oracles.jacobian(composed.numpy()).min() < 0
    assert oracles.jacobian(flowing.numpy()).min() > 0
    assert flowing.norm(dim=0).max() > 0.75 * length


def test_a_rotation_is_followed_and_its_opposite_leads_back() -> None:
    # linear interpolation is exact, and a 64th of the turn 64 times is (1 + A / 64)^64
    shape, inner = (24, 22, 26), (slice(None), *(slice(8, -8),) * 3)
    turn = np.array([[0, -0.3, 0.2], [0.3, 0, -0.4], [-0.2, 0.4, 0]])
    here = oracles.indices(shape) - (np.array(shape).reshape(3, 1, 1, 1) - 1) / 2
    zero = torch.zeros(3, *shape, dtype=torch.float64)
    there, back = (
        StationaryVelocity(largest_step=20.0).begin(zero, None, None).tried(torch.from_numpy(v))
        for v in (np.einsum("ab,bijk->aijk", sign * turn, here) for sign in (1, -1))
    )
    for found, matrix in (
        (there, np.linalg.matrix_power(np.eye(3) + turn / 64, 64)),
        (add_step(back, there), np.linalg.matrix_power(np.eye(3) - turn @ turn / 64**2, 64)),  # nearly nothing
    ):
        expected = np.einsum("ab,bijk->aijk", matrix - np.eye(3), here)
        np.testing.assert_allclose(found.numpy()[inner], expected[inner], rtol=0, atol=1e-10)


def test_the_start_is_not_part_of_the_flow() -> None:
    # a start that no flow leads to: it mirrors
    start = torch.zeros(3, *SHAPE, dtype=torch.float64)
    start[0] = SHAPE[0] - 1 - 2 * torch.arange(SHAPE[0], dtype=torch.float64)[:, None, None]
    motion = StationaryVelocity(field_smoothing=None).begin(start, None, None)
    shift = torch.full_like(start, 0.25)
    motion.move(-shift, Plain())
    # shifted by a quarter, then mirrored: linear, so exact but for the last layer
    expected = start + torch.tensor([-0.25, 0.25, 0.25]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(motion.displacement[:, :-1], expected[:, :-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("parametrisation", [Displacement(), Compositional(), StationaryVelocity()])
def test_steps_read_and_write_the_same_memory(parametrisation: Any) -> None:
    # A recorded step is replayed on the memory it was recorded with.
    motion = parametrisation.begin(oracles.noise(3, *SHAPE), GaussianSmoothing(), None)
    place = motion.displacement.data_ptr()
    for seed in (1, 2, 3):
        before = motion.displacement.clone()
        motion.move(oracles.noise(3, *SHAPE, seed=seed), Plain())
        assert motion.displacement.data_ptr() == place
        assert not torch.equal(motion.displacement, before)


def test_inputs_are_left_alone() -> None:
    start, step = oracles.noise(3, *SHAPE), oracles.noise(3, *SHAPE, seed=1)
    before = start.clone(), step.clone()
    motion = StationaryVelocity().begin(start, GaussianSmoothing(), None)
    for _ in range(2):
        motion.move(step, Plain())
        motion.tried(step)
        motion.keep()
    assert torch.equal(start, before[0])
    assert torch.equal(step, before[1])
