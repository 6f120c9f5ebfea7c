"""Derivatives of what networks are trained through, against finite differences in float64, and batches of volumes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from convexadam import Affine, ConvexSearch, DisplacementField, Grid, Image, Intensity, MindSSC, compose
from convexadam.continuous import Bending, Diffusion, Lncc, Ssd, VolumePreserving
from convexadam.discrete import Window, cost_volume, coupled_convex, soft_displacement
from convexadam.geometry import jacobian_determinant, resample
from convexadam.kernels.mind_ssc import mind_ssc, pooled_mind_ssc
from convexadam.kernels.warp import add_step, sample_linear

SHAPE = (4, 3, 5)
GRID = Grid(SHAPE)
OTHER = Grid((3, 3, 3)).with_spacing((1.3, 1.1, 1.4))
TURNED = Affine([[1, 0.1, 0, 0.3], [-0.1, 1, 0, 0.2], [0, 0, 1, 0.1], [0, 0, 0, 1]])
MAPS, FIELD, VOLUME = (2, *SHAPE), (3, *SHAPE), SHAPE


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHT = (numbers(*SHAPE, seed=9) > 0.3).double()


def compare(similarity: Any, fixed: torch.Tensor, moving: torch.Tensor, displacement: torch.Tensor) -> torch.Tensor:
    start = torch.full_like(displacement, 0.2).detach()
    value: torch.Tensor = similarity.prepare(fixed, moving, start, (None, None))(displacement)[0]
    return value


CASES: dict[str, tuple[Callable[..., torch.Tensor], tuple[tuple[int, ...], ...]]] = {
    "mind_ssc": (lambda v: mind_ssc(v, radius=1, dilation=2), (VOLUME,)),
    "weighted mind_ssc": (lambda v: mind_ssc(v, radius=0, dilation=1, weight=WEIGHT), (VOLUME,)),
    "pooled_mind_ssc": (lambda v: pooled_mind_ssc(v, ((2, 1, 2),), dilation=1)[0], (VOLUME,)),
    "MindSSC": (lambda v: MindSSC()(Image(v, GRID)), ((1, *SHAPE),)),
    "Intensity": (lambda v: Intensity()(Image(v, GRID)), ((1, *SHAPE),)),
    "cost_volume": (lambda f, m: cost_volume(f, m, Window((1, 2, 1), ball=True)), (MAPS, MAPS)),
    "weighted cost_volume": (
        lambda f, m: cost_volume(f, m, Window((1, 1, 1)), fixed_weight=WEIGHT, moving_weight=WEIGHT.flip(0)),
        (MAPS, MAPS),
    ),
    "soft_displacement": (lambda c: soft_displacement(c, Window((1, 1, 1)), sharpness=3.0), ((27, *SHAPE),)),
    "coupled_convex": (lambda c: coupled_convex(c, Window((1, 1, 1)), parabolic_fit=True), ((27, *SHAPE),)),
    "ConvexSearch": (ConvexSearch(spacing=1, radius=1, inverse_consistency=2), (MAPS, MAPS)),
    "sample_linear": (lambda v, p: sample_linear(v, 2 * p), (MAPS, (3, 2, 3, 2))),
    "add_step": (lambda u, v: add_step(u, v, longest=0.5), (FIELD, FIELD)),
    "jacobian_determinant": (jacobian_determinant, (FIELD,)),
    "warp": (lambda u, v: DisplacementField(u, GRID).warp(Image(v, GRID)).data, (FIELD, (1, *SHAPE))),
    "cubic warp": (
        lambda u, v: DisplacementField(u, GRID).warp(Image(v, GRID), mode="cubic").data,
        (FIELD, (1, *SHAPE)),
    ),
    "composed": (lambda u: compose(TURNED, DisplacementField(u, GRID)).to_displacement_field(OTHER).disp_mm, (FIELD,)),
    "jacobian": (lambda u: DisplacementField(u, GRID).jacobian(), (FIELD,)),
    "points": (lambda u, p: DisplacementField(u, GRID)(2 * p), (FIELD, (4, 3))),
    "resample": (lambda v: resample(Image(v, GRID), OTHER, antialias=True).data, ((1, *SHAPE),)),
    "Ssd": (lambda f, m, u: compare(Ssd(), f, m, 0.4 * u), (MAPS, MAPS, FIELD)),
    "Lncc": (lambda f, m, u: compare(Lncc(radius=1), f, m, 0.4 * u), (MAPS, MAPS, FIELD)),
    "robust Ssd": (lambda u: compare(Ssd(robust_scale=1.0), numbers(*MAPS), numbers(*MAPS, seed=1), 0.4 * u), (FIELD,)),
    "Diffusion": (lambda u: Diffusion()(u)[0], (FIELD,)),
    "Bending": (lambda u: Bending()(u)[0], (FIELD,)),
    "VolumePreserving": (lambda u: VolumePreserving()(0.3 * u)[0], (FIELD,)),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives(name: str) -> None:
    function, shapes = CASES[name]
    inputs = [numbers(*shape, seed=n).requires_grad_() for n, shape in enumerate(shapes)]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("name", CASES)
def test_gradients_in_float32_are_those_in_float64(name: str) -> None:
    function, shapes = CASES[name]
    gradients = []
    for dtype in (torch.float32, torch.float64):
        inputs = [numbers(*shape, seed=n).to(dtype).requires_grad_() for n, shape in enumerate(shapes)]
        if name in ("weighted mind_ssc", "weighted cost_volume", "robust Ssd") and dtype == torch.float32:
            pytest.skip("its other arguments are float64")
        function(*inputs).square().sum().backward()
        gradients.append([g for i in inputs if (g := i.grad) is not None])
        assert len(gradients[-1]) == len(inputs)
    for single, double in zip(*gradients, strict=True):
        assert (single.double() - double).abs().max() <= 1e-3 * double.abs().max()


BATCHES: dict[str, tuple[Callable[..., torch.Tensor], tuple[tuple[int, ...], ...]]] = {
    "mind_ssc": (mind_ssc, (VOLUME,)),
    "cost_volume": (lambda f, m: cost_volume(f, m, Window((1, 1, 1)), fixed_weight=WEIGHT), (MAPS, MAPS)),
    "soft_displacement": (lambda c: soft_displacement(c, Window((1, 1, 1))), ((27, *SHAPE),)),
    "sample_linear": (sample_linear, (MAPS, FIELD)),
    "jacobian_determinant": (jacobian_determinant, (FIELD,)),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches(name: str) -> None:
    function, shapes = BATCHES[name]
    inputs = [numbers(3, *shape, seed=n) for n, shape in enumerate(shapes)]
    expected = torch.stack([function(*parts) for parts in zip(*inputs, strict=True)])
    assert torch.equal(function(*inputs), expected)


def test_a_network_learns_a_translation_through_the_search() -> None:
    """One number, the contrast of the features, is trained until the displacement is that of the truth."""
    fixed = numbers(2, 8, 8, 8)
    moving = fixed.roll(1, 1)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    losses = []
    for _ in range(10):
        costs = cost_volume(scale * fixed, scale * moving, Window((1, 1, 1)))
        found = soft_displacement(costs, Window((1, 1, 1)), sharpness=5.0)[:, 2:-2, 2:-2, 2:-2]
        loss = (found[0] - 1).square().mean()
        (slope,) = torch.autograd.grad(loss, scale)
        with torch.no_grad():
            scale -= 2 * slope
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


def test_as_many_costs_as_displacements() -> None:
    with pytest.raises(ValueError, match="costs must be those of 27 displacements, got 26"):
        soft_displacement(numbers(26, 2, 2, 2), Window((1, 1, 1)))
