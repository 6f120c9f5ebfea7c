"""Conversion between `Image` and the image classes of other packages."""

from __future__ import annotations

import os
from typing import Any, Literal

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._checks import show
from convexadam.errors import ConfigError, InputError
from convexadam.geometry import Image
from convexadam.geometry.conversion import ImageLike, to_image
from convexadam.geometry.delegates import implement
from convexadam.geometry.tensors import check_values
from convexadam.io.images import read_image
from convexadam.io.itk import LPS, image_from_itk, image_to_itk
from convexadam.io.nifti import check_nifti, image_from_mgh, image_from_nifti, make_nifti, to_nifti_array, to_storable
from convexadam.io.reading import read_lazily


@implement("as_image")
def as_image(
    value: Any,
    affine: Any = None,
    *,
    channels: bool = False,
    dims: Literal[2, 3] = 3,
    device: torch.device | str | None = None,
) -> Image:
    """Convert a path, a tensor, an array, or an image of nibabel, SimpleITK, MONAI or TorchIO to an `Image`.

    Parameters
    ----------
    value
        A path (see `read_image`); a tensor ``[i, j, k]`` or ``[c, i, j, k]``; a numpy array ``[i, j, k]``; a nibabel
        NIfTI image (read like a file); a SimpleITK image (converted from LPS to RAS+ and from ``k, j, i`` to
        ``i, j, k``); a MetaTensor of MONAI with its affine; an image of TorchIO; or an `Image`.
    affine
        4x4, voxel indices to mm RAS+, for tensors and arrays only; ``None`` is the identity. Other values have their
        own.
    channels
        Read several values per voxel as channels, from files and nibabel (``(i, j, k, c)``, ``(i, j, k, 1, c)``) and
        from SimpleITK (vectors). By default they are refused there: they may be frames, colours or a displacement
        field. Tensors and images of MONAI and TorchIO have their channels first and do not need it. Arrays of more than
        three axes are always refused, since the axis of the channels is unknown.
    dims
        2 for a 2-D image, which becomes a volume of one slice: an array or tensor ``[i, j]``, a tensor ``[c, i, j]``,
        or a 2-D image of SimpleITK. Files of NIfTI say themselves that they have two dimensions.
    device
        Where the values go; ``None`` leaves a tensor on its device and puts other values on the CPU.

    Raises
    ------
    ConfigError
        If ``affine`` is passed with a value that has its own.
    InputError
        If the value is none of these, or does not have ``dims`` axes of real numbers.
    GeometryError
        If an affine is unusable.
    FileError
        If a file cannot be read.

    Examples
    --------
    >>> as_image(np.zeros((4, 5, 6), np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
    Image(1 x torch.int16 on cpu, Grid(shape=(4, 5, 6), spacing_mm=(2, 2, 3), orientation='RAS'))
    """
    if dims not in (2, 3):
        raise ConfigError(f"dims must be 2 or 3, got {show(dims)}; choose one of them")
    if not has_affine(type(value)):
        return Image.from_array(_add_slice_axis(value) if dims == 2 else value, affine, device=device)
    if affine is not None:
        raise ConfigError(
            f"affine must be None for a {type(value).__name__}, which has its own, got an affine; omit it, or build "
            "the image with Image.from_array"
        )
    if isinstance(value, Image):
        image = value if device is None else value.to(device)
    elif isinstance(value, (str, os.PathLike)):
        image = read_image(value, channels=channels, device=device)
    else:
        image = _from_package(value, channels, dims, device)
    if dims == 2 and image.grid.dims != 2:
        raise InputError(f"value must be a single slice for dims=2, got shape {image.grid.shape}; extract a slice")
    return image


def _add_slice_axis(value: Any) -> Any:
    """Return an array ``[i, j]`` as one slice ``[i, j, 1]``, and a tensor ``[c, i, j]`` as ``[c, i, j, 1]``."""
    axes = np.ndim(value) if isinstance(value, np.ndarray) else value.ndim
    if axes != 2 and not (axes == 3 and isinstance(value, torch.Tensor)):
        raise InputError(
            "a 2-D image must be an array or tensor [i, j], or a tensor [c, i, j], got shape "
            f"{tuple(value.shape)}; omit dims=2 for a volume"
        )
    return value[..., None]


def parse_on_grid_of(image: Image, value: Any, name: str, belongs_to: str, *, channels: bool = False) -> Image:
    """Return what belongs to an image, with one channel unless there may be more; an array takes its grid."""
    if isinstance(value, torch.Tensor):
        check_values(value, name)
    is_array = not has_affine(type(value))
    if is_array and isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[0] == 1:
        value = value[0]
    across = image.grid.slice_axis
    if is_array and across is not None and value.ndim == 2:  # of a 2-D image
        value = value.unsqueeze(across) if isinstance(value, torch.Tensor) else np.expand_dims(value, across)
    shape = tuple(value.shape[1:] if channels and value.ndim == 4 else value.shape) if is_array else image.grid.shape
    if shape != image.grid.shape:
        raise InputError(
            f"{name} must have the shape of the {belongs_to} image, {image.grid.shape}, got {shape}; pass an array of "
            "that shape, or an Image or file with its own affine"
        )
    affine = image.grid.affine if is_array else None
    found = as_image(value, affine, channels=channels, device=image.data.device)
    check_values(found.data, name)
    if found.data.shape[0] != 1 and not channels:
        raise InputError(f"{name} must have one channel, got {found.data.shape[0]}")
    return found


