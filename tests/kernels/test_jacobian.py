"""Local volume change."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.geometry import jacobian_determinant


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (5, 7, 6), (2, 3, 11)])
def test_equals_naive_loops(shape: tuple[int, int, int]) -> None:
    field = oracles.noise(3, *shape)
    expected = torch.from_numpy(oracles.jacobian(field.numpy()))
    torch.testing.assert_close(jacobian_determinant(field), expected, rtol=0, atol=1e-12)


def test_float32_errs_no_more_than_rounding_explains() -> None:
    field = oracles.noise(3, 5, 7, 6).float()
    expected = oracles.jacobian(field.double().numpy())
    found = jacobian_determinant(field)
    assert found.dtype == torch.float32
    # Six products of three entries, each entry rounded twice, products and sums once each.
    entry = 1 + 2 * field.abs().max().item()
    assert np.abs(found.double().numpy() - expected).max() <= 6 * 10 * torch.finfo(torch.float32).eps * entry**3


@settings(deadline=None, max_examples=15, derandomize=True)
@given(entries=st.lists(st.floats(-2, 2), min_size=9, max_size=9), shift=st.floats(-50, 50))
def test_of_a_linear_map_is_its_determinant(entries: list[float], shift: float) -> None:
    matrix = np.array(entries).reshape(3, 3)
    field = np.einsum("ab,bijk->aijk", matrix, oracles.indices((3, 4, 2))) + shift
    found = jacobian_determinant(torch.from_numpy(field)).numpy()
    np.testing.assert_allclose(found, np.linalg.det(np.eye(3) + matrix), rtol=0, atol=1e-10)


def test_a_fold_is_negative_and_a_crease_zero() -> None:
    field = torch.zeros(3, 4, 5, 6)
    ticks = torch.arange(5.0).reshape(1, 5, 1)
    field[1] = -2 * ticks
    assert jacobian_determinant(field).unique().tolist() == [-1]
    field[1] = -ticks
    assert jacobian_determinant(field).unique().tolist() == [0]


def test_a_non_contiguous_field() -> None:
    field = oracles.noise(6, 5, 14, 3).permute(3, 2, 1, 0)[:, ::2]
    assert not field.is_contiguous()
    expected = torch.from_numpy(oracles.jacobian(field.numpy()))
    torch.testing.assert_close(jacobian_determinant(field), expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), axes=st.permutations(range(3)))
def test_swapping_axes_keeps_the_volume_change(seed: int, axes: list[int]) -> None:
    field = oracles.noise(3, 3, 4, 5, seed=seed)
    turned = field[axes].permute(0, *(a + 1 for a in axes))
    expected = jacobian_determinant(field).permute(axes)
    torch.testing.assert_close(jacobian_determinant(turned), expected, rtol=0, atol=1e-12)
