"""Smoothings: their taps, and their action on fields."""

from __future__ import annotations

import itertools
import math
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairwise import pairwise

from convexadam.continuous import BoxSmoothing, GaussianSmoothing, KovesiSmoothing
from convexadam.continuous.smoothing import Smoother
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
    # truncation at 4 sigma loses 2 * 4 * phi(4) = 1.1e-3 of the variance; sampling at whole control points changes it
    # by about 4 pi^2 sigma^2 exp(-2 pi^2 sigma^2) of it, less than 1e-4 from 0.8 control points on
    assert _variance(GaussianSmoothing(sigma=sigma).taps()) == pytest.approx(sigma**2, rel=1.3e-3)


def test_a_gaussian_is_a_gaussian() -> None:
    taps = np.array(GaussianSmoothing(sigma=1.5).taps())
    assert len(taps) == 2 * 6 + 1
    assert taps[6:] / taps[6] == pytest.approx(np.exp(-0.5 * (np.arange(7) / 1.5) ** 2))


@settings(deadline=None, max_examples=15, derandomize=True)
@given(sigma=st.floats(0.3, 8), passes=st.integers(1, 6))
def test_kovesi_has_the_closest_variance_that_whole_widths_permit(sigma: float, passes: int) -> None:
    found = _variance(KovesiSmoothing(sigma=sigma, passes=passes).taps())
    attainable = [
        ((passes - wide) * (low**2 - 1) + wide * ((low + 2) ** 2 - 1)) / 12
        for low, wide in itertools.product(range(1, 65, 2), range(passes + 1))
    ]
    closest = min(abs(v - sigma**2) for v in attainable)
    assert abs(found - sigma**2) <= closest + 1e-9


def test_kovesi_in_a_known_case() -> None:
    # sigma 1.6, 4 passes: ideal width sqrt(12 * 2.56 / 4 + 1) = 2.95, so widths 1 and 3, all four of them 3.
    assert KovesiSmoothing().taps() == pytest.approx(BoxSmoothing(width=3, passes=4).taps())


# Smoothing of fields ------------------------------------------------------------------------------------------------

SHAPES = [(1, 1, 1), (1, 4, 3), (5, 7, 6)]
MAPS = [None, BoxSmoothing(), GaussianSmoothing(sigma=0.7)]


def _weight(shape: tuple[int, int, int], seed: int) -> torch.Tensor:
    """Random, and 0 for a third of the control points."""
    values = oracles.uniform(*shape, seed=seed)
    values[oracles.uniform(*shape, seed=seed + 1) < 1 / 3] = 0
    return values


