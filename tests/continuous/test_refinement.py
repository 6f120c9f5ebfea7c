"""The continuous stage as a whole, in the published form: a smoothed displacement and Adam."""

from __future__ import annotations

from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam.continuous import Adam, BoxSmoothing, Diffusion, GaussianSmoothing, Level, Refinement
from convexadam.errors import ConfigError


def _shifted(
    shape: tuple[int, int, int], shift: tuple[float, float, float], *, channels: int = 2, sigma: float = 2.5
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of one smooth function, with ``moving(x + shift) = fixed(x)``."""
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
    """Gradient of a hundredth of a control point at the mean curvature of the control points that have any."""
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
    begin = oracles.voxels_to_control_points(start.numpy(), spacing) / scale
    # B, [a, b, d, i, j, k]: the response of the smoothing to each unit vector
    grid = f.shape[1:]
    units = np.eye(f[0].size).reshape(-1, *grid)
    b = (
        oracles.smooth(units, taps, oracles.ssd_weights(begin, wf, wm))
        .reshape(*grid, *grid)
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
    return oracles.control_points_to_voxels(u * scale, spacing, shape)


@pytest.mark.parametrize(  # within half a control point, and beyond the field of view
    ("iterations", "weighted", "reach"), pairwise([1, 3], ["not", "everywhere", "in part"], [1, 5])
)
def test_equals_a_loop_by_hand_up_to_the_last_step(iterations: int, weighted: str, reach: int) -> None:
    shape, spacing = (7, 9, 5), (2, 3, 2)
    fixed, moving = oracles.noise(3, *shape), oracles.noise(3, *shape, seed=1)
    start = oracles.uniform(3, *shape, seed=2, low=-reach, high=reach)
    pair: Any = [None, None] if weighted == "not" else [oracles.uniform(*shape, seed=s) for s in (3, 4)]
    if weighted == "in part":
        pair[0][5], pair[1][:3, :2] = 0, 0  # one half and other parts of control points
    found = _refinement(spacing=spacing, iterations=iterations)(
        fixed, moving, start=start, fixed_weight=pair[0], moving_weight=pair[1]
    )
    arrays = tuple(None if w is None else w.numpy() for w in pair)
    expected = _by_hand(fixed, moving, start, spacing, BoxSmoothing().taps(), iterations, 1.25, arrays)
    # finite differences are accurate to 1e-10; Adam divides by the size of the gradient, 1e-5 and more here
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-6)
    assert (found - start).abs().max() > 0.5


@pytest.mark.parametrize(
    ("spacing", "smoothing", "leaves"),
    pairwise([1, 2, (3, 1, 2)], [BoxSmoothing(), GaussianSmoothing(sigma=0.7), None], [False, True]),
)
def test_zero_iterations_return_the_start_resampled_through_the_control_points(
    spacing: Any, smoothing: Any, leaves: bool
) -> None:
    # Regression: the published package crashes at 0 iterations.
    shape = (7, 9, 5)
    steps = spacing if isinstance(spacing, tuple) else (spacing,) * 3
    fixed = oracles.noise(1, *shape)
    # up to half a voxel stays within half a control point, and so within the field of view; normal noise of 3 does not
    start = 3 * oracles.noise(3, *shape, seed=1) if leaves else oracles.uniform(3, *shape, seed=1, low=-0.5, high=0.5)
    found = _refinement(spacing=spacing, iterations=0, update_smoothing=smoothing)(fixed, fixed, start=start)
    nodes = oracles.voxels_to_control_points(start.numpy(), steps)
    weight = oracles.ssd_weights(nodes / np.array(steps).reshape(3, 1, 1, 1))
    assert bool((weight == 0).any()) == leaves
    smoothed = nodes if smoothing is None else oracles.smooth(nodes, smoothing.taps(), weight if leaves else None)
    expected = torch.from_numpy(oracles.control_points_to_voxels(smoothed, steps, shape))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_control_points_without_weight_follow_the_rest_of_the_start() -> None:
    # a start of 1, except within a mask and where it leads out of the field of view
    shape = (12, 10, 8)
    features, start = oracles.noise(1, *shape), torch.ones(3, *shape, dtype=torch.float64)
    weight = torch.ones(shape, dtype=torch.float64)
    wild = [(slice(4, 6), slice(4, 6), slice(2, 4)), (slice(10, 12), slice(0, 2), slice(0, 8))]
    start[(slice(None), *wild[0])], start[(slice(None), *wild[1])] = -3.5, 40.0
    weight[wild[0]] = 0
    refinement = _refinement(spacing=1, iterations=0, update_smoothing=BoxSmoothing(width=3, passes=1))
    found = refinement(features, features, start=start, fixed_weight=weight)
    # In the last layers the shift by 1 leads out as well. Elsewhere at least half of the neighbours have weight, and
    # the others, off by at most 39, count a thousandth each.
    error = (found - 1)[:, :10, :9, :7].abs()
    assert error.max() < 39e-3
    # each control point of the mask, of 2 x 2 x 2, has 8 neighbours within it, off by 4.5, and 19 around it
    assert error[(slice(None), *wild[0])].max() <= 8 * 4.5e-3 / 19


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shift", [(0.75, -0.5, 0.25), (1.5, -2.0, 1.0)])  # inside, and out of the field of view
def test_a_constant_start_is_kept(shift: tuple[float, float, float], dtype: torch.dtype) -> None:
    # For spacings that differ by axis and sizes that are no multiples of them, up to the border. In control points the
    # shifts are powers of two, with exact weighted means: Adam would turn any rounding error into a full step.
    start = torch.tensor(shift, dtype=dtype).reshape(3, 1, 1, 1).expand(3, 7, 9, 5)
    features = torch.ones(1, 7, 9, 5, dtype=dtype)
    found = _refinement(spacing=(3, 2, 2), iterations=4)(features, features, start=start)
    torch.testing.assert_close(found, start.contiguous(), rtol=0, atol=1e-5)


def test_the_energy_decreases() -> None:
    fixed, moving = _shifted((11, 9, 10), (1.0, -0.6, 0.8))
    # control points are voxels here, so that the energy of the result can be evaluated
    refinement = _refinement(spacing=1, iterations=10, learning_rate=0.2, weight=0.1)
    energies = [_energy(fixed, moving, torch.zeros(3, 11, 9, 10, dtype=torch.float64), 0.1)]
    energies.append(_energy(fixed, moving, refinement(fixed, moving), 0.1))
    assert energies[1] < 0.5 * energies[0]


@pytest.mark.parametrize("spacing", [2, (3, 2, 1)])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_translation_is_found_up_to_the_border(spacing: Any, sign: int) -> None:
    # pooling and interpolation of linear features are exact: the energy of the true shift is 0
    shape, rate = (11, 10, 9), 0.1
    shift = torch.tensor([1.4, -1.0, 0.7], dtype=torch.float64).reshape(3, 1, 1, 1)
    ticks = torch.from_numpy(oracles.indices(shape)) / 4
    fixed, moving = (ticks + shift / 4, ticks) if sign > 0 else (ticks, ticks + shift / 4)
    found = _refinement(spacing=spacing, iterations=80, weight=0.1, learning_rate=rate)(fixed, moving)
    # with a fixed learning rate Adam ends within one step, of so many control points
    steps = spacing if isinstance(spacing, tuple) else (spacing,) * 3
    error = (found - sign * shift).abs()
    assert all(error[a].max() < rate * s for a, s in enumerate(steps))


def test_it_runs_without_regularisation() -> None:
    # regression: in the published package a weight of 0 silently disables Adam
    fixed, moving = _shifted((9, 8, 7), (0.8, 0.0, 0.0))
    start = torch.zeros(3, 9, 8, 7, dtype=torch.float64)
    found = _refinement(weight=0.0, iterations=20, spacing=1, learning_rate=0.1)(fixed, moving, start=start)
    assert found[0].mean() > 0.2
    assert _energy(fixed, moving, found, 0.0) < 0.5 * _energy(fixed, moving, start, 0.0)


def test_a_larger_weight_makes_the_field_smoother() -> None:
    fixed, moving = oracles.noise(2, 9, 8, 7), oracles.noise(2, 9, 8, 7, seed=1)
    rough, smooth = (
        oracles.diffusion_energy(_refinement(weight=w, iterations=15, spacing=1)(fixed, moving).numpy())
        for w in (0.0, 100.0)
    )
    assert smooth < 0.5 * rough


@pytest.mark.parametrize("channels", [1, 3, 17])
@pytest.mark.parametrize("shape", [(12, 12, 3), (1, 5, 6), (1, 1, 1)])
def test_thin_volumes_and_any_number_of_channels(channels: int, shape: tuple[int, int, int]) -> None:
    # regression: the published package crashes on thin volumes and assumes 12 channels
    fixed, moving = oracles.noise(channels, *shape).float(), oracles.noise(channels, *shape, seed=1).float()
    found = _refinement(iterations=5)(fixed, moving)
    assert found.shape == (3, *shape)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())
    assert bool(found.any()) == (max(shape) > 1)


def test_without_a_start_it_starts_from_zero() -> None:
    fixed, moving = oracles.noise(2, 7, 6, 5), oracles.noise(2, 7, 6, 5, seed=1)
    refinement = _refinement(iterations=3)
    zero = torch.zeros(3, 7, 6, 5, dtype=torch.float64)
    assert torch.equal(refinement(fixed, moving), refinement(fixed, moving, start=zero))


def test_settings_in_mm_equal_those_in_voxels() -> None:
    fixed, moving = oracles.noise(2, 9, 8, 7), oracles.noise(2, 9, 8, 7, seed=1)
    in_mm = _refinement(spacing=3.0, unit="mm", iterations=3)(fixed, moving, voxel_mm=(1.0, 3.0, 1.5))
    assert torch.equal(in_mm, _refinement(spacing=(3, 1, 2), iterations=3)(fixed, moving))


def test_final_smoothing_is_applied_to_the_result() -> None:
    fixed, moving = oracles.noise(2, 7, 6, 5), oracles.noise(2, 7, 6, 5, seed=1)
    plain = _refinement(iterations=3)(fixed, moving)
    final = BoxSmoothing(width=3, passes=1)
    found = _refinement(iterations=3, final_smoothing=final)(fixed, moving)
    expected = torch.from_numpy(oracles.smooth(plain.numpy(), final.taps()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_weights_exclude_a_corrupted_part(which: str) -> None:
    shape = (12, 11, 10)
    features = dict(zip(("fixed", "moving"), _shifted(shape, (1.0, 0.0, 0.0), channels=4), strict=True))
    broken, weight = features | {which: features[which].clone()}, torch.ones(shape, dtype=torch.float64)
    part = [slice(4, 8)] * 3  # whole blocks of two voxels
    broken[which][(slice(None), *part)] = 5 * oracles.noise(4, 4, 4, 4, seed=5)
    weight[tuple(part)] = 0
    refinement = _refinement(spacing=2, iterations=20, learning_rate=0.1)
    good, bad = refinement(**features), refinement(**broken)
    kept = refinement(**broken, **{f"{which}_weight": weight})
    # with the weight, the remaining error is the missing contribution of that part
    assert (kept - good).abs().mean() < 0.25 * (bad - good).abs().mean()


def _partly_covered(shape: tuple[int, int, int]) -> tuple[torch.Tensor, tuple[slice, slice, slice]]:
    """Weight with a hole of whole and of half control points of two voxels, and the other half of the latter."""
    weight = torch.ones(shape, dtype=torch.float64)
    weight[4:7, 2:6, 2:6] = 0
    return weight, (slice(7, 8), slice(2, 6), slice(2, 6))


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_control_points_that_are_partly_covered_are_excluded(which: str) -> None:
    shape = (12, 10, 8)
    features = {"fixed": oracles.noise(3, *shape), "moving": oracles.noise(3, *shape, seed=1)}
    weight, rest = _partly_covered(shape)
    # between control points, so that each of the eight has more than a thousandth of the interpolation weight
    start = oracles.uniform(3, *shape, seed=2, low=0.3, high=1.7)
    refinement = _refinement(spacing=2, iterations=1, learning_rate=0.1, update_smoothing=None)

    def refined(weight: torch.Tensor, features: dict[str, torch.Tensor]) -> torch.Tensor:
        return refinement(**features, start=start, **{f"{which}_weight": weight})

    other = features | {which: features[which].clone()}
    other[which][(slice(None), *rest)] += 3  # these voxels have weight, but half of their control points has none
    assert torch.equal(refined(weight, features), refined(weight, other))
    hole, covered = weight.clone(), weight.clone()
    hole[6:8, 2:6, 2:6], covered[6:8, 2:6, 2:6] = 0, 1
    assert torch.equal(refined(weight, features), refined(hole, features))
    # With weight, the control points count: a step of a tenth of two voxels is reversed, of which each voxel has three
    # quarters along each axis: 0.4 * 0.75^3 = 0.169, if the neighbours keep theirs.
    assert (refined(covered, other) - refined(covered, features)).abs().max() > 0.16


def test_partly_covered_control_points_count_if_none_is_complete() -> None:
    shape, spacing = (8, 9, 7), (2, 3, 2)
    fixed, moving = oracles.noise(3, *shape), oracles.noise(3, *shape, seed=1)
    weight = torch.zeros(shape, dtype=torch.float64)
    weight[3], weight[:, 4] = 0.5, 1  # two planes, thinner than a control point
    assert (oracles.node_weights(weight.numpy(), spacing) == oracles.pool(weight[None].numpy(), spacing)[0]).all()
    start = oracles.uniform(3, *shape, seed=2, low=-1, high=1)
    found = _refinement(spacing=spacing, iterations=2)(fixed, moving, start=start, fixed_weight=weight)
    expected = _by_hand(fixed, moving, start, spacing, BoxSmoothing().taps(), 2, 1.25, (weight.numpy(), None))
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=1e-6)  # see above
    assert (found - start).abs().max() > 0.5


def test_inputs_are_not_modified() -> None:
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
    # without the run-time check of annotations, which only the tests have and which would raise first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        _refinement(**setting)


def test_numbers_of_numpy_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    fixed, moving = oracles.noise(2, 7, 6, 5), oracles.noise(2, 7, 6, 5, seed=1)
    options: Any = {"spacing": np.int64(2), "iterations": np.int32(2), "weight": np.float32(0.5)}
    found = _refinement(**options, learning_rate=np.float64(0.25))(fixed, moving)
    assert torch.equal(found, _refinement(spacing=2, iterations=2, weight=0.5, learning_rate=0.25)(fixed, moving))
