"""Probabilities of classes as features."""

from __future__ import annotations

import sys
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch
from pairwise import pairwise

from convexadam.errors import ConfigError, InputError
from convexadam.features import FeatureInput, LabelFeatures, PairFeatures, ProbabilityFeatures, uses_labels
from convexadam.geometry import Grid, Image

SHAPE = (7, 9, 6)
SPACINGS = [(1, 1, 1), (2, 2, 2), (2, 3, 4), (7, 9, 6)]
EPS = 2.0**-23


def _softmax(logits: np.ndarray) -> np.ndarray:
    """``exp(z_c) / sum_c exp(z_c)``, voxel by voxel."""
    out = np.zeros_like(logits)
    for x in np.ndindex(*logits.shape[1:]):
        powers = np.exp(logits[(slice(None), *x)])
        out[(slice(None), *x)] = powers / powers.sum()
    return out


def _logits(channels: int, seed: int) -> np.ndarray:
    return oracles.noise(channels, *SHAPE, seed=seed).float().double().numpy()


def _scan(channels: np.ndarray, weight: np.ndarray | None = None, dtype: torch.dtype = torch.float32) -> FeatureInput:
    grid = Grid(SHAPE)
    return FeatureInput(
        image=Image(oracles.noise(1, *SHAPE).float(), grid),
        weight=None if weight is None else torch.from_numpy(weight).float(),
        segmentation=Image(torch.from_numpy(channels).to(dtype), grid),
    )


def _weight(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).choice([0, 0.25, 0.5, 1], SHAPE)


@pytest.mark.parametrize(
    ("spacing", "weighted", "settings"),
    pairwise(
        SPACINGS,
        [False, True],
        [
            ProbabilityFeatures(),
            ProbabilityFeatures(logits=True),
            ProbabilityFeatures(scale=0.5, class_balance=1.0, include_background=True),
            ProbabilityFeatures(class_balance=0.0, include_background=True, logits=True),
        ],
    ),
)
def test_channels_are_weighted_probabilities(
    spacing: tuple[int, int, int], weighted: bool, settings: ProbabilityFeatures
) -> None:
    given = [_logits(4, seed=1), _logits(4, seed=2)]
    chances = [_softmax(g) for g in given]
    kept = slice(0 if settings.include_background else 1, None)
    weights = [_weight(3), _weight(4)] if weighted else [None, None]
    total = sum((p[kept] * (1 if w is None else w > 0)).sum((1, 2, 3)) for p, w in zip(chances, weights, strict=True))
    powers = np.asarray(total) ** -settings.class_balance
    factors = (settings.scale * powers / powers.mean()).reshape(-1, 1, 1, 1)
    scans = [_scan(c, w) for c, w in zip(given if settings.logits else chances, weights, strict=True)]
    ((fixed, moving),) = settings.extract_pair(scans[0], scans[1], (spacing,))
    for found, chance, weight in zip((fixed, moving), chances, weights, strict=True):
        assert found.dtype == torch.float32
        expected = oracles.pool(chance[kept] * factors, spacing, weight)
        # A softmax of a few roundings, a sum over 378 voxels of all blocks and both images, and a quotient.
        np.testing.assert_allclose(found.numpy(), expected, rtol=3 * 378 * EPS, atol=0)


def test_certain_probabilities_are_labels() -> None:
    maps = [np.random.default_rng(seed).integers(0, 4, SHAPE) for seed in range(2)]
    one_hot = [_scan(np.stack([m == c for c in range(4)]).astype(float), _weight(5)) for m in maps]
    labels = [
        FeatureInput(image=s.image, weight=s.weight, segmentation=Image(torch.from_numpy(m)[None], Grid(SHAPE)))
        for m, s in zip(maps, one_hot, strict=True)
    ]
    for background in (False, True):
        soft = ProbabilityFeatures(include_background=background).extract_pair(one_hot[0], one_hot[1], ((2, 3, 2),))[0]
        hard = LabelFeatures(include_background=background).extract_pair(labels[0], labels[1], ((2, 3, 2),))[0]
        for s, h in zip(soft, hard, strict=True):
            torch.testing.assert_close(s, h, rtol=16 * EPS, atol=0)  # counts and sums of quarters are exact


