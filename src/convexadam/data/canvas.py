"""Painting of overlapping shapes with antialiased edges into a volume."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, final

import torch

from convexadam._typing import Field, Shaped, Tensor, Volume
from convexadam.data.shapes import Box, Coords, Distance, Point, box_around, round_cone
from convexadam.data.tissues import Appearance, select_appearances

Crop: TypeAlias = tuple[slice, slice, slice]
WHOLE: Crop = (slice(None), slice(None), slice(None))
_FAR = 1e3


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Canvas:
    """Values and labels of a block of voxels, painted in place from back to front.

    Attributes
    ----------
    coords
        Anatomical coordinates of the voxels, in mm of the nominal torso.
    texture
        Grain and two clouds at those coordinates.
    values, labels
        The painted values and labels, ``[i, j, k]``.
    appearances
        Value and texture of each tissue.
    edge_mm
        Width of the ramp across a surface: about a voxel, so that surfaces are anti-aliased.
    low, high
        For each tensor axis, ``[3, n]``: smallest and largest coordinate at each index.
    """

    coords: Field
    texture: Field
    values: Volume
    labels: Shaped[Tensor, "i j k"]
    appearances: dict[str, Appearance]
    edge_mm: float
    low: tuple[Tensor, Tensor, Tensor]
    high: tuple[Tensor, Tensor, Tensor]

    @classmethod
    def blank(cls, coords: Field, texture: Field, contrast: str, edge_mm: float) -> Canvas:
        """Return an empty canvas (air, label 0) at some coordinates."""
        known = select_appearances(contrast)
        return cls(
            coords=coords,
            texture=texture,
            values=torch.full_like(coords[0], known["air"].mean),
            labels=torch.zeros_like(coords[0], dtype=torch.int32),
            appearances=known,
            edge_mm=edge_mm,
            low=(coords.amin((2, 3)).cpu(), coords.amin((1, 3)).cpu(), coords.amin((1, 2)).cpu()),
            high=(coords.amax((2, 3)).cpu(), coords.amax((1, 3)).cpu(), coords.amax((1, 2)).cpu()),
        )

    def crop(self, box: Box) -> Crop:
        """Return the crop that holds all voxels within a box of coordinates; empty if there is none."""
        lower = torch.tensor(box[0], device="cpu")[:, None] - self.edge_mm
        upper = torch.tensor(box[1], device="cpu")[:, None] + self.edge_mm
        found = []
        for low, high in zip(self.low, self.high, strict=True):
            hit = ((high >= lower) & (low <= upper)).all(0).nonzero()
            found.append(slice(int(hit[0]), int(hit[-1]) + 1) if len(hit) else slice(0, 0))
        return found[0], found[1], found[2]

    def at(self, crop: Crop) -> Coords:
        """Return the coordinates of a crop."""
        return self.coords[(slice(None), *crop)]

    def paint(self, tissue: str, distance: Distance, crop: Crop = WHOLE, *, label: int | None = None) -> None:
        """Paint a tissue over a crop: opaque inside the shape, with a linear ramp across its surface.

        Parameters
        ----------
        tissue
            Name of the tissue.
        distance
            Signed distance of each voxel of the crop to the shape's surface, in mm.
        crop
            Part of the canvas that ``distance`` describes.
        label
            Label of the voxels inside; ``None`` leaves the labels as they are.
        """
        appearance = self.appearances[tissue]
        target = self.values[crop]
        amount = (0.5 - distance / self.edge_mm).clamp_(0, 1)
        over: Tensor | float = appearance.mean
        if appearance.grain:
            over = over + appearance.grain * self.texture[0][crop]
        if appearance.cloud:
            over = over + appearance.cloud * self.texture[1][crop]
        target.add_((over - target).mul_(amount))
        if label is not None:
            self.labels[crop].masked_fill_(distance < 0, label)

    def tube(self, points: list[Point], radii: list[float]) -> tuple[Distance, Crop]:
        """Compute the distance to a tube through points; return it with its crop."""
        widest = max(radii) + 6.0  # walls are painted outside of a tube
        crop = self.crop(box_around(points, widest))
        distance = torch.full_like(self.values[crop], _FAR)
        for p, q, r, t in zip(points, points[1:], radii, radii[1:], strict=False):
            part = self.crop(box_around((p, q), widest))
            view = distance[_relative_crop(crop, part)]
            view.copy_(torch.minimum(view, round_cone(self.at(part), p, q, (r, t))))
        return distance, crop


def _relative_crop(outer: Crop, inner: Crop) -> Crop:
    """Return a crop of the volume relative to an outer crop that contains it."""
    i, j, k = (slice(max(b.start - a.start, 0), max(b.stop - a.start, 0)) for a, b in zip(outer, inner, strict=True))
    return i, j, k
