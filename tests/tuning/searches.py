"""A space that is searched within a second, and pairs in files."""

from __future__ import annotations

from pathlib import Path

from convexadam.io import PairFiles

SPACE = """
schema_version = 2
base = "published"

[discrete]
samples = 4
features.radius = [1, 2]
discrete.spacing = [3, 4]
discrete.radius = [2, 3]

[continuous]
samples = 3
continuous.levels.0.iterations = 4
continuous.regularisers.0.weight = { from = 0.5, to = 2.0, log = true }

[continuous.checkpoints]
iterations = [2, 5]
final_smoothing = ["none", { type = "BoxSmoothing", passes = 1 }]
"""


def files_of(folder: Path, *kinds: str) -> tuple[PairFiles, ...]:
    """Return pairs with the images and the given kinds of files: labels, landmarks or segmentation."""
    endings = {"labels": "_labels.nii.gz", "landmarks": "_landmarks.csv", "segmentation": "_labels.nii.gz"}
    return tuple(
        PairFiles(
            id=f"pair {n}",
            fixed=folder / f"{n}_fixed.nii.gz",
            moving=folder / f"{n}_moving.nii.gz",
            **{f"{side}_{k}": folder / f"{n}_{side}{endings[k]}" for k in kinds for side in ("fixed", "moving")},
        )
        for n in range(2)
    )
