"""The local correlation of the CPU, its gradient and its curvature against torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, gaps, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.lncc import prepare_lncc, reference

FLOOR = 0.1
"""Windows of a few nodes correlate perfectly but for the floor: with a low one their gradients are mere rounding."""


def _pair(channels: int, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    return noise(channels, *shape), noise(channels, *shape, seed=1)


def _off_kinks(shape: Shape, seed: int = 0) -> torch.Tensor:
    """Displacements of up to two nodes, away from integers (kinks) and from half a node (the field of view's end).

    Each of the eight neighbours has a share of 0.11 ** 3 at least, above what counts as none.
    """
    rng = np.random.default_rng(seed)
    part = oracles.uniform(3, *shape, seed=seed, low=0.11, high=0.45).numpy() * rng.choice([-1.0, 1.0], (3, *shape))
    return torch.from_numpy(rng.integers(-2, 3, (3, *shape)) + part).float()


def _weights(shape: Shape, given: str) -> dict[str, torch.Tensor | None]:
    return {
        "fixed_weight": gaps(*shape, seed=3) if given in ("fixed", "both") else None,
        "moving_weight": gaps(*shape, seed=5) if given in ("moving", "both") else None,
    }


def _scaled(found: Any) -> Any:
    """Value, and gradient and curvature times the number of nodes, so that they are about as large as values."""
    value, slopes = found
    slopes = slopes * slopes[0].numel()
    return value, slopes[:3], slopes[3]


def _fused(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    return _scaled(prepare_lncc(fixed, moving, **options).curvature(u, diffusion=diffusion))


def _torch(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    return _scaled(reference.Correlation(fixed, moving, **options).curvature(u, diffusion=diffusion))


FUSED = on_cpu(_fused)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "channels", "given", "radius"),
    pairwise([1, 3], SHAPES, [1, 3], ["none", "fixed", "moving", "both"], [1, 2, 3, 8]),
    indirect=["threads"],
)
def test_errs_no_more_than_torch(shape: Shape, channels: int, given: str, radius: int) -> None:
    options: dict[str, Any] = {"radius": radius, "floor": FLOOR, "diffusion": 0.7}
    assert_within_budget(FUSED, _torch, *_pair(channels, shape), _off_kinks(shape), **_weights(shape, given), **options)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("given", ["none", "both"])
def test_of_a_usual_size(given: str) -> None:
    maps = [torch.nn.functional.avg_pool3d(m, 3, 1, 1) + 4 for m in _pair(1, NODES)]  # values far from 0, smooth
    u = torch.nn.functional.avg_pool3d(_off_kinks(NODES), 5, 1, 2)
    assert_within_budget(FUSED, _torch, *maps, u, diffusion=0.2, **_weights(NODES, given))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "channels", "diffusion"), pairwise([1, 3], [1, 2], [0.0, 0.5]), indirect=["threads"]
)
def test_writes_where_it_is_told(channels: int, diffusion: float) -> None:
    shape = (5, 7, 6)
    u, given = _off_kinks(shape), torch.full((3, *shape), torch.nan)
    comparison = on_cpu(prepare_lncc)(*_pair(channels, shape), fixed_weight=gaps(*shape))
    value, gradient = comparison(u, diffusion=diffusion)
    again, found = comparison(u, diffusion=diffusion, out=given)
    assert found is given
    assert torch.equal(found, gradient)
    assert again.item() == pytest.approx(value.item(), rel=1e-6)  # slabs are added up in any order
    assert torch.equal(comparison.gradient(u, diffusion=diffusion), gradient)
    _, curved = comparison.curvature(u, diffusion=diffusion)
    assert torch.equal(curved[:3], gradient)
    for out in (torch.full((4, *shape), torch.nan), scattered(torch.zeros(4, *shape))):
        assert comparison.curvature(u, diffusion=diffusion, out=out)[1] is out
        assert torch.equal(out, curved)
    strided = scattered(torch.zeros(3, *shape))
    assert comparison(u, diffusion=diffusion, out=strided)[1] is strided
    assert torch.equal(strided, gradient)


@pytest.mark.usefixtures("threads")
def test_non_contiguous_inputs() -> None:
    shape = (7, 9, 8)
    fixed, moving = (scattered(maps) for maps in _pair(2, shape))
    u, weight = scattered(_off_kinks(shape)), scattered(gaps(*shape))
    assert not any(t.is_contiguous() for t in (fixed, moving, u, weight))
    options: dict[str, Any] = {"fixed_weight": weight, "moving_weight": weight, "diffusion": 0.3, "floor": FLOOR}
    assert_within_budget(FUSED, _torch, fixed, moving, u, **options)


def test_the_inputs_are_left_alone() -> None:
    shape = (3, 4, 5)
    given = [*_pair(2, shape), _off_kinks(shape), gaps(*shape)]
    before = [t.clone() for t in given]
    FUSED(*given[:3], fixed_weight=given[3], moving_weight=given[3], diffusion=1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))


def test_where_there_is_no_evidence_all_is_0() -> None:
    shape = (7, 9, 8)
    u, weights = _off_kinks(shape), _weights(shape, "both")
    evidence = reference.overlap_weight(u, *weights.values())
    _, gradient, trace = FUSED(*_pair(2, shape), u, **weights)
    assert not gradient[:, evidence == 0].any()
    assert not trace[evidence == 0].any()
    assert gradient[:, evidence > 0].any()
    assert (trace >= 0).all()


def test_positions_beyond_the_outer_nodes_hold_the_gradient_at_0() -> None:
    shape = (4, 5, 6)
    u = torch.zeros(3, *shape)
    u[0, 0], u[1, :, -1], u[2, ..., -1] = -0.3, 0.4, 2.0
    _, gradient, _ = FUSED(*_pair(1, shape), u, radius=1)
    assert not gradient[0, [0, -1]].any()
    assert not gradient[1, :, [0, -1]].any()
    assert not gradient[2, ..., [0, -1]].any()
    assert gradient[:, 1:-1, 1:-1, 1:-1].all()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_clamped_components_have_no_part_in_the_curvature(axis: int) -> None:
    shape = (4, 5, 6)
    u = torch.zeros(3, *shape)
    u[0, 0], u[1, :, -1], u[2, ..., -1] = -0.3, 0.4, 2.0
    ramp = torch.from_numpy(oracles.indices(shape)[axis][None]).float()
    _, _, trace = FUSED(noise(1, *shape), ramp, u, radius=1)
    assert not trace.movedim(axis, 0)[[0, -1]].any()  # the outer node itself, too
    assert (trace[1:-1, 1:-1, 1:-1] > 0).all()
    assert (trace[0, 1:-1, 1:-1] > 0).all() == (axis != 0)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e9, -1e9, 3e38])
def test_displacements_out_of_this_world_take_their_node_out(value: float) -> None:
    shape = (5, 6, 9)
    pair, u = _pair(1, shape), _off_kinks(shape)
    far, outside = u.clone(), u.clone()
    far[1, 2, 3, 4], outside[1, 2, 3, 4] = value, 50.0
    for found, expected in zip(FUSED(*pair, far), FUSED(*pair, outside), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)  # slabs are added up in any order


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_the_number_of_threads_does_not_matter(threads: int) -> None:
    shape = (17, 19, 18)
    pair, u, before = _pair(1, shape), _off_kinks(shape), torch.get_num_threads()
    expected = FUSED(*pair, u, diffusion=0.1)
    torch.set_num_threads(threads)
    try:
        found = FUSED(*pair, u, diffusion=0.1)
    finally:
        torch.set_num_threads(before)
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(found[1:], expected[1:], strict=True))
