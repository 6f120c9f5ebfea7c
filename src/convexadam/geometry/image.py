"""A volume together with where it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch

from convexadam._typing import Shaped, Tensor
from convexadam.errors import InputError
from convexadam.geometry.grid import Grid
from convexadam.geometry.tensors import to_device


@final
@dataclass(frozen=True, eq=False)
class Image:
    """Voxel values on a grid.

    Attributes
    ----------
    data
        Tensor ``[c, i, j, k]`` of any real type on any device; ``c`` channels, mostly one. Unsigned types of two bytes
        and more, with which torch computes little, become the next larger signed one (uint64 becomes int64).
    grid
        Shape and affine of the voxels.

    Raises
    ------
    InputError
        If ``data`` is not a real tensor with four axes, its shape is not the grid's, or an unsigned value is too large.
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
        object.__setattr__(self, "data", _signed(self.data))

    @classmethod
    def from_array(cls, array: Any, affine: Any = None, *, device: torch.device | str | None = None) -> Image:
        """Make an image of a 3-D tensor or numpy array ``[i, j, k]``, or of a tensor ``[c, i, j, k]``.

        Parameters
        ----------
        array
            Values in NIfTI index order. Trailing axes of length 1 after the third are dropped
            (``[i, j, k, 1]``); any other number of axes raises. A masked array may not hide any value.
        affine
            4x4, voxel indices to mm RAS+; the identity where it is ``None``.
        device
            Where the data goes; ``None`` leaves a tensor where it is and puts an array on the CPU.

        Raises
        ------
        InputError
            If the array has other axes, no voxel, values that are no real numbers, or hidden (masked) ones.
        GeometryError
            If the affine is unusable.
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
            data if device is None else to_device(data, device),
            Grid((shape[0], shape[1], shape[2]), np.eye(4) if affine is None else affine),
        )

    @property
    def is_label(self) -> bool:
        """Whether the values are whole numbers by type: such images are warped without mixing values."""
        return not self.data.is_floating_point()

    def to(self, device: torch.device | str) -> Image:
        """Return the same image on another device; float64 becomes float32 where that has none (MPS)."""
        return Image(to_device(self.data, device), self.grid)

    def canonical(self) -> Image:
        """Return the same voxels in the order of ``grid.canonical()``; nothing is interpolated."""
        axes, flips = self.grid.canonical_axes()
        data = self.data.permute(0, *(a + 1 for a in axes))
        data = data.flip([n + 1 for n, flip in enumerate(flips) if flip])
        return Image(data.contiguous(), self.grid.canonical())

    def numpy(self) -> np.ndarray:
        """Copy of the values as a numpy array: ``[i, j, k]`` for one channel, else ``[c, i, j, k]``."""
        array = self.data.detach().cpu()
        if array.dtype == torch.bfloat16:  # numpy has no such type
            array = array.float()
        return np.array((array[0] if array.shape[0] == 1 else array).numpy())

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
    hidden = int(np.ma.getmaskarray(array).sum()) if isinstance(array, np.ma.MaskedArray) else 0
    if hidden:
        raise InputError(
            f"the masked array hides {hidden} of {array.size} values; give them a value with array.filled(...), "
            "and say where there is evidence with a mask of its own"
        )
    values = np.asarray(array)
    if values.dtype.kind not in "biuf":
        raise InputError(f"voxel values are real numbers, but the array has type {values.dtype}")
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    return _signed(torch.from_numpy(np.ascontiguousarray(values.astype(values.dtype.newbyteorder("=")))))


_SIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


def _signed(data: Tensor) -> Tensor:
    """Values in a type that torch computes with: it does little with uint16 and up."""
    if data.dtype not in _SIGNED:
        return data
    signed = data.to(_SIGNED[data.dtype])
    if data.dtype == torch.uint64 and bool((signed < 0).any()):
        raise InputError(
            "the volume holds unsigned values of 2^63 and more; scale them, or pass floating-point numbers"
        )
    return signed
