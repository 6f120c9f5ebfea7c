"""A viewer of three planes for notebooks, with widgets of ipywidgets."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal, TypeAlias, final

import numpy as np
import torch

from convexadam._typing import Triple
from convexadam.errors import InputError, MissingExtraError
from convexadam.geometry import Image
from convexadam.geometry.conversion import ImageLike, to_image
from convexadam.geometry.planes import IN_PLANE, NORMAL
from convexadam.io.convert import parse_on_grid_of
from convexadam.viz.pictures import draw_outlines, fit_size, resize
from convexadam.viz.slices import Section, Window, apply_window, choose_window, list_sections, make_checkerboard

Mode: TypeAlias = Literal["image", "overlay", "both", "checkerboard"]

_LONGEST = 320
"""Longest side of a picture, in pixels."""

_FLICKER_MS = 500


_CROSS, _OUTLINE = (86, 180, 233), (230, 159, 0)
"""Colours of the cursor and of the outlines of labels."""


def view(image: ImageLike, overlay: ImageLike | None = None, *, labels: ImageLike | None = None) -> Any:
    """Show an image in a notebook: three planes through a cursor that sliders move.

    Parameters
    ----------
    image
        In any form that `as_image` takes.
    overlay
        A second image, such as ``result.moved``: shown instead of the first one, half transparent, in a checkerboard,
        or in turn with it twice a second ("flicker").
    labels
        Label map, whose outlines are drawn. Both may lie on any grid: they are resampled. Tensors and arrays lie on
        that of the image.

    Returns
    -------
    A widget of ipywidgets, which a notebook shows.

    Raises
    ------
    InputError, FileError
        If an image cannot be used.
    MissingExtraError
        If ipywidgets or Pillow is not installed.

    Examples
    --------
    >>> from convexadam import register, view
    >>> result = register("fixed.nii.gz", "moving.nii.gz")  # doctest: +SKIP
    >>> view(result.fixed, result.moved)  # doctest: +SKIP
    """
    try:
        import ipywidgets
        import PIL  # noqa: F401 - whether it is there
    except ImportError as error:
        hint = 'pip install "convexadam-torch[notebook]"'
        raise MissingExtraError(f"{error.name} must be installed for views, got no such package; {hint}") from error
    scene = ViewScene.prepare(image, overlay, labels)
    shape = scene.image.grid.canonical().shape
    sliders = {
        plane: ipywidgets.IntSlider(shape[NORMAL[plane]] // 2, 0, shape[NORMAL[plane]] - 1, description=plane)
        for plane in scene.planes
    }
    modes = ["image", "overlay", "both", "checkerboard"] if scene.overlay is not None else ["image"]
    mode = ipywidgets.Dropdown(options=modes, description="show")
    flicker = ipywidgets.Play(min=0, max=1, interval=_FLICKER_MS, repeat=True, description="flicker")
    outlines = ipywidgets.Checkbox(True, description="labels")
    pictures = {plane: ipywidgets.Image(format="png") for plane in scene.planes}
    text = ipywidgets.Label()

    def draw(_: object = None) -> None:
        i, j, k = (sliders[plane].value if plane in sliders else 0 for plane in ("sagittal", "coronal", "axial"))
        cursor = i, j, k
        for plane, picture in scene.draw(cursor, mode.value, outlines=outlines.value).items():
            pictures[plane].value = _encode(picture)
        text.value = scene.describe(cursor)

    for control in (*sliders.values(), mode, outlines):
        control.observe(draw, names="value")
    flicker.observe(lambda change: setattr(mode, "value", modes[change["new"]]), names="value")
    draw()
    columns = [ipywidgets.VBox([pictures[plane], sliders[plane]]) for plane in scene.planes]
    controls = [mode, flicker] * (scene.overlay is not None) + [outlines] * (scene.labels is not None)
    return ipywidgets.VBox([ipywidgets.HBox(columns), ipywidgets.HBox(controls), text])


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class ViewScene:
    """What a view shows, whatever draws it.

    Attributes
    ----------
    image, overlay, labels
        On any grids.
    windows
        Of the image and of the overlay.
    planes
        Those in which the image has at least two by two voxels.
    """

    image: Image
    overlay: Image | None
    labels: Image | None
    windows: tuple[Window, Window]
    planes: tuple[str, ...]

    @classmethod
    def prepare(cls, image: ImageLike, overlay: ImageLike | None, labels: ImageLike | None) -> ViewScene:
        """Check what is to be shown."""
        first = to_image(image, "image")
        second = None if overlay is None else parse_on_grid_of(first, overlay, "overlay", "shown")
        planes = tuple(section.plane for section in list_sections(first.grid))
        if not planes:
            raise InputError(
                f"image must have two voxels along two axes for a picture, got {first.grid!r}; pass another"
            )
        return cls(
            image=first,
            overlay=second,
            labels=None if labels is None else parse_on_grid_of(first, labels, "labels", "shown"),
            windows=(choose_window(first), (0.0, 1.0) if second is None else choose_window(second)),
            planes=planes,
        )

    @torch.no_grad()
    def draw(self, cursor: Triple, mode: Mode, *, outlines: bool = True) -> dict[str, np.ndarray]:
        """Return RGB of the slices through a voxel of the canonical grid, with lines through it."""
        found = {}
        for plane in self.planes:
            section = Section.cut(self.image.grid, plane, cursor[NORMAL[plane]])
            grey = self._compare(section, mode)
            size = fit_size(grey.shape, section.aspect, _LONGEST)
            shades = np.round(255 * np.clip(resize(grey, size, nearest=False), 0, 1)).astype(np.uint8)
            picture = np.repeat(shades[..., None], 3, axis=2)
            if self.labels is not None and outlines:
                regions = resize(section.sample(self.labels, nearest=True), size, nearest=True)
                lines = draw_outlines(regions, _OUTLINE)
                picture = np.where(lines[..., 3:] > 0, lines[..., :3], picture)
            found[plane] = _draw_cross(picture, plane, cursor, self.image.grid.canonical().shape)
        return found

    def _compare(self, section: Section, mode: Mode) -> np.ndarray:
        """Return values from 0 to 1 of a slice."""
        first = apply_window(section.sample(self.image), self.windows[0])
        if self.overlay is None or mode == "image":
            return first
        second = apply_window(section.sample(self.overlay), self.windows[1])
        if mode == "overlay":
            return second
        return make_checkerboard(first, second, section.aspect) if mode == "checkerboard" else (first + second) / 2

    @torch.no_grad()
    def describe(self, cursor: Triple) -> str:
        """Return the position of a voxel of the canonical grid in mm RAS+, and the values there."""
        point = self.image.grid.canonical().affine @ np.array([*cursor, 1.0])
        text = f"({', '.join(f'{value:.1f}' for value in point[:3])}) mm RAS"
        for name, image in (("image", self.image), ("overlay", self.overlay), ("label", self.labels)):
            if image is not None:
                text += f", {name} {_find_value(image, point[:3])}"
        return text


def _find_value(image: Image, point_mm: np.ndarray) -> str:
    """Return the value of the voxel closest to a point, in words."""
    index = [round(float(v)) for v in image.grid.world_to_index(torch.from_numpy(point_mm[None]))[0]]
    if not all(0 <= i < n for i, n in zip(index, image.grid.shape, strict=True)):
        return "outside"
    return f"{image.data[0, index[0], index[1], index[2]].item():.4g}"


def _draw_cross(picture: np.ndarray, plane: str, cursor: Triple, shape: Triple) -> np.ndarray:
    """Return a picture with a row and a column through the cursor; both axes are opposite to R, A and S."""
    across, up = IN_PLANE[plane]
    column = int((shape[across] - cursor[across] - 0.5) * picture.shape[1] / shape[across])
    row = int((shape[up] - cursor[up] - 0.5) * picture.shape[0] / shape[up])
    crossed = picture.copy()
    crossed[row, :], crossed[:, column] = _CROSS, _CROSS
    return crossed


def _encode(picture: np.ndarray) -> bytes:
    from PIL import Image as Pillow

    buffer = BytesIO()
    Pillow.fromarray(picture).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
