"""Images and grids in any form that `convexadam.as_image` takes, wherever a function takes one."""

from __future__ import annotations

from typing import Any, TypeAlias

from convexadam._checks import show
from convexadam.errors import ConvexAdamError, InputError
from convexadam.geometry.delegates import delegate
from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image

ImageLike: TypeAlias = Any
"""An `Image`; a path; a tensor or an array, with 1 mm voxels; an image of nibabel, SimpleITK, MONAI or TorchIO."""

GridLike: TypeAlias = Any
"""A `Grid`, or an `ImageLike` on it."""


def to_image(value: ImageLike, name: str, *, channels: bool = False) -> Image:
    """Return an image; errors begin with the name of the argument. See `convexadam.as_image`."""
    if isinstance(value, Image):
        return value
    try:
        image: Image = delegate("as_image", value, channels=channels)
    except ConvexAdamError as error:
        text = str(error)
        raise type(error)(text.replace("value", name, 1) if text.startswith("value") else f"{name}: {text}") from error
    return image


def to_grid(value: GridLike, name: str) -> Grid:
    """Return a grid, or that of an image; errors begin with the name of the argument."""
    if isinstance(value, (tuple, list)):
        raise InputError(f"{name} must be a Grid or an image, got {show(value)}; pass Grid(shape, affine)")
    return value if isinstance(value, Grid) else to_image(value, name, channels=True).grid
