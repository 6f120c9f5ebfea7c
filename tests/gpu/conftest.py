"""A pretended GPU for the tests of this folder."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
sys.path.insert(0, str(Path(__file__).parent))

from pretend import PretendedGpu, build_guard
from quick_interpreter import hasten, import_kernels, run_few_programs
from stubs import run_stub


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library by which torch knows of the pretended device."""
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("there is a real GPU")
    if shutil.which("g++") is None:
        pytest.skip("no C++ compiler (g++), which makes the library by which torch knows of a device")
    return build_guard(tmp_path_factory.mktemp("guard"))


@pytest.fixture
def counted(guard: Path) -> Iterator[PretendedGpu]:
    """A GPU on which kernels write anything: for what is launched, not for what is computed."""
    with PretendedGpu(guard, run_stub) as gpu:
        yield gpu


@pytest.fixture
def interpreted(guard: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedGpu]:
    """A GPU on which kernels are interpreted: slow, and right."""
    import_kernels()
    hasten()
    run_few_programs(monkeypatch)
    with PretendedGpu(guard) as gpu:
        yield gpu
