"""Settings of the kernels' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

QUICK_WHEN_INTERPRETED = ("errs_no_more_than_torch", "small_volumes", "no_other_displacement_costs_less")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a GPU, mark the tests of Triton kernels as long, but for the comparisons with torch.

    The interpreter takes seconds for what a GPU does in microseconds.
    """
    for item in items:
        interpreted = item.path.name.endswith("_triton.py") and not torch.cuda.is_available()
        if interpreted and not any(name in item.name for name in QUICK_WHEN_INTERPRETED):
            item.add_marker(pytest.mark.long)


@pytest.fixture(params=[1, 3], ids=["1 thread", "3 threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """As many threads as a kernel may take, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
