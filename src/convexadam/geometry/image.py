"""A volume together with where it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from convexadam._typing import Shaped, Tensor
from convexadam.errors import InputError
from convexadam.geometry.grid import Grid


@final
@dataclass(frozen=True, eq=False)
class Image:
    """Voxel values on a grid.

    Attributes
    ----------
    data
        Tensor ``[c, i, j, k]`` of any real type on any device; ``c`` channels, mostly one.
    grid
        Shape and affine of the voxels.

    Raises
    ------
    InputError
        If ``data`` is not a real tensor with four axes, or its shape is not the grid's.
    """

    data: Shaped[Tensor, "c i j k"]
    grid: Grid

    def __post_init__(self) -> None:
        if not isinstance(self.data, torch.Tensor) or self.data.ndim != 4:
            raise InputError(
                f"image data is a tensor [channels, i, j, k], but {_described(self.data)} came; see Image.from_array"
            )
        if tuple(self.data.shape[1:]) != self.grid.shape:
            raise InputError(f"the data has shape {tuple(self.data.shape[1:])} but its grid {self.grid.shape}")
        if self.data.is_complex() or self.data.shape[0] < 1:
            raise InputError(f"image data has at least one channel of real numbers, but {_described(self.data)} came")

    @classmethod
    def from_array(cls, array: Any, affine: Any = None, *, device: torch.device | str | None = None) -> Image:
        """Make an image of a 3-D tensor or numpy array ``[i, j, k]``, or of a tensor ``[c, i, j, k]``.

        Parameters
        ----------
        array
            Values in NIfTI index order. Trailing axes of length 1 after the third are dropped
            (``[i, j, k, 1]``); any other number of axes raises.
        affine
            4x4, voxel indices to mm RAS+; the identity where it is ``None``.
        device
            Where the data goes; ``None`` leaves a tensor where it is and puts an array on the CPU.
        """
        data = _as_tensor(array)
        if not isinstance(array, torch.Tensor):
            while data.ndim > 3 and data.shape[-1] == 1:
                data = data[..., 0]
        if data.ndim == 3:
            data = data[None]
        elif data.ndim != 4 or not isinstance(array, torch.Tensor):
            raise InputError(
                f"a volume has three axes (i, j, k), but the array has shape {tuple(np.shape(array))}; "
                "pass one 3-D volume, or a tensor [channels, i, j, k] for several channels"
            )
        if 0 in data.shape:
            raise InputError(f"the volume is empty: its shape is {tuple(np.shape(array))}")
        shape = tuple(data.shape[1:])
        return cls(
            data if device is None else data.to(device),
            Grid((shape[0], shape[1], shape[2]), np.eye(4) if affine is None else affine),
        )

    @property
    def is_label(self) -> bool:
        """Whether the values are whole numbers by type: such images are warped without mixing values."""
        return not self.data.is_floating_point()

    def to(self, device: torch.device | str) -> Image:
        """Return the same image on another device."""
        return Image(self.data.to(device), self.grid)

    def canonical(self) -> Image:
        """Return the same voxels in the order of ``grid.canonical()``; nothing is interpolated."""
        axes, flips = self.grid.canonical_axes()
        data = self.data.permute(0, *(a + 1 for a in axes))
        data = data.flip([n + 1 for n, flip in enumerate(flips) if flip])
        return Image(data.contiguous(), self.grid.canonical())

    def numpy(self) -> np.ndarray:
        """Values as a numpy array: ``[i, j, k]`` for one channel, else ``[c, i, j, k]``."""
        array = self.data.detach().cpu()
        if array.dtype == torch.bfloat16:  # numpy has no such type
            array = array.float()
        return np.asarray(array[0] if array.shape[0] == 1 else array)

    def __repr__(self) -> str:
        """Channels, type, device and grid, on one line."""
        return f"Image({self.data.shape[0]} x {self.data.dtype} on {self.data.device}, {self.grid!r})"


def _described(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    return f"a {type(value).__name__}"


def _as_tensor(array: Any) -> Tensor:
    if isinstance(array, torch.Tensor):
        return array
    values = np.asarray(array)
    if values.dtype.kind not in "biuf":
        raise InputError(f"voxel values are real numbers, but the array has type {values.dtype}")
    if values.dtype.kind == "u" and values.dtype.itemsize > 1:  # torch computes little with uint16 and up
        values = values.astype(np.int32 if values.dtype.itemsize == 2 else np.int64)
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    return torch.from_numpy(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("="))))
