"""The Triton kernel of trimmed fits against numpy: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from turned import MATRIX

from convexadam.kernels.trimmed_fit import MODELS, Model, reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPE = (9, 8, 11)
AFFINE = np.array([[0, 4.0, 0.3, -30], [-4, 0, 0, 50], [0, 0.2, 5, 900], [0, 0, 0, 1]])


def make_case(outliers: float = 0.3, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Displacements of a linear map, some of them by anything, and weights, many of them 0."""
    rng = np.random.default_rng(seed)
    linear = np.eye(3) + rng.normal(scale=0.1, size=(3, 3))
    index = np.indices(SHAPE).reshape(3, -1)
    disp = (linear - np.eye(3)) @ index + rng.normal(scale=2, size=(3, 1)) + rng.normal(scale=0.05, size=index.shape)
    wrong = rng.random(index.shape[1]) < outliers
    disp[:, wrong] += rng.normal(scale=5, size=(3, wrong.sum()))
    weights = rng.random(SHAPE) * (rng.random(SHAPE) > 0.3)
    return torch.tensor(disp.reshape(3, *SHAPE), dtype=torch.float32), torch.tensor(weights, dtype=torch.float32)


def compare(
    disp: torch.Tensor, weights: torch.Tensor, model: Model, target_map: np.ndarray | None = None, fraction: float = 0.5
) -> None:
    arrays = disp, weights, torch.tensor(AFFINE), torch.tensor(np.eye(4) if target_map is None else target_map)
    number = torch.tensor(MODELS.index(model))
    expected, found = (
        module.fit_displacements(*(a.to(device) for a in arrays), model=number.to(device), inlier_fraction=fraction)
        .cpu()
        .numpy()
        for module, device in ((reference, "cpu"), (triton, DEVICE))
    )
    corners = np.array([*SHAPE, 1]) @ AFFINE.T
    np.testing.assert_allclose(found @ corners, expected @ corners, atol=1e-4)
    np.testing.assert_allclose(found[:3, :3], expected[:3, :3], atol=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_errs_no_more_than_torch(model: Model) -> None:
    compare(*make_case(), model)


@pytest.mark.parametrize("model", MODELS)
def test_targets_in_another_space_errs_no_more_than_torch(model: Model) -> None:
    compare(*make_case(), model, MATRIX, fraction=0.8)


def test_many_points_are_thinned_and_errs_no_more_than_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reference, triton):
        monkeypatch.setattr(module, "MAX_POINTS", 100)
    compare(*make_case(), "affine")


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_weight_errs_no_more_than_torch(model: Model, count: int) -> None:
    disp, weights = make_case()
    weights.fill_(0)
    weights.flatten()[5 : 5 + count] = 0.5
    compare(disp, weights, model)
