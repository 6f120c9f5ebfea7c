"""Label maps as features."""

from __future__ import annotations

import itertools
from typing import Any

import jaxtyping
import numpy as np
import oracles
import pytest
import torch
from pairwise import pairwise
from torch.utils._python_dispatch import TorchDispatchMode

from convexadam.errors import ConfigError, InputError
from convexadam.features import (
    Concat,
    FeatureInput,
    Features,
    Intensity,
    LabelFeatures,
    MindSSC,
    PairFeatures,
    extract_features,
    extract_pair_features,
    receptive_radius,
    uses_labels,
)
from convexadam.geometry import Grid, Image
from convexadam.kernels.label_shares import pool_one_hot
from convexadam.kernels.resize import pool

SHAPE = (7, 9, 6)
SPACINGS = [(1, 1, 1), (2, 2, 2), (2, 3, 4), (7, 9, 6)]
EPS = 2.0**-23


def _labels(values: tuple[int, ...], seed: int, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    shares = np.array([3.0, *range(len(values) - 1, 0, -1)])  # of most labels there is more of the first ones
    return np.random.default_rng(seed).choice(values, shape, p=shares / shares.sum())


def _scan(labels: Any, weight: np.ndarray | None = None, dtype: torch.dtype = torch.int32) -> FeatureInput:
    data = torch.from_numpy(np.asarray(labels)).to(dtype)
    grid = Grid((data.shape[0], data.shape[1], data.shape[2]))
    image = Image(oracles.noise(1, *grid.shape).float(), grid)
    return FeatureInput(
        image=image,
        weight=None if weight is None else torch.from_numpy(weight).float(),
        segmentation=Image(data[None], grid),
    )


def _weight(seed: int) -> np.ndarray:
    """Evidence in quarters, of which float32 keeps all digits; a third of the voxels and a whole corner have none."""
    weight = np.random.default_rng(seed).choice([0, 0.25, 0.5, 1], SHAPE, p=[1 / 3, 2 / 9, 2 / 9, 2 / 9])
    weight[:4, :3, :4] = 0
    return weight


def _factors(maps: list[np.ndarray], weights: list[np.ndarray | None], settings: LabelFeatures) -> dict[int, float]:
    """``scale n_l ** -class_balance / mean_l (n_l ** -class_balance)``, counted voxel by voxel."""
    counts: dict[int, int] = {}
    for labels, weight in zip(maps, weights, strict=True):
        for x in np.ndindex(*labels.shape):
            if (weight is None or weight[x] > 0) and (settings.include_background or labels[x] != 0):
                counts[int(labels[x])] = counts.get(int(labels[x]), 0) + 1
    powers = {label: counts[label] ** -settings.class_balance for label in sorted(counts)}
    mean = sum(powers.values()) / len(powers)
    return {label: settings.scale * power / mean for label, power in powers.items()}


@pytest.mark.parametrize(
    ("spacing", "weighted", "settings"),
    pairwise(
        SPACINGS,
        [False, True],
        [
            LabelFeatures(),
            LabelFeatures(scale=0.5, class_balance=1.0, include_background=True),
            LabelFeatures(class_balance=0.0),
        ],
    ),
)
def test_channels_are_weighted_shares_of_the_labels_of_both(
    spacing: tuple[int, int, int], weighted: bool, settings: LabelFeatures
) -> None:
    maps = [_labels((0, 2, 5, 1000), seed=1), _labels((0, 5, -3), seed=2)]
    weights = [_weight(3), _weight(4)] if weighted else [None, None]
    factors = _factors(maps, weights, settings)
    assert list(factors) == ([-3, 0, 2, 5, 1000] if settings.include_background else [-3, 2, 5, 1000])
    scans = [_scan(m, w) for m, w in zip(maps, weights, strict=True)]
    ((fixed, moving),) = settings.extract_pair(scans[0], scans[1], (spacing,))
    for found, labels, weight in zip((fixed, moving), maps, weights, strict=True):
        one_hot = np.stack([(labels == label) * factor for label, factor in factors.items()])
        expected = oracles.pool(one_hot, spacing, weight)
        assert found.dtype == torch.float32
        # Sums of quarters are exact; a quotient, a power (of a few eps), the powers' mean and two products are not.
        np.testing.assert_allclose(found.numpy(), expected, rtol=32 * EPS, atol=0)


@pytest.mark.parametrize(
    ("shape", "spacing", "dtype"),
    pairwise(
        [(1, 1, 1), (5, 3, 2), (11, 13, 7)],
        [(1, 1, 1), (2, 2, 2), (3, 2, 4), (5, 5, 5)],
        [torch.uint8, torch.int16, torch.int32, torch.int64],
    ),
)
def test_blocks_are_what_a_whole_map_would_give(
    shape: tuple[int, int, int], spacing: tuple[int, int, int], dtype: torch.dtype
) -> None:
    fits = tuple(min(n, s) for n, s in zip(shape, spacing, strict=True))
    step = (fits[0], fits[1], fits[2])
    labels = torch.from_numpy(_labels((0, 1, 4, 9), seed=5, shape=shape)).to(dtype)
    values = [1, 3, 4, 9]  # one that is not there, and 0 that is not asked for
    whole = torch.stack([labels == value for value in values]).float()
    torch.testing.assert_close(pool_one_hot(labels, values, step), pool(whole, step), rtol=EPS, atol=0)
    weight = oracles.uniform(*shape, seed=6).float()
    weight[: step[0], : step[1], : step[2]] = 0
    found = pool_one_hot(labels, values, step, weight=weight)
    # Sums of up to 125 weights above and below, in whatever order.
    torch.testing.assert_close(found, pool(whole, step, weight=weight), rtol=4 * 125 * EPS, atol=0)
    assert not found[:, 0, 0, 0].any()
    assert found.movedim(0, 3).is_contiguous()  # the refinement would else copy it


def test_several_spacings_at_once() -> None:
    fixed, moving = _scan(_labels((0, 1, 2), seed=1)), _scan(_labels((0, 1, 2), seed=2))
    together = LabelFeatures().extract_pair(fixed, moving, ((2, 3, 1), (3, 3, 3)))
    for spacing, pair in zip(((2, 3, 1), (3, 3, 3)), together, strict=True):
        ((here, there),) = LabelFeatures().extract_pair(fixed, moving, (spacing,))
        assert torch.equal(here, pair[0])
        assert torch.equal(there, pair[1])


def test_the_type_of_the_labels_does_not_matter() -> None:
    maps = _labels((0, 3, 200), seed=1), _labels((0, 3, 7), seed=2)
    expected = LabelFeatures().extract_pair(_scan(maps[0]), _scan(maps[1]), ((2, 2, 2),))[0]
    for dtype in (torch.uint8, torch.int16, torch.int64):
        found = LabelFeatures().extract_pair(_scan(maps[0], dtype=dtype), _scan(maps[1], dtype=dtype), ((2, 2, 2),))[0]
        assert all(torch.equal(f, e) for f, e in zip(found, expected, strict=True))
    truth = [_scan(m > 0, dtype=torch.bool) for m in maps]
    binary = LabelFeatures(scale=2.0).extract_pair(truth[0], truth[1], ((2, 2, 2),))[0]
    assert torch.equal(binary[0], 2 * pool(torch.from_numpy(maps[0] > 0).float()[None], (2, 2, 2)))


def test_labels_without_evidence_make_no_channel() -> None:
    labels, weight = _labels((0, 1), seed=1), np.ones(SHAPE)
    labels[0], weight[0] = 7, 0
    ((fixed, moving),) = LabelFeatures(scale=1.0).extract_pair(
        _scan(labels, weight), _scan(labels, weight), ((1, 1, 1),)
    )
    assert len(fixed) == len(moving) == 1
    assert not fixed[:, 0].any()


class _Largest(TorchDispatchMode):
    """Notes how many bytes the largest new tensor takes."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, (tuple, list)) else (out,)
        self.nbytes = max([self.nbytes, *(t.untyped_storage().nbytes() for t in made if isinstance(t, torch.Tensor))])
        return out


@pytest.mark.parametrize("weighted", [False, True])
def test_no_map_of_all_labels_at_full_resolution(weighted: bool) -> None:
    shape = (40, 36, 32)
    labels = np.random.default_rng(0).integers(0, 101, shape)
    weight = np.ones(shape) if weighted else None
    scan = _scan(labels, weight, torch.uint8)
    with _Largest() as largest:
        LabelFeatures().extract_pair(scan, scan, ((4, 4, 4),))
    nodes, voxels = 100 * 10 * 9 * 8 * 4, 40 * 36 * 32  # bytes of the result; of the labels
    assert nodes <= largest.nbytes <= max(nodes, 8 * voxels)  # counting takes eight bytes a voxel
    assert largest.nbytes < 100 * voxels * 4 / 40


def test_the_scans_are_left_alone() -> None:
    scan = _scan(_labels((0, 1, 2), seed=1), _weight(1))
    assert scan.segmentation is not None
    assert scan.weight is not None
    before = scan.segmentation.data.clone(), scan.weight.clone()
    LabelFeatures().extract_pair(scan, scan, ((2, 2, 2),))
    assert torch.equal(scan.segmentation.data, before[0])
    assert torch.equal(scan.weight, before[1])


def test_labels_that_cannot_be_compared() -> None:
    good = _scan(_labels((0, 1), seed=1))
    ones = Image(torch.ones(2, *SHAPE), Grid(SHAPE))
    for labels, kind, message in (
        (None, ConfigError, "fixed_segmentation and moving_segmentation must be given for LabelFeatures"),
        (Image(torch.ones(1, *SHAPE), Grid(SHAPE)), InputError, r"1 of torch.float32.*ProbabilityFeatures"),
        (Image(ones.data.int(), Grid(SHAPE)), InputError, r"one channel of an integer type, got 2"),
        (
            Image(torch.zeros(1, *SHAPE, dtype=torch.int32), Grid(SHAPE)),
            InputError,
            "moving_segmentation must contain a label other than 0",
        ),
        (Image(torch.arange(378).reshape(1, *SHAPE), Grid(SHAPE)), InputError, "at most 255 labels, got 377 from 1"),
    ):
        with pytest.raises(kind, match=message):
            LabelFeatures().extract_pair(good, FeatureInput(image=good.image, segmentation=labels), ((1, 1, 1),))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scale": 0.0}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"class_balance": -0.1}, "class_balance"),
        ({"class_balance": float("inf")}, "class_balance"),
        ({"include_background": 1}, "include_background must be True or False, got 1"),
    ],
)
def test_unusable_settings(setting: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(ConfigError, match=message):
        LabelFeatures(**setting)


# Beside other features ----------------------------------------------------------------------------------------------


def test_together_with_features_of_the_images() -> None:
    fixed, moving = _scan(_labels((0, 1, 2), seed=1)), _scan(_labels((0, 2, 3), seed=2), _weight(2))
    inner = Concat(parts=(LabelFeatures(),), weights=(4.0,))
    both = Concat(parts=(MindSSC(), inner, Intensity()), weights=(1.0, 0.25, 9.0))
    spacings = ((2, 2, 2), (3, 1, 2))
    found = extract_pair_features(both, fixed, moving, spacings)
    labels = LabelFeatures().extract_pair(fixed, moving, spacings)
    for number, (side, scan) in itertools.product(range(2), enumerate((fixed, moving))):
        mind, plain = (
            extract_features(f, scan.image, (spacings[number],), weight=scan.weight)[0]
            for f in (MindSSC(), Intensity())
        )
        expected = torch.cat([mind, labels[number][side], plain * 3])  # 0.5 of the weight outside, 2 of that inside
        assert torch.equal(found[number][side], expected)


def test_what_describes_pairs_and_what_one_image() -> None:
    assert isinstance(LabelFeatures(), PairFeatures)
    assert not isinstance(LabelFeatures(), Features)
    assert not isinstance(MindSSC(), PairFeatures)
    assert uses_labels(LabelFeatures())
    assert uses_labels(Concat(parts=(MindSSC(), Concat(parts=(LabelFeatures(),)))))
    assert not uses_labels(Concat(parts=(MindSSC(),)))
    assert not uses_labels(MindSSC())
    assert receptive_radius(LabelFeatures()) == 0
    assert receptive_radius(Concat(parts=(MindSSC(), LabelFeatures()))) == 3
    image = _scan(_labels((0, 1), seed=1)).image
    with pytest.raises(ConfigError, match="needs both images"):
        Concat(parts=(MindSSC(), LabelFeatures()))(image)
