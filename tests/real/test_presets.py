"""The preset `best` on real pairs: what it promises beyond the default one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from convexadam import RegistrationResult, preset, read_image, register
from convexadam.geometry import Grid
from convexadam.io import read_landmarks
from convexadam.metrics import evaluate_transform

pytestmark = [pytest.mark.real, pytest.mark.long]

BEST_PEER_DICE = 0.6096  # greedy
MARGIN = 0.027


def registered(folder: Path) -> RegistrationResult:
    return register(folder / "fixed.nii.gz", folder / "moving.nii.gz", preset("best"))


def there_and_back(result: RegistrationResult, fixed: Grid, moving: Grid) -> float:
    """Mean distance in voxels, over every third voxel of the fixed image that lands within the moving one.

    Most of it is the interpolation of the inverse between its voxels.
    """
    indices = torch.from_numpy(np.indices(fixed.shape)[:, ::3, ::3, ::3].reshape(3, -1).T.astype(np.float32))
    there = result.transform(fixed.index_to_world(indices))
    landed = moving.world_to_index(there)
    within = ((landed >= 0) & (landed <= torch.tensor(moving.shape) - 1)).all(1)
    back = fixed.world_to_index(result.inverse()(there[within]))
    return float((back - indices[within]).norm(dim=1).mean())


def back_and_there(result: RegistrationResult, moving: Grid) -> float:
    """Mean distance in mm at every third voxel of the moving image, where the inverse is not interpolated."""
    indices = torch.from_numpy(np.indices(moving.shape)[:, ::3, ::3, ::3].reshape(3, -1).T.astype(np.float32))
    here = moving.index_to_world(indices)
    return float((result.transform(result.inverse()(here)) - here).norm(dim=1).mean())


@pytest.mark.filterwarnings("ignore:the error of the inverse")  # of 2 voxels of 750,000, in a cell that nearly folds
@pytest.mark.parametrize(("name", "tre_mm"), [("liver_mr_eth_18", 2.27), ("liver_mr_eth_19", 1.2)])
def test_livers(real_pairs: Path, name: str, tre_mm: float) -> None:
    folder = real_pairs / name
    fixed, moving = (read_image(folder / f"{side}.nii.gz").grid for side in ("fixed", "moving"))
    result = registered(folder)
    found = evaluate_transform(
        result.transform,
        fixed_landmarks_mm=fixed.index_to_world(read_landmarks(folder / "fixed_landmarks.csv")),
        moving_landmarks_mm=moving.index_to_world(read_landmarks(folder / "moving_landmarks.csv")),
    )
    assert found["tre_mm"] <= tre_mm
    assert result.diagnostics["jacobian_min"] > 0
    assert back_and_there(result, moving) < 0.001
    assert there_and_back(result, fixed, moving) < 0.2


def test_brains(real_pairs: Path) -> None:
    folder = real_pairs / "brain_t1_malf_1003_1010"
    result = registered(folder)
    fixed, moving = (read_image(folder / f"{side}_label.nii.gz") for side in ("fixed", "moving"))
    found = evaluate_transform(result.transform, fixed_labels=fixed, moving_labels=moving, surface=False)
    assert found["dice"] >= BEST_PEER_DICE + MARGIN
    assert result.diagnostics["jacobian_min"] > 0
