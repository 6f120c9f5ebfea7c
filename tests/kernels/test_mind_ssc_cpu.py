"""MIND-SSC of the CPU against torch in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from budget import assert_within_budget
from compiled import SHAPES, Shape, gaps, noise, on_cpu, scattered
from pairwise import pairwise

from convexadam.kernels.mind_ssc import cpu, mind_ssc, pooled_mind_ssc, reference
from convexadam.kernels.resize import pool

SETTINGS = [(1, 2), (2, 1), (0, 3), (3, 2)]  # radius, dilation
SPACINGS = [
    [(1, 1, 1)],
    [(6, 6, 6), (2, 2, 2)],
    [(3, 2, 1), (1, 5, 4)],
    [(4, 4, 4), (2, 2, 2)],
    [(5, 3, 7), (2, 2, 3), (1, 4, 2)],
]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "setting", "weighted"),
    pairwise([1, 3], SHAPES, SETTINGS, [False, True]),
    indirect=["threads"],
)
def test_errs_no_more_than_torch(shape: Shape, setting: tuple[int, int], weighted: bool) -> None:
    radius, dilation = setting
    options: dict[str, Any] = {"radius": radius, "dilation": dilation, "weight": gaps(*shape) if weighted else None}
    assert_within_budget(on_cpu(mind_ssc), reference.mind_ssc, noise(*shape, seed=1), **options)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "spacings", "setting", "weighted"),
    pairwise([1, 3], SPACINGS, SETTINGS, [False, True]),
    indirect=["threads"],
)
def test_pooled_errs_no_more_than_torch(spacings: list[Shape], setting: tuple[int, int], weighted: bool) -> None:
    shape, (radius, dilation) = (13, 17, 19), setting
    options: dict[str, Any] = {"radius": radius, "dilation": dilation, "weight": gaps(*shape) if weighted else None}
    volume = noise(*shape, seed=1)
    assert_within_budget(on_cpu(pooled_mind_ssc), reference.pooled_mind_ssc, volume, spacings, **options)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("weighted", [False, True])
def test_of_a_usual_size(weighted: bool) -> None:
    shape = (60, 70, 66)
    volume, weight = noise(*shape, seed=1), gaps(*shape) if weighted else None
    spacings = [(4, 4, 4), (2, 2, 2)]
    assert_within_budget(on_cpu(pooled_mind_ssc), reference.pooled_mind_ssc, volume, spacings, weight=weight)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "weighted", "size"), pairwise([1, 3], [False, True], [1, 2**14, 2**22]), indirect=["threads"]
)
def test_any_number_of_rows_at_a_time(monkeypatch: pytest.MonkeyPatch, size: int, weighted: bool) -> None:
    monkeypatch.setattr(cpu, "_BLOCK_BYTES", size)
    shape, spacings = (9, 17, 11), [(3, 2, 1), (1, 5, 4)]
    volume, weight = noise(*shape, seed=2), gaps(*shape) if weighted else None
    assert_within_budget(on_cpu(pooled_mind_ssc), reference.pooled_mind_ssc, volume, spacings, weight=weight)


@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_larger_than_the_volume_leave_nothing(shape: Shape) -> None:
    volume, larger = noise(*shape, seed=3), (shape[0] + 1, 1, shape[2] + 5)
    none, some = on_cpu(pooled_mind_ssc)(volume, [larger, (1, 1, 1)])
    assert none.shape == (12, 0, shape[1], 0)
    # The blocks of one spacing have no say in those of another but for the rows that are summed at a time.
    torch.testing.assert_close(some, on_cpu(mind_ssc)(volume), rtol=0, atol=1e-6)


def test_pooled_is_the_average_over_blocks() -> None:
    volume, weight = noise(9, 8, 11, seed=4), gaps(9, 8, 11)
    whole = on_cpu(mind_ssc)(volume, weight=weight)
    spacings = [(2, 3, 4), (9, 1, 2)]
    for spacing, found in zip(spacings, on_cpu(pooled_mind_ssc)(volume, spacings, weight=weight), strict=True):
        # Sums of at most 24 numbers of at most 1.
        torch.testing.assert_close(found, pool(whole, spacing, weight=weight), rtol=0, atol=24 * 2**-23)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("threads", "shape", "value", "weighted"),
    pairwise([1, 3], [(1, 1, 1), (4, 5, 6)], [0.0, -1000.0, 3e4], [False, True]),
    indirect=["threads"],
)
def test_no_contrast_gives_ones(shape: Shape, value: float, weighted: bool) -> None:
    volume, weight = torch.full(shape, value), torch.ones(shape) if weighted else None
    assert torch.equal(on_cpu(mind_ssc)(volume, weight=weight), torch.ones(12, *shape))
    (pooled,) = on_cpu(pooled_mind_ssc)(volume, [(1, 1, 1)], weight=weight)
    assert torch.equal(pooled, torch.ones(12, *shape))


@pytest.mark.parametrize("part", [slice(0, 0), slice(12, 14)])  # no weight at all; weight without contrast under it
def test_a_weight_that_says_nothing_is_as_none(part: slice) -> None:
    volume = noise(6, 14, 5, seed=5)
    volume[:, 4:8] *= 0.02  # the lower clamp of v acts here: its average matters
    volume[:, 8:] = 0.5
    weight = torch.zeros_like(volume)
    weight[:, part] = 1
    found = on_cpu(mind_ssc)(volume, weight=weight)
    assert torch.equal(found, on_cpu(mind_ssc)(volume))
    assert float(found.min()) < 0.5  # not ones throughout


def test_blocks_without_weight_become_0() -> None:
    volume, weight = noise(4, 6, 5, seed=6), torch.ones(4, 6, 5)
    weight[:, :2] = 0
    (found,) = on_cpu(pooled_mind_ssc)(volume, [(2, 2, 1)], weight=weight)
    assert not found[:, :, 0].any()
    assert bool((found[:, :, 1:] > 0).all())
    for pooled in on_cpu(pooled_mind_ssc)(volume, [(2, 2, 1), (4, 1, 5)], weight=0 * weight):
        assert not pooled.any()


def test_weights_enter_the_limits_of_the_variance() -> None:
    volume, weight = noise(6, 9, 5, seed=7), torch.ones(6, 9, 5)
    volume[:, :5] *= 0.02  # v is about 4e-4 of that elsewhere: the lower clamp acts, and the weight decides where it is
    weight[:, 5:] = 0
    assert_within_budget(on_cpu(mind_ssc), reference.mind_ssc, volume, weight=weight)
    assert (on_cpu(mind_ssc)(volume, weight=weight) - on_cpu(mind_ssc)(volume)).abs().max() > 1e-3


@pytest.mark.parametrize("weighted", [False, True])
def test_a_variance_far_above_the_average_is_cut(weighted: bool) -> None:
    shape = (21, 23, 25)
    volume, weight = 1e-3 * noise(*shape, seed=8), torch.ones(shape) if weighted else None
    volume[10, 11, 12] = 1.0  # seen by six of 12 thousand voxels: they have 1/6 of 12 thousand times the average
    options: dict[str, Any] = {"radius": 0, "weight": weight}
    found = on_cpu(mind_ssc)(volume, **options)
    assert_within_budget(on_cpu(mind_ssc), reference.mind_ssc, volume, **options)
    # There 4 of 12 distances are large and the others are none: 3 times the mean, exp(-3) = 0.05 if that were not cut.
    assert found.min() < 0.03


@pytest.mark.usefixtures("threads")
def test_non_contiguous_volume_and_weight() -> None:
    volume, weight = scattered(noise(7, 9, 8, seed=8)), scattered(gaps(7, 9, 8))
    assert not volume.is_contiguous()
    assert not weight.is_contiguous()
    assert_within_budget(on_cpu(mind_ssc), reference.mind_ssc, volume, weight=weight)
    spacings = [(2, 3, 1), (3, 3, 3)]
    assert_within_budget(on_cpu(pooled_mind_ssc), reference.pooled_mind_ssc, volume, spacings, weight=weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    volume = (1000 * noise(6, 9, 5, seed=9)).to(dtype)
    found = on_cpu(mind_ssc)(volume)
    assert found.dtype == torch.float32
    assert torch.equal(found, on_cpu(mind_ssc)(volume.float()))


def test_values_lie_in_0_1_and_one_channel_is_1() -> None:
    volume = noise(11, 9, 10, seed=10)
    volume[4:] *= 1e4  # exponents from 0 to far below what float32 can show
    found = on_cpu(mind_ssc)(volume)
    assert bool(((found >= 0) & (found <= 1)).all())
    assert torch.equal(found.amax(0), torch.ones(11, 9, 10))


def test_the_inputs_are_left_alone() -> None:
    volume, weight = noise(4, 5, 6), gaps(4, 5, 6)
    before = volume.clone(), weight.clone()
    on_cpu(pooled_mind_ssc)(volume, [(2, 2, 2), (1, 1, 1)], radius=0, weight=weight)
    assert torch.equal(volume, before[0])
    assert torch.equal(weight, before[1])
