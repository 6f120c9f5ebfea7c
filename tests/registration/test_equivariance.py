"""The result does not depend on the order in which voxels are stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convexadam import ConvexSearch, Image, RegistrationConfig, preset, register
from convexadam.data import PhantomPair, phantom_pair

TOLERANCE_VOXELS = 0.1


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    matrix = np.diag([8.0, 7.0, 10.0, 1.0])
    matrix[:3, 3] = (-150, -120, -90)
    return phantom_pair((41, 38, 29), affine=matrix, contrasts=("ct", "t2"), seed=3)


def reordered(image: Image, axes: tuple[int, int, int], flips: tuple[int, ...]) -> Image:
    """The same image with another order of voxels."""
    matrix = image.grid.affine[:, [*axes, 3]].copy()
    data = image.data.permute(0, *(a + 1 for a in axes))
    for axis in flips:
        matrix[:3, 3] += matrix[:3, axis] * (data.shape[axis + 1] - 1)
        matrix[:3, axis] *= -1
    return Image.from_array(data.flip([a + 1 for a in flips]).contiguous(), matrix)


@pytest.mark.parametrize(
    ("name", "axes", "flips"),
    [("default", (1, 2, 0), ()), ("published", (0, 1, 2), (0, 2)), ("default", (2, 1, 0), (1,))],
)
def test_storage_order_does_not_matter(
    pair: PhantomPair, name: str, axes: tuple[int, int, int], flips: tuple[int, ...]
) -> None:
    config = preset(name)
    plain = register(pair.fixed, pair.moving, config).transform
    other = register(reordered(pair.fixed, axes, flips), reordered(pair.moving, axes, flips), config).transform
    assert other.grid.shape != plain.grid.shape or flips
    expected = reordered(Image(plain.disp_mm, plain.grid), axes, flips)
    assert expected.grid.is_close(other.grid)
    error_mm = (other.disp_mm - expected.data).norm(dim=0)
    assert float(plain.disp_mm.norm(dim=0).max()) > 5
    assert float(error_mm.max()) < TOLERANCE_VOXELS * min(plain.grid.spacing_mm)


def test_moving_in_another_order_than_fixed(pair: PhantomPair) -> None:
    config = preset("published")
    plain = register(pair.fixed, pair.moving, config).transform
    other = register(pair.fixed, reordered(pair.moving, (2, 0, 1), (1,)), config).transform
    torch.testing.assert_close(other.disp_mm, plain.disp_mm, rtol=0, atol=TOLERANCE_VOXELS * min(plain.grid.spacing_mm))


def test_same_input_same_output(pair: PhantomPair) -> None:
    config = RegistrationConfig(discrete=ConvexSearch(spacing=4, radius=3))
    first = register(pair.fixed, pair.moving, config).transform.disp_mm
    assert torch.equal(first, register(pair.fixed, pair.moving, config).transform.disp_mm)
