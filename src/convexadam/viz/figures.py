"""Figures of registrations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._typing import Field
from convexadam.errors import GeometryError, InputError
from convexadam.geometry import Image
from convexadam.geometry.conversion import ImageLike, to_image
from convexadam.geometry.planes import IN_PLANE, NORMAL, PLANES, take_slice
from convexadam.io import atomic_path
from convexadam.metrics.local_correlation import square_correlation
from convexadam.viz.canvas import (
    FIXED_COLOUR,
    MOVED_COLOUR,
    PANEL_INCH,
    draw_contours,
    draw_label_outlines,
    label_axis,
    new_figure,
)
from convexadam.viz.contrast import have_one_contrast
from convexadam.viz.slices import (
    Section,
    Window,
    apply_window,
    choose_window,
    list_sections,
    make_checkerboard,
    to_canonical_field,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
else:  # annotations can be resolved without matplotlib
    Axes = Figure = object

_MARGIN = 2
"""Slices on either side that a window of the local correlation needs."""


@check_arguments
@torch.no_grad()
def registration_figure(
    fixed: ImageLike,
    moving: ImageLike,
    moved: ImageLike,
    disp_mm: Field | None = None,
    *,
    labels: tuple[ImageLike, ImageLike] | None = None,
    path: Path | str | None = None,
) -> Figure:
    """Draw a registration: middle slices of the fixed image in three planes, before and after.

    Rows are the axial, coronal and sagittal slices through the middle of the volume, in radiological convention: the
    patient's right is on the left of the axial and coronal slices, anterior is at the top of the axial slice and on the
    left of the sagittal slice, superior is at the top of the coronal and sagittal slices. Oblique volumes are shown
    along the axes closest to R, A and S.

    Columns are the fixed image; the moving and the moved one under contours of the fixed one; and, for images of one
    contrast, a checkerboard of fixed and moved, and the absolute difference to the fixed image before and after, as a
    share of the window. Images of two contrasts have no difference that means anything: they are shown by checkerboards
    and by their local dissimilarity (1 minus the squared correlation in windows of 5 voxels), both before and after.
    With ``disp_mm`` the last column is the length of the displacement in mm with the deformed grid (the lines of the
    fixed grid mapped by the transform).

    Parameters
    ----------
    fixed, moving, moved
        Images in any form that `convexadam.as_image` takes; the first channel is drawn. Those on other grids are
        resampled for the picture.
    disp_mm
        ``[3, i, j, k]``, displacement of each voxel of the fixed grid along R, A and S, in mm, fixed to moving.
    labels
        Label maps of the fixed and of the moved image, whose outlines are drawn instead of iso-contours of the fixed
        image: in orange and in blue.
    path
        Name of a PNG file to write. An existing file is replaced after the new one is complete.

    Returns
    -------
    The figure, which draws itself in a notebook; ``figure.savefig`` writes other formats.

    Raises
    ------
    GeometryError
        If ``disp_mm`` does not fit the fixed image.
    InputError
        If an image holds no finite value.
    FileError
        If the file cannot be written.
    MissingExtraError
        If matplotlib is not installed.

    Examples
    --------
    >>> from convexadam.geometry import Grid
    >>> image = Image(torch.rand(1, 12, 10, 8), Grid((12, 10, 8)))
    >>> figure = registration_figure(image, image, image)
    >>> len(figure.axes)
    18
    """
    fixed, moving, moved = (
        to_image(image, name) for name, image in (("fixed", fixed), ("moving", moving), ("moved", moved))
    )
    _check_inputs(fixed, moving, moved, disp_mm)
    maps = None if labels is None else (to_image(labels[0], "labels"), to_image(labels[1], "labels"))
    windows = choose_window(fixed), choose_window(moving)
    planes = [section.plane for section in list_sections(fixed.grid)] or PLANES  # a single slice has one
    slices = [_Slice.cut(plane, (fixed, moving, moved), windows, maps) for plane in planes]
    compare = _compare_intensities if _have_one_contrast(slices) else _compare_structure
    rows = [[*_list_images(part, windows), *compare(part)] for part in slices]
    columns = len(rows[0]) + (disp_mm is not None)
    figure = new_figure((columns * PANEL_INCH, len(rows) * PANEL_INCH))
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for number, (part, panels) in enumerate(zip(slices, rows, strict=True)):
        for column, panel in enumerate(panels):
            _draw_panel(axes[number, column], panel, part)
            label_axis(axes[number, column], "" if number else panel.title, "" if column else part.section.plane)
    if disp_mm is not None:
        shift_mm = to_canonical_field(disp_mm, fixed)
        for number, part in enumerate(slices):
            _draw_field(figure, axes[number, -1], shift_mm, part.section)
            label_axis(axes[number, -1], "" if number else "displacement, mm\n(deformed grid)")
    if path is not None:
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png")
    return figure


def _check_inputs(fixed: Image, moving: Image, moved: Image, disp_mm: Field | None) -> None:
    if disp_mm is not None and tuple(disp_mm.shape) != (3, *fixed.grid.shape):
        raise GeometryError(
            f"disp_mm must have shape {(3, *fixed.grid.shape)}, got {tuple(disp_mm.shape)}; resample it"
        )
    for name, image in (("fixed", fixed), ("moving", moving), ("moved", moved)):
        if not bool(image.data[0].isfinite().any()):
            raise InputError(f"{name} must have a finite value, got only NaN or Inf; check its file")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Slice:
    """Fixed, moving and moved image on one slice: pictures between black (0) and white (1).

    ``dissimilarity`` is that of the fixed image to the moving and to the moved one; ``labels`` those of the fixed and
    of the moved image.
    """

    section: Section
    fixed: np.ndarray
    moving: np.ndarray
    moved: np.ndarray
    dissimilarity: tuple[np.ndarray, np.ndarray]
    labels: tuple[np.ndarray, ...]

    @classmethod
    def cut(
        cls,
        plane: str,
        images: tuple[Image, Image, Image],
        windows: tuple[Window, Window],
        labels: tuple[Image, Image] | None,
    ) -> _Slice:
        section = Section.cut(images[0].grid, plane, margin=_MARGIN)
        slabs = [section.resample(image).cpu().double().nan_to_num() for image in images]
        pictures = [
            apply_window(section.sample(image), window)
            for image, window in zip(images, (windows[0], windows[1], windows[1]), strict=True)
        ]
        everywhere = torch.ones_like(slabs[0])
        before, after = (section.take(1 - square_correlation(slabs[0], slab, everywhere)) for slab in slabs[1:])
        maps = () if labels is None else tuple(section.sample(image, nearest=True) for image in labels)
        return cls(
            section=section,
            fixed=pictures[0],
            moving=pictures[1],
            moved=pictures[2],
            dissimilarity=(before, after),
            labels=maps,
        )


def _have_one_contrast(slices: list[_Slice]) -> bool:
    """Whether fixed and moved image have one contrast, where one of them is no background."""
    fixed, moved = (np.concatenate([getattr(part, name).ravel() for part in slices]) for name in ("fixed", "moved"))
    shown = (fixed > 0) | (moved > 0)
    return have_one_contrast(fixed[shown], moved[shown])


@dataclass(frozen=True, kw_only=True, eq=False)
class _Panel:
    """A picture with values from 0 to 1, and what is drawn over it."""

    title: str
    picture: np.ndarray
    colours: str = "gray"
    contours: bool = False


def _list_images(part: _Slice, windows: tuple[Window, Window]) -> Iterator[_Panel]:
    texts = ["{:.4g} to {:.4g}".format(*window) for window in windows]
    yield _Panel(title=f"fixed\n{texts[0]}", picture=part.fixed)
    yield _Panel(title=f"moving\n{texts[1]}", picture=part.moving, contours=True)
    yield _Panel(title=f"moved\n{texts[1]}", picture=part.moved, contours=True)


def _compare_intensities(part: _Slice) -> Iterator[_Panel]:
    """Yield the comparisons of two images of one contrast."""
    board = make_checkerboard(part.fixed, part.moved, part.section.aspect)
    yield _Panel(title="fixed / moved\n(checkerboard)", picture=board)
    for name, picture in (("moving", part.moving), ("moved", part.moved)):
        difference = np.abs(part.fixed - picture)
        yield _Panel(title=f"|fixed - {name}|\n(share of window)", picture=difference, colours="magma")


def _compare_structure(part: _Slice) -> Iterator[_Panel]:
    """Yield the comparisons of two images of two contrasts."""
    for name, picture in (("moving", part.moving), ("moved", part.moved)):
        board = make_checkerboard(part.fixed, picture, part.section.aspect)
        yield _Panel(title=f"fixed / {name}\n(checkerboard)", picture=board)
    images = {"before": part.moving, "after": part.moved}
    for (name, image), dissimilarity in zip(images.items(), part.dissimilarity, strict=True):
        picture = np.where((part.fixed > 0) | (image > 0), dissimilarity, 0)  # backgrounds agree
        yield _Panel(title=f"local dissimilarity\n{name}", picture=picture, colours="magma")


def _draw_panel(axis: Axes, panel: _Panel, part: _Slice) -> None:
    aspect = part.section.aspect
    axis.imshow(panel.picture, cmap=panel.colours, vmin=0, vmax=1, aspect=aspect, interpolation="nearest")
    if panel.contours and part.labels:
        draw_label_outlines(axis, part.labels[0], FIXED_COLOUR)
        if panel.picture is part.moved:
            draw_label_outlines(axis, part.labels[1], MOVED_COLOUR)
    elif panel.contours:
        draw_contours(axis, part.fixed, FIXED_COLOUR)


def _draw_field(figure: Figure, axis: Axes, shift_mm: np.ndarray, section: Section) -> None:
    """Draw the length of the displacement in colour, and the lines of the fixed grid mapped by the transform."""
    lengths, plane = np.linalg.norm(shift_mm, axis=0), section.plane
    picture = axis.imshow(
        _middle_slice(lengths, plane), cmap="viridis", vmin=0, vmax=float(lengths.max()) or 1.0, aspect=section.aspect
    )
    figure.colorbar(picture, ax=axis, shrink=0.8)
    draw_deformed_grid(axis, _middle_slice(shift_mm, plane), section, "white")


def draw_deformed_grid(axis: Axes, shift_mm: np.ndarray, section: Section, colour: str) -> None:
    """Draw the lines of a grid, moved by a displacement ``[3, rows, columns]`` in mm along the axes of its volume."""
    across, up = IN_PLANE[section.plane]
    spacing_mm = section.grid.spacing_mm
    rows, columns = np.indices(shift_mm.shape[1:])
    x = columns - shift_mm[across] / spacing_mm[across]  # both axes of the picture are opposite to R, A and S
    y = rows - shift_mm[up] / spacing_mm[up]
    for line in _list_lines(shift_mm.shape[1]):
        axis.plot(x[line], y[line], color=colour, linewidth=0.5)
    for line in _list_lines(shift_mm.shape[2]):
        axis.plot(x[:, line], y[:, line], color=colour, linewidth=0.5)
    axis.set_xlim(-0.5, shift_mm.shape[2] - 0.5)
    axis.set_ylim(shift_mm.shape[1] - 0.5, -0.5)


def _middle_slice(volume: np.ndarray, plane: str) -> np.ndarray:
    return take_slice(volume, plane, volume.shape[-3:][NORMAL[plane]] // 2)


def _list_lines(size: int) -> range:
    return range(0, size, max(1, size // 20))
