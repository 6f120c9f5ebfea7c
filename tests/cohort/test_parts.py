"""Rows of the table, records of files, and the plan of a cohort."""

from __future__ import annotations

import csv
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from studies import FAST, rows

from convexadam import preset
from convexadam.cohort import CohortOutcome, PairFiles, plan_cohort
from convexadam.cohort.fingerprint import describe_file, describe_settings, make_fingerprint
from convexadam.cohort.table import CohortTable
from convexadam.registration import estimate_memory


def fail(name: str, error: str = "E") -> CohortOutcome:
    pair = PairFiles(id=name, fixed=Path("f"), moving=Path("m"))
    return CohortOutcome(pair=pair, status="failed", folder=Path("out"), error=error)


def test_rows_with_characters_that_tables_use(tmp_path: Path) -> None:
    table = CohortTable(tmp_path / "cohort.csv")
    table.rewrite([fail('a,"b"')])
    table.append(fail("c", "one; two, three"))
    assert [(row["id"], row["error"]) for row in rows(tmp_path)] == [('a,"b"', "E"), ("c", "one; two, three")]
    assert (tmp_path / "cohort.csv").read_bytes().endswith(b"\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_a_row_that_the_disk_has_no_room_for_is_written_with_the_next(tmp_path: Path) -> None:
    table = CohortTable(tmp_path / "cohort.csv")
    table.rewrite([])
    path, table.path = table.path, Path("/dev/full")
    table.append(fail("a"))
    table.path = path
    table.append(fail("b"))
    assert [row["id"] for row in rows(tmp_path)] == ["a", "b"]


def test_records_follow_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(b"one")
    first = describe_file(path)
    assert first.size == 3
    assert first.sha256 == hashlib.sha256(hashlib.sha256(b"one").digest()).hexdigest()
    os.utime(path, ns=(1, 1))
    touched = describe_file(path, first)
    assert (touched.mtime_ns, touched.sha256) == (1, first.sha256)
    path.write_bytes(b"two")
    os.utime(path, ns=(2, 2))
    assert describe_file(path, touched).sha256 != first.sha256


def test_files_that_are_one_image(tmp_path: Path) -> None:
    for name in ("a.mhd", "a.raw", "b.raw", "series/1.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"0")
    for image, part in (("a.mhd", "a.raw"), ("series", "series/1.dcm")):
        before = describe_file(tmp_path / image)
        (tmp_path / part).write_bytes(b"12")
        assert describe_file(tmp_path / image) != before


def test_fingerprints_of_files_and_settings(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    records = {"fixed": describe_file(tmp_path / "a")}
    settings = [describe_settings(config, header) for config in (FAST, preset()) for header in (None, "qform")]
    found = {make_fingerprint(records, text) for text in settings}
    found.add(make_fingerprint({"moving": records["fixed"]}, settings[0]))
    assert len(found) == 5


def test_the_plan_of_a_cohort(images: Path) -> None:
    pairs = [PairFiles(id=n, fixed=images / "a.nii.gz", moving=images / f"{n}.nii.gz") for n in "bcd"]
    one, two = (plan_cohort(pairs, workers=workers) for workers in (1, 2))
    assert (one.pairs, two.workers) == (3, 2)
    assert two.seconds == pytest.approx(one.seconds / 2)
    voxels = 20 * 18 * 16
    per_worker = estimate_memory((20, 18, 16), spacing_mm=(1.0, 1.0, 1.0)) + 400e6 + 16 * voxels
    assert two.memory_bytes == pytest.approx(2 * per_worker, rel=0.02)
    assert one.fits
    assert not plan_cohort(pairs, workers=3).fits or np.isfinite(one.machine_bytes)
    assert plan_cohort(pairs, workers=7).workers == 3  # no more than there are pairs


def test_the_table_is_read_by_others(tmp_path: Path) -> None:
    CohortTable(tmp_path / "cohort.csv").rewrite([fail("ä")])
    with (tmp_path / "cohort.csv").open(encoding="utf-8", newline="") as file:
        assert next(csv.DictReader(file))["id"] == "ä"
