"""Settings of the whole test suite."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

collect_ignore = ["parity/make_golden.py"]  # runs with the published package, in an environment of its own


@pytest.fixture(scope="session")
def real_pairs() -> Path:
    """Folder of the real pairs; the test is skipped where it is missing."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("CONVEXADAM_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real pairs in {folder}; set CONVEXADAM_DATA to their folder")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(20240917)
