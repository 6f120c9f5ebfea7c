"""``convexadam register`` with an exported extractor as features."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from convexadam import preset, register
from convexadam.features import TorchScriptFeatures
from convexadam.io import read_itk_field

FAST = ("discrete.spacing=3", "discrete.radius=2", "linear='none'")


class Smooth(torch.nn.Module):
    """Means of what is around a voxel."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 4 * torch.nn.functional.avg_pool3d(x, 3, stride=1, padding=1)


def test_a_file_of_torchscript(run: Any, files: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit as a whole
        torch.jit.trace(Smooth(), torch.rand(1, 1, 8, 8, 8)).save(tmp_path / "smooth.pt")
    images = [files / "fixed.nii.gz", files / "moving.nii.gz"]
    features = f"features={{type=\"TorchScriptFeatures\", path='{tmp_path / 'smooth.pt'}', patch=20, overlap=8}}"
    options = [word for setting in (*FAST, features) for word in ("--set", setting)]
    ran = run("register", *images, "--output-dir", tmp_path / "out", *options)
    assert ran.status == 0, ran.error
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["config"]["features"]["type"] == "TorchScriptFeatures"
    config = preset().with_settings(*FAST, features)
    assert config.features == TorchScriptFeatures(path=str(tmp_path / "smooth.pt"), patch=20, overlap=8)
    found = read_itk_field(tmp_path / "out" / "transform.nii.gz").disp_mm
    # Files hold float32, whose rounding is all that differs.
    torch.testing.assert_close(found, register(*images, config).transform.disp_mm, rtol=1e-5, atol=1e-4)
    assert found.abs().max() > 3


def test_a_file_that_is_missing(run: Any, files: Path, tmp_path: Path) -> None:
    images = [files / "fixed.nii.gz", files / "moving.nii.gz"]
    missing = ["--set", 'features={type="TorchScriptFeatures", path="missing.pt"}', "--set", "linear='none'"]
    ran = run("register", *images, "--output-dir", tmp_path / "out", *missing)
    assert ran.status == 1
    assert "cannot read missing.pt" in ran.error
