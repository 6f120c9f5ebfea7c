"""Modes of reading an image: cubic against scipy, labels against naive loops, digits of whole numbers."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from convexadam.errors import InputError
from convexadam.geometry import Affine, DisplacementField, Grid, Image, resample
from convexadam.geometry.sampling import find_mixed_cells, sample_cubic, sample_label, spline_coefficients

SHAPE = (7, 9, 6)
SOURCE = Grid(SHAPE, oracles.oblique_affine(flips=(True, True, False)))


def around(shape: tuple[int, int, int] = (6, 11, 8), degrees: tuple[float, float, float] = (-30, 50, 10)) -> Grid:
    """An oblique grid of another orientation that reaches beyond the source on some sides."""
    affine = oracles.oblique_affine((1.3, 0.9, 1.1), degrees=degrees, axes=(2, 0, 1), flips=(True, False, True))
    centre = SOURCE.affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + SOURCE.affine[:3, 3]
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return Grid(shape, affine)


def positions(reference: Grid, disp_mm: np.ndarray | None = None) -> np.ndarray:
    """Indices of the source at the voxels of a grid, displaced."""
    mm = oracles.mm_of_voxels(reference.affine, reference.shape) + (0 if disp_mm is None else disp_mm)
    inverse = np.linalg.inv(SOURCE.affine)
    return np.asarray(np.tensordot(inverse[:3, :3], mm, 1) + inverse[:3, 3].reshape(3, 1, 1, 1))


def scipy_cubic(volume: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Cubic values of ``[c, i, j, k]``, positions clamped to the outer centres."""
    clamped = np.stack([where[a].clip(0, n - 1) for a, n in enumerate(volume.shape[1:])])
    return np.stack([ndimage.map_coordinates(c, clamped, order=3, mode="mirror") for c in volume])


# Cubic --------------------------------------------------------------------------------------------------------------


def test_cubic_equals_scipy_inside_and_beyond() -> None:
    reference = around()
    image = Image(oracles.noise(3, *SHAPE), SOURCE)
    where = positions(reference)
    seen = oracles.inside(where, SHAPE)
    beyond = seen & ~oracles.inside(where, [n - 1 for n in SHAPE])
    assert 0 < seen.sum() < seen.size
    assert beyond.any()
    expected = np.where(seen, scipy_cubic(image.numpy(), where), -3.0)
    found = resample(image, reference, mode="cubic", fill_value=-3.0)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)
    assert np.abs(resample(image, reference, fill_value=-3.0).numpy() - expected).max() > 0.1
    disp_mm = 0.7 * oracles.noise(3, *reference.shape)
    displaced = positions(reference, disp_mm.numpy())
    expected = np.where(oracles.inside(displaced, SHAPE), scipy_cubic(image.numpy(), displaced), -3.0)
    for found in (
        resample(image, reference, mode="cubic", fill_value=-3.0, disp_mm=disp_mm),
        DisplacementField(disp_mm, reference).warp(image, mode="cubic", fill_value=-3.0),
    ):
        np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-9)


def test_cubic_in_float32() -> None:
    reference = around()
    image = Image(oracles.noise(1, *SHAPE).float(), SOURCE)
    where = positions(reference)
    clear = oracles.inside(where - 1e-4, SHAPE) & oracles.inside(where + 1e-4, SHAPE)  # of the end of the field of view
    found = resample(image, reference, mode="cubic").data[0].numpy()
    assert found.dtype == np.float32
    expected = scipy_cubic(image.data.double().numpy(), where)[0]
    # Coefficients are at most 3 times as large as values along each axis (1 / (4/6 - 2/6)), and differ by twice that
    # from one to the next; positions err by eight roundings of 45, on three axes; the eight sums by as many roundings.
    largest = 27 * float(image.data.abs().max())
    allowed = 2**-24 * (2 * largest * 3 * 8 * 45 + 16 * largest)
    assert np.abs(found - expected)[clear].max() <= allowed < 0.05


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 1, 5), (3, 4, 1), (1, 1, 1), (2, 2, 2)])
def test_cubic_of_short_axes(shape: tuple[int, int, int]) -> None:
    volume = oracles.noise(2, *shape)
    where = oracles.uniform(3, 4, 5, 6, low=-1.5, high=6.0).numpy()
    found = sample_cubic(spline_coefficients(volume), torch.from_numpy(where)).numpy()
    expected = np.stack(
        [
            ndimage.map_coordinates(
                np.pad(c, [(0, 0) if n > 1 else (0, 1) for n in shape], mode="edge"),  # scipy wants two voxels at least
                np.stack([where[a].clip(0, n - 1) for a, n in enumerate(shape)]),
                order=3,
                mode="mirror",
            )
            for c in volume.numpy()
        ]
    )
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-10)


