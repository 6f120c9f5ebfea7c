"""The mutual information of the CPU, its gradient and its length against torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, gaps, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.mutual_information import prepare_mutual_information, reference


def _pair(shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    return noise(1, *shape), noise(1, *shape, seed=1)


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
    """Value, and gradient and its length times the number of nodes, so that they are about as large as values."""
    value, slopes = found
    slopes = slopes * slopes[0].numel()
    return value, slopes[:3], slopes[3]


def _fused(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    return _scaled(prepare_mutual_information(fixed, moving, **options).curvature(u, diffusion=diffusion))


def _torch(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    return _scaled(reference.MutualInformation(fixed, moving, **options).curvature(u, diffusion=diffusion))


FUSED = on_cpu(_fused)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "given", "bins"),
    pairwise([1, 3], SHAPES, ["none", "fixed", "moving", "both"], [4, 9, 32]),
    indirect=["threads"],
)
def test_errs_no_more_than_torch(shape: Shape, given: str, bins: int) -> None:
    options: dict[str, Any] = {"bins": bins, "diffusion": 0.7, **_weights(shape, given)}
    assert_within_budget(FUSED, _torch, *_pair(shape), _off_kinks(shape), **options)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("given", ["none", "both"])
def test_of_a_usual_size(given: str) -> None:
    maps = [torch.nn.functional.avg_pool3d(m, 3, 1, 1) + 4 for m in _pair(NODES)]  # values far from 0, smooth
    u = torch.nn.functional.avg_pool3d(_off_kinks(NODES), 5, 1, 2)
    assert_within_budget(FUSED, _torch, *maps, u, diffusion=0.2, **_weights(NODES, given))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("diffusion", [0.0, 0.5])
def test_writes_where_it_is_told(diffusion: float) -> None:
    shape = (5, 7, 6)
    u, given = _off_kinks(shape), torch.full((3, *shape), torch.nan)
    comparison = on_cpu(prepare_mutual_information)(*_pair(shape), fixed_weight=gaps(*shape))
    value, gradient = comparison(u, diffusion=diffusion)
    again, found = comparison(u, diffusion=diffusion, out=given)
    assert found is given
    # Slabs are added up in any order, in float64: the last digit of a slope may differ.
    torch.testing.assert_close(found, gradient, rtol=1e-6, atol=1e-12)
    assert again.item() == pytest.approx(value.item(), rel=1e-6)
    strided = scattered(torch.zeros(3, *shape))
    assert comparison(u, diffusion=diffusion, out=strided)[1] is strided
    torch.testing.assert_close(strided, gradient, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(comparison.gradient(u, diffusion=diffusion), gradient, rtol=1e-6, atol=1e-12)
    _, curved = comparison.curvature(u, diffusion=diffusion)
    torch.testing.assert_close(curved[:3], gradient, rtol=1e-6, atol=1e-12)
    for out in (torch.full((4, *shape), torch.nan), scattered(torch.zeros(4, *shape))):
        assert comparison.curvature(u, diffusion=diffusion, out=out)[1] is out
        torch.testing.assert_close(out, curved, rtol=1e-6, atol=1e-12)


@pytest.mark.usefixtures("threads")
def test_non_contiguous_inputs() -> None:
    shape = (7, 9, 8)
    fixed, moving = (scattered(maps) for maps in _pair(shape))
    u, weight = scattered(_off_kinks(shape)), scattered(gaps(*shape))
    assert not any(t.is_contiguous() for t in (fixed, moving, u, weight))
    options: dict[str, Any] = {"fixed_weight": weight, "moving_weight": weight, "diffusion": 0.3}
    assert_within_budget(FUSED, _torch, fixed, moving, u, **options)


def test_the_inputs_are_left_alone() -> None:
    shape = (3, 4, 5)
    given = [*_pair(shape), _off_kinks(shape), gaps(*shape)]
    before = [t.clone() for t in given]
    FUSED(*given[:3], fixed_weight=given[3], moving_weight=given[3], diffusion=1.0)
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))


def test_where_there_is_no_evidence_the_gradient_is_0() -> None:
    shape = (7, 9, 8)
    u, weights = _off_kinks(shape), _weights(shape, "both")
    evidence = reference.overlap_weight(u, *weights.values())
    _, gradient, length = FUSED(*_pair(shape), u, **weights)
    assert not gradient[:, evidence == 0].any()
    assert not length[evidence == 0].any()
    assert gradient[:, evidence > 0].any()


def test_positions_beyond_the_outer_nodes_hold_the_gradient_at_0() -> None:
    shape = (4, 5, 6)
    u = torch.zeros(3, *shape)
    u[0, 0], u[1, :, -1], u[2, ..., -1] = -0.3, 0.4, 2.0
    _, gradient, _ = FUSED(*_pair(shape), u)
    assert not gradient[0, [0, -1]].any()
    assert not gradient[1, :, [0, -1]].any()
    assert not gradient[2, ..., [0, -1]].any()
    assert gradient[:, 1:-1, 1:-1, 1:-1].any()


def test_values_beyond_the_outer_bins_do_not_change_with_the_displacement() -> None:
    # A node without weight may have less than a thousandth of a mixture, and any value.
    shape = (1, 1, 6)
    moving, weight, u = torch.arange(6.0).reshape(1, *shape), torch.ones(shape), torch.full((3, *shape), 0.0)
    moving[..., -1], weight[..., -1] = 1e6, 0
    u[2] = 5e-4
    fixed = noise(1, *shape)
    _, gradient, _ = FUSED(fixed, moving, u, moving_weight=weight)
    _, expected, _ = _torch(fixed.double(), moving.double(), u.double(), moving_weight=weight.double())
    assert not gradient[2, ..., -2:].any()
    assert not expected[2, ..., -2:].any()
    assert gradient[2, ..., :-2].all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e9, -1e9, 3e38])
def test_displacements_out_of_this_world_take_their_node_out(value: float) -> None:
    shape = (5, 6, 9)
    pair, u = _pair(shape), _off_kinks(shape)
    far, outside = u.clone(), u.clone()
    far[1, 2, 3, 4], outside[1, 2, 3, 4] = value, 50.0
    for found, expected in zip(FUSED(*pair, far), FUSED(*pair, outside), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)  # slabs are added up in any order


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_the_number_of_threads_does_not_matter(threads: int) -> None:
    shape = (17, 19, 18)
    pair, u, before = _pair(shape), _off_kinks(shape), torch.get_num_threads()
    expected = FUSED(*pair, u, diffusion=0.1)
    torch.set_num_threads(threads)
    try:
        found = FUSED(*pair, u, diffusion=0.1)
    finally:
        torch.set_num_threads(before)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
