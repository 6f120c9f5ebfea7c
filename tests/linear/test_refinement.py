"""Refinement by mutual information: noisy phantoms on grids of their own, with exact transforms."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from phantoms import rotation_matrix
from scipy import ndimage
from scipy.linalg import expm

from convexadam import Affine, Grid, Image
from convexadam.data import phantom_pair
from convexadam.linear import LinearAlignment, Model, refinement
from convexadam.linear.refinement import make_generators, refine_transform

SIZE = (64, 56, 48)


def make_pair(
    matrix: np.ndarray, *, contrasts: tuple[str, str] = ("t1", "t1"), noise: float = 0.0, seed: int = 0
) -> tuple[Image, Image]:
    """Both images on one grid; the moving one resampled by scipy through the inverse of a transform in mm."""
    pair: Any = phantom_pair(SIZE, contrasts=contrasts, displacement_mm=0.0, noise=0.0, seed=seed)
    grid, rng = pair.fixed.grid, np.random.default_rng(seed)
    fixed, moving = (image.data[0].numpy() for image in (pair.fixed, pair.moving))
    index = np.linalg.inv(grid.affine) @ np.linalg.inv(matrix) @ grid.affine
    moving = ndimage.affine_transform(moving, index[:3, :3], index[:3, 3], order=3, mode="nearest")
    noisy = (values + rng.normal(scale=noise * values.std(), size=SIZE) for values in (fixed, moving))
    one, two = (Image(torch.from_numpy(values.astype(np.float32))[None], grid) for values in noisy)
    return one, two


def make_motion(grid: Grid, degrees: float, voxels: float, scale: float = 1.0) -> np.ndarray:
    centre = grid.affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + grid.affine[:3, 3]
    matrix = np.eye(4)
    matrix[:3, :3] = scale * rotation_matrix(np.array([1.0, -2.0, 1.5]), degrees)
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + voxels * min(grid.spacing_mm) * np.array([0.6, -0.64, 0.48])
    return matrix


def measure_error(image: Image, found: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance in voxels over the object."""
    inside = np.argwhere(image.data[0].numpy() > image.data[0].numpy().mean())
    points = inside @ image.grid.affine[:3, :3].T + image.grid.affine[:3, 3]
    difference = (found - truth)[:3]
    lengths = np.linalg.norm(points @ difference[:, :3].T + difference[:, 3], axis=1)
    return float(lengths.mean() / min(image.grid.spacing_mm))


GRID: Grid = phantom_pair(SIZE, displacement_mm=0.0).fixed.grid


@pytest.mark.parametrize(
    ("model", "degrees", "voxels", "scale"),
    [("rigid", 1.0, 0.4, 1.0), ("rigid", 4.0, 2.0, 1.0), ("similarity", 3.0, 1.0, 1.04), ("affine", 3.0, 1.0, 0.96)],
)
def test_small_motion_in_noise(model: Model, degrees: float, voxels: float, scale: float) -> None:
    truth = make_motion(GRID, degrees, voxels, scale)
    fixed, moving = make_pair(truth, noise=0.1)
    found = LinearAlignment(model=model)(fixed, moving)
    assert found.accepted
    assert measure_error(fixed, found.transform.matrix, truth) < 0.025  # 0.04 without the filter of the finest level


def test_large_motion() -> None:
    truth = make_motion(GRID, 30.0, 8.0)
    fixed, moving = make_pair(truth, noise=0.05)
    found = LinearAlignment(model="rigid")(fixed, moving)
    assert measure_error(fixed, found.transform.matrix, truth) < 0.05


@pytest.mark.parametrize("contrasts", [("t1", "t2"), ("ct", "t1")])
def test_two_contrasts(contrasts: tuple[str, str]) -> None:
    truth = make_motion(GRID, 2.0, 1.0)
    fixed, moving = make_pair(truth, contrasts=contrasts, noise=0.05)
    found = LinearAlignment(model="rigid")(fixed, moving)
    assert measure_error(fixed, found.transform.matrix, truth) < 0.15


@pytest.mark.parametrize("model", ["rigid", "affine"])
def test_without_motion_the_identity_is_kept(model: Model) -> None:
    fixed, moving = make_pair(np.eye(4), noise=0.1)
    found = LinearAlignment(model=model)(fixed, moving)
    assert measure_error(fixed, found.transform.matrix, np.eye(4)) < 0.005
    same = LinearAlignment(model=model)(fixed, fixed)
    assert not same.accepted
    np.testing.assert_array_equal(same.transform.matrix, np.eye(4))
    assert same.mutual_information_after == same.mutual_information_before


