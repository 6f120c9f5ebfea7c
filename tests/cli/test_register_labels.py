"""``convexadam register`` with labels as features."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from convexadam import RegistrationConfig, preset, register
from convexadam.features import LabelFeatures
from convexadam.io import read_itk_field

FAST = ("discrete.spacing=3", "discrete.radius=2", "linear='none'")


def _options(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


def test_labels_of_files(run: Any, files: Path, tmp_path: Path) -> None:
    images, labels = ([files / f"{name}{end}.nii.gz" for name in ("fixed", "moving")] for end in ("", "_labels"))
    given = ["--fixed-segmentation", labels[0], "--moving-segmentation", labels[1]]
    features = 'features={type="LabelFeatures", scale=2.0}'
    ran = run("register", *images, "--output-dir", tmp_path / "out", *given, *_options(*FAST, features))
    assert ran.status == 0, ran.error
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["config"]["features"] == {
        "type": "LabelFeatures",
        "scale": 2.0,
        "class_balance": 0.3,
        "include_background": False,
    }
    config = preset().with_settings(*FAST, features)
    assert config.features == LabelFeatures(scale=2.0)
    expected = register(*images, config, fixed_segmentation=labels[0], moving_segmentation=labels[1])
    found = read_itk_field(tmp_path / "out" / "transform.nii.gz").disp_mm
    assert found.any()
    assert torch.equal(found, expected.transform.disp_mm)
    plain = register(*images, RegistrationConfig().with_settings(*FAST))
    assert not torch.equal(found, plain.transform.disp_mm)


def test_probabilities_of_files(run: Any, files: Path, tmp_path: Path) -> None:
    images, maps = [files / "fixed.nii.gz", files / "moving.nii.gz"], []
    for name in ("fixed", "moving"):
        labels = nib.load(files / f"{name}_labels.nii.gz")
        soft = (np.asarray(labels.dataobj)[..., None] == np.arange(4)).astype(np.float32)
        maps.append(tmp_path / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(soft, labels.affine), maps[-1])
    given = ["--fixed-segmentation", maps[0], "--moving-segmentation", maps[1]]
    features = 'features={type="ProbabilityFeatures", include_background=true}'
    ran = run("register", *images, "--output-dir", tmp_path / "out", *given, *_options(*FAST, features))
    assert ran.status == 0, ran.error
    assert read_itk_field(tmp_path / "out" / "transform.nii.gz").disp_mm.any()


def test_labels_that_no_setting_compares(run: Any, files: Path, tmp_path: Path) -> None:
    labels = [files / f"{name}_labels.nii.gz" for name in ("fixed", "moving")]
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path / "out"]
    ran = run("register", *places, "--fixed-segmentation", labels[0], "--moving-segmentation", labels[1])
    assert ran.status == 1
    assert "fixed_segmentation and moving_segmentation must be used by the features" in ran.error
