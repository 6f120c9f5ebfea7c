"""MIND-SSC against naive loops."""

from __future__ import annotations

import itertools

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convexadam.kernels.mind_ssc import PAIRS, mind_ssc

SHAPES = [(1, 7, 5), (5, 7, 6), (11, 13, 7), (2, 1, 3)]
SETTINGS = [(1, 1), (1, 2), (2, 2), (3, 2), (0, 3)]


def _expected(volume: torch.Tensor, radius: int, dilation: int, weight: torch.Tensor | None = None) -> torch.Tensor:
    by_pair = oracles.mind_ssc(volume.numpy(), radius, dilation, None if weight is None else weight.numpy())
    return torch.from_numpy(np.stack([by_pair[frozenset(pair)] for pair in PAIRS]))


def _condition(volume: torch.Tensor, radius: int, dilation: int) -> float:
    """Largest D / v: how much a relative error of the distances matters in the exponent."""
    distances = oracles.mind_distances(volume.numpy(), radius, dilation)
    largest = np.stack(list(distances.values())).max(0)
    return float((largest / oracles.mind_variance(distances)).max())


def test_channels_are_the_pairs_of_neighbours_that_are_not_opposite() -> None:
    assert len(PAIRS) == 12
    assert {frozenset(p) for p in PAIRS} == {frozenset(p) for p in oracles.neighbour_pairs()}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("radius", "dilation"), SETTINGS)
def test_equals_naive_loops(shape: tuple[int, int, int], radius: int, dilation: int) -> None:
    volume = oracles.noise(*shape, seed=1)
    found = mind_ssc(volume, radius=radius, dilation=dilation)
    torch.testing.assert_close(found, _expected(volume, radius, dilation), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("radius", "dilation"), SETTINGS)
def test_float32_errs_no_more_than_rounding_explains(radius: int, dilation: int) -> None:
    volume = oracles.noise(5, 4, 6, seed=2, dtype=torch.float32)
    found = mind_ssc(volume, radius=radius, dilation=dilation)
    assert found.dtype == torch.float32
    # Distances: a difference, a square and 3 (2 r + 1) additions of positive numbers, each with half an eps; twice
    # (D and its minimum), and once more in v. |d exp(-s)| <= |ds|.
    steps = 3 * (2 * radius + 1) + 4
    allowed = 3 * steps * torch.finfo(torch.float32).eps * _condition(volume.double(), radius, dilation)
    error = (found.double() - _expected(volume.double(), radius, dilation)).abs().max()
    assert error <= allowed < 0.01


def test_weight_enters_the_average_of_the_variance_only() -> None:
    volume = oracles.noise(6, 9, 5, seed=3)
    volume[:, :5] *= 0.02  # v is about 4e-4 of that elsewhere: the lower clamp acts, and the weight decides where it is
    weight = oracles.uniform(6, 9, 5, seed=4)
    weight[:, :2] = 0
    found = mind_ssc(volume, weight=weight)
    torch.testing.assert_close(found, _expected(volume, 1, 2, weight), rtol=0, atol=1e-10)
    assert (found - mind_ssc(volume)).abs().max() > 1e-3  # the weight does something here
    torch.testing.assert_close(mind_ssc(volume, weight=torch.ones_like(weight)), mind_ssc(volume))


def _two_contrasts() -> torch.Tensor:
    """Noise whose lower clamp of v acts, beside a part without contrast."""
    volume = oracles.noise(6, 14, 5, seed=8)
    volume[:, 4:8] *= 0.02
    volume[:, 8:] = 0.5
    return volume


