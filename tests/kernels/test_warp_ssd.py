"""Squared difference under a displacement, its gradient and curvature, against naive loops and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam.kernels.warp_ssd import overlap_weight, prepare_ssd, ssd, warp_ssd

SHAPES = [(1, 1, 1), (1, 5, 3), (5, 7, 6), (7, 3, 11)]


def _pair(shape: tuple[int, int, int], channels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return oracles.noise(channels, *shape, seed=seed), oracles.noise(channels, *shape, seed=seed + 1)


def _off_kinks(shape: tuple[int, int, int], seed: int = 0) -> torch.Tensor:
    """Displacements of up to two nodes, away from integers (kinks) and from half a node (the field of view's end)."""
    whole = np.random.default_rng(seed).integers(-2, 2, (3, *shape))
    return torch.from_numpy(whole + oracles.uniform(3, *shape, seed=seed, low=0.05, high=0.45).numpy())


def _numpy(*tensors: torch.Tensor | None) -> list[np.ndarray | None]:
    return [None if t is None else t.numpy() for t in tensors]


@pytest.mark.parametrize(
    ("shape", "channels", "weighted"), pairwise(SHAPES, [1, 3], ["none", "fixed", "moving", "both"])
)
def test_value_and_gradient_equal_naive_loops(shape: tuple[int, int, int], channels: int, weighted: str) -> None:
    fixed, moving = _pair(shape, channels)
    displacement = _off_kinks(shape)
    fixed_weight = oracles.uniform(*shape, seed=3) if weighted in ("fixed", "both") else None
    moving_weight = oracles.uniform(*shape, seed=4) if weighted in ("moving", "both") else None
    value, gradient = warp_ssd(fixed, moving, displacement, fixed_weight=fixed_weight, moving_weight=moving_weight)
    f, m, u, wf, wm = _numpy(fixed, moving, displacement, fixed_weight, moving_weight)
    weights = oracles.ssd_weights(u, wf, wm)
    assert value.item() == pytest.approx(oracles.ssd(f, m, u, weights), rel=1e-12, abs=1e-14)
    # Between kinks each term is a quadratic of one component, for which central differences are exact up to
    # rounding: 1e-16 of terms of order 1e2, over a step of 1e-4.
    expected = torch.from_numpy(oracles.ssd_gradient(f, m, u, weights))
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("outlier", [None, 5.0])
def test_gradient_is_that_of_central_differences_of_the_value(outlier: float | None) -> None:
    fixed, moving = _pair((3, 4, 5), 2, seed=5)
    displacement, weight = _off_kinks((3, 4, 5), seed=5), oracles.uniform(3, 4, 5, seed=6)
    options: dict[str, Any] = {"fixed_weight": weight, "outlier": outlier}
    _, gradient = prepare_ssd(fixed, moving, **options)(displacement)
    step = 1e-5
    for at in [(0, 0, 0, 0), (1, 2, 3, 4), (2, 1, 2, 2), (0, 2, 0, 4), (2, 0, 3, 1)]:
        up, down = displacement.clone(), displacement.clone()
        up[at] += step
        down[at] -= step
        rise = ssd(fixed, moving, up, **options) - ssd(fixed, moving, down, **options)
        # Rounding of the value (about 1e-15) over the step. With slopes of length b, the third derivative of
        # r / (1 + r / t) is at most 15 b^3 / sqrt(t); for slopes of 6 and 60 nodes 25, which counts 1e-10 / 6.
        assert (rise / (2 * step)).item() == pytest.approx(gradient[at].item(), abs=1e-9)


@pytest.mark.parametrize("outlier", [None, 2.0])
def test_gradcheck(outlier: float | None) -> None:
    fixed, moving = _pair((3, 4, 2), 2, seed=7)
    displacement = _off_kinks((3, 4, 2), seed=7).requires_grad_()
    weight = oracles.uniform(3, 4, 2, seed=8)
    assert torch.autograd.gradcheck(lambda u: ssd(fixed, moving, u, fixed_weight=weight, outlier=outlier), displacement)


def test_float32_errs_no_more_than_rounding_explains() -> None:
    shape, channels = (5, 7, 6), 12
    fixed, moving = (t.float() for t in _pair(shape, channels))
    displacement = _off_kinks(shape).float()
    value, gradient = warp_ssd(fixed, moving, displacement)
    assert value.dtype == gradient.dtype == torch.float32
    f, m, u = _numpy(fixed.double(), moving.double(), displacement.double())
    weights = oracles.ssd_weights(u)
    expected = oracles.ssd(f, m, u, weights)
    eps, largest = torch.finfo(torch.float32).eps, max(fixed.abs().max().item(), moving.abs().max().item())
    # A sampled value errs by what its position does (four roundings at the size of each axis, steps of 2 max) and by
    # its eight products; a residual of at most 2 max is squared and summed over the channels.
    sampled = eps * largest * (3 * 2 * 4 * (max(shape) + 2) + 16)
    assert abs(value.item() - expected) <= channels * 2 * (2 * largest) * sampled + 500 * eps * expected
    # Gradient: 2 / N sum_c r_c dM_c, |r| and |dM| at most 2 max, either wrong by (twice) the above.
    allowed = 2 / weights.size * channels * (2 * largest) * 3 * sampled + eps
    error = (gradient.double() - torch.from_numpy(oracles.ssd_gradient(f, m, u, weights))).abs().max().item()
    assert error <= allowed < 0.01 * gradient.abs().max().item()


def test_outside_the_field_of_view_there_is_no_evidence() -> None:
    fixed, moving = _pair((4, 5, 6), 2)
    displacement = torch.zeros(3, 4, 5, 6, dtype=torch.float64)
    displacement[1, :, 3:] = 9
    value, gradient = warp_ssd(fixed, moving, displacement)
    kept = (fixed - moving).square().sum(0)[:, :3].sum() / fixed[0].numel()
    torch.testing.assert_close(value, kept)
    assert not gradient[:, :, 3:].any()
    assert gradient[:, :, :3].any()


@pytest.mark.parametrize("seed", [0, 1])
def test_evidence_with_gaps_equals_naive_loops(seed: int) -> None:
    shape = (7, 6, 9)
    displacement = _off_kinks(shape, seed=seed)
    displacement[:, :2] = displacement[:, :2].round()  # reads single nodes
    fixed_weight, moving_weight = (oracles.uniform(*shape, seed=s) for s in (seed + 2, seed + 3))
    moving_weight[oracles.uniform(*shape, seed=seed + 4) < 0.1] = 0
    found = overlap_weight(displacement, fixed_weight, moving_weight)
    expected = oracles.ssd_weights(displacement.numpy(), fixed_weight.numpy(), moving_weight.numpy())
    # Sampled weights of at most 1, at positions right to a few eps of the size of an axis.
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-13)
    without_gaps = oracles.inside(displacement.numpy() + oracles.indices(shape), shape)
    assert 0.1 < (expected > 0).mean() < 0.8 * without_gaps.mean()  # the gaps matter, and leave something
    features = _pair(shape, 2, seed=seed)
    value, gradient = warp_ssd(*features, displacement, fixed_weight=fixed_weight, moving_weight=moving_weight)
    f, m, u = (t.numpy() for t in (*features, displacement))
    assert value.item() == pytest.approx(oracles.ssd(f, m, u, expected), rel=1e-12)
    smooth = torch.ones(3, *shape, dtype=torch.bool)
    smooth[:, :2] = False  # whole displacements lie on kinks
    error = (gradient - torch.from_numpy(oracles.ssd_gradient(f, m, u, expected))).abs()
    assert error[smooth].max() < 1e-9  # as above


