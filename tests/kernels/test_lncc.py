"""Local correlation under a displacement, its gradient and curvature, against naive loops and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam import use_backend
from convexadam.kernels.lncc import lncc, prepare_lncc
from convexadam.kernels.lncc.reference import normalise
from convexadam.kernels.warp_ssd import SimilarityTerm

SHAPES = [(1, 1, 1), (1, 5, 3), (5, 7, 6)]

Shape = tuple[int, int, int]


def _pair(shape: Shape, channels: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return 5 + 2 * oracles.noise(channels, *shape, seed=seed), -3 + oracles.noise(channels, *shape, seed=seed + 1)


def _off_kinks(shape: Shape, seed: int = 0) -> torch.Tensor:
    """Displacements of up to two nodes, away from integers (kinks) and from half a node (the field of view's end)."""
    whole = np.random.default_rng(seed).integers(-2, 2, (3, *shape))
    return torch.from_numpy(whole + oracles.uniform(3, *shape, seed=seed, low=0.05, high=0.45).numpy())


def _weights(shape: Shape, weighted: str) -> dict[str, torch.Tensor | None]:
    return {
        "fixed_weight": oracles.uniform(*shape, seed=3) if weighted in ("fixed", "both") else None,
        "moving_weight": oracles.uniform(*shape, seed=4) if weighted in ("moving", "both") else None,
    }


def _expected(
    pair: tuple[torch.Tensor, torch.Tensor], u: torch.Tensor, weights: dict[str, Any], *, floor: float, **options: Any
) -> tuple[Any, ...]:
    """Arguments of the oracle: both maps, displacement and weights, and the floors of each channel."""
    own = [None if w is None else w.numpy() for w in weights.values()]
    floors = [
        [floor * oracles.variance(channel.numpy(), w) for channel in maps] for maps, w in zip(pair, own, strict=True)
    ]
    given = (*(maps.numpy() for maps in pair), u.numpy(), oracles.ssd_weights(u.numpy(), *own))
    return given, {**options, "floors": list(zip(*floors, strict=True))}


@pytest.mark.parametrize(
    ("shape", "channels", "weighted", "radius"),
    pairwise(SHAPES, [1, 3], ["none", "fixed", "moving", "both"], [1, 2, 8]),
)
def test_value_equals_naive_loops(shape: Shape, channels: int, weighted: str, radius: int) -> None:
    pair, u, weights = _pair(shape, channels), _off_kinks(shape), _weights(shape, weighted)
    floor = 1e-3 if max(shape) > 1 else 1.0  # of a single node, the variance is none
    given, options = _expected(pair, u, weights, floor=floor, radius=radius)
    found = lncc(*pair, u, radius=radius, floor=floor, **weights)
    if max(shape) == 1:
        options["floors"] = [(1.0, 1.0)] * channels
    # Moments of numbers up to 5 deviations are right to 1e-14, over floors of 1e-3 at the least, which count squared.
    assert found.item() == pytest.approx(oracles.lncc(*given, **options), rel=1e-9, abs=1e-12)
    assert prepare_lncc(*pair, radius=radius, floor=floor, **weights)(u)[0].item() == found.item()


@pytest.mark.parametrize("weighted", ["none", "both"])
@pytest.mark.parametrize("channels", [1, 2])
def test_gradient_is_that_of_naive_loops(channels: int, weighted: str) -> None:
    shape, step = (3, 4, 5), 1e-4
    pair, u, weights = _pair(shape, channels), _off_kinks(shape), _weights(shape, weighted)
    given, options = _expected(pair, u, weights, floor=0.1, radius=1)
    _, gradient = prepare_lncc(*pair, radius=1, floor=0.1, **weights)(u)
    checked = [(0, 0, 0, 0), (1, 2, 3, 4), (2, 1, 2, 2), (0, 2, 0, 4), (2, 0, 3, 1), (1, 1, 1, 3)]
    slopes = []
    for at in checked:
        ends = []
        for sign in (1, -1):
            moved = given[2].copy()
            moved[at] += sign * step
            ends.append(oracles.lncc(given[0], given[1], moved, given[3], **options))
        slopes.append((ends[0] - ends[1]) / (2 * step))
    # Rounding is 1e-15 over the step, 1e-11. The third derivative is that of a quotient whose parts are quadratic, and
    # change by at most some 10 deviations a node over a floor of 0.1 (in squared deviations): 1e-8 / 6 of 60 of them.
    found = torch.stack([gradient[at] for at in checked])
    torch.testing.assert_close(found, torch.tensor(slopes, dtype=torch.float64), rtol=1e-6, atol=1e-7)
    assert found.abs().max() > 1e-3


def test_gradcheck() -> None:
    shape = (3, 4, 2)
    pair, u, weight = (
        _pair(shape, 2, seed=7),
        _off_kinks(shape, seed=7).requires_grad_(),
        oracles.uniform(*shape, seed=8),
    )
    assert torch.autograd.gradcheck(lambda v: lncc(*pair, v, radius=1, floor=0.1, fixed_weight=weight), u)


@pytest.mark.parametrize(("shape", "channels", "weighted"), pairwise([(1, 5, 3), (4, 5, 3)], [1, 3], ["none", "both"]))
def test_curvature_is_a_third_of_the_trace_of_naive_blocks(shape: Shape, channels: int, weighted: str) -> None:
    pair, u, weights = _pair(shape, channels), _off_kinks(shape), _weights(shape, weighted)
    given, options = _expected(pair, u, weights, floor=0.01, radius=1)
    _, found = prepare_lncc(*pair, radius=1, floor=0.01, **weights).curvature(u)
    # Slopes of the oracle are right to 1e-11 (rounding over a step of 1e-4), moments to 1e-12 of the floor.
    expected = torch.from_numpy(oracles.third_of_trace(oracles.lncc_blocks(*given, **options)))
    torch.testing.assert_close(found[3], expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("diffusion", [0.0, 0.7])
def test_curvature_comes_with_the_value_and_gradient_of_a_call(diffusion: float) -> None:
    shape = (5, 7, 6)
    pair, u, weights = _pair(shape, 2), _off_kinks(shape), _weights(shape, "both")
    before = u.clone()
    comparison = prepare_lncc(*pair, **weights)
    assert isinstance(comparison, SimilarityTerm)
    value, found = comparison.curvature(u, diffusion=diffusion)
    gradient = found[:3]
    expected = comparison(u, diffusion=diffusion)
    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1])
    assert torch.equal(gradient, comparison.gradient(u, diffusion=diffusion))
    assert torch.equal(found[3], comparison.curvature(u)[1][3])  # the roughness has no part in it
    assert not any(t.requires_grad for t in (value, found))
    assert torch.equal(u, before)
    out = torch.full((6, 7, 5, 4), torch.nan, dtype=torch.float64).permute(3, 2, 1, 0)
    assert comparison.curvature(u, diffusion=diffusion, out=out)[1] is out
    assert torch.equal(out, found)


