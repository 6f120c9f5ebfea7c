"""Whatever a caller has, as an image, and back."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch

from convexadam.errors import ConfigError, InputError
from convexadam.geometry import Image
from convexadam.io.images import read_image
from convexadam.io.itk import LPS, image_from_itk, image_to_itk
from convexadam.io.nifti import as_nifti, checked_nifti, image_from_nifti, nifti_array, storable


def as_image(
    value: Any, affine: Any = None, *, channels: bool = False, device: torch.device | str | None = None
) -> Image:
    """Make an image of a path, a tensor, an array, or an object of nibabel, SimpleITK, MONAI or TorchIO.

    Parameters
    ----------
    value
        A path (see `read_image`); a tensor ``[i, j, k]`` or ``[c, i, j, k]``; a numpy array ``[i, j, k]``; a nibabel
        NIfTI image (read like a file); a SimpleITK image (turned from LPS to RAS+ and from ``k, j, i`` to
        ``i, j, k``); a MetaTensor of MONAI, with the affine that it carries; an image of TorchIO; or an `Image`.
    affine
        4x4, voxel indices to mm RAS+, for tensors and arrays only; ``None`` is the identity. All else knows its own.
    channels
        Take several values for each voxel as channels: of files and nibabel (``(i, j, k, c)``, ``(i, j, k, 1, c)``) and
        of SimpleITK (vectors). Without it they are refused there: they may be frames, colours or a displacement
        field. Tensors, and images of MONAI and TorchIO, have their channels first and need no leave; an array of more
        than three axes is refused either way, since it does not say which axis they are along.
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
    if not has_affine(type(value)):
        return Image.from_array(value, affine, device=device)
    if affine is not None:
        raise ConfigError(
            f"an affine goes with a tensor or an array, but a {type(value).__name__} has its own; "
            "leave the affine out, or build the image with Image.from_array"
        )
    if isinstance(value, Image):
        return value if device is None else value.to(device)
    if isinstance(value, (str, os.PathLike)):
        return read_image(value, channels=channels, device=device)
    return _from_package(value, channels, device)


def image_as(image: Image, kind: type) -> Any:
    """Return an image as an object of another package: the way back from `as_image`.

    Parameters
    ----------
    image
        What to convert.
    kind
        The class: `Image`; ``torch.Tensor`` or ``numpy.ndarray`` (``[i, j, k]`` for one channel, else
        ``[c, i, j, k]``; they hold no affine); ``nibabel.Nifti1Image`` or ``Nifti2Image``; ``SimpleITK.Image``;
        ``monai.data.MetaTensor``; ``torchio.ScalarImage`` or ``LabelMap``. ``type(x)`` of what went into `as_image`
        will do.

    Returns
    -------
    An object of that class. Tensors keep type and device; the rest has types of `write_image`.

    Raises
    ------
    ConfigError
        If nothing of that kind can be made, such as a path.
    GeometryError
        If the kind knows no such grids: SimpleITK's have right angles.
    """
    if not isinstance(kind, type):
        raise ConfigError(f"kind is a class, such as torch.Tensor, but {kind!r} came; pass type(...) of it")
    if issubclass(kind, Image):
        return image
    if has_affine(kind):
        return _of_package(image, kind)
    if issubclass(kind, torch.Tensor):
        return image.data[0] if image.data.shape[0] == 1 else image.data
    return image.numpy()


def has_affine(kind: type) -> bool:
    """Whether objects of a class know where their voxels are: all but tensors and arrays; a MetaTensor does."""
    return not issubclass(kind, (torch.Tensor, np.ndarray)) or "monai" in _packages_of(kind)


def _packages_of(kind: type) -> set[str]:
    """Names of the packages that a class comes from: asked without importing them."""
    return {base.__module__.partition(".")[0] for base in kind.__mro__}


def _of_package(image: Image, kind: Any) -> Any:
    packages = _packages_of(kind)
    if "monai" in packages and issubclass(kind, torch.Tensor):
        return kind(image.data, affine=torch.from_numpy(image.grid.affine.copy()))
    if "nibabel" in packages and hasattr(kind, "header_class"):
        return as_nifti(nifti_array(image.data), image.grid, kind=kind)
    if "SimpleITK" in packages and kind.__name__ == "Image":
        return image_to_itk(image.data, image.grid)
    if "torchio" in packages:
        return kind(tensor=torch.from_numpy(np.array(storable(image.data))), affine=image.grid.affine.copy())
    raise ConfigError(
        "an image can be had as an Image, a tensor, an array, or an image of nibabel, SimpleITK, MONAI or TorchIO, but "
        f"{kind.__module__}.{kind.__name__} was asked for; files are written with write_image"
    )


def _from_package(value: Any, channels: bool, device: torch.device | str | None) -> Image:
    packages = _packages_of(type(value))
    if "nibabel" in packages:
        return image_from_nifti(checked_nifti(value), channels=channels, device=device)
    if "SimpleITK" in packages:
        if not hasattr(value, "GetNumberOfComponentsPerPixel"):
            raise InputError(f"of SimpleITK an Image is needed, but a {type(value).__name__} came")
        return image_from_itk(value, channels=channels, device=device)
    if "monai" in packages and isinstance(value, torch.Tensor):
        place: Any = value
        in_lps = str(getattr(place, "meta", {}).get("space", "RAS")).endswith("LPS")
        affine = torch.as_tensor(place.affine, device="cpu").detach().as_subclass(torch.Tensor).double().numpy()
        return Image.from_array(value.as_subclass(torch.Tensor), LPS @ affine if in_lps else affine, device=device)
    if "torchio" in packages and isinstance(getattr(value, "data", None), torch.Tensor):
        return Image.from_array(value.data, np.asarray(value.affine), device=device)
    raise InputError(
        f"an image is a path, an Image, a tensor, a numpy array, or an image of nibabel, SimpleITK, MONAI or TorchIO, "
        f"but a {type(value).__module__}.{type(value).__name__} came"
    )
