"""A task that all tests read and none writes to."""

from __future__ import annotations

from pathlib import Path

import pytest
from l2r_task import write_task

from convexadam.learn2reg import Task, read_task


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the task; not to be written to."""
    return write_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="session")
def task(folder: Path) -> Task:
    """The task."""
    return read_task(folder)
