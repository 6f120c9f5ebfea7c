"""The lung CT pair, from end to end: the figures that the library promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from convexadam import Image, preset, read_image, register
from convexadam.io import read_landmarks
from convexadam.metrics import evaluate_transform

PUBLISHED_TRE_MM = 1.339  # convexAdam 0.2.0 with its defaults, on the same volumes
DEFAULT_TRE_MM = 1.33  # what the default preset has to reach


def clipped(path: Path) -> Image:
    """A CT without the marker for 'outside the scanner'."""
    image = read_image(path)
    return Image(image.data.clamp_min(-1000), image.grid)


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize(("name", "most_mm"), [("default", DEFAULT_TRE_MM), ("published", 1.01 * PUBLISHED_TRE_MM)])
def test_landmarks_of_the_lung(real_pairs: Path, name: str, most_mm: float) -> None:
    folder = real_pairs / "lung_ct_elastix"
    fixed, moving = clipped(folder / "fixed.nii.gz"), clipped(folder / "moving.nii.gz")
    result = register(fixed, moving, preset(name))
    found = evaluate_transform(
        result.transform,
        fixed_landmarks_mm=fixed.grid.to_mm(read_landmarks(folder / "fixed_landmarks.csv")),
        moving_landmarks_mm=moving.grid.to_mm(read_landmarks(folder / "moving_landmarks.csv")),
    )
    assert found["tre_before_mm"] == pytest.approx(4.88, abs=0.01)
    assert found["tre_mm"] <= most_mm
    assert found["folded_percent"] == 0
    assert result.diagnostics["feature_difference_after"] < 0.5 * result.diagnostics["feature_difference_before"]
