"""Figures of registrations. Matplotlib is imported within the functions; ``pyplot`` is not used."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convexadam._arguments import check_arguments
from convexadam._typing import Field
from convexadam.errors import GeometryError, InputError, MissingExtraError
from convexadam.geometry.grid import HEADER_ROUNDING
from convexadam.geometry.image import Image
from convexadam.io import atomic_path
from convexadam.viz.slices import (
    IN_PLANE,
    NORMAL,
    PLANES,
    Window,
    apply_window,
    make_checkerboard,
    pixel_aspect,
    robust_window,
    take_slice,
    to_canonical,
    to_canonical_field,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # annotations can be resolved without matplotlib
    Axes = Figure = object

_PIXELS_PER_INCH = 110
_PANEL_INCH = 2.5


@check_arguments
def registration_figure(
    fixed: Image, moving: Image, moved: Image, disp_mm: Field | None = None, *, path: Path | str | None = None
) -> Figure:
    """Draw a registration: three orthogonal middle slices, before and after.

    Rows are the axial, coronal and sagittal slices through the middle of the volume, in radiological convention: the
    patient's right is on the left of the axial and coronal slices, anterior is at the top of the axial slice and on the
    left of the sagittal slice, superior is at the top of the coronal and sagittal slices. Oblique volumes are shown
    along the axes closest to R, A and S.

    Columns are the fixed, moving and moved image; a checkerboard of fixed and moved; the absolute difference to the
    fixed image before and after, as a fraction of the window; and, with ``disp_mm``, the length of the displacement in
    mm with the deformed grid (the lines of the fixed grid mapped by the transform). Differences are not meaningful
    between images of different contrast.

    Parameters
    ----------
    fixed, moving, moved
        Images on the same grid; the first channel is drawn. Resample a moving image on another grid to the fixed grid
        first.
    disp_mm
        ``[3, i, j, k]``, displacement of each voxel along R, A and S, in mm, fixed to moving.
    path
        Name of a PNG file to write. An existing file is replaced after the new one is complete.

    Returns
    -------
    The figure; ``figure.savefig`` writes other formats.

    Raises
    ------
    GeometryError
        If the images are not on one grid, or ``disp_mm`` does not fit it.
    InputError
        If an image holds no finite value.
    FileError
        If the file cannot be written.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> import torch
    >>> from convexadam.geometry import Grid
    >>> image = Image(torch.rand(1, 12, 10, 8), Grid((12, 10, 8)))
    >>> figure = registration_figure(image, image, image)
    >>> len(figure.axes)
    18
    """
    _check_inputs(fixed, moving, moved, disp_mm)
    columns = 7 if disp_mm is not None else 6
    figure = new_figure((columns * _PANEL_INCH, 3 * _PANEL_INCH))
    figure.subplots(3, columns, squeeze=False)
    volumes = [to_canonical(image) for image in (fixed, moving, moved)]
    before = robust_window(volumes[1])
    windows = [robust_window(volumes[0]), before, before]
    field = None if disp_mm is None else to_canonical_field(disp_mm, fixed)
    scene = _Scene(volumes=volumes, windows=windows, field=field, spacing_mm=fixed.grid.canonical().spacing_mm)
    for row in range(len(PLANES)):
        _draw_row(figure, row, scene)
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png")
    return figure


def _check_inputs(fixed: Image, moving: Image, moved: Image, disp_mm: Field | None) -> None:
    for name, image in (("moving", moving), ("moved", moved)):
        if not image.grid.is_close(fixed.grid, tolerance=HEADER_ROUNDING):
            raise GeometryError(
                f"{name} must be on the grid of the fixed image {fixed.grid!r}, got {image.grid!r}; resample it to the "
                "fixed grid"
            )
    if disp_mm is not None and tuple(disp_mm.shape) != (3, *fixed.grid.shape):
        raise GeometryError(
            f"disp_mm must have shape {(3, *fixed.grid.shape)}, got {tuple(disp_mm.shape)}; resample it"
        )
    for name, image in (("fixed", fixed), ("moving", moving), ("moved", moved)):
        if not bool(image.data[0].isfinite().any()):
            raise InputError(f"{name} must have a finite value, got only NaN or Inf; check its file")


def new_figure(inches: tuple[float, float]) -> Figure:
    """Return an empty figure without a window.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        hint = 'pip install "convexadam-torch[report]"'
        raise MissingExtraError(f"matplotlib must be installed for figures, got no such package; {hint}") from error
    figure = Figure(figsize=inches, dpi=_PIXELS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _middle_slice(volume: np.ndarray, plane: str) -> np.ndarray:
    return take_slice(volume, plane, volume.shape[-3:][NORMAL[plane]] // 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scene:
    """Fixed, moving and moved volume with their windows, and the field, all in axis order R, A, S."""

    volumes: list[np.ndarray]
    windows: list[Window]
    field: np.ndarray | None
    spacing_mm: tuple[float, float, float]


def _draw_row(figure: Figure, row: int, scene: _Scene) -> None:
    plane = PLANES[row]
    columns = len(figure.axes) // 3
    axes = figure.axes[row * columns : (row + 1) * columns]
    fixed, moving, moved = (
        apply_window(_middle_slice(v, plane), w) for v, w in zip(scene.volumes, scene.windows, strict=True)
    )
    aspect = pixel_aspect(plane, scene.spacing_mm)
    pictures = {
        "fixed": fixed,
        "moving": moving,
        "moved": moved,
        "fixed / moved\n(checkerboard)": make_checkerboard(fixed, moved, aspect),
        "|fixed - moving|\n(share of window)": np.abs(fixed - moving),
        "|fixed - moved|\n(share of window)": np.abs(fixed - moved),
    }
    for number, (axis, (title, picture)) in enumerate(zip(axes, pictures.items(), strict=False)):
        shades = "magma" if title.startswith("|") else "gray"
        axis.imshow(picture, cmap=shades, vmin=0, vmax=1, aspect=aspect, interpolation="nearest")
        window = "\n{:.4g} to {:.4g}".format(*scene.windows[number]) if number < 3 else ""
        _label_axis(axis, f"{title}{window}" if row == 0 else "", plane if number == 0 else "")
    if scene.field is not None:
        _draw_field(figure, axes[6], scene.field, plane, scene.spacing_mm)
        _label_axis(axes[6], "displacement, mm\n(deformed grid)" if row == 0 else "", "")


def _draw_field(
    figure: Figure, axis: Axes, field: np.ndarray, plane: str, spacing_mm: tuple[float, float, float]
) -> None:
    """Draw the length of the displacement in colour, and the lines of the fixed grid mapped by the transform."""
    lengths = np.linalg.norm(field, axis=0)
    picture = axis.imshow(
        _middle_slice(lengths, plane),
        cmap="viridis",
        vmin=0,
        vmax=float(lengths.max()) or 1.0,
        aspect=pixel_aspect(plane, spacing_mm),
    )
    figure.colorbar(picture, ax=axis, shrink=0.8)
    across, up = IN_PLANE[plane]
    shift = _middle_slice(field, plane)
    rows, columns = np.meshgrid(*(np.arange(n) for n in shift.shape[1:]), indexing="ij")
    x = columns - shift[across] / spacing_mm[across]  # both axes of the picture are opposite to R, A and S
    y = rows - shift[up] / spacing_mm[up]
    for line in line_positions(shift.shape[1]):
        axis.plot(x[line], y[line], color="white", linewidth=0.5)
    for line in line_positions(shift.shape[2]):
        axis.plot(x[:, line], y[:, line], color="white", linewidth=0.5)
    axis.set_xlim(-0.5, shift.shape[2] - 0.5)
    axis.set_ylim(shift.shape[1] - 0.5, -0.5)


def line_positions(size: int) -> range:
    """Return the rows or columns of a picture at which lines of a grid are drawn."""
    return range(0, size, max(1, size // 20))


def _label_axis(axis: Any, title: str, side: str) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    if title:
        axis.set_title(title, fontsize=8)
    if side:
        axis.set_ylabel(side, fontsize=8)
