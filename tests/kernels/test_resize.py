"""Pooling and resampling between voxels and nodes against naive loops."""

from __future__ import annotations

import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.kernels.interpolate.reference import interpolation_matrix
from convexadam.kernels.resize import control_points_to_voxels, pool, voxels_to_control_points

CASES = [
    ((1, 1, 1), (1, 1, 1)),
    ((5, 7, 6), (1, 1, 1)),
    ((11, 13, 7), (2, 3, 2)),  # no multiples
    ((6, 8, 4), (3, 4, 2)),
    ((7, 5, 4), (7, 2, 3)),  # a single node along two axes
]


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_pool_equals_naive_loops(shape: tuple[int, int, int], spacing: tuple[int, int, int]) -> None:
    volume = oracles.noise(3, *shape)
    expected = torch.from_numpy(oracles.pool(volume.numpy(), spacing))
    torch.testing.assert_close(pool(volume, spacing), expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_weighted_pool_equals_naive_loops(shape: tuple[int, int, int], spacing: tuple[int, int, int]) -> None:
    volume, weight = oracles.noise(3, *shape), oracles.uniform(*shape, seed=1)
    weight[: shape[0] // 2] = 0
    expected = torch.from_numpy(oracles.pool(volume.numpy(), spacing, weight.numpy()))
    torch.testing.assert_close(pool(volume, spacing, weight=weight), expected, rtol=1e-12, atol=1e-13)


def test_float32_errs_no_more_than_rounding_explains() -> None:
    volume, weight = oracles.noise(2, 11, 13, 7).float(), oracles.uniform(11, 13, 7, seed=1).float()
    expected = oracles.pool(volume.double().numpy(), (2, 3, 2), weight.double().numpy())
    found = pool(volume, (2, 3, 2), weight=weight)
    # A weighted mean of 12 numbers: 12 roundings above, 12 below, of at most the largest number.
    allowed = 24 * torch.finfo(torch.float32).eps * volume.abs().max()
    assert (found.double() - torch.from_numpy(expected)).abs().max() <= allowed


def test_blocks_without_weight_become_zero() -> None:
    weight = torch.zeros(4, 4, 4)
    weight[2:, 2:, 2:] = 1e-30  # however small, it counts
    found = pool(torch.full((1, 4, 4, 4), 3.0), (2, 2, 2), weight=weight)
    assert found[0, 1, 1, 1] == 3
    assert int(found.count_nonzero()) == 1


def test_a_constant_weight_changes_nothing() -> None:
    volume = oracles.noise(2, 5, 7, 6)
    torch.testing.assert_close(pool(volume, (2, 2, 3), weight=torch.full_like(volume[0], 0.3)), pool(volume, (2, 2, 3)))


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_nodes_to_voxels_equals_naive_loops(shape: tuple[int, int, int], spacing: tuple[int, int, int]) -> None:
    nodes = oracles.noise(3, *(n // s for n, s in zip(shape, spacing, strict=True)))
    expected = torch.from_numpy(oracles.control_points_to_voxels(nodes.numpy(), spacing, shape))
    torch.testing.assert_close(control_points_to_voxels(nodes, spacing, shape), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_voxels_to_nodes_equals_naive_loops(shape: tuple[int, int, int], spacing: tuple[int, int, int]) -> None:
    field = oracles.noise(3, *shape)
    expected = torch.from_numpy(oracles.voxels_to_control_points(field.numpy(), spacing))
    torch.testing.assert_close(voxels_to_control_points(field, spacing), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_nodes_lie_in_the_middle_of_their_blocks(shape: tuple[int, int, int], spacing: tuple[int, int, int]) -> None:
    # A pooled or interpolate ramp holds the nodes' own positions, also where the size is no multiple of the spacing.
    ramp = torch.from_numpy(oracles.indices(shape))
    where = torch.from_numpy(oracles.control_point_positions(shape, spacing))
    torch.testing.assert_close(pool(ramp, spacing), where, rtol=0, atol=1e-12)
    torch.testing.assert_close(voxels_to_control_points(ramp, spacing), where, rtol=0, atol=1e-12)
    back = control_points_to_voxels(where, spacing, shape)
    for axis, (n, s) in enumerate(zip(shape, spacing, strict=True)):
        # Between the outer nodes each voxel gets its own index back; beyond them, that of the outer node.
        last = s * (n // s - 1) + (s - 1) / 2
        expected = ramp[axis].clamp((s - 1) / 2, last)
        torch.testing.assert_close(back[axis], expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    spacing=st.tuples(*[st.integers(1, 4)] * 3),
    rest=st.tuples(*[st.integers(0, 9)] * 3),
    value=st.floats(-100, 100),
)
def test_constants_are_kept(spacing: tuple[int, int, int], rest: tuple[int, int, int], value: float) -> None:
    a, b, c = (s + r for s, r in zip(spacing, rest, strict=True))
    field = torch.full((3, a, b, c), value, dtype=torch.float64)
    nodes = voxels_to_control_points(field, spacing)
    assert tuple(nodes.shape[1:]) == tuple(n // s for n, s in zip((a, b, c), spacing, strict=True))
    torch.testing.assert_close(nodes, torch.full_like(nodes, value), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(control_points_to_voxels(nodes, spacing, (a, b, c)), field, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(pool(field, spacing), nodes, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("size", [1, 2, 5])
def test_interpolation_matrix_is_clamped_linear_interpolation(size: int) -> None:
    like = torch.zeros(1, dtype=torch.float64)
    positions = oracles.uniform(17, low=-2, high=size + 1)
    positions[:2] = torch.tensor([0.0, size - 1.0])
    matrix = interpolation_matrix(positions, size, like=like)
    assert matrix.shape == (17, size)
    assert bool((matrix >= 0).all())
    torch.testing.assert_close(matrix.sum(1), torch.ones(17, dtype=torch.float64))
    ticks = torch.arange(size, dtype=torch.float64)
    torch.testing.assert_close(matrix @ ticks, positions.clamp(0, size - 1), rtol=0, atol=1e-14)
    assert int(matrix.count_nonzero(1).max()) <= 2


def test_non_contiguous_inputs() -> None:
    volume = oracles.noise(7, 12, 5, 3).permute(3, 2, 0, 1)[..., ::2]  # [3, 5, 7, 6]
    weight = oracles.uniform(6, 7, 5).permute(2, 1, 0)
    spacing = (2, 3, 2)
    array = volume.numpy()
    expected = [
        oracles.pool(array, spacing, weight.numpy()),
        oracles.voxels_to_control_points(array, spacing),
        oracles.control_points_to_voxels(array, spacing, (11, 22, 12)),
    ]
    found = [
        pool(volume, spacing, weight=weight),
        voxels_to_control_points(volume, spacing),
        control_points_to_voxels(volume, spacing, (11, 22, 12)),
    ]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, torch.from_numpy(b), rtol=0, atol=1e-12)
