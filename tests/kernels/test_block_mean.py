"""The kernels of means over blocks against torch: numba, and Triton on a GPU or interpreted on the CPU."""

from __future__ import annotations

import os
from types import ModuleType

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.block_mean import cpu, reference, triton

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

KERNELS = [pytest.param(triton, id="triton")] + ([] if DEVICE == "cuda" else [pytest.param(cpu, id="cpu")])

CASES = [((1, 1, 1), (1, 1, 1)), ((11, 13, 7), (2, 3, 2)), ((6, 8, 70), (3, 4, 2)), ((7, 5, 4), (7, 2, 3))]


def _weight(shape: tuple[int, int, int], share: float) -> torch.Tensor:
    """Weights, of which a share is 0."""
    return (oracles.uniform(*shape, seed=1).float() - share).clamp_min(0).to(DEVICE)


@pytest.mark.parametrize(("shape", "spacing"), CASES)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kernel", KERNELS)
def test_means_err_no_more_than_torch(
    kernel: ModuleType, shape: tuple[int, int, int], spacing: tuple[int, int, int], weighted: bool
) -> None:
    volume = oracles.noise(2, *shape, dtype=torch.float32).to(DEVICE)
    given = (volume, _weight(shape, 0.8)) if weighted else (volume,)
    assert_within_budget(
        lambda v, w=None: kernel.block_mean(v, spacing, w),
        lambda v, w=None: reference.block_mean(v, spacing, w),
        *given,
    )


@pytest.mark.parametrize(("shape", "spacing"), CASES)
@pytest.mark.parametrize("share", [0.02, 0.9, 1.0])  # most blocks are complete, none is, and nothing has weight
@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_err_no_more_than_torch(
    monkeypatch: pytest.MonkeyPatch,
    kernel: ModuleType,
    shape: tuple[int, int, int],
    spacing: tuple[int, int, int],
    share: float,
) -> None:
    monkeypatch.setattr(triton, "_PARTS", 2)  # compared several times
    weight = _weight(shape, share)
    found = kernel.complete_weight(weight, spacing)
    assert torch.equal(found > 0, reference.complete_weight(weight, spacing) > 0)
    assert_within_budget(
        lambda w: kernel.complete_weight(w, spacing), lambda w: reference.complete_weight(w, spacing), weight
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_blocks_without_weight_become_zero(kernel: ModuleType) -> None:
    weight = torch.zeros(4, 4, 4, device=DEVICE)
    weight[2:, 2:, 2:] = 1e-30  # however small, it counts
    found = kernel.block_mean(torch.full((1, 4, 4, 4), 3.0, device=DEVICE), (2, 2, 2), weight)
    assert found[0, 1, 1, 1] == 3
    assert int(found.count_nonzero()) == 1


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_not_contiguous(kernel: ModuleType) -> None:
    volume = oracles.noise(2, 6, 5, 4, dtype=torch.float32).to(DEVICE).transpose(1, 3)
    weight = _weight((6, 5, 4), 0.5).transpose(0, 2)
    found = kernel.block_mean(volume, (2, 2, 3), weight)
    torch.testing.assert_close(found, reference.block_mean(volume, (2, 2, 3), weight))
