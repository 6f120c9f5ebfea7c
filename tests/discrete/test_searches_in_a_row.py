"""A search that goes on from what an earlier one found."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import pytest
import torch

from convexadam.discrete import ConvexSearch
from convexadam.kernels import use_backend

SHAPE = (5, 4, 6)


def _shifted(shape: tuple[int, int, int], shift: Any, *, sigma: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Fixed and moving maps of one smooth function: what is at x in fixed is at x + shift in moving."""
    ticks = oracles.indices(shape)
    moved = ticks - np.array(shift).reshape(3, 1, 1, 1)
    fixed, moving = (oracles.blobs(where, shape, channels=3, sigma=sigma) for where in (ticks, moved))
    return torch.from_numpy(fixed), torch.from_numpy(moving)


def _error(found: torch.Tensor, shift: Any, margin: int) -> float:
    inner = (slice(None), *(slice(margin, -margin),) * 3)
    return float((found - torch.tensor(shift, dtype=found.dtype).reshape(3, 1, 1, 1))[inner].norm(dim=0).mean())


def _one_way(
    here: np.ndarray, there: np.ndarray, weights: tuple[Any, Any], radius: Any, start: np.ndarray | None, subcell: bool
) -> np.ndarray:
    """Search naively from one map in another, as the start brings it, and put the start behind what is found."""
    seen, weight = there, weights[1]
    if start is not None:
        seen, weight = oracles.compose(there, start), oracles.ssd_weights(start, None, weights[1])
    costs = oracles.fill_without_evidence(oracles.cost_volume(here, seen, radius, weights[0], weight))
    found = oracles.coupled_convex(costs, subcell=subcell)
    return found if start is None else found + oracles.compose(start, found)


@pytest.mark.parametrize("iterations", [0, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("subcell", [False, True])
@pytest.mark.parametrize("given", ["nothing", "both directions"])
def test_equals_the_naive_steps_in_their_order(iterations: int, weighted: bool, subcell: bool, given: str) -> None:
    fixed, moving = (oracles.noise(6, *SHAPE, seed=s) for s in (0, 1))  # more channels than are moved together
    weights: Any = (None, None)
    if weighted:
        weights = tuple(oracles.uniform(*SHAPE, seed=s) for s in (2, 3))
        weights[0][:2, :3] = 0
        weights[1][3:] = 0
    start = None
    if given != "nothing":  # also out of the field of view
        start = tuple(oracles.uniform(3, *SHAPE, seed=s, low=-2, high=2) for s in (4, 5))
    radius = (1, 2, 1)
    search = ConvexSearch(inverse_consistency=iterations, subcell=subcell)
    found = search.on_cells(fixed, moving, radius, fixed_weight=weights[0], moving_weight=weights[1], start=start)
    f, m = fixed.numpy(), moving.numpy()
    wf, wm = (None if w is None else w.numpy() for w in weights)
    ahead, back = (None, None) if start is None else (s.numpy() for s in start)
    forward = _one_way(f, m, (wf, wm), radius, ahead, subcell)
    if not iterations:
        assert found[1] is None
        np.testing.assert_allclose(found[0].numpy(), forward, rtol=0, atol=1e-9)
        return
    backward = _one_way(m, f, (wm, wf), radius, back, subcell)
    for one, expected in zip(found, oracles.inverse_consistency(forward, backward, iterations), strict=True):
        assert one is not None
        np.testing.assert_allclose(one.numpy(), expected, rtol=0, atol=1e-9)


def test_both_directions_are_those_of_swapped_images() -> None:
    fixed, moving = (oracles.noise(2, *SHAPE, seed=s) for s in (0, 1))
    start = tuple(oracles.uniform(3, *SHAPE, seed=s, low=-1, high=1) for s in (4, 5))
    search = ConvexSearch()
    ahead, back = search.on_cells(fixed, moving, (1, 1, 1), start=(start[0], start[1]))
    assert back is not None
    swapped = search.on_cells(moving, fixed, (1, 1, 1), start=(start[1], start[0]))
    assert torch.equal(swapped[0], back)
    assert swapped[1] is not None
    assert torch.equal(swapped[1], ahead)


@pytest.mark.parametrize("iterations", [0, 15])
@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_a_second_search_finds_what_is_beyond_the_reach_of_the_first(iterations: int, backend: Any) -> None:
    shape, shift = (26, 24, 22), (5.0, -4.0, 3.0)
    fixed, moving = (t.float() for t in _shifted(shape, shift, sigma=3.0))
    search = ConvexSearch(inverse_consistency=iterations)
    radius = (3, 3, 3)
    with use_backend(backend):
        first = search.on_cells(fixed, moving, radius)
        second = search.on_cells(fixed, moving, radius, start=first)
    # what is 7 away cannot be reached with 3 along each axis
    assert first[0].abs().max() <= 3 + 0.5
    assert _error(first[0], shift, 7) > 1.5
    assert _error(second[0], shift, 7) < 0.3
    if second[1] is not None:
        assert _error(second[1], [-s for s in shift], 7) < 0.3


def test_no_displacement_is_no_start() -> None:
    fixed, moving = (oracles.noise(2, *SHAPE, seed=s) for s in (0, 1))
    zero = torch.zeros(3, *SHAPE, dtype=torch.float64)
    search = ConvexSearch()
    plain, begun = (search.on_cells(fixed, moving, (1, 1, 1), start=s) for s in (None, (zero, zero)))
    for a, b in zip(plain, begun, strict=True):
        assert a is not None
        assert b is not None
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


def test_a_start_of_one_direction_stands_for_the_other() -> None:
    shape, shift = (26, 24, 22), (5.0, -4.0, 3.0)
    fixed, moving = _shifted(shape, shift, sigma=3.0)
    start = torch.tensor([4.0, -4.0, 4.0], dtype=torch.float64).reshape(3, 1, 1, 1).expand(3, *shape).contiguous()
    both = ConvexSearch().on_cells(fixed, moving, (2, 2, 2), start=(start, None))
    assert both[1] is not None
    assert _error(both[0], shift, 7) < 0.3
    assert _error(both[1], [-s for s in shift], 7) < 0.3


def test_inputs_are_left_alone() -> None:
    fixed, moving = (oracles.noise(2, *SHAPE, seed=s) for s in (0, 1))
    ahead, back, weight = (oracles.noise(3, *SHAPE, seed=s) for s in (2, 3)), None, oracles.uniform(*SHAPE)
    forward, backward = ahead
    before = [t.clone() for t in (fixed, moving, forward, backward, weight)]
    for start in ((forward, backward), (forward, back)):
        ConvexSearch().on_cells(fixed, moving, (1, 1, 1), fixed_weight=weight, moving_weight=weight, start=start)
    for a, b in zip(before, (fixed, moving, forward, backward, weight), strict=True):
        assert torch.equal(a, b)
