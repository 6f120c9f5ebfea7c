"""Edge-preserving smoothing against naive loops."""

from __future__ import annotations

from typing import Any

import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam import use_backend
from convexadam.kernels.bilateral import bilateral

Shape = tuple[int, int, int]
SHAPES = [(1, 1, 1), (1, 4, 2), (5, 3, 6)]
RUNS: list[Any] = [("reference", torch.float64), ("reference", torch.float32), ("cpu", torch.float32)]


@pytest.mark.parametrize(
    ("shape", "radius", "sigma_field", "channels"), pairwise(SHAPES, [0, 1, 2], [None, 1.5], [1, 3])
)
def test_equals_naive_loops(shape: Shape, radius: int, sigma_field: float | None, channels: int) -> None:
    field, guide = oracles.noise(3, *shape), oracles.uniform(channels, *shape, seed=1)
    options: Any = {"sigma": 1.2, "sigma_guide": 0.4, "sigma_field": sigma_field, "radius": radius}
    expected = torch.from_numpy(oracles.bilateral(field.numpy(), guide.numpy(), **options))
    torch.testing.assert_close(bilateral(field, guide, **options), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("run", "radius", "sigma_field"), pairwise(RUNS, [1, 2], [None, 0.7]))
def test_constants_are_kept_to_the_last_digit(run: Any, radius: int, sigma_field: float | None) -> None:
    field = torch.tensor([1.7, -20.3, 0.1], dtype=run[1]).reshape(3, 1, 1, 1).expand(3, 5, 7, 19).contiguous()
    guide = oracles.noise(2, 5, 7, 19).to(run[1])
    with use_backend(run[0]):
        found = bilateral(field, guide, radius=radius, sigma=1.0, sigma_guide=0.5, sigma_field=sigma_field)
    assert torch.equal(found, field)


@pytest.mark.parametrize("run", RUNS)
def test_organs_slide_along_each_other(run: Any) -> None:
    # two halves that move against each other, each in ripples: edges of the guide part them, or those of the field
    side = (torch.arange(8) < 4).to(run[1]).reshape(1, 8, 1, 1)
    motion = torch.zeros(3, 8, 6, 7, dtype=run[1])
    motion[1] = (2 * side[0] - 1) * 3
    ripple = 0.01 * oracles.noise(3, 8, 6, 7).to(run[1])
    sigmas: Any = [({"sigma_guide": 0.1}, side), ({"sigma_guide": 1.0, "sigma_field": 0.5}, torch.zeros_like(side))]
    for options, guide in sigmas:
        with use_backend(run[0]):
            found = bilateral(motion + ripple, guide.expand(1, 8, 6, 7), radius=2, sigma=2.0, **options)
        # a neighbour across has a share of exp(-50) at the most
        assert (found - motion).abs().max() < 0.5 * ripple.abs().max()
        assert (found - motion).std() < 0.3 * ripple.std()
    with use_backend(run[0]):
        mixed = bilateral(motion, torch.zeros(1, 8, 6, 7, dtype=run[1]), radius=2, sigma=2.0, sigma_guide=1.0)
    assert mixed[1, 3].max() < 2


@pytest.mark.parametrize("run", RUNS)
def test_nodes_that_have_nothing_in_common_stay_as_they_are(run: Any) -> None:
    field, guide = oracles.noise(3, 4, 5, 6).to(run[1]), 1e6 * oracles.noise(1, 4, 5, 6).to(run[1])
    with use_backend(run[0]):
        found = bilateral(field, guide, sigma=1.0, sigma_guide=1e-3)
    assert torch.equal(found, field)


def test_writes_where_it_is_told_and_leaves_its_inputs_alone() -> None:
    field, guide = oracles.noise(3, 4, 5, 6), oracles.noise(2, 4, 5, 6, seed=1)
    before = field.clone(), guide.clone()
    options: Any = {"sigma": 1.0, "sigma_guide": 0.5}
    expected, out = bilateral(field, guide, **options), torch.empty(6, 5, 4, 3, dtype=torch.float64).permute(3, 2, 1, 0)
    assert bilateral(field, guide, **options, out=out) is out
    assert torch.equal(out, expected)
    assert torch.equal(field, before[0])
    assert torch.equal(guide, before[1])


def test_swapping_axes_swaps_the_field() -> None:
    field, guide = oracles.noise(3, 4, 5, 6), oracles.noise(2, 4, 5, 6, seed=1)
    options: Any = {"sigma": 1.0, "sigma_guide": 0.5, "sigma_field": 2.0, "radius": 2}
    turned = bilateral(field[[2, 0, 1]].permute(0, 3, 1, 2), guide.permute(0, 3, 1, 2), **options)
    expected = bilateral(field, guide, **options)[[2, 0, 1]].permute(0, 3, 1, 2)
    torch.testing.assert_close(turned, expected, rtol=0, atol=1e-12)
