"""MIND-SSC as a component."""

from __future__ import annotations

from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.errors import ConfigError
from convexadam.features import MindSSC
from convexadam.geometry import Grid, Image
from convexadam.kernels.mind_ssc import mind_ssc

SHAPE = (7, 9, 6)
GRID = Grid(SHAPE)


def _image(seed: int = 0, channels: int = 1, dtype: torch.dtype = torch.float32) -> Image:
    return Image(oracles.noise(channels, *SHAPE, seed=seed, dtype=dtype), GRID)


def _allowed(volume: torch.Tensor, rounding: float, radius: int = 1, dilation: int = 2) -> float:
    """How far descriptions may differ if values of ``volume`` do by ``rounding``, and all is computed in float32.

    A mean squared difference D of values that are off by r is off by 4 r sqrt(D) (Cauchy-Schwarz), S by twice that, and
    v, a mean of S, as well; exp(-S / v) then by dS / v + exp(-s) s dv / v, where exp(-s) s <= 0.37. The computation
    itself adds to D, its minimum and v a difference, a square and 3 (2 r + 1) additions, each with an eps.
    """
    distances = oracles.mind_distances(volume.double().numpy(), radius, dilation)
    largest, variance = np.stack(list(distances.values())).max(0), oracles.mind_variance(distances)
    steps = 3 * (3 * (2 * radius + 1) + 4) * 2.0**-23
    return float((8 * 1.37 * rounding * np.sqrt(largest) / variance + steps * largest / variance).max())


def test_equals_the_kernel_on_a_rescaled_image() -> None:
    image, weight = _image(dtype=torch.float64), oracles.uniform(*SHAPE, seed=1).float()
    sizes: list[dict[str, int]] = [
        {"radius": 1, "dilation": 2},
        {"radius": 0, "dilation": 1},
        {"radius": 2, "dilation": 3},
    ]
    for options in sizes:
        found = MindSSC(**options)(image, weight=weight)
        assert found.shape == (12, *SHAPE)
        assert found.dtype == torch.float32
        low, high = image.data.min(), image.data.max()
        rescaled = (2 * (image.data[0] - low) / (high - low) - 1).float()
        # Two ways of rescaling to [-1, 1] may differ in the last digit of float32.
        allowed = _allowed(rescaled, 2.0**-23, **options)
        assert allowed < 0.05
        torch.testing.assert_close(found, mind_ssc(rescaled, **options, weight=weight), rtol=0, atol=allowed)
    assert torch.equal(MindSSC()(image), MindSSC(radius=1, dilation=2)(image))
    assert (MindSSC()(image) - MindSSC(radius=2)(image)).abs().max() > 0.1


@settings(deadline=None, max_examples=15, derandomize=True)
@given(power=st.integers(-120, 100), sign=st.sampled_from([-1, 1]), seed=st.integers(0, 99))
def test_a_scale_that_is_a_power_of_two_changes_nothing_at_all(power: int, sign: int, seed: int) -> None:
    # Up to 2^100 = 1.3e30, whose square no float32 holds, and down to 2^-120, whose square is 0.
    image = _image(seed)
    scaled = Image(image.data * (sign * 2.0**power), GRID)
    assert bool(scaled.data.isfinite().all())
    assert torch.equal(MindSSC()(scaled), MindSSC()(image))


@pytest.mark.parametrize(("scale", "offset"), [(1e30, 0.0), (1e30, 5e30), (3e37, -1e38), (1e-30, 0.0), (7.0, -1e3)])
def test_any_scale_and_offset(scale: float, offset: float) -> None:
    image = _image(dtype=torch.float64)
    changed = Image((scale * image.data + offset).float(), GRID)
    assert bool(changed.data.isfinite().all())
    # Float32 rounds the changed image by half an eps of its largest value, which in units of the noise is at most
    # 4 + |offset / scale|; rescaling rounds again, to half an eps of half the range.
    rounding = (4 + abs(offset / scale)) * 2.0**-24 + 4 * 2.0**-24
    allowed = _allowed(image.data[0], rounding)
    assert allowed < 0.05
    torch.testing.assert_close(MindSSC()(changed), MindSSC()(image), rtol=0, atol=allowed)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.bool])
def test_other_types_are_described_as_their_values(dtype: torch.dtype) -> None:
    data = (oracles.uniform(1, *SHAPE, seed=2) * 200 - (0 if dtype in (torch.uint8, torch.bool) else 100)).to(dtype)
    if dtype == torch.bool:
        data[:, ::2] = False
    found = MindSSC()(Image(data, GRID))
    assert found.dtype == torch.float32
    assert torch.equal(found, MindSSC()(Image(data.double(), GRID)))
    assert float(found.min()) < 0.5


