"""``convexadam report`` and ``convexadam register --report``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from convexadam import Image, read_image, read_transform, write_image
from convexadam.cli import main
from convexadam.data import phantom_pair
from convexadam.geometry import Transform
from convexadam.report import measure_quality

pytest.importorskip("matplotlib")

QUICK = ("--set", "continuous.levels=[{type='Level', spacing=2, iterations=2}]", "--quiet")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder, pair = tmp_path_factory.mktemp("images"), phantom_pair((24, 20, 18), seed=2)
    for side in ("fixed", "moving"):
        write_image(getattr(pair, side), folder / f"{side}.nii.gz")
    return str(folder / "fixed.nii.gz"), str(folder / "moving.nii.gz")


def test_a_registration_with_its_page(
    images: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "it's out"
    assert main(["register", *images, "--output-dir", str(out), *QUICK, "--report"]) == 0
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["inputs"] == dict(zip(("fixed", "moving"), images, strict=True))
    assert report["command"].startswith(f"convexadam register {images[0]} {images[1]} --output-dir '")
    assert report["settings_toml"].startswith("schema_version = ")
    page = out / "report.html"
    assert "convexadam register" in page.read_text(encoding="utf-8")
    assert sorted(path.name for path in out.iterdir()) == [
        "moved.nii.gz",
        "report.html",
        "report.json",
        "thumbnail.webp",
        "transform.nii.gz",
    ]
    page.unlink()
    assert main(["report", str(out)]) == 0
    assert page.is_file()
    assert capsys.readouterr().err == f"wrote {page}\n"


def test_errors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "folder must hold a report.json or a cohort.csv" in capsys.readouterr().err


def test_a_missing_extra_is_named_before_the_registration(
    images: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["register", *images, "--output-dir", str(tmp_path / "out"), *QUICK, "--report"]) == 1
    assert 'pip install "convexadam-torch[report]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_page_measures_within_the_mask(images: tuple[str, str], tmp_path: Path) -> None:
    fixed, moving = map(read_image, images)
    inside = torch.zeros(fixed.data.shape, dtype=torch.uint8)
    inside[:, :14] = 1
    mask, out = tmp_path / "mask.nii.gz", tmp_path / "out"
    write_image(Image(inside, fixed.grid), mask)
    assert main(["register", *images, "--output-dir", str(out), "--fixed-mask", str(mask), *QUICK, "--report"]) == 0
    found = json.loads((out / "report.json").read_text(encoding="utf-8"))["quality"]["similarity_after"]
    within, everywhere = (
        measure_quality(Read(read_transform(out / "transform.nii.gz")), fixed, moving, fixed_mask=used).similarity_after
        for used in (mask, None)
    )
    assert found == within != everywhere


@dataclass
class Read:
    transform: Transform
    estimated_inverse: None = None
