"""The continuous stage as a whole, with a displacement that is smoothed (the published form)."""

from __future__ import annotations

from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch

from convexadam.continuous import Adam, BoxSmoothing, Diffusion, GaussianSmoothing, Level, Refinement
from convexadam.errors import ConfigError


def _shifted(
    shape: tuple[int, int, int], shift: tuple[float, float, float], *, channels: int = 2, sigma: float = 2.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of one smooth function: what is at x in fixed is at x + shift in moving."""
    ticks = oracles.indices(shape)
    moved = ticks - np.array(shift).reshape(3, 1, 1, 1)
    pair = [oracles.blobs(where, shape, channels=channels, sigma=sigma) for where in (ticks, moved)]
    return torch.from_numpy(pair[0]), torch.from_numpy(pair[1])


def _refinement(
    *, spacing: Any = 2, iterations: int = 80, weight: float = 1.25, learning_rate: float = 1.0, **options: Any
) -> Refinement:
    """One level of the published form."""
    return Refinement(
        levels=(Level(spacing=spacing, iterations=iterations),),
        regularisers=(Diffusion(weight=weight),),
        optimiser=Adam(learning_rate=learning_rate),
        **options,
    )


def test_one_level_of_the_published_form_is_the_default() -> None:
    assert _refinement() == Refinement()


def _energy(fixed: torch.Tensor, moving: torch.Tensor, disp_nodes: torch.Tensor, weight: float) -> float:
    f, m, u = fixed.numpy(), moving.numpy(), disp_nodes.numpy()
    return oracles.ssd(f, m, u, oracles.ssd_weights(u)) + weight * oracles.diffusion_energy(u)


def _noise_floor(moving: np.ndarray, u: np.ndarray, weights: np.ndarray) -> float:
    """Gradient of a hundredth of a node at the mean curvature of the nodes that have any."""
    curvature = oracles.gauss_newton(moving, u, weights)[[0, 3, 5]].mean(0)
    return 0.01 * float(curvature[curvature > 0].mean()) if curvature.any() else 1.0


def _by_hand(
    fixed: torch.Tensor,
    moving: torch.Tensor,
    start: torch.Tensor,
    spacing: tuple[int, int, int],
    taps: tuple[float, ...],
    iterations: int,
    weight: float,
    weights: tuple[np.ndarray | None, np.ndarray | None] = (None, None),
) -> np.ndarray:
    """Optimise with naive gradients and torch's Adam; with smoothing as one explicit matrix."""
    shape: Any = fixed.shape[1:]
    scale = np.array(spacing, float).reshape(3, 1, 1, 1)
    f, m = (oracles.pool(t.numpy(), spacing, w) for t, w in zip((fixed, moving), weights, strict=True))
    wf, wm = (None if w is None else oracles.node_weights(w, spacing) for w in weights)
    begin = oracles.voxels_to_nodes(start.numpy(), spacing) / scale
    # B, [a, b, d, i, j, k]: what smoothing makes of each unit vector.
    nodes = f.shape[1:]
    units = np.eye(f[0].size).reshape(-1, *nodes)
    b = (
        oracles.smooth(units, taps, oracles.ssd_weights(begin, wf, wm))
        .reshape(*nodes, *nodes)
        .transpose(3, 4, 5, 0, 1, 2)
    )
    p = torch.from_numpy(begin).requires_grad_()
    smoothed = np.einsum("abdijk,cijk->cabd", b, begin)
    optimiser = torch.optim.Adam([p], lr=1.0, eps=_noise_floor(m, smoothed, oracles.ssd_weights(smoothed, wf, wm)))
    for _ in range(iterations):
        u = np.einsum("abdijk,cijk->cabd", b, p.detach().numpy())
        gradient = oracles.ssd_gradient(f, m, u, oracles.ssd_weights(u, wf, wm))
        for at in np.ndindex(*u.shape):  # the energy is a quadratic: unit steps are exact
            up, down = u.copy(), u.copy()
            up[at] += 0.5
            down[at] -= 0.5
            gradient[at] += weight * (oracles.diffusion_energy(up) - oracles.diffusion_energy(down))
        p.grad = torch.from_numpy(np.einsum("abdijk,cabd->cijk", b, gradient))
        optimiser.step()
    u = np.einsum("abdijk,cijk->cabd", b, p.detach().numpy())
    return oracles.nodes_to_voxels(u * scale, spacing, shape)


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("weighted", ["not", "everywhere", "in part"])
@pytest.mark.parametrize("reach", [1, 5])  # within half a node of the nodes, and beyond the field of view
def test_equals_a_loop_by_hand_up_to_the_last_step(iterations: int, weighted: str, reach: int) -> None:
    shape, spacing = (7, 9, 5), (2, 3, 2)
    fixed, moving = oracles.noise(3, *shape), oracles.noise(3, *shape, seed=1)
    start = oracles.uniform(3, *shape, seed=2, low=-reach, high=reach)
    pair: Any = [None, None] if weighted == "not" else [oracles.uniform(*shape, seed=s) for s in (3, 4)]
    if weighted == "in part":
        pair[0][5], pair[1][:3, :2] = 0, 0  # halves and parts of nodes
    found = _refinement(spacing=spacing, iterations=iterations)(
        fixed, moving, start=start, fixed_weight=pair[0], moving_weight=pair[1]
    )
    arrays = tuple(None if w is None else w.numpy() for w in pair)
    expected = _by_hand(fixed, moving, start, spacing, BoxSmoothing().taps(), iterations, 1.25, arrays)
    # Finite differences are right to 1e-10; Adam divides by the size of the gradient, which is 1e-5 and more here.
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-6)
    assert (found - start).abs().max() > 0.5


