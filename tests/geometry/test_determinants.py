"""Determinants of parts of a field, slab by slab, against naive loops over the whole of it."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch

from convexadam.geometry import determinants
from convexadam.geometry.determinants import Box, determinants_by_slab, everywhere, grown, within

BOXES: dict[str, tuple[tuple[int, int, int], Box]] = {
    "all": ((7, 5, 6), everywhere((7, 5, 6))),
    "inside": ((9, 7, 8), (slice(2, 7), slice(3, 5), slice(1, 6))),
    "corner": ((9, 7, 8), (slice(0, 3), slice(5, 7), slice(0, 8))),
    "one voxel": ((9, 7, 8), (slice(4, 5), slice(6, 7), slice(0, 1))),
    "thin": ((1, 7, 2), (slice(0, 1), slice(2, 5), slice(0, 2))),
}


@pytest.mark.parametrize("name", BOXES)
@pytest.mark.parametrize("rows", [1, 2, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_those_of_the_whole_field(
    name: str, rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, box = BOXES[name]
    monkeypatch.setattr(
        determinants, "_CHUNK_VOXELS", rows * (box[1].stop - box[1].start) * (box[2].stop - box[2].start)
    )
    field = oracles.noise(3, *shape)
    found = torch.full(shape, torch.nan, dtype=torch.float64)
    for slab, values in determinants_by_slab((2 * field).to(dtype), box, lambda part: part / 2):
        assert slab[0].stop - slab[0].start <= rows
        found[slab] = values.double()
    expected = np.full(shape, np.nan)
    expected[box] = oracles.jacobian(field.numpy())[box]
    # six products of three entries, each entry rounded a few times, as in tests/kernels/test_jacobian.py
    entry = 1 + 2 * float(field.abs().max())
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=60 * torch.finfo(dtype).eps * entry**3)


def test_boxes() -> None:
    box = slice(2, 4), slice(0, 1), slice(5, 6)
    outer = grown(box, 2, (5, 7, 8))
    assert outer == (slice(0, 5), slice(0, 3), slice(3, 8))
    assert within(box, outer) == (slice(2, 4), slice(0, 1), slice(2, 3))