def test_a_moving_feature_counts_only_where_all_eight_neighbours_have_evidence() -> None:
    shape = (4, 4, 4)
    for corner in np.ndindex(2, 2, 2):
        weight = torch.ones(shape)
        weight[tuple(c + 1 for c in corner)] = 0  # one of the neighbours of 1.5
        displacement = torch.zeros(3, *shape)
        displacement[:, 1, 1, 1] = 0.5
        displacement[:, 2, 2, 2] = -0.2
        assert overlap_weight(displacement, None, weight)[1, 1, 1] == 0
        # 1.8 reads 1 and 2 along each axis, so that the same node is missed
        assert overlap_weight(displacement, None, weight)[2, 2, 2] == 0
        displacement[:, 1, 1, 1] = torch.tensor([0.0 if c else 1.0 for c in corner])  # the opposite neighbour alone
        assert overlap_weight(displacement, None, weight)[1, 1, 1] == 1
    # The weight's size does not matter, but whether there is any; and it is read where the features are.
    little = torch.full(shape, 1e-6)
    little[0, 0, 0] = 3e-6
    displacement = torch.zeros(3, *shape)
    displacement[0, 0, 0, 0] = 0.5
    found = overlap_weight(displacement, 2 * torch.ones(shape), little)
    assert found[0, 0, 0].item() == pytest.approx(4e-6)
    assert found[1, 1, 1].item() == pytest.approx(2e-6)
    assert torch.equal(overlap_weight(displacement, None, None), torch.ones(shape))