@pytest.mark.parametrize("spacing", [1, 2, (3, 1, 2)])
@pytest.mark.parametrize("smoothing", [BoxSmoothing(), GaussianSmoothing(sigma=0.7), None])
@pytest.mark.parametrize("leaves", [False, True])
def test_no_iterations_return_the_start_seen_through_the_nodes(spacing: Any, smoothing: Any, leaves: bool) -> None:
    # Regression: the published package crashes at 0 iterations.
    shape = (7, 9, 5)
    steps = spacing if isinstance(spacing, tuple) else (spacing,) * 3
    fixed = oracles.noise(1, *shape)
    # Up to half a voxel is within half a node and so within the field of view; normal noise of 3 is not.
    start = 3 * oracles.noise(3, *shape, seed=1) if leaves else oracles.uniform(3, *shape, seed=1, low=-0.5, high=0.5)
    found = _refinement(spacing=spacing, iterations=0, smoothing=smoothing)(fixed, fixed, start=start)
    nodes = oracles.voxels_to_nodes(start.numpy(), steps)
    evidence = oracles.ssd_weights(nodes / np.array(steps).reshape(3, 1, 1, 1))
    assert bool((evidence == 0).any()) == leaves
    smoothed = nodes if smoothing is None else oracles.smooth(nodes, smoothing.taps(), evidence if leaves else None)
    expected = torch.from_numpy(oracles.nodes_to_voxels(smoothed, steps, shape))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_nodes_without_evidence_follow_the_rest_of_the_start() -> None:
    # A start that is 1 where it may be believed, and wild under a mask and where it leads out of the field of view.
    shape = (12, 10, 8)
    features, start = oracles.noise(1, *shape), torch.ones(3, *shape, dtype=torch.float64)
    weight = torch.ones(shape, dtype=torch.float64)
    wild = [(slice(4, 6), slice(4, 6), slice(2, 4)), (slice(10, 12), slice(0, 2), slice(0, 8))]
    start[(slice(None), *wild[0])], start[(slice(None), *wild[1])] = -3.5, 40.0
    weight[wild[0]] = 0
    refinement = _refinement(spacing=1, iterations=0, smoothing=BoxSmoothing(width=3, passes=1))
    found = refinement(features, features, start=start, fixed_weight=weight)
    # In the last layers the shift by 1 leads out as well. Elsewhere at least as many neighbours know as are wild, and
    # these, at most 39 off, count a thousandth each.
    apart = (found - 1)[:, :10, :9, :7].abs()
    assert apart.max() < 39e-3
    # Each node of the mask, of 2 x 2 x 2, has 8 in it among its neighbours, which are 4.5 off, and 19 around it.
    assert apart[(slice(None), *wild[0])].max() <= 8 * 4.5e-3 / 19


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [(0.75, -0.5, 0.25), (1.5, -2.0, 1.0)])  # inside, and out of the field of view
def test_a_constant_start_stays_what_it_is(shift: tuple[float, float, float], dtype: torch.dtype) -> None:
    # Voxels, also where spacing differs per axis and sizes are no multiples; no collapse at the border. In nodes these
    # are powers of two, so that weighted means of them are exact: Adam would make a step of any rounding error.
    start = torch.tensor(shift, dtype=dtype).reshape(3, 1, 1, 1).expand(3, 7, 9, 5)
    features = torch.ones(1, 7, 9, 5, dtype=dtype)
    found = _refinement(spacing=(3, 2, 2), iterations=4)(features, features, start=start)
    torch.testing.assert_close(found, start.contiguous(), rtol=0, atol=1e-5)


