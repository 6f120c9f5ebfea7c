"""Kernels on a pretended GPU give the numbers of the CPU, and recorded steps those of steps one by one."""

from __future__ import annotations

from typing import Any

import oracles
import pytest
import torch
from pretend import DEVICE, PretendedGpu

from convexadam import Intensity, RegistrationConfig, register
from convexadam.continuous import (
    Adam,
    BoxSmoothing,
    Compositional,
    Diffusion,
    GaussNewton,
    JointSsd,
    Level,
    LevenbergMarquardt,
    Part,
    Refinement,
    Ssd,
)
from convexadam.kernels.feature_level import FeatureLevel
from convexadam.kernels.landmarks import LandmarkPairs
from convexadam.kernels.recording import SWITCH

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore:.*TRITON_DEFAULT_FP_FUSION")]

SHAPE = (5, 4, 6)

ITERATIONS = 4
"""As few as are recorded."""

REFINEMENTS: dict[str, dict[str, Any]] = {  # first and second order, in place and composed, each with one smoothing at
    # most, which takes as long to interpret as all else
    "landmarks": {"optimiser": Adam(learning_rate=0.3), "update_smoothing": None},
    "compositional": {
        "parametrisation": Compositional(total_smoothing=BoxSmoothing(passes=1)),
        "regularisers": (Diffusion(weight=0.2),),
        "optimiser": LevenbergMarquardt(),
        "update_smoothing": None,
    },
    "robust": {
        "similarity": Ssd(robust_scale=1.0),
        "regularisers": (),
        "optimiser": LevenbergMarquardt(),
        "parametrisation": Compositional(total_smoothing=None),
    },
    "best": {  # its components, with small windows
        "similarity": JointSsd(
            parts=(
                Part(channels=1, weight=12.0, by_distance=True),
                Part(channels=2, radius=1, variance_floor=0.3),
            ),
            robust_scale=12.0,
        ),
        "regularisers": (),
        "optimiser": GaussNewton(momentum=0.4),
        "parametrisation": Compositional(total_smoothing=BoxSmoothing(passes=1)),
        "update_smoothing": BoxSmoothing(passes=1),
    },
}


def _smooth(channels: int, seed: int) -> torch.Tensor:
    coarse = oracles.noise(channels, 4, 4, 4, seed=seed, dtype=torch.float32)
    return torch.nn.functional.interpolate(coarse[None], size=SHAPE, mode="trilinear", align_corners=True)[0]


def _refine(settings: dict[str, Any], device: torch.device | str, *, landmarks: bool = False) -> torch.Tensor:
    refinement = Refinement(levels=(Level(iterations=ITERATIONS),), **settings)
    fixed, moving, start = (t.to(device) for t in (_smooth(2, 0), _smooth(2, 1), 0.3 * _smooth(3, 2)))
    pairs = LandmarkPairs(
        points=torch.tensor([[2.0, 2, 2], [4, 3, 5]], dtype=torch.float64),
        displacements=torch.tensor([[0.5, 0, 0], [0, 0.5, 0]], dtype=torch.float64),
        weights=torch.ones(2, dtype=torch.float64),
        sigma=(1.0, 1.0, 1.0),
    )
    level = FeatureLevel(fixed=fixed, moving=moving, landmarks=pairs if landmarks else None)
    with torch.no_grad():
        return refinement.refine_level(level, start).cpu()


@pytest.mark.parametrize("name", REFINEMENTS)
def test_recorded_steps_are_those_one_by_one_and_those_of_the_cpu(
    interpreted: PretendedGpu, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    settings, landmarks = REFINEMENTS[name], name == "landmarks"
    recorded = _refine(settings, DEVICE, landmarks=landmarks)
    assert interpreted.record.launches["replay"] == ITERATIONS - 1
    monkeypatch.setenv(SWITCH, "0")
    plain = _refine(settings, DEVICE, landmarks=landmarks)
    assert interpreted.record.launches["replay"] == ITERATIONS - 1
    assert interpreted.record.faults() == []
    on_cpu = _refine(settings, "cpu", landmarks=landmarks)
    assert (plain - 0.3 * _smooth(3, 2)).abs().max() > 0.02  # there is something to find
    torch.testing.assert_close(recorded, plain, rtol=0, atol=1e-5)
    assert (plain - on_cpu).norm(dim=0).mean() < 5e-3


def test_a_registration_gives_the_field_of_the_cpu(interpreted: PretendedGpu) -> None:
    config = RegistrationConfig(
        linear=None,
        features=Intensity(),
        discrete=None,  # whose kernels take a minute to interpret, and have tests of their own
        continuous=Refinement(
            levels=(Level(spacing=2, iterations=ITERATIONS),),
            parametrisation=Compositional(),
            optimiser=LevenbergMarquardt(),
            regularisers=(),
        ),
    )
    fixed = torch.nn.functional.interpolate(
        oracles.noise(1, 1, 5, 5, 5, dtype=torch.float32), size=(10, 9, 8), mode="trilinear"
    )[0, 0]
    volumes = fixed, fixed.roll(1, 0)
    on_gpu, on_cpu = (register(*(v.to(device) for v in volumes), config) for device in (DEVICE, "cpu"))
    assert on_gpu.backend == "triton"
    assert interpreted.record.faults() == []
    apart = (on_gpu.transform.disp_mm.cpu() - on_cpu.transform.disp_mm).norm(dim=0)
    assert on_cpu.transform.disp_mm.abs().max() > 0.3
    assert apart.mean() <= 0.02
    assert apart.max() <= 0.3
    # half precision rounds intensities by up to a hundredth of their local differences, and so steps by as much
    allowed = 0.02 * on_cpu.diagnostics["dissimilarity_before"]
    for name in ("dissimilarity_before", "dissimilarity_after"):
        assert on_gpu.diagnostics[name] == pytest.approx(on_cpu.diagnostics[name], abs=allowed)
