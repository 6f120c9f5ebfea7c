"""Quantiles against those of torch."""

from __future__ import annotations

import oracles
import pytest
import torch

from convexadam.linear.quantiles import find_quantiles

SHARES = (0.0, 0.001, 0.5, 0.95, 0.99, 1.0)


@pytest.mark.parametrize("count", [1, 2, 7, 1001, 100_003])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_are_those_of_torch(count: int, dtype: torch.dtype) -> None:
    values = oracles.noise(count, dtype=dtype)
    expected = torch.quantile(values, torch.tensor(SHARES, dtype=dtype))
    assert torch.equal(torch.stack(find_quantiles(values, *SHARES)), expected)
