"""Values of the library in numpy, torch and pickle, and as keys of dictionaries."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import Affine, ConfigError, DisplacementField, Grid, Image, InputError, compose

SHAPE = (4, 5, 6)
LIA = np.array([[-3.0, 0, 0, 9], [0, 0, 1.0, 4], [0, -2.0, 0, 1], [0, 0, 0, 1]])  # i to L, j to I, k to A
VALUES = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
IMAGE = Image.from_array(VALUES, LIA)
FIELD = DisplacementField(VALUES.expand(3, *SHAPE).contiguous(), IMAGE.grid)


def test_an_image_is_an_array_of_its_values() -> None:
    array = np.asarray(IMAGE)
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, VALUES.numpy())
    assert np.shares_memory(array, VALUES.numpy())
    assert not array.flags.writeable  # an image is a value
    own = np.array(IMAGE)
    own[...] = 0
    assert float(IMAGE.data.max()) > 0
    assert np.asarray(IMAGE, dtype=np.float64).dtype == np.float64
    assert float(np.mean(IMAGE)) == pytest.approx(float(VALUES.mean()))
    assert np.asarray(Image(torch.zeros(2, *SHAPE), Grid(SHAPE))).shape == (2, *SHAPE)
    half = Image(VALUES[None].bfloat16(), Grid(SHAPE))
    np.testing.assert_array_equal(np.asarray(half), half.data[0].float().numpy())
    with pytest.raises(ValueError, match="must be copied"):
        half.__array__(copy=False)
    assert np.asarray(Image(VALUES[None].clone().requires_grad_(), Grid(SHAPE))).shape == SHAPE


def test_an_image_is_a_tensor_of_its_values() -> None:
    for tensor in (torch.as_tensor(IMAGE), torch.asarray(IMAGE), torch.from_dlpack(IMAGE)):
        assert torch.equal(tensor, VALUES)
        assert tensor.data_ptr() == IMAGE.data.data_ptr()
    assert torch.as_tensor(Image(torch.zeros(2, *SHAPE), Grid(SHAPE))).shape == (2, *SHAPE)


def test_other_values_are_no_arrays_of_objects() -> None:
    matrix = np.diag([1.0, 2, 3, 1])
    np.testing.assert_array_equal(np.asarray(Affine(matrix)), matrix)
    np.array(Affine(matrix))[...] = 0  # a copy
    for transform in (FIELD, compose(FIELD, Affine(matrix))):
        with pytest.raises(InputError, match="cannot become an array; take disp_mm"):
            np.asarray(transform)
    with pytest.raises(InputError, match="which has its grid"):
        Image.from_array(IMAGE)


def test_slices_are_pictures() -> None:
    right = np.flip(VALUES.numpy(), 0)  # from L to R
    canonical = np.transpose(np.flip(right, 1), (0, 2, 1))  # from I to S
    np.testing.assert_array_equal(IMAGE.slice(), canonical[::-1, ::-1, 2].T)
    np.testing.assert_array_equal(IMAGE.slice("coronal", 0), canonical[::-1, 0, ::-1].T)
    np.testing.assert_array_equal(IMAGE.slice("sagittal", 3), canonical[3, ::-1, ::-1].T)
    colours = Image(VALUES.expand(3, *SHAPE), IMAGE.grid).slice()
    assert colours.shape == (6, 4, 3)
    np.testing.assert_array_equal(colours[..., 1], IMAGE.slice())
    with pytest.raises(ConfigError, match="plane must be one of"):
        IMAGE.slice("oblique")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="index must be a whole number from 0 to 4"):
        IMAGE.slice("axial", 5)


def test_equal_grids_are_one_key() -> None:
    grid = Grid(SHAPE, LIA)
    assert grid == IMAGE.grid
    assert len({grid, IMAGE.grid, Grid(SHAPE)}) == 2
    minus = LIA.copy()
    minus[1, 0] = -0.0
    assert Grid(SHAPE, minus) == grid
    assert hash(Grid(SHAPE, minus)) == hash(grid)
    for other in (Grid((4, 5, 7), LIA), Grid(SHAPE, LIA + 1e-12 * np.eye(4, k=3)), Grid(SHAPE, LIA, 4), "grid", None):
        assert grid != other


def test_values_are_pickled_and_copied() -> None:
    chain = compose(FIELD, Affine(np.diag([1.0, 2, 3, 1])))
    for make in (lambda value: pickle.loads(pickle.dumps(value)), copy.deepcopy, copy.copy):
        image, field, affine, both = (make(value) for value in (IMAGE, FIELD, chain.transforms[1], chain))
        assert torch.equal(image.data, IMAGE.data)
        assert image.grid == field.grid == IMAGE.grid
        assert torch.equal(field.disp_mm, FIELD.disp_mm)
        np.testing.assert_array_equal(affine.matrix, chain.transforms[1].matrix)
        assert not image.grid.affine.flags.writeable
        assert not affine.matrix.flags.writeable
        points = torch.tensor([[1.0, 2, 3]])
        assert torch.equal(both(points), chain(points))


def test_files_of_torch_hold_classes_which_it_refuses_to_load() -> None:
    buffer: Any = io.BytesIO()
    torch.save(FIELD, buffer)
    buffer.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        torch.load(buffer, weights_only=True)
