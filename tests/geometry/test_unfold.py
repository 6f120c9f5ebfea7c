"""Repair of folded fields: the judge is numpy.gradient and numpy.linalg.det, in float64."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from convexadam.geometry import Grid
from convexadam.geometry import unfold as unfold_module
from convexadam.geometry.unfold import MIN_DETERMINANT, UnfoldResult, unfold

Shape = tuple[int, int, int]
OBLIQUE = oracles.oblique_affine((0.7, 1.3, 3.0), flips=(True, False, False))
SHAPE = (40, 36, 33)


def determinant(disp_vox: np.ndarray) -> np.ndarray:
    """Of ``x + u(x)`` at each voxel, one-sided at the border; an axis of one voxel does not vary."""
    slopes = [[np.gradient(u, axis=a) if u.shape[a] > 1 else 0 * u for a in range(3)] for u in disp_vox]
    return np.linalg.det(np.moveaxis(np.array(slopes), (0, 1), (-2, -1)) + np.eye(3))


def in_mm(disp_vox: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.tensordot(affine[:3, :3], disp_vox, 1)


def scale_to_voxels(disp_mm: torch.Tensor, affine: np.ndarray) -> np.ndarray:
    return in_mm(disp_mm.double().numpy(), np.linalg.inv(affine))


def wavy(shape: Shape, sigma: float, size: float, seed: int = 0) -> np.ndarray:
    """Smooth random displacements, in voxels."""
    rng = np.random.default_rng(seed)
    waves = [ndimage.gaussian_filter(rng.normal(size=shape), sigma, mode="wrap") for _ in range(3)]
    return size * np.array(waves) / np.std(waves)


def kicked(number: int, shape: Shape = SHAPE, seed: int = 0) -> np.ndarray:
    """A gentle motion in which a few voxels are off by some voxels each; on the border as well."""
    rng, disp = np.random.default_rng(seed), wavy(shape, 9, 1.0, seed)
    for _ in range(number):
        disp[(slice(None), *(rng.integers(n) for n in shape))] += rng.choice([-1, 1], 3) * rng.uniform(2, 4, 3)
    return disp


def turned(degrees: float, shape: Shape = SHAPE) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    return np.tensordot(turn - np.eye(3), oracles.indices(shape), 1)


def reflected(depth: int) -> np.ndarray:
    """The outer planes mirrored at the plane ``depth``, in a gentle motion."""
    i, disp = oracles.indices(SHAPE)[0], wavy(SHAPE, 9, 1.0)
    disp[0] += np.where(i < depth, 2 * (depth - i), 0)
    return disp


FOLDED: dict[str, np.ndarray] = {
    "a few voxels": kicked(12),
    "many voxels": kicked(3000),
    "a region": wavy(SHAPE, 5, 5.0),
    "everywhere": wavy(SHAPE, 3, 12.0),
    "noise": 5 * oracles.noise(3, *SHAPE).numpy(),
    "mirrored border": reflected(2),
    "mirrored side": reflected(12),
    "two halves that collide": np.where(oracles.indices(SHAPE)[:1] < 20, 5, -5)
    * np.array([1, 0, 0]).reshape(3, 1, 1, 1)
    + wavy(SHAPE, 9, 1.0),
    "two halves that slide": np.where(oracles.indices(SHAPE)[:1] < 20, 5, -5) * np.array([0, 1, 0]).reshape(3, 1, 1, 1)
    + wavy(SHAPE, 9, 1.0),
    "turned by 60 degrees": turned(60) + kicked(12),
    "turned by 180 degrees": turned(180) + kicked(12),
    "block_average to a fifth": -0.8 * oracles.indices(SHAPE) + 0.2 * wavy(SHAPE, 4, 3.0),
    "one plane": wavy((40, 36, 1), 3, 5.0),
    "two planes": wavy((2, 36, 40), 3, 5.0),
    "one line": wavy((1, 50, 1), 3, 8.0),
    "few voxels": wavy((5, 4, 6), 1, 1.0),
}


@pytest.mark.parametrize("name", FOLDED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nothing_folds_any_more(name: str, dtype: torch.dtype) -> None:
    before = FOLDED[name]
    assert determinant(before).min() < 0
    disp_mm = torch.from_numpy(in_mm(before, OBLIQUE)).to(dtype)
    start = disp_mm.clone()
    done = unfold(disp_mm, Grid(before.shape[1:], OBLIQUE))
    after = determinant(scale_to_voxels(disp_mm, OBLIQUE))
    assert after.min() > (
        0.99 * MIN_DETERMINANT if name != "block_average to a fifth" else 0.99 * MIN_DETERMINANT * 0.2**3
    )
    assert (done.remaining_voxels, disp_mm.dtype) == (0, dtype)
    change = np.linalg.norm((disp_mm - start).double().numpy(), axis=0)
    assert done.changed_voxels == (change > 0).sum() > 0
    assert done.max_change_mm == pytest.approx(change.max(), rel=1e-6)
    assert 1 <= done.iterations <= 15


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["gentle", "nothing", "turned", "one voxel", "block_average"])
def test_what_does_not_fold_keeps_every_bit(name: str, dtype: torch.dtype) -> None:
    disp_vox = {
        "gentle": wavy(SHAPE, 9, 2.0),
        "nothing": np.zeros((3, *SHAPE)),
        "turned": turned(175),
        "one voxel": np.full((3, 1, 1, 1), 7.0),
        "block_average": -0.85 * oracles.indices(SHAPE),  # determinants of 0.0034
    }[name]
    assert determinant(disp_vox).min() > 0
    disp_mm = torch.from_numpy(in_mm(disp_vox, OBLIQUE)).to(dtype)
    start = disp_mm.clone()
    assert unfold(disp_mm, Grid(disp_vox.shape[1:], OBLIQUE)) == UnfoldResult()
    assert torch.equal(disp_mm, start)


def twice_the_mean(values: np.ndarray) -> np.ndarray:
    return ndimage.uniform_filter(ndimage.uniform_filter(values, 3), 3)


def test_one_round_written_out() -> None:
    """``u + w (B(u) - u)`` with two means of three voxels, which look 2 voxels far; all over the volume at once."""
    before = wavy(SHAPE, 9, 1.0)
    before[:, 20, 17, 16] += 3, -4, 2
    before[:, 22, 18, 20] += -3, 1, 2
    folded = determinant(before) <= MIN_DETERMINANT
    weight = twice_the_mean(ndimage.maximum_filter(folded, 2 * (1 + 2) + 1, mode="constant").astype(float))
    assert (weight > 1 - 1e-9)[ndimage.maximum_filter(folded, 3)].all()  # 1 beside folds, too
    expected = before + weight * (np.array([twice_the_mean(u) for u in before]) - before)
    disp = torch.from_numpy(before.copy())
    assert unfold(disp, Grid(SHAPE)).iterations == 1
    np.testing.assert_allclose(disp.numpy(), expected, rtol=0, atol=1e-12)
    far = ~ndimage.maximum_filter(folded, 2 * (1 + 2 + 2) + 1, mode="constant")
    np.testing.assert_array_equal(disp.numpy()[:, far], before[:, far])


def test_what_is_far_from_a_fold_keeps_every_bit() -> None:
    """Many folds, on the border as well: see `test_one_round_written_out` for how far is far."""
    disp = torch.from_numpy(kicked(12))
    start, near = (
        disp.clone(),
        ndimage.maximum_filter(determinant(disp.numpy()) <= MIN_DETERMINANT, 11, mode="constant"),
    )
    done = unfold(disp, Grid(SHAPE))
    assert done.iterations == 1
    changed = (disp != start).any(0).numpy()
    assert near.sum() >= changed.sum() > 0.9 * near.sum()
    assert not (changed & ~near).any()


@pytest.mark.parametrize("steepest", [1.02, 1.1])
def test_a_small_fold_takes_a_small_change(steepest: float) -> None:
    """``|B(u) - u|`` is at most half of the variance of ``B`` times the second differences, for each axis."""
    x = oracles.indices(SHAPE) - np.array([19.3, 17.8, 16.1]).reshape(3, 1, 1, 1)
    disp_vox = np.zeros((3, *SHAPE))
    disp_vox[0] = -steepest * x[0] * np.exp(-(x**2).sum(0) / (2 * 6.0**2))
    assert determinant(disp_vox).min() < MIN_DETERMINANT
    disp = torch.from_numpy(disp_vox)
    done = unfold(disp, Grid(SHAPE))
    variance = 2 * 2 / 3  # of two means of three voxels
    bent = sum(np.abs(np.diff(disp_vox[0], 2, axis=a)).max() for a in range(3))
    assert done.iterations == 1
    assert done.max_change_mm <= 0.5 * variance * bent < 0.15 * np.abs(disp_vox).max()


def test_the_size_of_voxels_has_no_say() -> None:
    """Determinants and means of neighbours are the same in voxels and in mm."""
    disp_vox = kicked(12) + wavy(SHAPE, 5, 3.0)
    plain, oblique = (torch.from_numpy(in_mm(disp_vox, affine)) for affine in (np.eye(4), OBLIQUE))
    unfold(plain, Grid(SHAPE))
    unfold(oblique, Grid(SHAPE, OBLIQUE))
    np.testing.assert_allclose(scale_to_voxels(oblique, OBLIQUE), plain.numpy(), rtol=0, atol=1e-10)


def test_a_mirror_image_stays() -> None:
    disp_vox = -2.0 * oracles.indices(SHAPE) * np.array([1, 0, 0]).reshape(3, 1, 1, 1) + wavy(SHAPE, 9, 1.0)
    disp = torch.from_numpy(disp_vox)
    start = disp.clone()
    assert unfold(disp, Grid(SHAPE)) == UnfoldResult(remaining_voxels=(determinant(disp_vox) <= 0).sum())
    assert torch.equal(disp, start)


def test_a_linear_motion_is_kept_up_to_the_border() -> None:
    """Smoothing towards a constant would flatten a half turn at the border, and a flattened half turn is singular."""
    disp_vox = turned(180)
    disp_vox[0, 20, 0, 0] += 4
    disp = torch.from_numpy(disp_vox.copy())
    done = unfold(disp, Grid(SHAPE))
    assert done.iterations == 1
    # two means of three voxels leave 1/3 of a single one along an axis, and 1/2 at its end; of slopes of 2 within 2/3
    # voxel of the border, far less than a hundredth is due to the fit
    assert np.abs(disp.numpy() - turned(180)).max() == pytest.approx(4 * (1 / 3) * (1 / 2) * (1 / 2), abs=0.01)


@pytest.mark.parametrize("least", [0.001, 0.1, 0.3])
def test_the_bound(least: float) -> None:
    disp = torch.from_numpy(kicked(12))
    assert determinant(disp.numpy()).min() < least
    unfold(disp, Grid(SHAPE), min_determinant=least)
    assert determinant(disp.numpy()).min() > least * 0.95  # the linear motion shrinks a little


def test_folds_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = torch.from_numpy(FOLDED["a region"]), torch.from_numpy(FOLDED["a region"])
    whole, cut = whole.clone(), cut.clone()
    start = cut.clone()
    unfold(whole, Grid(SHAPE))
    monkeypatch.setattr(unfold_module, "_BLOCK_VOXELS", 7)
    done = unfold(cut, Grid(SHAPE))
    assert determinant(cut.numpy()).min() > 0
    assert not torch.equal(cut, whole)  # it was cut
    change = (cut - start).norm(dim=0)
    assert done.changed_voxels == int((change > 0).sum())
    assert done.max_change_mm == pytest.approx(float(change.max()), rel=1e-9)


def test_other_memory_and_gradients() -> None:
    disp = torch.from_numpy(kicked(12))
    strided = disp.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2).requires_grad_()
    done = unfold(strided, Grid(SHAPE))
    assert done == unfold(disp, Grid(SHAPE))
    assert torch.equal(strided, disp)


def test_half_precision() -> None:
    disp = torch.from_numpy(kicked(12)).half()
    assert unfold(disp, Grid(SHAPE)).remaining_voxels == 0
    assert determinant(disp.double().numpy()).min() > 0


@pytest.mark.parametrize("seed", [*range(5), 616])
def test_folds_that_arise_just_beyond_what_is_smoothed(seed: int) -> None:
    """Random lines; of the first 3000 only number 616 depends on a second look at the voxels next to those changed."""
    rng = np.random.default_rng(seed)
    slopes = ndimage.gaussian_filter1d(rng.normal(size=60), rng.uniform(0.3, 2), mode="wrap")
    slopes *= rng.uniform(0.8, 1.4) / slopes.std()
    line = np.cumsum(slopes) - np.linspace(0, slopes.sum(), 60)
    disp = torch.from_numpy(np.stack([line, 0 * line, 0 * line]).reshape(3, 60, 1, 1))
    assert unfold(disp, Grid((60, 1, 1))).remaining_voxels == 0
    assert determinant(disp.numpy()).min() > 0


def test_autocast_changes_nothing() -> None:
    fields = [torch.from_numpy(FOLDED["few voxels"]).float() for _ in range(2)]
    unfold(fields[0], Grid((5, 4, 6)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        unfold(fields[1], Grid((5, 4, 6)))
    assert torch.equal(*fields)


@settings(deadline=None, max_examples=15, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(1, 30)] * 3),
    sigma=st.floats(1, 8),
    steepness=st.floats(0.1, 2),
    seed=st.integers(0, 99),
)
def test_any_smooth_motion(shape: Shape, sigma: float, steepness: float, seed: int) -> None:
    disp_vox = wavy(shape, sigma, steepness * sigma, seed)
    disp = torch.from_numpy(disp_vox.copy())
    done = unfold(disp, Grid(shape))
    assert (determinant(disp.numpy()).min() > 0) == (done.remaining_voxels == 0)
    assert done.remaining_voxels == 0
    assert (done == UnfoldResult()) == (disp.numpy() == disp_vox).all()
