"""Our transform files in the hands of SimpleITK, ANTs and nitransforms, and theirs in ours.

ANTs (PyPI ``antspyx``) wants an older numpy than the rest, so that it is no requirement of the tests: they are skipped
without it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign import CENTRE_MM, GRIDS, MOVING, anatomy, sheared, some_points, turned, voxel_points, waves

from convexadam.errors import ConfigError
from convexadam.geometry import Affine, Composite, DisplacementField, Grid, Image, Transform, compose
from convexadam.io import read_transform, write_image, write_transform

FLIP = torch.tensor([-1.0, -1, 1], dtype=torch.float64)
every_grid = pytest.mark.parametrize("name", GRIDS)
MOVING_IMAGE = anatomy(MOVING)
SPREAD = float(MOVING_IMAGE.data.max() - MOVING_IMAGE.data.min())


@pytest.fixture
def ants() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("ants", reason="ANTs (antspyx) is not installed")


def transforms_on(grid: Grid) -> dict[str, Transform]:
    affine, field = sheared(), waves(grid)
    return {"affine.h5": affine, "affine.mat": affine, "affine.tfm": affine, "field.nii.gz": field, "field.h5": field,
            "affine_field.h5": compose(affine, field), "field_affine.h5": compose(field, affine)}  # fmt: skip


def images(grid: Grid, folder: Path) -> tuple[str, str]:
    write_image(Image(torch.zeros(1, *grid.shape), grid), folder / "fixed.nii.gz")
    write_image(MOVING_IMAGE, folder / "moving.nii.gz")
    return str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz")


def assert_alike(ours: Image, theirs: np.ndarray) -> None:
    """Within 1e-3 of the range, away from the outer voxel; and the transform does matter."""
    inner = (slice(1, -1),) * 3
    found = ours.numpy()[inner]
    assert float(np.abs(found - theirs[inner]).max()) < 1e-3 * SPREAD
    still = Affine().warp(MOVING_IMAGE, ours.grid).numpy()[inner]
    assert float(np.abs(found - still).max()) > 0.05 * SPREAD


@every_grid
def test_simpleitk_resamples_alike(name: str, tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    grid = GRIDS[name]
    fixed, moving = (sitk.ReadImage(path) for path in images(grid, tmp_path))
    for file, transform in transforms_on(grid).items():
        write_transform(transform, tmp_path / file)
        if file == "field.nii.gz":
            theirs = sitk.DisplacementFieldTransform(sitk.ReadImage(str(tmp_path / file), sitk.sitkVectorFloat64))
        else:
            theirs = sitk.ReadTransform(str(tmp_path / file))
        resampled = sitk.Resample(moving, fixed, theirs, sitk.sitkLinear)
        if file == "affine_field.h5":  # past its grid a field of ITK moves nothing, ours goes on
            where = transform.transforms[0](grid_points(grid))  # type: ignore[attr-defined]
            continue_inside(transform, grid, where, sitk.GetArrayFromImage(resampled).T)
        else:
            assert_alike(transform.warp(MOVING_IMAGE, grid), sitk.GetArrayFromImage(resampled).T)
        points = some_points(grid)
        points = points[within(grid, sheared()(points)) & within(grid, points)]
        assert len(points) > 10
        moved = torch.tensor([theirs.TransformPoint(p) for p in (points * FLIP).tolist()], dtype=torch.float64)
        torch.testing.assert_close(transform.warp_points(points * FLIP, space="lps_mm"), moved, atol=1e-3, rtol=0)


def grid_points(grid: Grid) -> torch.Tensor:
    return grid.index_to_world(torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in grid.shape)))


def within(grid: Grid, points_mm: torch.Tensor) -> torch.Tensor:
    where = grid.world_to_index(points_mm)
    return ((where >= 0) & (where <= torch.tensor(grid.shape) - 1)).all(dim=1)


def continue_inside(transform: Transform, grid: Grid, where: torch.Tensor, theirs: np.ndarray) -> None:
    inside = within(grid, where).reshape(grid.shape).numpy()
    assert inside.mean() > 0.5
    ours = transform.warp(MOVING_IMAGE, grid).numpy()
    assert float(np.abs(ours - theirs)[inside].max()) < 1e-3 * SPREAD


@every_grid
def test_ants_resamples_alike(name: str, ants: Any, tmp_path: Path) -> None:
    grid = GRIDS[name]
    fixed, moving = (ants.image_read(path) for path in images(grid, tmp_path))
    for file, transform in transforms_on(grid).items():
        if file in ("affine.tfm", "affine_field.h5"):
            continue
        write_transform(transform, tmp_path / file)
        theirs = ants.apply_transforms(fixed, moving, [str(tmp_path / file)], interpolator="linear")
        assert_alike(transform.warp(MOVING_IMAGE, grid), theirs.numpy())


@every_grid
def test_ants_moves_points_alike(name: str, ants: Any, tmp_path: Path) -> None:
    import pandas  # comes with antspyx

    grid = GRIDS[name]
    points = some_points(grid) * FLIP
    for file, transform in (("affine.mat", sheared()), ("field.nii.gz", waves(grid))):
        write_transform(transform, tmp_path / file)
        table = pandas.DataFrame(points.numpy(), columns=["x", "y", "z"])
        found = ants.apply_transforms_to_points(3, table, [str(tmp_path / file)])
        moved = torch.from_numpy(found[["x", "y", "z"]].to_numpy(np.float64))
        torch.testing.assert_close(transform.warp_points(points, space="lps_mm"), moved, atol=1e-3, rtol=0)


@every_grid
def test_nitransforms_agrees(name: str, tmp_path: Path) -> None:
    pytest.importorskip("nitransforms")
    from nitransforms.linear import Affine as TheirAffine
    from nitransforms.nonlinear import DenseFieldTransform

    grid, affine, field = GRIDS[name], sheared(), waves(GRIDS[name])
    indices, points = voxel_points(grid)
    write_transform(field, tmp_path / "field.nii.gz")
    write_transform(field, tmp_path / "field.x5")
    for file, kind in (("field.nii.gz", "itk"), ("field.x5", "X5")):
        theirs = DenseFieldTransform.from_filename(tmp_path / file, fmt=kind)
        np.testing.assert_allclose(theirs.reference.affine, grid.affine, atol=1e-5)
        moved = np.asarray(theirs._field)[tuple(indices.T.numpy())]
        np.testing.assert_allclose(moved, field(points).numpy(), atol=1e-3)
    write_transform(affine, tmp_path / "affine.tfm")
    write_transform(affine, tmp_path / "affine.x5", fixed=grid)
    for file, kind in (("affine.tfm", "itk"), ("affine.x5", "X5")):
        found = TheirAffine.from_filename(tmp_path / file, fmt=kind)
        np.testing.assert_allclose(found.map(points.numpy()), affine(points).numpy(), atol=1e-3)


def test_parametric_transforms_of_itk(tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    centre = (CENTRE_MM * (-1, -1, 1)).tolist()
    angles, shift = (0.1, -0.2, 0.3), (3.0, -2.0, 5.0)
    made = {
        "Euler3D": sitk.Euler3DTransform(centre, *angles, shift),
        "Versor": sitk.VersorRigid3DTransform((0.1, 0.2, -0.1, 0.97), shift, centre),
        "Similarity": sitk.Similarity3DTransform(1.1, (0.1, 0.2, -0.1, 0.97), shift, centre),
        "Translation": sitk.TranslationTransform(3, shift),
        "Scale": sitk.ScaleTransform(3, (1.1, 0.9, 1.2)),
        "Affine": sitk.AffineTransform((turned(20, 10) * 1.1).ravel().tolist(), shift, centre),
        "Identity": sitk.Transform(3, sitk.sitkIdentity),
    }
    points = some_points(GRIDS["oblique"])
    for name, theirs in made.items():
        for ending in ("h5", "tfm"):
            sitk.WriteTransform(theirs, str(tmp_path / f"{name}.{ending}"))
            found = read_transform(tmp_path / f"{name}.{ending}")
            assert isinstance(found, Affine)
            moved = torch.tensor([theirs.TransformPoint(p) for p in (points * FLIP).tolist()], dtype=torch.float64)
            torch.testing.assert_close(found(points) * FLIP, moved, atol=1e-9, rtol=0)


@every_grid
def test_chains_and_splines_of_itk(name: str, tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    grid = GRIDS[name]
    fixed = sitk.ReadImage(images(grid, tmp_path)[0])
    spline = sitk.BSplineTransformInitializer(fixed, [3, 3, 3])
    rng = np.random.default_rng(0)
    spline.SetParameters(rng.normal(size=len(spline.GetParameters())).tolist())
    euler = sitk.Euler3DTransform((CENTRE_MM * (-1, -1, 1)).tolist(), 0.05, -0.04, 0.06, (0.5, 1.0, -0.7))
    vectors = sitk.TransformToDisplacementField(spline, sitk.sitkVectorFloat64, fixed.GetSize(), fixed.GetOrigin(),
                                                fixed.GetSpacing(), fixed.GetDirection())  # fmt: skip
    chain = sitk.CompositeTransform([euler, sitk.DisplacementFieldTransform(vectors)])  # the field acts first
    _, points = voxel_points(grid)
    for theirs, file, kind in ((spline, "spline.tfm", DisplacementField), (chain, "chain.h5", Composite)):
        sitk.WriteTransform(theirs, str(tmp_path / file))
        found = read_transform(tmp_path / file, fixed=grid)
        assert isinstance(found, kind)
        moved = torch.tensor([theirs.TransformPoint(p) for p in (points * FLIP).tolist()], dtype=torch.float64)
        inner = (points - moved * FLIP).norm(dim=1) > 0
        torch.testing.assert_close((found(points) * FLIP)[inner], moved[inner], atol=1e-6, rtol=0)
        assert int(inner.sum()) > 20
    with pytest.raises(ConfigError, match=r"fixed must be .* BSplineTransform of ITK, got None; pass fixed="):
        read_transform(tmp_path / "spline.tfm")
