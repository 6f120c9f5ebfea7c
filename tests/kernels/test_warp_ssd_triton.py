"""The Triton kernel of the squared difference against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from budget import assert_within_budget
from pairwise import pairwise

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.warp_ssd import reference
from convexadam.kernels.warp_ssd.triton import WarpSsd, overlap_weight, pack_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (3, 6, 10)]

Shape = tuple[int, int, int]


def _features(channels: int, shape: Shape, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    fixed, moving = (oracles.noise(channels, *shape, seed=s, dtype=torch.float32) for s in (seed, seed + 1))
    return fixed.to(DEVICE), moving.to(DEVICE)


def _off_kinks(shape: Shape, seed: int = 0) -> torch.Tensor:
    """Displacements of up to two nodes, away from integers (kinks) and from half a node (the field of view's end)."""
    rng = np.random.default_rng(seed)
    apart = rng.choice([-1.0, 1.0], (3, *shape)) * oracles.uniform(3, *shape, seed=seed, low=0.05, high=0.45).numpy()
    found = torch.from_numpy(rng.integers(-2, 3, (3, *shape)) + apart)
    return found.float().to(DEVICE)


def _weights(shape: Shape, seed: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Evidence with gaps."""
    fixed, moving = (oracles.uniform(*shape, seed=s).float() for s in (seed, seed + 1))
    moving[oracles.uniform(*shape, seed=seed + 2) < 0.1] = 0
    fixed[oracles.uniform(*shape, seed=seed + 3) < 0.1] = 0
    return fixed.to(DEVICE), moving.to(DEVICE)


def _fused(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    return WarpSsd(fixed, moving, storage=torch.float32, **options)(u, diffusion=diffusion)


def _reference(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    return reference.WarpSsd(fixed, moving, **options)(u, diffusion=diffusion)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels", [1, 3, 12, 17])
def test_errs_no_more_than_torch(shape: Shape, channels: int) -> None:
    options: dict[str, Any] = {"diffusion": 0.7}
    assert_within_budget(_fused, _reference, *_features(channels, shape), _off_kinks(shape), **options)


def _fused_curved(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    value, found = WarpSsd(fixed, moving, storage=torch.float32, **options).curvature(u, diffusion=diffusion)
    return value, found[:3], found[3]


def _reference_curved(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    value, found = reference.WarpSsd(fixed, moving, **options).curvature(u, diffusion=diffusion)
    return value, found[:3], found[3]


@pytest.mark.parametrize(
    ("shape", "channels", "weighted", "outlier"), pairwise(SHAPES, [1, 3, 12, 17], [False, True], [None, 2.5])
)
def test_curvature_errs_no_more_than_torch(shape: Shape, channels: int, weighted: bool, outlier: float | None) -> None:
    features, u = _features(channels, shape), _off_kinks(shape)
    weights = dict(zip(("fixed_weight", "moving_weight"), _weights(shape), strict=True)) if weighted else {}
    options: dict[str, Any] = {**weights, "outlier": outlier, "diffusion": 0.7}
    assert_within_budget(_fused_curved, _reference_curved, *features, u, **options)


@pytest.mark.parametrize("outlier", [None, 2.5])
def test_curvature_comes_with_the_value_and_gradient_of_a_call(outlier: float | None) -> None:
    shape = (5, 6, 7)
    features, u, (weight, _) = _features(17, shape), _off_kinks(shape), _weights(shape)
    comparison = WarpSsd(*features, storage=torch.float32, fixed_weight=weight, outlier=outlier)
    value, found = comparison.curvature(u, diffusion=0.7)
    expected = comparison(u, diffusion=0.7)
    assert torch.equal(value, expected[0])
    assert torch.equal(comparison.value(u), expected[0])
    assert torch.equal(found[:3], expected[1])
    assert not found[3, weight == 0].any()
    contiguous = torch.full((4, *shape), torch.nan, device=DEVICE)
    for out in (contiguous, torch.empty(7, 6, 5, 4, device=DEVICE).permute(3, 2, 1, 0)):
        assert comparison.curvature(u, diffusion=0.7, out=out)[1] is out
        assert torch.equal(out, found)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_curvature_is_0_along_axes_that_are_clamped(axis: int) -> None:
    shape = (4, 5, 6)
    u = torch.zeros(3, *shape, device=DEVICE)
    u[0, 0], u[1, :, -1], u[2, ..., -1] = -0.3, 0.4, 2.0
    ramp = torch.from_numpy(oracles.indices(shape)[axis][None]).float().to(DEVICE)
    _, _, trace = _fused_curved(ramp, ramp, u)
    assert not trace.movedim(axis, 0)[[0, -1]].any()  # the outer node itself, too
    assert (trace[1:-1, 1:-1, 1:-1] > 0).all()
    assert (trace[0, 1:-1, 1:-1] > 0).all() == (axis != 0)


@pytest.mark.parametrize("weighted", ["fixed", "moving", "both"])
def test_evidence_with_gaps(weighted: str) -> None:
    shape = (5, 6, 7)
    fixed_weight, moving_weight = _weights(shape)
    options = {
        "fixed_weight": fixed_weight if weighted in ("fixed", "both") else None,
        "moving_weight": moving_weight if weighted in ("moving", "both") else None,
    }
    u = _off_kinks(shape, seed=1)
    assert_within_budget(_fused, _reference, *_features(3, shape), u, **options)
    evidence = reference.overlap_weight(u, **options)
    assert 0 < (evidence > 0).float().mean() < 0.9  # the gaps matter, and leave something
    _, gradient = _fused(*_features(3, shape), u, **options)
    assert not gradient[:, evidence == 0].any()


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 6, 7), (3, 9, 35)])
@pytest.mark.parametrize("given", ["none", "fixed", "moving", "both"])
def test_evidence_alone(shape: Shape, given: str) -> None:
    fixed_weight, moving_weight = _weights(shape)
    weights = (
        fixed_weight if given in ("fixed", "both") else None,
        moving_weight if given in ("moving", "both") else None,
    )
    assert_within_budget(overlap_weight, reference.overlap_weight, _off_kinks(shape, seed=2), *weights)


def test_larger_than_a_box_along_each_axis() -> None:
    shape = (3, 5, 9)
    weights = dict(zip(("fixed_weight", "moving_weight"), _weights(shape), strict=True))
    assert_within_budget(_fused, _reference, *_features(2, shape), _off_kinks(shape), diffusion=0.3, **weights)


def test_roughness_alone() -> None:
    shape = (4, 5, 6)
    fixed, _ = _features(1, shape)
    zero, u = torch.zeros_like(fixed), _off_kinks(shape)
    loss, gradient = _fused(zero, zero, u, diffusion=2.0)
    assert loss == 0
    expected = 2 * reference.diffusion_gradient(u.double())
    # 18 sums and differences of numbers up to 4, scaled by 4 / (3 * 120)
    allowed = 18 * 8 * torch.finfo(torch.float32).eps * 4 / (3 * 120)
    torch.testing.assert_close(gradient.double(), expected, rtol=0, atol=allowed)


def test_positions_beyond_the_outer_nodes_hold_the_gradient_at_zero() -> None:
    shape = (4, 5, 6)
    u = torch.zeros(3, *shape, device=DEVICE)
    u[0, 0], u[1, :, -1], u[2, ..., -1] = -0.3, 0.4, 2.0
    loss, gradient = _fused(*_features(3, shape), u)
    expected, _ = _reference(*(f.double() for f in _features(3, shape)), u.double())
    # only the value: zero displacements lie on kinks
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert not gradient[0, 0].any()
    assert not gradient[1, :, -1].any()
    assert not gradient[..., -1].any()
    assert gradient[2, 1:3, 1:4, 1:5].all()


def test_non_contiguous_inputs_and_output() -> None:
    fixed, moving = _features(3, (5, 7, 6))
    fixed, moving = fixed.transpose(1, 3), moving.transpose(1, 3)
    u, weight = _off_kinks((6, 5, 7)).transpose(2, 3), _weights((5, 7, 6))[1].permute(2, 1, 0)
    out = torch.empty(6, 7, 5, 3, device=DEVICE).movedim(-1, 0)
    assert not any(t.is_contiguous() for t in (fixed, moving, u, weight, out))
    options = {"fixed_weight": weight, "moving_weight": weight}
    assert_within_budget(_fused, _reference, fixed, moving, u, **options)
    _, expected = _fused(fixed, moving, u, **options)
    _, found = WarpSsd(fixed, moving, storage=torch.float32, **options)(u, out=out)
    assert found is out
    assert torch.equal(found, expected)


def test_writes_where_it_is_told_and_leaves_its_inputs_alone() -> None:
    shape = (3, 4, 5)
    fixed, moving = _features(2, shape)
    u = _off_kinks(shape)
    before = [t.clone() for t in (fixed, moving, u)]
    comparison = WarpSsd(fixed, moving, storage=torch.float32)
    first, out = comparison(u), torch.full_like(u, float("nan"))
    second = comparison(u, out=out)
    assert second[1] is out
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, (fixed, moving, u), strict=True))


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("outlier", [None, 12.0])
def test_half_precision_keeps_eleven_bits_of_features_of_any_size(factor: float, outlier: float | None) -> None:
    shape = (3, 6, 10)
    fixed, moving = _features(12, shape)
    u = _off_kinks(shape)
    exact, slope, curvature = _reference_curved(fixed.double(), moving.double(), u.double(), outlier=outlier)
    limit = None if outlier is None else outlier * factor**2
    loss, curved = WarpSsd(factor * fixed, factor * moving, outlier=limit, storage=torch.float16).curvature(u)
    gradient, trace = curved[:3], curved[3]
    # A stored feature is wrong by 2^-11 of the power of two above the largest at most, a residual of at most
    # 2 max and a slope likewise by twice that, and each node's term is 2 / N times 12 products of the two.
    largest = float(max(fixed.abs().max(), moving.abs().max()))
    wrong = 2 * 2**-11 * 2 * largest
    assert abs(loss.item() / factor**2 - exact.item()) <= 12 * 2 * (2 * largest) * wrong
    allowed = 2 / u[0].numel() * 12 * 2 * (2 * largest) * wrong
    assert (gradient.double() / factor**2 - slope).abs().max() <= allowed
    assert (trace.double() / factor**2 - curvature).abs().max() <= allowed
    # and far less than that on the whole
    assert (gradient.double() / factor**2 - slope).norm() < 2e-3 * slope.norm()
    assert (trace.double() / factor**2 - curvature).norm() < 2e-3 * curvature.norm()


def test_maps_without_contrast_in_half_precision() -> None:
    zero = torch.zeros(1, 2, 3, 4, device=DEVICE)
    loss, gradient = WarpSsd(zero, zero, storage=torch.float16)(_off_kinks((2, 3, 4)))
    assert loss == 0
    assert not gradient.any()


@pytest.mark.parametrize("factor", [1e-3, 1.0, 300.0])
def test_errs_no_more_than_torch_with_packed_features(factor: float) -> None:
    fixed, moving = (factor * f for f in _features(5, (3, 4, 5)))
    maps = [fixed, moving]
    packed = pack_rows(maps)
    assert maps == []
    largest = torch.stack([fixed, moving]).abs().max()
    scale = packed[0].scale
    assert packed[1].scale is scale
    assert scale.log2() == scale.log2().round()
    assert 0.5 < largest / scale <= 1
    for rows, features in zip(packed, (fixed, moving), strict=True):
        assert rows.shape == features.shape
        assert rows.largest == largest
        torch.testing.assert_close(rows.unpack(), features, rtol=2**-11, atol=float(largest) * 2**-24)
    u = _off_kinks((3, 4, 5))
    value, gradient = WarpSsd(*packed)(u)
    expected, exact = WarpSsd(fixed, moving, storage=torch.float16)(u)
    assert torch.equal(value, expected)
    assert torch.equal(gradient, exact)


def test_nan_is_the_largest_value_of_packed_features() -> None:
    for number in range(2):
        maps = list(_features(2, (3, 4, 5)))
        maps[number] = maps[number].clone()
        maps[number][1, 2, 3, 4] = float("nan")
        assert pack_rows(maps)[0].largest.isnan()
