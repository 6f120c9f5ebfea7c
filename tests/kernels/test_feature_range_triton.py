"""The Triton kernels of the range of two feature maps against torch: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import math
import os

import oracles
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.feature_range import reference, triton
from convexadam.kernels.feature_range.triton import measure_range

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Shape = tuple[int, int, int]


def _maps(channels: int, shape: Shape) -> list[torch.Tensor]:
    features = [oracles.noise(channels, *shape, seed=seed) + 3 * seed for seed in (0, 1)]
    weights = [oracles.uniform(*shape, seed=seed, low=-1, high=1).clamp_min(0) for seed in (2, 3)]
    return [each.float().to(DEVICE) for each in (*features, *weights)]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5), (13, 11, 31)])
@pytest.mark.parametrize("channels", [1, 5])
@pytest.mark.parametrize("given", [(True, True), (True, False), (False, True), (False, False)])
def test_equals_torch(shape: Shape, channels: int, given: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "_PARTS", 2)  # so that each loops over several blocks
    fixed, moving, *weights = _maps(channels, shape)
    options = [weight if there else None for weight, there in zip(weights, given, strict=True)]
    found, expected = (f(fixed, moving, *options) for f in (measure_range, reference.measure_range))
    assert found.dtype == torch.float64
    # the norm alone is rounded
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("number", [0, 1])
def test_nan_is_the_largest(number: int) -> None:
    pair = _maps(2, (13, 11, 31))[:2]
    pair[number][1, 12, 5, 3] = math.nan
    assert math.isnan(measure_range(pair[0], pair[1], None, None)[0])


@pytest.mark.parametrize("number", [0, 1])
def test_a_constant_map_has_no_contrast(number: int) -> None:
    pair = _maps(2, (3, 4, 5))[:2]
    assert measure_range(pair[0], pair[1], None, None)[2] == 1
    pair[number][:] = 0.25
    assert measure_range(pair[0], pair[1], None, None)[2] == 0


def test_without_weight_there_is_none() -> None:
    fixed, moving, weight, _ = _maps(2, (3, 4, 5))
    found = measure_range(fixed, moving, weight, torch.zeros_like(weight))
    assert found[2:5].tolist() == [0, 0, 0]


def test_non_contiguous_maps() -> None:
    fixed, moving, *weights = (each.transpose(-1, -2) for each in _maps(3, (4, 5, 6)))
    found, expected = (f(fixed, moving, *weights) for f in (measure_range, reference.measure_range))
    torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("span", [0.0, 0.5, 1.0, 3.0, 1e-20, 1e20, math.inf])
def test_the_largest_power_of_two(span: float) -> None:
    values = torch.tensor([0.0, span], device=DEVICE).reshape(1, 2, 1, 1)
    assert measure_range(values, values, None, None)[5] == reference.measure_range(values, values, None, None)[5]
