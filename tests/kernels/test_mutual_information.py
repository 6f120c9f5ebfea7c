"""Mutual information under a displacement, its gradient and its length, against naive loops and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam import use_backend
from convexadam.kernels.mutual_information import nmi_loss, prepare_mutual_information
from convexadam.kernels.mutual_information.reference import loss_and_slopes
from convexadam.kernels.warp_ssd import SimilarityTerm

SHAPES = [(1, 5, 3), (5, 7, 6), (3, 1, 8)]

Shape = tuple[int, int, int]


def _pair(shape: Shape, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return 5 + 2 * oracles.noise(1, *shape, seed=seed), -3 + oracles.noise(1, *shape, seed=seed + 1)


def _off_kinks(shape: Shape, seed: int = 0) -> torch.Tensor:
    """Displacements of up to a node, away from integers (kinks) and from half a node (the field of view's end)."""
    whole = np.random.default_rng(seed).integers(-1, 1, (3, *shape))
    return torch.from_numpy(whole + oracles.uniform(3, *shape, seed=seed, low=0.05, high=0.45).numpy())


def _weights(shape: Shape, weighted: str) -> dict[str, torch.Tensor | None]:
    """Evidence with gaps."""
    fixed, moving = (oracles.uniform(*shape, seed=s) for s in (3, 4))
    fixed[oracles.uniform(*shape, seed=5) < 0.2] = 0
    moving[oracles.uniform(*shape, seed=7) < 0.05] = 0
    return {
        "fixed_weight": fixed if weighted in ("fixed", "both") else None,
        "moving_weight": moving if weighted in ("moving", "both") else None,
    }


def _oracle(pair: tuple[torch.Tensor, torch.Tensor], u: torch.Tensor, weights: dict[str, Any], bins: int) -> Any:
    """Arguments of the oracle: both maps, displacement and weights, and the range of each map."""
    own = [None if w is None else w.numpy() for w in weights.values()]
    ranges = []
    for maps, weight in zip(pair, own, strict=True):
        counted = maps[0].numpy() if weight is None else maps[0].numpy()[weight > 0]
        ranges.append((counted.min(), counted.max()))
    given = *(maps.numpy() for maps in pair), u.numpy(), oracles.ssd_weights(u.numpy(), *own)
    return given, {"bins": bins, "ranges": tuple(ranges)}


@pytest.mark.parametrize(
    ("shape", "weighted", "bins"), pairwise(SHAPES, ["none", "fixed", "moving", "both"], [4, 5, 32])
)
def test_value_equals_naive_loops(shape: Shape, weighted: str, bins: int) -> None:
    pair, u, weights = _pair(shape), _off_kinks(shape), _weights(shape, weighted)
    given, options = _oracle(pair, u, weights, bins)
    assert given[3].any()
    found = nmi_loss(*pair, u, bins=bins, **weights)
    # Shares of bins are right to 1e-13 (positions up to 32), entropies to some times that.
    assert found.item() == pytest.approx(oracles.nmi_loss(*given, **options), rel=0, abs=1e-11)
    assert prepare_mutual_information(*pair, bins=bins, **weights)(u)[0].item() == found.item()
    assert 0 <= found <= 1 + 1e-12


@pytest.mark.parametrize("weighted", ["none", "both"])
@pytest.mark.parametrize("bins", [5, 12])
def test_gradient_is_that_of_naive_loops(weighted: str, bins: int) -> None:
    shape, step = (3, 4, 5), 1e-5
    pair, u, weights = _pair(shape), _off_kinks(shape), _weights(shape, weighted)
    given, options = _oracle(pair, u, weights, bins)
    comparison = prepare_mutual_information(*pair, bins=bins, **weights)
    _, gradient = comparison(u)
    checked = [(int(a), *(int(c) for c in x)) for x in np.argwhere(given[3] > 0)[::5] for a in range(3)]
    slopes = []
    for at in checked:
        ends = []
        for sign in (1, -1):
            moved = given[2].copy()
            moved[at] += sign * step
            ends.append(oracles.nmi_loss(given[0], given[1], moved, given[3], **options))
        slopes.append((ends[0] - ends[1]) / (2 * step))
    found = torch.stack([gradient[at] for at in checked])
    # Rounding is some 1e-15 over the step; the third derivative is about the cube of bins a node, 100, over 60 nodes,
    # which counts 1e-10 / 6.
    expected = torch.tensor(slopes, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
    assert found.abs().max() > 1e-4
    _, curved = comparison.curvature(u, diffusion=0.7)
    lengths = torch.stack([curved[(3, *at[1:])] for at in checked[::3]])
    torch.testing.assert_close(lengths, expected.reshape(-1, 3).norm(dim=1), rtol=1e-6, atol=2e-9)


def test_gradcheck() -> None:
    shape = (3, 4, 2)
    pair, u, weight = _pair(shape), _off_kinks(shape).requires_grad_(), oracles.uniform(*shape, seed=8)
    assert torch.autograd.gradcheck(lambda v: nmi_loss(*pair, v, bins=6, fixed_weight=weight), u)


def test_slopes_are_those_of_the_loss_of_a_histogram() -> None:
    joint = oracles.uniform(5, 7, seed=1)
    joint[2, 3:5] = 0  # nothing there, and nothing ever moves there
    loss, slopes = loss_and_slopes(joint)
    for seed in range(5):
        change = oracles.noise(5, 7, seed=seed) * (joint > 0)
        change -= change.sum(1, keepdim=True) / (joint > 0).sum(1, keepdim=True) * (joint > 0)  # within rows
        step = 1e-6
        rise = loss_and_slopes(joint + step * change)[0] - loss_and_slopes(joint - step * change)[0]
        # Rounding is 1e-15 over the step.
        assert (rise / (2 * step)).item() == pytest.approx((slopes * change).sum().item(), abs=1e-8)
    assert not slopes[2, 3:5].any()
    assert 0 < loss < 1


def test_relabelled_intensities_share_all_that_the_bins_can_tell() -> None:
    shape = (9, 10, 11)
    fixed = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (1, *shape)).astype(float))
    still = torch.zeros(3, *shape, dtype=torch.float64)
    moving = torch.tensor([7.0, -2.0, 30.0, 1.0], dtype=torch.float64)[fixed.long()]
    unrelated = torch.from_numpy(np.random.default_rng(1).integers(0, 4, (1, *shape)).astype(float))
    same = nmi_loss(fixed, moving, still, bins=64)
    # Four values on single bins along one axis (if 3 divides 63), on three bins each along the other: the entropy of
    # the spline at a node is what the histogram does not know.
    p = np.bincount(fixed.long().flatten()) / fixed.numel()
    known = -(p * np.log(p)).sum()
    at = [1 + 61 * (v + 2) / 32 for v in (7.0, -2.0, 30.0, 1.0)]
    parts = np.array([[oracles.cubic_spline(a - b) for b in range(64)] for a in at])
    spread = -sum(q * np.log(q * w) * w for row, w in zip(parts, p, strict=True) for q in row if q > 0)
    margin = p @ parts
    alone = -(margin[margin > 0] * np.log(margin[margin > 0])).sum()
    assert same.item() == pytest.approx(2 - (known + alone) / spread, abs=1e-10)
    # Independent maps share what chance lets 990 nodes share: (4 - 1)^2 / 2 / 990 nats.
    assert nmi_loss(fixed, unrelated, still, bins=64).item() == pytest.approx(1, abs=10 * 4.5 / 990)
    assert same < 0.7