@pytest.mark.parametrize("logits", [False, True])
def test_planes_may_be_taken_a_few_at_a_time(logits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = [_scan(_softmax(_logits(3, seed=s)), _weight(s)) for s in (1, 2)]
    settings = ProbabilityFeatures(logits=logits)
    whole = settings.extract_pair(scans[0], scans[1], ((2, 2, 2),))[0]
    monkeypatch.setattr(sys.modules["convexadam.features.probabilities"], "_CHUNK_VALUES", 1)
    for found, expected in zip(settings.extract_pair(scans[0], scans[1], ((2, 2, 2),))[0], whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=378 * EPS, atol=0)  # the sums' order


def test_half_precision_is_taken() -> None:
    chances = _softmax(_logits(3, seed=1))
    exact, half = (_scan(chances, dtype=dtype) for dtype in (torch.float32, torch.float16))
    ((found, _),) = ProbabilityFeatures(scale=1.0).extract_pair(half, half, ((2, 2, 2),))
    ((expected, _),) = ProbabilityFeatures(scale=1.0).extract_pair(exact, exact, ((2, 2, 2),))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=4 * 2.0**-11, atol=0)


def test_a_class_that_is_nowhere_has_no_say() -> None:
    chances = _softmax(_logits(3, seed=1))
    more = np.concatenate([chances, np.zeros((1, *SHAPE))])
    found = ProbabilityFeatures().extract_pair(_scan(more), _scan(more), ((2, 2, 2),))[0][0]
    expected = ProbabilityFeatures().extract_pair(_scan(chances), _scan(chances), ((2, 2, 2),))[0][0]
    torch.testing.assert_close(found[:2], expected, rtol=8 * EPS, atol=0)
    assert not found[2].any()


def test_probabilities_that_cannot_be_compared() -> None:
    good = _scan(_softmax(_logits(3, seed=1)))
    background = np.zeros((3, *SHAPE))
    background[0] = 1
    for labels, kind, message in (
        (None, ConfigError, "fixed_segmentation and moving_segmentation must be given for ProbabilityFeatures"),
        (
            _scan(_logits(3, seed=1)).segmentation,
            InputError,
            r"moving_segmentation must .* got values from -.*set logits=True",
        ),
        (_scan(_softmax(_logits(4, seed=1))).segmentation, InputError, "the same classes, got 3 and 4"),
        (
            _scan(np.ones((1, *SHAPE))).segmentation,
            InputError,
            "at least two channels of a floating-point type.* got 1 of",
        ),
        (_scan(np.ones((3, *SHAPE)), dtype=torch.int32).segmentation, InputError, "torch.int32.*LabelFeatures"),
        (
            _scan(background).segmentation,
            InputError,
            "moving_segmentation must contain a class other than the background",
        ),
    ):
        for settings in (ProbabilityFeatures(), ProbabilityFeatures(include_background=True)):
            with pytest.raises(kind, match=message):
                settings.extract_pair(good, FeatureInput(image=good.image, segmentation=labels), ((1, 1, 1),))


def test_both_images_are_described_together() -> None:
    assert isinstance(ProbabilityFeatures(), PairFeatures)
    assert uses_labels(ProbabilityFeatures())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scale": 0.0}, "scale"),
        ({"scale": float("inf")}, "scale"),
        ({"class_balance": -0.1}, "class_balance"),
        ({"include_background": 1}, "include_background must be True or False, got 1"),
        ({"logits": "yes"}, "logits must be True or False, got 'yes'"),
    ],
)
def test_unusable_settings(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        ProbabilityFeatures(**setting)
