"""What a registration returns."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from convexadam._version import VERSION
from convexadam.geometry import DisplacementField, Image, Transform
from convexadam.io import atomic_path, image_as
from convexadam.linear import LinearFit
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.saved import as_plain


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class RegistrationResult:
    """A transform, and how it came about.

    Attributes
    ----------
    transform
        Fixed to moving space, in mm RAS+, on the fixed image's grid.
    inverse
        Moving to fixed space, estimated along with ``transform``; ``None`` unless the settings are ``symmetric``. Any
        transform has an ``inverse()`` of its own, found afterwards.
    fixed, moving
        The images as they were registered.
    config
        The settings.
    seconds
        Time of each stage, in s.
    diagnostics
        ``feature_difference_before``/``_after`` (mean over the image of the squared feature difference, lower is more
        alike; before any repair), ``compared_percent`` (share of the volume with evidence in both images),
        ``folded_percent`` (voxels with a Jacobian determinant <= 0), ``jacobian_min``/``_max``,
        ``displacement_mean_mm``/``_max_mm``, all over all voxels (`convexadam.metrics` leaves out the outer ones, as
        Learn2Reg does), ``repaired_voxels`` (whose displacement was changed because the field folded at or near them;
        0 where the parametrisation is not ``fold_free``) and ``repaired_largest_mm`` (by how much at most). With
        landmarks also ``landmarks_used``, ``landmarks_outside`` (of the fixed image; left out) and
        ``landmark_error_mean_mm``/``_max_mm``: how far those used are apart in the end.
    linear
        What the linear alignment found, which ``transform`` begins with; ``None`` where it did not run.
    backend
        Which implementation ran: ``"reference"``, ``"cpu"`` or ``"triton"``.
    moving_kind
        The class of what was registered as the moving image; `Image` where a path came.
    """

    transform: DisplacementField
    fixed: Image
    moving: Image
    config: RegistrationConfig
    seconds: dict[str, float]
    diagnostics: dict[str, float]
    inverse: Transform | None = None
    linear: LinearFit | None = None
    backend: str = "reference"
    moving_kind: type = Image

    @property
    def moved(self) -> Image:
        """The moving image on the fixed grid, interpolated linearly; computed anew at each access.

        Whole numbers (a CT in int16, say) are interpolated as well, and rounded; warp label maps with
        ``transform.warp``.
        """
        return self.transform.warp(self.moving, mode="linear", background=float(self.moving.data.detach().min()))

    def moved_as(self, kind: type | None = None) -> Any:
        """Return `moved` as an object of another package.

        Parameters
        ----------
        kind
            A class, as `convexadam.io.image_as` takes it; ``None``: what came in as the moving image decides, so that a
            nibabel image comes out where one went in, an array where an array did. Files give an `Image`.

        Raises
        ------
        ConfigError
            If nothing of that kind can be made.
        """
        return image_as(self.moved, self.moving_kind if kind is None else kind)

    def report(self) -> dict[str, Any]:
        """Everything but the volumes, as plain values that JSON can hold."""
        return {
            "config": {name: as_plain(part) for name, part in vars(self.config).items()},
            "seconds": {**self.seconds, "total": sum(self.seconds.values())},
            "linear": None if self.linear is None else _plain(self.linear),
            "diagnostics": dict(self.diagnostics),
            "fixed": self.fixed.grid.described(),
            "moving": self.moving.grid.described(),
            "device": str(self.fixed.data.device),
            "backend": self.backend,
            "seed": None,  # what is drawn at random has its seed among the settings
            "versions": {
                "convexadam": VERSION,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }

    def save_report(self, path: str | Path) -> None:
        """Write `report` as JSON (all of it, or nothing).

        Raises
        ------
        FileError
            If the folder is missing or the file cannot be written.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(self.report(), indent=2) + "\n", encoding="utf-8")


def _plain(fit: LinearFit) -> dict[str, Any]:
    return {**vars(fit), "transform": fit.transform.matrix.tolist()}
