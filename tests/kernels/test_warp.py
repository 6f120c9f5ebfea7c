"""Sampling against naive loops."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairwise import pairwise

from convexadam.kernels.warp import identity_positions, inside, sample_linear, sample_nearest
from convexadam.kernels.warp.reference import compose

SHAPES = [(1, 1, 1), (1, 7, 5), (5, 7, 6), (11, 13, 7)]


def _positions(shape: tuple[int, int, int], seed: int = 0, count: tuple[int, int, int] = (3, 5, 4)) -> torch.Tensor:
    """Random positions in and around a volume."""
    reach = torch.tensor(shape, dtype=torch.float64).reshape(3, 1, 1, 1) + 3
    return oracles.uniform(3, *count, seed=seed) * reach - 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 4])
def test_linear_equals_naive_loops(shape: tuple[int, int, int], channels: int) -> None:
    volume, positions = oracles.noise(channels, *shape), _positions(shape)
    expected = torch.from_numpy(oracles.trilinear(volume.numpy(), positions.numpy()))
    torch.testing.assert_close(sample_linear(volume, positions), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_linear_in_float32_errs_no_more_than_rounding_explains(shape: tuple[int, int, int]) -> None:
    volume, positions = oracles.noise(2, *shape).float(), _positions(shape).float()
    expected = torch.from_numpy(oracles.trilinear(volume.double().numpy(), positions.double().numpy()))
    # Positions pass through [-1, 1] and back: four roundings at the size n of the axis (and 3 outside it), times the
    # largest step between neighbours (2 max); then 8 products.
    eps, largest = torch.finfo(torch.float32).eps, volume.abs().max().item()
    allowed = eps * largest * (3 * 2 * 4 * (max(shape) + 3) + 16)
    assert (sample_linear(volume, positions).double() - expected).abs().max() <= allowed


@pytest.mark.parametrize("shape", SHAPES)
def test_nearest_equals_naive_loops(shape: tuple[int, int, int]) -> None:
    volume, positions = oracles.noise(3, *shape), _positions(shape, seed=1)
    expected = torch.from_numpy(oracles.nearest(volume.numpy(), positions.numpy()))
    assert torch.equal(sample_nearest(volume, positions), expected)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int16, torch.int32, torch.float16, torch.float64])
def test_nearest_keeps_the_type(dtype: torch.dtype) -> None:
    volume = (oracles.uniform(1, 5, 7, 6) * 200).to(dtype)
    found = sample_nearest(volume, _positions((5, 7, 6)).float())
    assert found.dtype == dtype
    assert set(found.unique().tolist()) <= set(volume.unique().tolist())


def test_nearest_keeps_large_labels() -> None:
    labels = torch.arange(5 * 7 * 6).reshape(1, 5, 7, 6) + 2**53 + 1  # neither float32 nor float64 holds all of these
    found = sample_nearest(labels, identity_positions((5, 7, 6), like=torch.zeros(1)))
    assert torch.equal(found, labels)
    shifted = sample_nearest(labels, identity_positions((5, 7, 6), like=torch.zeros(1)) + 1.2)
    assert torch.equal(shifted[:, :-1, :-1, :-1], labels[:, 1:, 1:, 1:])


@pytest.mark.parametrize(
    ("dtype", "axis", "half"), pairwise([torch.float32, torch.float64], [0, 1, 2], [-1.5, -0.5, 0.5, 1.5])
)
def test_half_a_voxel_moves_labels_without_losing_planes(half: float, axis: int, dtype: torch.dtype) -> None:
    # Regression: rounding to even numbers reads every other plane twice, and the others never.
    shape = (7, 9, 8)
    n = shape[axis]
    planes = torch.arange(n, dtype=torch.int32).reshape([1, *(n if a == axis else 1 for a in range(3))])
    labels = planes.expand(1, *shape)
    positions = identity_positions(shape, like=torch.zeros(1, dtype=dtype))
    positions[axis] += half
    found = sample_nearest(labels, positions)
    assert torch.equal(found, (planes + round(half + 0.5)).clamp(0, n - 1).expand(1, *shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    volume = oracles.noise(2, *shape, dtype=dtype)
    positions = identity_positions(shape, like=volume)
    assert positions.dtype == dtype
    assert torch.equal(positions.double(), torch.from_numpy(oracles.indices(shape)))
    assert torch.equal(sample_nearest(volume, positions), volume)
    # As above: four roundings at the size of each axis.
    allowed = torch.finfo(dtype).eps * volume.abs().max().item() * (3 * 2 * 4 * max(shape) + 16)
    assert (sample_linear(volume, positions) - volume).abs().max() <= allowed


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_translation_comes_back_as_that_translation(axis: int) -> None:
    # Regression: coordinates scaled by (n - 1) / 2 without align_corners shrink each motion by (n - 1) / n.
    shape = (5, 7, 6)
    ramp = torch.from_numpy(oracles.indices(shape))
    for shift in (1.0, 2.0, 0.25):
        displacement = torch.zeros(3, *shape, dtype=torch.float64)
        displacement[axis] = shift
        moved = compose(ramp, displacement)
        inner = moved.narrow(axis + 1, 0, shape[axis] - 2)
        start = ramp.narrow(axis + 1, 0, shape[axis] - 2)
        expected = start.clone()
        expected[axis] += shift
        torch.testing.assert_close(inner, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_compose_equals_naive_loops(shape: tuple[int, int, int]) -> None:
    field, displacement = oracles.noise(3, *shape), 2 * oracles.noise(3, *shape, seed=1)
    expected = torch.from_numpy(oracles.compose(field.numpy(), displacement.numpy()))
    torch.testing.assert_close(compose(field, displacement), expected, rtol=0, atol=1e-12)


def test_the_field_of_view_ends_half_a_voxel_beyond_the_centres() -> None:
    shape = (1, 4, 6)
    for axis, n in enumerate(shape):
        at = torch.tensor([-0.501, -0.5, 0.0, n - 1.0, n - 0.5, n - 0.499])
        positions = torch.zeros(3, 6, 1, 1)
        positions[axis, :, 0, 0] = at
        assert inside(positions, shape).ravel().tolist() == [False, True, True, True, True, False]


@pytest.mark.parametrize("shape", SHAPES)
def test_inside_equals_naive_loops(shape: tuple[int, int, int]) -> None:
    positions = _positions(shape, seed=2)
    assert np.array_equal(inside(positions, shape).numpy(), oracles.inside(positions.numpy(), shape))


def test_outside_the_edge_value_is_read() -> None:
    volume = oracles.noise(1, 4, 5, 6)
    far = torch.tensor([-9.0, 2.0, 99.0]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(sample_linear(volume, far.double()).item(), volume[0, 0, 2, 5].item())
    assert sample_nearest(volume, far).item() == volume[0, 0, 2, 5]


def test_non_contiguous_inputs() -> None:
    volume = oracles.noise(7, 6, 10, 2).permute(3, 2, 0, 1)[:, ::2]
    positions = _positions((5, 7, 6)).flip(2).transpose(1, 3)
    assert not volume.is_contiguous()
    assert not positions.is_contiguous()
    expected = oracles.trilinear(volume.numpy(), positions.numpy())
    torch.testing.assert_close(sample_linear(volume, positions), torch.from_numpy(expected), rtol=0, atol=1e-12)
    chosen = oracles.nearest(volume.numpy(), positions.numpy())
    assert torch.equal(sample_nearest(volume, positions), torch.from_numpy(chosen))


def test_linear_is_differentiable_in_both_arguments() -> None:
    volume = oracles.noise(2, 3, 4, 5).requires_grad_()
    # Away from the planes where trilinear interpolation has a kink.
    whole = torch.from_numpy(np.random.default_rng(0).integers(0, (2, 3, 4), (6, 3)).T.copy()).double()
    positions = (whole + oracles.uniform(3, 6, low=0.1, high=0.9))[:, :, None, None].requires_grad_()
    assert torch.autograd.gradcheck(sample_linear, (volume, positions))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), axes=st.permutations(range(3)))
def test_swapping_axes_swaps_positions(seed: int, axes: list[int]) -> None:
    volume, positions = oracles.noise(2, 3, 4, 5, seed=seed), _positions((3, 4, 5), seed=seed)
    turned = volume.permute(0, *(a + 1 for a in axes))
    torch.testing.assert_close(
        sample_linear(turned, positions[axes]), sample_linear(volume, positions), rtol=0, atol=1e-12
    )
