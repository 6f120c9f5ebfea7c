"""Metrics of 2-D images: surfaces are outlines in the plane, determinants are those of 2x2 matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from convexadam import DisplacementField, Grid
from convexadam.metrics import evaluate_transform, hd95, hd95_area_weighted
from convexadam.metrics.surface import hd95_on_device

SPACING = (1.5, 0.5)


def discs() -> tuple[np.ndarray, np.ndarray]:
    """Two ellipses, one of them with a hole, in a plane of 40 x 36 pixels."""
    i, j = np.indices((40, 36))
    first = ((i - 18) / 12) ** 2 + ((j - 17) / 13) ** 2 < 1
    second = (((i - 21) / 12) ** 2 + ((j - 15) / 10) ** 2 < 1) & ((i - 21) ** 2 + (j - 15) ** 2 > 9)
    return first, second


def outline(mask: np.ndarray) -> np.ndarray:
    """Pixels with one of four neighbours outside, in mm."""
    padded = np.pad(mask, 1)
    shifts = [padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2]]
    return np.argwhere(mask & ~np.all(shifts, axis=0)) * SPACING


def marching_squares(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squares of four pixels that the outline crosses, and its length in each, through midpoints of edges."""
    padded = np.pad(mask, 1).astype(int)
    corners = np.stack([padded[:-1, :-1], padded[1:, :-1], padded[1:, 1:], padded[:-1, 1:]])  # in order round a square
    count = corners.sum(0)
    diagonal = (count == 2) & (corners[0] == corners[2])
    lengths = np.select([(count == 1) | (count == 3), diagonal, count == 2], [2**0.5 / 2, 2**0.5, 1.0], 0.0)
    return np.argwhere(lengths > 0), lengths[lengths > 0]


def expected_hd95() -> float:
    distances = cdist(*(outline(mask) for mask in discs()))
    return float(max(np.percentile(distances.min(axis), 95) for axis in (0, 1)))


@pytest.mark.parametrize("across", [0, 1, 2])
def test_surfaces_are_outlines_in_the_plane(across: int) -> None:
    fixed, moved = (torch.from_numpy(np.expand_dims(mask, across).astype(np.uint8)) for mask in discs())
    spacing = [*SPACING]
    spacing.insert(across, 7.0)
    spacing_mm = (spacing[0], spacing[1], spacing[2])
    assert hd95(fixed, moved, spacing_mm=spacing_mm)[1] == pytest.approx(expected_hd95(), rel=1e-9)
    on_device = hd95_on_device(fixed > 0, moved > 0, spacing_mm)
    assert on_device == pytest.approx(expected_hd95(), rel=1e-5)


def test_outlines_are_weighted_by_their_length() -> None:
    found = []
    for mask, other in (discs(), discs()[::-1]):
        (points, lengths), (targets, _) = marching_squares(mask), marching_squares(other)
        distances = cdist(points, targets).min(1)
        order = np.argsort(distances)
        within = np.cumsum(lengths[order]) / lengths.sum()
        found.append(distances[order][np.searchsorted(within, 0.95)])
    for across in range(3):
        fixed, moved = (torch.from_numpy(np.expand_dims(mask, across).astype(np.uint8)) for mask in discs())
        assert hd95_area_weighted(fixed, moved)[1] == pytest.approx(max(found), rel=1e-9)


def test_a_label_in_one_slice_of_a_volume_has_a_surface_on_all_sides() -> None:
    fixed, moved = torch.zeros(2, 12, 12, 12, dtype=torch.uint8)
    fixed[2:10, 2:10, 5], moved[2:10, 2:10, 5] = 1, 1
    moved[2:6, 2:6, 5] = 0
    # each voxel is at the surface; those cut out are up to four away
    assert hd95(fixed, moved, spacing_mm=(1.0, 1.0, 1.0))[1] > 2
    in_plane = hd95(fixed[:, :, 5:6], moved[:, :, 5:6], spacing_mm=(1.0, 1.0, 1.0))[1]
    assert in_plane != hd95(fixed, moved, spacing_mm=(1.0, 1.0, 1.0))[1]


def test_determinants_are_those_of_two_by_two() -> None:
    i, j = np.indices((30, 26)).astype(float)
    u = np.stack([2 * np.sin(i / 5) * np.cos(j / 7), 1.5 * np.cos(i / 6 + j / 8)])
    disp = torch.from_numpy(np.stack([*u, np.zeros_like(i)])[..., None]).float()
    grid = Grid((30, 26, 1), np.diag([1.0, 1.0, 8.0, 1.0]))
    scores = evaluate_transform(DisplacementField.from_voxels(disp, grid))
    (ii, ij), (ji, jj) = (np.gradient(part) for part in u)
    determinants = ((1 + ii) * (1 + jj) - ij * ji)[2:-2, 2:-2]
    assert scores["jacobian_min"] == pytest.approx(determinants.min(), rel=1e-4)
    assert scores["jacobian_max"] == pytest.approx(determinants.max(), rel=1e-4)
    assert scores["sdlogj"] == pytest.approx(np.log(determinants + 3).std(), rel=1e-4)
