"""The Adam update against that of torch."""

from __future__ import annotations

import oracles
import pytest
import torch

from convexadam.continuous.adam import Adam


@pytest.mark.parametrize(
    "settings", [{"learning_rate": 1.0}, {"learning_rate": 0.02, "betas": (0.5, 0.9), "eps": 1e-3}]
)
def test_equals_torch_over_ten_steps(settings: dict[str, object]) -> None:
    start = oracles.noise(3, 4, 3, 5)
    theirs = start.clone().requires_grad_()
    options = {"lr": settings["learning_rate"], **{k: v for k, v in settings.items() if k != "learning_rate"}}
    optimiser = torch.optim.Adam([theirs], **options)  # type: ignore[arg-type]
    ours, adam = start.clone(), Adam(start, **settings)  # type: ignore[arg-type]
    for step in range(10):
        gradient = oracles.noise(3, 4, 3, 5, seed=step) * 10.0 ** (step % 4 - 2)
        theirs.grad = gradient.clone()
        optimiser.step()
        ours = ours - adam.direction(gradient)
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)


def test_the_first_step_is_as_long_as_the_learning_rate() -> None:
    gradient = oracles.noise(3, 2, 2, 2) * 100
    found = Adam(gradient, learning_rate=0.7).direction(gradient)
    torch.testing.assert_close(found, 0.7 * gradient.sign(), rtol=1e-6, atol=0)


def test_no_gradient_no_step() -> None:
    zero = torch.zeros(3, 2, 2, 2)
    assert not Adam(zero, learning_rate=1.0).direction(zero).any()


def test_inputs_are_left_alone_and_steps_are_new_tensors() -> None:
    gradient = oracles.noise(3, 2, 3, 2)
    before, adam = gradient.clone(), Adam(gradient, learning_rate=1.0)
    first = adam.direction(gradient)
    kept = first.clone()
    adam.direction(-gradient)
    assert torch.equal(first, kept)
    assert torch.equal(gradient, before)
