"""Images and grids of SimpleITK. The only module that knows how ITK lays out voxels and names places."""

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
from convexadam.io.nifti import StrPath, has_right_angles, image_from_channels, storable

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Takes points in mm from RAS+ to LPS, and back."""


def flipped(vectors: Field) -> Field:
    """Vectors ``[3, i, j, k]`` from RAS+ to LPS, or back."""
    signs = torch.tensor(LPS.diagonal()[:3].copy(), dtype=vectors.dtype, device=vectors.device)
    return vectors * signs.reshape(3, 1, 1, 1)


def simpleitk(purpose: str) -> Any:
    """Import SimpleITK, which ``purpose`` (``"reading MetaImage"``) needs, or say how to install it.

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


def grid_from_itk(image: Any) -> Grid:
    """Return where the voxels of a three-dimensional image of SimpleITK are, in mm RAS+."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    i, j, k = image.GetSize()
    return Grid((i, j, k), LPS @ affine)


def image_from_itk(image: Any, *, channels: bool = False, device: torch.device | str | None = None) -> Image:
    """Make an image of one of SimpleITK: from LPS to RAS+ and from ``k, j, i`` to ``i, j, k``.

    Raises
    ------
    InputError
        If it has not three axes, or several numbers for each voxel although no ``channels`` were asked for.
    """
    sitk = simpleitk("an image of SimpleITK")
    axes, numbers = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if axes != 3 or (numbers != 1 and not channels):
        raise InputError(
            f"one number for each voxel of a 3-D volume is needed, but the SimpleITK image has {axes} axes and "
            f"{numbers} numbers per voxel; extract one volume first, or take several numbers as channels with "
            "as_image(..., channels=True)"
        )
    array = sitk.GetArrayFromImage(image).T
    grid = grid_from_itk(image)
    return image_from_channels(array if numbers > 1 else array[None], grid.affine, device=device)


def image_to_itk(data: Shaped[Tensor, "c i j k"], grid: Grid) -> Any:
    """Make an image of SimpleITK, of vectors where there are several channels; types are those of `write_image`.

    Raises
    ------
    GeometryError
        If the axes of the grid are not at right angles: ITK knows no such grids.
    """
    sitk = simpleitk("an image of SimpleITK")
    if not has_right_angles(grid):
        raise GeometryError(
            "the axes of the grid are not at right angles, and ITK knows no such grids; "
            "resample onto a grid without shear first"
        )
    values = storable(data)
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
    """Read an image file with the named reader of ITK. To be called within `reading`."""
    sitk = simpleitk(f"reading {source}")
    file = sitk.ImageFileReader()
    file.SetImageIO(reader)
    file.SetFileName(str(source))
    try:
        image = file.Execute()
    except RuntimeError as error:
        raise FileError(
            f"{source} cannot be read as an image by ITK's {reader}; is it damaged or cut short, or is a file with its "
            "voxels missing?"
        ) from error
    if reader == "GDCMImageIO" and image.GetSize()[2:] == (1,):
        raise FileError(f"{source} is one slice of DICOM, but a volume is needed; give the folder of the series")
    return image_from_itk(image, channels=channels, device=device)


def write_with_itk(image: Image, path: StrPath) -> None:
    """Write an image through SimpleITK, compressed, by the rules of `write_image`."""
    sitk = simpleitk(f"writing {path}")
    made = image_to_itk(image.data, image.grid)
    with atomic_path(path) as temporary:
        try:
            sitk.WriteImage(made, str(temporary), useCompression=True)
        except RuntimeError as error:
            raise FileError(f"cannot write {path}; check permissions and free space") from error
