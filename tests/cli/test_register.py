"""``convexadam register``: where it begins, what else it warps, and where results may lie."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import Grid, Image, preset, read_image, register, write_image
from convexadam.io import read_itk_field
from convexadam.linear import LinearAlignment

QUICK = ("discrete.spacing=3", "discrete.radius=2", "continuous.levels.0.iterations=3")
FAST = [word for setting in QUICK for word in ("--set", setting)]
CONFIG = preset().with_settings(*QUICK)


@pytest.fixture(scope="module")
def leaning(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The moving image with a header that turns it by 20 degrees about A and shifts it."""
    image = read_image(files / "moving.nii.gz")
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(0.349), 0, np.sin(0.349)], [0, 1, 0], [-np.sin(0.349), 0, np.cos(0.349)]]
    turn[:3, 3] = 10, -15, 5
    path = tmp_path_factory.mktemp("leaning") / "moving.nii.gz"
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
    assert ran.error.startswith("no linear alignment; moved up to")
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


def test_a_linear_alignment_cannot_begin_with_a_field(run: Any, files: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path / "out"]
    ran = run("register", *places, "--initial-transform", files / "truth.nii.gz", "--linear", "rigid", *FAST)
    assert ran.status == 1
    assert re.fullmatch(r"convexadam: --linear rigid cannot begin with [^\n]*; leave one of them out\n", ran.error)


def test_linear(run: Any, files: Path, leaning: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", leaning, "--output-dir", tmp_path]
    ran = run("register", *places, "--linear", "rigid", *FAST)
    number = r"([\d.]+)"
    said = re.match(
        rf"linear alignment: rigid, turns {number} degrees and moves the centre {number} mm, feature difference "
        rf"{number} -> {number}, fit to {number} mm; moved up to ",
        ran.error,
    )
    assert said, ran.error
    turned, moved, before, after, residual = map(float, said.groups())
    assert turned == pytest.approx(20, abs=3)  # the pair itself is bent, by up to 20 mm over 300
    assert moved > 5
    assert after < before
    found = report_of(tmp_path)
    assert found["config"]["linear"]["model"] == "rigid"
    assert found["linear"]["residual_mm"] == pytest.approx(residual, abs=0.006)


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
    gain = ["--set", 'linear={type="LinearAlignment", gain=0.2}' if start.linear is None else "linear.gain=0.2"]
    assert run("register", *places, *small, *gain, "--linear", "similarity").status == 0
    assert report_of(tmp_path)["config"]["linear"]["model"] == "similarity"
    assert report_of(tmp_path)["config"]["linear"]["gain"] == 0.2
    assert run("register", *places, *small, "--linear", "affine").status == 0
    assert report_of(tmp_path)["config"]["linear"]["gain"] == LinearAlignment().gain != 0.2


def test_labels_come_along(run: Any, files: Path, tmp_path: Path) -> None:
    places = [files / "fixed.nii.gz", files / "moving.nii.gz", "--output-dir", tmp_path]
    ran = run("register", *places, "--labels", files / "moving_labels.nii.gz", *FAST)
    assert ran.status == 0
    assert ran.error.rstrip().endswith("labels_moved.nii.gz")
    found, before = read_image(tmp_path / "labels_moved.nii.gz"), read_image(files / "moving_labels.nii.gz")
    transform = read_itk_field(tmp_path / "transform.nii.gz")
    assert torch.equal(found.data, transform.warp(before, mode="label").data)
    assert found.grid.same_as(read_image(files / "fixed.nii.gz").grid)
    assert {*found.data.unique().tolist()} <= {*before.data.unique().tolist()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--learn2reg", "out/moved.nii.gz"], "two results would be written to out/moved.nii.gz"),
        (["--learn2reg", "out/../out/transform.nii.gz"], "two results would be written"),
        (["--learn2reg", "out/labels_moved.nii.gz", "--labels", "FILES/moving_labels.nii.gz"], "two results"),
        (["--learn2reg", "out/labels_moved.nii.gz", "--fixed-mask", "out/labels_moved.nii.gz"], "is an input"),
        (["--initial-transform", "out/transform.nii.gz"], "out/transform.nii.gz is an input"),
        (["--fixed-mask", "out/moved.nii.gz"], "out/moved.nii.gz is an input"),
        (["--labels", "FILES/no.nii.gz"], "there is no file"),
        (["--initial-transform", "FILES/no.nii.gz"], "there is no file"),
        (["--initial-transform", "FILES/text.nii.gz"], "text.nii.gz"),
        (["--initial-transform", "FILES/truth.nii.gz", "--device", "cuda:99"], "'cuda:99' cannot be used"),
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
    assert run("register", *places, "--linear.gain", "0.2").status == 2
