"""Smoothing kernels as values."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.continuous import BoxSmoothing, GaussianSmoothing, KovesiSmoothing
from convexadam.errors import ConfigError


def _variance(taps: tuple[float, ...]) -> float:
    ticks = np.arange(len(taps)) - len(taps) // 2
    return float((np.array(taps) * ticks**2).sum())


SMOOTHINGS = [
    BoxSmoothing(),
    BoxSmoothing(width=5, passes=2),
    BoxSmoothing(passes=0),
    BoxSmoothing(width=1, passes=4),
    GaussianSmoothing(),
    GaussianSmoothing(sigma=0.1),
    GaussianSmoothing(sigma=3.3),
    KovesiSmoothing(),
    KovesiSmoothing(sigma=4.0, passes=3),
]


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_taps_are_odd_symmetric_and_sum_to_one(smoothing: Any) -> None:
    taps = smoothing.taps()
    assert len(taps) % 2 == 1
    assert taps == pytest.approx(taps[::-1], rel=1e-12)
    assert math.fsum(taps) == pytest.approx(1, rel=1e-14)
    assert min(taps) >= 0


def test_three_means_of_three() -> None:
    assert BoxSmoothing().taps() == pytest.approx([n / 27 for n in (1, 3, 6, 7, 6, 3, 1)])
    assert BoxSmoothing(passes=0).taps() == (1.0,)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(width=st.integers(0, 6).map(lambda n: 2 * n + 1), passes=st.integers(0, 5))
def test_variances_of_boxes_add_up(width: int, passes: int) -> None:
    taps = BoxSmoothing(width=width, passes=passes).taps()
    assert len(taps) == passes * (width - 1) + 1
    assert _variance(taps) == pytest.approx(passes * (width**2 - 1) / 12, abs=1e-12)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(sigma=st.floats(0.8, 12))
def test_a_gaussian_has_its_variance(sigma: float) -> None:
    # Cutting off at 4 sigma costs 2 * 4 * phi(4) = 1.1e-3 of the variance; sampling at whole nodes changes it by
    # about 4 pi^2 sigma^2 exp(-2 pi^2 sigma^2) of it, less than 1e-4 from 0.8 nodes on.
    assert _variance(GaussianSmoothing(sigma=sigma).taps()) == pytest.approx(sigma**2, rel=1.3e-3)


def test_a_gaussian_is_a_gaussian() -> None:
    taps = np.array(GaussianSmoothing(sigma=1.5).taps())
    assert len(taps) == 2 * 6 + 1
    assert taps[6:] / taps[6] == pytest.approx(np.exp(-0.5 * (np.arange(7) / 1.5) ** 2))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(sigma=st.floats(0.3, 8), passes=st.integers(1, 6))
def test_kovesi_comes_as_close_as_whole_widths_allow(sigma: float, passes: int) -> None:
    found = _variance(KovesiSmoothing(sigma=sigma, passes=passes).taps())
    attainable = [
        ((passes - wide) * (low**2 - 1) + wide * ((low + 2) ** 2 - 1)) / 12
        for low, wide in itertools.product(range(1, 65, 2), range(passes + 1))
    ]
    closest = min(abs(v - sigma**2) for v in attainable)
    assert abs(found - sigma**2) <= closest + 1e-9


def test_kovesi_of_a_known_case() -> None:
    # sigma 1.6, 4 passes: ideal width sqrt(12 * 2.56 / 4 + 1) = 2.95, so widths 1 and 3, all four of them 3.
    assert KovesiSmoothing().taps() == pytest.approx(BoxSmoothing(width=3, passes=4).taps())


@pytest.mark.parametrize("width", [0, 2, 4, -1])
def test_even_widths_are_refused(width: int) -> None:
    # Regression: the published package takes even kernels and returns a volume of another shape.
    with pytest.raises(ConfigError, match="odd"):
        BoxSmoothing(width=width)


@pytest.mark.parametrize(
    ("make", "setting", "message"),
    [
        (BoxSmoothing, {"passes": -1}, "passes"),
        (GaussianSmoothing, {"sigma": 0.0}, "sigma"),
        (GaussianSmoothing, {"sigma": -1.0}, "sigma"),
        (GaussianSmoothing, {"sigma": math.nan}, "sigma"),
        (GaussianSmoothing, {"sigma": math.inf}, "sigma"),
        (KovesiSmoothing, {"sigma": 0.0}, "sigma"),
        (KovesiSmoothing, {"sigma": math.nan}, "sigma"),
        (KovesiSmoothing, {"passes": 0}, "passes"),
    ],
)
def test_unusable_settings(make: Any, setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**setting)
