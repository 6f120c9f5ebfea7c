"""Folders with a DICOM series, through SimpleITK."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam.errors import FileError, InputError
from convexadam.geometry import Image
from convexadam.io.itk import image_from_itk, simpleitk

_POSITION, _DIRECTIONS = "0020|0032", "0020|0037"
_UNEVEN = 0.01
"""Largest difference between two slice distances, and largest slip of a slice, as a share of the distance."""


def read_dicom_series(folder: Path, *, channels: bool = False, device: torch.device | str | None = None) -> Image:
    """Read the one series of single slices in a folder; slices are ordered by where they lie.

    Raises
    ------
    FileError
        If there is no series or there are several, slices are missing or unevenly spaced, or the gantry was tilted.
    MissingExtraError
        If SimpleITK is not installed.
    """
    sitk = simpleitk(f"reading the folder {folder} as DICOM")
    finder = sitk.ImageSeriesReader
    series = {name: finder.GetGDCMSeriesFileNames(str(folder), name) for name in finder.GetGDCMSeriesIDs(str(folder))}
    if len(series) != 1:
        found = ", ".join(f"{name} ({len(files)} files)" for name, files in series.items()) or "none"
        raise FileError(
            f"{folder} is a folder, but one with exactly one DICOM series is needed, and it has {found}; give the file "
            "of an image, or a folder with the files of one series"
        )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(*series.values())
    reader.MetaDataDictionaryArrayUpdateOn()
    try:
        volume = reader.Execute()
    except RuntimeError as error:
        raise FileError(f"the DICOM series in {folder} cannot be read; is a file damaged, or cut short?") from error
    _check_slices(reader, volume.GetSize()[2], folder)
    try:
        return image_from_itk(volume, channels=channels, device=device)
    except InputError as error:
        raise FileError(f"{folder}: {error}") from error


def _check_slices(reader: Any, number: int, folder: Path) -> None:
    """Refuse what ITK reads as an even stack although it is none."""
    if number < 2:
        raise FileError(f"{folder} holds one slice, but a volume is needed; give the folder of the whole series")
    if not all(reader.HasMetaDataKey(n, key) for n in range(number) for key in (_POSITION, _DIRECTIONS)):
        raise FileError(f"the slices in {folder} do not say where they lie; convert them with dcm2niix")
    places = np.array([_numbers(reader.GetMetaData(n, _POSITION)) for n in range(number)])
    directions = np.array([_numbers(reader.GetMetaData(n, _DIRECTIONS)) for n in range(number)])
    steps = np.diff(places, axis=0)
    normal = np.cross(directions[0, :3], directions[0, 3:])
    ahead = steps @ normal
    aside = np.linalg.norm(steps - ahead[:, None] * normal, axis=1)
    distance = float(np.median(np.abs(ahead)))
    if np.abs(directions - directions[0]).max() > _UNEVEN:
        raise FileError(f"the slices in {folder} are not parallel; give a folder with one stack")
    if np.abs(np.abs(ahead) - distance).max() > _UNEVEN * distance:
        raise FileError(
            f"the slices in {folder} are {np.abs(ahead).min():.4g} to {np.abs(ahead).max():.4g} mm apart; some are "
            "missing, or the stack is uneven: complete it, or resample it to even slices"
        )
    if aside.max() > _UNEVEN * distance:
        raise FileError(f"the slices in {folder} slip sideways (a tilted gantry); convert them with dcm2niix")


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split("\\")]
