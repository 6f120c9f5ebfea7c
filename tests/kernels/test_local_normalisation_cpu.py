"""The compiled local normalisation beside that in torch."""

from __future__ import annotations

import oracles
import pytest
import torch

from convexadam.kernels import use_backend
from convexadam.kernels.local_normalisation import mean_squared_slopes, normalise_locally, scale_channels
from convexadam.kernels.warp_ssd.feature_rows import LARGEST, FeatureRows

SHAPES = [(7, 9, 8), (5, 40, 6), (1, 9, 8), (9, 1, 8), (9, 8, 1)]  # more rows than a block, and slices


def _weight(shape: tuple[int, int, int], kind: str) -> torch.Tensor | None:
    if kind == "none":
        return None
    weight = oracles.uniform(1, *shape, seed=7, low=0.0, high=1.0)[0].float()
    weight[:, : shape[1] // 3] = 0
    return weight


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["none", "weights"])
@pytest.mark.parametrize("radius", [1, 2])
def test_equals_the_reference(shape: tuple[int, int, int], kind: str, radius: int) -> None:
    features, weight = 5 + 3 * oracles.noise(3, *shape).float(), _weight(shape, kind)
    found = normalise_locally(features, radius=radius, floor=0.1, weight=weight)
    known = None if weight is None else weight.double()
    with use_backend("reference"):
        expected = normalise_locally(features.double(), radius=radius, floor=0.1, weight=known)
        slopes = mean_squared_slopes(expected, known)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mean_squared_slopes(found, weight).double(), slopes, rtol=1e-4, atol=1e-5)


def test_writes_to_channels_last() -> None:
    features = oracles.noise(2, 6, 7, 8).float()
    rows = torch.zeros(6, 7, 8, 3).permute(3, 0, 1, 2)
    returned = normalise_locally(features, radius=1, floor=0.1, out=rows[1:])
    assert returned.data_ptr() == rows[1:].data_ptr()
    torch.testing.assert_close(rows[1:].contiguous(), normalise_locally(features, radius=1, floor=0.1))
    assert not rows[0].any()
    torch.testing.assert_close(mean_squared_slopes(rows), mean_squared_slopes(rows.contiguous()))


@pytest.mark.parametrize("channels_last", [False, True])
def test_scales_in_place(channels_last: bool) -> None:
    features = oracles.noise(2, 3, 4, 5).float()
    scaled = features.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2) if channels_last else features.clone()
    scale_channels(scaled, torch.tensor([2.0, -1.0]))
    torch.testing.assert_close(scaled[0], 2 * features[0])
    torch.testing.assert_close(scaled[1], -features[1])


def test_does_not_depend_on_the_number_of_threads() -> None:
    features, weight, threads = (
        oracles.noise(2, 20, 9, 8).float(),
        _weight((20, 9, 8), "weights"),
        torch.get_num_threads(),
    )
    try:
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            maps = normalise_locally(features, radius=2, floor=0.1, weight=weight)
            results.append((maps, mean_squared_slopes(maps, weight)))
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_constant_channels_become_zero() -> None:
    assert not normalise_locally(torch.full((1, 5, 6, 7), 0.3), radius=1, floor=0.1).any()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_writes_steps_and_measures_their_slopes(backend: str) -> None:
    features, weight, step = 5 + 3 * oracles.noise(3, 8, 7, 9).float(), _weight((8, 7, 9), "weights"), 1e-4
    rows = torch.zeros(8, 7, 9, 4, dtype=torch.int16)
    exact = normalise_locally(features, radius=1, floor=0.1, weight=weight)
    with use_backend(backend):
        normalise_locally(features, radius=1, floor=0.1, weight=weight, out=rows.permute(3, 0, 1, 2)[:3], step=step)
        packed = FeatureRows(rows=rows, scale=torch.full((3,), step), channels=3)
        slopes = mean_squared_slopes(packed, weight)
    assert (packed.unpack() - exact).abs().max() < 0.51 * step
    torch.testing.assert_close(slopes, mean_squared_slopes(exact, weight), rtol=1e-3, atol=0)
    torch.testing.assert_close(packed.select(1, 2), packed.unpack()[1:])
    assert not rows[..., 3].any()


def test_steps_are_clipped() -> None:
    rows = torch.zeros(9, 1, 1, 1, dtype=torch.int16)
    spike = torch.zeros(1, 9, 1, 1)
    spike[0, 4] = 1.0
    normalise_locally(spike, radius=4, floor=1e-3, out=rows.permute(3, 0, 1, 2), step=1e-6)
    assert rows[4] == LARGEST
