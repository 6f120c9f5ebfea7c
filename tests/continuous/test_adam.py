"""The moments of Adam over several steps, against torch."""

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
    expected = start.clone().requires_grad_()
    options = {"lr": settings["learning_rate"], **{k: v for k, v in settings.items() if k != "learning_rate"}}
    optimiser = torch.optim.Adam([expected], **options)  # type: ignore[arg-type]
    found, adam = start.clone(), Moments(start, **settings)  # type: ignore[arg-type]
    for step in range(10):
        gradient = oracles.noise(3, 4, 3, 5, seed=step) * 10.0 ** (step % 4 - 2)
        expected.grad = gradient.clone()
        optimiser.step()
        adam.update(found, gradient)
        torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)


def test_the_first_step_is_as_long_as_the_learning_rate() -> None:
    gradient = oracles.noise(3, 2, 2, 2) * 100
    found = torch.zeros_like(gradient)
    Moments(gradient, learning_rate=0.7).update(found, gradient)
    torch.testing.assert_close(found, -0.7 * gradient.sign(), rtol=1e-6, atol=0)


def test_a_zero_gradient_makes_no_step() -> None:
    found = oracles.noise(3, 2, 2, 2)
    before = found.clone()
    Moments(found, learning_rate=1.0).update(found, torch.zeros_like(found))
    assert torch.equal(found, before)


def test_the_gradient_is_not_modified() -> None:
    gradient = oracles.noise(3, 2, 3, 2)
    before = gradient.clone()
    Moments(gradient, learning_rate=1.0).update(torch.zeros_like(gradient), gradient)
    assert torch.equal(gradient, before)
