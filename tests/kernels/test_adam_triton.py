"""The Triton kernel of the Adam update against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os
from typing import Any

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from pairwise import pairwise

from convexadam.kernels.adam import reference
from convexadam.kernels.adam.triton import adam_step

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (13, 17, 9)]

Shape = tuple[int, int, int]


def _state(shape: Shape, seed: int = 0) -> list[torch.Tensor]:
    """A variable, its gradient and moments; gradients as small as those of a large volume."""
    variable, gradient, mean = (oracles.noise(3, *shape, seed=seed + n, dtype=torch.float32) for n in range(3))
    square = oracles.uniform(3, *shape, seed=seed + 3, low=1e-3).float()
    return [t.to(DEVICE) for t in (variable, 1e-4 * gradient, 1e-4 * mean, 1e-8 * square)]


def _after(update: Any, on_device: bool = False) -> Any:
    """Run an update on copies, and return what it changes."""

    def run(*state: torch.Tensor, step: int, **options: Any) -> tuple[torch.Tensor, ...]:
        variable, gradient, mean, square = (t.clone(memory_format=torch.preserve_format) for t in state)
        number = torch.tensor(step, device=DEVICE) if on_device else step
        update(variable, gradient, mean, square, step=number, **options)
        return variable, gradient, mean, square

    return run


@pytest.mark.parametrize(("shape", "step", "on_device"), pairwise(SHAPES, [1, 2, 80, 20_000], [False, True]))
def test_errs_no_more_than_torch(shape: Shape, step: int, on_device: bool) -> None:
    options = {"step": step, "learning_rate": 0.7, "eps": 1e-5}
    assert_within_budget(_after(adam_step, on_device), _after(reference.adam_step), *_state(shape), **options)


@pytest.mark.parametrize("step", [1, 80])
def test_the_step_alone(step: int) -> None:
    state = _state((5, 7, 6))
    options: dict[str, Any] = {"step": step, "learning_rate": 0.7, "eps": 1e-5}
    found = _after(adam_step)(*state, **options, accumulate=False)
    from_zero = _after(adam_step)(0 * state[0], *state[1:], **options)
    assert all(torch.equal(a, b) for a, b in zip(found, from_zero, strict=True))
    assert_within_budget(_after(adam_step), _after(reference.adam_step), *state, **options, accumulate=False)


@pytest.mark.parametrize("step", [1, 2, 5, 80, 499, 501, 20_000])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.9), (0.5, 0.99999)])
def test_counting_on_the_device_changes_nothing(step: int, betas: tuple[float, float]) -> None:
    options: dict[str, Any] = {"step": step, "learning_rate": 1.0, "eps": 1e-8, "betas": betas}
    _, *moments = _after(adam_step)(*_state((3, 4, 5)), **options)
    found, *others = _after(adam_step, on_device=True)(*_state((3, 4, 5)), **options)
    exact, *_ = _after(reference.adam_step)(*(t.double() for t in _state((3, 4, 5))), **options)
    assert all(torch.equal(a, b) for a, b in zip(moments, others, strict=True))
    moved = (exact - _state((3, 4, 5))[0]).abs().max()
    # the corrections are right to a few eps, and so is the quotient
    assert (found.double() - exact).abs().max() <= 10 * torch.finfo(torch.float32).eps * (moved + 4)


@pytest.mark.parametrize("on_device", [False, True])
def test_many_steps_find_the_lowest_point(on_device: bool) -> None:
    goal = oracles.noise(3, 2, 3, 4, dtype=torch.float32).to(DEVICE)
    variable, mean, square = (torch.zeros_like(goal) for _ in range(3))
    for number in range(1, 61):
        step = torch.tensor(number, device=DEVICE) if on_device else number
        adam_step(variable, 2 * (variable - goal), mean, square, step=step, learning_rate=0.2, eps=1e-8)
    assert (variable - goal).abs().max() < 0.1 * goal.abs().max()


def test_non_contiguous_state_changes_in_place() -> None:
    state = [t.transpose(1, 3) for t in _state((4, 5, 6))]
    state[2] = state[2].contiguous()
    assert not any(t.is_contiguous() for t in (state[0], state[1], state[3]))
    options = {"step": 3, "learning_rate": 0.5, "eps": 1e-6}
    assert_within_budget(_after(adam_step), _after(reference.adam_step), *state, **options)


def test_leaves_the_gradient_alone() -> None:
    state = _state((3, 4, 5))
    _, gradient, *_ = _after(adam_step)(*state, step=1, learning_rate=1.0, eps=1e-8)
    assert torch.equal(gradient, state[1])
