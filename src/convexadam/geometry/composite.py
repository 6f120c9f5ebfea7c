"""Chains of transforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from convexadam._arguments import check_arguments
from convexadam._checks import show
from convexadam._typing import Field, Points, Tensor
from convexadam.errors import ConfigError
from convexadam.geometry.affine import Affine
from convexadam.geometry.grid import Grid
from convexadam.geometry.transform import DisplacementField, Transform


@final
@dataclass(frozen=True, eq=False)
class Composite(Transform):
    """A chain of transforms: ``T(x) = last(... second(first(x)))``. See `compose`.

    Attributes
    ----------
    transforms
        In the order in which they are applied to a point of fixed space; at least one. A composite among them is
        replaced by its parts.

    Examples
    --------
    >>> from convexadam import Affine, Composite
    >>> import numpy as np
    >>> shift = np.eye(4)
    >>> shift[0, 3] = 10
    >>> Composite((Affine(shift), Affine(shift))).warp_points(np.zeros((1, 3)), space="mm").tolist()
    [[20.0, 0.0, 0.0]]
    """

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        parts: list[Transform] = []
        if not isinstance(self.transforms, (tuple, list)):
            raise ConfigError(f"transforms must be a tuple of transforms, got {show(self.transforms)}; write (a, b)")
        for part in self.transforms:
            if not isinstance(part, Transform):
                raise ConfigError(
                    f"each of transforms must be a Transform, got {show(part)}; wrap matrices in Affine(...)"
                )
            parts += part.transforms if isinstance(part, Composite) else (part,)
        if not parts:
            raise ConfigError("transforms must hold at least one transform, got none; use Affine() for the identity")
        object.__setattr__(self, "transforms", tuple(parts))

    def __repr__(self) -> str:
        """Parts, in the order of application."""
        return f"Composite({', then '.join(map(repr, self.transforms))})"

    @property
    def fixed_grid(self) -> Grid | None:
        """The grid of the first transform."""
        return self.transforms[0].fixed_grid

    def __call__(self, points_mm: Points) -> Points:
        """See `Transform`."""
        for transform in self.transforms:
            points_mm = transform(points_mm)
        return points_mm

    def inverse(self) -> Composite:
        """Return the transform from moving to fixed space: the inverses in reverse order, on their grids.

        Points that a part moves beyond its grid are inverted by extrapolation. To avoid it, resample the chain to one
        field first: ``chain.to_displacement_field(fixed).inverse(moving)``. Each field of the result has its
        ``inverse_error_mm``.
        """
        return Composite(tuple(transform.inverse() for transform in reversed(self.transforms)))

    @check_arguments
    def displacement_on(self, grid: Grid, disp_mm: Field | None, like: Tensor) -> Field:
        """See `Transform`."""
        for transform in self.transforms:
            disp_mm = transform.displacement_on(grid, disp_mm, like)
        assert disp_mm is not None  # by __post_init__ there is at least one
        return disp_mm

    def _template(self, fallback: Tensor | None = None) -> Tensor:
        fields = (part.disp_mm for part in self.transforms if isinstance(part, DisplacementField))
        return next(fields, super()._template(fallback))


def compose(*transforms: Transform) -> Transform:
    """Chain transforms in the order of application to a point of fixed space: ``compose(a, b)(x) = b(a(x))``.

    Nothing is resampled until an image is warped, and then only once. Consecutive affines become one matrix.

    Raises
    ------
    ConfigError
        If there is no transform, or an argument is not one.

    Examples
    --------
    >>> import numpy as np
    >>> from convexadam import Affine, compose
    >>> shift, scale = np.eye(4), np.diag([2.0, 2.0, 2.0, 1.0])
    >>> shift[0, 3] = 10
    >>> compose(Affine(shift), Affine(scale)).warp_points(np.zeros((1, 3)), space="mm").tolist()
    [[20.0, 0.0, 0.0]]
    """
    parts: list[Transform] = []
    for part in Composite(transforms).transforms:
        if parts and isinstance(part, Affine) and isinstance(parts[-1], Affine):
            parts[-1] = Affine(part.matrix @ parts[-1].matrix)
        else:
            parts.append(part)
    return parts[0] if len(parts) == 1 else Composite(tuple(parts))


def invert_transform(transform: Transform, reference: Grid | None) -> Transform:
    """Return the inverse on a grid of moving space; ``None`` takes the grid of the transform.

    A chain that begins with a field becomes one field first, since its parts cannot be inverted on that grid alone.
    """
    if isinstance(transform, Affine) or (own := transform.fixed_grid) is None:
        return transform.inverse()
    return transform.to_displacement_field(own).inverse(reference)
