"""The Triton kernel of the separable smoothing against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import itertools
import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.smooth import reference
from convexadam.kernels.smooth.triton import smooth

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (1, 2, 130), (2, 17, 3)]
TAPS = [
    (1.0,),
    (0.25, 0.5, 0.25),
    (0.1, 0.2, 0.4, 0.2, 0.1),
    tuple(t / 27 for t in (1, 3, 6, 7, 6, 3, 1)),
    (0.05, 0.1, 0.1, 0.15, 0.2, 0.15, 0.1, 0.1, 0.05),
]

Shape = tuple[int, int, int]


def _field(channels: int, shape: Shape, seed: int = 0) -> torch.Tensor:
    return oracles.noise(channels, *shape, seed=seed, dtype=torch.float32).to(DEVICE)


def _weight(shape: Shape, seed: int) -> torch.Tensor:
    return oracles.uniform(*shape, seed=seed, low=0.1, high=2.0).float().to(DEVICE)


@pytest.mark.parametrize(("taps", "shape"), [*itertools.product(TAPS, SHAPES), *((t, (33, 1, 2)) for t in TAPS[2:])])
def test_errs_no_more_than_torch(shape: Shape, taps: tuple[float, ...]) -> None:
    assert_within_budget(smooth, reference.smooth, _field(2, shape), taps)


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize(("channels", "factors"), [(1, "before"), (1, "after"), (3, "both")])
def test_factors(taps: tuple[float, ...], channels: int, factors: str) -> None:
    shape = (2, 5, 3) if len(taps) < 5 else (2, 17, 3)  # larger than what a program computes
    options = {
        "before": _weight(shape, 1) if factors in ("before", "both") else None,
        "after": _weight(shape, 2) if factors in ("after", "both") else None,
    }
    assert_within_budget(smooth, reference.smooth, _field(channels, shape), taps, **options)


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("spare", [False, True])
def test_adds_the_weighted_field(taps: tuple[float, ...], spare: bool) -> None:
    shape = (2, 5, 3) if len(taps) < 5 else (2, 17, 3)
    field, factors = _field(3, shape), {"before": _weight(shape, 1), "after": _weight(shape, 2)}
    assert_within_budget(smooth, reference.smooth, field, taps, **factors, keep=True)
    assert_within_budget(smooth, reference.smooth, field, taps, after=factors["after"], keep=True)
    kept = field.clone()
    expected = smooth(kept, taps, **factors, keep=True)
    out = torch.empty_like(field)
    assert torch.equal(smooth(field, taps, **factors, out=out, keep=True, spare=spare), expected)
    assert torch.equal(field, kept)


def test_more_taps_than_nodes() -> None:
    taps = tuple(float(t) for t in torch.ones(15) / 15)
    assert_within_budget(smooth, reference.smooth, _field(2, (3, 1, 4)), taps)


def test_swapped_factors_are_the_adjoint() -> None:
    shape = (4, 6, 5)
    x, y = _field(3, shape), _field(3, shape, seed=1)
    a, b = _weight(shape, 2), _weight(shape, 3)
    left = (smooth(x, TAPS[3], before=a, after=b).double() * y).sum()
    right = (x.double() * smooth(y, TAPS[3], before=b, after=a)).sum()
    # 360 products of numbers up to 4 * 2 * 2 * 4, each right to some 30 roundings
    assert (left - right).abs() < 360 * 64 * 30 * torch.finfo(torch.float32).eps


def test_non_contiguous_inputs_and_output() -> None:
    field = _field(2, (3, 5, 4)).transpose(1, 2)
    weight = _weight((4, 3, 5), 1).permute(2, 1, 0)
    out = torch.empty(5, 3, 4, 2, device=DEVICE).movedim(-1, 0)
    assert not any(t.is_contiguous() for t in (field, weight, out))
    assert_within_budget(smooth, reference.smooth, field, TAPS[3], before=weight, after=weight)
    expected = smooth(field, TAPS[3], before=weight, after=weight)
    assert smooth(field, TAPS[3], before=weight, after=weight, out=out) is out
    assert torch.equal(out, expected)


def test_writes_where_it_is_told_and_leaves_its_inputs_alone() -> None:
    field, weight = _field(3, (3, 4, 5)), _weight((3, 4, 5), 1)
    kept, out = field.clone(), torch.full_like(field, float("nan"))
    assert smooth(field, TAPS[3], before=weight, out=out) is out
    assert torch.equal(out, smooth(field, TAPS[3], before=weight))
    assert torch.equal(field, kept)


@pytest.mark.parametrize("taps", TAPS)
@pytest.mark.parametrize("contiguous", [True, False])
def test_writes_only_if_a_condition_holds(taps: tuple[float, ...], contiguous: bool) -> None:
    field, kept = _field(2, (3, 5, 4)), _field(2, (3, 5, 4), seed=1)
    for holds in (False, True):
        out = kept.clone() if contiguous else kept.transpose(1, 3).contiguous().transpose(1, 3)
        smooth(field, taps, out=out, condition=torch.tensor(holds, device=DEVICE))
        assert torch.equal(out, smooth(field, taps) if holds else kept)


@pytest.mark.parametrize("taps", TAPS)
def test_a_spare_field_gives_the_same(taps: tuple[float, ...]) -> None:
    field, out = _field(3, (3, 4, 5)), torch.empty(3, 3, 4, 5, device=DEVICE)
    expected = smooth(field, taps)
    assert smooth(field, taps, out=out, spare=True) is out
    assert torch.equal(out, expected)
