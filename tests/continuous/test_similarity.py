"""Similarities: their kernels, their weighted sum, and refinements with them."""

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
    Refinement,
    Similarity,
    Ssd,
    WeightedSum,
)
from convexadam.data import PhantomPair, phantom_pair
from convexadam.errors import ConfigError, InputError
from convexadam.features import MindSSC
from convexadam.kernels.lncc import prepare_lncc
from convexadam.kernels.warp_ssd import prepare_ssd

SHAPE = (5, 6, 4)
NO_WEIGHTS = (None, None)
SUM = WeightedSum(terms=(Lncc(radius=1), Ssd(robust_scale=0.5), Ssd()), weights=(0.5, 2.0, 3.0), channels=(2, 1, 2))
OF_ALL = WeightedSum(terms=(Ssd(), Lncc(radius=1)), weights=(2.0, 0.5))


def _maps(channels: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    return oracles.noise(channels, *SHAPE), oracles.noise(channels, *SHAPE, seed=1)


def _weights() -> tuple[torch.Tensor, torch.Tensor]:
    """Weights with gaps."""
    first, second = (oracles.uniform(*SHAPE, seed=s) for s in (2, 3))
    return (first - 0.2).clamp_min(0), (second - 0.2).clamp_min(0)


def _field(seed: int = 4) -> torch.Tensor:
    """Displacements to positions between control points."""
    return oracles.uniform(3, *SHAPE, seed=seed, low=0.1, high=0.4)


# Alone ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_prepares_its_kernel_with_its_settings(weighted: bool, dtype: torch.dtype) -> None:
    fixed, moving = (t.to(dtype) for t in _maps(1))
    weights: Any = tuple(w.to(dtype) for w in _weights()) if weighted else NO_WEIGHTS
    given = {"fixed_weight": weights[0], "moving_weight": weights[1]}
    start, u = 0.5 * _field(5).to(dtype), _field().to(dtype)
    mean = float(prepare_ssd(fixed, moving, **given)(start)[0])
    pairs: list[tuple[Similarity, Any]] = [
        (Ssd(), prepare_ssd(fixed, moving, **given)),
        (Ssd(robust_scale=0.5), prepare_ssd(fixed, moving, outlier=0.5 * mean, **given)),
        (Lncc(radius=1, variance_floor=0.1), prepare_lncc(fixed, moving, radius=1, floor=0.1, **given)),
    ]
    for similarity, expected in pairs:
        term = similarity.prepare(fixed, moving, start, weights)
        for found, wanted in zip(term(u, diffusion=0.3), expected(u, diffusion=0.3), strict=True):
            assert torch.equal(found, wanted)
    values = [float(similarity.prepare(fixed, moving, start, weights)(u)[0]) for similarity, _ in pairs]
    assert len(set(values)) == len(values)


def test_equal_maps_have_no_robust_scale() -> None:
    fixed = torch.zeros(2, *SHAPE)  # the mean difference is exactly 0
    zero = torch.zeros(3, *SHAPE)
    value, gradient = Ssd(robust_scale=1.0).prepare(fixed, fixed, zero, NO_WEIGHTS)(zero)
    assert value == 0
    assert not gradient.any()


# Sums -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sum_of", "parts"),
    [(SUM, (slice(0, 2), slice(2, 3), slice(3, 5))), (OF_ALL, (slice(None), slice(None)))],
    ids=["channels", "all"],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_a_sum_is_the_sum_of_its_terms_on_one_scale(
    sum_of: WeightedSum, parts: tuple[slice, ...], weighted: bool
) -> None:
    fixed, moving = _maps()
    weights: Any = _weights() if weighted else NO_WEIGHTS
    start, u = _field(5), _field()
    value, derivatives, units = 0.0, torch.zeros(4, *SHAPE, dtype=torch.float64), []
    for each, share, part in zip(sum_of.terms, sum_of.weights, parts, strict=True):
        prepared = each.prepare(fixed[part], moving[part], start, weights)
        units.append(float(prepared.curvature(start)[1][3].mean()) / share)
        alone, found = prepared.curvature(u)
        factor = units[0] / units[-1]
        value, derivatives = value + factor * float(alone), derivatives + factor * found
    term = sum_of.prepare(fixed, moving, start, weights)
    for out in (None, torch.full_like(derivatives, math.nan)):
        total, found = term.curvature(u, out=out)
        assert out is None or found is out
        assert float(total) == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(found, derivatives, rtol=0, atol=1e-12)
    for out in (None, torch.full_like(u, math.nan)):
        total, gradient = term(u, out=out)
        assert out is None or gradient is out
        assert float(total) == pytest.approx(value, rel=1e-12)
        torch.testing.assert_close(gradient, derivatives[:3], rtol=0, atol=1e-12)
        torch.testing.assert_close(term.gradient(u, out=out), gradient, rtol=0, atol=1e-12)
    assert torch.equal(u, _field())


class RootSsd:
    """A similarity of another package, ``sqrt(1 + ssd)``, without a base class of the library."""

    def prepare(self, fixed: Any, moving: Any, start: Any, weights: Any) -> Any:
        return _RootSsdTerm(prepare_ssd(fixed, moving, fixed_weight=weights[0], moving_weight=weights[1]))


class _RootSsdTerm:
    def __init__(self, ssd: Any) -> None:
        self.ssd = ssd

    def __call__(self, displacement: Any, *, out: Any = None) -> Any:
        value, gradient = self.ssd(displacement, out=out)
        root = (value + 1).sqrt()
        return root, gradient.div_(2 * root)

    def gradient(self, displacement: Any, *, out: Any = None) -> Any:
        return self(displacement, out=out)[1]

    def curvature(self, displacement: Any, *, out: Any = None) -> Any:
        value, derivatives = self.ssd.curvature(displacement, out=out)
        root = (value + 1).sqrt()
        return root, derivatives.div_(2 * root)


@pytest.mark.parametrize("other", [RootSsd(), OF_ALL], ids=["another package", "nested sum"])
@pytest.mark.parametrize("optimiser", [Adam(), LevenbergMarquardt()])
def test_a_sum_accepts_any_similarity(other: Any, optimiser: Any) -> None:
    fixed, moving = _maps()
    similarity = WeightedSum(terms=(Ssd(), other), weights=(1.0, 0.5))
    start, u = _field(5), _field()
    terms = [each.prepare(fixed, moving, start, NO_WEIGHTS) for each in similarity.terms]
    curvatures = [float(term.curvature(start)[1][3].mean()) for term in terms]
    factors = 1.0, 0.5 * curvatures[0] / curvatures[1]
    expected = sum(factor * float(term(u)[0]) for factor, term in zip(factors, terms, strict=True))
    found = similarity.prepare(fixed, moving, start, NO_WEIGHTS)
    assert float(found(u)[0]) == pytest.approx(expected, rel=1e-12)
    refinement = Refinement(levels=(Level(spacing=1, iterations=4),), similarity=similarity, optimiser=optimiser)
    refined = refinement(fixed, moving)
    zero = torch.zeros_like(refined)
    at_zero = similarity.prepare(fixed, moving, zero, NO_WEIGHTS)
    assert float(at_zero(refined)[0]) < float(at_zero(zero)[0]) or isinstance(optimiser, Adam)
    assert refined.abs().max() > 0.1


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
def test_terms_without_contrast_do_not_count_in_a_sum(backend: Any, dtype: torch.dtype) -> None:
    fixed, moving = (t.to(dtype) for t in _maps())
    start, u = _field(5).to(dtype), _field().to(dtype)
    moving[[0, 1, 3]] = 0.1
    similarity = WeightedSum(terms=(Ssd(), Lncc(radius=1), Ssd()), weights=(0.5, 2.0, 3.0), channels=(2, 1, 2))
    with use_backend(backend):
        found = similarity.prepare(fixed, moving, start, NO_WEIGHTS).curvature(u)
        # the remaining terms, on the scale of the first one with contrast
        terms = WeightedSum(terms=similarity.terms[1:], weights=similarity.weights[1:], channels=(1, 2))
        expected = terms.prepare(fixed[2:], moving[2:], start, NO_WEIGHTS).curvature(u)
        nothing = similarity.prepare(fixed, torch.full_like(fixed, 0.1), start, NO_WEIGHTS).curvature(u)[1][3]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    assert not nothing.any()


@pytest.mark.parametrize("channels", [4, 6])
def test_another_number_of_channels_raises(channels: int) -> None:
    with pytest.raises(InputError, match=rf"features must have 2 \+ 1 \+ 2 channels for the terms .*, got {channels}"):
        Refinement(similarity=SUM, levels=(Level(iterations=1),))(*_maps(channels))


# Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "setting", "message"),
    [
        (Ssd, {"robust_scale": 0.0}, "robust_scale"),
        (Ssd, {"robust_scale": math.nan}, "robust_scale"),
        (Ssd, {"robust_scale": "1"}, "robust_scale"),
        (Lncc, {"radius": 0}, "radius"),
        (Lncc, {"radius": 1.5}, "radius"),
        (Lncc, {"variance_floor": 0.0}, "variance_floor"),
        (
            WeightedSum,
            {"terms": (), "weights": (), "channels": ()},
            r"terms must be .* at least one similarity, got \(\)",
        ),
        (WeightedSum, {"terms": (Ssd(),), "weights": (1.0, 2.0), "channels": (1,)}, "weights must be a tuple of 1 num"),
        (WeightedSum, {"terms": (Ssd(),), "weights": (1.0,), "channels": ()}, r"channels must be .* of 1 .*, got \(\)"),
        (WeightedSum, {"terms": (Ssd(),), "weights": [1.0]}, r"weights must be a tuple .*, got \[1\.0\]"),
        (WeightedSum, {"terms": (Ssd(),), "weights": (0.0,), "channels": (1,)}, "each of weights"),
        (WeightedSum, {"terms": (Ssd(),), "weights": (1.0,), "channels": (0,)}, "each of channels"),
        (WeightedSum, {"terms": (3,), "weights": (1.0,), "channels": (1,)}, "must be a Similarity, got 3"),
        (
            WeightedSum,
            {"terms": (Ssd,), "weights": (1.0,)},
            r"each of terms .*, got the class Ssd; write Ssd\(\.\.\.\)",
        ),
        (WeightedSum, {"terms": Ssd(), "weights": (1.0,), "channels": (1,)}, "terms must be a tuple"),
    ],
)
def test_unusable_settings(kind: Any, setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # without the run-time check of annotations, which only the tests have and which would raise first
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        kind(**setting)


# Refinements ------------------------------------------------------------------------------------------------------

WIDE = (24, 22, 20)


def _motion(positions: np.ndarray) -> np.ndarray:
    """Waves of up to 2 voxels, a little longer than the volume."""
    i, j, k = (2 * np.pi * positions[a] / (n + 6) for a, n in enumerate(WIDE))
    return 1.5 * np.stack([np.sin(j) * np.cos(k), np.sin(k + 1) * np.cos(i), np.sin(i + 2) * np.cos(j)])


@pytest.fixture(scope="module")
def waved() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One smooth map in both images, and the displacement between them."""
    positions = oracles.indices(WIDE)
    u = _motion(positions)
    fixed, moving = (oracles.blobs(x, WIDE, channels=1, sigma=2.5) for x in (positions + u, positions))
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
def test_local_correlation_is_invariant_to_uneven_brightness(waved: Any, optimiser: Any) -> None:
    fixed, moving, truth = waved
    assert truth.norm(dim=0).mean() > 1.2
    uneven = 0.4 + 1.6 * torch.sigmoid((torch.arange(float(WIDE[0])) - 12) / 3)[:, None, None]
    brighter = 3 * uneven * fixed + 2
    assert _error(brighter, moving, truth, Lncc(), optimiser) < 0.6
    assert _error(brighter, moving, truth, Ssd(), optimiser) > 0.9
    # without the change of brightness, squared differences find as much
    assert _error(fixed, moving, truth, Ssd(), optimiser) < 0.6


@pytest.fixture(scope="module")
def phantom() -> PhantomPair:
    return phantom_pair((40, 34, 30), contrasts=("t1", "t1"), displacement_mm=14, seed=3)


@pytest.mark.parametrize("which", ["fixed", "moving"])
@pytest.mark.parametrize("optimiser", [Adam(), LevenbergMarquardt()])
def test_robust_differences_ignore_structures_without_counterpart(
    phantom: PhantomPair, which: str, optimiser: Any
) -> None:
    positions = torch.from_numpy(oracles.indices(phantom.fixed.grid.shape))
    distance = (positions - torch.tensor([20.0, 17.0, 15.0]).reshape(3, 1, 1, 1)).norm(dim=0)
    images = {"fixed": phantom.fixed.data, "moving": phantom.moving.data}
    corrupted = {**images, which: images[which].masked_fill(distance < 4.5, float(images[which].max()))}

    def features(data: torch.Tensor) -> torch.Tensor:
        return MindSSC()(Image(data, Grid(phantom.fixed.grid.shape)))

    def error(pair: dict[str, torch.Tensor], robust_scale: float | None) -> float:
        refinement = Refinement(
            levels=(Level(iterations=40 if isinstance(optimiser, Adam) else 10),),
            similarity=Ssd(robust_scale=robust_scale),
            regularisers=(Diffusion(weight=0.2),),
            optimiser=optimiser,
            parametrisation=Compositional(),
        )
        found = refinement(features(pair["fixed"]), features(pair["moving"]))
        return float((found - phantom.disp_vox).norm(dim=0)[distance < 9].mean())

    clean, plain, robust = error(images, None), error(corrupted, None), error(corrupted, 1.0)
    assert clean < 0.25
    assert plain - clean > 0.15
    assert robust - clean < 0.7 * (plain - clean)
