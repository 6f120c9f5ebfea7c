"""Determinants of parts of a field, slab by slab, against naive loops over the whole of it."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam.geometry import determinants
from convexadam.geometry.determinants import Box, expand_box, full_box, iterate_determinants, relative_box

BOXES: dict[str, tuple[tuple[int, int, int], Box]] = {
    "all": ((7, 5, 6), full_box((7, 5, 6))),
    "inside": ((9, 7, 8), (slice(2, 7), slice(3, 5), slice(1, 6))),
    "corner": ((9, 7, 8), (slice(0, 3), slice(5, 7), slice(0, 8))),
    "one voxel": ((9, 7, 8), (slice(4, 5), slice(6, 7), slice(0, 1))),
    "thin": ((1, 7, 2), (slice(0, 1), slice(2, 5), slice(0, 2))),
}


@pytest.mark.parametrize(("name", "rows", "dtype"), pairwise(BOXES, [1, 2, 100], [torch.float32, torch.float64]))
def test_equal_those_of_the_whole_field(
    name: str, rows: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape, box = BOXES[name]
    monkeypatch.setattr(
        determinants,
        "_CHUNK_VOXELS",
        dict.fromkeys(("cpu", "gpu"), rows * math.prod(s.stop - s.start for s in box[1:])),
    )
    field = oracles.noise(3, *shape)
    found = torch.full(shape, torch.nan, dtype=torch.float64)
    for slab, values in iterate_determinants((2 * field).to(dtype), box, lambda part: part / 2):
        assert slab[0].stop - slab[0].start <= rows
        found[slab] = values.double()
    expected = np.full(shape, np.nan)
    expected[box] = oracles.jacobian(field.numpy())[box]
    # six products of three entries, each entry rounded a few times, as in tests/kernels/test_jacobian.py
    entry = 1 + 2 * float(field.abs().max())
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=60 * torch.finfo(dtype).eps * entry**3)


def test_a_slab_has_at_least_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(determinants, "_CHUNK_VOXELS", {"cpu": 1, "gpu": 1})
    slabs = [slab for slab, _ in iterate_determinants(oracles.noise(3, 4, 5, 6), full_box((4, 5, 6)), lambda u: u)]
    assert [slab[0] for slab in slabs] == [slice(n, n + 1) for n in range(4)]


def test_boxes() -> None:
    box = slice(2, 4), slice(0, 1), slice(5, 6)
    outer = expand_box(box, 2, (5, 7, 8))
    assert outer == (slice(0, 5), slice(0, 3), slice(3, 8))
    assert relative_box(box, outer) == (slice(2, 4), slice(0, 1), slice(2, 3))
