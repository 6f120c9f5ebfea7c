"""The mean shape of a group."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from convexadam import Affine, DisplacementField, Grid, compose
from convexadam.errors import GeometryError
from convexadam.geometry.linear_maps import average_affines, fit_affine
from convexadam.template.shape import ShapeAverage, mirror_field

GRID = Grid((16, 14, 12), np.array([[2.0, 0, 0, -15], [0, 2, 0, -13], [0, 0, 2, -11], [0, 0, 0, 1]]))
EVERYWHERE = torch.ones(GRID.shape)


def make_affine(seed: int, size: float = 0.1) -> Affine:
    random = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3] += size * random.standard_normal((3, 4))
    matrix[:3, 3] *= 20
    return Affine(matrix)


def make_field(seed: int, size: float = 0.8) -> DisplacementField:
    random = np.random.default_rng(seed)
    axes = np.stack(np.meshgrid(*[np.linspace(0, np.pi, n) for n in GRID.shape], indexing="ij"))
    wave = np.sin(axes).prod(0) * random.standard_normal((3, 1, 1, 1)) * size
    return DisplacementField(torch.from_numpy(wave.astype(np.float32)), GRID)


def test_a_linear_map_is_found_again() -> None:
    affine = make_affine(0)
    assert fit_affine(affine, GRID, EVERYWHERE).matrix == pytest.approx(affine.matrix, abs=1e-6)


def test_only_where_there_is_weight() -> None:
    affine, other = make_affine(1), make_affine(2)
    half = EVERYWHERE.clone()
    half[8:] = 0
    values = affine.to_displacement_field(GRID).disp_mm.clone()
    values[:, 8:] = other.to_displacement_field(GRID).disp_mm[:, 8:]
    found = fit_affine(DisplacementField(values, GRID), GRID, half)
    assert found.matrix == pytest.approx(affine.matrix, abs=1e-4)


def test_a_flat_template_is_refused() -> None:
    flat = torch.zeros(GRID.shape)
    flat[8] = 1
    with pytest.raises(GeometryError, match="extend in all directions"):
        fit_affine(make_affine(0), GRID, flat)


def test_rotations_average_to_the_middle_one() -> None:
    turns = [Rotation.from_rotvec(np.deg2rad(angle) * np.array([0, 0.6, 0.8])) for angle in (10, 20, 60)]
    mean = average_affines([Affine(np.block([[t.as_matrix(), np.zeros((3, 1))], [0, 0, 0, 1]])) for t in turns])
    expected = Rotation.from_rotvec(np.deg2rad(30) * np.array([0, 0.6, 0.8])).as_matrix()
    assert mean.matrix[:3, :3] == pytest.approx(expected, abs=1e-9)


def test_scales_average_geometrically() -> None:
    mean = average_affines([Affine(np.diag([s, 1, 1, 1.0])) for s in (0.5, 2.0)])
    assert mean.matrix == pytest.approx(np.eye(4), abs=1e-12)


def test_a_mirror_has_no_mean() -> None:
    with pytest.raises(GeometryError, match="real logarithms"):
        average_affines([Affine(np.diag([-1.0, 1, 1, 1]))])


def test_the_update_leads_to_the_mean_shape() -> None:
    # scans that all deform a common shape, which itself differs from the template by a bias
    bias = compose(make_affine(9, 0.03), make_field(9))
    parts = [compose(make_field(n, 0.3), make_affine(n, 0.02)) for n in range(4)]
    own = ShapeAverage(GRID, EVERYWHERE)
    for part in parts:
        own.add(part)
    before = own.find_update()
    shape = ShapeAverage(GRID, EVERYWHERE)
    for part in parts:
        shape.add(compose(bias, part))
    update = shape.find_update()
    assert update.linear_mm > 0.5
    after = ShapeAverage(GRID, EVERYWHERE)
    for part in parts:
        after.add(compose(update.transform, compose(bias, part)))
    left = after.find_update()
    assert left.mean_mm + left.linear_mm < 0.05 * (update.mean_mm + update.linear_mm)
    assert left.mean_mm + left.linear_mm < 0.05
    assert before.mean_mm < update.mean_mm + update.linear_mm


def test_the_order_makes_no_difference() -> None:
    parts = [compose(make_field(n), make_affine(n, 0.02)) for n in range(4)]
    found = []
    for order in (parts, parts[::-1]):
        shape = ShapeAverage(GRID, EVERYWHERE)
        for part in order:
            shape.add(part)
        found.append(shape.find_update().transform.to_displacement_field(GRID).disp_mm)
    torch.testing.assert_close(*found, atol=1e-4, rtol=0)


def test_a_symmetric_mean_is_its_own_mirror_image() -> None:
    shape = ShapeAverage(GRID, EVERYWHERE, symmetric=True)
    for n in range(3):
        shape.add(compose(make_field(n), make_affine(n, 0.02)))
    field = shape.find_update().transform.to_displacement_field(GRID).disp_mm
    torch.testing.assert_close(mirror_field(field), field, atol=2e-3, rtol=0)
