"""Displacement fields of the Learn2Reg challenge: those of its present evaluation, and of 2020 and 2021."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch

from convexadam._atomic import atomic_path
from convexadam._typing import Field, Triple
from convexadam.errors import FileError
from convexadam.geometry import DisplacementField, Grid, Transform
from convexadam.io.nifti import StrPath, load_nifti, nifti_values, save_nifti
from convexadam.io.places import as_field, as_field_on, field_of, indices_in, places_of
from convexadam.io.reading import is_zip, reading

_LONG = re.compile(r"disp_\d{4}_(\d{4})_\d{4}_(\d{4})\.(?:npz|nii\.gz)")
_SHORT = re.compile(r"disp_\d{4}_\d{4}\.(?:npz|nii\.gz)")
_FULL_IN_2021: Triple = (64, 64, 64)
"""Shape of the one task of 2021 (Hippocampus) whose fields were not halved."""


def write_learn2reg(
    transform: Transform, path: StrPath, *, fixed: Grid | None = None, moving: Grid | None = None
) -> None:
    """Write a transform as Learn2Reg wants it: ``(i, j, k, 3)`` in voxels, fixed to moving.

    The value at voxel ``x`` of the fixed image is ``y - x`` where ``y`` are indices of the moving image.

    Parameters
    ----------
    transform
        From fixed to moving space, on any device.
    path
        ``*.nii.gz`` for float32; ``*.npz`` for float16 under the key ``arr_0``, compact and rounded: to 0.002 voxels
        for displacements up to 4 voxels, 0.008 up to 16 and 0.03 up to 64.
    fixed
        Where the values lie; ``None`` takes the transform's grid.
    moving
        Whose indices are meant; ``None``: both images of a pair share one grid, as Learn2Reg's do.

    Raises
    ------
    FileError
        If the name ends otherwise, the folder is missing or the file cannot be written.
    ConfigError
        If neither a grid comes nor the transform has one.
    """
    check_learn2reg_name(path)
    disp_vox, grid = _voxels(transform, fixed, moving)
    vectors = disp_vox.permute(1, 2, 3, 0)
    if str(path).endswith(".nii.gz"):
        save_nifti(vectors.float().numpy(), grid, path)
    else:
        _save(vectors.numpy(), path)


def write_learn2reg_2021(
    transform: Transform, path: StrPath, *, fixed: Grid | None = None, moving: Grid | None = None
) -> None:
    """Write a field as Learn2Reg took it in 2020 and 2021: ``(3, i/2, j/2, k/2)`` float16, in voxels of the whole grid.

    Halved with ``scipy.ndimage.zoom(component, 0.5, order=2)``; grids of 64 x 64 x 64 (Hippocampus) are not halved.
    Parameters and errors are those of `write_learn2reg`, but that the name ends in ``.npz``.
    """
    from scipy.ndimage import zoom

    if not str(path).endswith(".npz"):
        raise FileError(f"a field for Learn2Reg 2021 is called *.npz, but the name is {path}; change its ending")
    disp_vox, grid = _voxels(transform, fixed, moving)
    vectors = disp_vox.numpy()
    if grid.shape != _FULL_IN_2021:
        vectors = np.stack([zoom(component, 0.5, order=2) for component in vectors])
    _save(vectors, path)


def check_learn2reg_name(path: StrPath) -> None:
    """Raise `FileError` unless a field for Learn2Reg can be written under that name."""
    if not str(path).endswith((".nii.gz", ".npz")):
        raise FileError(f"a field for Learn2Reg is called *.nii.gz or *.npz, but the name is {path}; change its ending")


def check_learn2reg(path: StrPath, shape: Triple | Grid, *, modalities: tuple[int, int] | None = None) -> None:
    """Make sure that a field can be handed in to Learn2Reg: its name, shape, type and values.

    Parameters
    ----------
    path
        The file, as it will be handed in: ``disp_FFFF_ffff_MMMM_mmmm`` with the numbers of the fixed image, its
        modality, the moving image and its modality, or ``disp_FFFF_MMMM`` where the modalities are 0 and 1; ``.npz`` or
        ``.nii.gz``.
    shape
        Of the fixed image, or its grid.
    modalities
        Numbers of the modalities of the fixed and the moving image, to be held against the name; ``None`` takes any.

    Raises
    ------
    FileError
        It says everything that is wrong.
    """
    shape = shape.shape if isinstance(shape, Grid) else shape
    problems = _problems_of_name(Path(path).name, modalities)
    if Path(path).name.endswith((".npz", ".nii.gz")):
        with reading(path, "a displacement field of Learn2Reg") as source:
            problems += _problems_of_values(_values(source), shape)
    if problems:
        raise FileError(f"{path} cannot be handed in to Learn2Reg: " + "; ".join(problems))


def check_learn2reg_2021(path: StrPath, shape: Triple) -> None:
    """Make sure that a field can be handed in as in 2020 and 2021: its name, shape, type (float16) and values.

    Parameters
    ----------
    path
        The file, ``disp_FFFF_MMMM.npz``.
    shape
        Of the fixed image, not halved.

    Raises
    ------
    FileError
        It says everything that is wrong.
    """
    name, problems = Path(path).name, []
    if not (_SHORT.fullmatch(name) and name.endswith(".npz")):
        problems.append("it is called disp_FFFF_MMMM.npz (four digits each: fixed and moving image)")
    with reading(path, "a displacement field of Learn2Reg 2021") as source:
        values = _only_array(source)
    needed = (3, *(shape if shape == _FULL_IN_2021 else halved(shape)))
    if values.shape != needed:
        problems.append(f"its shape is {values.shape}, but {needed} is needed (components first)")
    if values.dtype != np.float16:
        problems.append(f"its type is {values.dtype}, but float16 is needed")
    problems += _not_finite(values)
    if problems:
        raise FileError(f"{path} cannot be handed in to Learn2Reg 2021: " + "; ".join(problems))


def learn2reg_voxels(path: StrPath, shape: Triple) -> np.ndarray:
    """Read a field of Learn2Reg as it is stored, to the last bit.

    Parameters
    ----------
    path
        ``*.npz`` with exactly one array under any key, or ``*.nii.gz``.
    shape
        Of the fixed image.

    Returns
    -------
    ``(3, i, j, k)`` float64: displacements in voxels, fixed to moving.

    Raises
    ------
    FileError
        If the file is unreadable, has another shape or type, or holds NaN or Inf.
    """
    with reading(path, "a displacement field of Learn2Reg") as source:
        values = _values(source)
    problems = _problems_of_values(values, shape)
    if problems:
        raise FileError(f"{path} is no displacement field of this task: " + "; ".join(problems))
    return np.moveaxis(values, -1, 0).astype(np.float64)


def read_learn2reg(
    path: StrPath, grid: Grid, *, moving: Grid | None = None, device: torch.device | str | None = None
) -> DisplacementField:
    """Read a field of Learn2Reg: ``(i, j, k, 3)`` in voxels, fixed to moving.

    Parameters
    ----------
    path
        ``*.npz`` with exactly one array under any key, or ``*.nii.gz``, whose affine is not used.
    grid
        The fixed grid: the file does not say where its voxels are.
    moving
        The moving grid; ``None``: both images share one grid, as Learn2Reg's do.
    device
        Where the vectors go; ``None`` is the CPU.

    Returns
    -------
    The transform, float32 (float64 where the file has it).

    Raises
    ------
    FileError
        If the file is unreadable, does not fit the grid, or holds NaN.
    """
    with reading(path, "a displacement field of Learn2Reg") as source:
        values = _values(source)
        if values.shape != (*grid.shape, 3):
            raise FileError(
                f"{source} has shape {values.shape}, but on this grid a field has {(*grid.shape, 3)}; pass the grid of "
                "the fixed image (files of 2021, channels first, are read by read_learn2reg_2021)"
            )
        return _field(as_field(values, device), grid, moving)


def read_learn2reg_2021(
    path: StrPath, grid: Grid, *, moving: Grid | None = None, device: torch.device | str | None = None
) -> DisplacementField:
    """Read a field of Learn2Reg 2020 or 2021: ``(3, i, j, k)``, mostly halved, in voxels of the whole grid.

    Brought to the fixed grid with ``scipy.ndimage.zoom(order=2)``, as the evaluation of those years did it. Parameters
    and errors are those of `read_learn2reg`.
    """
    from scipy.ndimage import zoom

    with reading(path, "a displacement field of Learn2Reg 2021") as source:
        values = _values(source)
        if not _is_of_2021(values.shape, grid.shape):
            half = (3, *halved(grid.shape))
            raise FileError(
                f"{source} has shape {values.shape}, but on this grid a field of 2021 has {half} or "
                f"{(3, *grid.shape)}; pass the grid of the fixed image"
            )
        vectors = np.moveaxis(values, 0, -1)
        if values.shape[1:] != grid.shape:
            factors = [whole / part for whole, part in zip(grid.shape, values.shape[1:], strict=True)]
            vectors = np.stack([zoom(component.astype(np.float32), factors, order=2) for component in values], axis=-1)
        return _field(as_field(vectors, device), grid, moving)


def halved(shape: Triple) -> Triple:
    """Shape that ``scipy.ndimage.zoom(volume, 0.5)`` makes of a volume."""
    i, j, k = (round(n * 0.5) for n in shape)
    return i, j, k


def archive_is_of_2021(source: Path, grid: Grid) -> bool:
    """Whether an ``.npz`` archive has the channels first. To be called within `reading`."""
    return _is_of_2021(_only_array(source).shape, grid.shape)


def _is_of_2021(found: tuple[int, ...], shape: Triple) -> bool:
    return found in ((3, *shape), (3, *halved(shape)))


def _voxels(transform: Transform, fixed: Grid | None, moving: Grid | None) -> tuple[Field, Grid]:
    """Displacements ``[3, i, j, k]`` from indices of the fixed grid to indices of the moving one."""
    field = as_field_on(transform, fixed)
    return places_of(field, indices_in(moving or field.grid), np.eye(4)).detach().cpu(), field.grid


def _field(disp_vox: Field, grid: Grid, moving: Grid | None) -> DisplacementField:
    return field_of(disp_vox, grid, indices_in(moving or grid), np.eye(4))


def _save(vectors: np.ndarray, path: StrPath) -> None:
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, vectors.astype(np.float16))


def _values(source: Path) -> np.ndarray:
    return _only_array(source) if is_zip(source) else nifti_values(load_nifti(source))


def _only_array(path: Path) -> np.ndarray:
    with path.open("rb") as file:  # numpy leaves files that it opened itself open when they are damaged
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile) or len(archive.files) != 1:
            raise FileError(f"{path} is no .npz archive with exactly one array; save the field alone")
        return np.asarray(archive[archive.files[0]])


def _problems_of_name(name: str, modalities: tuple[int, int] | None) -> list[str]:
    long, short = _LONG.fullmatch(name), _SHORT.fullmatch(name)
    if long is None and short is None:
        return [
            "it is called disp_FFFF_ffff_MMMM_mmmm or disp_FFFF_MMMM (four digits each: fixed image and its modality, "
            "moving image and its modality), and ends in .npz or .nii.gz"
        ]
    if modalities is None:
        return []
    if short is not None:
        wrong = modalities != (0, 1)
        return ["the short name stands for the modalities 0000 and 0001; give it the long one"] if wrong else []
    assert long is not None
    found = (int(long[1]), int(long[2]))
    return [f"its name says the modalities {found}, but they are {modalities}"] if found != modalities else []


def _problems_of_values(values: np.ndarray, shape: Triple) -> list[str]:
    problems = []
    if values.shape != (*shape, 3):
        needed = f"its shape is {values.shape}, but {(*shape, 3)} is needed"
        old = _is_of_2021(values.shape, shape)
        problems.append(f"{needed} (this is a field of 2021: components first)" if old else needed)
    if values.dtype.kind != "f" or values.dtype.itemsize not in (2, 4, 8):
        problems.append(f"its type is {values.dtype}, but float16, float32 or float64 is needed")
    return problems + _not_finite(values)


def _not_finite(values: np.ndarray) -> list[str]:
    return ["it holds NaN or Inf"] if values.dtype.kind == "f" and not np.isfinite(values).all() else []
