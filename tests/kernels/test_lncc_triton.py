"""The Triton kernels of the local correlation against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.lncc import reference
from convexadam.kernels.lncc.triton import Correlation

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (3, 4, 6)]
FLOOR = 0.1
"""Windows of a few nodes correlate perfectly but for the floor: with a low one their gradients are mere rounding."""

Shape = tuple[int, int, int]


def _pair(channels: int, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    fixed, moving = (oracles.noise(channels, *shape, seed=s, dtype=torch.float32) for s in range(2))
    return fixed.to(DEVICE), moving.to(DEVICE)


def _off_kinks(shape: Shape, seed: int = 0) -> torch.Tensor:
    """Displacements of up to two nodes, away from integers (kinks) and from half a node (the field of view's end)."""
    rng = np.random.default_rng(seed)
    apart = rng.choice([-1.0, 1.0], (3, *shape)) * oracles.uniform(3, *shape, seed=seed, low=0.05, high=0.45).numpy()
    return torch.from_numpy(rng.integers(-1, 2, (3, *shape)) + apart).float().to(DEVICE)


def _weights(shape: Shape, given: str = "both") -> dict[str, torch.Tensor | None]:
    """Evidence with gaps."""
    fixed, moving = (oracles.uniform(*shape, seed=s).float() for s in (3, 4))
    moving[oracles.uniform(*shape, seed=5) < 0.1] = 0
    fixed[oracles.uniform(*shape, seed=6) < 0.1] = 0
    return {
        "fixed_weight": fixed.to(DEVICE) if given in ("fixed", "both") else None,
        "moving_weight": moving.to(DEVICE) if given in ("moving", "both") else None,
    }


def _scaled(found: Any) -> Any:
    """Value, and gradient and curvature times the number of nodes, so that they are about as large as values."""
    value, slopes = found
    slopes = slopes * slopes[0].numel()
    return value, slopes[:3], slopes[3]


def _fused(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    return _scaled(Correlation(fixed, moving, **options).curvature(u, diffusion=diffusion))


def _torch(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    return _scaled(reference.Correlation(fixed, moving, **options).curvature(u, diffusion=diffusion))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("channels", "radius"), [(1, 2), pytest.param(3, 1, marks=pytest.mark.long)])
def test_errs_no_more_than_torch(shape: Shape, channels: int, radius: int) -> None:
    options: dict[str, Any] = {"radius": radius, "floor": FLOOR, "diffusion": 0.7}
    assert_within_budget(_fused, _torch, *_pair(channels, shape), _off_kinks(shape), **options)


@pytest.mark.parametrize("given", ["fixed", "moving", "both"])
def test_evidence_with_gaps(given: str) -> None:
    shape = (3, 4, 5)
    weights, u = _weights(shape, given), _off_kinks(shape, seed=1)
    assert_within_budget(_fused, _torch, *_pair(1, shape), u, floor=FLOOR, radius=1, **weights)
    evidence = reference.overlap_weight(u, *weights.values())
    assert 0 < (evidence > 0).float().mean() < 0.9  # the gaps matter, and leave something
    _, gradient, trace = _fused(*_pair(1, shape), u, radius=1, **weights)
    assert not gradient[:, evidence == 0].any()
    assert not trace[evidence == 0].any()


def test_larger_than_a_box_along_each_axis() -> None:
    shape = (3, 5, 35)
    options: dict[str, Any] = {"diffusion": 0.3, "radius": 3, "floor": FLOOR}
    assert_within_budget(_fused, _torch, *_pair(1, shape), _off_kinks(shape), **_weights(shape), **options)


def test_a_window_larger_than_the_volume() -> None:
    shape = (2, 3, 4)
    assert_within_budget(_fused, _torch, *_pair(1, shape), _off_kinks(shape), radius=8, floor=FLOOR)


def test_constant_maps_and_maps_without_evidence() -> None:
    shape = (2, 3, 4)
    other, u = _pair(1, shape)[0], _off_kinks(shape)
    flat, nothing = torch.full_like(other, 0.1), torch.zeros(shape, device=DEVICE)
    for pair in ((flat, other), (other, flat)):
        value, gradient, trace = _fused(*pair, u, radius=1)
        assert value.item() == pytest.approx(reference.overlap_weight(u, None, None).mean().item(), rel=1e-6)
        assert not gradient.any()
        assert not trace.any()
    assert not any(found.any() for found in _fused(other, other, u, radius=1, moving_weight=nothing))


def test_positions_beyond_the_outer_nodes_hold_the_gradient_at_0() -> None:
    shape = (4, 5, 6)
    u = torch.zeros(3, *shape, device=DEVICE)
    u[0, 0], u[1, :, -1], u[2, ..., -1] = -0.3, 0.4, 2.0
    _, gradient, _ = _fused(*_pair(1, shape), u, radius=1)
    for axis in range(3):
        ends = [0, shape[axis] - 1]
        assert not gradient[axis].index_select(axis, torch.tensor(ends, device=DEVICE)).any()
    assert gradient[:, 1:-1, 1:-1, 1:-1].all()


@pytest.mark.parametrize("value", [torch.nan, 1e9])
def test_displacements_out_of_this_world_take_their_node_out(value: float) -> None:
    shape = (3, 4, 5)
    pair, u = _pair(1, shape), _off_kinks(shape)
    far, outside = u.clone(), u.clone()
    far[1, 1, 2, 3], outside[1, 1, 2, 3] = value, 50.0
    assert all(
        torch.equal(a, b) for a, b in zip(_fused(*pair, far, radius=1), _fused(*pair, outside, radius=1), strict=True)
    )


def test_writes_where_it_is_told_and_leaves_its_inputs_alone() -> None:
    shape = (2, 3, 4)
    given = [*_pair(2, shape), _off_kinks(shape)]
    before = [t.clone() for t in given]
    comparison, u = Correlation(*given[:2], radius=1), given[2]
    value, curved = comparison.curvature(u, diffusion=0.5)
    out = torch.full_like(u, torch.nan)
    found = comparison(u, diffusion=0.5, out=out)
    assert found[1] is out
    assert torch.equal(found[0], value)
    assert torch.equal(out, curved[:3])
    out = torch.full_like(curved, torch.nan)
    assert comparison.curvature(u, diffusion=0.5, out=out)[1] is out
    assert torch.equal(out, curved)
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))


def test_non_contiguous_inputs_and_output() -> None:
    fixed, moving = (maps.transpose(1, 3) for maps in _pair(2, (4, 3, 2)))
    u, weight = _off_kinks((2, 4, 3)).transpose(2, 3), oracles.uniform(4, 3, 2).float().permute(2, 1, 0).to(DEVICE)
    out = torch.empty(2, 3, 4, 3, device=DEVICE).movedim(-1, 0)
    assert not any(t.is_contiguous() for t in (fixed, moving, u, weight, out))
    options: dict[str, Any] = {"radius": 1, "fixed_weight": weight, "moving_weight": weight}
    assert_within_budget(_fused, _torch, fixed, moving, u, floor=FLOOR, **options)
    comparison = Correlation(fixed, moving, **options)
    _, curved = comparison.curvature(u)
    assert comparison(u, out=out)[1] is out
    assert torch.equal(out, curved[:3])
    out = torch.empty(2, 3, 4, 4, device=DEVICE).movedim(-1, 0)
    assert comparison.curvature(u, out=out)[1] is out
    assert torch.equal(out, curved)
