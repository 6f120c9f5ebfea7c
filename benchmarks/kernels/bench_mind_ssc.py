"""MIND-SSC of a volume, averaged over the blocks of both stages."""

from __future__ import annotations

import case
import work
from case import Case, Triple

from convexadam.kernels.mind_ssc import pooled_mind_ssc


def cases(size: Triple, device: str) -> list[Case]:
    """Return blocks of 2 voxels together with those of the search of each preset."""
    volume = case.make_volume(size, device)

    def of(name: str, spacing: int) -> Case:
        spacings = [(2, 2, 2), (spacing, spacing, spacing)]
        return Case(
            name=name,
            grid=size,
            make=lambda _: lambda: pooled_mind_ssc(volume, spacings),
            work=work.described(size, spacings),
        )

    return [of("default", 4), of("published", 6)]
