"""Where NIfTI files place their voxels, as ITK and nibabel have it; codes, units, packing and rounding."""

from __future__ import annotations

import gzip
import itertools
import json
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from convexadam import FileError, GeometryError, Grid, read_image, write_image
from convexadam.cli import main
from convexadam.errors import ConfigError
from convexadam.geometry import DisplacementField
from convexadam.io import as_image, use_header, write_itk_field

SHAPE = (9, 12, 7)
SPACING = (1.5, 2.0, 2.5)
FORMS = {"sform": (0.2, (10.0, 20, 30)), "qform": (-0.1, (-20.0, 5, 3))}


def turn(angle: float, origin: tuple[float, float, float], axis: int = 2) -> np.ndarray:
    one, other = [a for a in range(3) if a != axis]
    matrix = np.eye(4)
    matrix[one, one] = matrix[other, other] = np.cos(angle)
    matrix[one, other], matrix[other, one] = -np.sin(angle), np.sin(angle)
    matrix[:3, :3] *= SPACING
    matrix[:3, 3] = origin
    return matrix


SFORM, QFORM = (turn(*FORMS[name]) for name in ("sform", "qform"))


def save(path: Path, sform: np.ndarray, sform_code: int, qform: np.ndarray, qform_code: int, **fields: Any) -> Path:
    header: Any = nibabel.Nifti1Header()
    header.set_data_shape(SHAPE)
    header.set_zooms(SPACING)
    header.set_sform(sform, 1)
    header.set_qform(qform, 1)
    header["sform_code"], header["qform_code"] = sform_code, qform_code
    for name, value in fields.items():
        header[name] = value
    values = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(values, None, header), path)
    return path


def itk_affine(path: Path) -> np.ndarray:
    sitk: Any = pytest.importorskip("SimpleITK")
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.asarray(np.diag([-1.0, -1, 1, 1]) @ affine)


