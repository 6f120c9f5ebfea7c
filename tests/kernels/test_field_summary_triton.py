"""The summary of a displacement field: torch against numpy, and Triton, on a GPU or interpreted, against torch."""

from __future__ import annotations

import os

import numpy as np
import oracles
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.field_summary import reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (5, 1, 4), (3, 6, 34)]

Shape = tuple[int, int, int]


def _field(shape: Shape, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    """A field with some folds in mm, and what converts it to oblique, anisotropic voxels."""
    to_voxels = torch.diag(torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)) + 0.1 * oracles.noise(3, 3, seed=1)
    return 0.4 * oracles.noise(3, *shape, dtype=dtype), to_voxels


@pytest.mark.parametrize("shape", SHAPES)
def test_torch_equals_numpy(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "_CHUNK_VOXELS", {"cpu": 2 * shape[1] * shape[2], "gpu": 1})  # two planes
    field, to_voxels = _field(shape)
    found = [value.item() for value in reference.summarise_field(field, to_voxels)]
    in_voxels = np.einsum("ab,bijk->aijk", to_voxels, field)
    jacobian = np.zeros((*shape, 3, 3)) + np.eye(3)
    for axis, size in enumerate(shape):
        if size > 1:
            jacobian[..., axis] += np.moveaxis(np.gradient(in_voxels, axis=axis + 1), 0, -1)
    determinants, lengths = np.linalg.det(jacobian), np.linalg.norm(field, axis=0)
    expected = [100 * (determinants <= 0).mean(), determinants.min(), determinants.max(), lengths.mean(), lengths.max()]
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_triton_errs_no_more_than_rounding_explains(shape: Shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton, "_BLOCK", 2)  # several blocks of parts
    field, to_voxels = _field(shape, torch.float32)
    expected = reference.summarise_field(field.double(), to_voxels)
    found = triton.summarise_field(field.to(DEVICE), to_voxels)
    # determinants are sums of six products of three sums of three products of numbers up to 8
    torch.testing.assert_close(torch.stack(found).cpu(), torch.stack(expected), rtol=1e-5, atol=1e-4)
    assert found[0] == expected[0]


def test_what_is_not_finite_shows_in_the_mean() -> None:
    field, to_voxels = _field((3, 4, 5), torch.float32)
    field[1, 2, 1, 3] = torch.nan
    assert triton.summarise_field(field.to(DEVICE), to_voxels)[3].isnan()
