"""Images: voxel values on a grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from convexadam._checks import check_choice, check_count, show
from convexadam._typing import Shaped, Tensor
from convexadam.errors import InputError
from convexadam.geometry.delegates import delegate
from convexadam.geometry.grid import Grid
from convexadam.geometry.planes import NORMAL, PLANES, Plane, take_slice
from convexadam.geometry.tensors import check_tensor, check_values, to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # annotations can be resolved without matplotlib
    Figure = object


@final
@dataclass(frozen=True, eq=False)
class Image:
    """Voxel values on a grid.

    Attributes
    ----------
    data
        Tensor ``[c, i, j, k]`` of any real type on any device, with ``c`` channels. Unsigned types of two bytes and
        more, for which torch has few operations, become the next larger signed type (uint64 becomes int64).
    grid
        Shape and affine of the voxels.

    Raises
    ------
    InputError
        If ``data`` is not a real tensor with four axes, its shape is not that of the grid, or an unsigned value is too
        large.

    Examples
    --------
    >>> import torch
    >>> from convexadam import Grid, Image
    >>> Image(torch.zeros(1, 20, 16, 12), Grid((20, 16, 12)))  # one channel; voxels of 1 mm
    Image(1 x torch.float32 on cpu, Grid(shape=(20, 16, 12), spacing_mm=(1, 1, 1), orientation='RAS'))
    """

    data: Shaped[Tensor, "c i j k"]
    grid: Grid

    def __post_init__(self) -> None:
        if isinstance(self.data, torch.Tensor):
            check_tensor(self.data, "data")
        if not isinstance(self.data, torch.Tensor) or self.data.ndim != 4:
            raise InputError(
                f"data must be a tensor [channels, i, j, k], got {_summarise(self.data)}; see Image.from_array"
            )
        if not isinstance(self.grid, Grid):
            raise InputError(f"grid must be a Grid, got {show(self.grid)}; see Image.from_array")
        if tuple(self.data.shape[1:]) != self.grid.shape:
            raise InputError(
                f"data must have the shape of its grid {self.grid.shape}, got {tuple(self.data.shape[1:])}; "
                "pass the grid that belongs to it"
            )
        if type(self.data) is not torch.Tensor:  # subclasses of different packages refuse to be computed with together
            object.__setattr__(self, "data", self.data.as_subclass(torch.Tensor))
        if self.data.shape[0] < 1:
            raise InputError(f"data must have at least one channel, got {_summarise(self.data)}; pass one")
        object.__setattr__(self, "data", to_signed(self.data))

    @classmethod
    def from_array(cls, array: Any, affine: Any = None, *, device: torch.device | str | None = None) -> Image:
        """Make an image from a tensor or numpy array ``[i, j, k]``, or from a tensor ``[c, i, j, k]``.

        Parameters
        ----------
        array
            Values in NIfTI index order. Trailing axes of length 1 of an array (``[i, j, k, 1]``) are dropped. A masked
            array must not have masked values.
        affine
            4x4, voxel indices to mm RAS+; ``None`` is the identity.
        device
            Where the data goes; ``None`` leaves a tensor on its device and puts an array on the CPU.

        Raises
        ------
        InputError
            If the array has other axes, no voxel, values that are not real numbers, or masked values.
        GeometryError
            If the affine is unusable.
        """
        if isinstance(array, Image):
            raise InputError(
                f"array must be a tensor or an array, got {show(array)}, which has its grid; use it as it is"
            )
        data = _to_tensor(array)
        if not isinstance(array, torch.Tensor):
            while data.ndim > 3 and data.shape[-1] == 1:
                data = data[..., 0]
        if data.ndim == 3:
            data = data[None]
        elif data.ndim != 4 or not isinstance(array, torch.Tensor):
            raise InputError(
                f"array must have three axes (i, j, k), got shape {tuple(np.shape(array))}; pass one 3-D volume, "
                "a tensor [channels, i, j, k] for several channels, or as_image(array, dims=2) for a 2-D image"
            )
        if 0 in data.shape:
            raise InputError(
                f"array must have at least one voxel, got shape {tuple(np.shape(array))}; check the cropping"
            )
        shape = tuple(data.shape[1:])
        return cls(
            data if device is None else to_device(data, device),
            Grid((shape[0], shape[1], shape[2]), np.eye(4) if affine is None else affine),
        )

    @property
    def is_label(self) -> bool:
        """Whether the type is an integer or bool type: such images are warped without interpolating values."""
        return not self.data.is_floating_point()

    def to(self, device: torch.device | str) -> Image:
        """Return the image on another device; float64 becomes float32 on devices without it (MPS)."""
        return Image(to_device(self.data, device), self.grid)

    def canonical(self) -> Image:
        """Return the image on ``grid.canonical()``: axes are permuted and flipped, nothing is interpolated."""
        axes, flips = self.grid.canonical_axes()
        data = self.data.permute(0, *(a + 1 for a in axes))
        if any(flips):  # flipping no axis would copy
            data = data.flip([n + 1 for n, flip in enumerate(flips) if flip])
        return Image(data.contiguous(), self.grid.canonical())

    def numpy(self) -> np.ndarray:
        """Return a copy of the values as a numpy array: ``[i, j, k]`` for one channel, else ``[c, i, j, k]``."""
        array = self.data.detach().cpu()
        if array.dtype == torch.bfloat16:  # numpy has no such type
            array = array.float()
        return np.array((array[0] if array.shape[0] == 1 else array).numpy())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Return `numpy` for ``np.asarray(image)``; without a copy it cannot be written to."""
        values = self.data.detach()
        is_plain = values.device.type == "cpu" and values.dtype != torch.bfloat16
        if copy is False and not is_plain:
            raise ValueError(f"an image of {values.dtype} on {values.device} must be copied, got copy=False; omit it")
        if copy or not is_plain:
            return self.numpy().astype(dtype, copy=False) if dtype is not None else self.numpy()
        array = (values[0] if values.shape[0] == 1 else values).numpy().view()
        array.flags.writeable = False
        return array if dtype is None else array.astype(dtype, copy=False)

    def __dlpack__(self, **options: Any) -> Any:
        """Return the values for ``torch.as_tensor(image)`` and ``from_dlpack``, as `__array__` but on their device."""
        data = self.data.detach()
        return (data[0] if data.shape[0] == 1 else data).__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """Return the device of the values."""
        return self.data.__dlpack_device__()

    def slice(self, plane: Plane = "axial", index: int | None = None) -> np.ndarray:
        """Return a slice as a picture in radiological convention: ``plt.imshow(image.slice("coronal"), cmap="gray")``.

        Parameters
        ----------
        plane
            ``"axial"``, ``"coronal"`` or ``"sagittal"``; of an oblique volume along the axes closest to R, A and S.
        index
            Along the axis of `canonical` that the plane is normal to; ``None`` is the middle.

        Returns
        -------
        ``[rows, columns]``, or ``[rows, columns, c]`` of several channels. Its pixels need not be square; `plot` draws
        them in their proportions.

        Raises
        ------
        ConfigError
            If there is no such plane or index.
        """
        check_choice(plane, "plane", PLANES)
        canonical = self.canonical()
        n = canonical.grid.shape[NORMAL[plane]]
        if index is not None:
            check_count(index, "index", most=n - 1)
        picture = take_slice(np.asarray(canonical), plane, n // 2 if index is None else index)
        return np.array(np.moveaxis(picture, 0, -1) if picture.ndim == 3 else picture)

    def plot(
        self,
        overlay: Any = None,
        *,
        labels: Any = None,
        point_mm: tuple[float, float, float] | None = None,
    ) -> Figure:
        """Draw three orthogonal slices of the first channel, in radiological convention.

        Parameters
        ----------
        overlay
            Image in colour on top: the brighter, the less transparent.
        labels
            Label map in colours and outlines on top; 0 is the background. Both may have any form that
            `convexadam.as_image` takes, and lie on any grid: they are resampled. Tensors and arrays lie on this one.
        point_mm
            Point in mm RAS+ that the slices go through; ``None`` is the middle of the volume.

        Returns
        -------
        A figure of matplotlib, which draws itself in a notebook; ``figure.savefig`` writes a file.

        Raises
        ------
        InputError
            If the point lies outside, or the image has fewer than two voxels along two axes.
        MissingExtraError
            If matplotlib is not installed.
        """
        figure: Figure = delegate("Image.plot", self, overlay, labels, point_mm)
        return figure

    def _repr_html_(self) -> str:
        """Return what a notebook shows: three slices, and what the image holds."""
        return str(delegate("Image._repr_html_", self))

    def __repr__(self) -> str:
        """Channels, type, device and grid, on one line."""
        return f"Image({self.data.shape[0]} x {self.data.dtype} on {self.data.device}, {self.grid!r})"


def _summarise(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)} and type {value.dtype}"
    return f"a {type(value).__name__}"


