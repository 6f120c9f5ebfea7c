"""What a result says of itself: one line, and the rows of a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from convexadam.geometry import Affine
from convexadam.geometry.matrices import decompose_matrix
from convexadam.linear import LinearFit
from convexadam.linear.centres import geometric_centre

if TYPE_CHECKING:
    from convexadam.geometry import Grid
    from convexadam.registration.result import RegistrationResult


def summarise_result(result: RegistrationResult) -> str:
    """Return the transform, its diagnostics and the time on one line."""
    found = result.diagnostics
    kind = result.linear.model if isinstance(result.transform, Affine) and result.linear else "deformable"
    return (
        f"{kind}, displacement up to {found['displacement_max_mm']:.3g} mm, {found['folded_percent']:.3g} % folded, "
        f"dissimilarity {found['dissimilarity_before']:.3g} -> {found['dissimilarity_after']:.3g}, "
        f"{sum(result.timings.values()):.3g} s on {result.fixed.data.device}"
    )


def tabulate_result(result: RegistrationResult) -> dict[str, str]:
    """Return names and values of the figures that matter."""
    found, seconds = result.diagnostics, result.timings
    rows = {
        "dissimilarity": f"{found['dissimilarity_before']:.4g} before, {found['dissimilarity_after']:.4g} after",
        "displacement": f"{found['displacement_mean_mm']:.3g} mm (mean), up to {found['displacement_max_mm']:.3g} mm",
        "volume change": f"Jacobian determinant {found['jacobian_min']:.3g} to {found['jacobian_max']:.3g}, "
        f"{found['folded_percent']:.4g} % folded voxels",
        "overlap": f"{found['overlap_percent']:.3g} % of the volume",
        "linear alignment": describe_alignment(result.linear, result.fixed.grid),
    }
    if "landmark_error_mean_mm" in found:
        mean_mm, max_mm = found["landmark_error_mean_mm"], found["landmark_error_max_mm"]
        rows["landmarks"] = f"error {mean_mm:.3g} mm (mean), {max_mm:.3g} mm (largest)"
    stages = ", ".join(f"{name} {value:.2g}" for name, value in seconds.items())
    return rows | {
        "settings": repr(result.config),
        "time": f"{sum(seconds.values()):.3g} s on {result.fixed.data.device} ({stages})",
    }


def describe_alignment(fit: LinearFit | None, fixed: Grid) -> str:
    """Return what the linear alignment found, in words."""
    if fit is None:
        return "none"
    matrix, centre = fit.transform.matrix, geometric_centre(fixed)
    if not fit.accepted:
        kept = "identity" if np.array_equal(matrix, np.eye(4)) else "initial transform"
        return f"{kept} kept (nothing better found)"
    shift_mm = np.linalg.norm(matrix[:3, :3] @ centre + matrix[:3, 3] - centre)
    degrees = decompose_matrix(matrix)["rotation_degrees"]
    return (
        f"{fit.model}, rotation {degrees:.1f} degrees, translation of the centre {shift_mm:.1f} mm, "
        f"dissimilarity {fit.dissimilarity_before:.3f} -> {fit.dissimilarity_after:.3f}"
    )
