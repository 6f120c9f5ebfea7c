"""Similarities as values: what they prepare, their sum, and what a refinement finds with them."""

from __future__ import annotations

import math
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch

from convexadam import Grid, Image, use_backend
from convexadam.continuous import (
    Adam,
    Compositional,
    Diffusion,
    Level,
    LevenbergMarquardt,
    Lncc,
    MutualInformation,
    Refinement,
    Similarity,
    Ssd,
    WeightedSum,
)
from convexadam.data import PhantomPair, phantom_pair
from convexadam.errors import ConfigError, InputError
from convexadam.features import MindSSC
from convexadam.kernels.lncc import correlated
from convexadam.kernels.mutual_information import shared
from convexadam.kernels.warp_ssd import compared

SHAPE = (5, 6, 4)
NO_WEIGHTS = (None, None)
SUM = WeightedSum(terms=(Lncc(radius=1), MutualInformation(bins=8), Ssd()), weights=(0.5, 2.0, 3.0), channels=(2, 1, 2))
OF_ALL = WeightedSum(terms=(Ssd(), Lncc(radius=1)), weights=(2.0, 0.5))


def _maps(channels: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    return oracles.noise(channels, *SHAPE), oracles.noise(channels, *SHAPE, seed=1)


def _weights() -> tuple[torch.Tensor, torch.Tensor]:
    """Evidence with gaps."""
    first, second = (oracles.uniform(*SHAPE, seed=s) for s in (2, 3))
    return (first - 0.2).clamp_min(0), (second - 0.2).clamp_min(0)


def _field(seed: int = 4) -> torch.Tensor:
    """Displacements that lead to places between nodes."""
    return oracles.uniform(3, *SHAPE, seed=seed, low=0.1, high=0.4)


# Alone ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_prepares_its_kernel_with_its_settings(weighted: bool, dtype: torch.dtype) -> None:
    fixed, moving = (t.to(dtype) for t in _maps(1))
    weights: Any = tuple(w.to(dtype) for w in _weights()) if weighted else NO_WEIGHTS
    given = {"fixed_weight": weights[0], "moving_weight": weights[1]}
    start, u = 0.5 * _field(5).to(dtype), _field().to(dtype)
    mean = float(compared(fixed, moving, **given)(start)[0])
    pairs: list[tuple[Similarity, Any]] = [
        (Ssd(), compared(fixed, moving, **given)),
        (Ssd(robustness=0.5), compared(fixed, moving, outlier=0.5 * mean, **given)),
        (Lncc(radius=1, floor=0.1), correlated(fixed, moving, radius=1, floor=0.1, **given)),
        (MutualInformation(bins=7), shared(fixed, moving, bins=7, **given)),
    ]
    for similarity, expected in pairs:
        comparison = similarity.begin(fixed, moving, start, weights)
        for found, wanted in zip(comparison(u, diffusion=0.3), expected(u, diffusion=0.3), strict=True):
            assert torch.equal(found, wanted)
    values = [float(similarity.begin(fixed, moving, start, weights)(u)[0]) for similarity, _ in pairs]
    assert len(set(values)) == len(values)


def test_equal_maps_have_no_outliers() -> None:
    fixed = torch.zeros(2, *SHAPE)  # no mean difference to take multiples of, not even by rounding
    zero = torch.zeros(3, *SHAPE)
    value, gradient = Ssd(robustness=1.0).begin(fixed, fixed, zero, NO_WEIGHTS)(zero)
    assert value == 0
    assert not gradient.any()


def test_mutual_information_is_of_one_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    # As users have it: without the tests' own check of shapes, which would come first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(InputError, match="maps of one channel, but the features have 2"):
        Refinement(similarity=MutualInformation(), levels=(Level(iterations=1),))(*_maps(2))


# Sums -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sum_of", "parts"),
    [(SUM, (slice(0, 2), slice(2, 3), slice(3, 5))), (OF_ALL, (slice(None), slice(None)))],
    ids=["channels", "all"],
)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("diffusion", [0.0, 0.7])
def test_a_sum_is_the_sum_of_its_terms_on_one_scale(
    sum_of: WeightedSum, parts: tuple[slice, ...], weighted: bool, diffusion: float
) -> None:
    fixed, moving = _maps()
    weights: Any = _weights() if weighted else NO_WEIGHTS
    start, u = _field(5), _field()
    value, slopes, units = 0.0, torch.zeros(4, *SHAPE, dtype=torch.float64), []
    for term, share, part in zip(sum_of.terms, sum_of.weights, parts, strict=True):
        prepared = term.begin(fixed[part], moving[part], start, weights)
        units.append(float(prepared.curvature(start)[1][3].mean()) / share)
        alone, found = prepared.curvature(u)
        factor = units[0] / units[-1]
        value, slopes = value + factor * float(alone), slopes + factor * found
    rough = np.zeros(u.shape)
    for at in np.ndindex(*u.shape):  # the energy is a quadratic: unit steps are exact
        up, down = u.numpy().copy(), u.numpy().copy()
        up[at] += 0.5
        down[at] -= 0.5
        rough[at] = oracles.diffusion_energy(up) - oracles.diffusion_energy(down)
    slopes[:3] += diffusion * torch.from_numpy(rough)
    comparison = sum_of.begin(fixed, moving, start, weights)
    for out in (None, torch.full_like(slopes, math.nan)):
        total, found = comparison.curvature(u, diffusion=diffusion, out=out)
        assert out is None or found is out
        assert float(total) == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(found, slopes, rtol=0, atol=1e-12)
    for out in (None, torch.full_like(u, math.nan)):
        total, gradient = comparison(u, diffusion=diffusion, out=out)
        assert out is None or gradient is out
        assert float(total) == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(gradient, slopes[:3], rtol=0, atol=1e-12)
        torch.testing.assert_close(comparison.gradient(u, diffusion=diffusion, out=out), gradient, rtol=0, atol=1e-12)
    assert torch.equal(u, _field())


