"""A search around the result of an earlier one."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam.discrete import ConvexSearch
from convexadam.kernels import use_backend
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward

SHAPE = (5, 4, 6)


def _shifted(shape: tuple[int, int, int], shift: Any, *, sigma: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Fixed and moving features of one smooth function, with ``moving(x + shift) = fixed(x)``."""
    ticks = oracles.indices(shape)
    moved = ticks - np.array(shift).reshape(3, 1, 1, 1)
    fixed, moving = (oracles.blobs(where, shape, channels=3, sigma=sigma) for where in (ticks, moved))
    return torch.from_numpy(fixed), torch.from_numpy(moving)


def _error(found: torch.Tensor, shift: Any, margin: int) -> float:
    inner = (slice(None), *(slice(margin, -margin),) * 3)
    return float((found - torch.tensor(shift, dtype=found.dtype).reshape(3, 1, 1, 1))[inner].norm(dim=0).mean())


def _search_naively(
    fixed: np.ndarray, moving: np.ndarray, weights: tuple[Any, Any], radius: Any, start: Any, parabolic_fit: bool
) -> np.ndarray:
    """Search in the moving map as warped by the start, and compose the start with the result."""
    warped, weight = moving, weights[1]
    if start is not None:
        warped, weight = oracles.compose(moving, start), oracles.ssd_weights(start, None, weights[1])
    costs = oracles.fill_without_evidence(oracles.cost_volume(fixed, warped, radius, weights[0], weight))
    found = oracles.coupled_convex(costs, parabolic_fit=parabolic_fit)
    return found if start is None else found + oracles.compose(start, found)


