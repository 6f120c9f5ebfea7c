"""What a registration returns."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._version import VERSION
from convexadam.errors import ConfigError, MissingExtraError
from convexadam.geometry import Affine, DisplacementField, Image, Transform
from convexadam.geometry.composite import invert_transform
from convexadam.geometry.conversion import ImageLike
from convexadam.io import atomic_path, convert_image
from convexadam.io.convert import parse_on_grid_of
from convexadam.linear import LinearFit
from convexadam.metrics import Evaluation, evaluate_transform
from convexadam.registration.config import RegistrationConfig
from convexadam.registration.files import SAVED, Output, save_result
from convexadam.registration.landmarks import parse_points_mm
from convexadam.registration.summary import summarise_result, tabulate_result
from convexadam.registration.toml import as_plain
from convexadam.viz import registration_figure
from convexadam.viz.html import or_text
from convexadam.viz.slices import choose_window

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
    estimated_inverse
        Moving to fixed space, estimated together with ``transform``; ``None`` unless the settings are ``symmetric`` and
        no level is ``forward_only``. The method `inverse` returns it, or computes an inverse.
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

    Examples
    --------
    >>> import torch
    >>> from convexadam import register
    >>> volume = torch.rand(16, 16, 16, generator=torch.Generator().manual_seed(0))
    >>> result = register(volume, volume)
    >>> result.moved.grid == result.fixed.grid, result.diagnostics["folded_percent"]
    (True, 0.0)
    """

    transform: DisplacementField | Affine
    fixed: Image
    moving: Image
    config: RegistrationConfig
    timings: dict[str, float]
    diagnostics: dict[str, float]
    estimated_inverse: Transform | None = None
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

    def to_napari(self, viewer: Any = None) -> Any:
        """Add the fixed, the moving and the moved image to a viewer of napari, each at its place in mm RAS+.

        Parameters
        ----------
        viewer
            A ``napari.Viewer``; ``None`` opens one.

        Returns
        -------
        The viewer.

        Raises
        ------
        MissingExtraError
            If napari is not installed.
        """
        if viewer is None:
            try:
                import napari
            except ImportError as error:
                raise MissingExtraError(
                    "napari must be installed for its viewer, got no such package; pip install napari"
                ) from error
            viewer = napari.Viewer()
        for name, image, colours in (
            ("fixed", self.fixed, "gray"),
            ("moving", self.moving, "magenta"),
            ("moved", self.moved, "green"),
        ):
            viewer.add_image(
                np.asarray(Image(image.data[:1], image.grid)),
                name=name,
                affine=image.grid.affine,
                contrast_limits=choose_window(image),
                colormap=colours,
                blending="additive",
                visible=name != "moving",
            )
        return viewer

    @check_arguments
    def evaluate(
        self,
        fixed_labels: ImageLike | None = None,
        moving_labels: ImageLike | None = None,
        *,
        labels: Iterable[int] | None = None,
        fixed_landmarks: Any = None,
        moving_landmarks: Any = None,
        mask: ImageLike | None = None,
        surface: bool = True,
    ) -> Evaluation:
        """Evaluate the transform, see `convexadam.metrics.evaluate_transform`.

        Parameters
        ----------
        fixed_labels, moving_labels
            Label maps of the fixed and of the moving image, in any form that `as_image` takes. Tensors and arrays lie
            on the grids of the images.
        labels
            Labels to evaluate; ``None`` for all that both maps have.
        fixed_landmarks, moving_landmarks
            The same points in both images, as `register` takes them: ``(n, 3)`` in mm RAS+, or files.
        mask
            Where the regularity is evaluated as well: a mask of the fixed image.
        surface
            Whether to compute surface distances, which takes most of the time.

        Raises
        ------
        InputError, GeometryError, ConfigError, FileError
            As `convexadam.metrics.evaluate_transform`.
        """
        maps = [
            None if value is None else parse_on_grid_of(image, value, f"{side}_labels", side)
            for side, value, image in (("fixed", fixed_labels, self.fixed), ("moving", moving_labels, self.moving))
        ]
        points_mm = [
            None if points is None else parse_points_mm(points, image.grid, side)
            for side, points, image in (
                ("fixed", fixed_landmarks, self.fixed),
                ("moving", moving_landmarks, self.moving),
            )
        ]
        return evaluate_transform(
            self.transform,
            fixed_labels=maps[0],
            moving_labels=maps[1],
            labels=labels,
            fixed_landmarks_mm=points_mm[0],
            moving_landmarks_mm=points_mm[1],
            mask=None if mask is None else parse_on_grid_of(self.fixed, mask, "mask", "fixed"),
            surface=surface,
            reference=self.fixed,
        )

    def _parse_pair(self, labels: tuple[ImageLike, ImageLike]) -> tuple[Image, Image]:
        """Return label maps of the fixed and of the moving image."""
        fixed = parse_on_grid_of(self.fixed, labels[0], "fixed_labels", "fixed")
        return fixed, parse_on_grid_of(self.moving, labels[1], "moving_labels", "moving")

    @check_arguments
    def plot(self, *, labels: tuple[ImageLike, ImageLike] | None = None, path: str | Path | None = None) -> Figure:
        """Draw the registration, see `convexadam.viz.registration_figure`.

        Parameters
        ----------
        labels
            Label maps of the fixed and of the moving image, whose outlines are drawn; ``None`` draws iso-contours.
        path
            Name of a PNG file to write as well.

        Returns
        -------
        A figure of matplotlib, which draws itself in a notebook; ``figure.savefig`` writes other formats.

        Raises
        ------
        FileError
            If the file cannot be written.
        MissingExtraError
            If matplotlib is not installed.
        """
        maps = None
        if labels is not None:
            fixed, moving = self._parse_pair(labels)
            maps = fixed, self.transform.warp(moving, self.fixed, mode="nearest")
        disp_mm = self.transform.to_displacement_field(self.fixed).disp_mm
        return registration_figure(self.fixed, self.moving, self.moved, disp_mm, labels=maps, path=path)

    def inverse(self) -> Transform:
        """Return the transform from moving to fixed space: `estimated_inverse` if there is one.

        Otherwise it is computed once, and kept: exactly for an `Affine`, else on the grid of the moving image (see
        `DisplacementField.inverse`).

        Warns
        -----
        UserWarning
            If the transform has no inverse to within half a voxel, since it folds.
        """
        return self._computed_inverse if self.estimated_inverse is None else self.estimated_inverse

    @cached_property
    def _computed_inverse(self) -> Transform:
        return invert_transform(self.transform, self.moving.grid)

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
    def report(self, path: str | Path, *, labels: tuple[ImageLike, ImageLike] | None = None) -> None:
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
            labels=None if labels is None else self._parse_pair(labels),
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
    def save(
        self,
        folder: str | Path,
        *,
        outputs: tuple[Output, ...] = SAVED,
        labels: ImageLike | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> list[Path]:
        """Write the transform, the moved image and the summary, as ``convexadam register`` does.

        Parameters
        ----------
        folder
            It is made if it is missing. Existing files are replaced, each after the new one is complete.
        outputs
            Of ``"transform"`` (``transform.nii.gz``, or ``transform.tfm`` of an `Affine`), ``"inverse"``
            (``inverse_transform...``) and ``"moved"`` (``moved.nii.gz``). ``report.json`` is always written.
        labels
            Label map of the moving image, which is warped and written as ``moved_labels.nii.gz``.
        extra
            Further keys of ``report.json``.

        Returns
        -------
        The files that were written.

        Raises
        ------
        ConfigError
            If there is no such output.
        FileError
            If they cannot be written.
        """
        maps = None if labels is None else parse_on_grid_of(self.moving, labels, "labels", "moving")
        return save_result(self, Path(folder), (*outputs, "labels"), labels=maps, extra=extra)

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
    from convexadam.report.overview import make_overview

    rows = tabulate_result(result)
    return make_overview("RegistrationResult", result.transform, result.fixed, result.moving, rows)


def _plain(fit: LinearFit) -> dict[str, Any]:
    return {**vars(fit), "transform": fit.transform.matrix.tolist()}
