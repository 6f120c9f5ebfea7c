"""Where an image shows something: a mask that nobody had to draw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import torch

from convexadam._axes import checked_number
from convexadam.geometry import Image
from convexadam.geometry.onto_grid import shrunk

_BLOCK_MM = 3.0
_FAINT = 0.1
"""Difference from the border, as a share of the largest ones, below which there is nothing."""

_NOISES = 6.0
"""The same in median absolute deviations of the border."""

_PLAIN = 0.5
"""Share of the border that has to be background; with less, there is none to be told from the rest."""

_LARGE = 0.05
"""Size of parts that are kept, as a share of the largest."""


@final
@dataclass(frozen=True, kw_only=True)
class AutoForeground:
    """Foreground of each image as its mask: body, head or brain without the air around.

    What differs from the median of the border by more than its noise and a tenth of the range, with holes of planes
    filled, small parts left out and a margin around, on blocks of 3 mm. An image whose border is no background (an
    organ that fills the field of view) keeps all its voxels.

    Attributes
    ----------
    margin_mm
        How far the mask reaches beyond the foreground, since its outline is evidence as well.

    Raises
    ------
    ConfigError
        If the margin is negative or not finite.
    """

    margin_mm: float = 6.0

    def __post_init__(self) -> None:
        checked_number(self.margin_mm, "margin_mm")

    def __call__(self, image: Image) -> Image | None:
        """Return the mask, uint8 on a coarse grid of its own, or ``None`` where everything counts."""
        from scipy import ndimage

        small = shrunk(image, _BLOCK_MM)
        values = small.data.mean(0).cpu().numpy()
        faces = np.concatenate([values.take(end, axis).ravel() for axis in range(3) for end in (0, -1)])
        apart, noise = np.abs(values - np.median(faces)), np.abs(faces - np.median(faces))
        threshold = max(_FAINT * np.quantile(apart, 0.99), _NOISES * np.median(noise))
        if np.mean(noise <= threshold) < _PLAIN:
            return None
        labels, count = ndimage.label(apart > threshold)
        if count == 0:
            return None
        sizes = np.bincount(labels.ravel())
        sizes[0] = 0
        inside = (sizes >= _LARGE * sizes.max())[labels]
        for axis in range(3):  # in planes: lungs may go on beyond the field of view
            within = np.zeros((3, 3, 3), bool)
            within.swapaxes(0, axis)[1] = ndimage.generate_binary_structure(2, 1)
            inside = ndimage.binary_fill_holes(inside, structure=within)
        outside_mm = ndimage.distance_transform_edt(~inside, sampling=small.grid.spacing_mm)
        mask = torch.from_numpy(outside_mm <= self.margin_mm).to(torch.uint8).to(image.data.device)
        return None if bool(mask.all()) else Image(mask[None], small.grid)
