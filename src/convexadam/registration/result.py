"""What a registration returns."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._version import VERSION
from convexadam.errors import ConfigError
from convexadam.geometry import Affine, DisplacementField, Image, Transform
from convexadam.io import atomic_path, convert_image
from convexadam.linear import LinearFit
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.summary import summarise_result, tabulate_result
from convexadam.registration.toml import as_plain
from convexadam.viz import registration_figure
from convexadam.viz.html import or_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # annotations can be resolved without matplotlib
    Figure = object


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class RegistrationResult:
    """A transform, and how it was estimated.

    Attributes
    ----------
    transform
        Fixed to moving space, in mm RAS+: a field on the fixed image's grid, or an `Affine` if the linear alignment was
        the only stage.
    inverse
        Moving to fixed space, estimated together with ``transform``; ``None`` unless the settings are ``symmetric``.
        (`transform.inverse()` computes the inverse of any transform.)
    fixed, moving
        The registered images.
    config
        The settings.
    timings
        Time of each stage that ran, in seconds.
    diagnostics
        ``dissimilarity_before``/``_after`` (mean squared feature difference summed over channels, before any repair of
        folds), ``overlap_percent`` (share of the volume with weight in both images), ``folded_percent`` (voxels with a
        Jacobian determinant <= 0), ``jacobian_min``/``_max``, ``displacement_mean_mm``/``_max_mm``, all over all voxels
        (`convexadam.metrics` excludes the outermost ones, as Learn2Reg does), ``repaired_voxels`` (whose displacement
        was changed because the field folded at or near them; 0 if the parametrisation is not ``fold_free``) and
        ``repaired_largest_mm`` (largest such change). With landmarks also ``landmarks_used``, ``landmarks_outside`` (of
        the fixed image; ignored) and ``landmark_error_mean_mm``/``_max_mm`` after registration.
    linear
        Result of the linear alignment, which ``transform`` includes; ``None`` if it did not run.
    backend
        Which implementation ran: ``"reference"``, ``"cpu"`` or ``"triton"``.
    moving_type
        Class of the moving image that was passed; `Image` for a path.
    """

    transform: DisplacementField | Affine
    fixed: Image
    moving: Image
    config: RegistrationConfig
    timings: dict[str, float]
    diagnostics: dict[str, float]
    inverse: Transform | None = None
    linear: LinearFit | None = None
    backend: str = "reference"
    moving_type: type = Image

    def __repr__(self) -> str:
        """Transform, diagnostics and time, on one line."""
        return f"RegistrationResult({summarise_result(self)})"

    def _repr_html_(self) -> str:
        """Return what a notebook shows: slices before and after, the figures that matter, and the time."""
        return _make_html(self)

    @property
    def moved(self) -> Image:
        """The moving image on the fixed grid, interpolated linearly; computed anew at each access.

        Whole numbers (a CT in int16, say) are interpolated as well, and rounded; warp label maps with
        ``transform.warp``.
        """
        return self.transform.warp(
            self.moving, self.fixed, mode="linear", fill_value=float(self.moving.data.detach().min())
        )

    @check_arguments
    def plot(self, *, labels: tuple[Image, Image] | None = None) -> Figure:
        """Draw the registration, see `convexadam.viz.registration_figure`.

        Parameters
        ----------
        labels
            Label maps of the fixed and of the moving image, whose outlines are drawn; ``None`` draws iso-contours.

        Returns
        -------
        A figure of matplotlib, which draws itself in a notebook; ``figure.savefig`` writes a file.

        Raises
        ------
        MissingExtraError
            If matplotlib is not installed.
        """
        maps = None if labels is None else (labels[0], self.transform.warp(labels[1], self.fixed, mode="nearest"))
        disp_mm = self.transform.to_displacement_field(self.fixed).disp_mm
        return registration_figure(self.fixed, self.moving, self.moved, disp_mm, labels=maps)

    def to_type(self, kind: type | None = None) -> Any:
        """Return `moved` as an object of another package.

        Parameters
        ----------
        kind
            A class, as `convexadam.io.convert_image` takes it; ``None`` takes the class of the moving image that was
            passed: a nibabel image for a nibabel image, an array for an array, and an `Image` for a file.

        Raises
        ------
        ConfigError
            If there is no conversion to that class.
        """
        return convert_image(self.moved, self.moving_type if kind is None else kind)

    def summary(self) -> dict[str, Any]:
        """Everything but the volumes, as plain values that JSON can hold."""
        return {
            "config": {name: as_plain(part) for name, part in vars(self.config).items()},
            "settings_toml": self._settings_toml(),
            "timings": {**self.timings, "total": sum(self.timings.values())},
            "linear": None if self.linear is None else _plain(self.linear),
            "diagnostics": dict(self.diagnostics),
            "fixed": self.fixed.grid.summary(),
            "moving": self.moving.grid.summary(),
            "device": str(self.fixed.data.device),
            "backend": self.backend,
            "versions": {
                "convexadam": VERSION,
                "torch": torch.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }

    @check_arguments
    def report(self, path: str | Path, *, labels: tuple[Image, Image] | None = None) -> None:
        """Write an HTML page that shows the registration and its quality.

        Parameters
        ----------
        path
            An existing file is replaced after the new one is complete.
        labels
            Label maps of the fixed and of the moving image, whose outlines are drawn; ``None`` draws iso-contours.

        Raises
        ------
        FileError
            If the file cannot be written.
        MissingExtraError
            If matplotlib is not installed.
        """
        from convexadam.report import PairReport, judge_quality, measure_quality, write_pair_page

        measures = measure_quality(self, self.fixed, self.moving)
        page = PairReport(
            title=Path(path).stem,
            transform=self.transform,
            fixed=self.fixed,
            moving=self.moving,
            labels=labels,
            measures=measures,
            verdict=judge_quality(measures),
            summary=self.summary(),
        )
        write_pair_page(page, path)

    def _settings_toml(self) -> str | None:
        """Return the settings as ``--config`` takes them; ``None`` if one of them is a function."""
        try:
            return self.config.to_toml()
        except ConfigError:
            return None

    @check_arguments
    def save_summary(self, path: str | Path, *, extra: Mapping[str, Any] | None = None) -> None:
        """Write `summary` as JSON (all of it, or nothing), with the keys of ``extra``.

        Raises
        ------
        FileError
            If the folder is missing or the file cannot be written.
        """
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps({**self.summary(), **(extra or {})}, indent=2) + "\n", encoding="utf-8")


@or_text
def _make_html(result: RegistrationResult) -> str:
    from convexadam.report import make_overview

    rows = tabulate_result(result)
    return make_overview("RegistrationResult", result.transform, result.fixed, result.moving, rows)


def _plain(fit: LinearFit) -> dict[str, Any]:
    return {**vars(fit), "transform": fit.transform.matrix.tolist()}
