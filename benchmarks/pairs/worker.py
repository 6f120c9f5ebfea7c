"""Shared by the workers of other tools: the job, the geometry of ITK, and the format of the field.

A tool is a function of both volumes that returns two functions: the first one registers, and only this is timed; the
second one converts its result to displacements ``(i, j, k, 3)`` in voxels of the fixed grid, fixed to moving, component
``a`` along axis ``a`` of the array.
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
    """Voxels, and the affine from their indices to mm RAS+."""

    data: np.ndarray
    affine: np.ndarray


Result: TypeAlias = Any
Tool: TypeAlias = Callable[[Volume, Volume], tuple[Callable[[], Result], Callable[[Result], np.ndarray]]]


def main(tool: Tool, package: str) -> None:
    """Register the arrays of the job; write a field in voxels, and the measurements."""
    job = harness.read_job()
    small = Volume(np.random.default_rng(0).random((32, 32, 32), dtype=np.float32), np.eye(4))
    tool(small, small)[0]()  # the first call, which loads libraries, does not count
    fixed, moving = (Volume(np.load(job[name]), np.array(job[f"{name}_affine"])) for name in ("fixed", "moving"))
    register, to_displacement = tool(fixed, moving)
    result, measured = harness.timed(register, job["repeat"])
    field = np.ascontiguousarray(to_displacement(result), dtype=np.float32)
    nibabel.save(nibabel.Nifti1Image(field, fixed.affine), job["field"])
    measured["version"] = harness.installed_version(package)
    Path(job["measured"]).write_text(json.dumps(measured), encoding="utf-8")


def get_lps_geometry(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return origin, spacing and direction in the convention of ITK, LPS."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    return lps[:3, 3], spacing, lps[:3, :3] / spacing


def convert_lps_to_voxels(displacement: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Convert displacements ``(…, 3)`` in mm LPS to voxels along the axes of the array."""
    _, spacing, direction = get_lps_geometry(affine)
    scale_to_voxels: np.ndarray = displacement @ np.linalg.inv(direction * spacing).T
    return scale_to_voxels


def make_ants_image(volume: Volume) -> Any:
    """Convert a volume to an image of ANTsPy."""
    import ants

    origin, spacing, direction = get_lps_geometry(volume.affine)
    return ants.from_numpy(volume.data, origin=origin.tolist(), spacing=spacing.tolist(), direction=direction)


def make_simpleitk_image(volume: Volume) -> Any:
    """Convert a volume to an image of SimpleITK, whose arrays have the order k, j, i."""
    import SimpleITK as sitk  # noqa: N813 - its usual name

    image = sitk.GetImageFromArray(np.ascontiguousarray(volume.data.transpose()))
    origin, spacing, direction = get_lps_geometry(volume.affine)
    image.SetOrigin(origin.tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection(direction.ravel().tolist())
    return image


def convert_simpleitk_field(field: Any, affine: np.ndarray) -> np.ndarray:
    """Convert a displacement field of SimpleITK to voxels."""
    import SimpleITK as sitk  # noqa: N813

    return convert_lps_to_voxels(sitk.GetArrayFromImage(field).transpose(2, 1, 0, 3), affine)