@check_arguments
def convert_image(image: ImageLike, kind: type) -> Any:
    """Convert an `Image` to a class of another package; the inverse of `as_image`.

    Parameters
    ----------
    image
        In any form that `as_image` takes.
    kind
        The class: `Image`; ``torch.Tensor`` or ``numpy.ndarray`` (``[i, j, k]`` for one channel, else
        ``[c, i, j, k]``, without the affine); ``nibabel.Nifti1Image`` or ``Nifti2Image``; ``SimpleITK.Image``;
        ``monai.data.MetaTensor``; ``torchio.ScalarImage`` or ``LabelMap``. ``type(x)`` of the argument of `as_image` is
        valid.

    Returns
    -------
    An object of that class. Tensors keep type and device; others have the types of `write_image`.

    Raises
    ------
    ConfigError
        If the class is none of these.
    GeometryError
        If the class cannot hold the grid: the axes of SimpleITK's are orthogonal.

    Examples
    --------
    >>> import numpy as np
    >>> from convexadam import as_image
    >>> from convexadam.io import convert_image
    >>> convert_image(as_image(np.zeros((4, 5, 6), np.int16)), np.ndarray).shape
    (4, 5, 6)
    """
    if not isinstance(kind, type):
        raise ConfigError(f"kind must be a class, such as torch.Tensor, got {show(kind)}; pass type(...) of it")
    image = to_image(image, "image")
    if issubclass(kind, Image):
        return image
    if has_affine(kind):
        return _to_package(image, kind)
    if issubclass(kind, torch.Tensor):
        return image.data[0] if image.data.shape[0] == 1 else image.data
    return image.numpy()


@check_arguments
def has_affine(kind: type) -> bool:
    """Whether objects of a class have an affine: all except tensors and arrays, but MetaTensors do.

    Examples
    --------
    >>> import nibabel
    >>> import numpy as np
    >>> from convexadam.io import has_affine
    >>> has_affine(np.ndarray), has_affine(nibabel.Nifti1Image)
    (False, True)
    """
    return not issubclass(kind, (torch.Tensor, np.ndarray)) or "monai" in _package_names(kind)


def _package_names(kind: type) -> set[str]:
    """Return the names of the packages of a class and its bases, without importing them."""
    return {base.__module__.partition(".")[0] for base in kind.__mro__}


def _to_package(image: Image, kind: Any) -> Any:
    packages = _package_names(kind)
    if "monai" in packages and issubclass(kind, torch.Tensor):
        return kind(image.data, affine=torch.from_numpy(image.grid.affine.copy()))
    if "nibabel" in packages and hasattr(kind, "header_class"):
        return make_nifti(to_nifti_array(image.data), image.grid, kind=kind)
    if "SimpleITK" in packages and kind.__name__ == "Image":
        return image_to_itk(image.data, image.grid)
    if "torchio" in packages:
        return kind(tensor=torch.from_numpy(np.array(to_storable(image.data))), affine=image.grid.affine.copy())
    raise ConfigError(
        "kind must be Image, torch.Tensor, numpy.ndarray, or an image class of nibabel, SimpleITK, MONAI or TorchIO, "
        f"got {kind.__module__}.{kind.__name__}; write files with write_image"
    )


def _from_package(value: Any, channels: bool, dims: int, device: torch.device | str | None) -> Image:
    packages = _package_names(type(value))
    if "nibabel" in packages and type(value).__name__ == "MGHImage":
        with read_lazily(value.get_filename(), "an MGH image"):
            return image_from_mgh(value, channels=channels, device=device)
    if "nibabel" in packages:
        nifti = check_nifti(value)
        with read_lazily(nifti.get_filename(), "a NIfTI image"):
            return image_from_nifti(nifti, channels=channels, device=device)
    if "SimpleITK" in packages:
        if not hasattr(value, "GetNumberOfComponentsPerPixel"):
            raise InputError(f"value must be a SimpleITK.Image, got SimpleITK.{type(value).__name__}; pass an image")
        return image_from_itk(value, channels=channels, dims=dims, device=device)
    if "monai" in packages and isinstance(value, torch.Tensor):
        meta_tensor: Any = value
        in_lps = str(getattr(meta_tensor, "meta", {}).get("space", "RAS")).endswith("LPS")
        affine = torch.as_tensor(meta_tensor.affine, device="cpu").detach().as_subclass(torch.Tensor).double().numpy()
        return Image.from_array(value.as_subclass(torch.Tensor), LPS @ affine if in_lps else affine, device=device)
    if "torchio" in packages and isinstance(getattr(value, "data", None), torch.Tensor):
        return Image.from_array(value.data, np.asarray(value.affine), device=device)
    raise InputError(
        "value must be a path, an Image, a tensor, a numpy array, or an image of nibabel, SimpleITK, MONAI or TorchIO, "
        f"got {type(value).__module__}.{type(value).__name__}; convert it to one of them"
    )
