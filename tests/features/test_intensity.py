"""Intensities as features."""

from __future__ import annotations

import sys
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.errors import ConfigError
from convexadam.features import Intensity
from convexadam.geometry import Grid, Image

SHAPE = (7, 9, 6)
GRID = Grid(SHAPE)
EPS = 2.0**-23


def _expected(
    channel: np.ndarray, low: float, high: float, scale: float, weight: np.ndarray | None = None
) -> np.ndarray:
    """``scale clip((I - q_low) / (q_high - q_low), 0, 1)``."""
    values = channel.ravel() if weight is None else channel[weight > 0]
    bottom, top = np.quantile(values, [low, high])
    return scale * np.clip((channel - bottom) / (top - bottom), 0, 1)


def _allowed(channel: np.ndarray, low: float, high: float, scale: float, weight: np.ndarray | None = None) -> float:
    """Error of float32: values in units of half the range, of a few roundings, over the distance of the quantiles."""
    values = channel.ravel() if weight is None else channel[weight > 0]
    bottom, top = np.quantile(values, [low, high])
    half = (channel.max() - channel.min()) / 2
    return scale * 8 * EPS / min(1, (top - bottom) / half)


@pytest.mark.parametrize(("low", "high"), [(0.005, 0.995), (0.0, 1.0), (0.25, 0.5), (0.1, 1.0)])
@pytest.mark.parametrize("scale", [1.0, 12.5])
@pytest.mark.parametrize("weighted", [False, True])
def test_quantiles_become_0_and_scale(low: float, high: float, scale: float, weighted: bool) -> None:
    data = 300 * oracles.noise(1, *SHAPE) - 1000
    weight = (oracles.uniform(*SHAPE, seed=1) - 0.7).clamp_min(0) if weighted else None
    if weight is not None:
        data[0][weight == 0] += 500  # what has no evidence is not asked
    found = Intensity(quantiles=(low, high), scale=scale)(
        Image(data, GRID), weight=None if weight is None else weight.float()
    )
    assert found.dtype == torch.float32
    assert found.shape == (1, *SHAPE)
    arrays = data[0].numpy(), low, high, scale, None if weight is None else weight.numpy()
    np.testing.assert_allclose(found[0].numpy(), _expected(*arrays), rtol=0, atol=_allowed(*arrays))
    assert found.min() == 0
    assert found.max() == pytest.approx(scale)


def test_the_defaults() -> None:
    image = Image(oracles.noise(1, *SHAPE), GRID)
    assert torch.equal(Intensity()(image), Intensity(quantiles=(0.005, 0.995), scale=1.0)(image))


def test_what_lies_beyond_the_quantiles_is_clipped() -> None:
    data = torch.arange(101.0).reshape(1, 101, 1, 1)
    found = Intensity(quantiles=(0.1, 0.9), scale=2.0)(Image(data, Grid((101, 1, 1)))).ravel()
    assert not found[:11].any()
    assert torch.equal(found[90:], torch.full((11,), 2.0))
    # in between, 80 equal steps; values in [-1, 1] over 0.8 of their range
    torch.testing.assert_close(found[10:91], torch.arange(81) / 40, rtol=0, atol=2 * 8 * EPS)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(power=st.integers(-120, 100), seed=st.integers(0, 99))
def test_a_scale_that_is_a_power_of_two_changes_nothing_at_all(power: int, seed: int) -> None:
    data = oracles.noise(1, *SHAPE, seed=seed).float()
    found = Intensity()(Image(data * 2.0**power, GRID))
    assert torch.equal(found, Intensity()(Image(data, GRID)))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float16, torch.bfloat16, torch.float64])
def test_other_types_are_taken_at_their_values(dtype: torch.dtype) -> None:
    data = (oracles.uniform(1, *SHAPE, seed=2) * 200).to(dtype)
    assert torch.equal(Intensity()(Image(data, GRID)), Intensity()(Image(data.double(), GRID)))
    if not dtype.is_floating_point and dtype.itemsize == 8:
        assert torch.equal(Intensity()(Image(data + 2**40, GRID)), Intensity()(Image(data, GRID)))


