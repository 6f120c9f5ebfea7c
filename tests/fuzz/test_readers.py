"""Damaged files are read or refused with an error of the library: no crash, no hang, no error of another package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import convexadam

FOLDER = Path(__file__).parent
CORPUS = sorted((FOLDER / "corpus").iterdir())
NAMES = (
    *("image.nii", "image.nii.gz", "image.mha", "image.nrrd", "image.mgz", "field.nii.gz", "spm.nii", "niftyreg.nii"),
    *("fsl.nii", "field.npz", "field.tfm", "field.h5", "field.x5", "field.pt", "affine.tfm", "affine.mat"),
    *("points.csv", "points.fcsv", "points.mrk.json", "pairs.csv", "dataset.json", "slice.dcm"),
    "settings.toml",
)

REPLAY = """
import sys
from convexadam import ConvexAdamError, Grid, read_image, read_transform
from convexadam.io import read_landmark_file
for path in sys.argv[1:]:
    grid = Grid((4, 5, 6))
    for read in (read_image, lambda p: read_transform(p, fixed=grid, moving=grid), read_landmark_file):
        try:
            read(path)
        except ConvexAdamError as error:
            sys.stdout.write(f"refused: {error}\\n")
"""


def run(*arguments: str, seconds: float) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(convexadam.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )


def test_files_that_once_crashed_a_reader_are_refused() -> None:
    assert len(CORPUS) >= 4
    ran = run("-W", "ignore", "-c", REPLAY, *map(str, CORPUS), seconds=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.count("refused: ") == 3 * len(CORPUS)


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_refused(name: str, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    pytest.importorskip("nitransforms")
    ran = run(str(FOLDER / "readers.py"), str(tmp_path), "20261129", "3", name, seconds=120)
    found = [line for line in ran.stdout.splitlines() if not line.startswith(f"{name}: ")]
    assert ran.returncode == 0, f"the process ended with {ran.returncode} on damaged.{name}: {ran.stderr[-400:]}"
    assert not found, "\n".join(found)
    assert int(ran.stdout.split()[-2]) > 20
