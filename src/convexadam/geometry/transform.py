"""Transforms from fixed to moving space, in mm RAS+."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from dataclasses import dataclass
from typing import Literal, TypeAlias, final, get_args

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_choice
from convexadam._typing import Field, Points, Tensor, Volume
from convexadam.errors import ConfigError, GeometryError
from convexadam.geometry.conversion import GridLike, ImageLike, to_grid, to_image
from convexadam.geometry.delegating import DelegatingTransform
from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image
from convexadam.geometry.invert import invert_field
from convexadam.geometry.resample import resample, resample_tensor, transform_vectors
from convexadam.geometry.sampling import Mode
from convexadam.geometry.tensors import (
    all_finite,
    check_allocation,
    check_values,
    parse_points,
    to_finest_float,
    working_dtype,
)
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.kernels.warp import sample_linear

PointSpace: TypeAlias = Literal["mm", "lps_mm", "voxel", "fixed_voxel"]


class Transform(DelegatingTransform):
    """A map ``T`` from fixed to moving space: the base of `Affine`, `DisplacementField` and `Composite`.

    Examples
    --------
    >>> import numpy as np
    >>> from convexadam import Affine
    >>> turn = np.array([[0.0, -1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    >>> transform = Affine(turn)
    >>> transform.warp_points([[10.0, 0.0, 0.0]], space="mm").tolist()
    [[0.0, 10.0, 0.0]]
    >>> transform.inverse().warp_points([[0.0, 10.0, 0.0]], space="mm").tolist()
    [[10.0, 0.0, 0.0]]
    """

    @abstractmethod
    def __call__(self, points_mm: Points) -> Points:
        """Map points of fixed space to moving space; ``(n, 3)`` in mm RAS+, float64 (on MPS float32)."""

    @abstractmethod
    def inverse(self) -> Transform:
        """Return the transform from moving to fixed space.

        ``transform.inverse().warp_points(...)`` maps points of *moving* space to fixed space;
        ``transform.inverse().warp(fixed, moving)`` resamples the fixed image on the moving grid.
        """

    @abstractmethod
    def displacement_on(self, grid: Grid, disp_mm: Field | None, like: Tensor) -> Field:
        """Return ``T(x + u(x)) - x`` in mm, ``[3, i, j, k]``, at the voxels ``x`` of a grid.

        ``disp_mm=None`` is ``u = 0``. Type and device are those of ``like``, at least float32.
        """

    @property
    def fixed_grid(self) -> Grid | None:
        """The grid of the displacements in fixed space; ``None`` if the transform is not defined on a grid."""
        return None

    def to_displacement_field(self, reference: GridLike) -> DisplacementField:
        """Resample to displacements at the voxels of a grid; float32, or the type of the fields in the transform."""
        grid = self._resolve_grid(reference)
        return DisplacementField(self.displacement_on(grid, None, self._template()), grid)

    def warp(
        self,
        image: ImageLike,
        reference: GridLike | None = None,
        *,
        mode: Mode | None = None,
        fill_value: float | None = None,
    ) -> Image:
        """Resample an image, label map or mask from moving space on a grid of fixed space: ``moving(T(x))``.

        Parameters
        ----------
        image
            An image in moving space, on any grid, in any form that `convexadam.as_image` takes: an `Image`, a path, a
            tensor or array (which has 1 mm voxels), or an object of nibabel, SimpleITK, MONAI or TorchIO. It is
            interpolated once, also by a chain.
        reference
            The grid of the result, or an image on it in any of these forms. ``None`` takes the fixed grid.
        mode
            ``"linear"``, ``"cubic"``, ``"nearest"`` or ``"label"``, see `resample`; ``None`` is ``"label"`` for integer
            types, else ``"linear"``.
        fill_value
            Value outside the field of view of the image, which its type must hold; ``None`` is 0 for labels, else the
            smallest value of the image.

        Returns
        -------
        An image on that grid, of the same type and with as many channels.

        Raises
        ------
        ConfigError
            If there is no such mode, the type of the image does not hold ``fill_value``, or ``reference`` is ``None``
            and the transform has no grid.
        """
        return self._warp_image(to_image(image, "image"), self._resolve_grid(reference), mode, fill_value)

    def warp_points(
        self,
        points: Points,
        *,
        space: PointSpace,
        fixed: GridLike | None = None,
        moving: GridLike | None = None,
    ) -> Points:
        """Map points from fixed to moving space.

        ``transform.inverse().warp_points(...)`` maps points from moving to fixed space; there, ``fixed=`` is the grid
        of the given points and ``moving=`` the grid of the result.

        Parameters
        ----------
        points
            ``(n, 3)``, a tensor or numpy array.
        space
            The coordinates of the points. There is no default, since a wrong guess would not raise an error.

            - ``"mm"``: points and result in mm RAS+;
            - ``"lps_mm"``: points and result in mm LPS, as in ITK, ANTs and Slicer;
            - ``"voxel"``: points in continuous indices of the fixed grid, result in those of the ``moving`` grid;
            - ``"fixed_voxel"``: points and result in continuous indices of the fixed grid. They are indices of the
              moving image only if both images are on one grid.
        fixed
            The grid of the indices of the points, or an image on it; ``None`` takes the grid of the transform. Not used
            for mm.
        moving
            The grid of the indices of the result, or an image on it; required for ``"voxel"``.

        Returns
        -------
        ``(n, 3)`` float64 tensor (on MPS float32).

        Raises
        ------
        InputError
            If the points are not ``(n, 3)``, or hold NaN or Inf.
        ConfigError
            If there is no such space, or a grid is missing or not used in that space.
        """
        tensor = parse_points(points, finite=True)
        values = to_finest_float(tensor, self._template(tensor).device)
        check_choice(space, "space", get_args(PointSpace))
        if space == "mm":
            return self(values)
        if space == "lps_mm":
            flip = values.new_tensor([-1.0, -1.0, 1.0])
            return self(values * flip) * flip
        if moving is None and space == "voxel":
            raise ConfigError("moving must be a Grid or an Image for space='voxel', got None; pass moving=")
        if moving is not None and space == "fixed_voxel":
            raise ConfigError("moving must be None for space='fixed_voxel', got a grid; omit it, or use space='voxel'")
        source = self._resolve_grid(fixed, "fixed")
        target = source if moving is None else self._resolve_grid(moving, "moving")
        return target.world_to_index(self(source.index_to_world(values)))

    def jacobian(self, reference: GridLike | None = None) -> Volume:
        """Compute the Jacobian determinant at each voxel of a grid (default: the fixed grid); <= 0 where it folds."""
        return jacobian_determinant(self.to_displacement_field(self._resolve_grid(reference)).to_voxels())

    def _template(self, fallback: Tensor | None = None) -> Tensor:
        """Return a tensor with the type and device of the displacements of the transform, if it has any."""
        return torch.empty(0, dtype=torch.float32, device="cpu" if fallback is None else fallback.device)

    def _warp_image(self, image: Image, grid: Grid, mode: Mode | None, fill_value: float | None) -> Image:
        disp_mm = self.displacement_on(grid, None, self._template(image.data)).to(image.data.device)
        return resample(image, grid, mode=mode, fill_value=fill_value, disp_mm=disp_mm)

    def _resolve_grid(self, reference: GridLike | None, name: str = "reference") -> Grid:
        if reference is not None:
            return to_grid(reference, name)
        if self.fixed_grid is None:
            raise ConfigError(
                f"{name} must be a Grid or an Image, got None, and the transform has no grid; pass {name}="
            )
        return self.fixed_grid


@final
@dataclass(frozen=True, eq=False)
class DisplacementField(Transform):
    """The transform ``T(x) = x + u(x)`` from fixed to moving space, with displacements ``u`` on a grid.

    Between voxel centres ``u`` is interpolated linearly; outside of them the nearest edge value is repeated.

    Attributes
    ----------
    disp_mm
        ``[3, i, j, k]``: displacement of each voxel of the fixed grid along R, A and S, in mm. Finite.
    grid
        The fixed grid.
    inverse_error_mm
        For results of `inverse`: the largest ``|T(v(y)) - y|`` of the inverse ``v``, over all voxels ``y`` with
        ``v(y)`` between the outer voxel centres of the grid of ``T`` (beyond, ``T`` is extrapolated). ``None``
        otherwise.

    Raises
    ------
    GeometryError
        If the displacements are not a floating-point tensor of the shape of the grid, or are not finite.

    Examples
    --------
    >>> shift = DisplacementField.from_voxels(torch.ones(3, 4, 5, 6), Grid((4, 5, 6), np.diag([2.0, 2, 3, 1])))
    >>> shift.warp_points(torch.tensor([[0.0, 0.0, 0.0]]), space="mm").tolist()
    [[2.0, 2.0, 3.0]]
    """

    disp_mm: Field
    grid: Grid
    inverse_error_mm: float | None = None

    def __post_init__(self) -> None:
        _check_shape(self.disp_mm, self.grid)
        if type(self.disp_mm) is not torch.Tensor:
            object.__setattr__(self, "disp_mm", self.disp_mm.as_subclass(torch.Tensor))
        if not self.disp_mm.is_floating_point():
            raise GeometryError(f"disp_mm must be of a floating-point type, got {self.disp_mm.dtype}; convert it")
        if not all_finite(self.disp_mm):
            raise GeometryError("disp_mm must be finite, got NaN or Inf; check how the field was computed")

    def __repr__(self) -> str:
        """Largest displacement and grid, on one line."""
        return f"DisplacementField(up to {float(self.disp_mm.detach().norm(dim=0).max()):.3g} mm, {self.grid!r})"

    @classmethod
    @check_arguments
    def from_finite(cls, disp_mm: Field, grid: Grid, inverse_error_mm: float | None = None) -> DisplacementField:
        """Make a transform of displacements that are known to be finite, without waiting for a GPU to say so."""
        field = object.__new__(cls)
        for name, value in (("disp_mm", disp_mm), ("grid", grid), ("inverse_error_mm", inverse_error_mm)):
            object.__setattr__(field, name, value)
        return field

    @classmethod
    def from_voxels(cls, disp_vox: Field, grid: Grid) -> DisplacementField:
        """Make a transform from displacements in voxels of ``grid``, component ``a`` along tensor axis ``a``.

        Raises
        ------
        GeometryError
            If the displacements are not a real tensor ``[3, i, j, k]`` of the shape of the grid, or are not finite.
        """
        _check_shape(disp_vox, grid)
        return cls(transform_vectors(grid.affine, disp_vox), grid)

    def to_voxels(self) -> Field:
        """Return displacements in voxels of the grid, ``[3, i, j, k]``, component ``a`` along tensor axis ``a``."""
        return transform_vectors(np.linalg.inv(self.grid.affine), self.disp_mm)

    @property
    def fixed_grid(self) -> Grid:
        """The grid of the displacements."""
        return self.grid

    def __call__(self, points_mm: Points) -> Points:
        """See `Transform`."""
        points = to_finest_float(parse_points(points_mm), self.disp_mm.device)
        indices = self.grid.world_to_index(points).T[:, :, None, None]
        kind = working_dtype(self.disp_mm)
        displacements = sample_linear(self.disp_mm.to(kind), indices.to(kind))[:, :, 0, 0].T
        return points + displacements

    def inverse(self, reference: GridLike | None = None) -> DisplacementField:
        """Return the transform from moving to fixed space, as displacements on a grid of moving space.

        Large displacements are inverted as well if the field does not fold; ``inverse_error_mm`` of the result is the
        largest error. Not differentiable.

        Parameters
        ----------
        reference
            A grid of moving space, or an image on it; ``None`` takes the fixed grid, which may not cover the moving
            image if displacements are large: pass the moving image then. Outside its grid a field repeats its edge
            values, and the inverse there is extrapolated as well.

        Warns
        -----
        UserWarning
            If the error exceeds half a voxel: a field has no inverse where it folds.
        """
        grid = self._resolve_grid(reference)
        check_allocation((3, *grid.shape), "the inverse")
        half_voxel = min(self.grid.spacing_mm) / 2
        inverse, inverse_error_mm, wrong = invert_field(self.disp_mm, self.grid, grid, tolerance_mm=half_voxel)
        if wrong > 0:
            warnings.warn(
                f"the error of the inverse of the displacement field is up to {inverse_error_mm:.3g} mm, and above "
                f"half a voxel at {wrong} of {math.prod(grid.shape)} voxels; a field has no inverse where it folds: "
                "see jacobian()",
                stacklevel=2,
            )
        return DisplacementField(inverse, grid, inverse_error_mm)

    def to_displacement_field(self, reference: GridLike) -> DisplacementField:
        """Resample the displacements on another grid: linear interpolation, edge values outside."""
        grid = self._resolve_grid(reference)
        check_allocation((3, *grid.shape), "the displacement field")
        resampled = self.displacement_on(grid, None, self.disp_mm)
        return DisplacementField.from_finite(resampled, grid, self.inverse_error_mm)

    @check_arguments
    def displacement_on(self, grid: Grid, disp_mm: Field | None, like: Tensor) -> Field:
        """See `Transform`."""
        check_on_grid(disp_mm, grid)
        field = self.disp_mm.to(like.device, working_dtype(like))
        if disp_mm is not None:
            return resample_tensor(field, self.grid, grid, disp_mm=disp_mm).add_(disp_mm)
        if grid.is_close(self.grid):
            return field
        if grid.canonical().is_close(self.grid):  # the same voxels in another axis order: no interpolation
            axes, flips = grid.canonical_axes()
            flipped, order = [n for n, flip in enumerate(flips) if flip], [axes.index(a) for a in range(3)]
            data = field.new_empty((3, *grid.shape))
            for a in range(3):
                data[a] = field[a].flip(flipped).permute(order)
            return data
        return resample_tensor(field, self.grid, grid)

    def _template(self, fallback: Tensor | None = None) -> Tensor:
        return self.disp_mm


def check_on_grid(disp_mm: Field | None, grid: Grid) -> None:
    """Raise unless displacements before a transform, if there are any, are on a grid."""
    if disp_mm is not None:
        _check_shape(disp_mm, grid)


def _check_shape(disp: Field, grid: Grid) -> None:
    if not isinstance(grid, Grid):
        raise GeometryError(f"grid must be a Grid, got {_type_name(grid)}; pass image.grid")
    shape = (3, *grid.shape)
    if not isinstance(disp, torch.Tensor):
        raise GeometryError(
            f"displacements must be a tensor of shape {shape}, got {type(disp).__name__}; pass torch.as_tensor(...) of "
            "it, components first"
        )
    check_values(disp, "displacements")
    if tuple(disp.shape) != shape:
        raise GeometryError(
            f"displacements must have shape {shape} on this grid, got {tuple(disp.shape)}; pass components first"
        )


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