def test_large_whole_numbers_keep_their_differences() -> None:
    # Differences of 1 in 2^40: no float32 tells such values apart.
    data = (oracles.uniform(1, *SHAPE, seed=3) * 100).long()
    assert torch.equal(MindSSC()(Image(data + 2**40, GRID)), MindSSC()(Image(data, GRID)))


def test_half_precision_noise_of_large_values() -> None:
    image = Image((1000 * oracles.noise(1, *SHAPE, seed=4)).half(), GRID)
    found = MindSSC()(image)
    assert bool(found.isfinite().all())
    assert torch.equal(found, MindSSC()(Image(image.data.float(), GRID)))


def test_channels_are_described_one_by_one() -> None:
    image = _image(seed=5, channels=2)
    image = Image(torch.cat([image.data[:1], 1e6 * image.data[1:]]), GRID)
    weight = oracles.uniform(*SHAPE, seed=6).float()
    found = MindSSC()(image, weight=weight)
    assert found.shape == (24, *SHAPE)
    for n in range(2):
        alone = MindSSC()(Image(image.data[n : n + 1], GRID), weight=weight)
        assert torch.equal(found[12 * n : 12 * n + 12], alone)


@pytest.mark.parametrize("value", [0.0, -1000.0, 1e30, 3e38, 1e-42])
@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1)])
def test_a_constant_image_gives_ones(value: float, shape: tuple[int, int, int]) -> None:
    image = Image(torch.full((2, *shape), value), Grid(shape))
    for weight in (None, torch.zeros(shape), torch.ones(shape)):
        assert torch.equal(MindSSC()(image, weight=weight), torch.ones(24, *shape))


def test_weight_enters_the_average_contrast() -> None:
    # Between -1 and 1 already, so that rescaling changes nothing; a part of little contrast, whose v is clamped.
    data = oracles.uniform(1, *SHAPE, seed=8, low=-0.9, high=0.9).float()
    data[:, :, :5] *= 0.02
    data[0, 0, 8, 0], data[0, 6, 8, 5] = -1, 1
    weight = torch.ones(SHAPE)
    weight[:, 4:] = 0
    image = Image(data, GRID)
    assert torch.equal(MindSSC()(image, weight=weight), mind_ssc(data[0], weight=weight))
    assert (MindSSC()(image, weight=weight) - MindSSC()(image)).abs().max() > 0.05


def test_a_weight_of_nothing_is_as_none() -> None:
    assert torch.equal(MindSSC()(_image(), weight=torch.zeros(SHAPE)), MindSSC()(_image()))


def test_the_image_is_left_alone() -> None:
    image, weight = _image(), oracles.uniform(*SHAPE).float()
    before = image.data.clone(), weight.clone()
    MindSSC()(image, weight=weight)
    assert torch.equal(image.data, before[0])
    assert torch.equal(weight, before[1])


@pytest.mark.parametrize(("radius", "dilation"), [(1, 2), (0, 1), (2, 1), (1, 3)])
def test_reach_is_how_far_edge_values_enter(radius: int, dilation: int) -> None:
    features, shape = MindSSC(radius=radius, dilation=dilation), (18, 17, 16)
    assert features.receptive_radius == radius + dilation
    data = oracles.noise(1, *shape, seed=7).float()
    data[0, 8, 8, 8], data[0, 8, 8, 9] = 5, -5  # the extremes stay in both, so that both are rescaled alike
    cut = 3  # an edge where there was none
    whole = features(Image(data, Grid(shape)))[:, cut:]
    part = features(Image(data[:, cut:], Grid((18 - cut, 17, 16))))
    apart = (whole - part).abs().amax((0, 2, 3))
    # From there on both see the same values; the clamp of v, which is all that the rest of the volume enters, does not
    # touch noise. What is left is the order of rounding.
    allowed = _allowed(data[0] / 5, 0.0, radius, dilation)
    assert apart[features.receptive_radius :].max() <= allowed < 0.01
    assert apart[features.receptive_radius - 1] > 0.01


@pytest.mark.parametrize("setting", [{"radius": -1}, {"radius": 1.5}, {"dilation": 0}, {"dilation": True}])
def test_unusable_settings(setting: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=f"{next(iter(setting))} must be a whole number"):
        MindSSC(**setting)
