"""The Adam update of the CPU against torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, is_vectorised, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.adam import adam_step, cpu, reference


def _state(shape: Shape) -> list[torch.Tensor]:
    """A variable, its gradient, and both moments, about as large as each other."""
    variable, gradient, mean = (noise(3, *shape, seed=n) for n in range(3))
    return [variable, gradient, mean, oracles.uniform(3, *shape, seed=3, low=1e-3).float()]


def _fresh(shape: Shape) -> list[torch.Tensor]:
    """The same before the first step."""
    variable, gradient, mean, square = _state(shape)
    return [variable, gradient, 0 * mean, 0 * square]


def _after(update: Any) -> Any:
    """Run an update on copies that lie in memory as the originals do; return what it changes."""

    def run(*state: torch.Tensor, **options: Any) -> tuple[torch.Tensor, ...]:
        copies = [t.clone() if t.is_contiguous() else scattered(t) for t in state]
        update(*copies, **options)
        return tuple(copies)

    return run


FUSED, TORCH = _after(on_cpu(adam_step)), _after(reference.adam_step)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "step"), pairwise([1, 3], [*SHAPES, NODES], [1, 2, 80, 20_000]), indirect=["threads"]
)
def test_errs_no_more_than_torch(shape: Shape, step: int) -> None:
    options = {"step": step, "learning_rate": 0.7, "eps": 1e-5}
    assert_within_budget(FUSED, TORCH, *_state(shape), **options)


@pytest.mark.parametrize("step", [1, 80])
def test_the_step_alone(step: int) -> None:
    state = _state((5, 7, 6))
    options: dict[str, Any] = {"step": step, "learning_rate": 0.7, "eps": 1e-5}
    found = FUSED(*state, **options, accumulate=False)
    from_zero = FUSED(0 * state[0], *state[1:], **options)
    assert all(torch.equal(a, b) for a, b in zip(found, from_zero, strict=True))
    assert_within_budget(FUSED, TORCH, *state, **options, accumulate=False)


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.99), (0.0, 0.9), (0.99, 0.99999)])
def test_the_first_step(betas: tuple[float, float]) -> None:
    state = _fresh((5, 7, 6))
    assert_within_budget(FUSED, TORCH, *state, step=1, learning_rate=1.0, eps=1e-12, betas=betas)
    moved = FUSED(*state, step=1, learning_rate=1.0, eps=1e-12, betas=betas)[0] - state[0]
    # m / sqrt(v) is the sign of the gradient
    torch.testing.assert_close(moved, -state[1].sign(), rtol=0, atol=2e-6)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("factor", [2.0**-30, 2.0**20])
def test_the_size_of_the_gradient_does_not_matter(factor: float) -> None:
    variable, gradient, mean, square = _state((5, 7, 6))
    moved, _, mean_after, square_after = FUSED(variable, gradient, mean, square, step=3, learning_rate=0.5, eps=1e-6)
    found = FUSED(
        variable, factor * gradient, factor * mean, factor**2 * square, step=3, learning_rate=0.5, eps=factor * 1e-6
    )
    # Powers of 2 change no digit.
    assert torch.equal(found[0], moved)
    assert torch.equal(found[2], factor * mean_after)
    assert torch.equal(found[3], factor**2 * square_after)


def test_many_steps_find_the_lowest_point() -> None:
    goal = noise(3, 2, 3, 4)
    variable, mean, square = (torch.zeros_like(goal) for _ in range(3))
    for number in range(1, 61):
        on_cpu(adam_step)(variable, 2 * (variable - goal), mean, square, step=number, learning_rate=0.2, eps=1e-8)
    assert (variable - goal).abs().max() < 0.1 * goal.abs().max()


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (3,), (0, 1, 2, 3)])
def test_non_contiguous_state_changes_in_place(which: tuple[int, ...]) -> None:
    state = [scattered(t) if n in which else t for n, t in enumerate(_state((5, 7, 6)))]
    assert [n for n, t in enumerate(state) if not t.is_contiguous()] == list(which)
    options = {"step": 3, "learning_rate": 0.5, "eps": 1e-6}
    assert_within_budget(FUSED, TORCH, *state, **options)
    expected = FUSED(*_state((5, 7, 6)), **options)
    assert all(torch.equal(a, b) for a, b in zip(FUSED(*state, **options), expected, strict=True))


def test_leaves_the_gradient_alone() -> None:
    state = _state((3, 4, 5))
    assert torch.equal(FUSED(*state, step=1, learning_rate=1.0, eps=1e-8)[1], state[1])


def test_the_loop_is_vectorised() -> None:
    state, numbers = (np.zeros(4096, np.float32) for _ in range(4)), (np.float32(0.5) for _ in range(7))
    assert is_vectorised(cpu._update, 0, 4096, *state, *numbers, (0,))
