"""Methods of transforms that upper layers implement: files, figures, and what notebooks show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convexadam.errors import InputError
from convexadam.geometry.conversion import GridLike
from convexadam.geometry.delegates import delegate
from convexadam.geometry.grid import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
else:  # annotations can be resolved without matplotlib
    Figure = object


class DelegatingTransform(ABC):
    """Base of `Transform`."""

    @abstractmethod
    def _resolve_grid(self, reference: GridLike | None, name: str = "reference") -> Grid:
        """Return a grid of fixed space; ``None`` is that of the transform."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Refuse: an array of a field does not tell its units, nor that of an object its content."""
        raise InputError(
            f"a {type(self).__name__} cannot become an array; take disp_mm (mm RAS+) or to_voxels() of a displacement "
            "field, see to_displacement_field()"
        )

    def save(
        self,
        path: str | Path,
        *,
        format: str | None = None,  # noqa: A002 - as in write_transform
        fixed: GridLike | None = None,
        moving: GridLike | None = None,
    ) -> None:
        """Write the transform to a file, as `convexadam.write_transform` does: for other programs, and to be kept.

        ``read_transform(path)`` reads it. Files of ``pickle`` and ``torch.save`` hold classes of this version of the
        library, run code as they are read, and are refused by ``torch.load(weights_only=True)``.

        Parameters
        ----------
        path
            The ending chooses the format: ``.nii.gz`` (displacements of ITK), ``.tfm``, ``.h5``, ``.npz`` and others.
        format
            Name of the format, for endings that several have.
        fixed, moving
            Grids of fixed and moving space, or images on them, for formats that need them.

        Raises
        ------
        FileError, ConfigError, GeometryError, MissingExtraError
            As `convexadam.write_transform`.
        """
        delegate("Transform.save", self, path, format=format, fixed=fixed, moving=moving)

    def plot(self, reference: GridLike | None = None, *, point_mm: tuple[float, float, float] | None = None) -> Figure:
        """Draw three orthogonal slices: length of the displacement, deformed grid and Jacobian determinant.

        Parameters
        ----------
        reference
            Grid of fixed space to draw on, or an image on it; ``None`` takes the fixed grid.
        point_mm
            Point of fixed space in mm RAS+ that the slices go through; ``None`` is the middle of the grid.

        Returns
        -------
        A figure of matplotlib, which draws itself in a notebook; ``figure.savefig`` writes a file.

        Raises
        ------
        ConfigError
            If ``reference`` is ``None`` and the transform has no grid.
        InputError
            If the point lies outside, or the grid has fewer than two voxels along two axes.
        MissingExtraError
            If matplotlib is not installed.
        """
        figure: Figure = delegate("Transform.plot", self, self._resolve_grid(reference), point_mm)
        return figure

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the matrix, or the deformed grid and the volume change."""
        return str(delegate("Transform._repr_html_", self))
