"""A space that is tried in a moment, and pairs in files."""

from __future__ import annotations

from pathlib import Path

from convexadam.io import PairFiles

SPACE = """
schema_version = 1
base = "published"

[discrete]
draws = 4
features.radius = [1, 2]
discrete.spacing = [3, 4]
discrete.radius = [2, 3]

[continuous]
draws = 3
continuous.levels.0.iterations = 4
continuous.regularisers.0.weight = { from = 0.5, to = 2.0, log = true }

[continuous.read_off]
iterations = [2, 5]
final_smoothing = ["none", { type = "BoxSmoothing", passes = 1 }]
"""


def files_of(folder: Path, *kinds: str) -> tuple[PairFiles, ...]:
    """Return pairs with what is asked for beside the images: labels, landmarks or segmentation."""
    endings = {"labels": "_labels.nii.gz", "landmarks": "_landmarks.csv", "segmentation": "_labels.nii.gz"}
    return tuple(
        PairFiles(
            name=f"pair {n}",
            fixed=folder / f"{n}_fixed.nii.gz",
            moving=folder / f"{n}_moving.nii.gz",
            **{f"{side}_{k}": folder / f"{n}_{side}{endings[k]}" for k in kinds for side in ("fixed", "moving")},
        )
        for n in range(2)
    )