def test_brightness_and_contrast_do_not_matter() -> None:
    shape = (6, 7, 8)
    (fixed, moving), u = _pair(shape), _off_kinks(shape)
    expected = prepare_mutual_information(fixed, moving)(u)
    for scale, shift in ((1e-12, 0.0), (300.0, 7.0), (1e9, -1e10)):
        found = prepare_mutual_information(fixed, scale * moving + shift)(u)
        # The shift of 10 deviations costs a digit; places among 32 bins are right to 1e-13, slopes to 1e-11 or so.
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_a_known_shift_is_the_best_one() -> None:
    shape = (12, 13, 14)
    nodes = oracles.indices(shape)
    shift = np.array([1.0, -0.5, 0.75]).reshape(3, 1, 1, 1)
    fixed = torch.from_numpy(oracles.blobs(nodes, shape, channels=1, sigma=2.0))
    moving = torch.from_numpy((oracles.blobs(nodes - shift, shape, channels=1, sigma=2.0) - 0.3) ** 2)  # not monotonous
    comparison = prepare_mutual_information(fixed, moving, bins=24)

    def at(share: float) -> tuple[float, float]:
        u = torch.from_numpy(share * np.broadcast_to(shift, (3, *shape)).copy())
        value, gradient = comparison(u)
        return value.item(), (gradient.sum((1, 2, 3)) @ torch.from_numpy(shift.ravel())).item()

    values = [at(share)[0] for share in (0.0, 0.5, 1.0, 1.5)]
    assert min(values) == values[2] < 0.9 * values[0]
    assert at(0.5)[1] < 0 < at(1.5)[1]


