"""Images: values together with where they are."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import oracles
import pytest
import torch

from convexadam.errors import GeometryError, InputError
from convexadam.geometry import Grid, Image

SHAPE = (5, 7, 6)


def test_from_a_numpy_array() -> None:
    values = np.random.default_rng(0).normal(size=SHAPE)
    affine = oracles.oblique_affine()
    image = Image.from_array(values, affine)
    assert image.data.shape == (1, *SHAPE)
    assert image.data.dtype == torch.float64
    assert np.array_equal(image.numpy(), values)
    assert np.array_equal(image.grid.affine, affine)
    values[0, 0, 0] = 99
    assert image.data[0, 0, 0, 0] != 99  # an array is copied


def test_from_a_tensor() -> None:
    volume, channels = oracles.noise(*SHAPE), oracles.noise(3, *SHAPE)
    assert torch.equal(Image.from_array(volume).data, volume[None])
    assert torch.equal(Image.from_array(channels).data, channels)
    assert Image.from_array(oracles.noise(4, 5, 6, 1)).grid.shape == (5, 6, 1)  # a tensor's fourth axis is no extra
    assert np.array_equal(Image.from_array(volume).grid.affine, np.eye(4))
    assert Image.from_array(volume, device="cpu").data.device.type == "cpu"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.bool_, torch.bool),
        (np.uint8, torch.uint8),
        (np.int16, torch.int16),
        (np.uint16, torch.int32),
        (np.uint32, torch.int64),
        (np.int64, torch.int64),
        (np.float16, torch.float16),
        (">i2", torch.int16),
        (">f4", torch.float32),
        (np.longdouble, torch.float64),
    ],
)
def test_types_keep_their_values(given: Any, kept: torch.dtype) -> None:
    values = np.arange(24).reshape(2, 3, 4).astype(given)
    image = Image.from_array(values)
    assert image.data.dtype == kept
    assert np.array_equal(image.numpy(), values)
    assert image.is_label != kept.is_floating_point


def test_the_largest_uint16_survives() -> None:
    assert Image.from_array(np.full((1, 1, 1), 65535, np.uint16)).data.item() == 65535


@pytest.mark.parametrize(
    ("given", "kept"), [(torch.uint16, torch.int32), (torch.uint32, torch.int64), (torch.uint64, torch.int64)], ids=str
)
def test_unsigned_tensors_become_what_torch_computes_with(given: torch.dtype, kept: torch.dtype) -> None:
    values = torch.tensor([0, 1, 65535], dtype=given).reshape(1, 1, 3)
    for image in (Image.from_array(values), Image(values[None], Grid((1, 1, 3)))):
        assert image.data.dtype == kept
        assert image.data.flatten().tolist() == [0, 1, 65535]


@pytest.mark.parametrize("make", [np.full, lambda *a: torch.from_numpy(np.full(*a))], ids=["array", "tensor"])
def test_unsigned_values_that_no_signed_type_holds(make: Any) -> None:
    with pytest.raises(InputError, match=r"2\^63"):
        Image.from_array(make((1, 1, 1), 2**63, np.uint64))


def test_masked_arrays_without_hidden_values_are_arrays() -> None:
    values = np.arange(24.0).reshape(2, 3, 4)
    for array in (np.ma.masked_array(values), np.ma.masked_array(values, mask=np.zeros(values.shape, bool))):
        assert np.array_equal(Image.from_array(array).numpy(), values)


def test_masked_arrays_with_hidden_values_are_refused() -> None:
    values = np.ma.masked_less(np.arange(24.0).reshape(2, 3, 4), 5)
    with pytest.raises(InputError, match=r"got 5 of 24; .*filled.*mask"):
        Image.from_array(values)


def test_strided_and_read_only_arrays() -> None:
    values = np.arange(120.0).reshape(4, 5, 6)[::-1, ::2].transpose(2, 0, 1)
    values.setflags(write=False)
    assert np.array_equal(Image.from_array(values).numpy(), values)


def test_trailing_axes_of_one_are_dropped() -> None:
    values = np.arange(24).reshape(2, 3, 4, 1, 1)
    assert Image.from_array(values).grid.shape == (2, 3, 4)
    assert Image.from_array(np.zeros((2, 3, 1))).grid.shape == (2, 3, 1)  # a slice is a volume


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 5)), "three axes"),
        (np.zeros((4, 5, 6, 2)), "three axes"),
        (torch.zeros(4, 5), "three axes"),
        (torch.zeros(1, 1, 4, 5, 6), "three axes"),
        (np.zeros((4, 0, 6)), "at least one voxel"),
        (np.zeros((4, 5, 6), complex), "real numbers"),
        (np.full((4, 5, 6), "a"), "real numbers"),
        (np.full((4, 5, 6), None), "real numbers"),
        (torch.zeros(4, 5, 6, dtype=torch.complex64), "real numbers"),
    ],
)
def test_unusable_arrays(array: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Image.from_array(array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (torch.zeros(4, 5, 6), "four|channels, i, j, k"),
        (np.zeros((1, 4, 5, 6)), "channels, i, j, k"),
        (torch.zeros(1, 4, 6, 5), "shape"),
        (torch.zeros(0, 4, 5, 6), "at least one channel"),
        (torch.zeros(1, 4, 5, 6, dtype=torch.complex64), "real numbers"),
    ],
)
def test_data_that_does_not_fit(data: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Image(data, Grid((4, 5, 6)))


def test_an_unusable_affine_is_refused() -> None:
    with pytest.raises(GeometryError, match="singular"):
        Image.from_array(np.zeros((4, 5, 6)), np.diag([1.0, 0, 1, 1]))


@pytest.mark.parametrize(("axes", "flips"), oracles.ORIENTATIONS)
def test_canonical_keeps_value_and_position_of_each_voxel(
    axes: tuple[int, int, int], flips: tuple[bool, bool, bool]
) -> None:
    affine = oracles.oblique_affine(axes=axes, flips=flips)
    # Each voxel holds its own position, so the values say whether positions are right.
    image = Image(torch.from_numpy(oracles.mm_of_voxels(affine, SHAPE)), Grid(SHAPE, affine))
    canonical = image.canonical()
    assert canonical.grid.orientation == "RAS"
    expected = oracles.mm_of_voxels(canonical.grid.affine, canonical.grid.shape)
    np.testing.assert_allclose(canonical.numpy(), expected, rtol=0, atol=1e-12)
    assert canonical.data.is_contiguous()


def test_whole_numbers_are_labels() -> None:
    for dtype in (torch.bool, torch.uint8, torch.int64):
        assert Image.from_array(torch.zeros(2, 2, 2, dtype=dtype)).is_label
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert not Image.from_array(torch.zeros(2, 2, 2, dtype=dtype)).is_label


def test_numpy() -> None:
    assert Image.from_array(oracles.noise(2, 3, 4, 5)).numpy().shape == (2, 3, 4, 5)
    assert Image.from_array(oracles.noise(3, 4, 5)).numpy().shape == (3, 4, 5)
    assert Image.from_array(torch.ones(1, 1, 1, dtype=torch.bfloat16)).numpy().dtype == np.float32
    assert Image.from_array(torch.ones(1, 1, 1, requires_grad=True)).numpy().item() == 1


@pytest.mark.parametrize("channels", [1, 2])
def test_numpy_is_a_copy(channels: int) -> None:
    image = Image(torch.zeros(channels, 2, 3, 4), Grid((2, 3, 4)))
    image.numpy()[...] = 7
    assert not image.data.any()


def test_to_a_device() -> None:
    image = Image.from_array(oracles.noise(*SHAPE), oracles.oblique_affine())
    moved = image.to("cpu")
    assert torch.equal(moved.data, image.data)
    assert moved.grid.is_close(image.grid)
    assert image.to("meta").data.device.type == "meta"


def test_an_image_is_frozen_and_describes_itself() -> None:
    image = Image.from_array(torch.zeros(2, 4, 5, 6), np.diag([2.0, 2.0, 3.0, 1.0]))
    with pytest.raises(dataclasses.FrozenInstanceError):
        image.data = image.data  # type: ignore[misc]
    expected = "Image(2 x torch.float32 on cpu, Grid(shape=(4, 5, 6), spacing_mm=(2, 2, 3), orientation='RAS'))"
    assert repr(image) == expected


def test_subclasses_of_tensors_of_different_packages_meet() -> None:
    one, other = (type(name, (torch.Tensor,), {}) for name in ("One", "Other"))
    values = torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    images = [Image.from_array(v.as_subclass(kind)) for v, kind in zip(values, (one, other), strict=True)]
    assert [type(image.data) for image in images] == [torch.Tensor, torch.Tensor]
    assert torch.equal(torch.stack([image.data[0] for image in images]), values)
    learned = torch.nn.Parameter(values[:1])
    Image(learned, Grid((5, 4, 3))).data.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(learned.grad, torch.ones_like(values[:1]))
