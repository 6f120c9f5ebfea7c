"""``convexadam invert``, ``compose`` and ``convert``, and errors that speak of options."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from turned import FIXED_GRID, MATRIX, MOVING_GRID, field_of, inverse, transformed

from convexadam import ConfigError, DisplacementField, FileError, Grid, Image, write_image
from convexadam.geometry.matrices import decompose_matrix
from convexadam.io import read_itk_field, read_learn2reg, write_itk_field

POINTS = np.random.default_rng(0).uniform(-12, 12, (9, 3))
"""In mm, well within both grids, also after the transforms."""

SOLVED_MM = 5e-3
"""A thousandth of a voxel is where the inverse ends; and float32."""


def image_on(grid: Grid, path: Path) -> Path:
    write_image(Image(torch.zeros(1, *grid.shape), grid), path)
    return path


def mapped(path: Path, points: np.ndarray = POINTS) -> np.ndarray:
    return read_itk_field(path).warp_points(points, space="mm").numpy()


def test_invert(run: Any, turned: Path, tmp_path: Path) -> None:
    ran = run("invert", turned / "field.nii.gz", tmp_path / "inverse.nii.gz")
    said = re.fullmatch(r"the inverse is off by at most ([\d.e-]+) mm; wrote \S*inverse.nii.gz\n", ran.error)
    assert (ran.status, ran.out) == (0, "")
    assert said
    assert 0 < float(said[1]) < SOLVED_MM
    assert read_itk_field(tmp_path / "inverse.nii.gz").grid.is_close(FIXED_GRID)
    np.testing.assert_allclose(mapped(tmp_path / "inverse.nii.gz"), inverse(POINTS), atol=SOLVED_MM)


def test_invert_onto_the_moving_grid(run: Any, turned: Path, tmp_path: Path) -> None:
    moving = image_on(MOVING_GRID, tmp_path / "moving.nii.gz")
    assert run("invert", turned / "field.nii.gz", tmp_path / "inverse.nii", "--reference", moving).status == 0
    assert read_itk_field(tmp_path / "inverse.nii").grid.is_close(MOVING_GRID)
    np.testing.assert_allclose(mapped(tmp_path / "inverse.nii"), inverse(POINTS), atol=SOLVED_MM)


def test_a_fold_is_a_warning_of_one_line(run: Any, tmp_path: Path) -> None:
    grid = Grid((12, 10, 8))
    disp = torch.zeros(3, *grid.shape)
    disp[0] = -2.0 * torch.arange(12.0)[:, None, None]  # mirrors the first axis
    disp[0, :4] = 0
    write_itk_field(DisplacementField(disp, grid), tmp_path / "folded.nii.gz")
    ran = run("invert", tmp_path / "folded.nii.gz", tmp_path / "inverse.nii.gz")
    lines = ran.error.splitlines()
    assert (ran.status, len(lines)) == (0, 2)
    assert lines[0].startswith("convexadam: warning: the error of the inverse of the displacement field is up to")


def test_compose_follows_a_point(run: Any, turned: Path, tmp_path: Path) -> None:
    stretch = np.diag([1.1, 0.9, 1.0, 1.0])
    shift = np.eye(4)
    shift[:3, 3] = 2, 1, -3
    for name, matrix in (("stretch", stretch), ("shift", shift)):
        field = DisplacementField(torch.from_numpy(field_of(matrix)), FIXED_GRID)
        write_itk_field(field, tmp_path / f"{name}.nii.gz")
    parts = [turned / "field.nii.gz", tmp_path / "stretch.nii.gz", tmp_path / "shift.nii.gz"]
    assert run("compose", *parts, "--output", tmp_path / "chain.nii.gz") == (0, "", "")
    expected = transformed(transformed(transformed(POINTS), stretch), shift)
    other_way = transformed(transformed(transformed(POINTS, shift), stretch))
    assert np.abs(expected - other_way).max() > 0.5  # the order can be told
    np.testing.assert_allclose(mapped(tmp_path / "chain.nii.gz"), expected, atol=1e-3)
    reference = image_on(FIXED_GRID.with_spacing((4.0, 4.0, 4.0)), tmp_path / "coarse.nii.gz")
    assert (
        run("compose", *parts[:2], "--output", tmp_path / "coarse_chain.nii.gz", "--reference", reference).status == 0
    )
    assert read_itk_field(tmp_path / "coarse_chain.nii.gz").grid.is_close(FIXED_GRID.with_spacing((4.0, 4.0, 4.0)))
    np.testing.assert_allclose(
        mapped(tmp_path / "coarse_chain.nii.gz"), transformed(transformed(POINTS), stretch), atol=1e-3
    )


def test_convert_there_and_back(run: Any, turned: Path, tmp_path: Path) -> None:
    fixed = image_on(FIXED_GRID, tmp_path / "fixed.nii.gz")
    there = [turned / "field.nii.gz", tmp_path / "disp.nii.gz", "--to", "learn2reg"]
    assert run("convert", *there) == (0, "", "")
    voxels = read_learn2reg(tmp_path / "disp.nii.gz", FIXED_GRID).to_voxels().numpy()
    to_voxels = np.linalg.inv(FIXED_GRID.affine[:3, :3])
    expected = np.tensordot(to_voxels, field_of(MATRIX), axes=1)
    np.testing.assert_allclose(voxels, expected, atol=1e-4)
    back = [tmp_path / "disp.nii.gz", tmp_path / "back.nii.gz", "--from", "learn2reg", "--fixed", fixed]
    assert run("convert", *back) == (0, "", "")
    np.testing.assert_allclose(mapped(tmp_path / "back.nii.gz"), transformed(POINTS), atol=1e-3)


def test_convert_goes_by_the_name_and_brings_to_the_fixed_grid(run: Any, turned: Path, tmp_path: Path) -> None:
    coarse = FIXED_GRID.with_spacing((4.0, 4.0, 4.0))
    fixed = image_on(coarse, tmp_path / "coarse.nii.gz")
    assert run("convert", turned / "field.nii.gz", tmp_path / "disp.npz", "--fixed", fixed).status == 0
    found = read_learn2reg(tmp_path / "disp.npz", coarse)
    assert float(found.to_voxels().abs().max()) < 4
    allowed = 4.0 * np.sqrt(3) * 2**-10 + 1e-3  # rounded to half precision along three axes of 4 mm
    np.testing.assert_allclose(found.warp_points(POINTS, space="mm").numpy(), transformed(POINTS), atol=allowed)


@pytest.mark.parametrize(
    ("command", "raised", "said"),
    [
        ("convert", "no frame; pass format='fsl' with moving=", "no frame; pass --from fsl with --moving"),
        ("invert", "no place; pass fixed=", "no place; pass --fixed (options of `convexadam convert`)"),
        ("invert", "nothing to pass", "nothing to pass"),
    ],
)
def test_errors_of_reading_name_options(
    command: str, raised: str, said: str, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ConfigError(raised)

    monkeypatch.setattr("convexadam.cli.transform_files.read_transform", refuse)
    assert run(command, "a.nii.gz", tmp_path / "b.nii.gz") == (1, "", f"convexadam: {said}\n")


def test_errors_of_writing_name_options(
    run: Any, turned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise FileError("which kind? pass format=\nor fixed=")

    monkeypatch.setattr("convexadam.cli.transform_files.write_transform", refuse)
    places = [turned / "field.nii.gz", tmp_path / "out.h5"]
    assert run("convert", *places).error == "convexadam: which kind? pass --to or --fixed\n"
    assert run("invert", *places).error.endswith("or --reference\n")


FAILURES: dict[str, tuple[list[str], int]] = {
    "invert: no file": (["invert", "no.nii.gz", "OUT.nii.gz"], 1),
    "invert: an image": (["invert", "image.nii.gz", "OUT.nii.gz"], 1),
    "invert: onto a field": (["invert", "field.nii.gz", "OUT.nii.gz", "--reference", "field.nii.gz"], 1),
    "invert: no folder": (["invert", "field.nii.gz", "OUT/inverse.nii.gz"], 1),
    "compose: no file": (["compose", "field.nii.gz", "no.nii.gz", "--output", "OUT.nii.gz"], 1),
    "convert: text": (["convert", "text.nii.gz", "OUT.nii.gz"], 1),
    "convert: no grid": (["convert", "field.nii.gz", "OUT.nii.gz", "--from", "learn2reg"], 1),
    "convert: no folder": (["convert", "field.nii.gz", "OUT/field.npz"], 1),
    "info: no file": (["info", "no.nii.gz"], 1),
    "info: text": (["info", "text.nii.gz"], 1),
    "info: no grid": (["info", "field.nii.gz", "--from", "learn2reg"], 1),
    "compose: one alone": (["compose", "field.nii.gz", "--output", "OUT.nii.gz"], 2),
    "compose: no output": (["compose", "field.nii.gz", "field.nii.gz"], 2),
    "convert: no such format": (["convert", "field.nii.gz", "OUT.nii.gz", "--to", "elastix"], 2),
    "invert: no output": (["invert", "field.nii.gz"], 2),
    "info: nothing": (["info"], 2),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures(name: str, run: Any, turned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image_on(FIXED_GRID, turned / "image.nii.gz")
    (turned / "text.nii.gz").write_text("no image")
    monkeypatch.chdir(turned)
    arguments, status = FAILURES[name]
    ran = run(*(a.replace("OUT", str(tmp_path / "out")) for a in arguments))
    assert (ran.status, ran.out) == (status, "")
    assert "Traceback" not in ran.error
    if status == 1:
        assert re.fullmatch(r"convexadam: [^\n]+\n", ran.error)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("degrees", [0.0, 30.0, 90.0, 179.0, 180.0])
def test_a_matrix_in_numbers(degrees: float) -> None:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turn[:3, 3] = 1, 2, 3
    found = decompose_matrix(turn @ np.diag([1.5, 0.5, 1.0, 1.0]))
    assert found["rotation_degrees"] == pytest.approx(degrees, abs=1e-6)
    assert found["scales"] == pytest.approx([1.5, 1.0, 0.5])
    assert found["determinant"] == pytest.approx(0.75)
    assert found["translation_mm"] == [1, 2, 3]
    mirrored = decompose_matrix(turn @ np.diag([-1.0, -1.0, -1.0, 1.0]))
    assert mirrored["rotation_degrees"] == pytest.approx(degrees, abs=1e-6)
    assert mirrored["determinant"] == pytest.approx(-1)
