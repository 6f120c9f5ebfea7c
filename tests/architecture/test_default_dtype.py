"""Nothing depends on the default type of the program around: results have the same bits for each of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convexadam
from convexadam import (
    Concat,
    ConvexSearch,
    Image,
    Intensity,
    MindSSC,
    Refinement,
    RegistrationConfig,
    preset,
    register,
)
from convexadam.continuous import BilateralSmoothing, Compositional, Level, VolumePreserving
from convexadam.data import phantom_pair
from convexadam.geometry import Grid, resample
from convexadam.registration import AutoForeground

SOURCE = Path(convexadam.__file__).parent
TYPES = (torch.float64, torch.float16, torch.bfloat16)
OF_NUMBERS = {f"torch.{name}" for name in ("empty", "eye", "full", "linspace", "ones", "rand", "randn", "zeros")}
SAMPLES = ("data", "viz")
"""Phantoms and figures, which follow the caller."""


@pytest.fixture(params=TYPES, ids=str)
def default(request: pytest.FixtureRequest) -> Iterator[torch.dtype]:
    before = torch.get_default_dtype()
    yield request.param
    torch.set_default_dtype(before)


def images() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    values = np.random.default_rng(0).normal(size=(24, 20, 22)).astype(np.float32)
    smooth = torch.nn.functional.avg_pool3d(torch.from_numpy(values)[None, None], 5, 1, 2)[0, 0]
    return smooth, smooth.roll(2, 0), (smooth > smooth.median()).to(torch.uint8)


FEW = (Level(spacing=2, iterations=3),)
CONFIGS = {
    "default": RegistrationConfig(),
    "published": preset("published"),
    "symmetric": RegistrationConfig(symmetric=True, linear=None, foreground=AutoForeground()),
    "volume": RegistrationConfig(
        linear=None, continuous=Refinement(levels=FEW, regularisers=(VolumePreserving(region="auto"),))
    ),
    "sliding": RegistrationConfig(
        linear=None,
        features=Concat(parts=(MindSSC(), Intensity())),
        discrete=ConvexSearch(spacing=4, radius=2),
        continuous=Refinement(levels=FEW, parametrisation=Compositional(total_smoothing=BilateralSmoothing())),
    ),
}
POINTS = np.array([[5.0, 6, 7], [12, 10, 9], [18, 12, 12]])


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.filterwarnings("ignore:masks and fields of view leave no control point")  # the mask is noise
def test_registrations(name: str, default: torch.dtype) -> None:
    fixed, moving, mask = images()
    config = CONFIGS[name]
    others: dict[str, Any] = {"fixed_mask": mask, "fixed_landmarks": POINTS, "moving_landmarks": POINTS + 1}
    if name == "sliding":
        others["sliding_regions"] = mask
    expected = register(fixed, moving, config, **others)
    torch.set_default_dtype(default)
    found = register(fixed, moving, config, **others)
    assert found.backend == expected.backend == "cpu"
    assert torch.equal(found.transform.disp_mm, expected.transform.disp_mm)
    assert torch.equal(found.moved.data, expected.moved.data)


def test_images_and_transforms(default: torch.dtype) -> None:
    fixed, moving, _ = images()
    result = register(fixed, moving, RegistrationConfig(linear=None, continuous=None))
    other = Grid((9, 11, 10)).with_spacing((2.0, 1.5, 2.5))

    def compute() -> list[torch.Tensor]:
        image = Image.from_array(moving)
        warped = [result.transform.warp(image, other, mode=mode).data for mode in ("linear", "cubic", "nearest")]
        inverse = result.transform.inverse()
        return [*warped, inverse.disp_mm, result.transform.jacobian(other), resample(image, other, antialias=True).data]

    expected = compute()
    torch.set_default_dtype(default)
    assert all(torch.equal(a, b) for a, b in zip(compute(), expected, strict=True))


def test_inputs_of_the_default_type_run_on_the_compiled_kernels(default: torch.dtype) -> None:
    pair = phantom_pair((24, 20, 22), displacement_mm=4.0)
    torch.set_default_dtype(default)
    fixed, moving = (image.data[0].to(default) for image in (pair.fixed, pair.moving))
    assert register(fixed, moving, RegistrationConfig(linear=None)).backend == "cpu"


def test_new_tensors_name_their_type() -> None:
    silent = []
    for path in sorted(SOURCE.rglob("*.py")):
        if path.relative_to(SOURCE).parts[0] in SAMPLES:
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        made = [c for c in calls if ast.unparse(c.func) in OF_NUMBERS]
        silent += [f"{path}:{c.lineno}" for c in made if "dtype" not in {k.arg for k in c.keywords}]
    assert not silent
