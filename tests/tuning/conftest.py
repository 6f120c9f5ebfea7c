"""Small pairs in files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from searches import SPACE, files_of

from convexadam.data import phantom_pair
from convexadam.io import PairFiles, write_image, write_landmarks
from convexadam.tuning import Space


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs with labels and landmarks."""
    folder = tmp_path_factory.mktemp("pairs")
    for number in range(2):
        pair = phantom_pair((24, 22, 20), seed=number)
        for kind in ("fixed", "moving", "fixed_labels", "moving_labels"):
            write_image(getattr(pair, kind), folder / f"{number}_{kind}.nii.gz")
        for side in ("fixed", "moving"):
            points = getattr(pair, side).grid.world_to_index(getattr(pair, f"{side}_landmarks_mm"))
            write_landmarks(points, folder / f"{number}_{side}_landmarks.csv")
    return folder


@pytest.fixture
def files(folder: Path) -> Callable[..., tuple[PairFiles, ...]]:
    """Return pairs with the given kinds of files: labels, landmarks or segmentation."""
    return functools.partial(files_of, folder)


@pytest.fixture
def labelled(folder: Path) -> tuple[PairFiles, ...]:
    return files_of(folder, "labels")


@pytest.fixture
def landmarked(folder: Path) -> tuple[PairFiles, ...]:
    return files_of(folder, "landmarks")


@pytest.fixture
def blind(folder: Path) -> tuple[PairFiles, ...]:
    return files_of(folder)


@pytest.fixture
def space() -> Space:
    return Space.from_toml(SPACE)