@pytest.mark.parametrize("scale", [1e-5, 1.0, 1e5])
@pytest.mark.parametrize("part", [slice(0, 0), slice(12, 14)])  # no weight at all; weight without contrast under it
def test_a_weight_that_says_nothing_is_as_none(scale: float, part: slice) -> None:
    volume = _two_contrasts()
    weight = torch.zeros_like(volume)
    weight[:, part] = 1  # further from contrast than a description reaches
    distances = np.stack(list(oracles.mind_distances(volume.numpy(), 1, 2).values()))
    assert not (distances * weight.numpy()).any()
    found = mind_ssc(scale * volume, weight=weight)
    # Rounding of the scaled volume, an eps in each difference, times the condition of at most 1e4 (the lower clamp).
    torch.testing.assert_close(found, mind_ssc(volume), rtol=0, atol=1e-10)
    torch.testing.assert_close(found, _expected(volume, 1, 2), rtol=0, atol=1e-10)
    assert float(found.min()) < 0.5  # not ones throughout


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("weighted", [False, True])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, weighted: bool) -> None:
    # Squares of differences of 1000 and more are beyond 65504, the largest number of float16.
    volume = (1000 * oracles.noise(6, 9, 5, seed=9)).to(dtype)
    weight = oracles.uniform(6, 9, 5, seed=10).to(dtype) if weighted else None
    found = mind_ssc(volume, weight=weight)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    assert torch.equal(found, mind_ssc(volume.float(), weight=weight))
    torch.testing.assert_close(
        found.double(),
        _expected(volume.double(), 1, 2, None if weight is None else weight.double()),
        rtol=0,
        atol=3 * 13 * torch.finfo(torch.float32).eps * _condition(volume.double(), 1, 2),  # as above
    )


def test_non_contiguous_volume_and_weight() -> None:
    volume, weight = oracles.noise(6, 14, 7, seed=5), oracles.uniform(7, 6, 7, seed=6)
    strided, turned = volume[:, ::2].permute(1, 0, 2), weight.flip(0)
    assert not strided.is_contiguous()
    found = mind_ssc(strided, weight=turned)
    torch.testing.assert_close(found, mind_ssc(strided.contiguous(), weight=turned.contiguous()))
    torch.testing.assert_close(found, _expected(strided.contiguous(), 1, 2, turned), rtol=0, atol=1e-10)


def test_the_input_is_left_alone() -> None:
    volume = oracles.noise(4, 5, 6)
    before = volume.clone()
    mind_ssc(volume, radius=0)
    assert torch.equal(volume, before)


@pytest.mark.parametrize("shape", [(1, 1, 1), (4, 5, 6)])
@pytest.mark.parametrize("value", [0.0, -1000.0, 3e4])
def test_no_contrast_gives_ones(shape: tuple[int, int, int], value: float) -> None:
    assert torch.equal(mind_ssc(torch.full(shape, value)), torch.ones(12, *shape))


def test_permuting_and_flipping_axes_permutes_channels() -> None:
    volume = oracles.noise(5, 7, 6, seed=7)
    features = mind_ssc(volume)
    order = {frozenset(pair): n for n, pair in enumerate(PAIRS)}
    for axes in itertools.permutations(range(3)):
        turned = mind_ssc(volume.permute(axes).flip(0))
        for n, pair in enumerate(PAIRS):
            # New axis a is old axis axes[a]; the new axis 0 runs backwards.
            old = []
            for step in pair:
                back = [0, 0, 0]
                for a, s in enumerate(step):
                    back[axes[a]] = -s if a == 0 else s
                old.append((back[0], back[1], back[2]))
            expected = features[order[frozenset(old)]].permute(axes).flip(0)
            torch.testing.assert_close(turned[n], expected, rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(scale=st.floats(1e-3, 1e3), sign=st.sampled_from([-1, 1]), shift=st.floats(-100, 100), seed=st.integers(0, 99))
def test_linear_scaling_of_the_image_changes_nothing(scale: float, sign: int, shift: float, seed: int) -> None:
    volume = oracles.noise(4, 3, 5, seed=seed)
    # The shift costs digits: |I| / |dI| <= 1e2 / 1e-3 = 1e5 eps in a difference, times the condition (< 1e4) in the
    # exponent.
    torch.testing.assert_close(mind_ssc(sign * scale * volume + shift), mind_ssc(volume), rtol=0, atol=1e-6)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(seed=st.integers(0, 999), radius=st.integers(0, 2), dilation=st.integers(1, 3))
def test_values_lie_in_0_1_and_one_channel_is_1(seed: int, radius: int, dilation: int) -> None:
    found = mind_ssc(oracles.noise(4, 5, 3, seed=seed, dtype=torch.float32), radius=radius, dilation=dilation)
    assert bool(((found >= 0) & (found <= 1)).all())
    assert torch.equal(found.amax(0), torch.ones(4, 5, 3))
