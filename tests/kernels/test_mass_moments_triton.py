"""Moments of a mass: torch against numpy, and Triton, on a GPU or interpreted, against torch in float64."""

from __future__ import annotations

import os

import numpy as np
import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.mass_moments import reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Shape = tuple[int, int, int]


def _given(shape: Shape, dtype: torch.dtype) -> list[torch.Tensor]:
    """A volume, its middle, a limit that some voxels exceed, and a mask."""
    middle, limit = (torch.tensor(value, dtype=dtype) for value in (0.25, 1.25))
    return [oracles.noise(*shape, dtype=dtype), middle, limit, oracles.uniform(*shape, seed=1).to(dtype)]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 33)])
def test_torch_equals_numpy(shape: Shape, masked: bool) -> None:
    volume, middle, limit, mask = _given(shape, torch.float64)
    found = reference.sum_moments(volume, middle, limit, mask if masked else None)
    mass = np.minimum(np.abs(volume.numpy() - 0.25), 1.25) * (mask.numpy() if masked else 1)
    expected = [mass.sum(), *((mass * index).sum() for index in np.indices(shape))]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 33)])
def test_errs_no_more_than_torch(shape: Shape, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "_BLOCK", 2)  # several blocks of parts
    *given, mask = (value.to(DEVICE) for value in _given(shape, torch.float32))
    if masked:
        assert_within_budget(triton.sum_moments, reference.sum_moments, *given, mask)
    else:
        assert_within_budget(
            lambda *values: triton.sum_moments(*values, None),
            lambda *values: reference.sum_moments(*values, None),
            *given,
        )