@pytest.mark.parametrize(
    ("iterations", "weighted", "parabolic_fit", "given"),
    pairwise([0, 3], [False, True], [False, True], ["nothing", "both directions"]),
)
def test_equals_the_naive_steps_in_their_order(
    iterations: int, weighted: bool, parabolic_fit: bool, given: str
) -> None:
    fixed, moving = (oracles.noise(6, *SHAPE, seed=s) for s in (0, 1))  # more channels than are warped at once
    weights: Any = (None, None)
    if weighted:
        weights = tuple(oracles.uniform(*SHAPE, seed=s) for s in (2, 3))
        weights[0][:2, :3] = 0
        weights[1][3:] = 0
    start = None
    if given != "nothing":  # also out of the field of view
        fields = [oracles.uniform(3, *SHAPE, seed=s, low=-2, high=2) for s in (4, 5)]
        start = ForwardBackward(forward=fields[0], backward=fields[1])
    radius = (1, 2, 1)
    search = ConvexSearch(inverse_consistency=iterations, parabolic_fit=parabolic_fit)
    level = FeatureLevel(fixed=fixed, moving=moving, fixed_weight=weights[0], moving_weight=weights[1])
    found = search.search_features(level, radius, start=start)
    f, m = fixed.numpy(), moving.numpy()
    wf, wm = (None if w is None else w.numpy() for w in weights)
    starts = (None, None) if start is None else (start.forward.numpy(), start.backward.numpy())
    forward = _search_naively(f, m, (wf, wm), radius, starts[0], parabolic_fit)
    if not iterations:
        assert found.backward is None
        np.testing.assert_allclose(found.forward.numpy(), forward, rtol=0, atol=1e-9)
        return
    backward = _search_naively(m, f, (wm, wf), radius, starts[1], parabolic_fit)
    expected = oracles.inverse_consistency(forward, backward, iterations)
    assert found.backward is not None
    np.testing.assert_allclose(found.forward.numpy(), expected[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.backward.numpy(), expected[1], rtol=0, atol=1e-9)


def test_exchanging_the_images_exchanges_the_directions() -> None:
    level = FeatureLevel(
        **dict(zip(("fixed", "moving"), (oracles.noise(2, *SHAPE, seed=s) for s in (0, 1)), strict=True))
    )
    u, v = (oracles.uniform(3, *SHAPE, seed=s, low=-1, high=1) for s in (4, 5))
    search = ConvexSearch()
    found = search.search_features(level, (1, 1, 1), start=ForwardBackward(forward=u, backward=v))
    swapped = search.search_features(level.swap(), (1, 1, 1), start=ForwardBackward(forward=v, backward=u))
    assert found.backward is not None
    assert swapped.backward is not None
    assert torch.equal(swapped.forward, found.backward)
    assert torch.equal(swapped.backward, found.forward)


@pytest.mark.parametrize("iterations", [0, 15])
@pytest.mark.parametrize("backend", [pytest.param("reference", marks=pytest.mark.long), "auto"])
def test_a_second_search_finds_displacements_beyond_the_radius_of_the_first(iterations: int, backend: Any) -> None:
    shape, shift = (26, 24, 22), (5.0, -4.0, 3.0)
    fixed, moving = (t.float() for t in _shifted(shape, shift, sigma=3.0))
    level, search = FeatureLevel(fixed=fixed, moving=moving), ConvexSearch(inverse_consistency=iterations)
    radius = (3, 3, 3)
    with use_backend(backend):
        first = search.search_features(level, radius)
        second = search.search_features(level, radius, start=first)
    # a distance of 7 is beyond a radius of 3 along each axis
    assert first.forward.abs().max() <= 3 + 0.5
    assert _error(first.forward, shift, 7) > 1.5
    assert _error(second.forward, shift, 7) < 0.3
    assert (second.backward is None) == (iterations == 0)
    if second.backward is not None:
        assert _error(second.backward, [-s for s in shift], 7) < 0.3


def test_a_start_of_zero_changes_nothing() -> None:
    fixed, moving = (oracles.noise(2, *SHAPE, seed=s) for s in (0, 1))
    zero, level = torch.zeros(3, *SHAPE, dtype=torch.float64), FeatureLevel(fixed=fixed, moving=moving)
    starts = None, ForwardBackward(forward=zero, backward=zero)
    plain, started = (ConvexSearch().search_features(level, (1, 1, 1), start=start) for start in starts)
    for a, b in ((plain.forward, started.forward), (plain.backward, started.backward)):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_a_forward_start_is_inverted_for_the_backward_search() -> None:
    shape, shift = (26, 24, 22), (5.0, -4.0, 3.0)
    fixed, moving = _shifted(shape, shift)
    start = torch.tensor([4.0, -4.0, 4.0], dtype=torch.float64).reshape(3, 1, 1, 1).expand(3, *shape).contiguous()
    level = FeatureLevel(fixed=fixed, moving=moving)
    found = ConvexSearch().search_features(level, (2, 2, 2), start=ForwardBackward(forward=start))
    assert found.backward is not None
    assert _error(found.forward, shift, 7) < 0.3
    assert _error(found.backward, [-s for s in shift], 7) < 0.3


def test_the_result_has_the_spacing_of_the_features() -> None:
    level = FeatureLevel(fixed=oracles.noise(1, *SHAPE), moving=oracles.noise(1, *SHAPE, seed=1), spacing=(2, 3, 4))
    for iterations in (0, 1):
        assert ConvexSearch(inverse_consistency=iterations).search_features(level, (1, 1, 1)).spacing == (2, 3, 4)


def test_inputs_are_not_modified() -> None:
    fixed, moving = (oracles.noise(2, *SHAPE, seed=s) for s in (0, 1))
    forward, backward, weight = *(oracles.noise(3, *SHAPE, seed=s) for s in (2, 3)), oracles.uniform(*SHAPE)
    level = FeatureLevel(fixed=fixed, moving=moving, fixed_weight=weight, moving_weight=weight)
    tensors = (fixed, moving, forward, backward, weight)
    before = [t.clone() for t in tensors]
    for start in (ForwardBackward(forward=forward, backward=backward), ForwardBackward(forward=forward)):
        ConvexSearch().search_features(level, (1, 1, 1), start=start)
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))
