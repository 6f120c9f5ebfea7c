"""The mean of neighbours against naive loops."""

from __future__ import annotations

import oracles
import pytest
import torch

from convexadam.kernels.box_mean import box_mean


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 4, 3), (5, 2, 6)])
def test_equals_naive_loops(shape: tuple[int, int, int]) -> None:
    field = oracles.noise(2, *shape)
    found, in_float32 = box_mean(field), box_mean(field.float())
    for i, j, k in torch.cartesian_prod(*(torch.arange(n) for n in shape)).reshape(-1, 3).tolist():
        box = tuple(slice(max(x - 1, 0), x + 2) for x in (i, j, k))
        expected = field[(slice(None), *box)].mean((1, 2, 3))
        torch.testing.assert_close(found[:, i, j, k], expected)
        # of at most 27 sums and the share, each rounded
        torch.testing.assert_close(in_float32[:, i, j, k].double(), expected, rtol=0, atol=30 * 4 * 2**-24)
