"""The Triton kernels of local normalisation against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os
from functools import partial

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")
from convexadam.kernels.local_normalisation import reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(3, 5, 35), (1, 9, 8)]


@pytest.fixture(autouse=True)
def few_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts, where real volumes have many more."""
    if DEVICE == "cpu":
        monkeypatch.setattr(triton, "_PARTS", 2)


def _make_inputs(shape: tuple[int, int, int], weighted: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    weight = oracles.uniform(*shape, seed=7, low=0).float().to(DEVICE)
    weight[:, : shape[1] // 3] = 0
    return (5 + 3 * oracles.noise(2, *shape, dtype=torch.float32)).to(DEVICE), weight if weighted else None


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("shape", "radius"), [((2, 5, 33), 1), ((1, 5, 6), 2)])
def test_windows_err_no_more_than_torch(shape: tuple[int, int, int], radius: int, weighted: bool) -> None:
    features, weight = _make_inputs(shape, weighted)
    fused, exact = (partial(module.normalise_locally, radius=radius, floor=0.1) for module in (triton, reference))
    assert_within_budget(fused, exact, features, weight=weight)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_slopes_err_no_more_than_torch(shape: tuple[int, int, int], weighted: bool, channels_last: bool) -> None:
    features, weight = _make_inputs(shape, weighted)
    if channels_last:
        features = features.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2)
    assert_within_budget(triton.mean_squared_slopes, reference.mean_squared_slopes, features, weight)


def test_writes_to_channels_last_and_errs_no_more_than_torch() -> None:
    features, _ = _make_inputs(SHAPES[1], weighted=False)
    features[1] = 0.3  # constant
    rows = torch.zeros(*SHAPES[1], 3, device=DEVICE).permute(3, 0, 1, 2)
    triton.normalise_locally(features, radius=1, floor=0.1, out=rows[1:])
    expected = reference.normalise_locally(features, radius=1, floor=0.1)
    torch.testing.assert_close(rows[1:].contiguous(), expected, rtol=1e-5, atol=1e-5)
    assert not rows[0].any()
    assert not rows[2].any()


def test_some_channels_that_are_last_in_memory_are_written_where_they_are() -> None:
    maps = oracles.noise(3, 4, 5, 6, dtype=torch.float32).to(DEVICE)
    rows = torch.full((4, 5, 6, 5), 7.0, device=DEVICE)
    found = triton.normalise_locally(maps, radius=1, floor=0.1, out=rows.permute(3, 0, 1, 2)[1:4])
    assert torch.equal(found, triton.normalise_locally(maps, radius=1, floor=0.1))
    assert found.data_ptr() == rows.data_ptr() + 4
    assert bool((rows[..., [0, 4]] == 7).all())
