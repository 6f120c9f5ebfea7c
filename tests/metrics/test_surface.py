"""Surface distance against hand-worked numbers and all pairs of surface voxels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from convexadam.errors import InputError
from convexadam.metrics import hd95, surface
from convexadam.metrics.surface import hd95_on_device

SPACING = (1.5, 0.7, 3.0)


def naive_hd95(a: np.ndarray, b: np.ndarray) -> float:
    """By the definition: every surface voxel against every other."""

    def surface(mask: np.ndarray) -> np.ndarray:
        found = []
        for index in np.argwhere(mask):
            for axis, step in itertools.product(range(3), (-1, 1)):
                near = index.copy()
                near[axis] += step
                if near[axis] < 0 or near[axis] >= mask.shape[axis] or not mask[tuple(near)]:
                    found.append(index * SPACING)
                    break
        return np.array(found)

    apart = np.linalg.norm(surface(a)[:, None] - surface(b)[None], axis=-1)
    return max(np.percentile(apart.min(axis=1), 95), np.percentile(apart.min(axis=0), 95))


def test_two_voxels() -> None:
    fixed, moved = torch.zeros(2, 6, 6, 6, dtype=torch.uint8)
    fixed[1, 1, 1] = 4
    moved[3, 1, 2] = 4
    assert hd95(fixed, moved, spacing_mm=SPACING) == {4: pytest.approx(math.hypot(3.0, 3.0))}
    assert hd95(fixed, moved, spacing_mm=(1.0, 1.0, 1.0)) == {4: pytest.approx(math.sqrt(5))}  # Learn2Reg: in voxels


def test_the_inside_does_not_count() -> None:
    fixed = torch.zeros(9, 9, 9, dtype=torch.int16)
    fixed[1:8, 1:8, 1:8] = 1
    hollow = fixed.clone()
    hollow[4, 4, 4] = 0  # its own surface: 6 voxels of 224, fewer than 5 per cent
    assert hd95(fixed, hollow, spacing_mm=(1.0, 1.0, 1.0)) == {1: 0.0}


@pytest.mark.parametrize("seed", range(4))
def test_equals_all_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fixed, moved = np.zeros((2, 8, 9, 7), int)
    for volume in (fixed, moved):  # boxes that reach the border, and a few stray voxels
        for label in (1, 2):
            low = rng.integers(0, 4, 3)
            high = low + rng.integers(2, 6, 3)
            volume[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = label
            volume[tuple(rng.integers(0, 7, 3))] = label
    found = hd95(torch.tensor(fixed), torch.tensor(moved), spacing_mm=SPACING)
    expected = {n: naive_hd95(fixed == n, moved == n) for n in found}
    assert found == pytest.approx(expected)
    assert found
    # as on a GPU, in float32
    masks = [(torch.tensor(fixed == n), torch.tensor(moved == n)) for n in found]
    assert [hd95_on_device(*both, SPACING) for both in masks] == pytest.approx([*expected.values()], rel=1e-6)


def test_on_a_device_a_few_points_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.rand(2, 12, 11, 10, generator=torch.Generator().manual_seed(0)) > 0.8
    whole = hd95_on_device(a, b, SPACING)
    monkeypatch.setattr(surface, "_PAIRS", 1000)
    assert hd95_on_device(a, b, SPACING) == whole
    assert math.isnan(hd95_on_device(a, torch.zeros_like(b), SPACING))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device")
def test_on_a_gpu() -> None:
    fixed, moved = torch.randint(0, 4, (2, 20, 18, 16), generator=torch.Generator().manual_seed(0))
    expected = hd95(fixed, moved, spacing_mm=SPACING)
    assert hd95(fixed.cuda(), moved.cuda(), spacing_mm=SPACING) == pytest.approx(expected, rel=1e-6)


def test_absent_labels_have_no_distance() -> None:
    fixed, moved = torch.zeros(2, 4, 4, 4, dtype=torch.int32)
    fixed[1, 1, 1], moved[1, 1, 1], moved[2, 2, 2] = 1, 2, 3
    found = hd95(fixed, moved, spacing_mm=(1.0, 1.0, 1.0), labels=[3, 1, 8])
    assert list(found) == [1, 3, 8]
    assert all(math.isnan(v) for v in found.values())
    assert list(hd95(fixed, moved, spacing_mm=(1.0, 1.0, 1.0))) == [1, 2, 3]


@pytest.mark.parametrize("spacing", [(1.0, 0.0, 1.0), (1.0, -1.0, 1.0), (1.0, math.nan, 1.0)])
def test_refuses_bad_spacing(spacing: tuple[float, float, float]) -> None:
    labels = torch.ones(3, 3, 3, dtype=torch.int32)
    with pytest.raises(InputError, match="spacing_mm must be three positive voxel sizes"):
        hd95(labels, labels, spacing_mm=spacing)
