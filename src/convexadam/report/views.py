"""The slices of a page: fixed, before and after, outlines, deformed grid, Jacobian determinant and difference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import final

import numpy as np
import torch

from convexadam._typing import Field
from convexadam.geometry import Grid, Image, Transform
from convexadam.geometry.planes import IN_PLANE, NORMAL, take_slice
from convexadam.geometry.resample import resample, transform_vectors
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.metrics.local_correlation import square_correlation
from convexadam.report.lattice import LatticePair
from convexadam.report.quality import fit_motion
from convexadam.report.slices import SliceChoice, choose_slices
from convexadam.viz.canvas import LEVELS
from convexadam.viz.contrast import have_one_contrast
from convexadam.viz.pictures import (
    check_extra,
    colour_jacobian,
    colour_share,
    draw_lines,
    draw_outlines,
    encode_picture,
    fit_size,
    group_levels,
    resize,
    resize_colours,
)
from convexadam.viz.slices import Window, apply_window, choose_window, pixel_aspect

LONGEST = 360
"""Longest side of a picture, in pixels."""

_THUMBNAIL = 96

FIXED_COLOUR, MOVED_COLOUR = (230, 159, 0), (86, 180, 233)
"""Orange and sky blue of the palette of Okabe and Ito, which colour-blind people tell apart."""

_GRID_POINTS = 48
"""Points along a line of the deformed grid; every third row and column is drawn."""

_EDGES = {"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}
"""Directions at the left, right, upper and lower edge."""


@final
@dataclass(frozen=True, kw_only=True)
class SliceView:
    """One slice of a page.

    Attributes
    ----------
    plane, reason
        See `SliceChoice`.
    position_mm
        Of the slice along its axis of the canonical grid, in mm along R, A or S.
    size
        Width and height in pixels.
    edges
        Directions at the left, right, upper and lower edge.
    layers
        Data URIs by name.
    grid
        Path data of the deformed grid.
    folded
        Pixels of the slice that fold.
    """

    plane: str
    reason: str
    position_mm: float
    size: tuple[int, int]
    edges: str
    layers: dict[str, str] = field(repr=False)
    grid: str = field(repr=False)
    folded: int = 0


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Volumes in axis order R, A, S on the fixed grid."""

    grid: Grid
    fixed: np.ndarray
    before: np.ndarray
    after: np.ndarray
    windows: tuple[Window, Window]
    jacobian: np.ndarray
    deformation: np.ndarray
    residual: np.ndarray
    labels: tuple[np.ndarray, np.ndarray] | None
    has_one_contrast: bool


@torch.no_grad()
def make_views(
    transform: Transform, fixed: Image, moving: Image, labels: tuple[Image, Image] | None = None
) -> tuple[list[SliceView], bool, str]:
    """Draw the slices of a pair.

    Parameters
    ----------
    transform
        Fixed to moving space.
    fixed, moving
        The images; the first channel is shown.
    labels
        Label maps of the fixed and of the moving image.

    Returns
    -------
    The slices; whether both images have one contrast, so that there is a difference; and a thumbnail as a data URI: the
    moved image above the fixed one.

    Raises
    ------
    MissingExtraError
        If matplotlib or Pillow is not installed.
    """
    check_extra()
    pair = LatticePair.sample(transform, fixed, moving, (None, None))
    motion = fit_motion(pair)
    scene = _make_scene(transform, fixed, moving, labels, pair, motion)
    displacement = pair.disp_mm.cpu().numpy() - _linear_displacement(motion, pair.grid)
    choices = choose_slices(pair, np.linalg.norm(displacement, axis=0), fixed.grid)
    views = [_draw_slice(scene, choice) for choice in choices]
    return views, scene.has_one_contrast, _draw_thumbnail(scene, choices)


def _make_scene(
    transform: Transform,
    fixed: Image,
    moving: Image,
    labels: tuple[Image, Image] | None,
    pair: LatticePair,
    motion: np.ndarray,
) -> Scene:
    moving = Image(moving.data[:1].detach(), moving.grid)
    background = float(moving.data.min())
    before = resample(moving, fixed.grid, mode="linear", fill_value=background)
    after = transform.warp(moving, fixed, mode="linear", fill_value=background)
    disp_mm = transform.displacement_on(fixed.grid, None, moving.data.new_empty(0, dtype=torch.float32))
    determinant = jacobian_determinant(transform_vectors(np.linalg.inv(fixed.grid.affine), disp_mm))
    compared = pair.structure & (pair.after_weight > 0)
    near, far = (volume[compared].double().cpu().numpy() for volume in (pair.fixed, pair.after))
    maps = None
    if labels is not None:
        moved = transform.warp(labels[1], fixed, mode="nearest")
        maps = _to_numpy(labels[0]), _to_numpy(moved)
    residual = square_correlation(pair.fixed, pair.after, pair.fixed_weight * pair.after_weight)
    on_fixed = resample(Image(residual[None], pair.grid), fixed.grid, mode="linear", fill_value=0.0)
    windows = tuple(choose_window(image) for image in (fixed, moving))
    return Scene(
        grid=fixed.grid.canonical(),
        fixed=_to_numpy(fixed),
        before=_to_numpy(before),
        after=_to_numpy(after),
        windows=(windows[0], windows[1]),
        jacobian=_to_numpy(Image(determinant[None], fixed.grid)),
        deformation=_along_axes(disp_mm, motion, fixed.grid),
        residual=_to_numpy(on_fixed),
        labels=maps,
        has_one_contrast=have_one_contrast(near, far),
    )


