"""Inverse consistency against naive loops."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.discrete import make_inverse_consistent, opposite


def _pair(shape: tuple[int, int, int], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return oracles.noise(3, *shape, seed=seed), oracles.noise(3, *shape, seed=seed + 1)


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 3), (5, 7, 6)])
@pytest.mark.parametrize("iterations", [0, 1, 2, 7])
def test_equals_naive_loops(shape: tuple[int, int, int], iterations: int) -> None:
    forward, backward = _pair(shape)
    found = make_inverse_consistent(forward, backward, iterations=iterations)
    expected = oracles.inverse_consistency(forward.numpy(), backward.numpy(), iterations)
    for a, b in zip(found, expected, strict=True):
        # Each pass reads at positions wrong by 1e-15, in fields with steps of a few, and at most doubles errors.
        torch.testing.assert_close(a, torch.from_numpy(b), rtol=0, atol=1e-11)


def test_the_default_is_fifteen_iterations() -> None:
    forward, backward = _pair((4, 3, 5), seed=2)
    for a, b in zip(
        make_inverse_consistent(forward, backward),
        make_inverse_consistent(forward, backward, iterations=15),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_inputs_are_left_alone() -> None:
    forward, backward = _pair((4, 3, 5))
    before = forward.clone(), backward.clone()
    make_inverse_consistent(forward, backward)
    assert torch.equal(forward, before[0])
    assert torch.equal(backward, before[1])


def test_smooth_fields_become_inverse_to_each_other() -> None:
    # Two smooth fields of half a cell that disagree.
    ticks = oracles.indices((9, 8, 7))
    waves = [np.sin(0.5 * ticks[(a + 1) % 3] + a + phase) for phase in (0.0, 1.0) for a in range(3)]
    fields = torch.from_numpy(0.5 * np.stack(waves)).split(3)

    def mismatch(u: torch.Tensor, v: torch.Tensor) -> float:
        inner = (slice(None), *[slice(1, -1)] * 3)  # reading beyond the border repeats edge values
        return float(np.abs(u.numpy() + oracles.compose(v.numpy(), u.numpy()))[inner].max())

    found = make_inverse_consistent(fields[0], fields[1])
    # A pass halves what the two have in common wrong, up to what composing and interpolating adds: well below a tenth.
    assert mismatch(*found) < 0.1 * mismatch(fields[0], fields[1])
    assert found[0].abs().max() > 0.1  # and not by vanishing


def test_non_contiguous_fields() -> None:
    forward, backward = oracles.noise(4, 3, 5, 3).movedim(-1, 0), oracles.noise(3, 5, 3, 4).permute(0, 3, 2, 1)
    found = make_inverse_consistent(forward, backward, iterations=3)
    expected = oracles.inverse_consistency(forward.numpy(), backward.numpy(), 3)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, torch.from_numpy(b), rtol=0, atol=1e-11)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(there=st.tuples(*[st.floats(-3, 3)] * 3), back=st.tuples(*[st.floats(-3, 3)] * 3), iterations=st.integers(1, 9))
def test_two_shifts_meet_half_way(
    there: tuple[float, float, float], back: tuple[float, float, float], iterations: int
) -> None:
    forward, backward = (
        torch.tensor(t, dtype=torch.float64).reshape(3, 1, 1, 1).expand(3, 4, 3, 2) for t in (there, back)
    )
    u, v = make_inverse_consistent(forward, backward, iterations=iterations)
    torch.testing.assert_close(u, (forward - backward) / 2, rtol=0, atol=1e-11)
    torch.testing.assert_close(v, -u, rtol=0, atol=1e-11)


@pytest.mark.parametrize("iterations", [0, 1, 4])
def test_the_opposite_equals_naive_loops(iterations: int) -> None:
    field = oracles.noise(3, 5, 4, 6)
    before, expected = field.clone(), -field.numpy()
    for _ in range(iterations):
        expected = -oracles.compose(field.numpy(), expected)
    np.testing.assert_allclose(opposite(field, iterations=iterations).numpy(), expected, rtol=0, atol=1e-11)
    assert torch.equal(field, before)


def test_the_opposite_of_a_smooth_field_leads_back() -> None:
    ticks = oracles.indices((9, 8, 7))
    field = 0.8 * np.stack([np.sin(0.5 * ticks[(a + 1) % 3] + a) for a in range(3)])
    back = opposite(torch.from_numpy(field)).numpy()
    # slopes are at most 0.4 along one axis of each component: what is left falls to 0.4^15 and below, up to the border
    np.testing.assert_allclose(back + oracles.compose(field, back), 0, atol=2 * 0.4**15)
    assert np.abs(back + field).max() > 0.1  # which is not the field with another sign


def test_the_opposite_of_a_shift_is_exact() -> None:
    field = torch.tensor([7.0, -2.5, 0.25]).reshape(3, 1, 1, 1).expand(3, 4, 3, 2)
    assert torch.equal(opposite(field), -field)