@pytest.mark.parametrize(("shape", "smoothing", "weighted"), pairwise(SHAPES, MAPS, [False, True]))
def test_smoother_equals_naive_loops(shape: tuple[int, int, int], smoothing: Any, weighted: bool) -> None:
    field, weight = oracles.noise(3, *shape), _weight(shape, 1) if weighted else None
    found = Smoother(smoothing, field, weight)(field)
    arrays = field.numpy(), None if weight is None else weight.numpy()
    expected = arrays[0] if smoothing is None else oracles.smooth(arrays[0], smoothing.taps(), arrays[1])
    # weighted means of numbers up to 4: quotients of sums with positive weights
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    seed=st.integers(0, 999),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    smoothing=st.sampled_from(MAPS),
    weighted=st.booleans(),
)
def test_the_adjoint_is_exact(seed: int, shape: tuple[int, int, int], smoothing: Any, weighted: bool) -> None:
    x, y = oracles.noise(3, *shape, seed=seed), oracles.noise(3, *shape, seed=seed + 1)
    smooth = Smoother(smoothing, x, _weight(shape, seed + 2) if weighted else None)
    # A sum of up to 648 products of a few, against an eps of 2e-16.
    torch.testing.assert_close((smooth(x) * y).sum(), (x * smooth.adjoint(y)).sum(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("smoothing", MAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constants_are_preserved_for_any_weight(smoothing: Any, dtype: torch.dtype) -> None:
    field = torch.tensor([1.7, -2.3, 0.1], dtype=dtype).reshape(3, 1, 1, 1).expand(3, 5, 7, 6).contiguous()
    for weight in (None, _weight((5, 7, 6), 3), torch.zeros(5, 7, 6), torch.full((5, 7, 6), 1e-9)):
        found = Smoother(smoothing, field, None if weight is None else weight.to(dtype))(field)
        # three sums of up to seven positive numbers in numerator and denominator, and four further roundings
        torch.testing.assert_close(found, field, rtol=(2 * 3 * 7 + 4) * torch.finfo(dtype).eps, atol=0)


def test_weights_are_at_least_a_thousandth() -> None:
    field, weight = oracles.noise(3, 4, 5, 3), _weight((4, 5, 3), 4)
    found = Smoother(BoxSmoothing(), field, weight)(field)
    assert torch.equal(found, Smoother(BoxSmoothing(), field, weight.clamp_min(1e-3))(field))
    # zero weights everywhere are equivalent to no weights
    plain = Smoother(BoxSmoothing(), field)(field)
    nowhere = Smoother(BoxSmoothing(), field, torch.zeros(4, 5, 3, dtype=torch.float64))(field)
    torch.testing.assert_close(nowhere, plain, rtol=0, atol=1e-12)
    everywhere = Smoother(BoxSmoothing(), field, torch.ones(4, 5, 3, dtype=torch.float64))(field)
    torch.testing.assert_close(everywhere, plain, rtol=0, atol=1e-12)


def test_control_points_without_weight_follow_those_with_weight() -> None:
    # one half of a line has weight and the value 2, the other half has none and the value 100
    taps, n = BoxSmoothing().taps(), 12
    field = torch.full((3, 1, 1, n), 100.0, dtype=torch.float64)
    field[..., : n // 2] = 2
    weight = torch.zeros(1, 1, n, dtype=torch.float64)
    weight[..., : n // 2] = 1
    found = Smoother(BoxSmoothing(), field, weight)(field)[0, 0, 0]
    for at in range(n // 2 + 3):  # up to the radius of the filter
        weighted = sum(taps[y - at + 3] for y in range(max(0, at - 3), min(n // 2, at + 4)))
        unweighted = 1e-3 * sum(taps[y - at + 3] for y in range(max(n // 2, at - 3), min(n, at + 4)))
        assert found[at].item() == pytest.approx(2 + 98 * unweighted / (weighted + unweighted), rel=1e-12)
    assert found[: n // 2].max() < 2.2  # the values without weight hardly count
    assert found[n // 2] < 2.3
    assert found[-3:].tolist() == pytest.approx([100] * 3)


def test_inputs_are_not_modified() -> None:
    field, weight = oracles.noise(3, 4, 5, 3), _weight((4, 5, 3), 5)
    before = field.clone(), weight.clone()
    smooth = Smoother(BoxSmoothing(), field, weight)
    smooth.adjoint(smooth(field))
    assert torch.equal(field, before[0])
    assert torch.equal(weight, before[1])


@pytest.mark.parametrize("width", [2, 4])
def test_even_widths_raise(width: int) -> None:
    # regression: the published package accepts even kernels and returns a volume of another shape
    with pytest.raises(ConfigError, match="odd"):
        BoxSmoothing(width=width)


@pytest.mark.parametrize(
    ("make", "setting", "message"),
    [
        (BoxSmoothing, {"width": 0}, "width"),
        (BoxSmoothing, {"width": -1}, "width"),
        (BoxSmoothing, {"width": 3.0}, "width"),
        (BoxSmoothing, {"width": True}, "width"),
        (BoxSmoothing, {"width": "3"}, "width"),
        (BoxSmoothing, {"passes": -1}, "passes"),
        (BoxSmoothing, {"passes": 1.5}, "passes"),
        (BoxSmoothing, {"passes": True}, "passes"),
        (GaussianSmoothing, {"sigma": 0.0}, "sigma"),
        (GaussianSmoothing, {"sigma": -1.0}, "sigma"),
        (GaussianSmoothing, {"sigma": math.nan}, "sigma"),
        (GaussianSmoothing, {"sigma": math.inf}, "sigma"),
        (KovesiSmoothing, {"sigma": 0.0}, "sigma"),
        (KovesiSmoothing, {"sigma": math.nan}, "sigma"),
        (GaussianSmoothing, {"sigma": True}, "sigma"),
        (GaussianSmoothing, {"sigma": "1"}, "sigma"),
        (KovesiSmoothing, {"passes": 0}, "passes"),
        (KovesiSmoothing, {"passes": 4.0}, "passes"),
    ],
)
def test_unusable_settings(make: Any, setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the run-time check of annotations, which only the tests have and which would raise first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        make(**setting)


@pytest.mark.parametrize("passes", [1, 2, 4, 7])
def test_the_smallest_sigma_of_kovesi(passes: int) -> None:
    assert KovesiSmoothing(sigma=0.577, passes=passes).taps() == (1.0,)
    assert len(KovesiSmoothing(sigma=0.578, passes=passes).taps()) > 1


def test_numbers_of_numpy_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    box: Any = {"width": np.int16(5), "passes": np.int64(2)}
    assert BoxSmoothing(**box).taps() == BoxSmoothing(width=5, passes=2).taps()
    sigma: Any = np.float32(1.5)
    assert GaussianSmoothing(sigma=sigma).taps() == GaussianSmoothing(sigma=1.5).taps()
    assert KovesiSmoothing(sigma=sigma).taps() == KovesiSmoothing(sigma=1.5).taps()
