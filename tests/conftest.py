"""Settings of the whole test suite."""

from __future__ import annotations

import os
from pathlib import Path

import jaxtyping
import pytest
import quick_interpreter
import torch

if "PYTEST_XDIST_WORKER" in os.environ:  # one process for each core, so one thread for each process and its children
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

SHAPES = ("architecture", "continuous", "discrete", "features", "kernels", "metrics", "parity")
"""Folders of tests about code that only tensors enter."""

collect_ignore = ["parity/make_golden.py"]  # runs with the published package, in an environment of its own


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the long tests first, so that no process is left with one at the end while the others have nothing to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.fixture(autouse=True)
def check_annotated_shapes(request: pytest.FixtureRequest) -> None:
    """Check the shapes in annotations where they are under test, and in long tests; it takes a third of the time."""
    under_test = request.path.parent.name in SHAPES or request.node.get_closest_marker("long") is not None
    jaxtyping.config.update("jaxtyping_disable", not under_test)


@pytest.fixture(autouse=True, scope="session")
def hasten_interpreter() -> None:
    """Save half of the time of Triton's interpreter."""
    quick_interpreter.hasten()


@pytest.fixture(scope="session")
def real_pairs() -> Path:
    """Folder of the real pairs that CONVEXADAM_DATA names; the test is skipped where it names none."""
    named = os.environ.get("CONVEXADAM_DATA")
    if not named:
        pytest.skip("set CONVEXADAM_DATA to the folder of the real pairs")
    folder = Path(named)
    if not folder.is_dir():
        pytest.skip(f"there are no real pairs in {folder}; set CONVEXADAM_DATA to their folder")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """Random numbers that are the same in every run."""
    return torch.Generator().manual_seed(20240917)
