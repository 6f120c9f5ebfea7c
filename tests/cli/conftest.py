"""Files that the commands work on, and a way to run one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from turned import FIXED_GRID, MATRIX, field_of

from convexadam import DisplacementField, Image, register, write_image
from convexadam.cli import main
from convexadam.data import phantom_pair
from convexadam.io import write_itk_field, write_landmarks

SHAPE = (24, 20, 16)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pair, its labels, landmarks, masks and a transform; not to be written to."""
    folder = tmp_path_factory.mktemp("pair")
    affine = np.array([[-15.0, 0, 0, 170], [0, 0, 17.0, -150], [0, 15.0, 0, -140], [0, 0, 0, 1]])
    pair = phantom_pair(SHAPE, affine=affine, displacement_mm=20.0, noise=0.2)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        write_image(getattr(pair, name), folder / f"{name}.nii.gz")
    for name in ("fixed", "moving"):
        points = pair.fixed.grid.world_to_index(getattr(pair, f"{name}_landmarks_mm"))
        write_landmarks(points, folder / f"{name}.csv")
    mask = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    mask[:, :15] = 1
    write_image(Image(mask, pair.fixed.grid), folder / "mask.nii.gz")
    write_image(Image(torch.zeros_like(mask), pair.fixed.grid), folder / "empty_mask.nii.gz")
    write_itk_field(DisplacementField.from_voxels(pair.disp_vox, pair.fixed.grid), folder / "truth.nii.gz")
    (folder / "cut.nii.gz").write_bytes((folder / "moving.nii.gz").read_bytes()[:3000])
    (folder / "text.nii.gz").write_text("no image")
    register(pair.fixed, pair.moving)  # compiles the kernels where they are not yet, which is said on stderr
    return folder


_COMPILING = re.compile(r"^convexadam: compiling .*\n", re.MULTILINE)
"""The line that the first call of a kernel writes on a machine; which command meets it depends on the cache."""


class Ran(NamedTuple):
    """How a command ended, and what it wrote."""

    status: Any
    out: str
    error: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command as the entry point does; its status and what it wrote."""

    def call(*arguments: Any) -> Ran:
        try:
            status: Any = main([str(a) for a in arguments])
        except SystemExit as stopped:  # wrong use and --help
            status = stopped.code
        captured = capsys.readouterr()
        return Ran(status, captured.out, _COMPILING.sub("", captured.err))

    return call


@pytest.fixture(scope="session")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with field.nii.gz: the transform of ``turned.py``."""
    folder = tmp_path_factory.mktemp("turned")
    write_itk_field(DisplacementField(torch.from_numpy(field_of(MATRIX)), FIXED_GRID), folder / "field.nii.gz")
    return folder