def test_evidence_leaves_no_graph_and_its_inputs_alone() -> None:
    displacement = _off_kinks((3, 4, 2)).requires_grad_()
    weights = oracles.uniform(3, 4, 2, seed=8), oracles.uniform(3, 4, 2, seed=9)
    before = [t.detach().clone() for t in (displacement, *weights)]
    assert not overlap_weight(displacement, *weights).requires_grad
    assert all(torch.equal(a, b) for a, b in zip(before, (displacement, *weights), strict=True))


def test_equal_features_cost_nothing() -> None:
    fixed, _ = _pair((3, 5, 4), 2)
    value, gradient = warp_ssd(fixed, fixed, torch.zeros(3, 3, 5, 4, dtype=torch.float64))
    # Positions may be wrong by an eps or two of the axis' size, so values by 1e-15 and squares by 1e-30.
    assert value.item() < 1e-28
    assert gradient.abs().max() < 1e-13


def test_non_contiguous_inputs() -> None:
    fixed, moving = oracles.noise(5, 7, 6, 3).movedim(-1, 0), oracles.noise(3, 7, 5, 6).transpose(1, 2)
    displacement = _off_kinks((5, 6, 7)).transpose(2, 3)
    weight = oracles.uniform(6, 7, 5).permute(2, 1, 0)
    assert not any(t.is_contiguous() for t in (fixed, moving, displacement, weight))
    found = warp_ssd(fixed, moving, displacement, fixed_weight=weight, moving_weight=weight)
    plain = [t.contiguous() for t in (fixed, moving, displacement)]
    kept = weight.contiguous()
    expected = warp_ssd(*plain, fixed_weight=kept, moving_weight=kept)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_needs_no_gradient_mode_and_leaves_no_graph() -> None:
    fixed, moving = _pair((3, 4, 5), 1)
    displacement = _off_kinks((3, 4, 5))
    before = displacement.clone()
    expected = warp_ssd(fixed, moving, displacement)
    with torch.no_grad():
        value, gradient = warp_ssd(fixed, moving, displacement)
    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1])
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert not displacement.requires_grad
    assert torch.equal(displacement, before)


@pytest.mark.parametrize(("shape", "channels", "outlier"), pairwise(SHAPES, [1, 3], [0.5, 20.0]))
def test_value_and_gradient_with_outliers_equal_naive_loops(
    shape: tuple[int, int, int], channels: int, outlier: float
) -> None:
    fixed, moving = _pair(shape, channels)
    displacement, weight = _off_kinks(shape), oracles.uniform(*shape, seed=3)
    value, gradient = prepare_ssd(fixed, moving, moving_weight=weight, outlier=outlier)(displacement)
    f, m, u, wm = _numpy(fixed, moving, displacement, weight)
    weights = oracles.ssd_weights(u, None, wm)
    assert value.item() == pytest.approx(oracles.ssd(f, m, u, weights, outlier), rel=1e-12, abs=1e-14)
    # By the chain rule it is a gradient without outliers, for which central differences are exact (see above).
    expected = oracles.ssd_gradient(f, m, u, oracles.robust_weights(f, m, u, weights, outlier))
    torch.testing.assert_close(gradient, torch.from_numpy(expected), rtol=1e-9, atol=1e-9)


