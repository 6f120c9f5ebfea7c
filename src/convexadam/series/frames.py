"""Time series: frames on one grid, in one four-dimensional file or in one file each."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch

from convexadam.errors import FileError, GeometryError, InputError
from convexadam.geometry import Image
from convexadam.io import atomic_path, read_image
from convexadam.io.images import find_itk_reader
from convexadam.io.nifti import FIELD_INTENTS, make_nifti, to_nifti_array
from convexadam.io.nifti_file import is_mgh, load_nifti, open_nifti, read_head
from convexadam.io.reading import StrPath


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class FrameSeries:
    """Frames of a series.

    Attributes
    ----------
    frames
        One channel each, on one grid.
    step_s
        Time between frames in seconds; 0 if unknown.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> from convexadam.series import FrameSeries
    >>> frame = Image(torch.rand(1, 8, 8, 8), Grid((8, 8, 8)))
    >>> len(FrameSeries(frames=(frame, frame), step_s=2.0).frames)
    2
    """

    frames: tuple[Image, ...]
    step_s: float = 0.0

    def __post_init__(self) -> None:
        if len(self.frames) < 2:
            raise InputError(f"frames must be at least two, got {len(self.frames)}; a series has several")
        for number, frame in enumerate(self.frames):
            if not isinstance(frame, Image) or frame.data.shape[0] != 1:
                raise InputError(f"frames[{number}] must be an Image with one channel, got {frame!r}; split it")
            if not frame.grid.is_close(self.frames[0].grid):
                raise GeometryError(
                    f"frames[{number}] must be on the grid of the first frame {self.frames[0].grid!r}, got "
                    f"{frame.grid!r}; resample it"
                )


def read_series(source: StrPath | Sequence[StrPath]) -> FrameSeries:
    """Read a time series.

    Parameters
    ----------
    source
        A four-dimensional NIfTI file; or files of one frame each, as a list or a pattern such as ``"frames/*.nii.gz"``.

    Raises
    ------
    FileError
        If a file cannot be read, or no file has such a name.
    InputError, GeometryError
        If there are fewer than two frames, or they lie on different grids; if a file holds vectors, such as a
        displacement field.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> from convexadam.series import FrameSeries, read_series, write_series
    >>> frame = Image(torch.rand(1, 8, 8, 8), Grid((8, 8, 8)))
    >>> write_series(FrameSeries(frames=(frame,) * 3), "frames.nii.gz")
    >>> len(read_series("frames.nii.gz").frames)
    3
    """
    names = sorted(glob.glob(os.fspath(source))) if isinstance(source, (str, os.PathLike)) else list(source)  # noqa: PTH207 (a pattern may begin with /)
    if not names:
        raise FileError(f"{source} must name a file, got none; check the name, and quote patterns")
    if len(names) > 1:
        return FrameSeries(frames=tuple(read_image(name) for name in names))
    image = read_image(names[0], channels=True)
    if len(image.data) > 1:
        _check_frames(Path(names[0]))
    frames = tuple(Image(volume[None], image.grid) for volume in image.data)
    return FrameSeries(frames=frames, step_s=_read_step(Path(names[0])))


def write_series(series: FrameSeries, path: StrPath) -> None:
    """Write a series as a four-dimensional NIfTI file, with the time between frames.

    Raises
    ------
    FileError
        If the file cannot be written.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> from convexadam.series import FrameSeries, read_series, write_series
    >>> frame = Image(torch.rand(1, 8, 8, 8), Grid((8, 8, 8)))
    >>> write_series(FrameSeries(frames=(frame, frame), step_s=2.0), "frames.nii.gz")
    >>> read_series("frames.nii.gz").step_s
    2.0
    """
    import nibabel

    if not str(path).endswith((".nii", ".nii.gz")):
        raise FileError(f"the name of a series must end in .nii or .nii.gz, got {path}; change the ending")
    array = np.stack([to_nifti_array(frame.data) for frame in series.frames], axis=-1)
    nifti = make_nifti(array, series.frames[0].grid)
    nifti.header.set_xyzt_units("mm", "sec")
    nifti.header["pixdim"][4] = series.step_s
    with atomic_path(path) as temporary:
        nibabel.save(nifti, temporary)


def average_frames(frames: Sequence[Image]) -> Image:
    """Return the mean of frames, float32."""
    total = torch.zeros(frames[0].grid.shape, dtype=torch.float64, device="cpu")
    for frame in frames:
        total += frame.data[0].cpu()
    return Image((total / len(frames)).float()[None], frames[0].grid)


def _check_frames(path: Path) -> None:
    """Raise `InputError` if the values of a file are vectors: those of a field, or of another format than NIfTI."""
    if path.is_dir() or is_mgh(read_head(path)):
        return
    if find_itk_reader(path) is not None:
        found = "vectors"
    else:
        nifti = open_nifti(path)
        header: Any = nifti.header
        if int(header["intent_code"]) not in FIELD_INTENTS and all(n == 1 for n in nifti.shape[4:]):
            return
        found = f"vectors (shape {nifti.shape}, intent {int(header['intent_code'])})"
    raise InputError(
        f"frames must follow each other along the fourth axis of a NIfTI file, got {found} in {path}; apply a field "
        "with convexadam warp, and write frames as (i, j, k, time) without an intent"
    )


def _read_step(path: Path) -> float:
    """Return the time between the frames of a NIfTI file in seconds, 0 for other files."""
    if not path.name.endswith((".nii", ".nii.gz")):
        return 0.0
    header: Any = load_nifti(path).header
    unit = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}.get(header.get_xyzt_units()[1], 0.0)
    return float(header["pixdim"][4]) * unit