def _to_tensor(array: Any) -> Tensor:
    if isinstance(array, torch.Tensor):
        check_values(array, "array")
        return array
    n_masked = int(np.ma.getmaskarray(array).sum()) if isinstance(array, np.ma.MaskedArray) else 0
    if n_masked:
        raise InputError(
            f"array must not have masked values, got {n_masked} of {array.size}; fill them with array.filled(...), and "
            "pass the mask as an image of its own"
        )
    try:
        values = np.asarray(array)
    except Exception as error:  # of a class from outside the library
        raise InputError(f"array must hold real numbers, got {show(array)}; convert it") from error
    if values.dtype.kind not in "biuf":
        raise InputError(f"array must hold real numbers, got type {values.dtype}; convert it")
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    return to_signed(torch.from_numpy(to_native(values)))


def to_native(values: np.ndarray) -> np.ndarray:
    """Return a contiguous copy of numbers in the byte order of the machine, of a type that torch knows."""
    native = np.dtype(f"{values.dtype.kind}{values.dtype.itemsize}")
    return np.array(values, dtype=native, order="C").view(native)  # two types of C may have the same size


_SIGNED = {torch.uint16: torch.int32, torch.uint32: torch.int64, torch.uint64: torch.int64}


def to_signed(data: Tensor) -> Tensor:
    """Convert unsigned types of two bytes and more, for which torch has few operations, to signed types."""
    if data.dtype not in _SIGNED:
        return data
    signed = data.to(_SIGNED[data.dtype])
    if data.dtype == torch.uint64 and bool((signed < 0).any()):
        raise InputError(
            "data must be less than 2^63, got larger unsigned values; scale them, or pass floating-point numbers"
        )
    return signed
