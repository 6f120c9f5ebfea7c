"""Which fields Learn2Reg takes: their names, shapes, types and values."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from convexadam._arguments import check_arguments
from convexadam._claims import check_arrays
from convexadam._typing import Triple
from convexadam.errors import FileError
from convexadam.geometry import Grid
from convexadam.io.nifti import read_nifti_values
from convexadam.io.nifti_file import load_nifti
from convexadam.io.reading import StrPath, check_file, is_zip

_LONG = re.compile(r"disp_\d{4}_(\d{4})_\d{4}_(\d{4})\.(?:npz|nii\.gz)")
_SHORT = re.compile(r"disp_\d{4}_\d{4}\.(?:npz|nii\.gz)")
FULL_IN_2021: Triple = (64, 64, 64)
"""Shape of the images of Hippocampus, the one task of 2021 whose fields have full resolution."""


@check_arguments
def check_learn2reg_name(path: StrPath) -> None:
    """Raise `FileError` unless the name ends like a field of Learn2Reg.

    Examples
    --------
    >>> from convexadam.io import check_learn2reg_name
    >>> check_learn2reg_name("disp_0001_0002.npz")
    >>> check_learn2reg_name("disp.mha")
    Traceback (most recent call last):
    ...
    convexadam.errors.FileError: the name of a field for Learn2Reg must end in .nii.gz or .npz, got disp.mha...
    """
    if not str(path).endswith((".nii.gz", ".npz")):
        raise FileError(f"the name of a field for Learn2Reg must end in .nii.gz or .npz, got {path}; change the ending")


@check_arguments
def check_learn2reg(path: StrPath, shape: Triple | Grid, *, modalities: tuple[int, int] | None = None) -> None:
    """Check that a field can be submitted to Learn2Reg: its name, shape, type and values.

    Parameters
    ----------
    path
        The file under its final name: ``disp_FFFF_ffff_MMMM_mmmm`` with the numbers of the fixed image, its modality,
        the moving image and its modality, or ``disp_FFFF_MMMM`` if the modalities are 0 and 1; ``.npz`` or ``.nii.gz``.
    shape
        Shape of the fixed image, or its grid.
    modalities
        Numbers of the modalities of the fixed and the moving image, which the name must have; ``None`` allows any.

    Raises
    ------
    FileError
        If anything is wrong; the message lists all problems.

    Examples
    --------
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import check_learn2reg, write_learn2reg
    >>> write_learn2reg(DisplacementField(torch.zeros(3, 8, 7, 6), Grid((8, 7, 6))), "disp_0001_0000_0002_0000.nii.gz")
    >>> check_learn2reg("disp_0001_0000_0002_0000.nii.gz", (8, 7, 6))
    """
    shape = shape.shape if isinstance(shape, Grid) else shape
    problems = _find_name_problems(Path(path).name, modalities)
    if Path(path).name.endswith((".npz", ".nii.gz")):
        with check_file(path, "a displacement field of Learn2Reg") as source:
            problems += find_value_problems(read_values(source), shape)
    if problems:
        raise FileError(f"cannot submit {path} to Learn2Reg: " + "; ".join(problems))


@check_arguments
def check_learn2reg_2021(path: StrPath, shape: Triple) -> None:
    """Check that a field can be submitted as in 2020 and 2021: its name, shape, type (float16) and values.

    Parameters
    ----------
    path
        The file, ``disp_FFFF_MMMM.npz``.
    shape
        Shape of the fixed image, at full resolution.

    Raises
    ------
    FileError
        If anything is wrong; the message lists all problems.

    Examples
    --------
    >>> import torch
    >>> from convexadam import DisplacementField, Grid
    >>> from convexadam.io import check_learn2reg_2021, write_learn2reg_2021
    >>> write_learn2reg_2021(DisplacementField(torch.zeros(3, 8, 8, 8), Grid((8, 8, 8))), "disp_0001_0002.npz")
    >>> check_learn2reg_2021("disp_0001_0002.npz", (8, 8, 8))
    """
    name, problems = Path(path).name, []
    if not (_SHORT.fullmatch(name) and name.endswith(".npz")):
        problems.append(f"its name must be disp_FFFF_MMMM.npz (four digits each: fixed and moving image), got {name}")
    with check_file(path, "a displacement field of Learn2Reg 2021") as source:
        values = read_single_array(source)
    needed = (3, *(shape if shape == FULL_IN_2021 else halve_shape(shape)))
    if values.shape != needed:
        problems.append(f"its shape must be {needed} (components first), got {values.shape}")
    if values.dtype != np.float16:
        problems.append(f"its type must be float16, got {values.dtype}")
    problems += _find_nonfinite(values)
    if problems:
        raise FileError(f"cannot submit {path} to Learn2Reg 2021: " + "; ".join(problems))


def halve_shape(shape: Triple) -> Triple:
    """Return the shape of ``scipy.ndimage.zoom(volume, 0.5)``."""
    i, j, k = (round(n * 0.5) for n in shape)
    return i, j, k


def is_2021_shape(found: tuple[int, ...], shape: Triple) -> bool:
    """Whether a shape is that of a field of 2021: components first, at half or full resolution."""
    return found in ((3, *shape), (3, *halve_shape(shape)))


def read_values(source: Path) -> np.ndarray:
    """Return the array of an archive, or the values of a NIfTI file. Call it within `check_file`."""
    return read_single_array(source) if is_zip(source) else read_nifti_values(load_nifti(source))


def read_single_array(path: Path) -> np.ndarray:
    """Return the one array of an archive. Call it within `check_file`."""
    check_arrays(path)
    with path.open("rb") as file:  # numpy leaves files that it opened itself open when they are damaged
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile) or len(archive.files) != 1:
            raise FileError(
                f"cannot read {path}: it must be an .npz archive with exactly one array; save the field alone"
            )
        return np.asarray(archive[archive.files[0]])


def _find_name_problems(name: str, modalities: tuple[int, int] | None) -> list[str]:
    long, short = _LONG.fullmatch(name), _SHORT.fullmatch(name)
    if long is None and short is None:
        return [
            "its name must be disp_FFFF_ffff_MMMM_mmmm or disp_FFFF_MMMM (four digits each: fixed image and its "
            f"modality, moving image and its modality) and end in .npz or .nii.gz, got {name}"
        ]
    if modalities is None:
        return []
    if short is not None:
        wrong = modalities != (0, 1)
        return (
            [f"its name must be the long one for modalities {modalities}, got {name} (0000 and 0001)"] if wrong else []
        )
    assert long is not None
    found = (int(long[1]), int(long[2]))
    return [f"the modalities in its name must be {modalities}, got {found}"] if found != modalities else []


def find_value_problems(values: np.ndarray, shape: Triple) -> list[str]:
    """Say what is wrong with the shape, the type and the values of a field."""
    problems = []
    if values.shape != (*shape, 3):
        problem = f"its shape must be {(*shape, 3)}, got {values.shape}"
        old = is_2021_shape(values.shape, shape)
        problems.append(f"{problem} (a field of 2021: components first)" if old else problem)
    if values.dtype.kind != "f" or values.dtype.itemsize not in (2, 4, 8):
        problems.append(f"its type must be float16, float32 or float64, got {values.dtype}")
    return problems + _find_nonfinite(values)


def _find_nonfinite(values: np.ndarray) -> list[str]:
    return (
        ["its values must be finite, got NaN or Inf"]
        if values.dtype.kind == "f" and not np.isfinite(values).all()
        else []
    )
