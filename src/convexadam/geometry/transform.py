"""Transforms: maps of points of fixed space to moving space, in mm RAS+."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal, TypeAlias, final

import numpy as np
import torch

from convexadam._typing import Field, Points, Tensor, Volume
from convexadam.errors import ConfigError, GeometryError, InputError
from convexadam.geometry.grid import Grid
from convexadam.geometry.image import Image
from convexadam.geometry.invert import inverse_field
from convexadam.geometry.resample import linear_part, read_tensor, resample
from convexadam.geometry.sampling import Mode
from convexadam.geometry.tensors import all_finite, as_finest, computing_float
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.kernels.warp import sample_linear

PointSpace: TypeAlias = Literal["mm", "lps_mm", "voxel", "fixed_voxel"]


class Transform(ABC):
    """What `Affine`, `DisplacementField` and `Composite` have in common: a map ``T`` from fixed to moving space."""

    @abstractmethod
    def __call__(self, points_mm: Points) -> Points:
        """Map points of fixed space to moving space; ``(n, 3)`` in mm RAS+, float64 (on MPS float32)."""

    @abstractmethod
    def inverse(self) -> Transform:
        """Return the transform from moving to fixed space.

        ``transform.inverse().warp_points(...)`` takes points of *moving* space to fixed space; an image goes the other
        way round: ``transform.inverse().warp(fixed, moving)`` brings the fixed image onto the moving grid.
        """

    @abstractmethod
    def after(self, grid: Grid, disp_mm: Field | None, like: Tensor) -> Field:
        """Displacements ``T(x + u(x)) - x`` in mm, ``[3, i, j, k]``, at the voxels ``x`` of a grid.

        ``u`` is 0 where it is ``None``. Type and device are those of ``like``, at least float32.
        """

    @property
    def fixed_grid(self) -> Grid | None:
        """The grid of fixed space on which displacements are known, or ``None`` where any will do."""
        return None

    def resample_onto(self, onto: Grid | Image) -> DisplacementField:
        """Return the same transform as displacements at the voxels of a grid, float32 (or what a field has)."""
        grid = self._grid_for(onto)
        return DisplacementField(self.after(grid, None, self._like()), grid)

    def warp(
        self,
        image: Image,
        onto: Grid | Image | None = None,
        *,
        mode: Mode | None = None,
        background: float | None = None,
    ) -> Image:
        """Bring an image (or labels, or a mask) of moving space onto a grid of fixed space: ``moving(T(x))``.

        Parameters
        ----------
        image
            Any image in moving space, on whatever grid it has; it is interpolated once, however long the chain.
        onto
            Where the result's voxels lie: a grid, or an image that has it. ``None`` takes the fixed grid.
        mode
            ``"linear"``, ``"cubic"``, ``"nearest"`` or ``"label"``, as `resample` describes them; ``None`` takes
            ``"label"`` for whole-number types, else ``"linear"``.
        background
            Value outside the image's field of view, one that the image's type holds; ``None`` takes 0 for labels, else
            the image's smallest value.

        Returns
        -------
        An image on that grid, of the same type and with as many channels.

        Raises
        ------
        ConfigError
            If there is no such mode, the image's type does not hold the background, or ``onto`` is missing and the
            transform has no grid.
        """
        if not isinstance(image, Image):
            raise InputError(f"an Image is warped, but a {_class(image)} came; convexadam.as_image makes one of it")
        return self._warped(image, self._grid_for(onto), mode, background)

    def warp_points(
        self,
        points: Points,
        *,
        space: PointSpace,
        fixed: Grid | Image | None = None,
        moving: Grid | Image | None = None,
    ) -> Points:
        """Map points of fixed space to where they are found in moving space.

        Points of *moving* space go to fixed space with ``transform.inverse().warp_points(...)``; for indices, the two
        grids change places there: ``fixed=`` is the one that the points come from.

        Parameters
        ----------
        points
            ``(n, 3)``, a tensor or numpy array.
        space
            What the numbers are. There is no default: guessing is how landmarks go wrong.

            - ``"mm"``: RAS+, before and after;
            - ``"lps_mm"``: as ITK, ANTs and Slicer have them, before and after;
            - ``"voxel"``: continuous indices of the fixed grid before, of the ``moving`` grid after;
            - ``"fixed_voxel"``: continuous indices of the fixed grid, before and after. They are indices of the moving
              image only where both share one grid.
        fixed
            The grid whose indices come, or an image that has it; ``None`` takes the transform's own. Millimetres need
            none.
        moving
            The grid whose indices are wanted, or an image that has it; ``"voxel"`` needs it.

        Returns
        -------
        ``(n, 3)`` float64 tensor (on MPS float32).

        Raises
        ------
        InputError
            If the points are not ``(n, 3)``, or hold NaN or Inf.
        ConfigError
            If there is no such space, or a grid is missing, or is not what the space means.
        """
        given = points if isinstance(points, torch.Tensor) else torch.as_tensor(points, device="cpu")
        values = as_finest(given, self._like(given).device)
        if values.ndim != 2 or values.shape[1] != 3:
            raise InputError(f"points are an array (n, 3), but the shape {tuple(values.shape)} came")
        if not bool(values.isfinite().all()):
            raise InputError("the points hold NaN or Inf; leave such rows out")
        if space == "mm":
            return self(values)
        if space == "lps_mm":
            flip = values.new_tensor([-1.0, -1.0, 1.0])
            return self(values * flip) * flip
        if space not in ("voxel", "fixed_voxel"):
            raise ConfigError(f"space is 'mm', 'lps_mm', 'voxel' or 'fixed_voxel', but {space!r} came")
        if (moving is None) == (space == "voxel"):
            raise ConfigError("space='voxel' needs moving=, the grid of the results; 'fixed_voxel' takes none")
        before = self._grid_for(fixed, "fixed")
        after = before if moving is None else self._grid_for(moving, "moving")
        return after.to_voxels(self(before.to_mm(values)))

    def jacobian(self, onto: Grid | Image | None = None) -> Volume:
        """Local volume change at each voxel of a grid (``None``: the fixed grid), ``[i, j, k]``; <= 0 means folded."""
        return jacobian_determinant(self.resample_onto(self._grid_for(onto)).to_voxels())

    def _like(self, fallback: Tensor | None = None) -> Tensor:
        """Return a tensor of the type and on the device of the transform's own numbers, if it holds any."""
        return torch.empty(0, device="cpu" if fallback is None else fallback.device)

    def _warped(self, image: Image, grid: Grid, mode: Mode | None, background: float | None) -> Image:
        disp_mm = self.after(grid, None, self._like(image.data)).to(image.data.device)
        return resample(image, grid, mode=mode, background=background, disp_mm=disp_mm)

    def _grid_for(self, onto: Grid | Image | None, name: str = "onto") -> Grid:
        grid = onto.grid if isinstance(onto, Image) else onto
        if grid is None:
            grid = self.fixed_grid
        if not isinstance(grid, Grid):
            came = "none came, and the transform has none" if onto is None else f"a {_class(onto)} came"
            raise ConfigError(f"a Grid is needed, or an Image, which has one, but {came}; pass {name}=")
        return grid


