"""The discrete stage as a whole."""

from __future__ import annotations

from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pairwise import pairwise

from convexadam.discrete import ConvexSearch
from convexadam.errors import ConfigError


def _shifted(
    shape: tuple[int, int, int],
    shift: tuple[float, float, float],
    *,
    sigma: float = 3.0,
    channels: int = 3,
    seed: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fixed and moving features of one smooth function, with ``moving(x + shift) = fixed(x)``."""
    ticks = oracles.indices(shape)
    moved = ticks - np.array(shift).reshape(3, 1, 1, 1)
    fixed = oracles.blobs(ticks, shape, channels=channels, sigma=sigma, seed=seed)
    moving = oracles.blobs(moved, shape, channels=channels, sigma=sigma, seed=seed)
    return torch.from_numpy(fixed), torch.from_numpy(moving)


def _constant(shift: tuple[float, float, float], like: torch.Tensor) -> torch.Tensor:
    return torch.tensor(shift, dtype=like.dtype).reshape(3, 1, 1, 1).expand_as(like)


SHIFTS = [
    ((20, 18, 16), 2, 2, (4.0, -2.0, 2.0)),
    ((21, 19, 17), 2, 2, (-2.0, 4.0, -4.0)),  # sizes that are no multiple of the spacing
    ((20, 17, 25), (2, 3, 4), (2, 1, 1), (-4.0, 3.0, 4.0)),  # spacing and radius per axis
]


@pytest.mark.parametrize(("shape", "spacing", "radius", "shift"), SHIFTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_translation_is_found_up_to_the_border(
    shape: tuple[int, int, int], spacing: Any, radius: Any, shift: tuple[float, float, float], dtype: torch.dtype
) -> None:
    # Regression: without inverse consistency the published search returns displacements in control points; sizes that
    # are no multiple of the spacing shift its result; zero padding makes the field vanish at the border.
    fixed, moving = _shifted(shape, shift)
    search = ConvexSearch(spacing=spacing, radius=radius, inverse_consistency=0, parabolic_fit=False)
    found = search(fixed.to(dtype), moving.to(dtype))
    assert found.shape == (3, *shape)
    assert found.dtype == dtype
    # The true displacement costs nothing, and each control point has a neighbour for which it is within the volume, so
    # that all choose it. The remaining error is the rounding of seven means over three axes, three products each, and
    # of the interpolation, of numbers up to 4.
    torch.testing.assert_close(found, _constant(shift, found), rtol=0, atol=4 * 8 * 9 * torch.finfo(dtype).eps)


@pytest.mark.parametrize(("shape", "spacing", "radius", "shift"), SHIFTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_consistency_keeps_a_translation(
    shape: tuple[int, int, int], spacing: Any, radius: Any, shift: tuple[float, float, float], dtype: torch.dtype
) -> None:
    fixed, moving = _shifted(shape, shift)
    found = ConvexSearch(spacing=spacing, radius=radius, parabolic_fit=False)(fixed.to(dtype), moving.to(dtype))
    # The backward search has the same costs as the forward one, so that it is exact up to the border as well. The error
    # is, as above, the rounding of either field; fifteen times, half of the sum of both, each sampled with some ten
    # roundings of the interpolation.
    allowed = (4 * 8 * 9 + 15 * 4 * 10) * torch.finfo(dtype).eps
    torch.testing.assert_close(found, _constant(shift, found), rtol=0, atol=allowed)


FRACTIONS = [(2.8, -1.2, 0.9), (1.0, -0.9, 2.7), (-3.3, 0.6, 1.1)]


@pytest.mark.parametrize("shift", FRACTIONS)
@pytest.mark.parametrize("iterations", [0, 15])
def test_subcell_refinement_reduces_the_error_of_a_fractional_translation(
    shift: tuple[float, float, float], iterations: int
) -> None:
    fixed, moving = _shifted((20, 18, 16), shift)
    errors = []
    for parabolic_fit in (False, True):
        search = ConvexSearch(spacing=2, radius=2, inverse_consistency=iterations, parabolic_fit=parabolic_fit)
        found = search(fixed, moving)
        inner = found[:, 4:-4, 4:-4, 4:-4]  # two control points from the border
        errors.append((inner - _constant(shift, inner)).abs().mean())
    assert errors[1] < 0.5 * errors[0]
    assert torch.equal(ConvexSearch(spacing=2, radius=2, inverse_consistency=iterations)(fixed, moving), found)


@pytest.mark.parametrize(("shape", "spacing", "radius", "shift"), SHIFTS)
def test_subcell_refinement_changes_a_whole_translation_by_at_most_half_a_control_point(
    shape: tuple[int, int, int], spacing: Any, radius: Any, shift: tuple[float, float, float]
) -> None:
    # all choose the true displacement; a parabola through it, and means of these, are off by at most half a step
    fixed, moving = _shifted(shape, shift)
    found = ConvexSearch(spacing=spacing, radius=radius, inverse_consistency=0, coupling_weights=())(fixed, moving)
    steps = spacing if isinstance(spacing, tuple) else (spacing,) * 3
    reach = radius if isinstance(radius, tuple) else (radius,) * 3
    for axis, (s, r) in enumerate(zip(steps, reach, strict=True)):
        error = (found[axis] - shift[axis]).abs().max()
        assert error <= (1e-10 if abs(shift[axis]) == s * r else s / 2)  # no parabola at the border of the window


def _box(radius: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    return [step for _, step in oracles.labels(radius)]


@pytest.mark.parametrize(
    ("weighted", "iterations", "window", "parabolic_fit"),
    pairwise([False, True], [0, 3], ["box", "ball"], [False, True]),
)
def test_equals_the_naive_steps_in_their_order(
    weighted: bool, iterations: int, window: Any, parabolic_fit: bool
) -> None:
    shape, spacing, radius = (9, 13, 8), (2, 3, 2), (1, 1, 2)
    fixed, moving = oracles.noise(2, *shape), oracles.noise(2, *shape, seed=1)
    weights = [oracles.uniform(*shape, seed=s) for s in (2, 3)] if weighted else [None, None]
    if weighted:
        weights[0][:4, :6] = 0
        weights[1][5:] = 0
    search = ConvexSearch(
        spacing=spacing, radius=radius, window=window, inverse_consistency=iterations, parabolic_fit=parabolic_fit
    )
    found = search(fixed, moving, fixed_weight=weights[0], moving_weight=weights[1])
    wf, wm = (None if w is None else w.numpy() for w in weights)
    f, m = (oracles.pool(t.numpy(), spacing, w) for t, w in ((fixed, wf), (moving, wm)))
    f_weight, m_weight = (None if w is None else oracles.pool(w[None], spacing)[0] for w in (wf, wm))
    # the search in each direction has its own costs
    costs = oracles.cost_volume(f, m, radius, f_weight, m_weight), oracles.cost_volume(m, f, radius, m_weight, f_weight)
    far = [sum((s / r) ** 2 for s, r in zip(d, radius, strict=True)) > 1 for d in _box(radius)]
    corner = np.array([window == "ball" and outside for outside in far])
    for cost in costs:
        cost.reshape(-1, *cost.shape[3:])[corner] = np.inf  # excluded from the mean of the others
    filled = [oracles.fill_without_evidence(c) for c in costs]
    for cost in filled:
        cost.reshape(-1, *cost.shape[3:])[corner] = 1e9  # never chosen
    both = (oracles.coupled_convex(c, parabolic_fit=parabolic_fit) for c in filled)
    field, _ = oracles.inverse_consistency(*both, iterations)
    expected = oracles.control_points_to_voxels(field * np.array(spacing).reshape(3, 1, 1, 1), spacing, shape)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-10)


def test_exchanging_the_images_changes_the_sign() -> None:
    fixed, moving = _shifted((20, 18, 16), (2.0, 0.0, -4.0))
    search = ConvexSearch(spacing=2, radius=2, inverse_consistency=0, parabolic_fit=False)
    torch.testing.assert_close(search(moving, fixed), -search(fixed, moving), rtol=0, atol=1e-10)


def test_settings_in_mm_equal_those_in_voxels() -> None:
    fixed, moving = _shifted((20, 18, 16), (4.0, -2.0, 3.0))
    # voxels of 1.5 x 3 x 2 mm: 6 mm are 4, 2 and 3 voxels; 12 mm are two control points
    whole = {"parabolic_fit": False}
    in_mm = ConvexSearch(spacing=6.0, radius=12.0, unit="mm", **whole)(fixed, moving, voxel_mm=(1.5, 3.0, 2.0))
    scale_to_voxels = ConvexSearch(spacing=(4, 2, 3), radius=2, **whole)(fixed, moving)
    assert torch.equal(in_mm, scale_to_voxels)
    torch.testing.assert_close(in_mm, _constant((4.0, -2.0, 3.0), in_mm), rtol=0, atol=1e-10)
    # with spacing in voxels the size of a voxel does not matter
    search = ConvexSearch(spacing=(4, 2, 3), radius=2, **whole)
    assert torch.equal(search(fixed, moving, voxel_mm=(1.5, 3.0, 2.0)), scale_to_voxels)


def test_the_control_grid() -> None:
    mm = ConvexSearch(spacing=(4.0, 4.0, 10.0), radius=(9.0, 20.0, 1.0), unit="mm")
    # 4 mm in voxels of 1, 3 and 5 mm: 4, 1 (of 3 mm) and 2; radius 9 / 4, 20 / 3 and 1 / 10 control points, rounded up
    assert mm.control_grid((40, 40, 40), (1.0, 3.0, 5.0)) == ((4, 1, 2), (3, 7, 1))
    # limited by the volume: at least one control point, and a radius no longer than from one end to the other
    assert ConvexSearch(spacing=6, radius=4).control_grid((60, 13, 4)) == ((6, 6, 4), (4, 1, 0))
    assert ConvexSearch(spacing=0.5, radius=1.0, unit="mm").control_grid((8, 8, 8), (1.0, 2.0, 0.5))[0] == (1, 1, 1)


def test_weights_exclude_a_corrupted_part() -> None:
    shape, shift = (20, 18, 16), (4.0, -2.0, 2.0)
    fixed, moving = _shifted(shape, shift)
    search = ConvexSearch(spacing=2, radius=2, inverse_consistency=0, parabolic_fit=False)
    truth = _constant(shift, fixed[:3])
    for name in ("fixed", "moving"):
        corrupted, weight = {"fixed": fixed.clone(), "moving": moving.clone()}, torch.ones(shape, dtype=torch.float64)
        part = (slice(6, 14), slice(6, 12), slice(4, 12))
        corrupted[name][(slice(None), *part)] = 5 * oracles.noise(3, 8, 6, 8, seed=7)
        weight[part] = 0
        plain = search(corrupted["fixed"], corrupted["moving"])
        weighted = search(corrupted["fixed"], corrupted["moving"], **{f"{name}_weight": weight})
        # the corrupted part has 4 x 3 x 4 control points; filters of radius two still reach the rest from its middle
        torch.testing.assert_close(weighted, truth, rtol=0, atol=1e-10)
        assert (plain - truth).abs().max() > 1


def test_without_weight_or_contrast_the_displacement_is_zero() -> None:
    fixed, moving = oracles.noise(2, 12, 10, 8), oracles.noise(2, 12, 10, 8, seed=1)
    empty = torch.zeros(12, 10, 8, dtype=torch.float64)
    search = ConvexSearch(spacing=2, radius=1)
    assert not search(fixed, moving, fixed_weight=empty).any()
    assert not search(fixed, moving, moving_weight=empty).any()
    constant = torch.ones(2, 12, 10, 8)
    assert not search(constant, constant).any()
    assert not search(constant, 3 * constant).any()


@pytest.mark.parametrize("shape", [(12, 12, 3), (1, 9, 8), (1, 1, 1), (5, 4, 2)])
def test_thin_volumes(shape: tuple[int, int, int]) -> None:
    found = ConvexSearch()(oracles.noise(1, *shape), oracles.noise(1, *shape, seed=1))
    assert found.shape == (3, *shape)
    assert bool(found.isfinite().all())


def test_inputs_are_not_modified() -> None:
    fixed, moving, weight = oracles.noise(2, 9, 8, 7), oracles.noise(2, 9, 8, 7, seed=1), oracles.uniform(9, 8, 7)
    before = [t.clone() for t in (fixed, moving, weight)]
    ConvexSearch(spacing=2, radius=1)(fixed, moving, fixed_weight=weight, moving_weight=weight)
    assert all(torch.equal(a, b) for a, b in zip(before, (fixed, moving, weight), strict=True))


@settings(deadline=None, max_examples=5, derandomize=True)
@given(seed=st.integers(0, 999), axes=st.permutations(range(3)))
def test_swapping_axes_swaps_the_field(seed: int, axes: list[int]) -> None:
    fixed, moving = oracles.noise(1, 6, 7, 8, seed=seed), oracles.noise(1, 6, 7, 8, seed=seed + 1)
    spacing, radius = (2, 1, 3), (1, 2, 1)
    turned = [t.permute(0, *(a + 1 for a in axes)) for t in (fixed, moving)]
    expected = ConvexSearch(spacing=spacing, radius=radius)(fixed, moving)[axes].permute(0, *(a + 1 for a in axes))
    (si, sj, sk), (ri, rj, rk) = ([v[a] for a in axes] for v in (spacing, radius))
    found = ConvexSearch(spacing=(si, sj, sk), radius=(ri, rj, rk))(*turned)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"spacing": 0}, "spacing"),
        ({"spacing": (2, 2)}, "spacing"),
        ({"spacing": (2, 2, -1)}, "spacing"),
        ({"spacing": float("nan")}, "spacing"),
        ({"spacing": "6"}, "spacing"),
        ({"spacing": 2.5}, r"spacing must be a whole number of voxels, got 2\.5; .*unit=\"mm\""),
        ({"radius": 0}, "radius"),
        ({"radius": float("inf")}, "radius"),
        ({"radius": 1.5}, r"radius must be a whole number .*, got 1\.5; .*unit=\"mm\""),
        ({"radius": (1, 2, 3, 4)}, "radius"),
        ({"spacing": 0.0, "unit": "mm"}, "spacing"),
        ({"radius": -3.0, "unit": "mm"}, "radius"),
        ({"window": "sphere"}, "window must be one of 'box', 'ball', got 'sphere'"),
        ({"parabolic_fit": 1}, "parabolic_fit must be True or False, got 1"),
        ({"coupling_weights": 0.1}, r"coupling_weights must be a tuple of numbers, got 0\.1"),
        ({"unit": "cm"}, "unit"),
        ({"spacing": True}, "spacing"),
        ({"radius": (1, 2, True)}, "radius"),
        ({"inverse_consistency": -1}, "inverse_consistency"),
        ({"inverse_consistency": 1.5}, "inverse_consistency"),
        ({"inverse_consistency": 2.0}, "inverse_consistency"),
        ({"inverse_consistency": True}, "inverse_consistency"),
        ({"coupling_weights": (0.1, -0.1)}, "coupling_weights"),
        ({"coupling_weights": (float("nan"),)}, "coupling_weights"),
        ({"coupling_weights": (float("inf"), 1.0)}, "coupling_weights"),
        ({"coupling_weights": (True,)}, "coupling_weights"),
        ({"coupling_weights": ("1",)}, "coupling_weights"),
    ],
)
def test_unusable_settings(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the run-time check of annotations, which only the tests have and which would raise first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        ConvexSearch(**setting)


def test_numbers_of_numpy_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    fixed, moving = oracles.noise(2, 9, 8, 7), oracles.noise(2, 9, 8, 7, seed=1)
    options: Any = {
        "spacing": np.int64(2),
        "radius": (np.int16(1), 2, np.float32(1)),
        "inverse_consistency": np.uint8(2),
    }
    found = ConvexSearch(**options, coupling_weights=(np.float64(0.5),))(fixed, moving)
    expected = ConvexSearch(spacing=2, radius=(1, 2, 1), inverse_consistency=2, coupling_weights=(0.5,))(fixed, moving)
    assert torch.equal(found, expected)
