"""Small studies, and settings that register them within milliseconds."""

from __future__ import annotations

import csv
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from convexadam import Image, RegistrationConfig
from convexadam.cohort import CohortOutcome, register_cohort
from convexadam.data import phantom_pair
from convexadam.io import write_image, write_landmarks

FAST = RegistrationConfig(continuous=None, linear=None)


def make_study(folder: Path, names: str) -> None:
    for number, name in enumerate(names):
        pair = phantom_pair((20, 18, 16), displacement_mm=2.0, seed=number)
        write_image(pair.moving, folder / f"{name}.nii.gz")
        write_image(pair.moving_labels, folder / f"{name}_labels.nii.gz")
        points = pair.moving.grid.world_to_index(pair.moving_landmarks_mm)[:5]
        write_landmarks(points, folder / f"{name}_points.csv")


def replace_content(path: Path) -> None:
    """Write other values to an image file."""
    generator = torch.Generator().manual_seed(7)
    write_image(Image.from_array(torch.rand(20, 18, 16, generator=generator)), path)


def run(pairs: Any, folder: Path, config: RegistrationConfig = FAST, **options: Any) -> dict[str, CohortOutcome]:
    return {outcome.id: outcome for outcome in register_cohort(pairs, config, output_dir=folder, **options)}


def statuses(outcomes: dict[str, CohortOutcome]) -> dict[str, str]:
    return {name: outcome.status for name, outcome in sorted(outcomes.items())}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "cohort.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def files(folder: Path) -> dict[str, bytes]:
    """Content of all files of the results, except reports, in which times differ."""
    pairs = folder / "pairs"
    return {
        path.relative_to(pairs).as_posix(): path.read_bytes()
        for path in sorted(pairs.rglob("*"))
        if path.is_file() and path.name != "report.json"
    }


def without_times(outcomes: dict[str, CohortOutcome]) -> Iterator[tuple[str, str]]:
    for name, outcome in sorted(outcomes.items()):
        yield name, repr(dataclasses.replace(outcome, seconds=0, folder=Path(), status="done"))


def count_threads() -> tuple[int, str | None]:
    return torch.get_num_threads(), os.environ.get("OMP_WAIT_POLICY")
