"""Settings of the kernels' tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch
from quick_interpreter import hasten, import_kernels, run_few_programs

QUICK_WHEN_INTERPRETED = ("errs_no_more_than_torch", "small_volumes", "no_other_displacement_costs_less")

SEVERAL_PROGRAMS = (*QUICK_WHEN_INTERPRETED, "err_no_more_than_torch", "several", "larger_than_a_box", "factors")
"""Tests in which programs are as large as on a device, with volumes that are larger than one along each axis."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a GPU, mark the tests of Triton kernels as long, but for the comparisons with torch.

    The interpreter takes seconds for what a GPU does in microseconds.
    """
    for item in items:
        interpreted = item.path.name.endswith("_triton.py") and not torch.cuda.is_available()
        if interpreted and not any(name in item.name for name in QUICK_WHEN_INTERPRETED):
            item.add_marker(pytest.mark.long)


@pytest.fixture(autouse=True)
def few_programs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interpret as few programs as possible where their number is not the point."""
    if torch.cuda.is_available():
        return
    name, of_triton = request.node.name, request.path.name.endswith("_triton.py")
    if "triton" in name and os.environ.get("TRITON_INTERPRET") == "1" and find_spec("triton") is not None:
        import_kernels()
    hasten()
    if not (of_triton and any(part in name for part in SEVERAL_PROGRAMS)):
        run_few_programs(monkeypatch)


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """As many threads as a kernel may take, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
