"""Separable smoothing and its adjoint against naive loops."""

from __future__ import annotations

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.kernels.smooth import along_axes, smoothing_matrix

SHAPES = [(1, 1, 1), (2, 1, 3), (5, 7, 6), (11, 13, 7)]
TAPS = [(1.0,), (1.0, 1.0, 1.0), (0.1, 0.2, 0.4, 0.2, 0.1), (1.0, 3.0, 6.0, 7.0, 6.0, 3.0, 1.0)]

Matrices = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _matrices(taps: tuple[float, ...], like: torch.Tensor) -> Matrices:
    i, j, k = (smoothing_matrix(taps, n, like=like) for n in like.shape[1:])
    return i, j, k


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("taps", TAPS)
def test_equals_naive_loops(shape: tuple[int, int, int], taps: tuple[float, ...]) -> None:
    volume = oracles.noise(2, *shape)
    expected = torch.from_numpy(oracles.smooth(volume.numpy(), taps))
    torch.testing.assert_close(along_axes(volume, _matrices(taps, volume)), expected, rtol=0, atol=1e-12)


def test_float32_errs_no_more_than_rounding_explains() -> None:
    volume, taps = oracles.noise(2, 11, 13, 7).float(), TAPS[-1]
    expected = torch.from_numpy(oracles.smooth(volume.double().numpy(), taps))
    found = along_axes(volume, _matrices(taps, volume))
    assert found.dtype == torch.float32
    # Three sums with weights of sum 1 over 7 taps, whose weights are rounded once.
    allowed = 3 * (7 + 1) * torch.finfo(torch.float32).eps * volume.abs().max()
    assert (found.double() - expected).abs().max() <= allowed


@pytest.mark.parametrize("size", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("taps", TAPS)
def test_constants_are_kept_up_to_the_border(size: int, taps: tuple[float, ...]) -> None:
    matrix = smoothing_matrix(taps, size, like=torch.zeros(1, dtype=torch.float64))
    assert matrix.shape == (size, size)
    torch.testing.assert_close(matrix.sum(1), torch.ones(size, dtype=torch.float64), rtol=0, atol=1e-15)


def test_the_matrix_follows_its_like() -> None:
    assert smoothing_matrix(TAPS[1], 4, like=torch.zeros(1, dtype=torch.float16)).dtype == torch.float16


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("taps", TAPS)
def test_transposed_matrices_are_the_adjoint(shape: tuple[int, int, int], taps: tuple[float, ...]) -> None:
    x, y = oracles.noise(3, *shape), oracles.noise(3, *shape, seed=1)
    b = _matrices(taps, x)
    left = (along_axes(x, b) * y).sum()
    right = (x * along_axes(y, (b[0].T, b[1].T, b[2].T))).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    old=st.tuples(*[st.integers(1, 6)] * 3),
    new=st.tuples(*[st.integers(1, 6)] * 3),
    channels=st.integers(1, 3),
    seed=st.integers(0, 999),
)
def test_any_matrices_along_each_axis(
    old: tuple[int, int, int], new: tuple[int, int, int], channels: int, seed: int
) -> None:
    volume = oracles.noise(channels, *old, seed=seed)
    a, b, d = (oracles.noise(m, n, seed=seed + axis) for axis, (m, n) in enumerate(zip(new, old, strict=True)))
    found = along_axes(volume, (a, b, d))
    torch.testing.assert_close(found, torch.einsum("ai,bj,dk,cijk->cabd", a, b, d, volume), rtol=1e-10, atol=1e-10)
    y = oracles.noise(channels, *new, seed=seed + 7)
    other = (volume * along_axes(y, (a.T, b.T, d.T))).sum()
    torch.testing.assert_close((found * y).sum(), other, rtol=1e-10, atol=1e-9)


def test_non_contiguous_volume() -> None:
    volume = oracles.noise(7, 12, 5, 2).permute(3, 2, 0, 1)[..., ::2]
    assert not volume.is_contiguous()
    expected = torch.from_numpy(oracles.smooth(volume.numpy(), TAPS[1]))
    torch.testing.assert_close(along_axes(volume, _matrices(TAPS[1], volume)), expected, rtol=0, atol=1e-12)
