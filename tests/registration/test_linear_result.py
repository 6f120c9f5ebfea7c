"""Registrations that are linear alone: their matrix, diagnostics and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from convexadam import Affine, ConfigError, Grid, Image, RegistrationConfig, preset, register
from convexadam.data import phantom_pair
from convexadam.geometry.resample import resample
from convexadam.io import read_transform, write_transform
from convexadam.io.itk_text import format_affine, parse_affine

TRUTH = np.array([[0.998, -0.052, 0.0, 6.0], [0.052, 0.998, 0.0, -4.0], [0.0, 0.0, 1.0, 3.0], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def images() -> tuple[Image, Image]:
    pair = phantom_pair((48, 44, 40), displacement_mm=0.0)
    grid = pair.fixed.grid
    moved = Image(pair.fixed.data.float(), Grid(grid.shape, TRUTH @ grid.affine))
    return Image(pair.fixed.data.float(), grid), resample(moved, grid, mode="cubic")


@pytest.mark.parametrize("name", ["rigid", "similarity", "affine"])
def test_the_result_is_a_matrix(name: str, images: tuple[Image, Image]) -> None:
    result = register(*images, preset(name))
    assert isinstance(result.transform, Affine)
    assert result.linear is not None
    assert result.linear.accepted
    assert result.linear.model == name
    corner = np.array(images[0].grid.shape) * images[0].grid.spacing_mm
    difference = result.transform.matrix - TRUTH
    assert np.linalg.norm(difference[:3, :3] @ corner + difference[:3, 3]) < 0.3 * max(images[0].grid.spacing_mm)
    assert set(result.timings) == {"linear", "finish"}
    assert result.moved.grid == images[0].grid
    field = result.transform.to_displacement_field(images[0])
    lengths = field.disp_mm.double().norm(dim=0)
    found = result.diagnostics
    assert found["displacement_max_mm"] == pytest.approx(float(lengths.max()), rel=1e-4)
    assert found["displacement_mean_mm"] == pytest.approx(float(lengths.mean()), rel=1e-2)
    assert found["jacobian_min"] == pytest.approx(float(np.linalg.det(result.transform.matrix)))
    assert found["dissimilarity_after"] < found["dissimilarity_before"]
    assert 50 < found["overlap_percent"] < 100


def test_nothing_better_is_said(images: tuple[Image, Image]) -> None:
    with pytest.warns(UserWarning, match="the linear alignment found no transform better than the initial one"):
        result = register(images[0], images[0], preset("rigid"))
    assert isinstance(result.transform, Affine)
    assert result.transform.is_identity
    assert result.linear is not None
    assert not result.linear.accepted
    assert result.diagnostics["overlap_percent"] == 100


def test_symmetric_settings_give_the_inverse(images: tuple[Image, Image]) -> None:
    result = register(*images, preset("rigid").with_settings("symmetric = true"))
    assert isinstance(result.estimated_inverse, Affine)
    np.testing.assert_allclose(result.estimated_inverse.matrix @ result.transform.matrix, np.eye(4), atol=1e-12)


def test_landmarks_are_refused(images: tuple[Image, Image]) -> None:
    points = np.zeros((1, 3))
    with pytest.raises(ConfigError, match=r"config.landmarks must be a LandmarkTerm if landmarks are given, got None"):
        register(*images, preset("rigid"), fixed_landmarks=points, moving_landmarks=points)


def test_an_initial_field_is_the_result() -> None:
    image = Image(torch.rand(1, 8, 9, 10, generator=torch.Generator().manual_seed(0)), Grid((8, 9, 10)))
    start = Affine().to_displacement_field(image)
    result = register(image, image, preset("rigid"), initial_transform=start)
    assert result.linear is None
    assert not isinstance(result.transform, Affine)


def test_presets_survive_files() -> None:
    for name in ("rigid", "similarity", "affine"):
        config = preset(name)
        assert config.is_linear
        assert RegistrationConfig.from_toml(config.to_toml()) == config
    assert not preset("default").is_linear


@pytest.mark.parametrize("ending", ["tfm", "txt"])
def test_text_files_of_a_matrix_are_those_of_itk(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"matrix.{ending}"
    write_transform(Affine(TRUTH), path)
    assert path.stat().st_size < 500
    point = (10.0, -20.0, 30.0)
    expected = Affine(TRUTH).warp_points(np.array([point]), space="lps_mm")[0]
    np.testing.assert_allclose(sitk.ReadTransform(str(path)).TransformPoint(point), expected, rtol=1e-12)
    read = read_transform(path)
    assert isinstance(read, Affine)
    np.testing.assert_array_equal(read.matrix, TRUTH)


def test_text_of_itk_with_a_centre_is_read(tmp_path: Path) -> None:
    rotation = sitk.AffineTransform(3)
    rotation.SetCenter((5.0, 7.0, -9.0))
    rotation.SetMatrix(TRUTH[:3, :3].ravel().tolist())
    rotation.SetTranslation((1.0, 2.0, 3.0))
    path = tmp_path / "itk.tfm"
    sitk.WriteTransform(rotation, str(path))
    parsed = parse_affine(path.read_text())
    assert parsed is not None
    point = (11.0, 13.0, 17.0)
    found = parsed.warp_points(np.array([point]), space="lps_mm")[0]
    np.testing.assert_allclose(found, rotation.TransformPoint(point), rtol=1e-12)
    euler = tmp_path / "euler.tfm"
    sitk.WriteTransform(sitk.Euler3DTransform(), str(euler))
    assert parse_affine(euler.read_text()) is None
    assert parse_affine(format_affine(Affine()).replace("1.0", "1.0.0", 1)) is None