def test_cubic_goes_through_the_voxels() -> None:
    image = Image(oracles.noise(1, *SHAPE), SOURCE)
    still = DisplacementField(torch.zeros(3, *SHAPE, dtype=torch.float64), SOURCE)
    torch.testing.assert_close(still.warp(image, mode="cubic").data, image.data, rtol=0, atol=1e-10)


def test_cubic_overshoots_no_whole_number_type() -> None:
    edge = np.zeros((12, 1, 1), np.uint8)
    edge[6:] = 255
    shift = np.eye(4)
    shift[0, 3] = 0.25
    found = resample(Image.from_array(edge), Grid((11, 1, 1), shift), mode="cubic").data.ravel()
    exact = scipy_cubic(
        np.pad(edge, [(0, 0), (0, 1), (0, 1)], mode="edge")[None].astype(float),
        np.stack([np.arange(11).reshape(11, 1, 1) + 0.25, np.zeros((11, 1, 1)), np.zeros((11, 1, 1))]),
    ).ravel()
    assert exact.min() < -5
    assert exact.max() > 260
    assert found.tolist() == np.rint(exact).clip(0, 255).astype(int).tolist()
    mask = Image(torch.from_numpy(edge[None] > 0), Grid((12, 1, 1)))
    assert resample(mask, Grid((11, 1, 1), shift), mode="cubic").data.ravel().tolist() == [v > 127 for v in exact]


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_cubic_would_spread_what_is_no_number(value: float) -> None:
    data = oracles.noise(1, *SHAPE)
    data[0, 3, 4, 5] = value
    with pytest.raises(InputError, match="NaN or Inf"):
        resample(Image(data, SOURCE), around(), mode="cubic")


def test_cubic_carries_gradients() -> None:
    data = oracles.noise(1, 3, 4, 5).requires_grad_()
    where = oracles.uniform(3, 2, 2, 2, low=0.2, high=1.8).requires_grad_()
    assert torch.autograd.gradcheck(lambda d, w: sample_cubic(spline_coefficients(d), w), (data, where))


# Labels -------------------------------------------------------------------------------------------------------------


def blobs(seed: int = 0, count: int = 4) -> np.ndarray:
    """Labels with smooth surfaces."""
    return oracles.blobs(oracles.indices(SHAPE), SHAPE, channels=count, sigma=1.5, seed=seed).argmax(0)


