"""``convexadam info``: what a file is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from turned import ANGLE_DEGREES, FIXED_GRID, MATRIX, field_of

from convexadam import Affine, DisplacementField, Grid, Image, compose, read_transform, write_image, write_transform
from convexadam.io import write_itk_field, write_learn2reg

AFFINE = np.array([[0, -2.0, 0, 10], [3.0, 0, 0, -20], [0, 0, 4.0, 5], [0, 0, 0, 1]])


def facts(run: Any, *arguments: Any) -> dict[str, Any]:
    ran = run("info", *arguments, "--json")
    assert (ran.status, ran.error) == (0, "")
    return dict(json.loads(ran.out))


def test_an_image(run: Any, tmp_path: Path) -> None:
    data = torch.arange(60, dtype=torch.int16).reshape(1, 3, 4, 5) - 7
    write_image(Image(data, Grid((3, 4, 5), AFFINE)), tmp_path / "image.nii.gz")
    found = facts(run, tmp_path / "image.nii.gz")
    assert found == {
        "file": str(tmp_path / "image.nii.gz"),
        "kind": "image",
        "grid": {
            "shape": [3, 4, 5],
            "spacing_mm": [3, 2, 4],
            "orientation": "ALS",
            "affine": AFFINE.tolist(),
        },
        "channels": 1,
        "type": "int16",
        "minimum": -7,
        "maximum": 52,
        "not_finite": 0,
    }
    lines = run("info", tmp_path / "image.nii.gz").out.splitlines()
    assert lines[0].endswith("image.nii.gz: image")
    text = " ".join(" ".join(lines).split())
    for words in ("3 x 4 x 5 of 3 x 2 x 4 mm", "ALS", "0 -2 0 10 3 0 0 -20 0 0 4 5", "int16, 1 channel, -7 to 52"):
        assert words in text


def test_frames_and_numbers_that_are_none(run: Any, tmp_path: Path) -> None:
    values = np.ones((3, 4, 5, 6), np.float32)
    values[0, 0, 0, :2] = np.nan, np.inf
    make: Any = nibabel.Nifti1Image
    nibabel.save(make(values, AFFINE), tmp_path / "frames.nii")
    found = facts(run, tmp_path / "frames.nii")
    assert (found["channels"], found["minimum"], found["maximum"], found["not_finite"]) == (6, 1, 1, 2)
    assert "6 channels, 1 to 1, and 2 NaN or Inf" in run("info", tmp_path / "frames.nii").out
    nibabel.save(make(np.full((3, 4, 5), np.nan, np.float32), AFFINE), tmp_path / "nothing.nii")
    assert facts(run, tmp_path / "nothing.nii")["minimum"] is None
    assert run("info", tmp_path / "nothing.nii").status == 0


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("ending", ["mha", "nrrd"])
def test_images_of_other_kinds(ending: str, channels: int, run: Any, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    data = torch.arange(60.0 * channels).reshape(channels, 3, 4, 5)
    write_image(Image(data, Grid((3, 4, 5), AFFINE)), tmp_path / f"image.{ending}")
    (tmp_path / f"image.{ending}").rename(tmp_path / "image.txt")  # the name of a transform of ITK
    found = facts(run, tmp_path / "image.txt")
    assert (found["kind"], found["type"], found["channels"]) == ("image", "float32", channels)
    assert (found["minimum"], found["maximum"]) == (0, 60 * channels - 1)
    assert found["grid"]["shape"] == [3, 4, 5]
    assert found["grid"]["orientation"] == "ALS"


def test_a_pair_of_files(run: Any, tmp_path: Path) -> None:
    make: Any = nibabel.Nifti1Pair
    nibabel.save(make(np.ones((3, 4, 5), np.float32), AFFINE), tmp_path / "image.img")
    for name in ("image.img", "image.hdr"):
        assert facts(run, tmp_path / name)["grid"]["shape"] == [3, 4, 5]


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_an_image_that_may_be_a_field(channels: int, run: Any, tmp_path: Path) -> None:
    make: Any = nibabel.Nifti1Image
    nibabel.save(make(np.ones((3, 4, 5, channels), np.float32), AFFINE), tmp_path / "unclear.nii.gz")
    found = facts(run, tmp_path / "unclear.nii.gz")
    assert (found["kind"], found["channels"]) == ("image", channels)
    assert ("note" in found) == (channels == 3)
    text = run("info", tmp_path / "unclear.nii.gz").out
    for words in ("image of 3 channels", "FSL", "VoxelMorph", "--from learn2reg with --fixed", "--from fsl with --mov"):
        assert (words in text) == (channels == 3)
    if channels == 3:  # and what it says to do works
        write_image(Image(torch.zeros(1, 3, 4, 5), Grid((3, 4, 5), AFFINE)), tmp_path / "image.nii.gz")
        for kind, grid in (("learn2reg", "--fixed"), ("fsl", "--moving")):
            named = facts(run, tmp_path / "unclear.nii.gz", "--from", kind, grid, tmp_path / "image.nii.gz")
            assert (named["kind"], named["format"], named["type"]) == ("transform", kind, "displacement field")


FORMATS = [
    ("itk", "itk", "field.nii.gz"),
    ("nifti", "nifti", "field.nii.gz"),
    ("fsl", "fsl", "field.nii.gz"),
    ("learn2reg", "learn2reg", "field.npz"),
    ("learn2reg-2021", "learn2reg-2021", "field.npz"),
    ("torch", "torch", "field.pt"),
    ("itk", "itk", "field.h5"),
    ("x5", "x5", "field.x5"),
]


@pytest.mark.parametrize(("kind", "expected", "name"), FORMATS, ids=[f"{kind} {name}" for kind, _, name in FORMATS])
def test_formats_are_those_of_the_content(kind: Any, expected: str, name: str, run: Any, tmp_path: Path) -> None:
    for needed, package in ((".h5", "SimpleITK"), (".x5", "nitransforms")):
        if name.endswith(needed):
            pytest.importorskip(package)
    field = DisplacementField(torch.from_numpy(field_of(MATRIX)), FIXED_GRID)
    write_transform(field, tmp_path / name, format=kind, fixed=FIXED_GRID, moving=FIXED_GRID)
    if not name.endswith(".nii.gz"):
        (tmp_path / name).rename(tmp_path / "field.nii.gz")
    write_image(Image(torch.zeros(1, *FIXED_GRID.shape), FIXED_GRID), tmp_path / "image.nii.gz")
    grids = ("--fixed", tmp_path / "image.nii.gz", "--moving", tmp_path / "image.nii.gz")
    found = facts(run, tmp_path / "field.nii.gz", *grids)
    assert (found["kind"], found["format"], found["type"]) == ("transform", expected, "displacement field")
    named: Any = read_transform(tmp_path / "field.nii.gz", format=kind, fixed=FIXED_GRID, moving=FIXED_GRID)
    assert found["displacement_max_mm"] == pytest.approx(float(named.disp_mm.norm(dim=0).max()), rel=1e-5)


def test_what_is_neither(run: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing of the kind")
    np.savetxt(tmp_path / "matrix.txt", np.eye(4))
    make: Any = nibabel.Nifti1Image
    coefficients = make(np.ones((3, 4, 5, 3), np.float32), AFFINE)
    coefficients.header["intent_code"] = 2007
    nibabel.save(coefficients, tmp_path / "coefficients.nii.gz")
    for name, words in (
        ("notes.txt", "must be of a known format (itk, nifti"),
        ("matrix.txt", "pass --from fsl with --fixed and --moving"),
        ("coefficients.nii.gz", "fnirtfileutils"),
        ("missing.nii", "there is no file"),
    ):
        ran = run("info", tmp_path / name)
        assert (ran.status, ran.out, ran.error.count("\n")) == (1, "", 1)
        assert words in ran.error


def test_a_field(run: Any, turned: Path) -> None:
    found = facts(run, turned / "field.nii.gz")
    assert (found["kind"], found["format"], found["type"]) == ("transform", "itk", "displacement field")
    assert found["grid"]["shape"] == list(FIXED_GRID.shape)
    longest = np.linalg.norm(field_of(MATRIX), axis=0).max()
    assert found["displacement_max_mm"] == pytest.approx(longest, rel=1e-5)
    assert found["folded_percent"] == 0
    assert found["jacobian_min"] == pytest.approx(1, abs=1e-4)  # a rotation, in float32
    text = run("info", turned / "field.nii.gz").out
    for words in ("mm LPS", "from fixed to moving space", f"longest   {longest:.5g}", "0.0000 % of the voxels"):
        assert words in text


def test_folding(run: Any, tmp_path: Path) -> None:
    grid = Grid((12, 10, 8))
    disp = torch.zeros(3, *grid.shape)
    disp[0] = -3.0 * torch.arange(12.0)[:, None, None]
    write_itk_field(DisplacementField(disp, grid), tmp_path / "folded.nii.gz")
    found = facts(run, tmp_path / "folded.nii.gz")
    assert (found["folded_percent"], found["jacobian_min"]) == (100, -2)
    assert "100.0000 %" in run("info", tmp_path / "folded.nii.gz").out


def test_a_field_that_needs_a_grid(run: Any, tmp_path: Path) -> None:
    write_learn2reg(DisplacementField(torch.from_numpy(field_of(MATRIX)), FIXED_GRID), tmp_path / "disp.npz")
    ran = run("info", tmp_path / "disp.npz")
    assert ran.status == 1
    assert "--fixed" in ran.error
    write_image(Image(torch.zeros(1, *FIXED_GRID.shape), FIXED_GRID), tmp_path / "fixed.nii.gz")
    assert facts(run, tmp_path / "disp.npz", "--fixed", tmp_path / "fixed.nii.gz")["format"] == "learn2reg"


def test_chains_and_matrices(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    field = DisplacementField(torch.from_numpy(field_of(MATRIX)), FIXED_GRID)
    write_transform(compose(Affine(MATRIX), field), tmp_path / "chain.h5")
    found = facts(run, tmp_path / "chain.h5")
    assert (found["format"], found["type"]) == ("itk", "chain")
    first, second = found["parts"]
    assert first["type"] == "affine"
    assert first["rotation_degrees"] == pytest.approx(ANGLE_DEGREES)
    assert first["translation_mm"] == pytest.approx(MATRIX[:3, 3].tolist())
    assert second["type"] == "displacement field"
    text = " ".join(run("info", tmp_path / "chain.h5").out.split())
    numbers = ("rotation 8 degrees", "scales 1, 1, 1 (volumes 1)", "shift 3, -2, 4 mm")
    for words in ("part 1 of 2", "part 2 of 2", *numbers):
        assert words in text


def test_a_field_of_unknown_frame(run: Any, turned: Path, tmp_path: Path) -> None:
    opened: Any = nibabel.load(turned / "field.nii.gz")
    opened.header["intent_code"] = 0
    nibabel.save(opened, tmp_path / "unknown.nii.gz")
    ran = run("info", tmp_path / "unknown.nii.gz")
    assert (ran.status, ran.out, ran.error.count("\n")) == (1, "", 1)
    assert "intent 0" in ran.error
