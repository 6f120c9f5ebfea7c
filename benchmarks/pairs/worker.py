"""What the workers of other tools share: the job, the geometry of ITK, and the field that the judge takes.

A tool is a function that takes both volumes and returns two others: one registers, and only that is timed; the other
turns what it found into displacements ``(i, j, k, 3)`` in voxels of the fixed grid, fixed to moving, component ``a``
along axis ``a`` of the array.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import nibabel
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import harness


class Volume(NamedTuple):
    """Voxels, and the affine that takes their indices to mm RAS+."""

    data: np.ndarray
    affine: np.ndarray


Found: TypeAlias = Any
Tool: TypeAlias = Callable[[Volume, Volume], tuple[Callable[[], Found], Callable[[Found], np.ndarray]]]


def main(tool: Tool, package: str) -> None:
    """Register the arrays of the job; leaves a field in voxels and what was measured."""
    job = harness.read_job()
    small = Volume(np.random.default_rng(0).random((24, 24, 24), dtype=np.float32), np.eye(4))
    tool(small, small)[0]()  # what the first call loads is not counted
    fixed, moving = (Volume(np.load(job[name]), np.array(job[f"{name}_affine"])) for name in ("fixed", "moving"))
    register, displacement = tool(fixed, moving)
    found, measured = harness.timed(register, job["repeat"])
    field = np.ascontiguousarray(displacement(found), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(field, fixed.affine), job["field"])
    measured["version"] = harness.installed_version(package)
    Path(job["measured"]).write_text(json.dumps(measured), encoding="utf-8")


def lps_geometry(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origin, spacing and direction of ITK, whose mm point to the left, to the back and up."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return lps[:3, 3], spacing, lps[:3, :3] / spacing


def voxels_from_lps(displacement: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Turn displacements ``(…, 3)`` in mm LPS into voxels along the axes of the array."""
    _, spacing, direction = lps_geometry(affine)
    found: np.ndarray = displacement @ np.linalg.inv(direction * spacing).T
    return found


def simpleitk_image(volume: Volume) -> Any:
    """Return a volume as SimpleITK has it; its arrays are in the order k, j, i."""
    import SimpleITK as sitk  # noqa: N813 - its usual name

    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.transpose()))
    origin, spacing, direction = lps_geometry(volume.affine)
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def voxels_from_simpleitk(field: Any, affine: np.ndarray) -> np.ndarray:
    """Turn a displacement field of SimpleITK into voxels."""
    import SimpleITK as sitk  # noqa: N813

    return voxels_from_lps(sitk.GetArrayFromImage(field).transpose(2, 1, 0, 3), affine)
