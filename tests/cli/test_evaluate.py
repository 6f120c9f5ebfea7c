"""``convexadam evaluate`` with transforms that have no grid of their own, or another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import Affine, Image, read_image, write_image


@pytest.fixture
def shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file holds a shift of 30 mm to the right."""
    shift = np.eye(4)
    shift[0, 3] = 30
    monkeypatch.setattr("convexadam.cli.transform_files.read_transform", lambda path, **_: Affine(shift))


@pytest.mark.usefixtures("shifted")
def test_an_affine_transform(run: Any, files: Path) -> None:
    ran = run("evaluate", "affine.tfm")
    assert (ran.status, ran.out, ran.error.count("\n")) == (1, "", 1)
    assert "give --fixed" in ran.error
    found = json.loads(run("evaluate", "affine.tfm", "--fixed", files / "fixed.nii.gz").out)
    assert found["displacement_max_mm"] == pytest.approx(30)
    assert found["folded_percent"] == 0


@pytest.mark.usefixtures("shifted")
def test_labels_and_landmarks_give_the_grid(run: Any, files: Path, tmp_path: Path) -> None:
    labels = read_image(files / "fixed_labels.nii.gz")
    write_image(Image(torch.roll(labels.data, -2, dims=1), labels.grid), tmp_path / "moving.nii.gz")  # 30 mm to R
    points = ["--fixed-landmarks", files / "fixed.csv", "--moving-landmarks", files / "fixed.csv"]
    options = ["--fixed-labels", files / "fixed_labels.nii.gz", "--moving-labels", tmp_path / "moving.nii.gz"]
    found = json.loads(run("evaluate", "affine.tfm", *options, *points, "--no-surface").out)
    assert found["dice"] > 0.95 > found["dice_before"]
    assert found["tre_before_mm"] == 0
    assert found["tre_mm"] == pytest.approx(30)


def test_a_transform_is_brought_to_the_fixed_grid(run: Any, files: Path, tmp_path: Path) -> None:
    fixed = read_image(files / "fixed.nii.gz")
    coarse = fixed.grid.with_spacing((20.0, 20.0, 20.0))
    write_image(Image(torch.ones(1, *coarse.shape, dtype=torch.uint8), coarse), tmp_path / "mask.nii.gz")
    options = ["--mask", tmp_path / "mask.nii.gz"]
    assert run("evaluate", files / "truth.nii.gz", *options).status == 1  # the mask lies elsewhere
    ran = run("evaluate", files / "truth.nii.gz", *options, "--fixed", tmp_path / "mask.nii.gz")
    assert ran.status == 0
    assert "sdlogj_mask" in json.loads(ran.out)