def test_an_outlier_costs_the_same_wherever_it_is_moved() -> None:
    shape, outlier = (4, 5, 6), 0.25
    fixed, moving = _pair(shape, 1)
    displacement = _off_kinks(shape)
    seen = torch.from_numpy(oracles.ssd_weights(displacement.numpy())).mean()
    value, gradient = prepare_ssd(fixed + 1e6, moving, outlier=outlier)(displacement)
    # r / (1 + r / t) is t but for t^2 / r. Its slope is that of r, 2 sqrt(r) times those of the features, by t^2 / r^2.
    assert value.item() == pytest.approx(outlier * seen.item(), rel=1e-11)
    assert gradient.abs().max() < 1e-15
    plain, allowing_all = (prepare_ssd(fixed, moving, outlier=t)(displacement) for t in (None, 1e15))
    for a, b in zip(plain, allowing_all, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("shape", "channels", "weighted", "outlier"),
    pairwise(SHAPES, [1, 3], ["none", "fixed", "moving", "both"], [None, 3.0]),
)
def test_curvature_is_a_third_of_the_trace_of_naive_blocks(
    shape: tuple[int, int, int], channels: int, weighted: str, outlier: float | None
) -> None:
    fixed, moving = _pair(shape, channels)
    displacement = _off_kinks(shape)
    fixed_weight = oracles.uniform(*shape, seed=3) if weighted in ("fixed", "both") else None
    moving_weight = oracles.uniform(*shape, seed=4) if weighted in ("moving", "both") else None
    comparison = prepare_ssd(fixed, moving, fixed_weight=fixed_weight, moving_weight=moving_weight, outlier=outlier)
    _, found = comparison.curvature(displacement)
    f, m, u, wf, wm = _numpy(fixed, moving, displacement, fixed_weight, moving_weight)
    weights = oracles.ssd_weights(u, wf, wm)
    if outlier is not None:
        weights = oracles.robust_weights(f, m, u, weights, outlier)
    # Between kinks a warped feature is linear in one component: central differences are exact up to rounding, 1e-15
    # over a step of 1e-4.
    expected = torch.from_numpy(oracles.third_of_trace(oracles.gauss_newton(m, u, weights)))
    torch.testing.assert_close(found[3], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("diffusion", [0.0, 0.7])
@pytest.mark.parametrize("outlier", [None, 3.0])
def test_curvature_comes_with_the_value_and_gradient_of_a_call(diffusion: float, outlier: float | None) -> None:
    shape = (5, 7, 6)
    displacement, weight = _off_kinks(shape).requires_grad_(), oracles.uniform(*shape, seed=3)
    before = displacement.detach().clone()
    comparison = prepare_ssd(*_pair(shape, 3), fixed_weight=weight, moving_weight=weight, outlier=outlier)
    value, found = comparison.curvature(displacement, diffusion=diffusion)
    expected = comparison(displacement, diffusion=diffusion)
    assert torch.equal(value, expected[0])
    assert torch.equal(comparison.value(displacement).detach(), expected[0])
    assert torch.equal(found[:3], expected[1])
    assert torch.equal(found[3], comparison.curvature(displacement)[1][3])  # the roughness has no part in it
    assert not any(t.requires_grad for t in (value, found))
    assert torch.equal(displacement, before)
    out = torch.full((6, 7, 5, 4), torch.nan, dtype=torch.float64).permute(3, 2, 1, 0)
    assert comparison.curvature(displacement, diffusion=diffusion, out=out)[1] is out
    assert torch.equal(out, found)


def test_clamped_components_have_no_part_in_the_curvature() -> None:
    shape = (4, 5, 6)
    displacement = torch.full((3, *shape), 0.1, dtype=torch.float64)
    displacement[0, 0], displacement[1, :, -1], displacement[2, ..., -1] = -0.3, 0.4, 2.0
    ramp = torch.from_numpy(np.tensordot([[1.0, 2.0, 4.0]], oracles.indices(shape), 1))
    _, found = prepare_ssd(ramp, ramp).curvature(displacement)
    expected = torch.full(shape, 2 / 3 / 120, dtype=torch.float64)
    squares = torch.full(shape, 1.0 + 4 + 16, dtype=torch.float64)
    squares[[0, -1]] -= 1  # the last nodes lie 0.1 beyond the volume
    squares[:, -1] -= 4
    squares[..., -1] = 0  # outside the field of view
    torch.testing.assert_close(found[3], expected * squares, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_one_step_finds_the_shift_of_ramps(dtype: torch.dtype) -> None:
    shape = (6, 7, 8)
    # Orthogonal and of length 1.5: the blocks are multiples of the identity, and known from their trace.
    slopes = torch.tensor([[0.5, 1.0, 1.0], [1.0, 0.5, -1.0], [1.0, -1.0, 0.5]], dtype=dtype)
    shift = torch.tensor([0.3, -0.4, 0.25], dtype=dtype)
    nodes = torch.from_numpy(oracles.indices(shape)).to(dtype)
    moving = torch.tensordot(slopes, nodes, 1)
    fixed = torch.tensordot(slopes, nodes + shift[:, None, None, None], 1)
    start = oracles.uniform(3, *shape, low=-0.5, high=0.5).to(dtype)
    _, curved = prepare_ssd(fixed, moving).curvature(start)
    found = (start - curved[:3] / curved[3])[:, 1:-1, 1:-1, 1:-1]
    # A residual is wrong by some 16 roundings at the size of the features, a slope likewise, and the step by no more
    # than they, as slopes are longer than 1.
    allowed = 2 * 16 * torch.finfo(dtype).eps * moving.abs().max() * len(slopes)
    assert (found - shift[:, None, None, None]).abs().max() <= allowed