@pytest.mark.parametrize(
    ("backend", "dtype"), [("reference", torch.float64), ("reference", torch.float32), ("cpu", torch.float32)]
)
@pytest.mark.parametrize("level", [0.0, 0.1, -1234.5678, 1e30, 1e-42])
def test_a_constant_map_shares_nothing(backend: Any, dtype: torch.dtype, level: float) -> None:
    shape = (5, 7, 6)
    flat, other, u = torch.full((1, *shape), level, dtype=dtype), _pair(shape)[0].to(dtype), _off_kinks(shape).to(dtype)
    with use_backend(backend):
        for pair in ((flat, other), (other, flat), (flat, flat)):
            value, gradient = prepare_mutual_information(*pair)(u)
            assert value.item() == pytest.approx(1, abs=1e-6)
            # Of a constant fixed map the slopes of the loss are equal along its only row, up to rounding.
            assert gradient.abs().max() <= 100 * torch.finfo(dtype).eps / u[0].numel()


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_without_evidence_nothing_is_known(backend: Any) -> None:
    shape = (4, 5, 6)
    pair, u, nothing = [m.float() for m in _pair(shape)], _off_kinks(shape).float(), torch.zeros(shape)
    with use_backend(backend):
        for weights in ({"fixed_weight": nothing}, {"moving_weight": nothing}):
            value, gradient = prepare_mutual_information(*pair, **weights)(u)
            assert value == 1
            assert not gradient.any()
        far = u.clone()
        far[1, :, 3:] = 9
        _, gradient = prepare_mutual_information(*pair)(far)
    assert not gradient[:, :, 3:].any()
    assert gradient[:, :, :3].any()


def test_what_has_no_evidence_is_not_read() -> None:
    shape = (6, 7, 8)
    (fixed, moving), u = _pair(shape), torch.full((3, *shape), 0.3, dtype=torch.float64)
    weight = torch.ones(shape, dtype=torch.float64)
    weight[2:4, 3] = 0
    expected = prepare_mutual_information(fixed, moving, fixed_weight=weight, moving_weight=weight)(u)
    changed = [m.clone() for m in (fixed, moving)]
    for m in changed:
        m[:, weight == 0] = 77  # far from the range of the others
    found = prepare_mutual_information(*changed, fixed_weight=weight, moving_weight=weight)(u)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("diffusion", [0.0, 0.7])
def test_curvature_is_the_length_of_the_gradient_without_roughness(diffusion: float) -> None:
    shape = (3, 4, 5)
    comparison, u = prepare_mutual_information(*_pair(shape), **_weights(shape, "both")), _off_kinks(shape)
    assert isinstance(comparison, SimilarityTerm)
    value, found = comparison.curvature(u, diffusion=diffusion)
    expected = comparison(u, diffusion=diffusion)
    assert torch.equal(value, expected[0])
    assert torch.equal(found[:3], expected[1])
    torch.testing.assert_close(found[3], comparison.gradient(u).square().sum(0).sqrt(), rtol=1e-12, atol=0)
    assert not any(t.requires_grad for t in (value, found))
    out = torch.full((5, 4, 3, 4), torch.nan, dtype=torch.float64).permute(3, 2, 1, 0)
    assert comparison.curvature(u, diffusion=diffusion, out=out)[1] is out
    assert torch.equal(out, found)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_lengths_of_gradients_whose_squares_vanish(backend: Any) -> None:
    shape = (5, 6, 7)
    pair, u, weight = [m.float() for m in _pair(shape)], torch.full((3, *shape), 0.3), torch.ones(shape)
    weight[2, 3, 4] = 1e-25
    with use_backend(backend):
        gradient, length = prepare_mutual_information(*pair, fixed_weight=weight).curvature(u)[1].double().split([3, 1])
    assert 0 < gradient[:, 2, 3, 4].abs().max() < 1e-25
    # A rounding each of gradient and length; the latter is relative to 1e-45 where numbers have fewer digits.
    torch.testing.assert_close(length[0], gradient.norm(dim=0), rtol=4e-7, atol=1e-44)


def test_roughness_is_added_and_inputs_are_left_alone() -> None:
    shape = (3, 4, 5)
    given = [*_pair(shape), _off_kinks(shape)]
    before = [t.clone() for t in given]
    comparison, u = prepare_mutual_information(*given[:2]), given[2]
    plain, rough = comparison.gradient(u), comparison.gradient(u, diffusion=0.7)
    step, at = 1e-4, (1, 1, 2, 3)
    up, down = u.numpy().copy(), u.numpy().copy()
    up[at] += step
    down[at] -= step
    slope = (oracles.diffusion_energy(up) - oracles.diffusion_energy(down)) / (2 * step)  # exact: a quadratic
    assert (rough - plain)[at].item() == pytest.approx(0.7 * slope, rel=1e-8)
    out = torch.empty(5, 4, 3, 3, dtype=torch.float64).permute(3, 2, 1, 0)
    assert comparison(u, diffusion=0.7, out=out)[1] is out
    assert torch.equal(out, rough)
    assert not any(t.requires_grad for t in (plain, rough))
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))
