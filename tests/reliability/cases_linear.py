"""Registrations that are linear alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from input_case import Case

from convexadam import Affine, Grid, Image, preset, register
from convexadam.data import phantom_pair

KIND = "Linear registration"
SHAPE = (32, 28, 24)
SHIFT = np.array([14.0, -9.0, 6.0])


def phantom() -> Image:
    return phantom_pair(SHAPE, displacement_mm=0.0).fixed


def matrix(fixed: Image, moving: Image, **options: Any) -> np.ndarray:
    transform = register(fixed, moving, preset("rigid"), **options).transform
    assert isinstance(transform, Affine)
    return transform.matrix


def shift(folder: Path) -> None:
    """The same voxels, and a header that says that they are elsewhere."""
    fixed = phantom()
    moved = np.eye(4)
    moved[:3, 3] = SHIFT
    found = matrix(fixed, Image(fixed.data, Grid(SHAPE, moved @ fixed.grid.affine)))
    np.testing.assert_allclose(found, moved, atol=1e-2 * min(fixed.grid.spacing_mm))


def stay(folder: Path, fixed: Callable[[], Image], moving: Callable[[], Image]) -> None:
    np.testing.assert_array_equal(matrix(fixed(), moving()), np.eye(4))


def constant() -> Image:
    return Image(torch.full((1, *SHAPE), 3.0), phantom().grid)


def unrelated(seed: int) -> Image:
    return Image(torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(seed)), phantom().grid)


def start_far_away(folder: Path) -> None:
    image, away = phantom(), np.eye(4)
    away[:3, 3] = 1e5
    np.testing.assert_array_equal(matrix(image, image, initial_transform=away), away)


def far_header(folder: Path) -> None:
    """Without overlap of the headers the fields of view are laid over each other."""
    fixed, away = phantom(), np.eye(4)
    away[:3, 3] = (1e4, 0, 0)
    found = matrix(fixed, Image(fixed.data, Grid(SHAPE, away @ fixed.grid.affine)))
    np.testing.assert_allclose(found, away, atol=1e-2 * min(fixed.grid.spacing_mm))


def corners(folder: Path) -> None:
    """Masks of two corners, which show nothing in common."""
    image = phantom()
    one, other = (torch.zeros(SHAPE, dtype=torch.uint8) for _ in range(2))
    one[:12, :11, :10], other[-12:, -11:, -10:] = 1, 1
    np.testing.assert_array_equal(matrix(image, image, fixed_mask=one, moving_mask=other), np.eye(4))


def landmarks(folder: Path) -> None:
    image = phantom()
    matrix(image, image, fixed_landmarks=np.zeros((1, 3)), moving_landmarks=np.zeros((1, 3)))


def channels(folder: Path, preset_name: str) -> None:
    image = phantom()
    register(image, Image(image.data.repeat(3, 1, 1, 1), image.grid), preset(preset_name))


def row(given: str, outcome: Literal["result", "warning", "error"], says: str, run: Callable[[Path], Any]) -> Case:
    return Case(kind=KIND, given=given, outcome=outcome, says=says, run=run)


NOT_BETTER = "found no transform better than the initial one"

CASES = [
    row("image and a moved one", "result", "a matrix, to a fraction of a voxel", shift),
    row("headers without overlap", "result", "a matrix that lays the images over each other", far_header),
    row("twice the same image", "warning", NOT_BETTER, partial(stay, fixed=phantom, moving=phantom)),
    row("unrelated images", "warning", NOT_BETTER,
        partial(stay, fixed=partial(unrelated, 0), moving=partial(unrelated, 1))),
    row("constant image", "warning", NOT_BETTER, partial(stay, fixed=phantom, moving=constant)),
    row("initial transform to where nothing overlaps", "warning", NOT_BETTER, start_far_away),
    row("masks without anything in common", "warning", NOT_BETTER, corners),
    row("landmarks, which `preset(\"rigid\")` has no use for", "error", "must be a LandmarkTerm if landmarks are given",
        landmarks),
    row("images with one and with three channels", "error", "as many channels", partial(channels, preset_name="rigid")),
    row("the same before deformable stages", "error", "as many channels", partial(channels, preset_name="default")),
]  # fmt: skip
