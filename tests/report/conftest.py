"""A small pair that is registered once, and a cohort of it, for all tests of reports."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import Chromium, find_chromium
from PIL import Image as Pillow

from convexadam import RegistrationResult, register, write_image, write_transform
from convexadam.data import PhantomPair, phantom_pair
from convexadam.report import QualityMeasures, measure_quality, write_report

SHAPE = (36, 30, 26)
PAIRS = 7


@pytest.fixture(scope="session")
def phantom() -> PhantomPair:
    return phantom_pair(SHAPE, seed=3)


@pytest.fixture(scope="session")
def registered(phantom: PhantomPair) -> RegistrationResult:
    return register(phantom.fixed, phantom.moving)


@pytest.fixture(scope="session")
def measures(phantom: PhantomPair, registered: RegistrationResult) -> QualityMeasures:
    return measure_quality(registered, phantom.fixed, phantom.moving)


@pytest.fixture(scope="session")
def cohort(
    tmp_path_factory: pytest.TempPathFactory,
    phantom: PhantomPair,
    registered: RegistrationResult,
    measures: QualityMeasures,
) -> Path:
    """Folder of a cohort with pages: pair 3 is unusual, pair 6 failed; only two pages of pairs are real ones."""
    folder = tmp_path_factory.mktemp("cohort") / "study <1>"
    images = {side: folder.parent / f"{side}.nii.gz" for side in ("fixed", "moving")}
    for side, path in images.items():
        write_image(getattr(phantom, side), path)
    lines = [["id", "status", "seconds", "dice", "error"]]
    for number in range(PAIRS):
        name, pair = f"sub-{number}", folder / "pairs" / f"sub-{number}"
        if number == PAIRS - 1:
            lines.append([name, "failed", "", "", 'InputError: "no" overlap, at all'])
            continue
        pair.mkdir(parents=True)
        write_transform(registered.transform, pair / "transform.nii.gz")
        quality = measures.to_dict() | {"matched_percent": 5.0 if number == 3 else 80.0 + number / 10}
        inputs = {side: str(path) for side, path in images.items()}
        extra = {"inputs": inputs, "quality": quality, "scores": {"dice": 0.9}}
        registered.save_summary(pair / "report.json", extra=extra)
        if number not in (0, 3):
            (pair / "report.html").write_text("<!DOCTYPE html><title>pair</title>", encoding="utf-8")
            Pillow.new("L", (288, 192), 40 * number).save(pair / "thumbnail.webp")
        lines.append([name, "done", f"{10 - number}.5", f"0.{90 - number}", ""])
    with (folder / "cohort.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    (folder / "cohort.json").write_text(json.dumps({"command": ["/bin/convexadam", "cohort", "<x>"]}), encoding="utf-8")
    assert list(write_report(folder))[-1] == folder / "report.html"
    return folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("there is no Chromium on the PATH: apt-get install chromium")
    with Chromium(program) as chromium:
        yield chromium
