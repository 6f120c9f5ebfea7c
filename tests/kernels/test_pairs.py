"""Points on nodes: how they read and spread over a field, and what remains of them after a start."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracles
import pytest
import torch

from convexadam.kernels.pairs import Pairs
from convexadam.kernels.warp import add_step

SHAPE = (9, 13, 11)


def pairs_at(points: torch.Tensor, sigma: tuple[float, float, float], **options: object) -> Pairs:
    fields = {"displacements": torch.zeros_like(points), "weights": torch.ones(len(points), dtype=torch.float64)}
    return Pairs(points=points, sigma=sigma, **(fields | options))  # type: ignore[arg-type]


def dense(pairs: Pairs, shape: tuple[int, int, int]) -> torch.Tensor:
    """The shares of every node in each point, ``[n, i, j, k]``."""
    nodes, shares = pairs.around(shape)
    rows = [
        torch.zeros(len(at), n, dtype=torch.float64).scatter_add_(1, at, share)
        for n, at, share in zip(shape, nodes, shares, strict=True)
    ]
    return torch.einsum("ni,nj,nk->nijk", *rows)


def test_without_a_gaussian_a_point_is_read_linearly() -> None:
    last = torch.tensor(SHAPE) - 1
    points = oracles.uniform(40, 3, seed=1) * (last + 2) - 1  # some up to a node outside
    volume = oracles.noise(1, *SHAPE, seed=2)
    read = (dense(pairs_at(points, (0.0, 0.0, 0.0)), SHAPE) * volume).sum((1, 2, 3))
    expected = oracles.trilinear(volume.numpy(), points.T.numpy().reshape(3, -1, 1, 1))[0, :, 0, 0]
    assert np.allclose(read.numpy(), expected, rtol=0, atol=1e-12)


def test_a_gaussian_reads_linear_fields_exactly_and_has_its_width() -> None:
    points = torch.tensor([[20.3, 21.0, 19.75], [24.9, 18.5, 22.0]], dtype=torch.float64)
    shape, sigma = (44, 41, 43), (2.5, 1.2, 4.0)
    shares = dense(pairs_at(points, sigma), shape)
    where = torch.from_numpy(oracles.indices(shape))
    means = torch.einsum("nijk,aijk->na", shares, where)
    torch.testing.assert_close(shares.sum((1, 2, 3)), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(means, points, rtol=0, atol=1e-9)
    widths = torch.einsum("nijk,aijk->na", shares, where**2) - means**2
    # cut off at two standard deviations or up to a node more, a Gaussian keeps 77 % of its variance or more; linear
    # interpolation adds f (1 - f) <= 1/4
    expected = torch.tensor(sigma, dtype=torch.float64) ** 2
    assert bool((widths > 0.77 * expected).all())
    assert bool((widths < expected + 0.25).all())


def test_the_mass_is_the_integral_of_a_gaussian_of_height_one() -> None:
    wide = pairs_at(torch.zeros(1, 3, dtype=torch.float64), (3.0, 2.0, 4.0))
    ticks = oracles.indices((61, 61, 61)) - 30.0
    along = np.array([3.0, 2.0, 4.0]).reshape(3, 1, 1, 1)
    assert wide.mass == pytest.approx(np.exp(-0.5 * ((ticks / along) ** 2).sum(0)).sum(), rel=1e-6)
    narrow = dataclasses.replace(wide, sigma=(0.0, 0.0, 0.0))
    assert narrow.mass == pytest.approx((2 * np.pi) ** 1.5)


def test_what_remains_after_a_start_brings_points_to_the_same_ends() -> None:
    ticks = torch.from_numpy(oracles.indices(SHAPE))
    start = torch.stack([torch.sin(ticks[a] / 3 + ticks[(a + 1) % 3] / 4) for a in range(3)]) * 1.2
    points = torch.tensor([[4.0, 6.0, 5.0], [3.0, 7.0, 6.0]], dtype=torch.float64)
    wanted = torch.tensor([[0.7, -1.4, 1.1], [-0.5, 0.8, 0.2]], dtype=torch.float64)
    left = pairs_at(points, (0.0, 0.0, 0.0), displacements=wanted).after(start).displacements
    step = left.T[:, :, None, None].expand(3, 2, *SHAPE[1:])  # a shift by what remains, then the start
    for number in range(2):
        shift = step[:, number, :1, :1].unsqueeze(3).expand(3, *SHAPE).contiguous()
        whole = add_step(start, shift)
        at = tuple(int(v) for v in points[number])
        # slopes of up to 1.2 (1/3 + 1/4) = 0.7: twenty rounds bring 2 nodes down to 2 * 0.7^20
        torch.testing.assert_close(whole[(slice(None), *at)], wanted[number], rtol=0, atol=2 * 0.7**20)
