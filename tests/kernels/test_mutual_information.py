"""Mutual information and its derivatives against a loop over samples, and against differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from dependent_images import SHAPES, make_case
from scipy.interpolate import BSpline

from convexadam.kernels.mutual_information import BINS, MutualInformation, cpu, mutual_information, reference

KERNEL = BSpline.basis_element([-2, -1, 0, 1, 2], extrapolate=False)


def sample(volume: np.ndarray, position: np.ndarray) -> float:
    """Interpolate linearly, with edge values outside."""
    total, position = 0.0, np.clip(position, 0, np.array(volume.shape) - 1)
    low = np.minimum(np.floor(position).astype(int), np.maximum(np.array(volume.shape) - 2, 0))
    for corner in itertools.product((0, 1), repeat=3):
        index = np.minimum(low + corner, np.array(volume.shape) - 1)
        total += math.prod(1 - abs(p - n - c) for p, n, c in zip(position, low, corner, strict=True)) * volume[*index]
    return total


def compute_information(case: tuple[torch.Tensor, ...]) -> float:
    """Mutual information by loops, the B-splines from scipy."""
    points, fixed, moving, to_fixed, to_moving = (each.numpy() for each in case)
    joint = np.zeros((BINS, BINS))
    for point in points:
        f, m = (sample(v, t[:, :3] @ point + t[:, 3]) for v, t in ((fixed, to_fixed), (moving, to_moving)))
        rows, columns = (np.nan_to_num(KERNEL(value - np.arange(BINS))) for value in (f, m))
        joint += np.outer(rows, columns)
    joint /= len(points)
    full = joint > 0
    independent = np.outer(joint.sum(1), joint.sum(0))
    return float((joint[full] * np.log(joint[full] / independent[full])).sum())


@pytest.mark.parametrize("shapes", SHAPES)
def test_equals_a_loop_over_samples(shapes: tuple[tuple[int, int, int], tuple[int, int, int]]) -> None:
    case = make_case(shapes)
    assert mutual_information(*case).value == pytest.approx(compute_information(case), rel=1e-10, abs=1e-12)


def move(case: tuple[torch.Tensor, ...], motion: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Move both images by half, in opposite directions."""
    points, fixed, moving, *matrices = case
    whole = torch.cat([motion, torch.zeros(1, 4)]).double() / 2
    to_fixed, to_moving = (m @ (torch.eye(4) + sign * whole) for m, sign in zip(matrices, (-1, 1), strict=True))
    return points, fixed, moving, to_fixed, to_moving


@pytest.mark.parametrize("shapes", SHAPES[:2])
def test_the_gradient_is_the_limit_of_differences(
    shapes: tuple[tuple[int, int, int], tuple[int, int, int]],
) -> None:
    case = make_case(shapes, count=4000)
    expected, step = torch.zeros(3, 4, dtype=torch.float64), 1e-6
    for i, j in itertools.product(range(3), range(4)):
        motion = torch.zeros(3, 4, dtype=torch.float64)
        motion[i, j] = step
        up, down = (mutual_information(*move(case, sign * motion)).value for sign in (1, -1))
        expected[i, j] = (up - down) / (2 * step)
    # of 4000 samples a few cross a voxel boundary, where the slope jumps
    torch.testing.assert_close(mutual_information(*case).gradient, expected, rtol=2e-3, atol=2e-3)


def test_swapping_the_images_reverses_the_motion() -> None:
    points, fixed, moving, to_fixed, to_moving = make_case(SHAPES[0])
    one = mutual_information(points, fixed, moving, to_fixed, to_moving)
    other = mutual_information(points, moving, fixed, to_moving, to_fixed)
    torch.testing.assert_close(one.value, other.value)
    torch.testing.assert_close(one.gradient, -other.gradient)
    torch.testing.assert_close(one.information, other.information)


def test_the_information_is_the_mean_outer_product_of_scores() -> None:
    # the score of one sample, by the histogram of all: the derivative of its log-likelihood
    case = make_case(SHAPES[0], count=40)
    points, fixed, moving, to_fixed, to_moving = case
    found = mutual_information(*case)
    assert torch.linalg.eigvalsh(found.information).min() > -1e-12
    doubled = mutual_information(torch.cat([points, points]), fixed, moving, to_fixed, to_moving)
    torch.testing.assert_close(doubled.information, found.information)
    torch.testing.assert_close(doubled.gradient, found.gradient)


def test_images_that_are_constant_share_nothing() -> None:
    points, fixed, moving, to_fixed, to_moving = make_case(SHAPES[0])
    found = mutual_information(points, torch.full_like(fixed, 20.0), moving, to_fixed, to_moving)
    assert float(found.value) == pytest.approx(0, abs=1e-12)
    assert float(found.gradient.abs().max()) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("count", [1, 4097, 10_000])
def test_the_cpu_kernel_errs_at_most_twice_as_much_as_the_reference(
    shapes: tuple[tuple[int, int, int], tuple[int, int, int]], count: int
) -> None:
    points, fixed, moving, *matrices = make_case(shapes, count=count)
    exact = MutualInformation(*reference.mutual_information(points, fixed, moving, *matrices))
    single = tuple(each.float() for each in (points, fixed, moving))
    plain, fused = (MutualInformation(*module.mutual_information(*single, *matrices)) for module in (reference, cpu))
    for name in MutualInformation._fields:
        error, allowed = ((getattr(each, name) - getattr(exact, name)).abs().max() for each in (fused, plain))
        assert error <= 2 * allowed + 1e-5 * getattr(exact, name).abs().max() + 1e-6, name


def test_the_cpu_kernel_does_not_depend_on_the_threads() -> None:
    points, fixed, moving, *matrices = make_case(SHAPES[0], count=20_000)
    single = tuple(each.float() for each in (points, fixed, moving))
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(cpu.mutual_information(*single, *matrices))
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)
