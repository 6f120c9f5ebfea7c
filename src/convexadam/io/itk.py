"""Images and grids of SimpleITK: the only module that knows the axis order and the LPS frame of ITK."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._atomic import atomic_path
from convexadam._typing import Field, Shaped, Tensor
from convexadam.errors import FileError, GeometryError, InputError, MissingExtraError
from convexadam.geometry import Grid, Image
from convexadam.io.dicom_elements import check_element_lengths
from convexadam.io.itk_headers import check_data_files, check_voxels, find_units, read_itk_header
from convexadam.io.nifti import has_right_angles, image_from_channels, to_storable
from convexadam.io.reading import StrPath

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""4x4 from mm RAS+ to mm LPS, and its own inverse."""


def flip_lps(vectors: Field) -> Field:
    """Convert vectors ``[3, i, j, k]`` from RAS+ to LPS, or back."""
    signs = torch.tensor(LPS.diagonal()[:3].copy(), dtype=vectors.dtype, device=vectors.device)
    return vectors * signs.reshape(3, 1, 1, 1)


def import_simpleitk(purpose: str) -> Any:
    """Import SimpleITK for a ``purpose`` such as ``"reading MetaImage"``, which the error message names.

    Raises
    ------
    MissingExtraError
        If it is not installed.
    """
    try:
        return importlib.import_module("SimpleITK")
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs SimpleITK, which is not installed: pip install 'convexadam-torch[itk]'"
        ) from error


def grid_from_itk(image: Any, units_mm: np.ndarray | float = 1.0) -> Grid:
    """Return the grid of a SimpleITK image, in mm RAS+, given its units along R, A and S.

    That of a 2-D image is one slice of 1 unit, at 0 along S.
    """
    affine, axes = np.eye(4), image.GetDimension()
    affine[:axes, :axes] = np.reshape(image.GetDirection(), (axes, axes)) * image.GetSpacing()
    affine[:axes, 3] = image.GetOrigin()
    i, j, k = (*image.GetSize(), 1)[:3]
    affine = LPS @ affine
    affine[:3] *= np.reshape(units_mm, (-1, 1))
    return Grid((i, j, k), affine)


def image_from_itk(
    image: Any,
    *,
    channels: bool = False,
    dims: int = 3,
    device: torch.device | str | None = None,
    units_mm: np.ndarray | float = 1.0,
) -> Image:
    """Convert a SimpleITK image: from LPS to RAS+ and from ``k, j, i`` to ``i, j, k``; see `grid_from_itk` for units.

    Raises
    ------
    InputError
        If it does not have ``dims`` axes (a single slice may have three), or has several values per voxel and
        ``channels`` is false.
    """
    sitk = import_simpleitk("an image of SimpleITK")
    axes, numbers = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if axes not in (3, dims) or (numbers != 1 and not channels):
        raise InputError(
            f"a SimpleITK image must have three axes and one value per voxel, got {axes} axes and {numbers} values per "
            "voxel; extract a frame (SimpleITK.Extract), read values as channels with as_image(..., channels=True), or "
            "a 2-D image with as_image(..., dims=2)"
        )
    array = sitk.GetArrayFromImage(image).T
    array = array if axes == 3 else array[..., None]
    grid = grid_from_itk(image, units_mm)
    return image_from_channels(array if numbers > 1 else array[None], grid, device=device)


def image_to_itk(data: Shaped[Tensor, "c i j k"], grid: Grid) -> Any:
    """Convert to a SimpleITK image, with vectors if there are several channels; types are those of `write_image`.

    Raises
    ------
    GeometryError
        If the axes of the grid are not orthogonal: ITK has no such grids.
    """
    sitk = import_simpleitk("an image of SimpleITK")
    if not has_right_angles(grid):
        raise GeometryError(
            f"the grid of an image of ITK must have orthogonal axes (right angles), got {grid!r} with shear; resample "
            "to a grid without shear"
        )
    values = to_storable(data)
    array = values[0].T if len(values) == 1 else values.T
    made = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=len(values) > 1)
    affine = LPS @ grid.affine
    made.SetOrigin(affine[:3, 3].tolist())
    made.SetSpacing(grid.spacing_mm)
    made.SetDirection((affine[:3, :3] / grid.spacing_mm).ravel().tolist())
    return made


def read_with_itk(
    source: Path, reader: str, *, channels: bool = False, device: torch.device | str | None = None
) -> Image:
    """Read an image file with a reader of ITK, by its name. Call it within `check_file`."""
    sitk = import_simpleitk(f"reading {source}")
    if reader == "GDCMImageIO":
        check_element_lengths(source)
    file = sitk.ImageFileReader()
    file.SetImageIO(reader)
    file.SetFileName(str(source))
    fields = read_itk_header(source, reader)
    check_data_files(source, reader, fields)
    try:
        file.ReadImageInformation()
        check_voxels(source, reader, fields, file)
        image = file.Execute()
    except RuntimeError as error:
        raise FileError(
            f"cannot read an image from {source} with {reader} of ITK; check whether it is damaged or truncated, or "
            "whether the file with its voxels is missing"
        ) from error
    if reader == "GDCMImageIO" and image.GetSize()[2:] == (1,):
        raise FileError(f"{source} must be a volume, got one DICOM slice; pass the folder of the series")
    units_mm = find_units(reader, fields, source)
    return image_from_itk(image, channels=channels, device=device, units_mm=units_mm)


def write_with_itk(image: Image, path: StrPath) -> None:
    """Write an image with SimpleITK, compressed, by the rules of `write_image`."""
    sitk = import_simpleitk(f"writing {path}")
    made = image_to_itk(image.data, image.grid)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(made, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise FileError(f"cannot write {path}; check permissions and free space") from error
