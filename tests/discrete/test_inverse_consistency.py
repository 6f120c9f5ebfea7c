"""Inverse consistency against naive loops."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.discrete import estimate_inverse, make_inverse_consistent


def _pair(shape: tuple[int, int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return oracles.noise(3, *shape, seed=seed), oracles.noise(3, *shape, seed=seed + 1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 3), (5, 7, 6)])
@pytest.mark.parametrize("iterations", [0, 1, 2, 7])
def test_equals_naive_loops(shape: tuple[int, int, int], iterations: int) -> None:
    forward, backward = _pair(shape)
    found = make_inverse_consistent(forward, backward, iterations=iterations)
    expected = oracles.inverse_consistency(forward.numpy(), backward.numpy(), iterations)
    for a, b in zip(found, expected, strict=True):
        # each iteration samples at positions wrong by 1e-15, in fields with steps of a few, and at most doubles errors
        torch.testing.assert_close(a, torch.from_numpy(b), rtol=0, atol=1e-11)


def test_the_default_is_fifteen_iterations() -> None:
    forward, backward = _pair((4, 3, 5), seed=2)
    for a, b in zip(
        make_inverse_consistent(forward, backward),
        make_inverse_consistent(forward, backward, iterations=15),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_inputs_are_not_modified() -> None:
    forward, backward = _pair((4, 3, 5))
    before = forward.clone(), backward.clone()
    make_inverse_consistent(forward, backward)
    assert torch.equal(forward, before[0])
    assert torch.equal(backward, before[1])


def test_smooth_fields_become_inverse_to_each_other() -> None:
    # two smooth fields of half a control point that are not inverse to each other
    ticks = oracles.indices((9, 8, 7))
    waves = [np.sin(0.5 * ticks[(a + 1) % 3] + a + phase) for phase in (0.0, 1.0) for a in range(3)]
    fields = torch.from_numpy(0.5 * np.stack(waves)).split(3)

    def mismatch(u: torch.Tensor, v: torch.Tensor) -> float:
        inner = (slice(None), *[slice(1, -1)] * 3)  # samples beyond the border repeat edge values
        return float(np.abs(u.numpy() + oracles.compose(v.numpy(), u.numpy()))[inner].max())

    found = make_inverse_consistent(fields[0], fields[1])
    # an iteration halves the mismatch, up to the error of the interpolation: well below a tenth
    assert mismatch(*found) < 0.1 * mismatch(fields[0], fields[1])
    assert found[0].abs().max() > 0.1  # they do not just vanish


def test_non_contiguous_fields() -> None:
    forward, backward = oracles.noise(4, 3, 5, 3).movedim(-1, 0), oracles.noise(3, 5, 3, 4).permute(0, 3, 2, 1)
    found = make_inverse_consistent(forward, backward, iterations=3)
    expected = oracles.inverse_consistency(forward.numpy(), backward.numpy(), 3)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, torch.from_numpy(b), rtol=0, atol=1e-11)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    first=st.tuples(*[st.floats(-3, 3)] * 3), second=st.tuples(*[st.floats(-3, 3)] * 3), iterations=st.integers(1, 9)
)
def test_two_shifts_become_half_of_their_difference(
    first: tuple[float, float, float], second: tuple[float, float, float], iterations: int
) -> None:
    forward, backward = (
        torch.tensor(t, dtype=torch.float64).reshape(3, 1, 1, 1).expand(3, 4, 3, 2) for t in (first, second)
    )
    u, v = make_inverse_consistent(forward, backward, iterations=iterations)
    torch.testing.assert_close(u, (forward - backward) / 2, rtol=0, atol=1e-11)
    torch.testing.assert_close(v, -u, rtol=0, atol=1e-11)


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_an_estimated_inverse_equals_naive_loops(iterations: int) -> None:
    field = oracles.noise(3, 5, 4, 6)
    before, expected = field.clone(), -field.numpy()
    for _ in range(iterations):
        expected = -oracles.compose(field.numpy(), expected)
    np.testing.assert_allclose(estimate_inverse(field, iterations=iterations).numpy(), expected, rtol=0, atol=1e-11)
    assert torch.equal(field, before)


def test_the_estimated_inverse_of_a_smooth_field() -> None:
    ticks = oracles.indices((9, 8, 7))
    field = 0.8 * np.stack([np.sin(0.5 * ticks[(a + 1) % 3] + a) for a in range(3)])
    inverse = estimate_inverse(torch.from_numpy(field)).numpy()
    # slopes are at most 0.4 along one axis of each component: the error is at most 0.4^15, up to the border
    np.testing.assert_allclose(inverse + oracles.compose(field, inverse), 0, atol=2 * 0.4**15)
    assert np.abs(inverse + field).max() > 0.1  # it is not the field with opposite sign


def test_the_estimated_inverse_of_a_shift_is_exact() -> None:
    field = torch.tensor([7.0, -2.5, 0.25]).reshape(3, 1, 1, 1).expand(3, 4, 3, 2)
    assert torch.equal(estimate_inverse(field), -field)
