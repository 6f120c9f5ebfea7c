"""Whatever runs on a GPU runs on the device of its tensors alone, and needs no other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pretend import DEVICE, PretendedGpu
from settings import CONTRASTS, make_best

from convexadam import (
    Affine,
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    Intensity,
    LandmarkTerm,
    RegistrationConfig,
    compose,
    preset,
    register,
)
from convexadam.continuous import (
    Adam,
    Additive,
    Bending,
    BilateralSmoothing,
    Compositional,
    Diffusion,
    GaussNewton,
    JointSsd,
    Level,
    LevenbergMarquardt,
    Lncc,
    Part,
    Refinement,
    Ssd,
    StationaryVelocity,
    VolumePreserving,
    WeightedSum,
)
from convexadam.data import phantom_pair
from convexadam.features import LabelFeatures
from convexadam.linear import refinement
from convexadam.metrics import evaluate_transform

SHAPE = (24, 22, 20)
GRID = Grid(SHAPE, np.diag([1.5, 1, 1, 1]))

PARAMETRISATIONS = (Additive(), Compositional(), StationaryVelocity())
OPTIMISERS = (Adam(), GaussNewton(momentum=0.4), LevenbergMarquardt())
SIMILARITIES: dict[str, Any] = {
    "ssd": Ssd(),
    "robust": Ssd(robust_scale=1.0),
    "lncc": Lncc(),
    "joint": JointSsd(parts=(Part(channels=12, radius=2), Part(channels=1, by_distance=True)), robust_scale=1.0),
    "sum": WeightedSum(terms=(Lncc(), Ssd(robust_scale=1.0)), weights=(1.0, 0.5)),
}


def _volume(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(*(shape or SHAPE), generator=torch.Generator().manual_seed(seed))


def _quick(**changes: Any) -> RegistrationConfig:
    refinement = Refinement(levels=(Level(spacing=2, iterations=6),))
    config = RegistrationConfig(linear=None, discrete=ConvexSearch(spacing=4, radius=1), continuous=refinement)
    return dataclasses.replace(config, **changes)


def _register(gpu: PretendedGpu, config: RegistrationConfig, **options: Any) -> DisplacementField:
    fixed, moving = (Image(_volume(seed)[None].to(DEVICE), GRID) for seed in range(2))
    result = register(fixed, moving, config, **options)
    assert result.backend == "triton"
    assert result.transform.disp_mm.device == DEVICE
    assert gpu.record.faults() == []
    return result.transform


@pytest.mark.parametrize("name", ["published", "default"])
def test_presets(counted: PretendedGpu, name: str) -> None:
    _register(counted, preset(name))


@pytest.mark.parametrize("contrasts", CONTRASTS)
def test_best(counted: PretendedGpu, contrasts: str) -> None:
    _register(counted, make_best(contrasts))
    # intensities are normalised for the decision, and with one contrast on each level as well
    normalised = counted.record.launches["local_normalisation._normalise"]
    assert normalised == 2 + {"one": 8, "different": 4}[contrasts]


@pytest.mark.parametrize(
    ("name", "masked"), [("rigid", False), ("similarity", False), ("affine", False), ("affine", True)]
)
def test_linear_presets(counted: PretendedGpu, name: str, masked: bool) -> None:
    fixed = Image(_volume(0)[None].to(DEVICE), GRID)
    moving = Image(_volume(0)[None].to(DEVICE), Grid(SHAPE, np.diag([1.5, 1, 1, 1]) + np.eye(4, k=3)))
    masks = {f"{side}_mask": _volume(2).to(DEVICE) for side in ("fixed", "moving")} if masked else {}
    result = register(fixed, moving, preset(name), **masks)
    assert result.backend == "triton"
    assert isinstance(result.transform, Affine)
    assert result.moved.data.device == DEVICE
    assert counted.record.faults() == []
    launches = sum(counted.record.operations.values()) + sum(counted.record.launches.values())
    assert launches <= 3000 + 1000 * masked
    assert counted.record.launches["mutual_information._add_joint"] > 0


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")
def test_a_refinement_is_that_of_the_cpu(interpreted: PretendedGpu, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "_SAMPLES", (96, 96))  # which takes seconds to interpret
    monkeypatch.setattr(refinement, "_ITERATIONS", 4)
    fixed = phantom_pair(SHAPE, displacement_mm=0.0).fixed
    moved = np.eye(4)
    moved[:3, 3] = 0.4 * np.array(fixed.grid.spacing_mm)
    moving = Image(fixed.data + _volume(1)[None], Grid(SHAPE, moved @ fixed.grid.affine))
    found = []
    for device in (torch.device("cpu"), DEVICE):
        images, finest_mm = (fixed.to(device), moving.to(device)), min(fixed.grid.spacing_mm)
        refined = refinement.refine_transform(images, (None, None), [np.eye(4)], model="rigid", coarsest_mm=finest_mm)
        found.append(refined)
    corner_mm = np.array([*SHAPE, 1.0]) @ fixed.grid.affine.T
    assert np.linalg.norm(found[1].matrix @ corner_mm - corner_mm) > 0.1 * min(fixed.grid.spacing_mm)
    np.testing.assert_allclose(
        found[1].matrix @ corner_mm, found[0].matrix @ corner_mm, atol=0.02 * min(fixed.grid.spacing_mm)
    )
    assert found[1].after == pytest.approx(found[0].after, rel=1e-3)
    assert interpreted.record.faults() == []
    assert sum(interpreted.record.waits.values()) > 0


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("parametrisation", PARAMETRISATIONS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda o: type(o).__name__)
def test_refinements(counted: PretendedGpu, similarity: str, parametrisation: Any, optimiser: Any) -> None:
    refinement = Refinement(
        levels=(Level(spacing=2, iterations=6),),
        similarity=SIMILARITIES[similarity],
        parametrisation=parametrisation,
        optimiser=optimiser,
        regularisers=(Diffusion(weight=0.1), Bending(weight=0.1)),
    )
    _register(counted, _quick(continuous=refinement))
    assert counted.record.launches["replay"] == 5  # the first step compiles, and the others are recorded


OPTIONS: dict[str, Callable[[], tuple[RegistrationConfig, dict[str, Any]]]] = {
    "masks": lambda: (_quick(), {"fixed_mask": (_volume(2) > 0.2).to(DEVICE), "moving_mask": _volume(3).to(DEVICE)}),
    "landmarks": lambda: (
        _quick(landmarks=LandmarkTerm()),
        {"fixed_landmarks": 10 * _volume(4, 5, 3).to(DEVICE), "moving_landmarks": 10 * _volume(5, 5, 3).to(DEVICE)},
    ),
    "symmetric": lambda: (_quick(symmetric=True), {}),
    "linear": lambda: (_quick(linear=RegistrationConfig().linear), {}),
    "intensities": lambda: (_quick(continuous_features=Intensity()), {}),
    "segmentations": lambda: (
        _quick(features=LabelFeatures()),
        {f"{name}_segmentation": (3 * _volume(6)).int().to(DEVICE) for name in ("fixed", "moving")},
    ),
    "initial transform": lambda: (
        _quick(),
        {"initial_transform": DisplacementField(_volume(7, 3, *SHAPE).to(DEVICE), GRID)},
    ),
    "edges": lambda: (
        _quick(
            continuous=Refinement(
                levels=(Level(spacing=2, iterations=6),),
                parametrisation=Compositional(total_smoothing=BilateralSmoothing()),
            )
        ),
        {"sliding_regions": (2 * _volume(8)).int().to(DEVICE)},
    ),
    "volume": lambda: (
        _quick(
            continuous=Refinement(
                levels=(Level(spacing=2, iterations=6),), regularisers=(VolumePreserving(), Diffusion())
            )
        ),
        {"volume_preserving_mask": (_volume(9) > 0.7).to(DEVICE)},
    ),
    "tolerance": lambda: (
        _quick(continuous=Refinement(levels=(Level(spacing=2, iterations=12),), tolerance=0.01)),
        {},
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options(counted: PretendedGpu, name: str) -> None:
    config, options = OPTIONS[name]()
    _register(counted, config, **options)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int16, torch.uint8])
def test_types_of_images(counted: PretendedGpu, dtype: torch.dtype) -> None:
    fixed, moving = ((100 * _volume(seed)).to(dtype).to(DEVICE) for seed in range(2))
    assert register(fixed, moving, _quick()).transform.disp_mm.device == DEVICE
    assert counted.record.faults() == []


def test_what_follows_a_registration(counted: PretendedGpu) -> None:
    smooth = torch.nn.functional.interpolate(_volume(1, 1, 3, 4, 4, 4), size=SHAPE, mode="trilinear")[0]
    field = DisplacementField(smooth.to(DEVICE), GRID)
    image, labels = Image(_volume(2)[None].to(DEVICE), GRID), Image((3 * _volume(3)[None]).int().to(DEVICE), GRID)
    for mode in ("linear", "cubic", "nearest"):
        assert field.warp(image, mode=mode).data.device == DEVICE
    assert field.warp(labels).data.device == DEVICE
    assert field.inverse().disp_mm.device == DEVICE
    assert compose(field, field).to_displacement_field(GRID).disp_mm.device == DEVICE
    assert field.jacobian().data.device == DEVICE
    scores = evaluate_transform(
        field,
        fixed_labels=labels,
        moving_labels=labels,
        fixed_landmarks_mm=_volume(4, 5, 3),
        moving_landmarks_mm=_volume(5, 5, 3),
    )
    assert scores["dice"] > 0
    assert counted.record.faults() == []


def test_what_the_host_waits_for(counted: PretendedGpu) -> None:
    field = DisplacementField(torch.full((3, *SHAPE), 0.4).to(DEVICE), GRID)
    image, labels = Image(_volume(2)[None].to(DEVICE), GRID), Image((3 * _volume(3)[None]).int().to(DEVICE), GRID)
    allowed = {  # an inverse tells its error, and whether it is finite
        "warp": (lambda: field.warp(image), 0),
        "labels": (lambda: field.warp(labels), 0),
        "jacobian": (field.jacobian, 0),
        "inverse": (field.inverse, 3),
    }
    for name, (run, waits) in allowed.items():
        counted.record.start()
        run()
        assert sum(counted.record.waits.values()) + sum(counted.record.copies_to_device.values()) <= waits, name


def test_faults_are_seen(counted: PretendedGpu) -> None:
    ours, theirs = torch.ones(3).to(DEVICE), torch.ones(3)
    ours + 2.0
    ours + torch.tensor(2.0)  # a number on the CPU is passed by value
    assert counted.record.faults() == []
    ours + theirs
    assert len(counted.record.faults()) == 1
    assert bool((ours > 0).any())
    assert ours.cpu().sum() == 3
    assert sum(counted.record.waits.values()) == 2
    torch.zeros(2, device="cuda")
    assert len(counted.record.faults()) == 2
