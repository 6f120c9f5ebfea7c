"""Automatic foreground masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch

from convexadam._arguments import check_arguments
from convexadam._checks import check_number
from convexadam.geometry import Image
from convexadam.geometry.grid import axes_with_extent, mean_side_mm
from convexadam.geometry.to_grid import block_average

_BLOCKS = 64
"""Blocks along the mean side of the field of view; 3 mm for a head."""

_MARGIN = 1 / 32
"""Margin, as a share of the mean side of the field of view; 6 mm for a head."""

_MIN_DIFFERENCE = 0.1
"""Difference from the border intensity, as a share of the largest differences, that counts as background."""

_NOISE_FACTOR = 6.0
"""The same, in median absolute deviations of the border."""

_MIN_BACKGROUND = 0.5
"""Share of the border that must be background; with less, the organ fills the field of view."""

_MIN_SIZE = 0.05
"""Smallest size of a connected component, as a share of the largest."""


@runtime_checkable
class MaskEstimator(Protocol):
    """Estimates where an image shows anatomy."""

    def __call__(self, image: Image) -> Image | None:
        """Return a mask on any grid, above 0 inside, or ``None`` if all of the image counts."""
        ...


@final
@dataclass(frozen=True, kw_only=True)
class AutoForeground:
    """Mask of the foreground: body, head or brain without the surrounding air.

    Voxels that differ from the median of the border by more than its noise and a tenth of the range, with holes filled
    plane by plane, small components removed and a margin added, on 64 blocks along the mean side of the field of
    view (3 mm for a head). An image whose border is not
    background (an organ that fills the field of view) has no mask.

    Attributes
    ----------
    margin_mm
        Margin around the foreground, so that its outline is included; ``None`` for a 32nd of the mean side of the field
        of view (6 mm for a head).

    Raises
    ------
    ConfigError
        If the margin is negative or not finite.

    Examples
    --------
    >>> from convexadam import RegistrationConfig
    >>> from convexadam.registration import AutoForeground
    >>> RegistrationConfig(foreground=AutoForeground(margin_mm=5.0)).foreground.margin_mm
    5.0
    """

    margin_mm: float | None = None

    def __post_init__(self) -> None:
        if self.margin_mm is not None:
            check_number(self.margin_mm, "margin_mm")

    @check_arguments
    def __call__(self, image: Image) -> Image | None:
        """Return the mask, uint8 on a coarse grid of its own, or ``None`` if all of the image counts."""
        from scipy import ndimage

        side_mm = mean_side_mm(image.grid)
        margin_mm = _MARGIN * side_mm if self.margin_mm is None else self.margin_mm
        small = block_average(image, side_mm / _BLOCKS)
        values = small.data.mean(0).cpu().numpy()
        faces = np.concatenate(
            [values.take(end, axis).ravel() for axis in axes_with_extent(image.grid.canonical()) for end in (0, -1)]
        )
        apart, noise = np.abs(values - np.median(faces)), np.abs(faces - np.median(faces))
        threshold = max(_MIN_DIFFERENCE * np.quantile(apart, 0.99), _NOISE_FACTOR * np.median(noise))
        if np.mean(noise <= threshold) < _MIN_BACKGROUND:
            return None
        labels, count = ndimage.label(apart > threshold)
        if count == 0:
            return None
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        inside = (sizes >= _MIN_SIZE * sizes.max())[labels]
        for axis in range(3):  # in planes: lungs may go on beyond the field of view
            within = np.zeros((3, 3, 3), bool)
            within.swapaxes(0, axis)[1] = ndimage.generate_binary_structure(2, 1)
            inside = ndimage.binary_fill_holes(inside, structure=within)
        outside_mm = ndimage.distance_transform_edt(~inside, sampling=small.grid.spacing_mm)
        mask = torch.from_numpy(outside_mm <= margin_mm).to(torch.uint8).to(image.data.device)
        return None if bool(mask.all()) else Image(mask[None], small.grid)
