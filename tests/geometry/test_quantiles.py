"""Quantiles by the sort of numpy are those of torch and of numpy."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch

from convexadam.geometry.tensors import quantiles


@pytest.mark.parametrize("count", [1, 2, 3, 1000, 30_721])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_quantiles_are_those_of_torch_and_numpy(count: int, dtype: torch.dtype) -> None:
    values = oracles.uniform(count, seed=count).to(dtype)
    shares = (0.0, 0.005, 0.3, 0.95, 1.0)
    found = torch.stack(quantiles(values, shares))
    assert torch.equal(found, torch.quantile(values, torch.tensor(shares, dtype=dtype)))
    expected = np.quantile(values.double().numpy(), shares)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12 if dtype == torch.float64 else 1e-5)


def test_quantiles_keep_a_gradient() -> None:
    values = torch.tensor([3.0, 1.0, 2.0], requires_grad=True)
    quantiles(values, (0.25,))[0].backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 0.5, 0.5]
