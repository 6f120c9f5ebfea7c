"""The bending energy and its gradient against naive loops."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam import use_backend
from convexadam.kernels.bending import bending, bending_gradient

Shape = tuple[int, int, int]
SHAPES = [(1, 1, 1), (1, 3, 2), (2, 2, 5), (4, 3, 5)]


def _affine(shape: Shape, seed: int, dtype: torch.dtype) -> torch.Tensor:
    """A displacement whose values and differences have no rounding."""
    rng = np.random.default_rng(seed)
    matrix, shift = rng.integers(-32, 33, (3, 3)) / 16, rng.integers(-64, 65, (3, 1, 1, 1)) / 16
    return torch.from_numpy(np.einsum("ab,bijk->aijk", matrix, oracles.indices(shape)) + shift).to(dtype)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_finite_differences_of_the_energy(shape: Shape) -> None:
    field = oracles.noise(3, *shape).numpy()
    expected = np.zeros_like(field)
    for at in np.ndindex(*field.shape):
        up, down = field.copy(), field.copy()
        up[at] += 0.5
        down[at] -= 0.5
        # The energy is a quadratic: central differences are exact for any step.
        expected[at] = oracles.bending_energy(up) - oracles.bending_energy(down)
    value, gradient = bending(torch.from_numpy(field))
    assert value.item() == pytest.approx(oracles.bending_energy(field), rel=1e-12, abs=1e-15)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(shape=st.tuples(*[st.integers(1, 6)] * 3), seed=st.integers(0, 999))
def test_of_a_quadratic_energy(shape: Shape, seed: int) -> None:
    field = oracles.noise(3, *shape, seed=seed)
    value, gradient = bending(field)
    assert value.item() == pytest.approx(oracles.bending_energy(field.numpy()), rel=1e-12, abs=1e-15)
    assert (gradient * field).sum().item() == pytest.approx(2 * value.item(), abs=1e-12)
    moved = bending_gradient(field + _affine(shape, seed, torch.float64))
    torch.testing.assert_close(moved, gradient, rtol=0, atol=1e-12)


@pytest.mark.parametrize("run", [("reference", torch.float64), ("reference", torch.float32), ("cpu", torch.float32)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 1), (5, 4, 6), (7, 9, 20)])
def test_affine_displacements_are_free(run: tuple[str, torch.dtype], shape: Shape) -> None:
    with use_backend(run[0]):  # type: ignore[arg-type]
        value, gradient = bending(_affine(shape, 3, run[1]), weight=1000.0)
    assert value == 0
    assert not gradient.any()


def test_no_eigenvalue_is_above_what_is_said() -> None:
    shape = (5, 6, 7)
    columns = torch.eye(210, dtype=torch.float64).reshape(210, 1, *shape).expand(-1, 3, -1, -1, -1)
    hessian = torch.stack([bending_gradient(column)[0].flatten() for column in columns])
    torch.testing.assert_close(hessian, hessian.T, rtol=0, atol=1e-15)
    values = torch.linalg.eigvalsh(hessian)
    assert 0.75 * 96 / 210 < values[-1] <= 96 / 210
    assert int((values < 1e-12).sum()) == 4  # affine displacements alone are free


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_weighted_gradient_is_added_to_what_is_there(dtype: torch.dtype) -> None:
    field, before = (oracles.noise(3, 4, 5, 6, seed=s).to(dtype) for s in (0, 1))
    value, gradient = bending(field)
    atol = 64 * torch.finfo(dtype).eps
    for add_to in (before.clone(), before.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)):
        with use_backend("reference"):
            weighted, found = bending(field, weight=3.0, add_to=add_to)
            assert found is add_to
            assert weighted.item() == pytest.approx(3 * value.item(), rel=1e-5)
            torch.testing.assert_close(add_to, before + 3 * gradient, rtol=0, atol=atol)
            assert bending_gradient(field, weight=-3.0, add_to=add_to) is add_to
            torch.testing.assert_close(add_to, before, rtol=0, atol=atol)


def test_a_non_contiguous_field() -> None:
    field = oracles.noise(7, 12, 5, 3).permute(3, 2, 0, 1)[..., ::2]
    before = field.clone()
    torch.testing.assert_close(bending_gradient(field), bending_gradient(field.contiguous()))
    assert torch.equal(field, before)
