"""Kernels on a single slice: compiled ones err no more than torch, and nothing moves across it."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import oracles
import pytest
import torch
from budget import assert_within_budget

from convexadam import use_backend
from convexadam.kernels.bending import bending
from convexadam.kernels.bilateral import bilateral
from convexadam.kernels.cost_volume import cost_volume
from convexadam.kernels.diffusion import diffusion
from convexadam.kernels.invert import origins
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.kernels.lncc import prepare_lncc
from convexadam.kernels.mind_ssc import mind_ssc
from convexadam.kernels.mutual_information import mutual_information
from convexadam.kernels.smooth import smooth
from convexadam.kernels.warp import add_step
from convexadam.kernels.warp_ssd import prepare_ssd
from convexadam.kernels.window import Window

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is imported

pytestmark = pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLANE = (7, 6)


def slice_of(channels: int, axis: int, seed: int) -> torch.Tensor:
    """Noise ``[c, i, j, k]`` in a slice across an axis, the same in the plane whatever the axis."""
    return oracles.noise(channels, *PLANE, seed=seed, dtype=torch.float32).unsqueeze(axis + 1).contiguous()


def field_in_plane(axis: int, seed: int, scale: float = 0.8) -> torch.Tensor:
    """Displacements in the plane: 0 across it."""
    first, second = scale * oracles.noise(2, *PLANE, seed=seed, dtype=torch.float32).unsqueeze(axis + 1)
    across = torch.zeros_like(first)
    return torch.stack([(across, first, second), (first, across, second), (first, second, across)][axis])


def moments(axis: int) -> Callable[..., Any]:
    to_voxels = torch.eye(4, dtype=torch.float64)[:3]

    def run(fixed: torch.Tensor, moving: torch.Tensor) -> Any:
        points = oracles.uniform(50, 3, seed=5, high=5.0).to(fixed)
        points[:, axis] = 0
        return list(mutual_information(points, 10 + fixed[0].tanh(), 10 + moving[0].tanh(), to_voxels, to_voxels))

    return run


OPERATIONS: dict[str, Callable[[int], tuple[Callable[..., Any], tuple[torch.Tensor, ...]]]] = {
    "smooth": lambda a: (lambda u: smooth(u, (1.0, 2.0, 3.0, 2.0, 1.0)), (slice_of(3, a, 0),)),
    "add_step": lambda a: (lambda u, v: add_step(u, v, longest=0.5), (field_in_plane(a, 0), field_in_plane(a, 1))),
    "diffusion": lambda a: (diffusion, (field_in_plane(a, 0),)),
    "bending": lambda a: (bending, (field_in_plane(a, 0),)),
    "jacobian": lambda a: (jacobian_determinant, (field_in_plane(a, 0),)),
    "ssd": lambda a: (
        lambda f, m, u: prepare_ssd(f, m)(u, diffusion=0.3),
        (slice_of(3, a, 0), slice_of(3, a, 1), field_in_plane(a, 2)),
    ),
    "ssd curvature": lambda a: (
        lambda f, m, u: prepare_ssd(f, m).curvature(u),
        (slice_of(3, a, 0), slice_of(3, a, 1), field_in_plane(a, 2)),
    ),
    "lncc": lambda a: (
        lambda f, m, u: prepare_lncc(f, m)(u),
        (slice_of(1, a, 0), slice_of(1, a, 1), field_in_plane(a, 2)),
    ),
    "mind_ssc": lambda a: (lambda v: mind_ssc(v[0]), (slice_of(1, a, 0),)),
    "bilateral": lambda a: (
        lambda u, g: bilateral(u, g, sigma=1.0, sigma_guide=0.7, sigma_field=None, radius=1),
        (field_in_plane(a, 0), slice_of(1, a, 1)),
    ),
    "cost_volume": lambda a: (
        lambda f, m: cost_volume(f, m, Window(tuple(0 if b == a else 1 for b in range(3)))),  # type: ignore[arg-type]
        (slice_of(3, a, 0), slice_of(3, a, 1)),
    ),
    "mutual_information": lambda a: (moments(a), (slice_of(1, a, 0), slice_of(1, a, 1))),
}


def on(backend: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: torch.Tensor) -> Any:
        with use_backend(backend if args[0].dtype == torch.float32 else "reference"):
            return function(*args)

    return run


SLOW = ("bilateral", "cost_volume", "lncc", "mind_ssc")
"""When interpreted."""

CASES = [pytest.param("cpu", name, axis) for name in OPERATIONS for axis in range(3)] + [
    pytest.param("triton", name, 2, marks=[pytest.mark.long] if name in SLOW else []) for name in OPERATIONS
]


@pytest.mark.parametrize(("backend", "name", "axis"), CASES)
def test_compiled_kernels_err_no_more_than_torch(backend: str, name: str, axis: int) -> None:
    if backend == "triton":
        pytest.importorskip("triton")
    device = DEVICE if backend == "triton" else "cpu"
    function, args = OPERATIONS[name](axis)
    args = tuple(part.to(device) for part in args)
    assert_within_budget(on(backend, function), on("reference", function), *args, floor=5e-6)


@pytest.mark.parametrize("name", ["ssd", "lncc", "diffusion", "bending"])
def test_no_gradient_across_the_slice(name: str) -> None:
    for axis in range(3):
        function, args = OPERATIONS[name](axis)
        assert not bool(on("cpu", function)(*args)[1][axis].any())


@pytest.mark.parametrize("name", ["smooth", "add_step", "jacobian", "ssd", "lncc", "mind_ssc"])
def test_the_axis_across_does_not_matter(name: str) -> None:
    # torch in float64 on a slice across k, against the same slice across i: only the order of components changes
    results = []
    for axis in (0, 2):
        function, args = OPERATIONS[name](axis)
        found = on("reference", function)(*(part.double() for part in args))
        result = found[1] if isinstance(found, tuple) else found
        results.append(result.squeeze(result.ndim - 3 + axis))
    if name in ("add_step", "ssd", "lncc"):
        results = [results[0][[1, 2]], results[1][[0, 1]]]
    if name == "mind_ssc":  # pairs of neighbours come in another order, of which each slice has the same set
        results = [part.sort(0).values for part in results]
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_the_origin_of_a_point_stays_in_the_slice() -> None:
    field = field_in_plane(2, 0, scale=0.1)
    targets = torch.stack([*torch.meshgrid(torch.arange(7.0), torch.arange(6.0), indexing="ij")]).reshape(2, -1)
    targets = torch.cat([targets, torch.zeros_like(targets[:1])])
    for backend in ("reference", "cpu"):
        with use_backend(backend):  # type: ignore[arg-type]
            found, off = origins(field, targets, targets)
        assert not bool(found[2].any())
        assert float(off.abs().max()) < 1e-3
