"""MIND-SSC as a component."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import torch

from convexadam._axes import checked_count
from convexadam._typing import Channels, Pooled, Triple, Volume
from convexadam.features.intensity import centred
from convexadam.geometry import Image
from convexadam.kernels.mind_ssc import mind_ssc, pooled_mind_ssc


@final
@dataclass(frozen=True, kw_only=True)
class MindSSC:
    """Self-similarity descriptors, comparable between contrasts: 12 channels for each image channel.

    Attributes
    ----------
    radius
        Patch radius in voxels of the working grid; 0 compares single voxels.
    dilation
        Distance of the compared neighbours in voxels of the working grid.

    Raises
    ------
    ConfigError
        If ``radius`` or ``dilation`` is no whole number of at least 0 or 1.

    Notes
    -----
    Heinrich et al., MICCAI 2013; see `convexadam.kernels.mind_ssc.mind_ssc`.
    """

    radius: int = 1
    dilation: int = 2

    def __post_init__(self) -> None:
        checked_count(self.radius, "radius")
        checked_count(self.dilation, "dilation", least=1)

    @property
    def reach(self) -> int:
        """Voxels from the edge within which replicated values enter the description."""
        return self.radius + self.dilation

    def __call__(self, image: Image, /, *, weight: Volume | None = None) -> Channels:
        """Return ``[12 c, i, j, k]`` in (0, 1]; a channel without contrast gives ones."""
        described = [
            mind_ssc(channel, radius=self.radius, dilation=self.dilation, weight=_useful(weight))
            for channel in centred(image.data)
        ]
        return described[0] if len(described) == 1 else torch.cat(described)

    def pooled(
        self, image: Image, spacings: tuple[Triple, ...], /, *, weight: Volume | None = None
    ) -> tuple[Pooled, ...]:
        """Return ``[12 c, i // si, j // sj, k // sk]`` for each spacing, without the full map in between."""
        described = [
            pooled_mind_ssc(channel, spacings, radius=self.radius, dilation=self.dilation, weight=_useful(weight))
            for channel in centred(image.data)
        ]
        return (
            described[0] if len(described) == 1 else tuple(torch.cat(parts) for parts in zip(*described, strict=True))
        )


def _useful(weight: Volume | None) -> Volume | None:
    return None if weight is None or not bool((weight > 0).any()) else weight
