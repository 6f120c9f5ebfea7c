"""Moving images on their own grids, as they came from the scanner: nobody has brought them close before."""

from __future__ import annotations

from pathlib import Path

import pytest

from convexadam import read_image, read_transform, register
from convexadam.cli import main
from convexadam.io import read_landmarks
from convexadam.metrics import evaluate_transform

TRE_MM = 1.40
DICE_BELOW = 0.01
"""What the Dice may lose against the pair that came aligned."""


@pytest.mark.real
def test_the_lung_that_is_35_mm_off(real_pairs: Path, tmp_path: Path) -> None:
    folder = real_pairs / "lung_ct_elastix"
    files = [str(folder / name) for name in ("fixed.nii.gz", "moving_native.nii.gz")]
    assert main(["register", *files, "--output-dir", str(tmp_path), "--quiet"]) == 0
    fixed, moving = (read_image(path) for path in files)
    found = evaluate_transform(
        read_transform(tmp_path / "transform.nii.gz"),
        fixed_landmarks_mm=fixed.grid.index_to_world(read_landmarks(folder / "fixed_landmarks.csv")),
        moving_landmarks_mm=moving.grid.index_to_world(read_landmarks(folder / "moving_native_landmarks.csv")),
    )
    assert found["tre_before_mm"] > 35
    assert found["tre_mm"] <= TRE_MM
    assert found["folded_percent"] == 0


@pytest.mark.real
@pytest.mark.parametrize("pair", ["brain_t1_malf_1000_1001", "brain_t1_malf_1003_1010"])
def test_brains_as_well_aligned_as_those_that_came_aligned(real_pairs: Path, pair: str) -> None:
    folder = real_pairs / pair
    fixed, labels = read_image(folder / "fixed.nii.gz"), read_image(folder / "fixed_label.nii.gz")
    dice = {}
    for name in ("moving", "moving_native"):
        result = register(fixed, read_image(folder / f"{name}.nii.gz"))
        moving_labels = read_image(folder / f"{name}_label.nii.gz")
        scores = evaluate_transform(result.transform, fixed_labels=labels, moving_labels=moving_labels, surface=False)
        dice[name] = scores["dice"]
        assert scores["folded_percent"] == 0
    assert dice["moving_native"] >= dice["moving"] - DICE_BELOW
