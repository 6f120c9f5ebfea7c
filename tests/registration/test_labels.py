"""Registrations with features of segmentations: labels or probabilities."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import oracles
import pytest
import torch
import turned

from convexadam import (
    Concat,
    ConfigError,
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    InputError,
    IsotropicGrid,
    MindSSC,
    RegistrationConfig,
    estimate_memory,
    register,
)
from convexadam.data import PhantomPair, phantom_pair
from convexadam.features import FeatureInput, LabelFeatures, PairFeatures, ProbabilityFeatures
from convexadam.geometry.to_grid import resample_labels_to_grid
from convexadam.metrics import dice

COARSE = RegistrationConfig(linear=None, features=LabelFeatures(), continuous=None)


@pytest.fixture(scope="module")
def contrasts() -> PhantomPair:
    return phantom_pair((64, 54, 48), displacement_mm=25, seed=3, contrasts=("ct", "t2"))


def _dice(pair: PhantomPair, features: Any) -> float:
    """Mean overlap of all labels."""
    segmentations = (
        {}
        if features == MindSSC()
        else {"fixed_segmentation": pair.fixed_labels, "moving_segmentation": pair.moving_labels}
    )
    result = register(pair.fixed, pair.moving, RegistrationConfig(features=features), **segmentations)
    moved = result.transform.warp(pair.moving_labels).data[0]
    return float(np.mean(list(dice(pair.fixed_labels.data[0], moved).values())))


@pytest.mark.long
def test_labels_overlap_more_than_without(contrasts: PhantomPair) -> None:
    without = _dice(contrasts, MindSSC())
    assert _dice(contrasts, LabelFeatures()) > without + 0.02
    assert _dice(contrasts, Concat(parts=(MindSSC(), LabelFeatures()))) > without + 0.02


def _shapes(points_mm: np.ndarray) -> np.ndarray:
    """An ellipsoid within another, each in eight parts, so that every motion changes labels: 3, 10 ... 108.

    Their planes are oblique to all axes: planes along an axis would be located to whole voxels only.
    """
    x, y, z = points_mm
    planes = x + 0.4 * y - 0.3 * z > 3, y + 0.4 * z - 0.3 * x > -2, z + 0.4 * x - 0.3 * y > 1
    part = 1 + planes[0] + 2 * planes[1] + 4 * planes[2] + 8 * ((x / 16) ** 2 + (y / 13) ** 2 + (z / 14) ** 2 < 1)
    return np.where((x / 28) ** 2 + (y / 22) ** 2 + (z / 24) ** 2 < 1, 7 * part - 4, 0).astype(np.int32)


def _turned_labels() -> tuple[Image, Image]:
    """The ellipsoids on two oblique, anisotropic grids, the second one through `turned.MATRIX`."""
    maps = []
    for grid, matrix in ((turned.FIXED_GRID, np.eye(4)), (turned.MOVING_GRID, turned.MATRIX)):
        points = oracles.mm_of_voxels(grid.affine, grid.shape).reshape(3, -1).T
        positions = turned.transformed(points, np.linalg.inv(matrix)).T.reshape(3, *grid.shape)
        maps.append(Image(torch.from_numpy(_shapes(positions))[None], grid))
    return maps[0], maps[1]


def _error_mm(result: Any) -> float:
    """Mean distance from `turned.MATRIX` where there are labels."""
    points = oracles.mm_of_voxels(turned.FIXED_GRID.affine, turned.FIXED_GRID.shape)
    inside = points[:, _shapes(points) > 0].T
    moved = result.transform.warp_points(torch.from_numpy(inside), space="mm").numpy()
    return float(np.linalg.norm(moved - turned.transformed(inside), axis=1).mean())


@pytest.mark.parametrize("start", ["headers", "linear", "field"])
@pytest.mark.parametrize("soft", [False, True])
def test_different_oblique_and_anisotropic_grids(start: str, soft: bool) -> None:
    fixed, moving = _turned_labels()
    features: Any = ProbabilityFeatures() if soft else LabelFeatures()
    config = dataclasses.replace(RegistrationConfig(features=features), linear=None)
    labels: list[Any] = [fixed, moving]
    if soft:
        values = (0, *range(3, 109, 7))
        labels = [Image(torch.cat([m.data == v for v in values]).float(), m.grid) for m in labels]
    # images without contrast
    flat = [Image(torch.zeros(1, *m.grid.shape), m.grid) for m in (fixed, moving)]
    initial: Any = None
    if start == "linear":
        initial = turned.MATRIX @ _shift(2.0, -1.0, 1.5)
    elif start == "field":
        field = turned.field_of(turned.MATRIX @ _shift(2.0, -1.0, 1.5))
        initial = DisplacementField(torch.from_numpy(field), turned.FIXED_GRID)
    result = register(
        *flat, config, fixed_segmentation=labels[0], moving_segmentation=labels[1], initial_transform=initial
    )
    # points are 5.7 mm away on average; label maps locate surfaces to half a voxel, of up to 2.9 mm
    assert _error_mm(result) < 0.5 * max(turned.MOVING_GRID.spacing_mm)


def _shift(x: float, y: float, z: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = x, y, z
    return matrix


def test_labels_are_not_interpolated() -> None:
    fixed, _ = _turned_labels()
    grid = turned.MOVING_GRID.canonical().with_spacing((1.7, 1.7, 1.7))
    found = resample_labels_to_grid(fixed, grid)
    assert found.data.dtype == fixed.data.dtype
    assert set(found.data.unique().tolist()) == {0, *range(3, 109, 7)}
    wanted = _shapes(oracles.mm_of_voxels(grid.affine, grid.shape))
    wrong = found.data[0].numpy() != wanted
    # the value is that of a voxel at most a diagonal away: it may differ from the shapes only that near a surface
    reach = float(np.linalg.norm(turned.FIXED_GRID.spacing_mm))
    at = oracles.mm_of_voxels(grid.affine, grid.shape)[:, wrong]
    read, near = found.data[0].numpy()[wrong], np.zeros(wrong.sum(), bool)
    for step in np.random.default_rng(0).normal(size=(300, 3)):
        for share in (0.25, 0.5, 0.75, 1.0):
            near |= _shapes(at + (share * reach * step / np.linalg.norm(step))[:, None]) == read
    assert near.all()
    assert 0 < wrong.sum() < 0.15 * wanted.size


def test_labels_in_another_order_of_voxels_are_kept() -> None:
    fixed, _ = _turned_labels()
    found = resample_labels_to_grid(fixed, fixed.grid.canonical())
    assert torch.equal(found.data, fixed.canonical().data)


def _blocks() -> tuple[torch.Tensor, torch.Tensor]:
    fixed = torch.zeros(20, 22, 18, dtype=torch.uint8)
    fixed[4:10, 5:14, 4:12], fixed[10:15, 6:12, 5:13] = 1, 2
    return fixed, fixed.roll((2, -1, 1), (0, 1, 2))


def _field(config: RegistrationConfig = COARSE, **inputs: Any) -> torch.Tensor:
    images = [torch.zeros(20, 22, 18) for _ in range(2)]
    return register(*images, config, **inputs).transform.disp_mm


def test_any_form_of_labels() -> None:
    fixed, moving = _blocks()
    expected = _field(fixed_segmentation=fixed, moving_segmentation=moving)
    assert expected.abs().max() > 1
    grid = Grid((20, 22, 18))
    for make in (
        lambda m: m.numpy(),
        lambda m: m.double().numpy(),  # as nibabel's get_fdata gives them
        lambda m: m[None].long(),
        lambda m: m.to(torch.int16).numpy(),
        lambda m: Image(m[None].int(), grid),
    ):
        assert torch.equal(_field(fixed_segmentation=make(fixed), moving_segmentation=make(moving)), expected)
    large = _field(fixed_segmentation=fixed.int() * 100_000, moving_segmentation=moving.int() * 100_000)
    assert torch.equal(large, expected)
    boolean = [m == 1 for m in (fixed, moving)]
    assert torch.equal(
        _field(fixed_segmentation=boolean[0], moving_segmentation=boolean[1]),
        _field(fixed_segmentation=boolean[0].int() * 7, moving_segmentation=boolean[1].int() * 7),
    )


def test_probabilities_of_0_and_1_are_equivalent_to_labels() -> None:
    fixed, moving = _blocks()
    soft = [torch.stack([m == v for v in range(3)]) for m in (fixed, moving)]
    config = dataclasses.replace(COARSE, features=ProbabilityFeatures())
    expected = _field(fixed_segmentation=fixed, moving_segmentation=moving)
    for dtype in (torch.float32, torch.float64, torch.float16, torch.uint8):
        found = _field(config, fixed_segmentation=soft[0].to(dtype), moving_segmentation=soft[1].to(dtype))
        # factors differ by a few roundings, and costs in half precision hardly ever
        torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


def test_labels_outside_the_mask_have_no_influence() -> None:
    fixed, moving = _blocks()
    mask = torch.ones(20, 22, 18, dtype=torch.uint8)
    mask[16:] = 0
    other = fixed.clone()
    other[16:] = 9
    assert torch.equal(
        _field(fixed_segmentation=fixed, moving_segmentation=moving, fixed_mask=mask),
        _field(fixed_segmentation=other, moving_segmentation=moving, fixed_mask=mask),
    )


def test_labels_for_the_refinement_alone(contrasts: PhantomPair) -> None:
    config = RegistrationConfig(linear=None, continuous_features=LabelFeatures())
    segmentations = {"fixed_segmentation": contrasts.fixed_labels, "moving_segmentation": contrasts.moving_labels}
    found = register(contrasts.fixed, contrasts.moving, config, **segmentations)
    plain = register(contrasts.fixed, contrasts.moving, dataclasses.replace(config, continuous_features=None))
    assert not torch.equal(found.transform.disp_mm, plain.transform.disp_mm)


def test_features_may_be_extracted_from_both_images_together() -> None:
    class Difference:
        """Features of another package: values above the mean of both images."""

        uses_labels = False

        def extract_pair(self, fixed: FeatureInput, moving: FeatureInput, spacings: Any) -> Any:
            assert fixed.segmentation is None
            level = (fixed.image.data.mean() + moving.image.data.mean()) / 2
            maps = [(s.image.data > level).float() for s in (fixed, moving)]
            return tuple(tuple(torch.nn.functional.avg_pool3d(m[None], s, s)[0] for m in maps) for s in spacings)

    assert isinstance(Difference(), PairFeatures)
    config = dataclasses.replace(COARSE, features=Difference(), discrete=ConvexSearch(spacing=2, radius=2))
    fixed, moving = (m.float() for m in _blocks())
    found = register(fixed, moving, config).transform.disp_mm[:, 5:14, 6:12, 5:12]
    shift = torch.tensor([2.0, -1.0, 1.0]).reshape(3, 1, 1, 1)
    assert (found - shift).abs().mean() < 0.5


# Unusable inputs ----------------------------------------------------------------------------------------------------


def test_segmentations_must_be_given_exactly_if_features_use_them() -> None:
    fixed, moving = _blocks()
    message = "fixed_segmentation and moving_segmentation must be used by the features, got features that use none"
    with pytest.raises(ConfigError, match=message):
        _field(dataclasses.replace(COARSE, features=MindSSC()), fixed_segmentation=fixed, moving_segmentation=moving)
    for features in (LabelFeatures(), Concat(parts=(MindSSC(), ProbabilityFeatures()))):
        with pytest.raises(ConfigError, match="must both be given for these features, got none; pass both"):
            _field(dataclasses.replace(COARSE, features=features))
    for inputs in ({"fixed_segmentation": fixed}, {"moving_segmentation": moving}):
        with pytest.raises(ConfigError, match="must both be given for these features, got one of them"):
            _field(**inputs)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.full((20, 22, 18), float("nan")), "moving_segmentation must be finite, got NaN or Inf"),
        (torch.full((20, 22, 18), 0.5), "moving_segmentation must hold whole numbers if .*, got fractions"),
        (torch.full((20, 22, 18), 1e20), "moving_segmentation must hold whole numbers"),
        (torch.ones(3, 4, 5), r"moving_segmentation must have the shape .*, \(20, 22, 18\), got \(3, 4, 5\)"),
        (torch.zeros(20, 22, 18), "moving.* 0"),
        (torch.zeros(4, 20, 22, 18), r"one channel .* 4 of torch\.float32"),
        (torch.arange(20 * 22 * 18).reshape(20, 22, 18), "at most 255 labels"),
    ],
)
def test_unusable_segmentations(labels: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _field(fixed_segmentation=_blocks()[0], moving_segmentation=labels)


def test_the_memory_estimate_needs_the_number_of_channels() -> None:
    shape = (96, 96, 96)
    for features in (LabelFeatures(), Concat(parts=(MindSSC(), LabelFeatures()))):
        with pytest.raises(ConfigError, match="pass channels="):
            estimate_memory(shape, RegistrationConfig(features=features))

    def of(features: Any, channels: int) -> int:
        grid = IsotropicGrid(spacing_mm=1.0)
        return estimate_memory(shape, RegistrationConfig(grid=grid, features=features), channels=channels)

    # for each image one byte per voxel of its label map, or four for each probability, the background included
    assert of(LabelFeatures(), 12) == of(MindSSC(), 12) + 2 * 96**3
    assert of(ProbabilityFeatures(), 12) >= of(MindSSC(), 12) + 2 * 13 * 4 * 96**3
    assert of(LabelFeatures(), 12) < of(LabelFeatures(), 40)
