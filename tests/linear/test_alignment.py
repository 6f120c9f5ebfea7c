"""Linear alignment of phantoms with known transforms, and of images that cannot be aligned."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
import pytest
import torch
from phantoms import case, rotation_matrix

from convexadam import Affine, ConfigError, Grid, Image, MindSSC
from convexadam.features import LabelFeatures
from convexadam.geometry import resample
from convexadam.linear import LinearAlignment

SMALL = (56, 48, 44)


CASES = range(int(os.environ.get("CONVEXADAM_LINEAR_CASES", "6")))


@pytest.mark.parametrize("seed", [pytest.param(n, marks=[pytest.mark.long] * (n > 0)) for n in CASES])
@pytest.mark.parametrize(
    ("same_box", "displacement_mm"),
    [pytest.param(True, 0.0, marks=pytest.mark.long, id="cropped"), pytest.param(False, 12.0, id="deformed")],
)
def test_turned_shifted_and_scaled_phantoms_of_two_contrasts(seed: int, same_box: bool, displacement_mm: float) -> None:
    pair = case(seed, shape=(72, 60, 54), same_box=same_box, displacement_mm=displacement_mm)
    found = LinearAlignment()(pair.fixed, pair.moving)
    assert found.model is not None
    assert pair.error_mm(found.transform) < pair.voxel_mm
    assert found.dissimilarity_after < found.dissimilarity_before


def test_the_identity_is_kept_if_nothing_is_better() -> None:
    pair = case(0, shape=SMALL, rotation_degrees=0, shift_mm=0, scale=0)
    found = LinearAlignment()(pair.fixed, pair.moving, refine=False)
    assert found.model is None
    np.testing.assert_array_equal(found.transform.matrix, np.eye(4))
    assert found.dissimilarity_after == found.dissimilarity_before
    assert not found.accepted


def test_an_initial_transform_is_the_only_candidate() -> None:
    pair = case(1, shape=SMALL, rotation_degrees=5, shift_mm=20, scale=0)
    given = Affine(pair.truth)
    found = LinearAlignment(model="rigid")(pair.fixed, pair.moving, initial=given, refine=False)
    assert found.transform is given
    assert found.model is None
    lost = np.eye(4)
    lost[:3, 3] = 4000  # no overlap, and no other candidate is tried
    found = LinearAlignment()(pair.fixed, pair.moving, initial=Affine(lost))
    assert found.model is None
    assert found.dissimilarity_before == pytest.approx(1)


@pytest.mark.parametrize("model", ["rigid", "similarity", "affine"])
def test_the_transform_is_of_the_model(model: Any) -> None:
    pair = case(2, shape=SMALL, rotation_degrees=15, shift_mm=20, scale=0.15)
    stretched = Grid(SMALL, np.diag([1.3, 0.95, 1.15, 1.0]) @ pair.moving.grid.affine)
    moving = Image(pair.moving.data, stretched)
    matrix = LinearAlignment(model=model, min_improvement=0.0, min_model_improvement=0.0)(
        pair.fixed, moving
    ).transform.matrix[:3, :3]
    scale = np.linalg.det(matrix) ** (1 / 3)
    assert np.allclose(matrix @ matrix.T, scale**2 * np.eye(3), atol=1e-9) == (model != "affine")
    assert (abs(scale - 1) < 1e-9) == (model == "rigid")


def test_fields_of_view_that_do_not_overlap() -> None:
    pair = case(3, shape=SMALL, rotation_degrees=10, shift_mm=30, scale=0, same_box=False)
    away = np.eye(4)
    away[:3, 3] = 900, -400, 1200
    moving = Image(pair.moving.data, Grid(pair.moving.grid.shape, away @ pair.moving.grid.affine))
    found = LinearAlignment()(pair.fixed, moving)
    assert found.dissimilarity_before == pytest.approx(1)
    assert dataclasses.replace(pair, truth=away @ pair.truth).error_mm(found.transform) < pair.voxel_mm
    assert LinearAlignment(init="header")(pair.fixed, moving).model is None  # no overlap


def test_moments_in_a_larger_field_of_view() -> None:
    pair = case(4, shape=SMALL, rotation_degrees=0, shift_mm=0, scale=0)
    small = pair.moving.grid
    corner = small.affine.copy()
    corner[:3, 3] -= small.affine[:3, :3] @ np.array((5, 60, 4))  # the moving scan extends further to one side
    box = Grid((62, 110, 50), corner)
    moving = resample(pair.moving, box, mode="linear")
    shift = np.eye(4)
    shift[:3, 3] = 200, 100, -50
    moving = Image(moving.data, Grid(box.shape, shift @ box.affine))
    found = LinearAlignment(init="moments")(pair.fixed, moving)
    assert dataclasses.replace(pair, truth=shift @ pair.truth).error_mm(found.transform) < pair.voxel_mm


def test_masks_decide_what_is_aligned() -> None:
    pair = case(0, shape=SMALL, rotation_degrees=12, shift_mm=40, scale=0)
    moving = pair.moving.data.clone()
    moving[:, :26] = 300 * torch.rand(moving[:, :26].shape, generator=torch.Generator().manual_seed(0))
    good = torch.ones(1, *SMALL, dtype=torch.uint8)
    good[:, :28] = 0
    mask = Image(good, pair.moving.grid)
    found = LinearAlignment(model="rigid")(pair.fixed, Image(moving, pair.moving.grid), moving_mask=mask)
    assert pair.error_mm(found.transform) < pair.voxel_mm


@pytest.mark.parametrize("shape", [(9, 11, 7), (40, 36, 1), (30, 3, 2), (1, 1, 1)])
def test_small_and_thin_volumes(shape: tuple[int, int, int]) -> None:
    fixed, moving = torch.rand(2, 1, *shape, generator=torch.Generator().manual_seed(0))
    found = LinearAlignment()(Image(fixed, Grid(shape)), Image(moving, Grid(shape)))
    assert np.isfinite(found.transform.matrix).all()
    assert np.isfinite([found.dissimilarity_before, found.dissimilarity_after]).all()


def test_constant_images_keep_the_identity() -> None:
    flat, other = Image(torch.ones(1, 20, 20, 20), Grid((20, 20, 20))), case(0, shape=SMALL).fixed
    for pair in ((flat, flat), (flat, other), (other, flat)):
        found = LinearAlignment()(*pair)
        assert found.model is None or pair[0] is other
        assert np.isfinite(found.transform.matrix).all()


@pytest.mark.long
def test_orientation_of_the_voxels_does_not_matter() -> None:
    pair = case(1, shape=SMALL, rotation_degrees=10, shift_mm=20, scale=0.05)
    grid = pair.moving.grid
    turned = np.eye(4)
    turned[:3, :3] = [[0, 0, -1], [0, 1, 0], [1, 0, 0]]
    turned[0, 3] = grid.shape[0] - 1
    other = Image(pair.moving.data.flip(1).permute(0, 3, 2, 1), Grid(grid.shape[::-1], grid.affine @ turned))
    one, two = (LinearAlignment()(pair.fixed, moving).transform for moving in (pair.moving, other))
    np.testing.assert_allclose(one.matrix, two.matrix, atol=1e-3)


def test_several_channels() -> None:
    pair = case(0, shape=SMALL, rotation_degrees=8, shift_mm=20, scale=0)
    features = MindSSC(radius=1, dilation=1)
    fixed, moving = (Image(features(image), image.grid) for image in (pair.fixed, pair.moving))
    assert pair.error_mm(LinearAlignment(model="rigid")(fixed, moving).transform) < pair.voxel_mm


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model": "projective"}, "model must be one of 'rigid', 'similarity', 'affine', got 'projective'"),
        ({"init": "guess"}, "init must be one of 'best', 'header', 'geometry', 'moments', got 'guess'"),
        ({"voxels_per_level": ()}, r"voxels_per_level must be a tuple with a number for each level, got \(\)"),
        ({"voxels_per_level": 1000}, "voxels_per_level must be a tuple with a number for each level, got 1000"),
        ({"voxels_per_level": (0,)}, "voxels_per_level must be a whole number of at least 1, got 0"),
        ({"iterations": 0}, "iterations must be a whole number of at least 1, got 0"),
        ({"inlier_fraction": 0}, "inlier_fraction must be a finite number above 0, got 0"),
        ({"inlier_fraction": 1.5}, "inlier_fraction must be at most 1, got 1.5"),
        ({"min_improvement": -0.1}, "min_improvement must be a finite number of at least 0, got -0.1"),
        (
            {"min_model_improvement": float("nan")},
            "min_model_improvement must be a finite number of at least 0, got nan",
        ),
        ({"features": MindSSC}, r"MindSSC\(...\)"),
        ({"features": LabelFeatures()}, "features must be a component or a function"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LinearAlignment(**settings)


def test_rotation_matrix() -> None:
    np.testing.assert_allclose(rotation_matrix(np.array([0, 0, 2.0]), 90) @ (1, 0, 0), (0, 1, 0), atol=1e-12)