def _to_numpy(image: Image) -> np.ndarray:
    data = image.canonical().data[0].detach().cpu()
    return (data.float() if data.is_floating_point() else data).numpy()


def _linear_displacement(matrix: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the displacement of a linear transform at the points of a grid, ``[3, i, j, k]`` in mm."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in grid.shape), indexing="ij")).astype(np.float32)
    shift = (matrix - np.eye(4)) @ grid.affine
    linear = np.tensordot(shift[:3, :3].astype(np.float32), index, axes=1)
    return np.asarray(linear + shift[:3, 3].astype(np.float32)[:, None, None, None])


def _along_axes(disp_mm: Field, motion: np.ndarray, grid: Grid) -> np.ndarray:
    """Return the displacement beyond the linear motion, in mm along the axes of the canonical grid."""
    canonical = Image(disp_mm.detach().cpu().float(), grid).canonical()
    beyond = canonical.data.numpy() - _linear_displacement(motion, canonical.grid)
    directions = canonical.grid.affine[:3, :3] / np.array(canonical.grid.spacing_mm)
    return np.tensordot(np.linalg.inv(directions).astype(np.float32), beyond, axes=1)


def _draw_slice(scene: Scene, choice: SliceChoice) -> SliceView:
    plane, index = choice.plane, choice.index
    spacing_mm = scene.grid.spacing_mm
    determinants = take_slice(scene.jacobian, plane, index)
    size = fit_size(determinants.shape[-2:], pixel_aspect(plane, spacing_mm), LONGEST)
    windows = scene.windows[0], scene.windows[1], scene.windows[1]
    volumes = scene.fixed, scene.before, scene.after
    fixed, before, after = (
        resize(apply_window(take_slice(v, plane, index), w), size) for v, w in zip(volumes, windows, strict=True)
    )
    layers = {"fixed": fixed, "before": before, "after": after}
    layers["jacobian"] = resize_colours(colour_jacobian(determinants), size)
    layers["outlines"] = _draw_outlines(scene, choice, size, fixed)
    if scene.has_one_contrast:
        layers["difference-before"] = colour_share(np.abs(fixed - before))
        layers["difference-after"] = colour_share(np.abs(fixed - after))
    else:
        layers["correlation"] = colour_share(1 - resize(take_slice(scene.residual, plane, index), size))
    point = np.zeros(4)
    point[NORMAL[plane]], point[3] = index, 1
    return SliceView(
        plane=plane,
        reason=choice.reason,
        position_mm=float((scene.grid.affine @ point)[NORMAL[plane]]),
        size=size,
        edges=_EDGES[plane],
        layers={name: encode_picture(picture) for name, picture in layers.items()},
        grid=_draw_grid(scene, choice, size),
        folded=int((determinants <= 0).sum()),
    )


def _draw_outlines(scene: Scene, choice: SliceChoice, size: tuple[int, int], fixed: np.ndarray) -> np.ndarray:
    """Return outlines of the fixed image in orange, and, of labels, of the moved ones below in blue."""
    if scene.labels is None:
        return draw_outlines(group_levels(fixed, LEVELS), FIXED_COLOUR)
    regions = [resize(take_slice(labels, choice.plane, choice.index), size, nearest=True) for labels in scene.labels]
    picture, above = draw_outlines(regions[1], MOVED_COLOUR), draw_outlines(regions[0], FIXED_COLOUR)
    return np.where(above[..., 3:] > 0, above, picture)


def _draw_grid(scene: Scene, choice: SliceChoice, size: tuple[int, int]) -> str:
    """Return the lines of a grid on the fixed image, moved by the deformation beyond the linear motion."""
    shift = take_slice(scene.deformation, choice.plane, choice.index)
    rows, columns = shift.shape[1:]
    across, up = IN_PLANE[choice.plane]
    step = max(1, max(rows, columns) // _GRID_POINTS)
    y, x = np.meshgrid(np.arange(0, rows, step), np.arange(0, columns, step), indexing="ij")
    x_end = x - shift[across][::step, ::step] / scene.grid.spacing_mm[across]  # both axes are opposite to R, A and S
    y_end = y - shift[up][::step, ::step] / scene.grid.spacing_mm[up]
    every = range(0, x.shape[0], 3), range(0, x.shape[1], 3)
    return draw_lines((x_end + 0.5) * size[0] / columns, (y_end + 0.5) * size[1] / rows, every)


def _draw_thumbnail(scene: Scene, choices: list[SliceChoice]) -> str:
    """Return the middle slices of all planes, moved above fixed, in square fields side by side."""
    middle = [choice for choice in choices if choice.reason == "middle"]
    picture = np.zeros((2 * _THUMBNAIL, _THUMBNAIL * len(middle)))
    for row, (volume, window) in enumerate(((scene.after, scene.windows[1]), (scene.fixed, scene.windows[0]))):
        for column, choice in enumerate(middle):
            pixels = apply_window(take_slice(volume, choice.plane, choice.index), window)
            size = fit_size(pixels.shape[-2:], pixel_aspect(choice.plane, scene.grid.spacing_mm), _THUMBNAIL)
            top, left = row * _THUMBNAIL + (_THUMBNAIL - size[1]) // 2, (_THUMBNAIL - size[0]) // 2
            left += column * _THUMBNAIL
            picture[top : top + size[1], left : left + size[0]] = resize(pixels, size)
    return encode_picture(picture)
