"""The optimiser's memory: Adam over several steps, against that of torch."""

from __future__ import annotations

import oracles
import pytest
import torch

from convexadam.continuous.adam import Moments


@pytest.mark.parametrize(
    "settings", [{"learning_rate": 1.0}, {"learning_rate": 0.02, "betas": (0.5, 0.9), "eps": 1e-3}]
)
def test_equals_torch_over_ten_steps(settings: dict[str, object]) -> None:
    start = oracles.noise(3, 4, 3, 5)
    theirs = start.clone().requires_grad_()
    options = {"lr": settings["learning_rate"], **{k: v for k, v in settings.items() if k != "learning_rate"}}
    optimiser = torch.optim.Adam([theirs], **options)  # type: ignore[arg-type]
    ours, adam = start.clone(), Moments(start, **settings)  # type: ignore[arg-type]
    for step in range(10):
        gradient = oracles.noise(3, 4, 3, 5, seed=step) * 10.0 ** (step % 4 - 2)
        theirs.grad = gradient.clone()
        optimiser.step()
        adam.descend(ours, gradient)
        torch.testing.assert_close(ours, theirs.detach(), rtol=1e-12, atol=1e-12)


def test_the_first_step_is_as_long_as_the_learning_rate() -> None:
    gradient = oracles.noise(3, 2, 2, 2) * 100
    found = torch.zeros_like(gradient)
    Moments(gradient, learning_rate=0.7).descend(found, gradient)
    torch.testing.assert_close(found, -0.7 * gradient.sign(), rtol=1e-6, atol=0)


def test_no_gradient_no_step() -> None:
    found = oracles.noise(3, 2, 2, 2)
    before = found.clone()
    Moments(found, learning_rate=1.0).descend(found, torch.zeros_like(found))
    assert torch.equal(found, before)


def test_the_gradient_is_left_alone() -> None:
    gradient = oracles.noise(3, 2, 3, 2)
    before = gradient.clone()
    Moments(gradient, learning_rate=1.0).descend(torch.zeros_like(gradient), gradient)
    assert torch.equal(gradient, before)
