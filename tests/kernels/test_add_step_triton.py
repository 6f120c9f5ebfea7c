"""The Triton kernel of the composition against torch in float64: on a GPU, or interpreted on the CPU."""

from __future__ import annotations

import math
import os

import oracles
import pytest
import torch
from budget import assert_within_budget

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported
pytest.importorskip("triton")

from convexadam.kernels.warp import reference
from convexadam.kernels.warp.triton import add_opposite_steps, add_step

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SHAPES = [(1, 1, 1), (1, 7, 5), (3, 5, 33)]

Shape = tuple[int, int, int]


def _fields(shape: Shape, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    displacement, step = (oracles.noise(3, *shape, seed=seed + n, dtype=torch.float32) for n in range(2))
    return displacement.to(DEVICE), step.to(DEVICE)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("longest", [0.5, 1.0, 7.5])
def test_errs_no_more_than_torch(shape: Shape, longest: float) -> None:
    assert_within_budget(add_step, reference.add_step, *_fields(shape), longest=longest)


@pytest.mark.parametrize("longest", [0.5, 7.5, math.inf])
@pytest.mark.parametrize("factors", [(0.5, -0.5), (1.0, 0.0), (0.0, -2.0)])
def test_factors_of_both_terms(longest: float, factors: tuple[float, float]) -> None:
    options = {"longest": longest, "factors": factors}
    assert_within_budget(add_step, reference.add_step, *_fields((5, 7, 6)), **options)


def test_steps_far_beyond_the_border_read_the_edge() -> None:
    displacement, step = _fields((4, 5, 6))
    assert_within_budget(add_step, reference.add_step, displacement, 100 * step, longest=1000.0)


def test_no_step_changes_nothing() -> None:
    displacement, step = _fields((4, 5, 6))
    # three interpolations in a row, each with a difference of two values
    allowed = 3 * 2 * torch.finfo(torch.float32).eps * displacement.abs().max().item()
    torch.testing.assert_close(add_step(displacement, 0 * step, longest=0.5), displacement, rtol=0, atol=allowed)


def test_a_short_step_is_not_cut() -> None:
    displacement = torch.zeros(3, 3, 4, 5, device=DEVICE)
    step = torch.full_like(displacement, 0.25)
    assert torch.equal(add_step(displacement, step, longest=0.5), step)


def test_non_contiguous_inputs_and_output() -> None:
    displacement, step = _fields((5, 7, 6))
    displacement, step = displacement.transpose(1, 2), step.transpose(1, 2)
    out = torch.empty(7, 5, 6, 3, device=DEVICE).movedim(-1, 0)
    assert not any(t.is_contiguous() for t in (displacement, step, out))
    assert_within_budget(add_step, reference.add_step, displacement, step, longest=0.5)
    assert add_step(displacement, step, longest=0.5, out=out) is out
    assert torch.equal(out, add_step(displacement, step, longest=0.5))


def test_writes_where_it_is_told_and_leaves_its_other_inputs_alone() -> None:
    displacement, step = _fields((3, 4, 5))
    kept, out = [displacement.clone(), step.clone()], torch.full_like(displacement, float("nan"))
    assert add_step(displacement, step, longest=0.5, out=out) is out
    assert torch.equal(out, add_step(displacement, step, longest=0.5))
    assert torch.equal(displacement, kept[0])
    assert torch.equal(step, kept[1])
    assert add_step(displacement, step, longest=0.5, out=step) is step
    assert torch.equal(step, out)


@pytest.mark.parametrize("shape", SHAPES)
def test_opposite_steps_errs_no_more_than_torch(shape: Shape) -> None:
    options = {"factors": (0.5, -0.25)}
    forward, backward = _fields(shape)
    assert_within_budget(add_opposite_steps, reference.add_opposite_steps, 3 * forward, backward, **options)
    scattered = [torch.empty(*shape, 3, device=DEVICE).movedim(-1, 0).copy_(field) for field in (forward, backward)]
    for found, expected in zip(
        add_opposite_steps(*scattered, **options), add_opposite_steps(forward, backward, **options), strict=True
    ):
        assert torch.equal(found, expected)
