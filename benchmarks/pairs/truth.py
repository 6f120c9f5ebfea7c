"""Pairs of images with ground truth: finding and reading them, and evaluating fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from convexadam.geometry import Grid, Image
from convexadam.io import read_image, read_landmarks, read_learn2reg
from convexadam.metrics import evaluate_transform, tre

METRICS = (
    "dice", "dice30", "hd95_mm", "tre_mm", "tre30_mm", "tre_outside_mm", "dice_before", "tre_before_mm", "sdlogj",
    "folded_percent",
)  # fmt: skip
AIR_HU = -1000.0


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Ground truth of a pair: arguments of `evaluate_transform`, and landmarks outside the organ of interest."""

    grid: Grid
    arguments: Mapping[str, Any]
    outside: tuple[torch.Tensor, torch.Tensor] | None


def find_pairs(data: Path) -> dict[str, Path]:
    """Return all folders in ``data`` (or ``data`` itself) with a fixed and a moving image, by name."""
    folders = [data, *sorted(path for path in data.iterdir() if path.is_dir())]
    return {f.resolve().name: f for f in folders if all((f / f"{n}.nii.gz").is_file() for n in ("fixed", "moving"))}


def read_volume(path: Path) -> Image:
    """Read an image as float32, with values below -1000 set to -1000 (air); in CT they mark "outside the scanner".

    This is the only preprocessing, the same for all tools. No other modality has such values.
    """
    image = read_image(path)
    return Image(image.data.float().clamp(min=AIR_HU), image.grid)


def read_images(folder: Path) -> tuple[Image, Image]:
    """Read the fixed and the moving image of a pair."""
    return read_volume(folder / "fixed.nii.gz"), read_volume(folder / "moving.nii.gz")


def read_truth(folder: Path, fixed: Grid, moving: Grid) -> Truth:
    """Read the ground truth of a folder: label maps, the labels to evaluate, landmarks, and landmarks outside."""
    arguments: dict[str, Any] = {}
    labels = [folder / f"{side}_label.nii.gz" for side in ("fixed", "moving")]
    if all(path.is_file() for path in labels):
        arguments["fixed_labels"], arguments["moving_labels"] = (read_image(path) for path in labels)
        if (listed := folder / "eval_labels.txt").is_file():
            arguments["labels"] = [int(word) for word in listed.read_text(encoding="utf-8").replace(",", " ").split()]
    if (inside := _landmarks_mm(folder, "landmarks", fixed, moving)) is not None:
        arguments["fixed_landmarks_mm"], arguments["moving_landmarks_mm"] = inside
    return Truth(grid=fixed, arguments=arguments, outside=_landmarks_mm(folder, "landmarks_outside", fixed, moving))


def _landmarks_mm(folder: Path, name: str, fixed: Grid, moving: Grid) -> tuple[torch.Tensor, torch.Tensor] | None:
    paths = [folder / f"{side}_{name}.csv" for side in ("fixed", "moving")]
    if not all(path.is_file() for path in paths):
        return None
    return fixed.index_to_world(read_landmarks(paths[0])), moving.index_to_world(read_landmarks(paths[1]))


def evaluate(path: Path, truth: Truth) -> dict[str, float]:
    """Evaluate a field (voxels of the fixed grid, fixed to moving), of any tool."""
    transform = read_learn2reg(path, truth.grid)
    found: dict[str, Any] = dict(evaluate_transform(transform, **truth.arguments))
    if truth.outside is not None:
        found["tre_outside_mm"] = float(tre(*truth.outside, transform).mean())
    return {name: found[name] for name in METRICS if name in found}