def test_an_initial_transform_is_refined() -> None:
    truth = make_motion(GRID, 20.0, 4.0)
    fixed, moving = make_pair(truth)
    initial = make_motion(GRID, 19.0, 3.5)
    found = LinearAlignment(model="rigid")(fixed, moving, initial=Affine(initial))
    assert measure_error(fixed, found.transform.matrix, truth) < 0.05


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**10])
def test_the_unit_of_length_does_not_matter(unit: float) -> None:
    truth = make_motion(GRID, 3.0, 1.0)
    images = make_pair(truth, noise=0.05)
    scale = np.diag([unit, unit, unit, 1.0])
    scaled = [Image(image.data, Grid(SIZE, scale @ image.grid.affine)) for image in images]
    one, other = (LinearAlignment(model="rigid")(*pair).transform.matrix for pair in (images, scaled))
    assert measure_error(images[0], np.linalg.inv(scale) @ other @ scale, one) < 1e-4


def test_masks_decide_what_is_compared() -> None:
    truth = make_motion(GRID, 2.0, 1.0)
    fixed, moving = make_pair(truth)
    half = torch.zeros(1, *SIZE, dtype=torch.uint8)
    half[:, : SIZE[0] // 2] = 1
    spoilt = moving.data.clone()
    spoilt[:, SIZE[0] // 2 :] = fixed.data[:, SIZE[0] // 2 :]  # this half says that nothing moved
    found = LinearAlignment(model="rigid", init="header")(
        fixed, Image(spoilt, moving.grid), moving_mask=Image(half, moving.grid)
    )
    assert measure_error(fixed, found.transform.matrix, truth) < 0.1


def test_several_channels_are_compared_each_with_its_own() -> None:
    truth = make_motion(GRID, 2.0, 1.0)
    (a, b), (c, d) = (make_pair(truth, contrasts=(name, name), noise=0.1) for name in ("t1", "t2"))
    fixed, moving = (Image(torch.cat([x.data, y.data]), x.grid) for x, y in ((a, c), (b, d)))
    refined = refine_transform((fixed, moving), (None, None), [np.eye(4)], model="rigid", coarsest_mm=20.0)
    assert measure_error(a, refined.matrix, truth) < 0.05


def test_images_that_do_not_overlap_keep_the_start() -> None:
    fixed, moving = make_pair(np.eye(4))
    away = np.eye(4)
    away[:3, 3] = 1e5
    refined = refine_transform((fixed, moving), (None, None), [away], model="affine", coarsest_mm=20.0)
    assert not refined.is_significant
    np.testing.assert_allclose(refined.matrix, away, rtol=1e-9)


@pytest.mark.parametrize("samples", [400, 4000])
def test_the_information_of_unrelated_images_is_not_significant(samples: int) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = [Image(torch.rand(1, 40, 36, 32, generator=generator), Grid((40, 36, 32))) for _ in range(2)]
    size = round(samples ** (1 / 3))
    part = torch.zeros(1, 40, 36, 32, dtype=torch.uint8)
    part[:, 4 : 4 + size, 4 : 4 + size, 4 : 4 + size] = 1  # away from the edge, where there are no samples
    masks = (Image(part, noise[0].grid), Image(part, noise[0].grid))
    refined = refine_transform((noise[0], noise[1]), masks, [np.eye(4)], model="rigid", coarsest_mm=2.0)
    assert refined.samples <= 1.1 * size**3
    assert not dataclasses.replace(refined, before=0.0).is_significant
    assert dataclasses.replace(refined, before=0.0, after=4 * refined.after).is_significant


@pytest.mark.parametrize("model", ["rigid", "similarity", "affine"])
def test_generators_span_the_model(model: Model) -> None:
    generators = make_generators(model)
    assert len(generators) == {"rigid": 6, "similarity": 7, "affine": 12}[model]
    assert np.linalg.matrix_rank(generators.reshape(len(generators), 16)) == len(generators)
    motion = expm(np.einsum("k,kij->ij", np.random.default_rng(0).normal(size=len(generators)), generators))
    linear = motion[:3, :3]
    scale = np.linalg.det(linear) ** (1 / 3)
    assert np.allclose(linear @ linear.T, scale**2 * np.eye(3)) == (model != "affine")
    assert np.isclose(scale, 1) == (model == "rigid")


@pytest.mark.parametrize("shape", [(7, 6, 5), (1, 6, 5), (2, 1, 3)])
def test_the_filter_is_that_of_scipy_in_any_slabs(shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)) * 50 + 5
    share = np.ones(shape)
    expected = values[0].numpy().astype(np.float64)
    for axis in range(3):
        expected, share = (
            ndimage.correlate1d(v, [0.25, 0.5, 0.25], axis=axis, mode="constant") for v in (expected, share)
        )
    for planes in (1, 2, 100):
        monkeypatch.setattr(refinement, "_SLAB", (planes * shape[1] * shape[2],) * 2)
        found = refinement._smooth(values.clone())
        np.testing.assert_allclose(found[0].numpy(), expected / share, rtol=1e-5)
