"""Nothing depends on the default device of the program around: data stays where its inputs are."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import oracles
import pytest
import torch

import convexadam
from convexadam import (
    Affine,
    Composite,
    ConvexSearch,
    DisplacementField,
    Grid,
    Image,
    IsotropicGrid,
    RegistrationConfig,
    compose,
    read_image,
    read_transform,
    register,
    write_image,
    write_transform,
)
from convexadam.data import phantom_pair
from convexadam.features import FeatureInput, Intensity, LabelFeatures, ProbabilityFeatures
from convexadam.geometry import Transform, resample
from convexadam.io import (
    read_itk_field,
    read_landmarks,
    read_learn2reg,
    write_itk_field,
    write_landmarks,
    write_learn2reg,
)
from convexadam.linear import LinearAlignment
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
    assert np.allclose(grid().world_to_index(grid().index_to_world(points())).numpy(), points().numpy())
    assert IsotropicGrid()(grid()).pool((2, 2, 2)).n_voxels > 1
    for space in ("mm", "lps_mm", "fixed_voxel"):
        for given in (points(), points().numpy(), points().tolist()):
            moved = field().warp_points(given, space=space)
            assert moved.device.type == "cpu"
            assert bool(moved.isfinite().all())
    coarse = grid().with_spacing((2.0, 3.0, 4.0))
    assert bool(field().to_displacement_field(coarse).disp_mm.isfinite().all())
    assert bool((field().jacobian() != 1).any())


def shifted() -> np.ndarray:
    """A matrix that turns a little about the centre of the grid, and shifts."""
    centre = oracles.mm_of_voxels(grid().affine, SHAPE).reshape(3, -1).mean(1)
    matrix = oracles.oblique_affine((1.0, 1.1, 0.9), degrees=(5, -3, 8))
    matrix[:3, 3] = centre - matrix[:3, :3] @ centre + (0.5, -1.0, 2.0)
    return matrix


TRANSFORMS: dict[str, Callable[[], Transform]] = {
    "affine": lambda: Affine(shifted()),
    "affine of a list": lambda: Affine(shifted().tolist()),
    "field": field,
    "field in voxels": lambda: DisplacementField.from_voxels(field().to_voxels(), grid()),
    "composite": lambda: Composite((Affine(shifted()), field())),
    "composed": lambda: compose(Affine(shifted()), Affine(), field(), Affine(shifted())),
}


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform(name: str) -> None:
    transform = TRANSFORMS[name]()
    other = grid().with_spacing((2.0, 3.0, 4.0))
    moved = [transform.jacobian(grid()), transform.to_displacement_field(other).disp_mm, transform(points())]
    for space, grids in (
        ("mm", {}),
        ("lps_mm", {}),
        ("voxel", {"fixed": grid(), "moving": other}),
        ("fixed_voxel", {"fixed": grid()}),
    ):
        for given in (points(), points().numpy(), points().tolist()):
            moved.append(transform.warp_points(given, space=space, **grids))
    for values in moved:
        assert values.device.type == "cpu"
        assert bool(values.isfinite().all())
    assert "nan" not in repr(transform)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("mode", [None, "linear", "cubic", "nearest", "label"])
def test_images_warped_by_every_transform(name: str, mode: Any) -> None:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (2, *SHAPE)))
    other = grid().with_spacing((2.0, 3.0, 4.0))
    for data in (values.float(), values.double(), values.to(torch.int16)):
        for onto in (grid(), other, Image(torch.from_numpy(np.zeros((1, *other.shape))), other)):
            found = TRANSFORMS[name]().warp(Image(data, grid()), onto, mode=mode).data
            assert found.device.type == "cpu"
            assert bool((found > 0).any())


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", ["affine", "field", "composite"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverses(name: str, dtype: torch.dtype) -> None:
    calm = DisplacementField((0.1 * field().disp_mm).to(dtype), grid())  # folds nowhere
    transform = {"affine": Affine(shifted()), "field": calm, "composite": Composite((Affine(shifted()), calm))}[name]
    inverse = transform.inverse()
    back = inverse(transform(points()))
    assert back.device.type == "cpu"
    assert bool(back.isfinite().all())
    if isinstance(transform, DisplacementField):
        other = grid().with_spacing((2.0, 3.0, 4.0))
        assert transform.inverse(other).disp_mm.device.type == "cpu"


WITHOUT_EXTRAS = [
    ("itk", "a.nii.gz"),
    ("nifti", "a.nii.gz"),
    ("learn2reg", "a.npz"),
    ("learn2reg", "a.nii.gz"),
    ("learn2reg-2021", "a.npz"),
    ("torch", "a.pt"),
    ("fsl", "a.nii.gz"),
    ("fsl", "a.mat"),
]


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("kind", "file"), WITHOUT_EXTRAS)
def test_transforms_in_files(kind: Any, file: str, tmp_path: Path) -> None:
    moving = grid().with_spacing((2.0, 3.0, 4.0))
    for transform in (
        (Affine(shifted()),) if file == "a.mat" else (Affine(shifted()), field(), TRANSFORMS["composed"]())
    ):
        write_transform(transform, tmp_path / file, format=kind, fixed=grid(), moving=moving)
        for device in (None, "cpu"):
            found = read_transform(tmp_path / file, format=kind, fixed=grid(), moving=moving, device=device)
            if kind != "learn2reg-2021":  # which blurs
                wanted = transform.to_displacement_field(grid()).disp_mm
                # Half precision of up to 64 voxels of at most 2.1 mm, or float32.
                close = 0.07 if file.endswith(".npz") else 1e-4
                assert (found.to_displacement_field(grid()).disp_mm - wanted).abs().max() <= close
            assert found(points()).device.type == "cpu"


@pytest.mark.usefixtures("elsewhere")
def test_transforms_in_files_of_itk(tmp_path: Path) -> None:
    pytest.importorskip("SimpleITK")
    write_transform(TRANSFORMS["composed"](), tmp_path / "a.h5")
    found = read_transform(tmp_path / "a.h5")(points())
    torch.testing.assert_close(found, TRANSFORMS["composed"]()(points()))


@pytest.mark.usefixtures("elsewhere")
def test_linear_alignment() -> None:
    pair = phantom_pair((28, 24, 20), displacement_mm=5.0)
    moving = Image(pair.moving.data, Grid(pair.moving.grid.shape, shifted() @ pair.moving.grid.affine))
    fit = LinearAlignment(voxels_per_level=(5000,), iterations=1)(pair.fixed, moving)
    assert np.isfinite(fit.transform.matrix).all()


@pytest.mark.usefixtures("elsewhere")
def test_images_and_metrics() -> None:
    image = Image(torch.from_numpy(np.random.default_rng(0).normal(size=(1, *SHAPE))), grid())
    labels = Image((image.data > 0).to(torch.int16), grid())
    assert bool(resample(image, grid().with_spacing((2.0, 3.0, 4.0))).data.isfinite().all())
    assert bool(field().warp(image).canonical().data.isfinite().all())
    assert bool(Intensity()(image).isfinite().all())
    soft = Image(torch.cat([labels.data == 0, labels.data == 1]).float(), image.grid)
    for features, given in ((LabelFeatures(), labels), (ProbabilityFeatures(logits=True), soft)):
        scan = FeatureInput(image=image, weight=torch.ones_like(image.data[0]).float(), segmentation=given)
        ((described, _),) = features.extract_pair(scan, scan, ((2, 2, 2),))
        assert described.device.type == "cpu"
        assert bool(described.isfinite().all())
    scores = evaluate_transform(
        field(),
        fixed_labels=labels,
        moving_labels=labels,
        fixed_landmarks_mm=points(),
        moving_landmarks_mm=points(),
        mask=labels,
    )
    assert scores["dice"] > 0


def test_new_tensors_name_their_device() -> None:
    silent = []
    for path in sorted(SOURCE.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        made = [c for c in calls if ast.unparse(c.func) in FACTORIES]
        silent += [f"{path}:{c.lineno}" for c in made if "device" not in {k.arg for k in c.keywords}]
    assert not silent


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("backend", ["auto", pytest.param("reference", marks=pytest.mark.long)])
def test_a_registration(backend: Any) -> None:
    volumes = [
        torch.from_numpy(np.random.default_rng(seed).random((14, 13, 12), dtype=np.float32)) for seed in range(2)
    ]
    config = RegistrationConfig(discrete=ConvexSearch(spacing=4, radius=1), backend=backend)
    assert bool(register(*volumes, config).transform.disp_mm.isfinite().all())
