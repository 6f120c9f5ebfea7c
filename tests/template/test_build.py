"""Templates of small groups, from files."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm, logm
from scipy.ndimage import gaussian_filter, map_coordinates
from torso import QUICK

from convexadam import Affine, Image, read_image, read_transform, write_image
from convexadam.cli import main
from convexadam.errors import InputError
from convexadam.metrics import dice
from convexadam.template import Template, build_template

SIZE = 30


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four scans of one shape, each deformed, of another brightness, and on a grid of its own."""
    folder, random = tmp_path_factory.mktemp("scans"), np.random.default_rng(0)
    axes = np.stack(np.meshgrid(*[np.arange(float(SIZE))] * 3, indexing="ij"))
    values, labels = np.zeros((SIZE,) * 3), np.zeros((SIZE,) * 3, np.int16)
    for label, centre, radius, value in (
        (1, (15, 15, 15), 10, 60),
        (2, (12, 13, 15), 4, 120),
        (3, (19, 16, 15), 3, 20),
    ):
        inside = np.linalg.norm(axes - np.reshape(centre, (3, 1, 1, 1)), axis=0) < radius
        values[inside], labels[inside] = value, label
    rows = ["id,image,labels"]
    for number in range(4):
        wave = np.stack([gaussian_filter(random.standard_normal(labels.shape), 5) for _ in range(3)])
        at = axes + 2 * wave / np.abs(wave).max() + random.uniform(-1, 1, (3, 1, 1, 1))
        image = map_coordinates(gaussian_filter(values, 0.6), at, order=1)
        image = (image + 2 * random.standard_normal(image.shape) * (image > 5)) * (1 + number)
        affine = np.diag([2.0, 2, 2, 1])
        affine[:3, 3] = random.uniform(-30, 30, 3)
        write_image(Image.from_array(image.astype(np.float32), affine), folder / f"{number}.nii.gz")
        kept = map_coordinates(labels, at, order=0).astype(np.float32 if number % 2 else np.int16)  # as files have them
        write_image(Image.from_array(kept, affine), folder / f"{number}_labels.nii.gz")
        rows.append(f"s{number},{number}.nii.gz,{number}_labels.nii.gz")
    (folder / "scans.csv").write_text("\n".join(rows) + "\n")
    (folder / "reversed.csv").write_text("\n".join([rows[0], *rows[:0:-1]]) + "\n")
    return folder


SETTINGS: dict[str, Any] = {"linear_rounds": 1, "rounds": 1}


@pytest.fixture(scope="module")
def built(group: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Template, Path]:
    folder = tmp_path_factory.mktemp("template")
    return build_template(group / "scans.csv", output_dir=folder, **SETTINGS), folder


def agreement(folder: Path) -> float:
    """Mean Dice of the labels of all pairs of scans on the template."""
    labels = [read_image(path) for path in sorted(folder.glob("scans/*/labels.nii.gz"))]
    return fmean(fmean(dice(a, b).values()) for a in labels for b in labels if a is not b)


@pytest.mark.long
def test_the_labels_of_all_scans_agree(built: tuple[Template, Path]) -> None:
    template, folder = built
    assert template.scans == ("s0", "s1", "s2", "s3")
    assert template.bias_mm < 0.1
    assert agreement(folder) > 0.85
    assert template.labels is not None
    assert torch.equal(read_image(folder / "labels.nii.gz").data, template.labels.labels.data)
    with (folder / "convergence.csv").open() as file:
        assert [row["linear"] for row in csv.DictReader(file)] == ["True", "False"]
    bright = template.image.data[0][template.labels.labels.data[0] == 2]
    assert float(bright.median()) == pytest.approx(1, abs=0.15)
    assert not list(folder.rglob("*.part*"))


@pytest.mark.long
def test_what_is_written_for_each_scan(built: tuple[Template, Path], group: Path) -> None:
    template, folder = built
    transform = read_transform(folder / "scans" / "s2" / "transform.nii.gz")
    labels = transform.warp(read_image(group / "2_labels.nii.gz"), template.image.grid)
    assert torch.equal(labels.data, read_image(folder / "scans" / "s2" / "labels.nii.gz").data)
    change = read_image(folder / "scans" / "s2" / "log_jacobian.nii.gz").data[0]
    torch.testing.assert_close(change, transform.jacobian().log(), atol=1e-3, rtol=0)


@pytest.mark.long
def test_a_repeated_call_registers_nothing_again(built: tuple[Template, Path], group: Path) -> None:
    template, folder = built
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("report.json")}
    assert len(times) == 8
    again = build_template(group / "scans.csv", output_dir=folder, **SETTINGS)
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("report.json")}
    assert torch.equal(again.image.data, template.image.data)