def test_curvature_is_that_of_the_best_fit_but_for_what_the_fit_takes_over() -> None:
    # Where the fit is exact, E is a mean of sums of squares, and its second derivative by one value is the factor of
    # the curvature but for the leverage: the value moves the fitted mean and slope along. All windows are whole lines.
    size, middle = 41, 20
    fixed, still = oracles.noise(1, 1, 1, size), torch.zeros(3, 1, 1, size, dtype=torch.float64)
    moving = 2 * fixed + 3

    def value(change: float) -> float:
        moved = moving.clone()
        moved[0, 0, 0, middle] += change
        return lncc(fixed, moved, still, radius=size, floor=1e-9).item()

    step = 1e-3
    second = (value(step) - 2 * value(0) + value(-step)) / step**2
    off_kink = still.clone()
    off_kink[2] = 1e-9
    slope = (moving[..., middle + 1] - moving[..., middle]).item()
    _, found = prepare_lncc(fixed, moving, radius=size, floor=1e-9).curvature(off_kink)
    along = 3 * found[3, 0, 0, middle].item()  # the line is flat across
    off = fixed - fixed.mean()
    leverage = 1 / size + (off[..., middle] ** 2 / off.square().sum()).item()
    # Rounding is 1e-16 over 1e-6, beside 2 / 41 / 4; the fourth derivative counts 1e-6 / 12.
    assert second == pytest.approx(along / slope**2 * (1 - leverage), rel=1e-5)


def test_brightness_and_contrast_do_not_matter() -> None:
    shape = (6, 7, 8)
    (fixed, moving), u = _pair(shape, 1), _off_kinks(shape)
    expected = prepare_lncc(fixed, moving).curvature(u)
    for scale, shift in ((1e-12, 0.0), (-300.0, 7.0), (1e9, -1e10)):
        found = prepare_lncc(fixed, scale * moving + shift).curvature(u)
        # The shift of 10 deviations costs a digit, floors of 1e-3 six more.
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_equal_maps_are_as_near_as_the_floor_lets_them() -> None:
    fixed, _ = _pair((6, 7, 8), 1)
    u = torch.zeros(3, 6, 7, 8, dtype=torch.float64)
    value = lncc(fixed, fixed, u, radius=2, floor=1e-3).item()
    # 1 - v^2 / (v + floor)^2, with local variances v about 1
    assert 0 < value < 2e-3 / 0.5
    assert lncc(fixed, -fixed, u, radius=2, floor=1e-3).item() == pytest.approx(value)
    assert lncc(fixed, fixed, u, radius=2, floor=1e-9).item() < 1e-8


