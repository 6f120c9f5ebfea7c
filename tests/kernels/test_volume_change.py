"""The cost of volume changes and its gradient against naive loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairwise import pairwise

from convexadam import use_backend
from convexadam.kernels.volume_change import volume_change
from convexadam.kernels.volume_change.reference import MIN_DETERMINANT

Shape = tuple[int, int, int]
STEP = 1e-5


def _cost(determinant: float) -> float:
    """Along the tangent below `MIN_DETERMINANT`."""
    log, excess = math.log(max(determinant, MIN_DETERMINANT)), min(determinant - MIN_DETERMINANT, 0)
    return log**2 + 2 * log / MIN_DETERMINANT * excess


@pytest.mark.parametrize(
    ("shape", "height", "masked"), pairwise([(1, 1, 1), (1, 3, 2), (2, 2, 5), (4, 3, 4)], [0.1, 0.6], [False, True])
)
def test_equals_finite_differences(shape: Shape, height: float, masked: bool) -> None:
    field = height * oracles.noise(3, *shape)
    mask = oracles.uniform(*shape, seed=1).clamp_min(0.3) - 0.3 if masked else None
    share = None if mask is None else mask.numpy()
    if shape == (4, 3, 4):
        folded = (oracles.jacobian(field.numpy()) < MIN_DETERMINANT).mean()
        assert folded == 0 if height == 0.1 else folded > 0.2
    expected = np.zeros(field.shape)
    for at in np.ndindex(*field.shape):
        up, down = field.numpy().copy(), field.numpy().copy()
        up[at] += STEP
        down[at] -= STEP
        expected[at] = (oracles.volume_change(up, share) - oracles.volume_change(down, share)) / (2 * STEP)
    value, gradient = volume_change(field, soft_mask=mask)
    assert value.item() == pytest.approx(oracles.volume_change(field.numpy(), share), rel=1e-12, abs=1e-15)
    # Third derivatives of log^2 are some 20 / 0.05^3 at the most, of slopes that a node moves by a step or less; values
    # of up to 100 are rounded.
    atol = 20 / MIN_DETERMINANT**3 * STEP**2 + 100 * 2e-16 / STEP
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("factor", [1.3, 0.5, 0.06, 0.04, 0.0, -1.0])
def test_of_a_stretch(factor: float) -> None:
    field = torch.zeros(3, 5, 6, 7, dtype=torch.float64)
    field[1] = (factor - 1) * torch.arange(6.0, dtype=torch.float64)[:, None]
    value, gradient = volume_change(field, weight=2.0)
    assert value.item() == pytest.approx(2 * _cost(factor), rel=1e-12)
    slope = 2 * math.log(max(factor, MIN_DETERMINANT)) / max(factor, MIN_DETERMINANT)
    # along the row, all nodes pull at the two outer ones only: what the others get cancels
    work = (gradient[1].sum((0, 2)) * torch.arange(6.0, dtype=torch.float64)).sum()
    assert work.item() == pytest.approx(2 * slope, rel=1e-12)
    assert gradient.sum().item() == pytest.approx(0, abs=1e-12)  # a shift changes nothing


@pytest.mark.parametrize("run", [("reference", torch.float64), ("reference", torch.float32), ("cpu", torch.float32)])
def test_what_moves_as_a_whole_is_free(run: Any) -> None:
    with use_backend(run[0]):
        for shift in (0.0, 0.3, -100.1):
            value, gradient = volume_change(torch.full((3, 4, 5, 6), shift, dtype=run[1]))
            assert value == 0
            assert not gradient.any()


@pytest.mark.parametrize("run", [("reference", torch.float64), ("cpu", torch.float32)])
def test_only_what_the_mask_names_counts(run: Any) -> None:
    field = 0.1 * oracles.noise(3, 9, 8, 7).to(run[1])
    mask = torch.zeros(9, 8, 7, dtype=run[1])
    with use_backend(run[0]):
        value, gradient = volume_change(field, soft_mask=mask)
        assert value == 0
        assert not gradient.any()
        mask[4, 3, 2] = 0.5
        value, gradient = volume_change(field, soft_mask=mask)
    determinant = oracles.jacobian(field.double().numpy())[4, 3, 2]
    assert value.item() == pytest.approx(0.5 * _cost(determinant) / 504, rel=1e-4)
    # the six neighbours, all three components, and nothing else
    touched = torch.zeros(9, 8, 7, dtype=torch.bool)
    touched[[3, 5, 4, 4, 4, 4], [3, 3, 2, 4, 3, 3], [2, 2, 2, 2, 1, 3]] = True
    assert torch.equal(gradient != 0, touched.expand(3, -1, -1, -1))


def test_a_step_down_brings_volume_back() -> None:
    where = torch.from_numpy(oracles.indices((12, 12, 12))) - 5.5
    field = -0.3 * where * torch.exp(-where.square().sum(0) / 18)
    value, gradient = volume_change(field)
    for _ in range(20):
        field = field - 100.0 * gradient
        later, gradient = volume_change(field)
        assert later < value
        value = later
    assert value < 0.5 * volume_change(-0.3 * where * torch.exp(-where.square().sum(0) / 18))[0]


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), axes=st.permutations(range(3)))
def test_swapping_axes_swaps_the_gradient(seed: int, axes: list[int]) -> None:
    field, mask = 0.3 * oracles.noise(3, 3, 4, 5, seed=seed), oracles.uniform(3, 4, 5, seed=seed)
    order = (0, *(a + 1 for a in axes))
    value, gradient = volume_change(field, soft_mask=mask)
    again, turned = volume_change(field[axes].permute(order), soft_mask=mask.permute(axes))
    assert again.item() == pytest.approx(value.item(), rel=1e-12)
    torch.testing.assert_close(turned, gradient[axes].permute(order), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_weighted_gradient_is_added_to_what_is_there(dtype: torch.dtype) -> None:
    field, before = 0.1 * oracles.noise(3, 4, 5, 6).to(dtype), oracles.noise(3, 4, 5, 6, seed=1).to(dtype)
    kept = field.clone()
    with use_backend("reference"):
        value, gradient = volume_change(field)
        for add_to in (before.clone(), before.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)):
            weighted, found = volume_change(field, weight=3.0, add_to=add_to)
            assert found is add_to
            assert weighted.item() == pytest.approx(3 * value.item(), rel=1e-5)
            torch.testing.assert_close(add_to, before + 3 * gradient, rtol=0, atol=64 * torch.finfo(dtype).eps)
    assert torch.equal(field, kept)
