"""The range of two feature maps against numpy."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch

from convexadam.kernels.feature_range import measure_range

Shape = tuple[int, int, int]


def maps(channels: int, shape: Shape, *, weighted: bool) -> list[torch.Tensor | None]:
    """Two maps and their weights, half of which are 0."""
    features = [oracles.noise(channels, *shape, seed=seed) for seed in (0, 1)]
    weights = [(oracles.uniform(*shape, seed=seed, low=-1, high=1)).clamp_min(0) for seed in (2, 3)]
    return [*features, *(weights if weighted else (None, None))]


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 4, 5)])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_numpy(shape: Shape, weighted: bool) -> None:
    fixed, moving, *weights = maps(3, shape, weighted=weighted)
    assert fixed is not None
    assert moving is not None
    found = measure_range(fixed, moving, *weights).numpy()
    both = np.stack([fixed.numpy(), moving.numpy()]).reshape(2, 3, -1)
    span = np.linalg.norm(both.max((0, 2)) - both.min((0, 2)))
    w = [np.ones(shape) if weight is None else weight.numpy() for weight in weights]
    varies = all(
        any(np.ptp(c[v.ravel() > 0]) > 0 for c in one) if (v > 0).any() else False
        for one, v in zip(both, w, strict=True)
    )
    power = 2.0 ** -np.ceil(np.log2(span)) if span > 0 else 1.0
    expected = [np.abs(both).max(), span, varies, min(v.max() for v in w), (w[0] * w[1]).max(), power]
    np.testing.assert_allclose(found, expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("number", [0, 1])
def test_nan_is_the_largest(number: int) -> None:
    pair = [oracles.noise(2, 3, 4, 5, seed=seed) for seed in (0, 1)]
    pair[number][1, 2, 1, 3] = math.nan
    assert math.isnan(measure_range(pair[0], pair[1], None, None)[0])


@pytest.mark.parametrize("number", [0, 1])
def test_both_maps_have_to_vary_where_there_is_weight(number: int) -> None:
    pair = [oracles.noise(2, 3, 4, 5, seed=seed) for seed in (0, 1)]
    weights = [torch.ones(3, 4, 5, dtype=torch.float64) for _ in range(2)]
    weights[number][1:] = 0
    pair[number][:, 0] = 0.25
    assert measure_range(pair[0], pair[1], *weights)[2] == 0
    pair[number][1, 0, 0, 0] = 0.25 + 1e-7
    assert measure_range(pair[0], pair[1], *weights)[2] == 0
    pair[number][1, 0, 0, 0] = 0.25 + 1e-6
    assert measure_range(pair[0], pair[1], *weights)[2] == 1


@pytest.mark.parametrize(("span", "expected"), [(0.0, 1.0), (1.0, 1.0), (0.5, 2.0), (3.0, 0.25), (1e-3, 512.0)])
def test_the_largest_power_of_two(span: float, expected: float) -> None:
    values = torch.tensor([0.0, span], dtype=torch.float64).reshape(1, 2, 1, 1)
    assert measure_range(values, values, None, None)[5] == expected
