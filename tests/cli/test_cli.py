"""The command line: files in, files out, one line for each error."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

import convexadam
from convexadam import (
    Concat,
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    Intensity,
    MindSSC,
    NativeGrid,
    Refinement,
    RegistrationConfig,
    preset,
    read_image,
    register,
    write_image,
)
from convexadam.continuous import Level
from convexadam.io import read_itk_field, read_learn2reg, write_itk_field
from convexadam.metrics import evaluate_transform

SHAPE = (24, 20, 16)
FAST = ["--discrete.spacing", "3", "--discrete.radius", "2", "--continuous.levels.0.iterations", "3"]
FAST_CONFIG = preset().with_settings("discrete.spacing=3", "discrete.radius=2", "continuous.levels.0.iterations=3")


def pair_of(files: Path) -> list[Path]:
    return [files / "fixed.nii.gz", files / "moving.nii.gz"]


def field_of(folder: Path) -> torch.Tensor:
    return read_itk_field(folder / "transform.nii.gz").disp_mm


def registered(files: Path, config: RegistrationConfig, **options: Any) -> torch.Tensor:
    return register(*pair_of(files), config, **options).transform.disp_mm


def report_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "report.json").read_text(encoding="utf-8")))


def test_register(run: Any, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    ran = run("register", *pair_of(files), "--output-dir", out, *FAST)
    assert ran.status == 0
    assert ran.out == ""
    assert re.fullmatch(
        r"linear alignment: identity kept \(nothing better found\); maximum displacement [\d.]+ mm, "
        r"[\d.]+ % folded voxels, [\d.]+ s; wrote [^\n]*report.json\n",
        ran.error,
    )
    assert sorted(p.name for p in out.iterdir()) == ["moved.nii.gz", "report.json", "transform.nii.gz"]
    result = register(*pair_of(files), FAST_CONFIG)
    assert torch.equal(field_of(out), result.transform.disp_mm)
    moved = read_image(out / "moved.nii.gz")
    assert moved.grid.is_close(result.fixed.grid)
    assert torch.equal(moved.data, result.moved.data)
    assert report_of(out)["config"] == result.summary()["config"]
    assert report_of(out)["diagnostics"] == result.diagnostics


def test_the_transform_is_one_of_itk(run: Any, files: Path, tmp_path: Path) -> None:
    assert run("register", *pair_of(files), "--output-dir", tmp_path, *FAST).status == 0
    found: Any = nibabel.load(tmp_path / "transform.nii.gz")
    assert found.shape == (*SHAPE, 1, 3)
    assert int(found.header["intent_code"]) == 1007
    assert found.get_data_dtype() == np.float32
    np.testing.assert_allclose(found.affine, read_image(files / "fixed.nii.gz").grid.affine, atol=1e-4)
    lps = np.moveaxis(np.asarray(found.dataobj)[:, :, :, 0], -1, 0)
    np.testing.assert_allclose(lps, field_of(tmp_path).numpy() * np.reshape([-1, -1, 1], (3, 1, 1, 1)))


@pytest.mark.parametrize("name", ["field.nii.gz", "field.npz"])
def test_learn2reg(name: str, run: Any, files: Path, tmp_path: Path) -> None:
    ran = run("register", *pair_of(files), "--output-dir", tmp_path, "--learn2reg", tmp_path / name, *FAST)
    assert ran.status == 0
    assert ran.error.rstrip().endswith(name)
    found = read_learn2reg(tmp_path / name, read_image(files / "fixed.nii.gz").grid)
    expected = read_itk_field(tmp_path / "transform.nii.gz").to_voxels()
    tolerance = 0.01 if name.endswith("npz") else 1e-5  # half precision below 16 voxels
    assert float(expected.abs().max()) < 16
    torch.testing.assert_close(found.to_voxels().float(), expected, atol=tolerance, rtol=0)


def test_quiet(run: Any, files: Path, tmp_path: Path) -> None:
    ran = run("register", *pair_of(files), "--output-dir", tmp_path, "--quiet", *FAST)
    assert ran == (0, "", "")
    assert (tmp_path / "transform.nii.gz").is_file()


def test_preset(run: Any, files: Path, tmp_path: Path) -> None:
    assert run("register", *pair_of(files), "--output-dir", tmp_path, "--preset", "published", *FAST).status == 0
    settings = ("discrete.spacing=3", "discrete.radius=2", "continuous.levels.0.iterations=3")
    config = preset("published").with_settings(*settings)
    assert report_of(tmp_path)["config"]["grid"] == {"type": "NativeGrid"}
    assert torch.equal(field_of(tmp_path), registered(files, config))
    assert not torch.equal(field_of(tmp_path), registered(files, FAST_CONFIG))


@pytest.mark.parametrize(
    "config",
    [
        RegistrationConfig(grid=NativeGrid(), linear=None, features=MindSSC(radius=2), discrete=None, continuous=None),
        RegistrationConfig(
            features=Concat(parts=(MindSSC(), Intensity()), weights=(1.0, 0.5)),
            discrete=ConvexSearch(spacing=(3, 4, 2), radius=(1, 2, 2)),
            continuous=Refinement(levels=(Level(iterations=2),), update_smoothing=None),
        ),
    ],
    ids=["no stages", "nested"],
)
def test_config(config: RegistrationConfig, run: Any, files: Path, tmp_path: Path) -> None:
    config.save(tmp_path / "settings.toml")
    ran = run("register", *pair_of(files), "--output-dir", tmp_path, "--config", tmp_path / "settings.toml")
    assert ran.status == 0
    assert torch.equal(field_of(tmp_path), registered(files, config))
    assert report_of(tmp_path)["config"] == register(*pair_of(files), config).summary()["config"]


@pytest.mark.parametrize("joined", [False, True])
def test_a_preset_and_a_config(joined: bool, run: Any, files: Path, tmp_path: Path) -> None:
    preset().save(tmp_path / "settings.toml")
    options = [("--config", tmp_path / "settings.toml"), ("--preset", "published")]
    arguments = [f"{k}={v}" for k, v in options] if joined else [word for option in options for word in option]
    ran = run("register", *pair_of(files), "--output-dir", tmp_path / "out", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert re.fullmatch(
        r"convexadam: settings must come from --preset or --config, got --preset published and --config \S*; "
        r"omit one of them\n",
        ran.error,
    )
    assert not (tmp_path / "out").exists()


def test_set(run: Any, files: Path, tmp_path: Path) -> None:
    settings = [
        'features={type="Intensity"}',
        "discrete.spacing=[3, 3, 4]",
        "discrete.radius=2",
        'continuous="none"',
        'grid={type="NativeGrid"}',
    ]
    arguments = [word for setting in settings for word in ("--set", setting)]
    assert (
        run(
            "register", *pair_of(files), "--output-dir", tmp_path, *arguments, "--features.quantiles", "0.0", "0.9"
        ).status
        == 0
    )
    config = RegistrationConfig(
        grid=NativeGrid(),
        features=Intensity(quantiles=(0.0, 0.9)),
        discrete=ConvexSearch(spacing=(3, 3, 4), radius=2),
        continuous=None,
    )
    assert torch.equal(field_of(tmp_path), registered(files, config))


def test_options_of_components(run: Any, files: Path, tmp_path: Path) -> None:
    arguments = ["--discrete.spacing", "3", "4", "3", "--discrete.radius", "2", "--discrete.no-parabolic_fit"]
    arguments += ["--continuous.levels.0.iterations", "2", "--continuous.regularisers.0.weight", "0.5"]
    arguments += ["--grid.spacing-mm", "16.0"]
    arguments += ["--features.dilation", "1"]
    assert run("register", *pair_of(files), "--output-dir", tmp_path, *arguments).status == 0
    config = report_of(tmp_path)["config"]
    assert config["discrete"]["spacing"] == [3, 4, 3]
    assert config["discrete"]["parabolic_fit"] is False
    assert config["continuous"]["levels"][0]["iterations"] == 2
    assert config["continuous"]["regularisers"][0]["weight"] == 0.5
    assert config["grid"]["spacing_mm"] == 16.0
    assert config["features"]["dilation"] == 1
    default = preset()
    assert default.discrete is not None
    assert config["discrete"]["coupling_weights"] == list(default.discrete.coupling_weights)


def test_masks(run: Any, files: Path, tmp_path: Path) -> None:
    mask = files / "mask.nii.gz"
    unmasked = registered(files, FAST_CONFIG)
    for name, options in (
        ("fixed", {"fixed_mask": mask}),
        ("moving", {"moving_mask": mask}),
    ):
        arguments = [word for k, v in options.items() for word in (f"--{k.replace('_', '-')}", v)]
        assert run("register", *pair_of(files), "--output-dir", tmp_path / name, *arguments, *FAST).status == 0
        found = field_of(tmp_path / name)
        assert torch.equal(found, registered(files, FAST_CONFIG, **options))
        assert not torch.equal(found, unmasked)


def test_warp_an_image(run: Any, files: Path, tmp_path: Path) -> None:
    ran = run("warp", files / "truth.nii.gz", files / "moving.nii.gz", tmp_path / "moved.nii.gz")
    assert ran == (0, "", "")
    truth, moving = read_itk_field(files / "truth.nii.gz"), read_image(files / "moving.nii.gz")
    moved = read_image(tmp_path / "moved.nii.gz")
    assert torch.equal(moved.data, truth.warp(moving).data)
    assert moved.data.dtype == torch.float32
    fixed = read_image(files / "fixed.nii.gz")
    assert moved.grid.is_close(fixed.grid)
    apart = [(image.data - fixed.data).abs().mean() for image in (moved, moving)]
    assert float(apart[0]) < float(apart[1])


def test_warp_labels(run: Any, files: Path, tmp_path: Path) -> None:
    assert run("warp", files / "truth.nii.gz", files / "moving_labels.nii.gz", tmp_path / "labels.nii").status == 0
    found, before = read_image(tmp_path / "labels.nii"), read_image(files / "moving_labels.nii.gz")
    assert found.data.dtype == before.data.dtype == torch.int32
    assert {*found.data.unique().tolist()} <= {*before.data.unique().tolist()}
    assert len(found.data.unique()) > 5
    target = read_image(files / "fixed_labels.nii.gz").data
    assert int((found.data != target).sum()) < int((before.data != target).sum())


@pytest.mark.parametrize("mode", ["linear", "nearest", "label"])
def test_warp_modes_and_background(mode: str, run: Any, files: Path, tmp_path: Path) -> None:
    grid = read_image(files / "fixed.nii.gz").grid
    shift = torch.zeros(3, *SHAPE)
    shift[0] = 2.5
    write_itk_field(DisplacementField.from_voxels(shift, grid), tmp_path / "shift.nii.gz")
    arguments = [tmp_path / "shift.nii.gz", files / "moving.nii.gz", tmp_path / "moved.nii.gz"]
    assert run("warp", *arguments, "--mode", mode, "--fill-value", "-5").status == 0
    moved, moving = (read_image(path).data[0] for path in (arguments[2], arguments[1]))
    assert bool((moved[-2:] == -5).all())
    if mode == "linear":
        torch.testing.assert_close(moved[:-3], (moving[2:-1] + moving[3:]) / 2, atol=0.05, rtol=0)
    else:
        assert {*moved[:-3].flatten().tolist()} <= {*moving.flatten().tolist()}


def test_evaluate(run: Any, files: Path) -> None:
    ran = run(
        "evaluate", files / "truth.nii.gz", "--no-surface",
        "--fixed-labels", files / "fixed_labels.nii.gz", "--moving-labels", files / "moving_labels.nii.gz",
        "--fixed-landmarks", files / "fixed.csv", "--moving-landmarks", files / "moving.csv",
    )  # fmt: skip
    assert (ran.status, ran.error) == (0, "")
    found = json.loads(ran.out)
    assert found["tre_mm"] < found["tre_before_mm"] / 5
    assert found["dice"] > found["dice_before"]
    assert found["folded_percent"] == 0
    assert found["n_labels"] == len(found["dice_per_label"]) > 5
    assert not [key for key in found if key.startswith("hd95")]
    expected = evaluate_transform(
        read_itk_field(files / "truth.nii.gz"),
        fixed_labels=read_image(files / "fixed_labels.nii.gz"),
        moving_labels=read_image(files / "moving_labels.nii.gz"),
        surface=False,
    )
    assert found["dice"] == expected["dice"]


def test_evaluate_options(run: Any, files: Path, tmp_path: Path) -> None:
    labels = ["--fixed-labels", files / "fixed_labels.nii.gz", "--moving-labels", files / "moving_labels.nii.gz"]
    options = ["--labels", "1", "3", "--mask", files / "mask.nii.gz"]
    found = json.loads(run("evaluate", files / "truth.nii.gz", *labels, *options).out)
    assert set(found["dice_per_label"]) == {"1", "3"}
    assert "sdlogj_mask" in found
    assert found["hd95_mm"] > 0
    bare = json.loads(run("evaluate", files / "truth.nii.gz").out)
    assert "dice" not in bare
    assert bare["displacement_max_mm"] > 10
    # the grid of the moving image decides where its landmarks are
    fixed = read_image(files / "fixed.nii.gz")
    elsewhere = Grid(SHAPE, np.diag([2.0, 1, 1, 1]) @ fixed.grid.affine)
    write_image(Image(fixed.data, elsewhere), tmp_path / "moving.nii.gz")
    points = ["--fixed-landmarks", files / "fixed.csv", "--moving-landmarks", files / "moving.csv"]
    given = json.loads(run("evaluate", files / "truth.nii.gz", *points, "--moving", tmp_path / "moving.nii.gz").out)
    assert given["tre_mm"] > 5 * json.loads(run("evaluate", files / "truth.nii.gz", *points).out)["tre_mm"]


def test_a_lost_label_leaves_json(run: Any, tmp_path: Path) -> None:
    grid = Grid((8, 8, 8))
    shift = torch.zeros(3, 8, 8, 8)
    shift[0] = 2
    write_itk_field(DisplacementField.from_voxels(shift, grid), tmp_path / "shift.nii.gz")
    labels = torch.zeros(2, 8, 8, 8, dtype=torch.uint8)
    labels[:, 4:, 4:, 4:] = 2
    labels[0, 1, 1, 1] = labels[1, 0, 0, 0] = 1
    for name, data in zip(("a", "b"), labels, strict=True):
        write_image(Image(data[None], grid), tmp_path / f"{name}.nii.gz")
    options = ["--fixed-labels", tmp_path / "a.nii.gz", "--moving-labels", tmp_path / "b.nii.gz"]
    ran = run("evaluate", tmp_path / "shift.nii.gz", *options)
    assert ran.status == 0

    def refuse(name: str) -> None:
        raise ValueError(name)

    found = json.loads(ran.out, parse_constant=refuse)
    assert found["dice_per_label"]["1"] == 0


WORK = ["register", "fixed.nii.gz", "moving.nii.gz", "--output-dir", "OUT", *FAST]
FAILURES: dict[str, tuple[list[str], str]] = {
    "a missing file": (["register", "no.nii.gz", "moving.nii.gz", "--output-dir", "OUT"], "there is no file no.nii.gz"),
    "a file cut short": (
        ["register", "fixed.nii.gz", "cut.nii.gz", "--output-dir", "OUT"],
        "cannot read a NIfTI image from cut.nii.gz",
    ),
    "no image": (["register", "text.nii.gz", "moving.nii.gz", "--output-dir", "OUT"], "image from text.nii.gz"),
    "a folder": (["register", ".", "moving.nii.gz", "--output-dir", "OUT"], "got . with none"),
    "an empty mask": (
        [*WORK, "--fixed-mask", "empty_mask.nii.gz"],
        "fixed_mask must have a value above 0, got an empty mask",
    ),
    "a missing mask": ([*WORK, "--moving-mask", "no.nii.gz"], "there is no file no.nii.gz"),
    "an unknown preset": ([*WORK, "--preset", "publishd"], "did you mean 'published'?"),
    "a missing config": ([*WORK, "--config", "no.toml"], "there is no file no.toml"),
    "no setting": ([*WORK, "--set", "spacing"], "a setting must be KEY=VALUE in TOML, got 'spacing'"),
    "an unknown setting": ([*WORK, "--set", "discrete.sapcing=3"], "did you mean 'spacing'?"),
    "no field": (["warp", "fixed.nii.gz", "moving.nii.gz", "OUT.nii.gz"], "fixed.nii.gz"),
    "a wrong ending": (["warp", "truth.nii.gz", "moving.nii.gz", "OUT.png"], "must end in .nii or .nii.gz"),
    "no folder": (["warp", "truth.nii.gz", "moving.nii.gz", "OUT/moved.nii.gz"], "is not a folder; create it first"),
    "half of the labels": (
        ["evaluate", "truth.nii.gz", "--fixed-labels", "fixed_labels.nii.gz"],
        "moving_labels must be given together with fixed_labels",
    ),
    "half of the landmarks": (
        ["evaluate", "truth.nii.gz", "--fixed-landmarks", "fixed.csv"],
        "moving_landmarks_mm must be given together with fixed_landmarks_mm",
    ),
    "no landmarks": (
        ["evaluate", "truth.nii.gz", "--fixed-landmarks", "text.nii.gz", "--moving-landmarks", "fixed.csv"],
        "at least one landmark, got none",
    ),
    "no label map": (
        ["evaluate", "truth.nii.gz", "--fixed-labels", "fixed.nii.gz", "--moving-labels", "moving.nii.gz"],
        "fixed_labels must contain whole numbers",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures_are_one_line(
    name: str, run: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files)
    arguments, message = FAILURES[name]
    ran = run(*(a.replace("OUT", str(tmp_path / "out")) for a in arguments))
    assert ran.status == 1
    assert ran.out == ""
    assert ran.error.startswith("convexadam: ")
    assert message in ran.error
    assert ran.error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(run: Any, files: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "results"):
        ran = run("register", *pair_of(files), "--output-dir", folder, "--quiet", *FAST)
        assert ran.status == 1
        assert re.fullmatch(r"convexadam: --output-dir must be a folder, got .*; choose another\n", ran.error)
    assert (tmp_path / "file").read_bytes() == b""


def test_files_that_cannot_be_written(run: Any, files: Path, tmp_path: Path) -> None:
    (tmp_path / "moved.nii.gz").mkdir()  # in the way of the file
    ran = run("register", *pair_of(files), "--output-dir", tmp_path, "--quiet", *FAST)
    assert ran.status == 1
    assert re.fullmatch(r"convexadam: cannot write \S*moved.nii.gz: it is a folder; [^\n]*\n", ran.error)
    ran = run("warp", files / "truth.nii.gz", files / "moving.nii.gz", tmp_path / "moved.nii.gz")
    assert ran.status == 1
    assert "got a folder" in ran.error
    assert [p.name for p in tmp_path.iterdir()] == ["moved.nii.gz"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is forbidden to this user")
def test_a_folder_without_permission(run: Any, files: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    ran = run("warp", files / "truth.nii.gz", files / "moving.nii.gz", tmp_path / "moved.nii.gz")
    tmp_path.chmod(0o700)
    assert ran.status == 1
    assert "check permissions" in ran.error


@pytest.mark.parametrize(
    "options",
    [
        ["--output-dir", "file"],
        ["--output-dir", "out", "--learn2reg", "field.txt"],
        ["--output-dir", "out", "--learn2reg", "missing/field.npz"],
        ["--output-dir", "out", "--learn2reg", "out/missing/field.npz"],
        ["--output-dir", "out", "--learn2reg", "file/field.npz"],
        ["--output-dir", "out", "--learn2reg", "folder.npz"],
    ],
    ids=" ".join,
)
def test_places_for_results_are_checked_first(
    options: list[str], run: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "folder.npz").mkdir()
    started = []
    monkeypatch.setattr("convexadam.cli.registering.register", lambda *a, **k: started.append(a) or register(*a, **k))
    assert run("register", *pair_of(files), *options, *FAST).status == 1
    assert not started
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.npz"]


@pytest.mark.parametrize("place", ["new/out/field.npz", "new/field.npz", "new/out/../out/field.npz"])
def test_the_field_for_learn2reg_may_lie_in_folders_that_are_made(
    place: str, run: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = run("register", *pair_of(files), "--output-dir", "new/out", "--learn2reg", place, "--quiet", *FAST)
    assert (ran.status, ran.error) == (0, "")
    assert (tmp_path / place).is_file()


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_an_unusable_device(device: str, run: Any, files: Path, tmp_path: Path) -> None:
    ran = run("register", *pair_of(files), "--output-dir", tmp_path, "--device", device, *FAST)
    if ran.status != 1 or ran.error.count("\n") != 1:
        pytest.fail(f"{ran}")


@pytest.mark.parametrize("setting", ['features={type="NativeGrid"}', 'features={type="Concat"}', "discrete={type=[1]}"])
def test_settings_that_make_no_sense(setting: str, run: Any, files: Path, tmp_path: Path) -> None:
    ran = run("register", *pair_of(files), "--output-dir", tmp_path, "--set", setting)
    assert ran.status == 1
    assert ran.error.count("\n") == 1


WRONG_USE: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "Expected one of {register, warp,"),
    "an unknown command": (["align"], "align"),
    "no moving image": (["register", "fixed.nii.gz", "--output-dir", "OUT"], "MOVING"),
    "no place for the results": (["register", "fixed.nii.gz", "moving.nii.gz"], "--output-dir"),
    "an unknown option": ([*WORK, "--continuous.levels.0.iteration", "3"], "--continuous.levels.0.iteration"),
    "no number": ([*WORK, "--continuous.levels.0.iterations", "many"], "--continuous.levels.0.iterations"),
    "a number out of range": ([*WORK, "--discrete.spacing", "0"], "each at least 1, got 0"),
    "an option of an absent component": ([*WORK, "--set", 'continuous="none"'], "--continuous.levels.0.iterations"),
    "an unknown mode": (["warp", "truth.nii.gz", "moving.nii.gz", "OUT", "--mode", "sinc"], "sinc"),
    "no value": (["register", "fixed.nii.gz", "moving.nii.gz", "--output-dir", "OUT", "--set"], "--set"),
}


@pytest.mark.parametrize("name", WRONG_USE)
def test_wrong_use(name: str, run: Any, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    arguments, message = WRONG_USE[name]
    ran = run(*(a.replace("OUT", str(tmp_path / "out")) for a in arguments))
    assert ran.status == 2
    assert ran.out == ""
    assert message in " ".join(ran.error.split())
    assert "Traceback" not in ran.error
    assert not list(tmp_path.iterdir())


def test_a_number_out_of_range_names_its_option(run: Any, files: Path, tmp_path: Path) -> None:
    ran = run("register", *pair_of(files), "--output-dir", tmp_path, "--discrete.spacing", "0")
    assert "Error parsing discrete: spacing must be" in ran.error


def test_version(run: Any) -> None:
    assert run("--version") == (0, f"convexadam {convexadam.__version__}\n", "")


def environment() -> dict[str, str]:
    source = str(Path(convexadam.__file__).resolve().parents[1])
    return os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}


@pytest.mark.long
def test_demo(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "convexadam", "demo", "--output-dir", str(tmp_path / "demo")]
    ran = subprocess.run(
        command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert list(found) == [
        "dice_before", "dice", "tre_before_mm", "tre_mm", "folded_percent", "seconds",
    ]  # fmt: skip
    assert all(math.isfinite(value) for value in found.values())
    assert found["dice"] > found["dice_before"]
    assert found["tre_mm"] < found["tre_before_mm"] / 2
    assert found["folded_percent"] < 0.1
    assert found["seconds"] > 0
    assert "TRE (mm)" in ran.stderr
    assert "Traceback" not in ran.stderr
    names = {p.name for p in (tmp_path / "demo").iterdir()}
    assert names >= {"fixed.nii.gz", "moving.nii.gz", "moved.nii.gz", "transform.nii.gz", "report.json"}
    inputs = {"fixed_labels.nii.gz", "moving_labels.nii.gz", "fixed.csv", "moving.csv"}
    assert inputs <= names
    assert len(names - {"figure.png"} - inputs) == 5
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


@pytest.mark.long
def test_the_exit_status_reaches_the_shell(tmp_path: Path) -> None:
    for arguments, status in ((["--version"], 0), (["warp", "a.nii", "b.nii", "c.nii"], 1), (["warp"], 2)):
        command = [sys.executable, "-m", "convexadam", *arguments]
        ran = subprocess.run(command, env=environment(), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == status
        assert "Traceback" not in ran.stderr