def test_channels_are_mapped_one_by_one() -> None:
    data = oracles.noise(3, *SHAPE, seed=3) * torch.tensor([1e-6, 1.0, 1e6]).reshape(3, 1, 1, 1)
    found = Intensity()(Image(data, GRID))
    for n in range(3):
        assert torch.equal(found[n : n + 1], Intensity()(Image(data[n : n + 1], GRID)))


@pytest.mark.parametrize("value", [0.0, -1000.0, 3e38])
def test_a_constant_image_gives_zeros(value: float) -> None:
    for shape in (SHAPE, (1, 1, 1)):
        image = Image(torch.full((2, *shape), value), Grid(shape))
        assert not Intensity()(image).any()
        assert not Intensity()(image, weight=torch.zeros(shape)).any()


def test_quantiles_that_agree_give_zeros_whatever_else_there_is() -> None:
    data = torch.zeros(1, 10, 10, 10)
    data[0, 0, 0, :3] = torch.tensor([5.0, -5.0, 9.0])  # three in a thousand, fewer than the quantiles leave out
    assert not Intensity()(Image(data, Grid((10, 10, 10)))).any()


def _with_lowest(share: float, value: float) -> torch.Tensor:
    """Noise in [0, 1], of which a share holds a smallest value instead."""
    data = oracles.uniform(1, 10, 10, 10)
    data.flatten()[: round(share * 1000)] = value
    return data


@pytest.mark.parametrize("share", [0.003, 0.006, 0.2])
def test_padding_changes_nothing_for_the_rest(share: float) -> None:
    # Where the lower quantile falls would else depend on how much padding there is.
    data = _with_lowest(share, -1.0)
    count = round(share * 1000)
    rest = data.flatten()[count:].numpy()
    bottom, top = np.quantile(rest, [0.005, 0.995])
    found = Intensity()(Image(data, Grid((10, 10, 10)))).flatten().numpy()
    assert not found[:count].any()
    np.testing.assert_allclose(found[count:], np.clip((rest - bottom) / (top - bottom), 0, 1), rtol=0, atol=32 * EPS)


@pytest.mark.parametrize(("share", "value"), [(0.3, -1.0), (0.2, -0.4)])
def test_a_background_of_many_or_not_far_below_is_no_padding(share: float, value: float) -> None:
    data = _with_lowest(share, value)
    bottom, top = np.quantile(data.numpy(), [0.005, 0.995])
    expected = np.clip((data.numpy() - bottom) / (top - bottom), 0, 1)
    np.testing.assert_allclose(Intensity()(Image(data, Grid((10, 10, 10)))).numpy(), expected, rtol=0, atol=32 * EPS)


def test_a_weight_of_nothing_is_as_none() -> None:
    image = Image(oracles.noise(1, *SHAPE), GRID)
    assert torch.equal(Intensity()(image, weight=torch.zeros(SHAPE)), Intensity()(image))


def test_of_many_voxels_evenly_spaced_ones_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["convexadam.features.intensity"], "_SAMPLES", 100)
    data = oracles.noise(1, *SHAPE, seed=4)  # 378 voxels: every fourth
    bottom, top = np.quantile(data.numpy().ravel()[::4], [0.1, 0.9])
    expected = np.clip((data[0].numpy() - bottom) / (top - bottom), 0, 1)
    found = Intensity(quantiles=(0.1, 0.9))(Image(data, GRID))[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=_allowed(data[0].numpy(), 0.1, 0.9, 1.0))


def test_the_image_is_left_alone() -> None:
    image, weight = Image(oracles.noise(1, *SHAPE).float(), GRID), oracles.uniform(*SHAPE).float()
    before = image.data.clone(), weight.clone()
    Intensity()(image, weight=weight)
    assert torch.equal(image.data, before[0])
    assert torch.equal(weight, before[1])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"quantiles": (-0.1, 0.9)}, "each of quantiles"),
        ({"quantiles": (0.0, 1.1)}, "quantiles"),
        ({"quantiles": (0.5, 0.5)}, "quantiles"),
        ({"quantiles": (0.9, 0.1)}, "quantiles"),
        ({"quantiles": (float("nan"), 0.9)}, "each of quantiles"),
        ({"quantiles": (0.1, float("nan"))}, "each of quantiles"),
        ({"scale": 0.0}, "scale"),
        ({"scale": -1.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": float("inf")}, "scale"),
    ],
)
def test_unusable_settings(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        Intensity(**setting)
