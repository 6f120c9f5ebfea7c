"""Nothing depends on the default device of the program around: data stays where its inputs are."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch

import convexadam
from convexadam import (
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    IsotropicGrid,
    RegistrationConfig,
    read_image,
    register,
    write_image,
)
from convexadam.features import Intensity
from convexadam.geometry import resample
from convexadam.io import (
    read_itk_field,
    read_landmarks,
    read_learn2reg,
    write_itk_field,
    write_landmarks,
    write_learn2reg,
)
from convexadam.metrics import evaluate_transform

SHAPE = (7, 9, 6)
SOURCE = Path(convexadam.__file__).parent
NAMES = ("arange", "as_tensor", "empty", "eye", "full", "linspace", "ones", "rand", "randn", "tensor", "zeros")
FACTORIES = {f"torch.{name}" for name in NAMES}


@pytest.fixture
def elsewhere() -> Iterator[None]:
    """On this device there are no values: whatever strays there cannot come back."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


def grid() -> Grid:
    return Grid(SHAPE, oracles.oblique_affine())


def field() -> DisplacementField:
    disp = np.random.default_rng(0).normal(size=(3, *SHAPE))
    return DisplacementField(torch.from_numpy(disp), grid())


def points() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).uniform(0, 5, (4, 3)))


@pytest.mark.usefixtures("elsewhere")
def test_fields_in_files(tmp_path: Path) -> None:
    write_itk_field(field(), tmp_path / "itk.nii.gz")
    write_learn2reg(field(), tmp_path / "learn2reg.npz")
    for found in (read_itk_field(tmp_path / "itk.nii.gz"), read_learn2reg(tmp_path / "learn2reg.npz", grid())):
        assert found.disp_mm.device.type == "cpu"
        np.testing.assert_allclose(found.disp_mm.numpy(), field().disp_mm.numpy(), atol=0.05)


@pytest.mark.usefixtures("elsewhere")
def test_images_and_landmarks_in_files(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    write_image(Image.from_array(values, grid().affine), tmp_path / "image.nii.gz")
    assert np.array_equal(read_image(tmp_path / "image.nii.gz").numpy(), values)
    write_landmarks(points(), tmp_path / "points.csv")
    assert read_landmarks(tmp_path / "points.csv").tolist() == points().tolist()


@pytest.mark.usefixtures("elsewhere")
def test_grids_and_transforms() -> None:
    assert np.allclose(grid().to_voxels(grid().to_mm(points())).numpy(), points().numpy())
    assert IsotropicGrid()(grid()).pooled((2, 2, 2)).n_voxels > 1
    for space in ("mm", "lps_mm", "fixed_voxel"):
        for given in (points(), points().numpy(), points().tolist()):
            moved = field().warp_points(given, space=space)
            assert moved.device.type == "cpu"
            assert bool(moved.isfinite().all())
    coarse = grid().with_spacing((2.0, 3.0, 4.0))
    assert bool(field().resample_onto(coarse).disp_mm.isfinite().all())
    assert bool((field().jacobian() != 1).any())


@pytest.mark.usefixtures("elsewhere")
def test_images_and_metrics() -> None:
    image = Image(torch.from_numpy(np.random.default_rng(0).normal(size=(1, *SHAPE))), grid())
    labels = Image((image.data > 0).to(torch.int16), grid())
    assert bool(resample(image, grid().with_spacing((2.0, 3.0, 4.0))).data.isfinite().all())
    assert bool(field().warp(image).canonical().data.isfinite().all())
    assert bool(Intensity()(image).isfinite().all())
    scores = evaluate_transform(
        field(),
        fixed_labels=labels,
        moving_labels=labels,
        fixed_landmarks_mm=points(),
        moving_landmarks_mm=points(),
        mask=labels,
    )
    assert scores["dice"] > 0


@pytest.mark.parametrize(
    "path",
    sorted(SOURCE.rglob("*.py")),
    ids=lambda path: path.relative_to(SOURCE).as_posix(),
)
def test_new_tensors_name_their_device(path: Path) -> None:
    calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
    made = [c for c in calls if ast.unparse(c.func) in FACTORIES]
    assert not [c.lineno for c in made if "device" not in {k.arg for k in c.keywords}]


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_registration(backend: Any) -> None:
    volumes = [
        torch.from_numpy(np.random.default_rng(seed).random((14, 13, 12), dtype=np.float32)) for seed in range(2)
    ]
    config = RegistrationConfig(discrete=ConvexSearch(spacing=4, radius=1), backend=backend)
    assert bool(register(*volumes, config).transform.disp_mm.isfinite().all())
