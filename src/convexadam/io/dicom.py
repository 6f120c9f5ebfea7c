"""Folders with a DICOM series, read with SimpleITK."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._claims import check_claim
from convexadam.errors import FileError, GeometryError, InputError
from convexadam.geometry import Image
from convexadam.io.dicom_elements import check_element_lengths
from convexadam.io.itk import image_from_itk, import_simpleitk

_POSITION, _DIRECTIONS = "0020|0032", "0020|0037"
_SYNTAX, _PLAIN = "0002|0010", ("", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
"""Transfer syntax, and those in which voxels are not packed."""

_VOXEL_BYTES, _BLANK_BYTES = 1, 2**16
"""Least bytes of a voxel, and bytes of a packed file of which any size is believed: blank slices pack well."""

_TOLERANCE = 0.01
"""Tolerance of slice distances, in-plane offsets and directions; the first two relative to the distance."""


def read_dicom_series(folder: Path, *, channels: bool = False, device: torch.device | str | None = None) -> Image:
    """Read the one series in a folder; slices are sorted by position.

    Raises
    ------
    FileError
        If there is no series or more than one, slices are missing or unevenly spaced, or the gantry was tilted.
    MissingExtraError
        If SimpleITK is not installed.
    """
    sitk = import_simpleitk(f"reading the folder {folder} as DICOM")
    for source in folder.iterdir():
        if source.is_file():
            check_element_lengths(source)
    finder, shown = sitk.ImageSeriesReader, sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # that there is no series is said below
    series = {name: finder.GetGDCMSeriesFileNames(str(folder), name) for name in finder.GetGDCMSeriesIDs(str(folder))}
    sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    if len(series) != 1:
        found = ", ".join(f"{name} ({len(files)} files)" for name, files in series.items()) or "none"
        raise FileError(
            f"a folder must hold exactly one DICOM series, got {folder} with {found}; pass an image file, or a folder "
            "with the files of one series"
        )
    for name in next(iter(series.values())):
        _check_claim(sitk, Path(name))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(*series.values())
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        volume = reader.Execute()
    except RuntimeError as error:
        raise FileError(
            f"cannot read the DICOM series in {folder}; check whether a file is damaged or truncated"
        ) from error
    _check_slices(reader, volume.GetSize()[2], folder)
    try:
        return image_from_itk(volume, channels=channels, device=device)
    except (InputError, GeometryError) as error:
        raise FileError(f"cannot read the DICOM series in {folder}: {error}") from error


def _check_claim(sitk: Any, source: Path) -> None:
    """Raise unless a file can hold the voxels that it claims, for which GDCM takes memory before it reads them."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(source))
    try:
        reader.ReadImageInformation()
        syntax = reader.GetMetaData(_SYNTAX).strip() if reader.HasMetaDataKey(_SYNTAX) else ""
    except RuntimeError as error:
        raise FileError(f"cannot read the slice {source}; check whether it is damaged or truncated") from error
    claimed = math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * _VOXEL_BYTES
    packed = syntax not in _PLAIN
    check_claim(claimed, max(source.stat().st_size, _BLANK_BYTES if packed else 0), source, packed=packed)


def _check_slices(reader: Any, number: int, folder: Path) -> None:
    """Refuse stacks that are not evenly spaced, which ITK reads as if they were."""
    if number < 2:
        raise FileError(f"{folder} must hold a volume, got one slice; pass the folder of the whole series")
    if not all(reader.HasMetaDataKey(n, key) for n in range(number) for key in (_POSITION, _DIRECTIONS)):
        raise FileError(
            f"slices in {folder} must have a position and an orientation, got none; convert them with dcm2niix"
        )
    places = np.array([_parse_numbers(reader.GetMetaData(n, _POSITION), 3, folder) for n in range(number)])
    directions = np.array([_parse_numbers(reader.GetMetaData(n, _DIRECTIONS), 6, folder) for n in range(number)])
    steps = np.diff(places, axis=0)
    normal = np.cross(directions[0, :3], directions[0, 3:])
    ahead = steps @ normal
    aside = np.linalg.norm(steps - ahead[:, None] * normal, axis=1)
    distance = float(np.median(np.abs(ahead)))
    if np.abs(directions - directions[0]).max() > _TOLERANCE:
        raise FileError(f"slices in {folder} must be parallel, got several orientations; pass a folder with one stack")
    if np.abs(np.abs(ahead) - distance).max() > _TOLERANCE * distance:
        raise FileError(
            f"slices in {folder} must be evenly spaced, got distances of {np.abs(ahead).min():.4g} to "
            f"{np.abs(ahead).max():.4g} mm; add missing slices, or resample the stack"
        )
    if aside.max() > _TOLERANCE * distance:
        raise FileError(
            f"slices in {folder} must be stacked along their normal, got in-plane offsets (a tilted gantry); convert "
            "them with dcm2niix"
        )


def _parse_numbers(text: str, count: int, folder: Path) -> list[float]:
    try:
        numbers = [float(part) for part in text.split("\\")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise FileError(
            f"position and orientation of slices in {folder} must be {count} finite numbers, got {text[:60]!r}; copy "
            "the series again, since a file may be damaged"
        )
    return numbers
