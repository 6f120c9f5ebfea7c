"""Chains of transforms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from convexadam._typing import Field, Points, Tensor
from convexadam.errors import ConfigError
from convexadam.geometry.affine import Affine
from convexadam.geometry.grid import Grid
from convexadam.geometry.transform import DisplacementField, Transform


@final
@dataclass(frozen=True, eq=False)
class Composite(Transform):
    """Transforms one after the other: ``T(x) = last(... second(first(x)))``. See `compose`.

    Attributes
    ----------
    transforms
        In the order in which a point of fixed space meets them; at least one. A composite among them gives its own.
    """

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        parts: list[Transform] = []
        if not isinstance(self.transforms, (tuple, list)):
            raise ConfigError(f"a composite consists of a tuple of transforms, but {self.transforms!r} came")
        for part in self.transforms:
            if not isinstance(part, Transform):
                raise ConfigError(f"a composite consists of transforms, but {part!r} came")
            parts += part.transforms if isinstance(part, Composite) else (part,)
        if not parts:
            raise ConfigError("a composite of no transforms came; Affine() changes nothing")
        object.__setattr__(self, "transforms", tuple(parts))

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
        """Return the transform from moving to fixed space: the inverses in reverse order, each on its own grid.

        What a part moves beyond its own grid has no good inverse on it. Where that matters, make one field first:
        ``chain.resample_onto(fixed).inverse(moving)``. Each field of the result has its ``residual_mm``.
        """
        return Composite(tuple(transform.inverse() for transform in reversed(self.transforms)))

    def after(self, grid: Grid, disp_mm: Field | None, like: Tensor) -> Field:
        """See `Transform`."""
        for transform in self.transforms:
            disp_mm = transform.after(grid, disp_mm, like)
        assert disp_mm is not None  # there is at least one
        return disp_mm

    def _like(self, fallback: Tensor | None = None) -> Tensor:
        fields = (part.disp_mm for part in self.transforms if isinstance(part, DisplacementField))
        return next(fields, super()._like(fallback))


def compose(*transforms: Transform) -> Transform:
    """Chain transforms in the order in which a point of fixed space meets them: ``compose(a, b)(x) = b(a(x))``.

    Nothing is resampled until an image is warped, and then once. Neighbouring affines become one matrix.

    Raises
    ------
    ConfigError
        If there is none, or something else comes.
    """
    parts: list[Transform] = []
    for part in Composite(transforms).transforms:
        if parts and isinstance(part, Affine) and isinstance(parts[-1], Affine):
            parts[-1] = Affine(part.matrix @ parts[-1].matrix)
        else:
            parts.append(part)
    return parts[0] if len(parts) == 1 else Composite(tuple(parts))
