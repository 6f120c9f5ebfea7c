"""A folder of small images of one kind."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from studies import make_study

from convexadam.io import PairFiles


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images ``a``, ``b``, ``c`` and ``d`` with labels and landmarks; not to be changed."""
    folder = tmp_path_factory.mktemp("images")
    make_study(folder, "abcd")
    return folder


@pytest.fixture
def study(images: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(images, tmp_path / "images"))


@pytest.fixture
def pairs(study: Path) -> tuple[PairFiles, ...]:
    """Two pairs with one fixed image."""
    return tuple(PairFiles(id=n, fixed=study / "a.nii.gz", moving=study / f"{n}.nii.gz") for n in "bc")
