"""``convexadam register``: initial transform, linear alignment, labels and output files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import Affine, Grid, Image, preset, read_image, register, write_image
from convexadam.io import read_itk_field, read_transform
from convexadam.linear import LinearAlignment
from convexadam.report import measure_quality, mirror_image

QUICK = ("discrete.spacing=3", "discrete.radius=2", "continuous.levels.0.iterations=3")
FAST = [word for setting in QUICK for word in ("--set", setting)]
CONFIG = preset().with_settings(*QUICK)


@pytest.fixture(scope="module")
def rotated(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The moving image with a header that rotates it by 20 degrees about A and translates it."""
    image = read_image(files / "moving.nii.gz")
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(0.349), 0, np.sin(0.349)], [0, 1, 0], [-np.sin(0.349), 0, np.cos(0.349)]]
    turn[:3, 3] = 10, -15, 5
    path = tmp_path_factory.mktemp("rotated") / "moving.nii.gz"
    write_image(Image(image.data, Grid(image.grid.shape, turn @ image.grid.affine)), path)
    return path


def report_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text(encoding="utf-8")))


def disp_of(folder: Path) -> torch.Tensor:
    return read_itk_field(folder / "transform.nii.gz").disp_mm


def test_an_initial_transform(run: Any, files: Path, tmp_path: Path) -> None:
    truth = files / "truth.nii.gz"
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path]
    ran = run("register", *places, "--initial-transform", truth, *FAST)
    assert ran.status == 0
    assert ran.error.startswith("no linear alignment; maximum displacement")
    result = register(*places[:2], CONFIG, initial_transform=read_itk_field(truth))
    assert torch.equal(disp_of(tmp_path), result.transform.disp_mm)
    assert not torch.equal(disp_of(tmp_path), register(*places[:2], CONFIG).transform.disp_mm)


def test_an_initial_transform_that_needs_the_fixed_grid(run: Any, files: Path, tmp_path: Path) -> None:
    assert run("convert", files / "truth.nii.gz", tmp_path / "truth.npz").status == 0
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path]
    options = ["--set", "discrete='none'", "--set", "continuous='none'", "--initial-transform", tmp_path / "truth.npz"]
    assert run("register", *places, *options).status == 0
    truth = read_itk_field(files / "truth.nii.gz").disp_mm
    # nothing else ran; half precision below 2 voxels of up to 17 mm, along three axes
    torch.testing.assert_close(disp_of(tmp_path), truth, atol=17 * 3**0.5 * 2**-11 + 1e-3, rtol=0)


def test_a_linear_alignment_needs_an_affine_initial_transform(run: Any, files: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path / "out"]
    ran = run("register", *places, "--initial-transform", files / "truth.nii.gz", "--linear", "rigid", *FAST)
    assert ran.status == 1
    assert re.fullmatch(
        r"convexadam: --initial-transform must be an affine transform for --linear rigid, got the deformable "
        r"\S*truth.nii.gz; omit one of them\n",
        ran.error,
    )


