"""Grids, transforms, images and objects on which files and classes of others are tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from convexadam.geometry import Affine, DisplacementField, Grid, Image

SHAPE = (14, 11, 9)
CENTRE_MM = np.array([-6.5, 21.25, 30.0])
PIR = np.array([[0, 0, 1.0], [-1, 0, 0], [0, -1, 0]])


def turned(about_x: float, about_z: float) -> np.ndarray:
    x, z = np.deg2rad((about_x, about_z))
    about_third = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_third @ np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])


def around(directions: np.ndarray, spacing: tuple[float, float, float], shape: tuple[int, int, int] = SHAPE) -> Grid:
    """Return a grid about one and the same centre."""
    affine = np.eye(4)
    affine[:3, :3] = directions * spacing
    affine[:3, 3] = CENTRE_MM - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


GRIDS = {
    "cubic": around(np.eye(3), (1.5, 1.5, 1.5)),
    "anisotropic": around(np.eye(3), (1.3, 0.9, 2.5)),
    "LAS": around(np.diag([-1.0, 1, 1]), (1.3, 0.9, 2.5)),
    "LPS": around(np.diag([-1.0, -1, 1]), (1.3, 0.9, 2.5)),
    "PIR": around(PIR, (1.3, 0.9, 2.5)),
    "oblique": around(turned(25, -40), (1.3, 0.9, 2.5)),
    "oblique PIR": around(turned(-15, 30) @ PIR, (1.3, 0.9, 2.5)),
}

# It covers the fixed grids with a margin, in other voxels along other axes.
MOVING = around(turned(10, 5) @ np.diag([1.0, -1, 1]), (1.5, 1.3, 1.6), (36, 38, 32))
RIGHT_HANDED = around(turned(-12, 20) @ PIR, (1.5, 1.3, 1.6), (36, 38, 32))


def waves(grid: Grid, dtype: torch.dtype = torch.float64) -> DisplacementField:
    """Up to 1.5 mm along each of R, A and S, all different."""
    i, j, k = torch.meshgrid(*(torch.linspace(0, 3, n, dtype=dtype) for n in grid.shape), indexing="ij")
    return DisplacementField(torch.stack([1.5 * torch.sin(i + j), torch.cos(j - k), 0.8 * torch.sin(k + 2 * i)]), grid)


def about_centre(matrix: np.ndarray, shift: tuple[float, float, float]) -> Affine:
    full = np.eye(4)
    full[:3, :3] = matrix
    full[:3, 3] = CENTRE_MM - matrix @ CENTRE_MM + shift
    return Affine(full)


def sheared() -> Affine:
    """Turn, stretch and shear, each a little, and shift."""
    return about_centre(turned(6, -9) @ np.array([[1.05, 0.04, 0], [0, 0.95, 0.03], [0.02, 0, 1.02]]), (1.2, -0.8, 0.5))


def anatomy(grid: Grid) -> Image:
    """Waves in mm, the same on every grid; float32."""
    i, j, k = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid.shape), indexing="ij")
    x, y, z = grid.index_to_world(torch.stack([i, j, k], dim=-1).reshape(-1, 3)).T.reshape(3, *grid.shape)
    return Image((torch.sin(x / 5) + torch.cos(y / 4) + torch.sin((z + x) / 6)).float()[None], grid)


def some_points(grid: Grid, number: int = 40) -> torch.Tensor:
    """Points in mm between the outer voxel centres."""
    random = torch.rand(number, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return grid.index_to_world(0.5 + random * (torch.tensor(grid.shape) - 2))


def voxel_points(grid: Grid) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of some voxels, and where they are in mm; no interpolation takes part there."""
    random = torch.rand(40, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    indices = (random * torch.tensor(grid.shape)).floor()
    return indices.long(), grid.index_to_world(indices)


def look_alike_tensor() -> type:
    """Behaves like MONAI's MetaTensor, as far as it is used."""

    class MetaTensor(torch.Tensor):
        @staticmethod
        def __new__(cls: Any, data: torch.Tensor, affine: Any = None, meta: Any = None) -> Any:
            made: Any = torch.as_tensor(data).as_subclass(cls)
            made.meta = {"space": "RAS"} if meta is None else meta
            made.affine = torch.eye(4).double() if affine is None else affine
            return made

    MetaTensor.__module__ = "monai.data.meta_tensor"
    return MetaTensor


def look_alike_image() -> type:
    """Behaves like TorchIO's ScalarImage, as far as it is used."""

    class ScalarImage(dict[str, Any]):
        def __init__(self, *, tensor: Any = None, affine: Any = None) -> None:
            super().__init__()
            self.data, self.affine = tensor, affine

    ScalarImage.__module__ = "torchio.data.image"
    return ScalarImage