@pytest.mark.parametrize("optimiser", [Adam(), LevenbergMarquardt()])
def test_a_sum_of_one_term_is_that_term(optimiser: Any) -> None:
    fixed, moving = (t.float() for t in _maps())
    alone = WeightedSum(terms=(Ssd(),), weights=(1.0,), channels=(5,))
    found = [
        Refinement(levels=(Level(spacing=1, iterations=4),), similarity=similarity, optimiser=optimiser)(fixed, moving)
        for similarity in (Ssd(), alone)
    ]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-5)
    assert found[0].abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_what_is_flat_has_no_say_in_a_sum(backend: Any, dtype: torch.dtype) -> None:
    fixed, moving = (t.to(dtype) for t in _maps())
    start, u = _field(5).to(dtype), _field().to(dtype)
    moving[[0, 1, 3]] = 0.1
    similarity = WeightedSum(terms=(Ssd(), Lncc(radius=1), Ssd()), weights=(0.5, 2.0, 3.0), channels=(2, 1, 2))
    with use_backend(backend):
        found = similarity.begin(fixed, moving, start, NO_WEIGHTS).curvature(u)
        # what is left, on the scale of the first that says something
        terms = WeightedSum(terms=similarity.terms[1:], weights=similarity.weights[1:], channels=(1, 2))
        expected = terms.begin(fixed[2:], moving[2:], start, NO_WEIGHTS).curvature(u)
        nothing = similarity.begin(fixed, torch.full_like(fixed, 0.1), start, NO_WEIGHTS).curvature(u)[1][3]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert not nothing.any()


@pytest.mark.parametrize("channels", [4, 6])
def test_other_numbers_of_channels_are_refused(channels: int) -> None:
    with pytest.raises(InputError, match=rf"the terms take 2 \+ 1 \+ 2 channels, but the features have {channels}"):
        Refinement(similarity=SUM, levels=(Level(iterations=1),))(*_maps(channels))


# Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        (Ssd, {"robustness": 0.0}, "robustness"),
        (Ssd, {"robustness": math.nan}, "robustness"),
        (Ssd, {"robustness": "1"}, "robustness"),
        (Lncc, {"radius": 0}, "radius"),
        (Lncc, {"radius": 1.5}, "radius"),
        (Lncc, {"floor": 0.0}, "floor"),
        (MutualInformation, {"bins": 3}, "bins"),
        (MutualInformation, {"bins": True}, "bins"),
        (WeightedSum, {"terms": (), "weights": (), "channels": ()}, "at least one, but 0 terms"),
        (WeightedSum, {"terms": (Ssd(),), "weights": (1.0, 2.0), "channels": (1,)}, "1 terms, 2 weights and 1 numbers"),
        (WeightedSum, {"terms": (Ssd(),), "weights": (1.0,), "channels": ()}, "1 terms, 1 weights and 0 numbers"),
        (WeightedSum, {"terms": (Ssd(),), "weights": (0.0,), "channels": (1,)}, "each of weights"),
        (WeightedSum, {"terms": (Ssd(),), "weights": (1.0,), "channels": (0,)}, "each of channels"),
        (WeightedSum, {"terms": (3,), "weights": (1.0,), "channels": (1,)}, "terms is a tuple of Ssd, Lncc and Mut"),
        (WeightedSum, {"terms": Ssd(), "weights": (1.0,), "channels": (1,)}, "terms is a tuple of Ssd, Lncc and Mut"),
        (WeightedSum, {"terms": (SUM,), "weights": (1.0,), "channels": (5,)}, "terms is a tuple of Ssd, Lncc and Mut"),
    ],
)
def test_unusable_settings(kind: Any, setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As users have it: without the tests' own check of annotations, which would come first.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        kind(**setting)


# What is found ----------------------------------------------------------------------------------------------------

WIDE = (24, 22, 20)


def _motion(positions: np.ndarray) -> np.ndarray:
    """Waves of up to 2 voxels, a little longer than the volume."""
    i, j, k = (2 * np.pi * positions[a] / (n + 6) for a, n in enumerate(WIDE))
    return 1.5 * np.stack([np.sin(j) * np.cos(k), np.sin(k + 1) * np.cos(i), np.sin(i + 2) * np.cos(j)])


@pytest.fixture(scope="module")
def waved() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One map of smooth bumps, as both images have it, and the motion between them."""
    here = oracles.indices(WIDE)
    u = _motion(here)
    fixed, moving = (oracles.blobs(x, WIDE, channels=1, sigma=2.5) for x in (here + u, here))
    return torch.from_numpy(fixed).float(), torch.from_numpy(moving).float(), torch.from_numpy(u).float()


def _error(
    fixed: torch.Tensor, moving: torch.Tensor, truth: torch.Tensor, similarity: Similarity, optimiser: Any
) -> float:
    refinement = Refinement(
        levels=(Level(spacing=1, iterations=40 if isinstance(optimiser, Adam) else 10),),
        similarity=similarity,
        regularisers=(Diffusion(weight=0.01),),
        optimiser=optimiser,
        parametrisation=Compositional(),
    )
    return float((refinement(fixed, moving) - truth).norm(dim=0).mean())


@pytest.mark.parametrize("optimiser", [Adam(learning_rate=0.3), LevenbergMarquardt()])
def test_local_correlation_sees_through_uneven_brightness(waved: Any, optimiser: Any) -> None:
    fixed, moving, truth = waved
    assert truth.norm(dim=0).mean() > 1.2
    uneven = 0.4 + 1.6 * torch.sigmoid((torch.arange(float(WIDE[0])) - 12) / 3)[:, None, None]
    brighter = 3 * uneven * fixed + 2
    assert _error(brighter, moving, truth, Lncc(), optimiser) < 0.6
    assert _error(brighter, moving, truth, Ssd(), optimiser) > 0.9
    # of the maps as they are, squared differences find as much
    assert _error(fixed, moving, truth, Ssd(), optimiser) < 0.6


@pytest.mark.parametrize("optimiser", [Adam(learning_rate=0.3), LevenbergMarquardt()])
def test_mutual_information_sees_through_another_contrast(waved: Any, optimiser: Any) -> None:
    fixed, moving, truth = waved
    still = float(truth.norm(dim=0).mean())
    other = -fixed.abs()  # what is bright is dark, and the same as what was dark
    # one finds more than half of the motion, the other leads away from it
    assert _error(other, moving, truth, MutualInformation(), optimiser) < 0.5 * still
    assert _error(other, moving, truth, Ssd(), optimiser) > still


@pytest.fixture(scope="module")
def phantom() -> PhantomPair:
    return phantom_pair((40, 34, 30), contrasts=("t1", "t1"), displacement_mm=14, seed=3)


@pytest.mark.parametrize("which", ["fixed", "moving"])
@pytest.mark.parametrize("optimiser", [Adam(), LevenbergMarquardt()])
def test_robust_differences_leave_out_what_has_no_partner(phantom: PhantomPair, which: str, optimiser: Any) -> None:
    here = torch.from_numpy(oracles.indices(phantom.fixed.grid.shape))
    distance = (here - torch.tensor([20.0, 17.0, 15.0]).reshape(3, 1, 1, 1)).norm(dim=0)
    images = {"fixed": phantom.fixed.data, "moving": phantom.moving.data}
    spoilt = {**images, which: images[which].masked_fill(distance < 4.5, float(images[which].max()))}

    def features(data: torch.Tensor) -> torch.Tensor:
        return MindSSC()(Image(data, Grid(phantom.fixed.grid.shape)))

    def error(pair: dict[str, torch.Tensor], robustness: float | None) -> float:
        refinement = Refinement(
            levels=(Level(iterations=40 if isinstance(optimiser, Adam) else 10),),
            similarity=Ssd(robustness=robustness),
            regularisers=(Diffusion(weight=0.2),),
            optimiser=optimiser,
            parametrisation=Compositional(),
        )
        found = refinement(features(pair["fixed"]), features(pair["moving"]))
        return float((found - phantom.disp_vox).norm(dim=0)[distance < 9].mean())

    clean, plain, robust = error(images, None), error(spoilt, None), error(spoilt, 1.0)
    assert clean < 0.25
    assert plain - clean > 0.15
    assert robust - clean < 0.7 * (plain - clean)
