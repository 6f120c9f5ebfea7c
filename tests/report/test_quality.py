"""Measures against known motions and naive loops."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage

from convexadam import Affine, DisplacementField, Grid, Image, InputError, RegistrationResult, preset
from convexadam.data import PhantomPair
from convexadam.geometry import Transform
from convexadam.metrics.local_correlation import square_correlation
from convexadam.report import QualityMeasures, measure_quality, mirror_image
from convexadam.report.lattice import LatticePair

OBLIQUE = np.array([[-2.0, 0.1, 0, 20], [0.1, 0, 3.0, -30], [0, 2.5, 0.1, 5], [0, 0, 0, 1]])  # i to L, j to S, k to A
GRID = Grid((30, 26, 22), OBLIQUE)


@dataclass
class Given:
    transform: Transform
    estimated_inverse: Transform | None = None


def texture(seed: int, sigma: float = 2.0, shape: tuple[int, int, int] = GRID.shape) -> Image:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return Image(torch.tensor(values / values.std(), dtype=torch.float32)[None], GRID)


def measure(transform: Transform, fixed: Image, moving: Image, inverse: Transform | None = None) -> QualityMeasures:
    return measure_quality(Given(transform, inverse), fixed, moving)


def test_an_image_and_itself() -> None:
    image = texture(0)
    measures = measure(Affine(), image, image, Affine())
    assert measures.similarity_before == pytest.approx(1, abs=1e-4)
    assert measures.similarity_after == pytest.approx(1, abs=1e-4)
    assert measures.matched_percent == 100
    assert measures.overlap_percent == 100
    assert measures.residual_mm == measures.folded_percent == 0
    assert measures.deformation_mm == pytest.approx(0, abs=1e-9)
    assert measures.inverse_consistency_mm == pytest.approx(0, abs=1e-9)
    assert measures.rotation_degrees == pytest.approx(0, abs=1e-4)
    assert measures.volume_ratio == pytest.approx(1)
    assert measures.similarity_shuffled < 0.3
    assert measures.similarity_gain == pytest.approx(1, abs=1e-3)
    assert math.isnan(measures.boundary_percent)
    assert math.isnan(measures.mirror_gain)


def test_the_local_correlation_is_that_of_a_naive_loop() -> None:
    rng = np.random.default_rng(1)
    fixed, moving = rng.normal(size=(9, 8, 7)), rng.normal(size=(9, 8, 7))
    weight = (rng.random((9, 8, 7)) > 0.2).astype(float)
    found = square_correlation(*(torch.tensor(v, dtype=torch.float64) for v in (fixed, moving, weight))).numpy()
    for centre in ((4, 4, 3), (0, 0, 0), (8, 3, 6)):
        box = tuple(slice(max(0, c - 2), c + 3) for c in centre)
        inside = weight[box] > 0
        expected = np.corrcoef(fixed[box][inside], moving[box][inside])[0, 1] ** 2 if weight[centre] else 0
        assert found[centre] == pytest.approx(expected, abs=1e-9)


def test_the_similarity_does_not_see_a_linear_change_of_intensities() -> None:
    fixed, moving = texture(0), texture(1)
    inverted = Image(700 - 30 * moving.data, GRID)
    assert measure(Affine(), fixed, inverted).similarity_after == pytest.approx(
        measure(Affine(), fixed, moving).similarity_after, abs=1e-4
    )


@pytest.mark.parametrize(("axis", "points"), [(0, 1), (1, 2), (2, 4)])
def test_the_residual_of_a_shift_is_its_length(axis: int, points: int) -> None:
    image = texture(2, sigma=1.5)
    lattice = LatticePair.sample(Affine(), image, image, (None, None)).grid
    shift = np.eye(4)
    shift[:3, 3] = lattice.affine[:3, axis] * points  # whole points of the lattice, so one of the compared shifts
    lengths = measure(Affine(shift), image, image)
    exact = points * lattice.spacing_mm[axis]
    assert lengths.matched_percent < 10
    assert lengths.residual_mm == pytest.approx(exact, rel=0.15)


def test_linear_motion() -> None:
    angle = math.radians(20)
    turned = np.eye(4)
    turned[:3, :3] = 1.1 * np.array(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    )
    centre = (GRID.affine @ [*((np.array(GRID.shape) - 1) / 2), 1])[:3]
    turned[:3, 3] = centre - turned[:3, :3] @ centre + [3, 4, 12]
    measures = measure(Affine(turned), texture(3), texture(4))
    assert measures.rotation_degrees == pytest.approx(20, abs=0.05)
    assert measures.translation_mm == pytest.approx(13, abs=0.01)
    assert measures.volume_ratio == pytest.approx(1.1**3, rel=1e-3)
    assert measures.jacobian_low == pytest.approx(1, rel=1e-3)
    assert measures.deformation_mm == pytest.approx(0, abs=0.05)  # the fit has a small ridge


def test_the_overlap_is_the_share_that_maps_into_the_moving_image() -> None:
    shift = np.eye(4)
    shift[:3, 3] = GRID.affine[:3, 0] * 15  # half of 30 voxels
    measures = measure(Affine(shift), texture(5), texture(5))
    assert measures.overlap_percent == pytest.approx(50, abs=8)  # of the points with structure, which vary
    half = torch.zeros(1, *GRID.shape)
    half[:, :15] = 1
    masked = measure_quality(Given(Affine()), texture(5), texture(5), moving_mask=Image(half, GRID))
    assert masked.overlap_percent == pytest.approx(50, abs=8)


def test_folds_and_volume_change_are_those_of_numpy() -> None:
    rng = np.random.default_rng(6)
    disp = np.stack([ndimage.gaussian_filter(rng.normal(size=GRID.shape), 1.5) * 18 for _ in range(3)])
    measures = measure(DisplacementField.from_voxels(torch.tensor(disp), GRID), texture(7), texture(7))
    slopes = np.stack([np.stack(np.gradient(component)) for component in disp])  # [component, axis, i, j, k]
    matrices = np.moveaxis(slopes, (0, 1), (-2, -1)) + np.eye(3)
    determinants = np.linalg.det(matrices)[2:-2, 2:-2, 2:-2]
    assert 1 < 100 * (determinants <= 0).mean() < 60
    assert measures.folded_percent == pytest.approx(100 * (determinants <= 0).mean(), abs=0.05)
    low, high = np.percentile(determinants, (1, 99)) / measures.volume_ratio
    assert measures.jacobian_low == pytest.approx(low, rel=0.01)
    assert measures.jacobian_high == pytest.approx(high, rel=0.01)


def test_the_error_of_an_inverse_is_its_distance() -> None:
    wrong = np.eye(4)
    wrong[:3, 3] = 2, 3, 6
    image = texture(8)
    assert measure(Affine(), image, image, Affine(wrong)).inverse_consistency_mm == pytest.approx(7)
    assert math.isnan(measure(Affine(), image, image).inverse_consistency_mm)


def test_displacements_at_the_boundary_of_the_search(registered: RegistrationResult, phantom: PhantomPair) -> None:
    config = preset()
    spacing, radius = config.searches[0].control_grid(
        config.grid(phantom.fixed.grid).shape, config.grid(phantom.fixed.grid).spacing_mm
    )
    reach_mm = spacing[0] * radius[0] * config.grid(phantom.fixed.grid).spacing_mm[0]
    disp_mm = torch.zeros(3, *phantom.fixed.grid.shape)
    for share, percent in ((0.9, 0), (1.1, 100)):
        disp_mm[0] = share * reach_mm
        there = DisplacementField(disp_mm.clone(), phantom.fixed.grid)
        moved = dataclasses.replace(registered, transform=there, linear=None)
        assert measure_quality(moved, phantom.fixed, phantom.moving).boundary_percent == percent


def test_mirror() -> None:
    image = texture(9)
    mirrored = mirror_image(image)
    assert torch.equal(mirrored.data, image.data.flip(1))  # i is the axis along L
    same = Given(Affine())
    assert measure_quality(same, image, image, mirrored=same).mirror_gain < -0.3
    assert measure_quality(same, image, mirrored, mirrored=same).mirror_gain > 0.3


def test_every_form_of_an_image_is_measured() -> None:
    image = texture(0)
    nifti = nibabel.Nifti1Image(image.numpy(), image.grid.affine)
    assert measure_quality(Given(Affine()), nifti, nifti) == measure_quality(Given(Affine()), image, image)
    with pytest.raises(InputError, match="moving must be a path, an Image, a tensor"):
        measure_quality(Given(Affine()), image, 3)


def test_measures_as_json(measures: QualityMeasures) -> None:
    plain = json.loads(json.dumps(measures.to_dict(), allow_nan=False))
    assert plain["inverse_consistency_mm"] is None
    back = QualityMeasures.from_dict({**plain, "another": 1})
    assert back.to_dict() == measures.to_dict()
    assert math.isnan(QualityMeasures.from_dict({}).similarity_after)


@pytest.mark.parametrize("shape", [(1, 9, 8), (3, 2, 2), (40, 36, 1)])
def test_small_volumes_and_constant_images(shape: tuple[int, int, int]) -> None:
    for values in (torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)), torch.ones(1, *shape)):
        image = Image(values, Grid(shape))
        measures = measure(Affine(), image, image)
        assert 0 <= measures.similarity_after <= 1 or math.isnan(measures.similarity_after)


def test_a_mask_on_another_grid_is_mirrored_about_the_middle_of_its_image() -> None:
    affine = np.diag([-2.0, 1.5, 1.0, 1.0])
    affine[:3, 3] = 40.0, -8.0, 5.0
    image = Image(torch.zeros(1, 10, 6, 5), Grid((10, 6, 5), affine))
    inside = torch.zeros(1, 10, 6, 5, dtype=torch.uint8)
    inside[0, 1:4, 2:4] = 1
    cut = affine.copy()
    cut[:3, 3] += affine[:3, 0]  # without the first plane
    mask = Image(inside[:, 1:], Grid((9, 6, 5), cut))
    mirrored = mirror_image(mask, about=image.grid)
    expected = inside.flip(1)[0]
    index = mirrored.grid.world_to_index(image.grid.index_to_world((expected > 0).nonzero().double()))
    found = mirrored.data[0][tuple(index.round().long().T)]
    assert (found == 1).all()
    assert int(mirrored.data.sum()) == int(expected.sum())
    assert torch.equal(mirror_image(Image(inside, image.grid), about=image.grid).data[0], expected)
