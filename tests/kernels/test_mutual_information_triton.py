"""The Triton kernels of the mutual information against torch in float64: on a GPU, or interpreted on the CPU."""

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

from convexadam.kernels.mutual_information import reference
from convexadam.kernels.mutual_information.triton import MutualInformation

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (3, 4, 6)]

Shape = tuple[int, int, int]


def _pair(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    fixed, moving = (oracles.noise(1, *shape, seed=s, dtype=torch.float32) for s in range(2))
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
    """Value, and gradient and its length times the number of nodes, so that they are about as large as values."""
    value, slopes = found
    slopes = slopes * slopes[0].numel()
    return value, slopes[:3], slopes[3]


def _fused(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    return _scaled(MutualInformation(fixed, moving, **options).curvature(u, diffusion=diffusion))


def _torch(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    return _scaled(reference.MutualInformation(fixed, moving, **options).curvature(u, diffusion=diffusion))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bins", [4, 20, 32])
def test_errs_no_more_than_torch(shape: Shape, bins: int) -> None:
    assert_within_budget(_fused, _torch, *_pair(shape), _off_kinks(shape), bins=bins, diffusion=0.7)


@pytest.mark.parametrize("given", ["fixed", "moving", "both"])
def test_evidence_with_gaps(given: str) -> None:
    shape = (5, 6, 7)
    weights, u = _weights(shape, given), _off_kinks(shape, seed=1)
    assert_within_budget(_fused, _torch, *_pair(shape), u, **weights)
    evidence = reference.overlap_weight(u, *weights.values())
    assert 0 < (evidence > 0).float().mean() < 0.9  # the gaps matter, and leave something
    _, gradient, length = _fused(*_pair(shape), u, **weights)
    assert not gradient[:, evidence == 0].any()
    assert not length[evidence == 0].any()
    assert gradient[:, evidence > 0].any()


def test_larger_than_a_box_along_each_axis_and_more_than_one_program_counts() -> None:
    shape = (5, 9, 100)  # 4500 nodes, of which a program counts 4096
    assert_within_budget(_fused, _torch, *_pair(shape), _off_kinks(shape), diffusion=0.3, **_weights(shape))


def test_constant_maps_and_maps_without_evidence() -> None:
    shape = (2, 3, 4)
    other, u = _pair(shape)[0], _off_kinks(shape)
    flat, nothing = torch.full_like(other, 0.1), torch.zeros(shape, device=DEVICE)
    for pair in ((flat, other), (other, flat), (flat, flat)):
        value, gradient, _ = _fused(*pair, u)
        assert value.item() == pytest.approx(1, abs=1e-6)
        assert gradient.abs().max() <= 100 * torch.finfo(torch.float32).eps
    value, gradient, length = _fused(other, other, u, moving_weight=nothing)
    assert value == 1
    assert not gradient.any()
    assert not length.any()


def test_positions_beyond_the_outer_nodes_hold_the_gradient_at_0() -> None:
    shape = (4, 5, 6)
    u = torch.zeros(3, *shape, device=DEVICE)
    u[0, 0], u[1, :, -1], u[2, ..., -1] = -0.3, 0.4, 2.0
    _, gradient, _ = _fused(*_pair(shape), u)
    for axis in range(3):
        ends = torch.tensor([0, shape[axis] - 1], device=DEVICE)
        assert not gradient[axis].index_select(axis, ends).any()
    assert gradient[:, 1:-1, 1:-1, 1:-1].any()


@pytest.mark.parametrize("value", [torch.nan, 1e9])
def test_displacements_out_of_this_world_take_their_node_out(value: float) -> None:
    shape = (3, 4, 5)
    pair, u = _pair(shape), _off_kinks(shape)
    far, outside = u.clone(), u.clone()
    far[1, 1, 2, 3], outside[1, 1, 2, 3] = value, 50.0
    assert all(torch.equal(a, b) for a, b in zip(_fused(*pair, far), _fused(*pair, outside), strict=True))


def test_values_beyond_the_outer_bins_do_not_change_with_the_displacement() -> None:
    # A node without weight may have less than a thousandth of a mixture, and any value.
    moving, weight = torch.arange(6.0, device=DEVICE).reshape(1, 1, 1, 6), torch.ones(1, 1, 6, device=DEVICE)
    u = torch.zeros(3, 1, 1, 6, device=DEVICE)
    moving[..., -1], weight[..., -1], u[2] = 1e6, 0, 5e-4
    _, gradient, _ = _fused(_pair((1, 1, 6))[0], moving, u, moving_weight=weight)
    assert not gradient[2, ..., -2:].any()
    assert gradient[2, ..., :-2].all()


def test_writes_where_it_is_told_and_leaves_its_inputs_alone() -> None:
    shape = (2, 3, 4)
    given = [*_pair(shape), _off_kinks(shape)]
    before = [t.clone() for t in given]
    comparison, u = MutualInformation(*given[:2]), given[2]
    value, gradient = comparison(u, diffusion=0.5)
    out = torch.full_like(u, torch.nan)
    found = comparison(u, diffusion=0.5, out=out)
    assert found[1] is out
    assert torch.equal(found[0], value)
    assert torch.equal(out, gradient)
    assert torch.equal(comparison.gradient(u, diffusion=0.5), gradient)
    again, curved = comparison.curvature(u, diffusion=0.5)
    assert torch.equal(again, value)
    assert torch.equal(curved[:3], gradient)
    out = torch.full_like(curved, torch.nan)
    assert comparison.curvature(u, diffusion=0.5, out=out)[1] is out
    assert torch.equal(out, curved)
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))


def test_non_contiguous_inputs_and_output() -> None:
    fixed, moving = (maps.transpose(1, 3) for maps in _pair((4, 3, 2)))
    u, weight = _off_kinks((2, 4, 3)).transpose(2, 3), oracles.uniform(4, 3, 2).float().permute(2, 1, 0).to(DEVICE)
    out = torch.empty(2, 3, 4, 3, device=DEVICE).movedim(-1, 0)
    assert not any(t.is_contiguous() for t in (fixed, moving, u, weight, out))
    options = {"fixed_weight": weight, "moving_weight": weight}
    assert_within_budget(_fused, _torch, fixed, moving, u, **options)
    comparison = MutualInformation(fixed, moving, **options)
    _, curved = comparison.curvature(u)
    assert comparison(u, out=out)[1] is out
    assert torch.equal(out, curved[:3])
    out = torch.empty(2, 3, 4, 4, device=DEVICE).movedim(-1, 0)
    assert comparison.curvature(u, out=out)[1] is out
    assert torch.equal(out, curved)


def test_lengths_of_gradients_whose_squares_vanish() -> None:
    shape = (3, 4, 5)
    weight = torch.ones(shape, device=DEVICE)
    weight[1, 2, 3] = 1e-25
    comparison = MutualInformation(*_pair(shape), fixed_weight=weight)
    gradient, length = comparison.curvature(torch.full((3, *shape), 0.3, device=DEVICE))[1].double().split([3, 1])
    assert 0 < gradient[:, 1, 2, 3].abs().max() < 1e-25
    torch.testing.assert_close(length[0], gradient.norm(dim=0), rtol=4e-7, atol=1e-44)
