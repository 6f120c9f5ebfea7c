"""``convexadam register`` with landmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from convexadam import preset, read_image, register
from convexadam.io import read_itk_field, read_landmarks

FAST = ("discrete.spacing=3", "discrete.radius=2", "landmarks.sigma_mm=20")


def test_landmarks_of_files(run: Any, files: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", files / "moving.nii.gz"]
    options = [word for setting in FAST for word in ("--set", setting)]
    points = ["--fixed-landmarks", files / "fixed.csv", "--moving-landmarks", files / "moving.csv"]
    ran = run("register", *places, "--output-dir", tmp_path, *points, *options, "--landmarks.weight", 2)
    assert ran.status == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert report["config"]["landmarks"] == {
        "type": "LandmarkTerm",
        "weight": 2,
        "sigma_mm": 20,
        "robust_scale_mm": None,
    }
    grid = read_image(places[0]).grid
    at_mm, there_mm = (grid.index_to_world(read_landmarks(files / f"{name}.csv")) for name in ("fixed", "moving"))
    config = preset().with_settings(*FAST, "landmarks.weight=2")
    expected = register(*places, config, fixed_landmarks=at_mm, moving_landmarks=there_mm)
    assert torch.equal(read_itk_field(tmp_path / "transform.nii.gz").disp_mm, expected.transform.disp_mm)
    assert report["diagnostics"]["landmarks_used"] == len(at_mm)
    assert report["diagnostics"]["landmark_error_mean_mm"] < 5


def test_one_list_alone(run: Any, files: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path]
    ran = run("register", *places, "--fixed-landmarks", files / "fixed.csv")
    assert ran.status == 1
    assert "fixed_landmarks and moving_landmarks must be given together, got fixed_landmarks alone" in ran.error