def test_linear(run: Any, files: Path, rotated: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", rotated, "--output-dir", tmp_path]
    ran = run("register", *places, "--linear", "rigid", *FAST)
    number = r"([\d.]+)"
    match = re.match(
        rf"linear alignment: rigid, rotation {number} degrees, translation of the centre {number} mm, dissimilarity "
        rf"{number} -> {number}; maximum displacement ",
        ran.error,
    )
    assert match, ran.error
    degrees, shift_mm, before, after = map(float, match.groups())
    assert degrees == pytest.approx(20, abs=3)  # the pair itself is deformed, by up to 20 mm over 300
    assert shift_mm > 5
    assert after < before
    found = report_of(tmp_path)
    assert found["config"]["linear"]["model"] == "rigid"


@pytest.mark.parametrize("preset_name", ["default", "published"])
def test_linear_and_the_settings(preset_name: str, run: Any, files: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path, "--preset", preset_name]
    small = ["--set", "discrete='none'", "--set", "continuous='none'"]
    start = preset(preset_name)
    ran = run("register", *places, *small)
    assert (report_of(tmp_path)["config"]["linear"]["type"] == "none") == (start.linear is None)
    assert ran.error.startswith("no linear alignment") == (start.linear is None)
    assert run("register", *places, *small, "--linear", "none").error.startswith("no linear alignment; ")
    assert report_of(tmp_path)["config"]["linear"] == {"type": "none"}
    whole, single = 'linear={type="LinearAlignment", min_improvement=0.2}', "linear.min_improvement=0.2"
    improvement = ["--set", whole if start.linear is None else single]
    assert run("register", *places, *small, *improvement, "--linear", "similarity").status == 0
    assert report_of(tmp_path)["config"]["linear"]["model"] == "similarity"
    assert report_of(tmp_path)["config"]["linear"]["min_improvement"] == 0.2
    assert run("register", *places, *small, "--linear", "affine").status == 0
    assert report_of(tmp_path)["config"]["linear"]["min_improvement"] == LinearAlignment().min_improvement != 0.2


def test_labels_are_warped(run: Any, files: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path]
    ran = run("register", *places, "--warp-labels", files / "moving_labels.nii.gz", *FAST)
    assert ran.status == 0
    assert ran.error.rstrip().endswith("moved_labels.nii.gz")
    found, before = read_image(tmp_path / "moved_labels.nii.gz"), read_image(files / "moving_labels.nii.gz")
    transform = read_itk_field(tmp_path / "transform.nii.gz")
    assert torch.equal(found.data, transform.warp(before, mode="label").data)
    assert found.grid.is_close(read_image(files / "fixed.nii.gz").grid)
    assert {*found.data.unique().tolist()} <= {*before.data.unique().tolist()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--learn2reg", "out/moved.nii.gz"], "cannot write two results to out/moved.nii.gz"),
        (["--learn2reg", "out/../out/transform.nii.gz"], "cannot write two results"),
        (
            ["--learn2reg", "out/moved_labels.nii.gz", "--warp-labels", "FILES/moving_labels.nii.gz"],
            "cannot write two results",
        ),
        (["--learn2reg", "out/moved_labels.nii.gz", "--fixed-mask", "out/moved_labels.nii.gz"], "it is an input"),
        (["--initial-transform", "out/transform.nii.gz"], "out/transform.nii.gz: it is an input"),
        (["--fixed-mask", "out/moved.nii.gz"], "out/moved.nii.gz: it is an input"),
        (["--warp-labels", "FILES/no.nii.gz"], "there is no file"),
        (["--initial-transform", "FILES/no.nii.gz"], "there is no file"),
        (["--initial-transform", "FILES/text.nii.gz"], "text.nii.gz"),
        (
            ["--initial-transform", "FILES/truth.nii.gz", "--device", "cuda:99"],
            "device must be one that torch can use here, got 'cuda:99'",
        ),
    ],
)
def test_results_are_checked_before_the_work(
    options: list[str],
    message: str,
    run: Any,
    files: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    started: list[Any] = []
    monkeypatch.setattr("convexadam.cli.registering.register", lambda *a, **k: started.append(a))
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", "out"]
    ran = run("register", *places, *(o.replace("FILES", str(files)) for o in options))
    assert (ran.status, ran.out, ran.error.count("\n")) == (1, "", 1)
    assert message in ran.error
    assert not started
    assert not list(tmp_path.iterdir())


def test_an_unknown_linear_model(run: Any, files: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path]
    assert run("register", *places, "--linear", "projective").status == 2
    assert run("register", *places, "--linear.min_improvement", "0.2").status == 2


def test_a_linear_preset_writes_a_matrix(run: Any, files: Path, rotated: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", rotated, "--output-dir", tmp_path]
    ran = run("register", *places, "--preset", "rigid", "--warp-labels", files / "moving_labels.nii.gz")
    assert ran.status == 0
    assert ran.error.startswith("linear alignment: rigid, rotation ")
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["moved.nii.gz", "moved_labels.nii.gz", "report.json", "transform.tfm"]
    matrix = report_of(tmp_path)["linear"]["transform"]
    found = read_transform(tmp_path / "transform.tfm")
    assert isinstance(found, Affine)
    np.testing.assert_array_equal(found.matrix, matrix)


def test_a_sheared_fixed_image_is_refused_before_the_work(run: Any, files: Path, tmp_path: Path) -> None:
    image = read_image(files / "fixed.nii.gz")
    shear = np.eye(4)
    shear[0, 1] = 0.2
    write_image(Image(image.data, Grid(image.grid.shape, image.grid.affine @ shear)), tmp_path / "sheared.nii.gz")
    ran = run("register", tmp_path / "sheared.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path / "out", *FAST)
    assert ran.status == 1
    assert "the fixed image must have orthogonal axes (right angles)" in ran.error
    assert not list((tmp_path / "out").glob("*"))


def test_the_mirror_image(run: Any, files: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path]
    ran = run("register", *places, "--check-mirror", *FAST)
    assert ran.status == 0
    fixed, moving = (read_image(path) for path in places[:2])
    result, mirrored = (register(fixed, image, CONFIG) for image in (moving, mirror_image(moving)))
    expected = measure_quality(result, fixed, moving, mirrored=mirrored)
    assert report_of(tmp_path)["quality"] == expected.to_dict()
    assert ran.error.startswith(f"gain of the mirror image {expected.mirror_gain:.3g}, ")
    assert expected.mirror_gain < 0
    ran = run("register", *places, "--check-mirror", "--fixed-landmarks", files / "fixed.nii.gz")
    assert (ran.status, "--check-mirror must be omitted with --fixed-landmarks" in ran.error) == (2, True)