@pytest.mark.parametrize(
    ("backend", "dtype"), [("reference", torch.float64), ("reference", torch.float32), ("cpu", torch.float32)]
)
@pytest.mark.parametrize("level", [0.0, 0.1, -1234.5678, 1e30, 1e-30])
def test_a_constant_map_correlates_with_nothing(backend: Any, dtype: torch.dtype, level: float) -> None:
    shape = (5, 7, 6)
    flat, other = torch.full((1, *shape), level, dtype=dtype), _pair(shape, 1)[0].to(dtype)
    u = _off_kinks(shape).to(dtype)
    known = oracles.ssd_weights(u.double().numpy()).mean()
    with use_backend(backend):
        for pair in ((flat, other), (other, flat), (flat, flat)):
            value, found = prepare_lncc(*pair).curvature(u)
            assert value.item() == pytest.approx(known, rel=1e-6)  # cc = 0 wherever there is evidence
            assert not found.any()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_noise_in_the_air_does_not_count(backend: Any) -> None:
    shape, radius = (8, 9, 20), 1
    fixed, moving = (oracles.noise(1, *shape, seed=s, dtype=torch.float32) for s in range(2))
    for volume in (fixed, moving):
        volume[..., 10:] *= 1e-4
    u = torch.zeros(3, *shape)
    with use_backend(backend):
        value, gradient = prepare_lncc(fixed, moving, radius=radius)(u)
        trace = prepare_lncc(fixed, fixed, radius=radius).curvature(u)[1][3]
    air = slice(10 + 2 * radius, None)  # beyond the windows of nodes whose windows see anything else
    # Local variances of 1e-8 beside floors of 0.5e-3: cc is less than 1e-9, and its slope less than 2 cov / floor^2.
    assert gradient[..., air].abs().max() < 1e-4 * gradient[..., : 10 - radius].abs().max()
    assert trace[..., air].max() < 1e-4 * trace[..., : 10 - radius].max()
    assert 0.5 < value < 1


def test_without_evidence_there_is_nothing() -> None:
    shape = (4, 5, 6)
    pair, u, nothing = _pair(shape, 1), _off_kinks(shape), torch.zeros(shape, dtype=torch.float64)
    for weights in ({"fixed_weight": nothing}, {"moving_weight": nothing}):
        value, found = prepare_lncc(*pair, **weights).curvature(u)
        assert value == 0
        assert not found.any()
    far = u.clone()
    far[1, :, 3:] = 9
    _, found = prepare_lncc(*pair).curvature(far)
    assert not found[:, :, 3:].any()
    assert found[:, :, :3].any()


def test_what_has_no_evidence_is_not_read() -> None:
    shape = (6, 7, 8)
    (fixed, moving), u = _pair(shape, 1), torch.full((3, *shape), 0.3, dtype=torch.float64)
    weight = torch.ones(shape, dtype=torch.float64)
    weight[2:4, 3] = 0
    expected = prepare_lncc(fixed, moving, fixed_weight=weight, moving_weight=weight).curvature(u)
    changed = fixed.clone()
    changed[:, weight == 0] = 77
    found = prepare_lncc(changed, moving, fixed_weight=weight, moving_weight=weight).curvature(u)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_a_known_shift_is_the_best_one() -> None:
    shape = (12, 13, 14)
    nodes = oracles.indices(shape)
    fixed = torch.from_numpy(oracles.blobs(nodes, shape, channels=1, sigma=2.0))
    shift = np.array([1.0, -0.5, 0.75]).reshape(3, 1, 1, 1)
    moving = torch.from_numpy(-2 * oracles.blobs(nodes - shift, shape, channels=1, sigma=2.0) + 1)  # inverted contrast
    comparison = prepare_lncc(fixed, moving)

    def at(share: float) -> tuple[float, torch.Tensor]:
        u = torch.from_numpy(share * np.broadcast_to(shift, (3, *shape)).copy())
        value, gradient = comparison(u)
        return value.item(), gradient[:, 3:-3, 3:-3, 3:-3].sum((1, 2, 3))

    values = [at(share)[0] for share in (0.0, 0.5, 1.0, 1.5)]
    assert min(values) == values[2] < 0.1 < values[0]
    downhill = torch.from_numpy(shift.ravel())
    assert at(0.5)[1] @ downhill < 0 < at(1.5)[1] @ downhill


def test_normalised_maps() -> None:
    features, weight = 1e6 + 3 * oracles.noise(2, 5, 6, 7), oracles.uniform(5, 6, 7, seed=2)
    for given in (None, weight):
        found = normalise(features, given)
        counts = np.ones((5, 6, 7)) if given is None else given.numpy()
        for channel in found.numpy():
            assert (counts * channel).sum() / counts.sum() == pytest.approx(0, abs=1e-9)
            assert oracles.variance(channel, counts) == pytest.approx(1)
    assert not normalise(features, torch.zeros_like(weight)).any()


def test_non_contiguous_inputs() -> None:
    fixed, moving = oracles.noise(5, 7, 6, 3).movedim(-1, 0), oracles.noise(3, 7, 5, 6).transpose(1, 2)
    u, weight = _off_kinks((5, 6, 7)).transpose(2, 3), oracles.uniform(6, 7, 5).permute(2, 1, 0)
    assert not any(t.is_contiguous() for t in (fixed, moving, u, weight))
    found = prepare_lncc(fixed, moving, fixed_weight=weight, moving_weight=weight).curvature(u)
    plain, kept = [t.contiguous() for t in (fixed, moving, u)], weight.contiguous()
    expected = prepare_lncc(*plain[:2], fixed_weight=kept, moving_weight=kept).curvature(plain[2])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
