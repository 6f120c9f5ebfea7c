"""``image.plot()`` and ``transform.plot()``: what their axes hold."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import (
    Affine,
    ConfigError,
    ConvexAdamError,
    DisplacementField,
    Grid,
    Image,
    InputError,
    MissingExtraError,
)

pytest.importorskip("matplotlib")

SHAPE = (12, 10, 8)
VALUES = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
IMAGE = Image.from_array(VALUES, np.diag([2.0, 1, 1, 1]))


def shown(figure: Any, axis: int, layer: int = 0) -> np.ndarray:
    return np.asarray(figure.axes[axis].images[layer].get_array())


def test_an_image_is_drawn_in_three_planes() -> None:
    figure = IMAGE.plot()
    values = VALUES.numpy()
    np.testing.assert_allclose(shown(figure, 0), values[::-1, ::-1, 4].T, atol=1e-6)
    np.testing.assert_allclose(shown(figure, 1), values[::-1, 5, ::-1].T, atol=1e-6)
    np.testing.assert_allclose(shown(figure, 2), values[6, ::-1, ::-1].T, atol=1e-6)
    assert [axis.get_aspect() for axis in figure.axes] == [0.5, 0.5, 1.0]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_slices_go_through_a_point() -> None:
    figure = IMAGE.plot(point_mm=(6.0, 2.0, 7.0))  # voxel 3, 2, 7
    np.testing.assert_allclose(shown(figure, 0), VALUES.numpy()[::-1, ::-1, 7].T, atol=1e-6)
    np.testing.assert_allclose(shown(figure, 2), VALUES.numpy()[3, ::-1, ::-1].T, atol=1e-6)
    with pytest.raises(InputError, match="point_mm must lie within"):
        IMAGE.plot(point_mm=(6.0, 2.0, 9.0))
    with pytest.raises(InputError, match="point_mm must"):
        IMAGE.plot(point_mm=(6.0, 2.0))


def test_overlays_of_other_grids_are_resampled() -> None:
    coarse = torch.zeros(6, 10, 8, dtype=torch.int32)
    coarse[2:4, 3:6, 4] = 7  # voxels of 4 mm: i from 4 to 7 of the image
    labels = Image.from_array(coarse, np.array([[4.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    painted = shown(IMAGE.plot(labels=labels), 0, 1)[..., 3] > 0
    expected = np.zeros(SHAPE, bool)
    expected[4:8, 3:6, 4] = True
    np.testing.assert_array_equal(painted, expected[::-1, ::-1, 4].T)
    over = IMAGE.plot(Image.from_array(VALUES[2:-2].contiguous(), IMAGE.grid.affine))
    assert len(over.axes[0].images) == 2


def test_a_field_is_drawn_with_its_jacobian() -> None:
    stretch = torch.zeros(3, *SHAPE)
    stretch[0] = 0.5 * torch.arange(SHAPE[0])[:, None, None]  # twice as far apart, in mm of 1 mm voxels: 1.5 times
    field = DisplacementField(stretch, Grid(SHAPE))
    figure = field.plot()
    lengths = shown(figure, 0)
    np.testing.assert_allclose(lengths[0], 0.5 * np.arange(SHAPE[0])[::-1], atol=1e-6)
    assert len(np.unique(shown(figure, 3).reshape(-1, 3), axis=0)) == 1  # one colour: the determinant is 1.5 everywhere
    red, _, blue = shown(figure, 3)[0, 0]
    assert red > blue  # it grows


def test_transforms_without_a_grid_need_one() -> None:
    affine = Affine(np.diag([1.0, 1, 1.2, 1]))
    with pytest.raises(ConfigError, match="pass reference="):
        affine.plot()
    assert len(affine.plot(Grid(SHAPE)).axes) == 8  # and two colour bars


def test_a_volume_of_one_row_is_refused() -> None:
    row = Image(torch.rand(1, 1, 1, 9), Grid((1, 1, 9)))
    with pytest.raises(InputError, match="two voxels along two axes"):
        row.plot()
    with pytest.raises(InputError, match="two voxels along two axes"):
        Affine().plot(row.grid)


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for plot in (IMAGE.plot, lambda: Affine().plot(IMAGE)):
        with pytest.raises(MissingExtraError, match=r"\[report\]"):
            plot()


@pytest.mark.parametrize("value", [3, "none.nii", None, np.eye(3), object(), (1, 2, 3), float("nan")])
def test_wrong_arguments_are_refused(value: Any) -> None:
    point: Any = value
    if value is not None:
        for call in (lambda: IMAGE.plot(value), lambda: IMAGE.plot(labels=value), lambda: Affine().plot(value)):
            with pytest.raises(ConvexAdamError):
                call()
    if value is not None and not isinstance(value, tuple):
        with pytest.raises(ConvexAdamError):
            IMAGE.plot(point_mm=point)
