"""The squared difference of the CPU, its gradient, its curvature and its evidence against torch in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from budget import assert_within_budget
from compiled import NODES, SHAPES, Shape, gaps, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels import use_backend
from convexadam.kernels.warp_ssd import FeatureRows, overlap_weight, prepare_ssd, reference, warp_ssd
from convexadam.kernels.warp_ssd.feature_rows import LARGEST


def _pair(channels: int, shape: Shape, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return noise(channels, *shape, seed=seed), noise(channels, *shape, seed=seed + 1)


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


def _reference(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **weights: Any
) -> Any:
    return reference.WarpSsd(fixed, moving, **weights)(u, diffusion=diffusion)


def _scaled(compare: Any) -> Any:
    """Multiply gradients and curvatures by the number of nodes, so that they are about as large as features."""

    def run(fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, **options: Any) -> Any:
        value, *slopes = compare(fixed, moving, u, **options)
        return value, *(slope * u[0].numel() for slope in slopes)

    return run


FUSED, TORCH = _scaled(on_cpu(warp_ssd)), _scaled(_reference)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "channels", "given"),
    pairwise([1, 3], SHAPES, [1, 3, 12, 17], ["none", "fixed", "moving", "both"]),
    indirect=["threads"],
)
def test_errs_no_more_than_torch(shape: Shape, channels: int, given: str) -> None:
    weights, u = _weights(shape, given), _off_kinks(shape)
    assert_within_budget(FUSED, TORCH, *_pair(channels, shape), u, **weights)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("shape", SHAPES)
def test_with_roughness(shape: Shape) -> None:
    features, u = _pair(3, shape), _off_kinks(shape)
    assert_within_budget(FUSED, TORCH, *features, u, diffusion=0.7, **_weights(shape, "both"))
    plain = on_cpu(warp_ssd)(*features, u)[1].double()
    rough = on_cpu(warp_ssd)(*features, u, diffusion=0.7)[1].double() - plain
    expected = 0.7 * reference.diffusion_gradient(u.double())
    # What is added has the rounding of the sums around it, of at most 2 max each, and of the gradient itself.
    largest = u.abs().max() * 8 * 0.7 * 2 / (3 * u[0].numel()) + plain.abs().max()
    assert (rough - expected).abs().max() <= 12 * torch.finfo(torch.float32).eps * largest


@pytest.mark.usefixtures("threads")
def test_of_a_usual_size() -> None:
    weights, u = _weights(NODES, "both"), _off_kinks(NODES)
    features = [channels.movedim(0, -1).contiguous().movedim(-1, 0) for channels in _pair(12, NODES)]
    assert_within_budget(FUSED, TORCH, *features, u, diffusion=0.2, **weights)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "given"),
    pairwise([1, 3], [*SHAPES, NODES], ["none", "fixed", "moving", "both"]),
    indirect=["threads"],
)
def test_evidence(shape: Shape, given: str) -> None:
    # Shares of a neighbour above and below what counts, and none at all.
    rng = np.random.default_rng(1)
    part = rng.choice([-0.2, 0.0, 0.04, 0.2, 0.4], (3, *shape))
    u = torch.from_numpy(rng.integers(-2, 3, (3, *shape)) + part).float()
    found = on_cpu(overlap_weight)(u, *_weights(shape, given).values())
    assert_within_budget(on_cpu(overlap_weight), reference.overlap_weight, u, *_weights(shape, given).values())
    if shape == NODES:
        assert 0.1 < (found > 0).float().mean() < 0.95  # the gaps matter, and leave something


def test_where_there_is_no_evidence_the_gradient_is_0() -> None:
    shape = (7, 9, 8)
    u, weights = _off_kinks(shape), _weights(shape, "both")
    evidence = reference.overlap_weight(u, *weights.values())
    _, gradient = on_cpu(warp_ssd)(*_pair(3, shape), u, **weights)
    assert not gradient[:, evidence == 0].any()
    assert gradient[:, evidence > 0].any()


def test_positions_beyond_the_outer_nodes_hold_the_gradient_at_0() -> None:
    shape = (4, 5, 6)
    u = torch.zeros(3, *shape)
    u[0, 0], u[1, :, -1], u[2, ..., -1] = -0.3, 0.4, 2.0
    value, gradient = on_cpu(warp_ssd)(*_pair(3, shape), u)
    expected, _ = _reference(*(f.double() for f in _pair(3, shape)), u.double())
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)  # zero displacements lie on kinks: the value only
    assert not gradient[0, 0].any()
    assert not gradient[1, :, -1].any()
    assert not gradient[..., -1].any()
    assert gradient[2, 1:3, 1:4, 1:5].all()


def test_equal_features_cost_nothing() -> None:
    fixed, _ = _pair(12, (5, 6, 7))
    value, gradient = on_cpu(warp_ssd)(fixed, fixed, torch.zeros(3, 5, 6, 7))
    # The last node of an axis is the one before it and a whole step: a difference and a sum for each axis.
    wrong = 3 * 2 * torch.finfo(torch.float32).eps * fixed.abs().max()
    assert value <= 12 * wrong**2
    assert gradient.abs().max() <= 2 / 210 * 12 * wrong * 2 * fixed.abs().max()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("diffusion", [0.0, 0.5])
def test_writes_where_it_is_told(diffusion: float) -> None:
    shape = (5, 7, 6)
    u, given = _off_kinks(shape), torch.full((3, *shape), torch.nan)
    with_gaps = {"fixed_weight": gaps(*shape)}
    comparison = on_cpu(prepare_ssd)(*_pair(3, shape), **with_gaps)
    value, gradient = comparison(u, diffusion=diffusion)
    again, found = comparison(u, diffusion=diffusion, out=given)
    assert found is given
    assert torch.equal(found, gradient)
    assert again.item() == pytest.approx(value.item(), rel=1e-6)  # slabs are added up in any order
    strided = scattered(torch.zeros(3, *shape))
    assert comparison(u, diffusion=diffusion, out=strided)[1] is strided
    assert torch.equal(strided, gradient)


@pytest.mark.usefixtures("threads")
def test_non_contiguous_inputs() -> None:
    shape = (7, 9, 8)
    fixed, moving = (scattered(features) for features in _pair(3, shape))
    u, weight = scattered(_off_kinks(shape)), scattered(gaps(*shape))
    assert not any(t.is_contiguous() for t in (fixed, moving, u, weight))
    options = {"fixed_weight": weight, "moving_weight": weight, "diffusion": 0.3}
    assert_within_budget(FUSED, TORCH, fixed, moving, u, **options)
    assert_within_budget(on_cpu(overlap_weight), reference.overlap_weight, u, weight, weight)


def test_the_inputs_are_left_alone() -> None:
    shape = (3, 4, 5)
    given = [*_pair(2, shape), _off_kinks(shape), gaps(*shape)]
    before = [t.clone() for t in given]
    on_cpu(warp_ssd)(*given[:3], fixed_weight=given[3], moving_weight=given[3], diffusion=1.0)
    on_cpu(overlap_weight)(given[2], given[3], given[3])
    assert all(torch.equal(a, b) for a, b in zip(before, given, strict=True))


def _curved(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    value, found = prepare_ssd(fixed, moving, **options).curvature(u, diffusion=diffusion)
    return value, found[:3], found[3]


def _reference_curved(
    fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor, *, diffusion: float = 0.0, **options: Any
) -> Any:
    value, found = reference.WarpSsd(fixed, moving, **options).curvature(u, diffusion=diffusion)
    return value, found[:3], found[3]


FUSED_CURVED, TORCH_CURVED = _scaled(on_cpu(_curved)), _scaled(_reference_curved)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "channels", "given", "outlier"),
    pairwise([1, 3], SHAPES, [1, 3, 12, 17], ["none", "both"], [None, 2.5]),
    indirect=["threads"],
)
def test_curvature_errs_no_more_than_torch(shape: Shape, channels: int, given: str, outlier: float | None) -> None:
    options: dict[str, Any] = {**_weights(shape, given), "outlier": outlier, "diffusion": 0.7}
    assert_within_budget(FUSED_CURVED, TORCH_CURVED, *_pair(channels, shape), _off_kinks(shape), **options)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("outlier", [None, 2.5])
def test_the_gradient_alone_errs_no_more_than_torch(outlier: float | None) -> None:
    shape = (13, 17, 19)

    def alone(fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor) -> Any:
        return prepare_ssd(fixed, moving, outlier=outlier).gradient(u) * u[0].numel()

    def expected(fixed: torch.Tensor, moving: torch.Tensor, u: torch.Tensor) -> Any:
        return reference.WarpSsd(fixed, moving, outlier=outlier).gradient(u) * u[0].numel()

    assert_within_budget(on_cpu(alone), expected, *_pair(3, shape), _off_kinks(shape))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("outlier", [None, 12.0])
def test_curvature_of_a_usual_size(outlier: float | None) -> None:
    options: dict[str, Any] = {**_weights(NODES, "both"), "outlier": outlier}
    assert_within_budget(FUSED_CURVED, TORCH_CURVED, *_pair(12, NODES), _off_kinks(NODES), **options)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "channels", "diffusion", "outlier"),
    pairwise([1, 3], [1, 3, 6, 12, 17], [0.0, 0.7], [None, 2.5]),
    indirect=["threads"],
)
def test_curvature_comes_with_the_value_and_gradient_of_a_call(
    channels: int, diffusion: float, outlier: float | None
) -> None:
    shape = (13, 17, 19)
    options: dict[str, Any] = {"fixed_weight": gaps(*shape), "outlier": outlier}
    comparison, u = on_cpu(prepare_ssd)(*_pair(channels, shape), **options), _off_kinks(shape)
    value, found = comparison.curvature(u, diffusion=diffusion)
    expected = comparison(u, diffusion=diffusion)
    assert torch.equal(found[:3], expected[1])
    if torch.get_num_threads() == 1:
        assert torch.equal(value, expected[0])
    assert value.item() == pytest.approx(expected[0].item(), rel=1e-6)  # slabs are added up in any order
    assert comparison.value(u).item() == pytest.approx(expected[0].item(), rel=1e-6)
    for out in (torch.full((4, *shape), torch.nan), scattered(torch.zeros(4, *shape))):
        assert comparison.curvature(u, diffusion=diffusion, out=out)[1] is out
        assert torch.equal(out, found)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_curvature_is_0_without_evidence_and_along_axes_that_are_clamped(axis: int) -> None:
    shape = (4, 5, 6)
    u, weight = torch.zeros(3, *shape), torch.ones(shape)
    u[0, 0], u[1, :, -1], u[2, ..., -1], weight[1, 1] = -0.3, 0.4, 2.0, 0
    ramp = torch.from_numpy(oracles.indices(shape)[axis][None]).float()
    _, _, trace = on_cpu(_curved)(ramp, ramp, u, fixed_weight=weight)
    assert not trace[1, 1].any()
    assert not trace.movedim(axis, 0)[[0, -1]].any()  # the outer node itself, too
    assert (trace[2, 1:-1, 1:-1] > 0).all()
    assert (trace[0, 1:-1, 1:-1] > 0).all() == (axis != 0)


@pytest.mark.parametrize("offset", [1.0, 1000.0])
def test_roughness_forgets_what_all_nodes_share(offset: float) -> None:
    shape = (5, 6, 9)
    nothing = torch.zeros(1, *shape), torch.zeros(1, *shape)  # features
    same = torch.full((3, *shape), offset)
    assert not on_cpu(warp_ssd)(*nothing, same, diffusion=1.0)[1].any()
    ripple = 2.0**-10 * torch.randint(-8, 9, (3, *shape), generator=torch.Generator().manual_seed(0))  # exact, added
    expected = on_cpu(warp_ssd)(*nothing, ripple, diffusion=1.0)[1]
    assert torch.equal(on_cpu(warp_ssd)(*nothing, same + ripple, diffusion=1.0)[1], expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e9, -1e9, 3e38])
def test_displacements_out_of_this_world_touch_their_node_alone(value: float) -> None:
    shape = (5, 6, 9)
    pair, u = _pair(3, shape), _off_kinks(shape)
    far = u.clone()
    far[1, 2, 3, 4] = value
    others = torch.ones(shape, dtype=torch.bool)
    others[2, 3, 4] = False
    loss, gradient = on_cpu(warp_ssd)(*pair, far)
    assert torch.equal(gradient[:, others], on_cpu(warp_ssd)(*pair, u)[1][:, others])
    assert not gradient[:, 2, 3, 4].any()
    assert loss.isfinite()
    assert on_cpu(overlap_weight)(far, None, None)[2, 3, 4] == 0


@pytest.mark.parametrize("given", ["none", "both"])
def test_gradients_vanish_where_there_is_no_evidence(given: str) -> None:
    """Both say where: at whole nodes, on the border, half a node beyond it, and further out."""
    shape = (4, 5, 6)
    places = torch.tensor([-7.0, -0.75, -0.5, -0.25, 0.0, 0.5, 1.0, 2.75, 3.0, 3.5, 3.75, 4.5, 5.5, 5.75, 40.0])
    grid = torch.stack(torch.meshgrid(*(torch.arange(n) for n in shape), indexing="ij")).float()
    weights = _weights(shape, given)
    pair = torch.zeros(1, *shape), oracles.uniform(1, *shape, seed=4, low=1.0, high=2.0).float()
    for axis in range(3):
        for place in places:
            u = torch.full((3, *shape), 0.25)
            u[axis] = place - grid[axis]
            known = on_cpu(overlap_weight)(u, **{"fixed_weight": None, "moving_weight": None, **weights}) > 0
            residual = on_cpu(warp_ssd)(*pair, u, **weights)[1].abs().sum(0) > 0
            assert not residual[~known].any()
            inner = (u[axis] + grid[axis] > 0) & (u[axis] + grid[axis] < shape[axis] - 1)
            assert residual[known & inner].all()


@pytest.mark.parametrize(("channels", "width"), [(12, 16), (14, 16), (3, 4)])
def test_integers_with_a_scale_for_each_channel_are_compared_as_what_they_stand_for(channels: int, width: int) -> None:
    shape, rng = (7, 6, 9), np.random.default_rng(3)
    scale = torch.from_numpy(rng.uniform(1e-4, 3e-4, channels).astype(np.float32))
    maps = []
    for _ in range(2):
        rows = np.zeros((*shape, width), np.int16)
        rows[..., :channels] = rng.integers(-LARGEST, LARGEST + 1, (*shape, channels))
        maps.append(FeatureRows(rows=torch.from_numpy(rows), scale=scale, channels=channels))
    weights, u = _weights(shape, "both"), _off_kinks(shape)
    term = prepare_ssd(*maps, **weights, outlier=50.0)
    with use_backend("reference"):
        exact = prepare_ssd(*(m.unpack().double() for m in maps), **_doubled(weights), outlier=50.0)
    value, curvature = exact.curvature(u.double())
    for found in (term(u)[0], term.value(u), term.curvature(u)[0]):
        torch.testing.assert_close(found.double(), value, rtol=1e-5, atol=0)
    tolerance = {"rtol": 1e-4, "atol": 1e-5 * float(curvature.abs().max())}
    torch.testing.assert_close(term.curvature(u)[1].double(), curvature, **tolerance)
    torch.testing.assert_close(term.gradient(u).double(), curvature[:3], **tolerance)


def _doubled(weights: dict[str, torch.Tensor | None]) -> dict[str, torch.Tensor | None]:
    return {name: None if w is None else w.double() for name, w in weights.items()}
