"""Patch search, joint weights and votes against plain loops, with torch and on the CPU."""

from __future__ import annotations

from typing import Any

import fusion_oracles as oracles
import numpy as np
import pytest
import torch

from convexadam.kernels import use_backend
from convexadam.kernels.joint_fusion import compute_joint_weights
from convexadam.kernels.label_vote import cast_votes
from convexadam.kernels.patch_match import list_offsets, match_patches

BACKENDS: Any = ["reference", "cpu"]
CASES = [((5, 4, 7), 1, 1, 1), ((4, 5, 6), 2, 1, 2), ((3, 1, 4), 1, 2, 1)]
"""Shape, channels, radius of patches, radius of the search."""


def make_case(shape: tuple[int, int, int], channels: int, atlases: int = 3) -> tuple[torch.Tensor, ...]:
    random = np.random.default_rng(0)
    target, mask = random.standard_normal((channels, *shape)), random.random(shape) < 0.4
    others = target + 0.7 * random.standard_normal((atlases, channels, *shape))
    others[:, :, :1] = others[:, :, :1, :1, :1]  # a flat part
    labels = random.integers(0, 5, (atlases, *shape)).astype(np.int32)
    return (
        torch.from_numpy(target.astype(np.float32)),
        torch.from_numpy(others.astype(np.float32)),
        torch.from_numpy(labels),
        torch.from_numpy(mask),
    )


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("threads", [1, 3], indirect=True)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("shape", "channels", "radius", "search"), CASES)
def test_patches_that_correlate_most(
    backend: Any, shape: tuple[int, int, int], channels: int, radius: int, search: int
) -> None:
    target, others, _, mask = make_case(shape, channels)
    with use_backend(backend):
        rows, values = match_patches(target, others[0], mask, patch_radius=radius, search_radius=search)
    found, value = rows[0], values[0]
    assert len(rows) == len(values) == 1
    middle = (2 * search + 1) ** 3 // 2
    for voxel in np.ndindex(*shape):
        if mask[voxel]:
            number, correlation = oracles.best_offset(target.numpy(), others[0].numpy(), voxel, radius, search)
            assert found[voxel] == number, voxel
            assert float(value[voxel]) == pytest.approx(correlation, abs=2e-4)
        else:
            assert (found[voxel], value[voxel]) == (middle, 0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("shape", "channels", "radius", "search"), CASES)
def test_several_patches_that_correlate_most(
    backend: Any, shape: tuple[int, int, int], channels: int, radius: int, search: int
) -> None:
    target, others, _, mask = make_case(shape, channels)
    with use_backend(backend):
        found, value = match_patches(target, others[0], mask, patch_radius=radius, search_radius=search, matches=5)
    middle = (2 * search + 1) ** 3 // 2
    for voxel in np.ndindex(*shape):
        at = (slice(None), *voxel)
        if mask[voxel]:
            every = oracles.correlations(target.numpy(), others[0].numpy(), voxel, radius, search)
            assert len(set(found[at].tolist())) == 5  # no offset twice
            assert value[at].numpy() == pytest.approx(sorted(every, reverse=True)[:5], abs=2e-4)
            assert [every[n] for n in found[at]] == pytest.approx(value[at].tolist(), abs=2e-4)
        else:
            assert bool((found[at] == middle).all())
            assert not value[at].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_patches_keep_the_offset_zero(backend: Any) -> None:
    flat = torch.zeros(1, 4, 4, 4)
    with use_backend(backend):
        found, value = match_patches(flat, flat, torch.ones(4, 4, 4, dtype=torch.bool), patch_radius=1, search_radius=1)
    assert bool((found == 13).all())
    assert bool((value == 0).all())


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("threads", [1, 3], indirect=True)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("shape", "channels", "radius", "search"), CASES)
@pytest.mark.parametrize(("alpha", "beta"), [(0.1, 2.0), (0.03, 1.5)])
def test_joint_weights(
    backend: Any, shape: tuple[int, int, int], channels: int, radius: int, search: int, alpha: float, beta: float
) -> None:
    target, others, _, mask = make_case(shape, channels)
    window = [tuple(int(n) for n in o) for o in list_offsets(search)]
    numbers = torch.randint(len(window), (3, *shape), generator=torch.Generator().manual_seed(1)).short()
    settings = {"patch_radius": radius, "search_radius": search, "alpha": alpha, "beta": beta}
    with use_backend(backend):
        weights = compute_joint_weights(target, others, numbers, mask, **settings)
    for voxel in np.ndindex(*shape):
        if mask[voxel]:
            shifts = [window[int(numbers[(a, *voxel)])] for a in range(3)]
            expected = oracles.joint_weights(target.numpy(), others.numpy(), shifts, voxel, radius, alpha, beta)
            assert weights[(slice(None), *voxel)].numpy() == pytest.approx(expected, abs=2e-4)
        else:
            assert not weights[(slice(None), *voxel)].any()


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("threads", [1, 3], indirect=True)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("shape", "vote", "search", "matches"), [((5, 4, 7), 1, 1, 1), ((4, 1, 6), 2, 2, 3), ((3, 3, 3), 0, 0, 1)]
)
def test_votes(backend: Any, shape: tuple[int, int, int], vote: int, search: int, matches: int) -> None:
    _, _, labels, mask = make_case(shape, 1)
    random = torch.Generator().manual_seed(1)
    labels[torch.rand(labels.shape, generator=random) < 0.1] = -1
    weights = (torch.rand(matches * len(labels), *shape, generator=random) - 0.1) * mask
    numbers = torch.randint((2 * search + 1) ** 3, weights.shape, generator=random).short()
    chosen = torch.tensor([1, 4], dtype=torch.int32)
    with use_backend(backend):
        winner, share, probabilities = cast_votes(
            labels, weights, numbers, mask, count=5, chosen=chosen, vote_radius=vote, search_radius=search
        )
    arrays = [t.numpy() for t in (labels, weights, numbers, mask)]
    for voxel in np.ndindex(*shape):
        if not mask[voxel]:
            assert (winner[voxel], share[voxel]) == (0, 0)
            assert not probabilities[(slice(None), *voxel)].any()
            continue
        expected = oracles.shares(*arrays, voxel, 5, vote, search)
        assert float(share[voxel]) == pytest.approx(expected.max(), abs=1e-5)
        assert expected[winner[voxel]] == pytest.approx(expected.max(), abs=1e-5)
        assert probabilities[(slice(None), *voxel)].numpy() == pytest.approx(expected[[1, 4]], abs=1e-5)
