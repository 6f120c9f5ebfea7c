"""Whatever a caller has, as an image."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from convexadam.errors import ConfigError, InputError
from convexadam.geometry import Image
from convexadam.io.itk import image_from_itk
from convexadam.io.nifti import checked_nifti, image_from_nifti, read_image


def as_image(value: Any, affine: Any = None, *, device: torch.device | str | None = None) -> Image:
    """Make an image of a path, a tensor, an array, or an object of nibabel or SimpleITK.

    Parameters
    ----------
    value
        A path (see `read_image`); a tensor ``[i, j, k]`` or ``[c, i, j, k]``; a numpy array ``[i, j, k]``; a nibabel
        NIfTI image (read like a file); a SimpleITK image (turned from LPS to RAS+ and from ``k, j, i`` to
        ``i, j, k``); or an `Image`.
    affine
        4x4, voxel indices to mm RAS+, for tensors and arrays only; ``None`` is the identity. All else knows its own.
    device
        Where the values go; ``None`` leaves a tensor where it is and puts all else on the CPU.

    Raises
    ------
    ConfigError
        If an affine comes with something that has its own.
    InputError
        If the value is none of these, or has not three axes of real numbers.
    GeometryError
        If an affine is unusable.
    FileError
        If a file cannot be read.

    Examples
    --------
    >>> as_image(np.zeros((4, 5, 6), np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
    Image(1 x torch.int16 on cpu, Grid(shape=(4, 5, 6), spacing_mm=(2, 2, 3), orientation='RAS'))
    """
    if isinstance(value, (torch.Tensor, np.ndarray)):
        return Image.from_array(value, affine, device=device)
    if affine is not None:
        raise ConfigError(
            f"an affine goes with a tensor or an array, but a {type(value).__name__} has its own; "
            "leave the affine out, or build the image with Image.from_array"
        )
    if isinstance(value, Image):
        return value if device is None else value.to(device)
    if isinstance(value, (str, os.PathLike)):
        return read_image(value, device=device)
    packages = {base.__module__.partition(".")[0] for base in type(value).__mro__}  # asked without importing them
    if "nibabel" in packages:
        return image_from_nifti(checked_nifti(value), device=device)
    if "SimpleITK" in packages:
        if not hasattr(value, "GetNumberOfComponentsPerPixel"):
            raise InputError(f"of SimpleITK an Image is needed, but a {type(value).__name__} came")
        return image_from_itk(value, device=device)
    raise InputError(
        f"an image is a path, an Image, a tensor, a numpy array, or an image of nibabel or SimpleITK, but a "
        f"{type(value).__module__}.{type(value).__name__} came"
    )
