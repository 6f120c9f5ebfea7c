"""Interpolation on the CPU against torch in float64."""

from __future__ import annotations

import oracles
import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.interpolate import interpolate, reference

Positions = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def _positions(shape: Shape, count: Shape = (9, 4, 7)) -> Positions:
    """Anywhere in and around a volume, in any order, and some on its samples."""
    found = []
    for axis, (n, m) in enumerate(zip(shape, count, strict=True)):
        where = oracles.uniform(m, seed=axis, low=-2, high=n + 1)
        where[:3] = torch.tensor([0.0, n - 1, (n - 1) // 2])[: len(where)]
        found.append(where)
    return found[0], found[1], found[2]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "channels"), pairwise([1, 3], SHAPES, [1, 3, 12, 17]), indirect=["threads"]
)
def test_errs_no_more_than_torch(shape: Shape, channels: int) -> None:
    field = noise(channels, *shape)
    assert_within_budget(on_cpu(interpolate), reference.interpolate, field, _positions(shape))


@pytest.mark.parametrize("count", [(1, 1, 1), (1, 30, 2), (20, 1, 33)])
def test_any_number_of_positions(count: Shape) -> None:
    field = noise(3, 5, 7, 6)
    assert_within_budget(on_cpu(interpolate), reference.interpolate, field, _positions((5, 7, 6), count))


@pytest.mark.usefixtures("threads")
def test_of_a_usual_size() -> None:
    i, j, k = (torch.arange(2 * n, dtype=torch.float64) / 2 - 0.25 for n in NODES)
    assert_within_budget(on_cpu(interpolate), reference.interpolate, noise(3, *NODES), (i, j, k))


@pytest.mark.parametrize("shape", SHAPES)
def test_samples_are_read_as_they_are(shape: Shape) -> None:
    field = noise(3, *shape)
    i, j, k = (torch.arange(n, dtype=torch.float64) for n in shape)
    # The last sample of an axis is the one before it and a whole step: a difference and a sum for each axis.
    allowed = 3 * 2 * torch.finfo(torch.float32).eps * field.abs().max().item()
    torch.testing.assert_close(on_cpu(interpolate)(field, (i, j, k)), field, rtol=0, atol=allowed)
    turned = on_cpu(interpolate)(field, (i.flip(0), j.flip(0), k.flip(0)))
    torch.testing.assert_close(turned, field.flip(1, 2, 3), rtol=0, atol=allowed)


@pytest.mark.parametrize("shape", SHAPES)
def test_outside_the_edge_value_is_read(shape: Shape) -> None:
    field, far = noise(2, *shape), torch.tensor([-1e9, -1e-3, 1e9], dtype=torch.float64)
    i, j, k = (far.clamp_max(n + 1e8) for n in shape)
    found = on_cpu(interpolate)(field, (i, j, k))
    ends = [0, 0, -1]
    allowed = 3 * 2 * torch.finfo(torch.float32).eps * field.abs().max().item()  # as above
    torch.testing.assert_close(found, field[:, ends][:, :, ends][..., ends], rtol=0, atol=allowed)


def test_positions_keep_their_digits() -> None:
    # In float32 a position of 5000.3 is wrong by 1e-4 already.
    ramp = torch.zeros(1, 8000, 1, 1)
    ramp[0, :, 0, 0] = torch.arange(8000) % 2
    where = torch.arange(5000, 5100, dtype=torch.float64) + 0.3
    zero = torch.zeros(1, dtype=torch.float64)
    found = on_cpu(interpolate)(ramp, (where, zero, zero))[0, :, 0, 0]
    expected = torch.where(torch.arange(100) % 2 == 0, 0.3, 0.7)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("threads")
def test_non_contiguous_inputs() -> None:
    field = scattered(noise(3, 7, 9, 8))
    i, j, k = (scattered(where) for where in _positions((7, 9, 8)))
    assert not any(t.is_contiguous() for t in (field, i, j, k))
    before = field.clone()
    assert_within_budget(on_cpu(interpolate), reference.interpolate, field, (i, j, k))
    assert torch.equal(field, before)