@pytest.mark.parametrize(("sform_code", "qform_code"), list(itertools.product(range(5), repeat=2)))
def test_the_default_is_where_itk_places_the_file(sform_code: int, qform_code: int, tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", SFORM, sform_code, QFORM, qform_code)
    twice = bool(sform_code) == bool(qform_code)
    said = pytest.warns(UserWarning, match="up to .* mm apart|does not say where")
    with said if twice else warnings.catch_warnings():
        found = read_image(path).grid
    np.testing.assert_allclose(found.affine, itk_affine(path), atol=1e-5)


def test_the_warning_names_the_distance_and_the_choice(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", SFORM, 2, QFORM, 1)
    corners = np.array([[i, j, k, 1] for i in (0, 8) for j in (0, 11) for k in (0, 6)]).T
    distance = np.linalg.norm(((SFORM - QFORM) @ corners)[:3], axis=0).max()
    said = rf"a\.nii places.*{distance:.3g} mm.*sform code 2, qform code 1.*the qform was"
    with pytest.warns(UserWarning, match=said):
        read_image(path)


@pytest.mark.parametrize("codes", [(2, 1), (1, 1), (0, 0), (4, 0), (0, 1)])
@pytest.mark.parametrize("form", ["sform", "qform"])
def test_the_choice_overrides(form: Any, codes: tuple[int, int], tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", SFORM, codes[0], QFORM, codes[1])
    with warnings.catch_warnings(), use_header(form):
        warnings.simplefilter("ignore")
        found = read_image(path).grid
    header: Any = nibabel.load(path).header
    np.testing.assert_allclose(found.affine, header.get_sform() if form == "sform" else header.get_qform(), atol=1e-6)


def test_the_choice_must_be_possible(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.zeros((4, 4)), 0, QFORM, 1)
    with use_header("sform"), pytest.raises(FileError, match="sform must be set"):
        read_image(path)
    with pytest.raises(ConfigError, match="form must be"), use_header("affine"):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("angle", [0.0, 1e-6])
def test_forms_that_agree_need_no_word(angle: float, tmp_path: Path) -> None:
    near = turn(FORMS["sform"][0] + angle, FORMS["sform"][1])
    path = save(tmp_path / "a.nii", SFORM, 2, near, 1)
    np.testing.assert_allclose(read_image(path).grid.affine, nibabel.load(path).affine, atol=1e-6)  # type: ignore[attr-defined]


@pytest.mark.parametrize("shear", [3e-4, 1e-3])
@pytest.mark.parametrize("codes", [(1, 1), (2, 1)])
def test_a_slight_shear_gives_way_to_a_good_qform(shear: float, codes: tuple[int, int], tmp_path: Path) -> None:
    sheared = SFORM.copy()
    sheared[:3, 0] += shear * SFORM[:3, 1]
    path = save(tmp_path / "a.nii", sheared, codes[0], SFORM, codes[1])
    image = read_image(path)
    np.testing.assert_allclose(image.grid.affine, itk_affine(path), atol=1e-5)
    write_itk_field(DisplacementField(torch.zeros(3, *SHAPE), image.grid), tmp_path / "field.nii.gz")


def test_a_quaternion_that_is_too_long_by_rounding(tmp_path: Path) -> None:
    angle = np.pi * 0.99
    axis = np.array([0.6, 0.0, 0.8]) * np.sin(angle / 2)
    axis *= np.sqrt((1 + 3e-6) / (axis @ axis))
    names = ("quatern_b", "quatern_c", "quatern_d")
    path = save(tmp_path / "a.nii.gz", SFORM, 0, SFORM, 1, **dict(zip(names, axis, strict=True)))
    np.testing.assert_allclose(read_image(path).grid.affine, itk_affine(path), atol=1e-4)


def test_a_damaged_quaternion_is_refused_where_it_is_needed(tmp_path: Path) -> None:
    long = {"quatern_b": 1.2}
    with pytest.raises(FileError, match="qform"):
        read_image(save(tmp_path / "a.nii", SFORM, 0, QFORM, 1, **long))
    found = read_image(save(tmp_path / "b.nii", SFORM, 1, QFORM, 1, **long))
    np.testing.assert_allclose(found.grid.affine, SFORM, atol=1e-5)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
def test_the_code_is_kept(code: int, tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.nii", SFORM, code, SFORM, 1))
    assert image.grid.space_code == code
    write_image(image, tmp_path / "b.nii.gz")
    header: Any = nibabel.load(tmp_path / "b.nii.gz").header
    assert int(header["sform_code"]) == int(header["qform_code"]) == code
    assert image.canonical().grid.space_code == image.grid.with_spacing((3.0, 3, 3)).space_code == code
    np.testing.assert_allclose(itk_affine(tmp_path / "b.nii.gz"), SFORM, atol=1e-5)
    with pytest.raises(GeometryError, match="space_code"):
        Grid(SHAPE, SFORM, 0)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
def test_a_name_that_contradicts_the_packing(name: str, tmp_path: Path) -> None:
    other = save(tmp_path / ("b.nii" if name.endswith(".gz") else "b.nii.gz"), SFORM, 1, SFORM, 1)
    (tmp_path / name).write_bytes(other.read_bytes())
    found, truth = read_image(tmp_path / name), read_image(other)
    assert torch.equal(found.data, truth.data)
    assert found.grid.is_close(truth.grid)


def test_headers_that_differ_by_rounding_are_on_one_grid() -> None:
    one = Grid((256, 256, 160), np.diag([0.7, 0.7, 1.0, 1]))
    shift = one.affine.copy()
    shift[:3, 3] += 2.5e-3 * 0.7
    assert not one.is_close(Grid(one.shape, shift))
    assert one.is_close(Grid(one.shape, shift), tolerance=0.02)


def test_scanner_units_and_numbers_that_cannot_be(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "a.nii", SFORM, 1, SFORM, 1, xyzt_units=3))
    np.testing.assert_allclose(image.grid.spacing_mm, np.array(SPACING) / 1000, rtol=1e-6)
    with pytest.raises(FileError, match="voxel sizes"):
        read_image(save(tmp_path / "b.nii", SFORM * 1e30, 1, SFORM, 0))


@pytest.mark.parametrize(("version", "packed"), [(1, True), (2, True), (1, False), (2, False)])
def test_a_claim_is_checked_before_memory_is_taken(version: int, packed: bool, tmp_path: Path) -> None:
    make: Any = nibabel.Nifti1Image if version == 1 else nibabel.Nifti2Image
    nibabel.save(make(np.zeros(SHAPE, np.uint8), np.eye(4)), tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    if version == 1:
        raw[40:48] = np.array([3, 30000, 30000, 30000], "<i2").tobytes()
    else:
        raw[16:48] = np.array([3, 30000, 30000, 30000], "<i8").tobytes()
    path = tmp_path / ("b.nii.gz" if packed else "b.nii")
    path.write_bytes(gzip.compress(bytes(raw)) if packed else bytes(raw))
    with pytest.raises(FileError, match="must claim at most"):
        read_image(path)


def test_a_gzip_bomb_is_left_unread(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4)), tmp_path / "a.nii")
    with gzip.open(tmp_path / "bomb.nii.gz", "wb") as file:
        file.write((tmp_path / "a.nii").read_bytes())
        for _ in range(64):
            file.write(bytes(2**20))
    with pytest.raises(FileError, match="got more"):
        read_image(tmp_path / "bomb.nii.gz")


def test_a_gzip_file_that_is_too_short(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", SFORM, 1, SFORM, 1)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(path.read_bytes()[:-40]))
    with pytest.raises(FileError, match="truncated"):
        read_image(tmp_path / "b.nii.gz")


def test_mgh_is_read_by_nibabel(tmp_path: Path) -> None:
    values = np.random.default_rng(2).integers(0, 99, SHAPE).astype(np.int32)
    made: Any = nibabel.MGHImage(values, QFORM)
    for name in ("a.mgz", "a.mgh", "renamed.bin"):
        nibabel.save(made, tmp_path / "a.mgz")
        nibabel.save(made, tmp_path / "a.mgh")
        if name == "renamed.bin":
            (tmp_path / name).write_bytes((tmp_path / "a.mgz").read_bytes())
        for found in (read_image(tmp_path / name), as_image(made)):
            np.testing.assert_array_equal(found.numpy(), values)
            np.testing.assert_allclose(found.grid.affine, QFORM, atol=1e-5)


def test_series_are_refused_with_what_to_do(tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    nibabel.save(nibabel.Nifti1Image(np.zeros((*SHAPE, 30), np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    nibabel.save(nibabel.MGHImage(np.zeros((*SHAPE, 30), np.float32), np.eye(4)), tmp_path / "a.mgz")
    sitk.WriteImage(sitk.Image([4, 5, 6, 3], sitk.sitkInt16), str(tmp_path / "a.nrrd"))
    for name in ("a.nii.gz", "a.mgz", "a.nrrd"):
        with pytest.raises(FileError, match="extract"):
            read_image(tmp_path / name)
    assert read_image(tmp_path / "a.mgz", channels=True).data.shape == (30, *SHAPE)


def test_the_transform_fits_the_files_in_itk(tmp_path: Path) -> None:
    """Both headers disagree; ITK resamples the moving file with our transform and gets the fixed image."""
    sitk: Any = pytest.importorskip("SimpleITK")
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in (24, 26, 22)), indexing="ij"), -1) @ SFORM[:3, :3].T
    scene = (np.sin(grid[..., 0] / 4) + np.cos(grid[..., 1] / 5) + np.sin(grid.sum(-1) / 9)).astype(np.float32)
    for name in ("fixed", "moving"):
        header: Any = nibabel.Nifti1Header()
        header.set_data_shape(scene.shape)
        shifted = QFORM.copy()
        shifted[:3, 3] += 3.0 * (name == "moving")
        header.set_qform(shifted, 1)
        header.set_sform(SFORM if name == "fixed" else SFORM @ np.diag([-1, 1, 1, 1]), 4)
        nibabel.save(nibabel.Nifti1Image(scene, None, header), tmp_path / f"{name}.nii.gz")
    files = [str(tmp_path / f"{name}.nii.gz") for name in ("fixed", "moving")]
    assert main(["register", *files, "--output-dir", str(tmp_path / "out"), "--quiet"]) == 0
    fixed, moving = (sitk.ReadImage(file) for file in files)
    field = sitk.ReadImage(str(tmp_path / "out/transform.nii.gz"), sitk.sitkVectorFloat64)
    moved = sitk.GetArrayFromImage(sitk.Resample(moving, fixed, sitk.DisplacementFieldTransform(field)))
    inner = (slice(3, -3),) * 3
    assert np.corrcoef(moved[inner].ravel(), sitk.GetArrayFromImage(fixed)[inner].ravel())[0, 1] > 0.98
    header = nibabel.load(tmp_path / "out/moved.nii.gz").header
    assert int(header["qform_code"]) == 1


def test_the_option_of_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save(tmp_path / "a.nii", SFORM, 2, QFORM, 1)
    for form, truth in (("sform", SFORM), ("qform", QFORM)):
        assert main(["info", str(path), "--json", "--header", form]) == 0
        found = np.array(json.loads(capsys.readouterr().out)["grid"]["affine"])
        np.testing.assert_allclose(found, truth, atol=1e-5)
