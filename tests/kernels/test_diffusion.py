"""The diffusion regulariser against finite differences of its energy."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.kernels.diffusion import diffusion, diffusion_gradient


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (3, 4, 2), (2, 2, 5)])
def test_equals_finite_differences_of_the_energy(shape: tuple[int, int, int]) -> None:
    field = oracles.noise(3, *shape).numpy()
    expected = np.zeros_like(field)
    for at in np.ndindex(*field.shape):
        up, down = field.copy(), field.copy()
        up[at] += 0.5
        down[at] -= 0.5
        # The energy is a quadratic: central differences are exact for any step.
        expected[at] = oracles.diffusion_energy(up) - oracles.diffusion_energy(down)
    np.testing.assert_allclose(diffusion_gradient(torch.from_numpy(field)).numpy(), expected, rtol=0, atol=1e-13)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(shape=st.tuples(*[st.integers(1, 6)] * 3), seed=st.integers(0, 999))
def test_of_a_quadratic_energy(shape: tuple[int, int, int], seed: int) -> None:
    field = oracles.noise(3, *shape, seed=seed)
    gradient = diffusion_gradient(field)
    assert (gradient * field).sum().item() == pytest.approx(2 * oracles.diffusion_energy(field.numpy()), abs=1e-12)
    torch.testing.assert_close(diffusion_gradient(field + 7), gradient, rtol=0, atol=1e-13)  # shifts cost nothing


def test_a_constant_shift_is_free() -> None:
    assert not diffusion_gradient(torch.full((3, 4, 5, 6), 2.5)).any()


def test_a_non_contiguous_field() -> None:
    field = oracles.noise(7, 12, 5, 3).permute(3, 2, 0, 1)[..., ::2]
    before = field.clone()
    torch.testing.assert_close(diffusion_gradient(field), diffusion_gradient(field.contiguous()))
    assert torch.equal(field, before)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 2), (4, 5, 6)])
def test_value_and_gradient_carry_the_weight(shape: tuple[int, int, int]) -> None:
    field = oracles.noise(3, *shape)
    value, gradient = diffusion(field, weight=0.7)
    assert value.item() == pytest.approx(0.7 * oracles.diffusion_energy(field.numpy()), rel=1e-12, abs=1e-15)
    torch.testing.assert_close(gradient, 0.7 * diffusion_gradient(field), rtol=1e-12, atol=1e-14)
    assert torch.equal(diffusion_gradient(field, weight=0.7), gradient)


def test_the_gradient_is_added_to_what_is_there() -> None:
    field, before = oracles.noise(3, 4, 5, 6), oracles.noise(3, 4, 5, 6, seed=1)
    for add_to in (before.clone(), before.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)):
        assert diffusion(field, add_to=add_to)[1] is add_to
        torch.testing.assert_close(add_to, before + diffusion_gradient(field), rtol=0, atol=1e-14)
        assert diffusion_gradient(field, add_to=add_to) is add_to
        torch.testing.assert_close(add_to, before + 2 * diffusion_gradient(field), rtol=0, atol=1e-14)