@final
@dataclass(frozen=True, eq=False)
class DisplacementField(Transform):
    """The transform ``T(x) = x + u(x)`` from fixed to moving space, given by vectors on a grid.

    Between voxels ``u`` is interpolated linearly; outside the outer voxel centres the nearest edge value holds, so that
    a field on a cropped grid goes on as a shift of what lies beyond.

    Attributes
    ----------
    disp_mm
        ``[3, i, j, k]``: how far each voxel of the fixed grid moves along R, A and S, in mm. Finite.
    grid
        The fixed grid.
    residual_mm
        Of a field that `inverse` made: the largest distance between a voxel and where it is after the inverse and then
        the transform itself, over all voxels that come from between the outer centres of the transform's own grid
        (beyond, it was a guess anyway). ``None`` otherwise.

    Raises
    ------
    GeometryError
        If the vectors are no floating-point tensor that fits the grid, or are not finite.

    Examples
    --------
    >>> shift = DisplacementField.from_voxels(torch.ones(3, 4, 5, 6), Grid((4, 5, 6), np.diag([2.0, 2, 3, 1])))
    >>> shift.warp_points(torch.tensor([[0.0, 0.0, 0.0]]), space="mm").tolist()
    [[2.0, 2.0, 3.0]]
    """

    disp_mm: Field
    grid: Grid
    residual_mm: float | None = None

    def __post_init__(self) -> None:
        _check_shape(self.disp_mm, self.grid)
        if not self.disp_mm.is_floating_point():
            raise GeometryError(f"displacements are floating-point numbers of mm, but the type is {self.disp_mm.dtype}")
        if not all_finite(self.disp_mm):
            raise GeometryError("the displacement field holds NaN or Inf; it describes no transform")

    def __repr__(self) -> str:
        """Longest displacement and grid, on one line."""
        return f"DisplacementField(up to {float(self.disp_mm.detach().norm(dim=0).max()):.3g} mm, {self.grid!r})"

    @classmethod
    def from_voxels(cls, disp_vox: Field, grid: Grid) -> DisplacementField:
        """Make a transform of displacements in voxels of ``grid``, component ``a`` along tensor axis ``a``.

        Raises
        ------
        GeometryError
            If the displacements are no real tensor ``[3, i, j, k]`` that fits the grid, or are not finite.
        """
        _check_shape(disp_vox, grid)
        return cls(linear_part(grid.affine, disp_vox), grid)

    def to_voxels(self) -> Field:
        """Displacements in voxels of the grid, ``[3, i, j, k]``, component ``a`` along tensor axis ``a``."""
        return linear_part(np.linalg.inv(self.grid.affine), self.disp_mm)

    @property
    def fixed_grid(self) -> Grid:
        """The grid of the vectors."""
        return self.grid

    def __call__(self, points_mm: Points) -> Points:
        """See `Transform`."""
        points = as_finest(points_mm, self.disp_mm.device)
        where = self.grid.to_voxels(points).T[:, :, None, None]
        kind = computing_float(self.disp_mm)
        moved = sample_linear(self.disp_mm.to(kind), where.to(kind))[:, :, 0, 0].T
        return points + moved

    def inverse(self, onto: Grid | Image | None = None) -> DisplacementField:
        """Return the transform from moving to fixed space, as displacements of the voxels of a grid of moving space.

        Large motions are solved as well, as long as the field does not fold; the result's ``residual_mm`` says how
        closely. No gradient flows through.

        Parameters
        ----------
        onto
            A grid of moving space, or an image that has it; ``None`` takes the voxels of the fixed grid, which is too
            small a place where the motion is large: pass the moving image then. Outside its own grid a transform goes
            on with its edge values, which is a guess, and so is the inverse of what lies there.

        Warns
        -----
        UserWarning
            If the residual exceeds half a voxel: where a field folds it has no inverse.
        """
        grid = self._grid_for(onto)
        inverse, residual_mm = inverse_field(self.disp_mm, self.grid, grid)
        if residual_mm > min(self.grid.spacing_mm) / 2:
            warnings.warn(
                f"the inverse of the displacement field is off by up to {residual_mm:.3g} mm; where a field folds "
                "it has none: look at jacobian()",
                stacklevel=2,
            )
        return DisplacementField(inverse, grid, residual_mm)

    def resample_onto(self, onto: Grid | Image) -> DisplacementField:
        """Return the same transform with its vectors on another grid (linear interpolation, edge values outside)."""
        grid = self._grid_for(onto)
        return DisplacementField(self.after(grid, None, self.disp_mm), grid, self.residual_mm)

    def after(self, grid: Grid, disp_mm: Field | None, like: Tensor) -> Field:
        """See `Transform`."""
        own = self.disp_mm.to(like.device, computing_float(like))
        if disp_mm is not None:
            return read_tensor(own, self.grid, grid, disp_mm=disp_mm).add_(disp_mm)
        if grid.same_as(self.grid):
            return own
        if grid.canonical().same_as(self.grid):  # the same voxels in another order
            axes, flips = grid.canonical_axes()
            flipped, order = [n for n, flip in enumerate(flips) if flip], [axes.index(a) for a in range(3)]
            data = own.new_empty((3, *grid.shape))
            for a in range(3):
                data[a] = own[a].flip(flipped).permute(order)
            return data
        return read_tensor(own, self.grid, grid)

    def _like(self, fallback: Tensor | None = None) -> Tensor:
        return self.disp_mm


def _check_shape(disp: Field, grid: Grid) -> None:
    shape = (3, *grid.shape)
    if not isinstance(disp, torch.Tensor):
        raise GeometryError(
            f"a displacement field on this grid is a tensor {shape}, but a {type(disp).__name__} came; "
            "pass torch.as_tensor(...) of it, components first"
        )
    if tuple(disp.shape) != shape:
        raise GeometryError(f"a displacement field on this grid has shape {shape}, but {tuple(disp.shape)} came")


def _class(value: object) -> str:
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
