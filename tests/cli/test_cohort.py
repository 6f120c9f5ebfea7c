"""``convexadam cohort``."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from convexadam.cli import main
from convexadam.data import phantom_pair
from convexadam.io import write_image

FAST = ["--set", 'continuous="none"', "--set", 'linear="none"']


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    for number, name in enumerate("abc"):
        write_image(phantom_pair((20, 18, 16), seed=number).moving, folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def study(scans: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(scans, tmp_path / "scans"))


def call(*arguments: object) -> int:
    return main(["cohort", *map(str, arguments), *FAST])


def test_many_to_one_and_again(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--fixed", study / "a.nii.gz", "--moving", f"{study}/[a-d].nii.gz", "--output-dir", tmp_path / "out")
    assert call(*options, "--keep", "transform", "inverse") == 0
    first = capsys.readouterr().err
    assert "2 of 2 pairs" in first
    assert first.splitlines()[-1].startswith(f"convexadam report {tmp_path / 'out'} writes a page")
    assert {path.name for path in (tmp_path / "out" / "pairs" / "b").iterdir()} == {
        "transform.nii.gz",
        "inverse_transform.nii.gz",
        "report.json",
    }
    record = json.loads((tmp_path / "out" / "cohort.json").read_text(encoding="utf-8"))
    assert record["source"] == f"{study}/a.nii.gz, {study}/[a-d].nii.gz"
    assert call(*options, "--keep", "transform", "inverse", "--quiet") == 0
    assert capsys.readouterr().err == ""
    assert call(*options, "--keep", "transform", "inverse") == 0
    # pairs, registered, kept, failed
    assert re.search(r"│ 2 +│ 0 +│ 2 +│ 0 +│", capsys.readouterr().err)


def test_pairs_that_fail_are_named_and_the_status_says_so(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (study / "b.nii.gz").write_bytes(b"no image")
    assert call("--all-pairs", f"{study}/[a-d].nii.gz", "--output-dir", tmp_path / "out", "--retries", "0") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("convexadam: 2 of 3 pairs failed: b_to_a, c_to_b; see ")
    assert any(line.startswith("b_to_a: FileError: cannot read") for line in lines)
    assert (tmp_path / "out" / "pairs" / "c_to_a" / "moved.nii.gz").exists()


def test_all_bad_rows_are_refused_before_any_work(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = (
        "fixed,moving,preset",
        "a.nii.gz,b.nii.gz,",
        "a.nii.gz,gone.nii.gz,",
        "a.nii.gz,,",
        "a.nii.gz,c.nii.gz,fast",
    )
    (study / "list.csv").write_text("\n".join(rows), encoding="utf-8")
    assert call(study / "list.csv", "--output-dir", tmp_path / "out") == 1
    message = capsys.readouterr().err
    assert "row 3 must name the fixed and the moving image" in message
    assert re.search(r"row 2 must name files that exist, got no file \S*gone\.nii\.gz", message)
    assert not (tmp_path / "out").exists()


def test_the_plan(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--all-pairs", *sorted(study.glob("[a-d].nii.gz")), "--output-dir", tmp_path / "out", "--dry-run")
    assert call(*options, "--workers", "2") == 0
    assert re.match(r"3 pairs on 2 workers: about \d+ min \d\d s .*, 0\.8 GB of memory of", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "pairs must be given in one way, .*, got none"),
        (("/",), "got the folder /; name its images by --fixed"),
        (("list.csv", "--bids", "bids"), "got MANIFEST and --bids"),
        (("--moving", "*.nii.gz"), "--fixed must be given with --moving"),
        (("list.csv", "--fixed", "a.nii.gz"), "--fixed must be omitted with MANIFEST"),
        (("list.csv", "--workers", "2", "--dask", "tcp://127.0.0.1:1"), "choose one"),
        (("list.csv", "--workers", "0"), "--workers must be at least 1"),
        (("list.csv", "--gpus", "0", "--dask", "tcp://127.0.0.1:1"), "--gpus must be omitted with --dask"),
        (("list.csv", "--config", "a.toml", "--preset", "rigid"), "--preset or --config"),
    ],
)
def test_options_that_contradict_each_other(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text("fixed,moving\na,b\n", encoding="utf-8")
    for name in "ab":
        (tmp_path / name).touch()
    given = [str(tmp_path / option) if option == "list.csv" else option for option in options]
    assert main(["cohort", *given, "--output-dir", str(tmp_path / "out")]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_gpus_and_mirror_images_reach_the_cohort(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, Any]] = []
    monkeypatch.setattr("convexadam.cli.cohort.register_cohort", lambda *_, **options: given.append(options) or ())
    options = ("--all-pairs", f"{study}/[a-d].nii.gz", "--output-dir", tmp_path / "out", "--gpus", "1", "0")
    assert call(*options, "--check-mirror", "--quiet") == 0
    assert call(*options, "--workers", "4", "--device", "cuda:1", "--quiet") == 0
    [first, second] = given
    assert (first["device"], first["check_mirror"], first["executor"].workers) == ("cuda", True, 2)
    assert (second["device"], second["check_mirror"], second["executor"].workers) == ("cuda:1", False, 4)
    plans = []
    for more in ((), ("--check-mirror",)):
        assert call(*options[:4], "--dry-run", "--preset", "best", *more) == 0
        [minutes, seconds] = map(int, re.findall(r"about (\d+) min (\d\d) s", capsys.readouterr().err)[0])
        plans.append(60 * minutes + seconds)
    assert abs(plans[1] - 2 * plans[0]) <= 1
