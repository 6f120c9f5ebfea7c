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
@pytest.mark.parametrize("first", range(2))  # two processes, and a second and a half for each format
def test_damaged_files_are_refused(first: int, tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    pytest.importorskip("nitransforms")
    names = NAMES[first::2]
    ran = run(str(FOLDER / "readers.py"), str(tmp_path), "20261129", "1.5", *names, seconds=120)
    lines = ran.stdout.splitlines()
    assert ran.returncode == 0, f"the process ended with {ran.returncode} after {lines[-1]!r}: {ran.stderr[-400:]}"
    counts = dict(line.removesuffix(" files").split(": ") for line in lines if line.endswith(" files"))
    found = [line for line in lines if not line.endswith((" files", ": begins"))]
    assert not found, "\n".join(found)
    assert list(counts) == list(names)
    assert min(map(int, counts.values())) > 20, counts
