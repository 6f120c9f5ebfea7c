"""MIND-SSC of GPUs against torch: interpreted on the CPU, and on a device where there is one."""

from __future__ import annotations

import os

import oracles
import pytest
import torch
from budget import assert_within_budget
from pairwise import pairwise

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton is imported
pytest.importorskip("triton")

from convexadam.kernels.mind_ssc import reference
from convexadam.kernels.mind_ssc import triton as fused

interpreted = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="kernels are compiled here")
on_device = pytest.mark.skipif(not torch.cuda.is_available(), reason="no device")
DEVICES = [pytest.param("cpu", marks=interpreted), pytest.param("cuda", marks=[pytest.mark.gpu, on_device])]
pytestmark = pytest.mark.parametrize("device", DEVICES)

SETTINGS = [(0, 3), (1, 2), (2, 1)]  # radius, dilation
SMALL = [(1, 1, 1), (1, 7, 5)]
SPACINGS = [(2, 2, 2), (3, 2, 5), (4, 2, 2), (6, 6, 6), (1, 1, 1)]  # some are made from others


def _volume(shape: tuple[int, int, int], device: str) -> torch.Tensor:
    return oracles.noise(*shape, seed=1, dtype=torch.float32).to(device)


def _gaps(shape: tuple[int, int, int], device: str) -> torch.Tensor:
    weight = oracles.uniform(*shape, seed=2).float()
    weight[:, : shape[1] // 2] = 0
    weight[..., -1:] = 0
    return weight.to(device)


def _few_programs(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Each program takes long in the interpreter; how many there are is not what these tests are about."""
    if device == "cpu":
        monkeypatch.setattr(fused, "_BLOCK", 512)


@pytest.mark.parametrize(("shape", "setting", "weighted"), pairwise(SMALL, SETTINGS, [False, True]))
def test_small_volumes(shape, setting: tuple[int, int], weighted: bool, device: str) -> None:
    radius, dilation = setting
    weight = _gaps(shape, device) if weighted else None
    options = {"radius": radius, "dilation": dilation, "weight": weight}
    assert_within_budget(fused.mind_ssc, reference.mind_ssc, _volume(shape, device), **options)


@pytest.mark.parametrize("weighted", [False, True])
def test_several_programs_along_each_axis(monkeypatch: pytest.MonkeyPatch, weighted: bool, device: str) -> None:
    monkeypatch.setattr(fused, "_BLOCK", 64)
    monkeypatch.setattr(fused, "_SEGMENT", 2)
    shape = (3, 9, 9) if device == "cpu" else (13, 17, 9)
    options = {"weight": _gaps(shape, device) if weighted else None}
    volume = _volume(shape, device)
    assert_within_budget(fused.mind_ssc, reference.mind_ssc, volume, **options)
    assert_within_budget(fused.pooled_mind_ssc, reference.pooled_mind_ssc, volume, [(1, 3, 2)], **options)


@pytest.mark.parametrize("spacing", [(2, 5, 6), (1, 4, 3)])
@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_wider_than_a_program(monkeypatch: pytest.MonkeyPatch, spacing, weighted: bool, device: str) -> None:
    _few_programs(monkeypatch, device)
    monkeypatch.setattr(fused, "_MAX_WIDTH", 3)
    volume = _volume((3, 10, 7), device)
    options = {"radius": 0, "weight": _gaps((3, 10, 7), device) if weighted else None}
    assert_within_budget(fused.pooled_mind_ssc, reference.pooled_mind_ssc, volume, [spacing], **options)


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("weighted", [False, True])
def test_pooled(monkeypatch: pytest.MonkeyPatch, spacing, weighted: bool, device: str) -> None:
    _few_programs(monkeypatch, device)
    volume = _volume((7, 9, 8), device)
    options = {"radius": 0, "weight": _gaps((7, 9, 8), device) if weighted else None}
    assert_within_budget(fused.pooled_mind_ssc, reference.pooled_mind_ssc, volume, [spacing], **options)


@pytest.mark.parametrize(("radius", "dilation", "weighted"), [(1, 2, True), (2, 1, False)])
def test_several_spacings_at_a_time(
    monkeypatch: pytest.MonkeyPatch, radius: int, dilation: int, weighted: bool, device: str
) -> None:
    _few_programs(monkeypatch, device)
    shape = (7, 9, 8) if radius == 1 else (2, 3, 4)
    spacings = [(4, 2, 4), (2, 2, 2), (6, 6, 6)] if radius == 1 else [(2, 2, 2)]
    options = {"radius": radius, "dilation": dilation, "weight": _gaps(shape, device) if weighted else None}
    assert_within_budget(fused.pooled_mind_ssc, reference.pooled_mind_ssc, _volume(shape, device), spacings, **options)


def test_a_block_without_weight_becomes_0(device: str) -> None:
    volume, weight = _volume((2, 4, 2), device), torch.ones(2, 4, 2, device=device)
    weight[:, :2] = 0
    (found,) = fused.pooled_mind_ssc(volume, [(2, 2, 2)], radius=0, weight=weight)
    assert not found[:, 0, 0, 0].any()
    assert bool((found[:, 0, 1, 0] > 0).all())


def test_weights_of_0_everywhere_count_as_1(device: str) -> None:
    volume, spacings = _volume((2, 4, 2), device), [(1, 2, 1), (2, 4, 2)]  # the second is made from the first
    found = fused.pooled_mind_ssc(volume, spacings, radius=0, weight=torch.zeros_like(volume))
    for blocks, expected in zip(found, fused.pooled_mind_ssc(volume, spacings, radius=0), strict=True):
        torch.testing.assert_close(blocks, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("value", [0.0, 3e4])
@pytest.mark.parametrize("weighted", [False, True])
def test_no_contrast_gives_ones(value: float, weighted: bool, device: str) -> None:
    volume = torch.full((2, 3, 4), value, device=device)
    weight = torch.ones_like(volume) if weighted else None
    assert torch.equal(fused.mind_ssc(volume, weight=weight).cpu(), torch.ones(12, 2, 3, 4))
    assert torch.equal(
        fused.pooled_mind_ssc(volume, [(2, 2, 2)], radius=0, weight=weight)[0].cpu(), torch.ones(12, 1, 1, 2)
    )


@pytest.mark.parametrize("part", [slice(0, 0), slice(12, 14)])  # no weight at all; weight without contrast under it
def test_a_weight_that_says_nothing_is_as_none(monkeypatch: pytest.MonkeyPatch, part: slice, device: str) -> None:
    _few_programs(monkeypatch, device)
    volume = _volume((2, 14, 3), device)
    volume[:, 4:8] *= 0.02  # the lower clamp of v acts here: its average matters
    volume[:, 8:] = 0.5
    weight = torch.zeros_like(volume)
    weight[:, part] = 1
    found = fused.mind_ssc(volume, weight=weight)
    assert torch.equal(found, fused.mind_ssc(volume))
    assert float(found.min()) < 0.5


def test_non_contiguous_volume_and_weight(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    _few_programs(monkeypatch, device)
    volume, weight = _volume((6, 8, 3), device)[:, ::2].permute(1, 0, 2), _gaps((4, 6, 3), device).flip(0)
    weight = weight.transpose(0, 2).contiguous().transpose(0, 2)
    assert not volume.is_contiguous()
    assert not weight.is_contiguous()
    assert_within_budget(fused.mind_ssc, reference.mind_ssc, volume, weight=weight)
    assert_within_budget(fused.pooled_mind_ssc, reference.pooled_mind_ssc, volume, [(2, 3, 1)], radius=0, weight=weight)


def test_the_input_is_left_alone(device: str) -> None:
    volume, weight = _volume((2, 3, 4), device), _gaps((2, 3, 4), device)
    before = volume.clone(), weight.clone()
    fused.pooled_mind_ssc(volume, [(2, 2, 2)], radius=0, weight=weight)
    assert torch.equal(volume, before[0])
    assert torch.equal(weight, before[1])
