"""Sampling grids: what torch's own function makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from foreign import GRIDS, MOVING, anatomy, sheared, waves

from convexadam.errors import ConfigError, FileError, GeometryError, InputError
from convexadam.geometry import DisplacementField, Grid, compose
from convexadam.io import from_torch_grid, read_torch_grid, to_torch_grid, write_torch_grid

both = pytest.mark.parametrize("align_corners", [False, True])


@both
@pytest.mark.parametrize("name", GRIDS)
def test_torch_warps_alike(name: str, align_corners: bool) -> None:
    fixed, moving = GRIDS[name], anatomy(MOVING)
    for transform in (waves(fixed), sheared(), compose(sheared(), waves(fixed))):
        grid = to_torch_grid(transform, fixed, MOVING, align_corners=align_corners)
        assert grid.shape == (1, *fixed.shape, 3)
        theirs = torch.nn.functional.grid_sample(
            moving.data[None].to(grid.dtype), grid, mode="bilinear", align_corners=align_corners
        )[0]
        expected = transform.warp(moving, fixed).data
        torch.testing.assert_close(theirs.float(), expected, atol=1e-4, rtol=0)  # 1e-5 voxels of at most 1 a voxel
        found = from_torch_grid(grid, fixed, MOVING, align_corners=align_corners)
        wanted = transform.to_displacement_field(fixed).disp_mm
        torch.testing.assert_close(found.disp_mm, wanted.to(found.disp_mm.dtype), atol=5e-5, rtol=0)


@both
def test_corners_by_hand(align_corners: bool) -> None:
    grid = Grid((2, 3, 4))
    found = to_torch_grid(DisplacementField(torch.zeros(3, 2, 3, 4), grid), None, grid, align_corners=align_corners)
    expected = [1.0, 1, 1] if align_corners else [3 / 4, 2 / 3, 1 / 2]  # along k, j, i
    torch.testing.assert_close(found[0, -1, -1, -1], torch.tensor(expected))
    torch.testing.assert_close(found[0, 0, 0, 0], -torch.tensor(expected))


@both
def test_files(align_corners: bool, tmp_path: Path) -> None:
    field = waves(GRIDS["oblique"], torch.float32)
    write_torch_grid(field, tmp_path / "a.pt", moving=MOVING, align_corners=align_corners)
    saved = torch.load(tmp_path / "a.pt", weights_only=True)
    assert saved["align_corners"] is align_corners
    assert torch.equal(saved["grid"], to_torch_grid(field, None, MOVING, align_corners=align_corners))
    found = read_torch_grid(tmp_path / "a.pt", device="cpu")
    assert found.grid.is_close(field.grid)
    torch.testing.assert_close(found.disp_mm, field.disp_mm, atol=5e-5, rtol=0)
    del saved["moving_affine"]
    torch.save(saved, tmp_path / "b.pt")
    with pytest.raises(FileError, match=r"b\.pt: a sampling grid must have all of its entries.*moving_affine"):
        read_torch_grid(tmp_path / "b.pt")


def test_refusals() -> None:
    flat = Grid((5, 1, 4))
    field = DisplacementField(torch.zeros(3, 5, 1, 4), flat)
    with pytest.raises(GeometryError, match="got one along axis 1"):
        to_torch_grid(field, None, flat, align_corners=True)
    with pytest.raises(ConfigError, match="fixed="):
        to_torch_grid(sheared(), None, flat)
    for wrong in (torch.zeros(1, 4, 1, 5, 3), torch.zeros(5, 1, 4, 3), torch.zeros(1, 5, 1, 4, 3, dtype=torch.int64)):
        with pytest.raises((GeometryError, InputError), match=r"\(1, 5, 1, 4, 3\)|\[1, i, j, k, 3\]"):
            from_torch_grid(wrong, flat, flat)
    with pytest.raises(GeometryError, match="NaN"):
        from_torch_grid(torch.full((1, 5, 1, 4, 3), torch.nan), flat, flat)


def test_gradients_flow() -> None:
    disp = torch.zeros(3, 5, 6, 4, requires_grad=True)
    to_torch_grid(DisplacementField(disp, Grid((5, 6, 4))), None, Grid((5, 6, 4))).sum().backward()
    assert disp.grad is not None
    torch.testing.assert_close(disp.grad[:, 0, 0, 0], torch.tensor([2 / 5, 2 / 6, 2 / 4]))