@pytest.mark.long
def test_the_order_of_the_scans_makes_no_difference(built: tuple[Template, Path], group: Path, tmp_path: Path) -> None:
    template, folder = built
    other = build_template(group / "reversed.csv", output_dir=tmp_path, **SETTINGS)
    torch.testing.assert_close(other.image.data, template.image.data, atol=0.02, rtol=0)
    assert agreement(tmp_path) == pytest.approx(agreement(folder), abs=2e-3)


@pytest.mark.long
def test_a_symmetric_template_equals_its_mirror_image(group: Path, tmp_path: Path) -> None:
    template = build_template(group / "scans.csv", output_dir=tmp_path, symmetric=True, linear_rounds=1, rounds=0)
    torch.testing.assert_close(template.image.data.flip(1), template.image.data, atol=1e-5, rtol=0)


def test_a_linear_template_on_the_command_line(group: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--output-dir", str(tmp_path), "--linear-rounds", "1", "--rounds", "0"]
    assert main(["template", str(group / "[01].nii.gz"), *options]) == 0
    assert "template of 2 scans" in capsys.readouterr().err
    assert read_image(tmp_path / "template.nii.gz").grid.spacing_mm == (2, 2, 2)
    assert not (tmp_path / "labels.nii.gz").exists()


def test_one_scan_is_no_group(group: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least two"):
        build_template(str(group / "0.nii.gz"), output_dir=tmp_path)


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four coronal slices of one shape, each deformed by a wave of its own."""
    folder, random = tmp_path_factory.mktemp("slices"), np.random.default_rng(1)
    axes = np.stack(np.meshgrid(np.arange(44.0), np.arange(40.0), indexing="ij"))
    rows = ["id,image,labels"]
    for number in range(4):
        wave = np.stack([gaussian_filter(random.standard_normal((44, 40)), 6) for _ in range(2)])
        i, j = axes + 4 * wave / np.abs(wave).max() - np.reshape((21.5, 19.5), (2, 1, 1))
        labels = np.where(np.hypot(i / 16, j / 14) < 1, 1, 0)
        labels[np.hypot(i + 6, j + 1) < 4] = 2
        labels[np.hypot(i - 5, j - 3) < 5] = 3
        values = gaussian_filter(np.choose(labels, [0.0, 60, 120, 20]), 0.7) + random.standard_normal(labels.shape)
        for name, one in ((f"{number}", values.astype(np.float32)), (f"{number}_labels", labels.astype(np.int16))):
            write_image(Image.from_array(one[:, None], np.diag([2.0, 9, 2, 1])), folder / f"{name}.nii.gz")
        rows.append(f"s{number},{number}.nii.gz,{number}_labels.nii.gz")
    (folder / "scans.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def built_slices(slices: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Template, Path]:
    folder, settings = tmp_path_factory.mktemp("plane"), {"linear_rounds": 1, "rounds": 2}
    return build_template(slices / "scans.csv", output_dir=folder, config=QUICK, **settings), folder  # type: ignore[arg-type]


@pytest.mark.long
def test_a_template_of_slices(slices: Path, built_slices: tuple[Template, Path]) -> None:
    template, folder = built_slices
    grid = template.image.grid
    assert (grid.dims, grid.shape[1], grid.spacing_mm) == (2, 1, (2, 9, 2))
    for name in template.scans:
        field = read_transform(folder / "scans" / name / "transform.nii.gz").to_displacement_field(grid)
        assert float(field.disp_mm[1].abs().max()) < 1e-9  # within the plane
        assert float(field.jacobian().min()) > 0.5
    before = [read_image(slices / f"{number}_labels.nii.gz") for number in range(4)]
    apart = fmean(fmean(dice(a, b).values()) for a in before for b in before if a is not b)
    assert 1 - agreement(folder) < 0.4 * (1 - apart)
    assert template.bias_mm < 0.1
    assert template.rounds[2].change_percent < 0.5 * template.rounds[1].change_percent


@pytest.mark.long
def test_deformable_rounds_start_at_the_affine_part_of_the_round_before(built_slices: tuple[Template, Path]) -> None:
    template, folder = built_slices
    rounds = folder / "rounds"
    before = read_transform(rounds / "00" / "registrations" / "pairs" / "s1" / "transform.tfm")
    start = read_transform(rounds / "01" / "initial" / "s1.tfm")
    assert isinstance(before, Affine)
    assert isinstance(start, Affine)
    # the template has moved by the mean of the affine maps of all scans in between
    every = [read_transform(rounds / "00" / "registrations" / "pairs" / f"s{n}" / "transform.tfm") for n in range(4)]
    mean = expm(np.mean([logm(one.matrix).real for one in every], axis=0))  # type: ignore[attr-defined]
    moved = before.matrix @ np.linalg.inv(mean)
    corners = np.array([[0, 0, 0, 1], [86, 0, 0, 1], [0, 0, 78, 1]]).T
    np.testing.assert_allclose(start.matrix @ corners, moved @ corners, atol=0.05)
    assert not (rounds / "00" / "initial").exists()
    assert template.failed == ()