def test_the_energy_falls() -> None:
    fixed, moving = _shifted((11, 9, 10), (1.0, -0.6, 0.8))
    # Nodes are voxels here, so that the energy of the result can be taken.
    refinement = _refinement(spacing=1, iterations=10, learning_rate=0.2, weight=0.1)
    energies = [_energy(fixed, moving, torch.zeros(3, 11, 9, 10, dtype=torch.float64), 0.1)]
    energies.append(_energy(fixed, moving, refinement(fixed, moving), 0.1))
    assert energies[1] < 0.5 * energies[0]


@pytest.mark.parametrize("spacing", [2, (3, 2, 1)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_translation_is_found_up_to_the_border(spacing: Any, sign: int) -> None:
    # Features that are linear in position lose nothing by pooling and interpolation: at the true shift the energy is 0.
    shape, rate = (11, 10, 9), 0.1
    shift = torch.tensor([1.4, -1.0, 0.7], dtype=torch.float64).reshape(3, 1, 1, 1)
    ticks = torch.from_numpy(oracles.indices(shape)) / 4
    fixed, moving = (ticks + shift / 4, ticks) if sign > 0 else (ticks, ticks + shift / 4)
    found = _refinement(spacing=spacing, iterations=80, weight=0.1, learning_rate=rate)(fixed, moving)
    # At a fixed rate Adam comes to rest within one step, which is so many nodes long.
    steps = spacing if isinstance(spacing, tuple) else (spacing,) * 3
    apart = (found - sign * shift).abs()
    assert all(apart[a].max() < rate * s for a, s in enumerate(steps))


def test_without_regularisation_it_still_moves() -> None:
    # Regression: in the published package a weight of 0 silently disables Adam.
    fixed, moving = _shifted((9, 8, 7), (0.8, 0.0, 0.0))
    start = torch.zeros(3, 9, 8, 7, dtype=torch.float64)
    found = _refinement(weight=0.0, iterations=20, spacing=1, learning_rate=0.1)(fixed, moving, start=start)
    assert found[0].mean() > 0.2
    assert _energy(fixed, moving, found, 0.0) < 0.5 * _energy(fixed, moving, start, 0.0)


def test_weight_makes_the_field_smooth() -> None:
    fixed, moving = oracles.noise(2, 9, 8, 7), oracles.noise(2, 9, 8, 7, seed=1)
    rough, smooth = (
        oracles.diffusion_energy(_refinement(weight=w, iterations=15, spacing=1)(fixed, moving).numpy())
        for w in (0.0, 100.0)
    )
    assert smooth < 0.5 * rough


@pytest.mark.parametrize("channels", [1, 3, 17])
@pytest.mark.parametrize("shape", [(12, 12, 3), (1, 5, 6), (1, 1, 1)])
def test_thin_volumes_and_any_number_of_channels(channels: int, shape: tuple[int, int, int]) -> None:
    # Regression: the published package crashes on thin volumes and assumes 12 channels.
    fixed, moving = oracles.noise(channels, *shape).float(), oracles.noise(channels, *shape, seed=1).float()
    found = _refinement(iterations=5)(fixed, moving)
    assert found.shape == (3, *shape)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    assert bool(found.any()) == (max(shape) > 1)


def test_no_start_is_a_start_at_zero() -> None:
    fixed, moving = oracles.noise(2, 7, 6, 5), oracles.noise(2, 7, 6, 5, seed=1)
    refinement = _refinement(iterations=3)
    zero = torch.zeros(3, 7, 6, 5, dtype=torch.float64)
    assert torch.equal(refinement(fixed, moving), refinement(fixed, moving, start=zero))


def test_settings_in_mm_equal_those_in_voxels() -> None:
    fixed, moving = oracles.noise(2, 9, 8, 7), oracles.noise(2, 9, 8, 7, seed=1)
    in_mm = _refinement(spacing=3.0, unit="mm", iterations=3)(fixed, moving, voxel_mm=(1.0, 3.0, 1.5))
    assert torch.equal(in_mm, _refinement(spacing=(3, 1, 2), iterations=3)(fixed, moving))


def test_final_smoothing_acts_on_the_finished_field() -> None:
    fixed, moving = oracles.noise(2, 7, 6, 5), oracles.noise(2, 7, 6, 5, seed=1)
    plain = _refinement(iterations=3)(fixed, moving)
    final = BoxSmoothing(width=3, passes=1)
    found = _refinement(iterations=3, final_smoothing=final)(fixed, moving)
    expected = torch.from_numpy(oracles.smooth(plain.numpy(), final.taps()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_weights_keep_a_corrupted_part_out(which: str) -> None:
    shape = (12, 11, 10)
    features = dict(zip(("fixed", "moving"), _shifted(shape, (1.0, 0.0, 0.0), channels=4), strict=True))
    broken, weight = features | {which: features[which].clone()}, torch.ones(shape, dtype=torch.float64)
    part = [slice(4, 8)] * 3  # whole blocks of two voxels
    broken[which][(slice(None), *part)] = 5 * oracles.noise(4, 4, 4, 4, seed=5)
    weight[tuple(part)] = 0
    refinement = _refinement(spacing=2, iterations=20, learning_rate=0.1)
    good, bad = refinement(**features), refinement(**broken)
    kept = refinement(**broken, **{f"{which}_weight": weight})
    # With the weight, what is left of the damage is what the part would have contributed itself.
    assert (kept - good).abs().mean() < 0.25 * (bad - good).abs().mean()


def _partly_covered(shape: tuple[int, int, int]) -> tuple[torch.Tensor, tuple[slice, slice, slice]]:
    """Weight with a hole of whole nodes of two voxels and one more layer of voxels, and that layer's other half."""
    weight = torch.ones(shape, dtype=torch.float64)
    weight[4:7, 2:6, 2:6] = 0
    return weight, (slice(7, 8), slice(2, 6), slice(2, 6))


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_nodes_that_are_partly_covered_are_left_out(which: str) -> None:
    shape = (12, 10, 8)
    features = {"fixed": oracles.noise(3, *shape), "moving": oracles.noise(3, *shape, seed=1)}
    weight, rest = _partly_covered(shape)
    # Read between nodes, so that each of the eight has more than a thousandth of the interpolation.
    start = oracles.uniform(3, *shape, seed=2, low=0.3, high=1.7)
    refinement = _refinement(spacing=2, iterations=1, learning_rate=0.1, smoothing=None)

    def refined(weight: torch.Tensor, features: dict[str, torch.Tensor]) -> torch.Tensor:
        return refinement(**features, start=start, **{f"{which}_weight": weight})

    other = features | {which: features[which].clone()}
    other[which][(slice(None), *rest)] += 3  # has evidence, but half of its node has none
    assert torch.equal(refined(weight, features), refined(weight, other))
    hole, covered = weight.clone(), weight.clone()
    hole[6:8, 2:6, 2:6], covered[6:8, 2:6, 2:6] = 0, 1
    assert torch.equal(refined(weight, features), refined(hole, features))
    # Where the node is seen, it acts: a step of a tenth of a node of two voxels turns round, of which each voxel of the
    # node has three quarters along each axis: 0.4 * 0.75^3 = 0.169, where the others keep theirs.
    assert (refined(covered, other) - refined(covered, features)).abs().max() > 0.16


def test_parts_have_to_do_where_no_node_is_whole() -> None:
    shape, spacing = (8, 9, 7), (2, 3, 2)
    fixed, moving = oracles.noise(3, *shape), oracles.noise(3, *shape, seed=1)
    weight = torch.zeros(shape, dtype=torch.float64)
    weight[3], weight[:, 4] = 0.5, 1  # two planes, thinner than a node
    assert (oracles.node_weights(weight.numpy(), spacing) == oracles.pool(weight[None].numpy(), spacing)[0]).all()
    start = oracles.uniform(3, *shape, seed=2, low=-1, high=1)
    found = _refinement(spacing=spacing, iterations=2)(fixed, moving, start=start, fixed_weight=weight)
    expected = _by_hand(fixed, moving, start, spacing, BoxSmoothing().taps(), 2, 1.25, (weight.numpy(), None))
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-6)  # see above
    assert (found - start).abs().max() > 0.5


def test_inputs_are_left_alone() -> None:
    fixed, moving, start = oracles.noise(2, 7, 6, 5), oracles.noise(2, 7, 6, 5, seed=1), oracles.noise(3, 7, 6, 5)
    weight = oracles.uniform(7, 6, 5)
    before = [t.clone() for t in (fixed, moving, start, weight)]
    for spacing in (1, 2):
        _refinement(spacing=spacing, iterations=2)(
            fixed, moving, start=start, fixed_weight=weight, moving_weight=weight
        )
    assert all(torch.equal(a, b) for a, b in zip(before, (fixed, moving, start, weight), strict=True))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"spacing": 0}, "spacing"),
        ({"spacing": 1.5}, "whole number"),
        ({"spacing": (2, 2)}, "spacing"),
        ({"spacing": 0.0, "unit": "mm"}, "spacing"),
        ({"unit": "inch"}, "unit"),
        ({"spacing": True}, "spacing"),
        ({"spacing": float("nan"), "unit": "mm"}, "spacing"),
        ({"iterations": -1}, "iterations"),
        ({"iterations": 2.5}, "iterations"),
        ({"iterations": True}, "iterations"),
        ({"weight": True}, "weight"),
        ({"weight": "1"}, "weight"),
        ({"weight": -0.1}, "weight"),
        ({"weight": float("nan")}, "weight"),
        ({"weight": float("inf")}, "weight"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"learning_rate": float("inf")}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
    ],
)
def test_unusable_settings(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As users have it: without the tests' own check of annotations, which would come first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        _refinement(**setting)


def test_numbers_of_numpy_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    fixed, moving = oracles.noise(2, 7, 6, 5), oracles.noise(2, 7, 6, 5, seed=1)
    options: Any = {"spacing": np.int64(2), "iterations": np.int32(2), "weight": np.float32(0.5)}
    found = _refinement(**options, learning_rate=np.float64(0.25))(fixed, moving)
    assert torch.equal(found, _refinement(spacing=2, iterations=2, weight=0.5, learning_rate=0.25)(fixed, moving))
