"""Our numbers are those of an independent evaluation script, on real pairs under a synthetic smooth field.

Neither can be redistributed: CONVEXADAM_DATA names the folder of the pairs, and CONVEXADAM_JUDGE the script.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from convexadam.geometry import DisplacementField, Image
from convexadam.io import read_image, read_landmarks
from convexadam.metrics import evaluate_transform

pytestmark = [
    pytest.mark.real,
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),  # the script leaves its files to the collector
]


@pytest.fixture(scope="module")
def judge() -> Any:
    script = os.environ.get("CONVEXADAM_JUDGE")
    if not script or not Path(script).is_file():
        pytest.skip(f"there is no evaluation script ({script}); set CONVEXADAM_JUDGE to it")
    spec = importlib.util.spec_from_file_location("judge", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pair(pairs: Path, name: str) -> Path:
    folder = pairs / name
    if not (folder / "fixed.nii.gz").is_file():
        pytest.skip(f"the pair {name} is not in {pairs}")
    return folder


def smooth_field(shape: tuple[int, int, int], size: float) -> np.ndarray:
    """Low waves, folded in places; ``[i, j, k, 3]`` float32, in voxels.

    Every value is an odd multiple of 2^-11 voxel, so that float32 holds all positions exactly and none lies within
    2^-11 of the border between two voxels: nearest neighbours do not depend on anyone's rounding.
    """
    rng = np.random.default_rng(0)
    axes = [np.linspace(0, 2 * np.pi, n).reshape([-1 if a == b else 1 for b in range(3)]) for a, n in enumerate(shape)]
    field = np.zeros((*shape, 3))
    for component in range(3):
        for waves in (1, 2, 5):
            phases = rng.uniform(0, 2 * np.pi, 3)
            parts = [np.sin(waves * x + phase) for x, phase in zip(axes, phases, strict=True)]
            field[..., component] += size * parts[0] * parts[1] * parts[2]
    return ((2 * np.round(field * 2**10) + 1) / 2**11).astype(np.float32)


def both(
    judge: Any, folder: Path, tmp_path: Path, size: float, **paths: Any
) -> tuple[dict[str, Any], DisplacementField]:
    fixed = read_image(folder / "fixed.nii.gz")
    disp = smooth_field(fixed.grid.shape, size)
    nibabel.save(nibabel.Nifti1Image(disp, fixed.grid.affine), tmp_path / "disp.nii")
    expected = judge.evaluate(folder / "fixed.nii.gz", folder / "moving.nii.gz", tmp_path / "disp.nii", **paths)
    disp_vox = torch.from_numpy(disp.astype(np.float64)).permute(3, 0, 1, 2)
    return expected, DisplacementField.from_voxels(disp_vox, fixed.grid)


def assert_same(found: Any, expected: dict[str, Any], names: dict[str, str]) -> None:
    ours = {key: found[key] for key in names}
    assert ours == pytest.approx({key: expected[theirs] for key, theirs in names.items()}, rel=1e-6)


REGULARITY = {
    "sdlogj": "sdlogj_l2r",
    "sdlogj_plain": "sdlogj_plain",
    "sdlogj_mask": "sdlogj_l2r_mask",
    "folded_percent": "folding_pct",
    "folded_percent_mask": "folding_pct_mask",
    "jacobian_min": "jac_min",
    "jacobian_max": "jac_max",
    "displacement_max_mm": "disp_max_mm",
}


def cut_free(image: Image) -> Image:
    """Clear the outer voxels: for the script the field of view ends at their centres, for us at their far sides."""
    data = image.data.clone()
    for axis in range(1, 4):
        data.narrow(axis, 0, 1).zero_()
        data.narrow(axis, data.shape[axis] - 1, 1).zero_()
    return Image(data, image.grid)


def test_lung(judge: Any, real_pairs: Path, tmp_path: Path) -> None:
    folder = pair(real_pairs, "lung_ct_elastix")
    grid = read_image(folder / "fixed.nii.gz").grid
    moving_mask = cut_free(read_image(folder / "moving_mask.nii.gz"))
    nibabel.save(nibabel.Nifti1Image(moving_mask.numpy(), grid.affine), tmp_path / "moving_mask.nii")
    expected, transform = both(
        judge, folder, tmp_path, size=3.0,
        fixed_label=folder / "fixed_mask.nii.gz", moving_label=tmp_path / "moving_mask.nii",
        lm_fixed=folder / "fixed_landmarks.csv", lm_moving=folder / "moving_landmarks.csv",
        mask=folder / "fixed_mask.nii.gz",
    )  # fmt: skip
    mask = read_image(folder / "fixed_mask.nii.gz")
    found = evaluate_transform(
        transform,
        fixed_labels=mask,
        moving_labels=moving_mask,
        fixed_landmarks_mm=grid.index_to_world(read_landmarks(folder / "fixed_landmarks.csv")),
        moving_landmarks_mm=grid.index_to_world(read_landmarks(folder / "moving_landmarks.csv")),
        mask=mask,
    )
    landmarks = {
        "n_landmarks": "n_landmarks",
        "tre_mm": "tre_mean_mm",
        "tre_before_mm": "tre_mean_before_mm",
        "tre30_mm": "tre30_mm",
        "dice": "dice_mean",
        "dice_before": "dice_mean_before",
        "hd95_mm": "hd95_mean_mm",
        "hd95_before_mm": "hd95_mean_mm_before",
    }
    assert expected["folding_pct"] > 0.01  # the case tells something
    assert_same(found, expected, REGULARITY | landmarks)


def test_brain(judge: Any, real_pairs: Path, tmp_path: Path) -> None:
    folder = pair(real_pairs, "brain_t1_vxm")
    labels = [int(word) for word in (folder / "eval_labels.txt").read_text().split()]
    names = {"fixed_label": "fixed_label.nii.gz", "moving_label": "moving_label.nii.gz", "mask": "fixed_mask.nii.gz"}
    paths = {key: folder / name for key, name in names.items()}
    expected, transform = both(judge, folder, tmp_path, size=1.5, labels_only=labels, **paths)
    found = evaluate_transform(
        transform,
        fixed_labels=read_image(paths["fixed_label"]),
        moving_labels=read_image(paths["moving_label"]),
        labels=labels,
        mask=read_image(paths["mask"]),
    )
    overlap = {
        "n_labels": "n_labels",
        "dice": "dice_mean",
        "dice_before": "dice_mean_before",
        "dice30": "dice30",
        "dice30_before": "dice30_before",
        "hd95_mm": "hd95_mean_mm",
        "hd95_before_mm": "hd95_mean_mm_before",
    }
    assert found["n_labels"] == len(labels) == 30
    assert_same(found, expected, REGULARITY | overlap)
    # The script rounds its lists.
    assert found["dice_per_label"] == pytest.approx(expected["dice_per_label"], abs=0.51e-4)
    assert found["hd95_per_label_mm"] == pytest.approx(expected["hd95_per_label_mm"], abs=0.51e-3)
