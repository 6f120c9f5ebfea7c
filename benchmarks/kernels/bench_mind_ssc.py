"""MIND-SSC of a volume, averaged over the blocks of both stages."""

from __future__ import annotations

import sys

import case
import work
from case import Case, Triple

from convexadam.kernels.mind_ssc import pooled_mind_ssc


def cases(size: Triple, device: str) -> list[Case]:
    """Nodes of 2 voxels, with the cells of each preset's search."""
    volume = case.volume(size, device)

    def of(name: str, cell: int) -> Case:
        spacings = [(2, 2, 2), (cell, cell, cell)]
        return Case(
            name=name,
            grid=size,
            make=lambda _: lambda: pooled_mind_ssc(volume, spacings),
            work=work.described(size, spacings),
        )

    return [of("default", 4), of("published", 6)]


if __name__ == "__main__":
    sys.exit(case.main("mind_ssc"))