def weights_of(labels: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values, and the interpolated indicator of each, ``[values, ...]``."""
    values = np.unique(labels)
    return values, oracles.trilinear(np.stack([labels == v for v in values]).astype(float), where)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float32, torch.float64])
def test_label_takes_the_value_of_most_weight(dtype: torch.dtype) -> None:
    reference = around((9, 12, 10))
    labels = torch.from_numpy(blobs() * 40 + 3).to(dtype)
    where = positions(reference)
    values, weights = weights_of(labels.numpy(), where)
    ranked = np.sort(weights, axis=0)
    clear = (ranked[-1] - ranked[-2] > 0.002) & oracles.inside(where, SHAPE)
    expected = values[weights.argmax(0)]
    found = resample(Image(labels[None], SOURCE), reference, mode="label").data[0]
    assert found.dtype == dtype
    assert np.array_equal(found.numpy()[clear], expected[clear])
    assert clear.sum() > 100
    assert (expected != oracles.nearest(labels[None].numpy(), where)[0])[clear].any()
    assert not found.numpy()[~oracles.inside(where, SHAPE)].any()


@settings(deadline=None, max_examples=20, derandomize=True)
@given(
    seed=st.integers(0, 999), degrees=st.tuples(*[st.floats(-90, 90)] * 3), mode=st.sampled_from(["nearest", "label"])
)
def test_no_value_is_invented(seed: int, degrees: tuple[float, float, float], mode: Any) -> None:
    reference = around((6, 5, 7), degrees)
    labels = torch.tensor([3, 2**24 + 1, 2**53 + 1, -7])[(oracles.uniform(2, *SHAPE, seed=seed) * 4).long()]
    found = resample(Image(labels, SOURCE), reference, mode=mode).data
    assert {*found.unique().tolist()} <= {0, *labels.unique().tolist()}
    floating = torch.tensor([0.1, 1 / 3, 7.7])[(oracles.uniform(1, *SHAPE, seed=seed) * 3).long()]
    found = resample(Image(floating, SOURCE), reference, mode=mode, fill_value=0.1).data
    assert {*found.unique().tolist()} <= {*floating.unique().tolist()}


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_label_at_half_a_voxel_is_that_of_nearest(axis: int) -> None:
    labels = Image((oracles.uniform(1, *SHAPE) * 5).long(), SOURCE)
    half = torch.zeros(3, *SHAPE, dtype=torch.float64)
    half[axis] = 0.5
    field = DisplacementField.from_voxels(half, SOURCE)
    for moved in (field, DisplacementField(field.disp_mm.float(), SOURCE)):
        found, nearest = (moved.warp(labels, mode=mode).data for mode in ("label", "nearest"))
        inner = tuple(slice(0, n - (a == axis)) for a, n in enumerate(SHAPE))
        assert torch.equal(found[(0, *inner)], nearest[(0, *inner)])


def test_choosing_everywhere_gives_the_labels_of_mixed_cells_alone() -> None:
    # as on a GPU, which would have to be waited for to know how many cells are mixed
    labels = (oracles.uniform(2, *SHAPE) * 3).int()
    positions = oracles.uniform(3, 6, 7, 8, seed=1, low=-2, high=max(SHAPE) + 1)
    mixed = find_mixed_cells(labels)
    assert 0 < mixed.float().mean() < 1
    assert torch.equal(sample_label(labels, None, positions), sample_label(labels, mixed, positions))


def test_whole_numbers_are_labels_by_default() -> None:
    labels, reference = Image(torch.from_numpy(blobs())[None], SOURCE), around((9, 12, 10))
    chosen = {mode: resample(labels, reference, mode=mode).data for mode in (None, "nearest", "label")}  # type: ignore[arg-type]
    assert torch.equal(chosen[None], chosen["label"])
    assert not torch.equal(chosen[None], chosen["nearest"])


@pytest.mark.parametrize("shape", [(1, 4, 3), (3, 1, 1), (1, 1, 1)])
def test_label_of_short_axes(shape: tuple[int, int, int]) -> None:
    labels = Image((oracles.uniform(1, *shape) * 3).long() + 1, Grid(shape))
    matrix = np.eye(4)
    matrix[:3, 3] = 0.3, 0.2, -0.4
    found = Affine(matrix).warp(labels, labels.grid, mode="label").data.numpy()[0]
    where = oracles.indices(shape) + matrix[:3, 3].reshape(3, 1, 1, 1)
    values, weights = weights_of(labels.data.numpy()[0], where)
    assert np.array_equal(found, values[weights.argmax(0)])


@pytest.mark.parametrize("mode", ["cubic", "label", "nearest"])
def test_slabs_do_not_show(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = around()
    image = Image(torch.from_numpy(blobs()[None] * 1.5) + (oracles.noise(2, *SHAPE) if mode == "cubic" else 0), SOURCE)
    disp_mm = 0.3 * oracles.noise(3, *reference.shape)
    whole = resample(image, reference, mode=mode, disp_mm=disp_mm)
    for voxels in (1, 500):
        monkeypatch.setattr(sys.modules["convexadam.geometry.resample"], "_CHUNK_VOXELS", voxels)
        torch.testing.assert_close(
            resample(image, reference, mode=mode, disp_mm=disp_mm).data, whole.data, rtol=0, atol=1e-12
        )


# Whole numbers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_large_whole_numbers_keep_their_digits(mode: Any, dtype: torch.dtype) -> None:
    reference = around()
    offset = 2**30 + 1 if dtype == torch.int32 else 2**45 + 1
    small = (oracles.uniform(1, *SHAPE) * 100).long()
    where = positions(reference)
    seen = oracles.inside(where, SHAPE)
    read = scipy_cubic if mode == "cubic" else oracles.trilinear
    exact = np.where(seen, read(small.double().numpy(), where), -1)
    for image, fill_value in ((small + offset, offset - 1), (small, -1)):
        found = resample(Image(image.to(dtype), SOURCE), reference, mode=mode, fill_value=fill_value).data
        assert found.dtype == dtype
        off = np.abs(found.numpy() - int(fill_value) - 1 - exact)
        assert off.max() <= 0.5 + 27 * 2**-8  # rounded; coefficients are at most 27 * 2^45, with 53 digits
    found = resample(Image((small + offset).to(dtype), SOURCE), reference, mode=mode, fill_value=0).data
    assert not found.numpy()[~seen[None]].any()
    assert np.abs(found.numpy() - offset - exact)[seen[None]].max() <= 0.5 + 27 * 2**-8
    far = Grid((1, 1, 1), oracles.oblique_affine(origin=(900.0, 0, 0)))
    fill_value = torch.iinfo(torch.int32).max
    assert resample(Image(small.to(dtype), SOURCE), far, mode=mode, fill_value=fill_value).data.item() == fill_value


def test_numbers_at_the_end_of_their_type_do_not_wrap() -> None:
    data = torch.full((1, *SHAPE), torch.iinfo(torch.int64).max)
    data[:, 3:] = torch.iinfo(torch.int64).min
    found = resample(Image(data, SOURCE), around(), mode="cubic").data
    assert int(found.max()) == 2**63 - 2**10  # the largest that float64 holds as well
    assert int(found.min()) == -(2**63)
    high = resample(Image((data > 0).double(), SOURCE), around(), mode="cubic").data
    assert bool((found[high > 0.51] > 0).all())
    assert bool((found[high < 0.49] < 0).all())
    assert float(high.max()) > 1.01
