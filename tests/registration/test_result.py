"""The result of a registration, its report, and how a registration behaves in other programs."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import oracles
import pytest
import torch

from convexadam import (
    Concat,
    ConfigError,
    ConvexAdamError,
    ConvexSearch,
    DisplacementField,
    FileError,
    Grid,
    Image,
    Intensity,
    IsotropicGrid,
    MindSSC,
    NativeGrid,
    OutOfMemoryError,
    Precomputed,
    Refinement,
    RegistrationConfig,
    RegistrationResult,
    register,
    write_image,
)
from convexadam.continuous import Level
from convexadam.data import phantom_pair
from convexadam.metrics import evaluate_transform
from convexadam.registration.pipeline import measure_field

SEARCH = ConvexSearch(spacing=3, radius=2)
QUICK = RegistrationConfig(discrete=SEARCH, continuous=Refinement(levels=(Level(iterations=5),)))
STAGES = ["linear", "resample", "features", "discrete", "continuous", "finish"]


@pytest.fixture(scope="module")
def images() -> tuple[Image, Image]:
    """A torso on two different oblique grids, displaced in the second."""
    affine = np.array([[0, 0.6, -12.0, 110], [-14, 0.2, 0.5, 130], [0.3, 16.0, 0.5, -120], [0, 0, 0, 1]])
    pair = phantom_pair((24, 20, 30), affine=affine, displacement_mm=20.0, noise=0.2)
    cut = Grid((22, 20, 27), pair.moving.grid.affine @ np.array(np.diag([1.0] * 4) + np.eye(4, k=3)))
    return pair.fixed, Image(pair.moving.data[:, 1:23, :, :27], cut)


@pytest.fixture(scope="module")
def result(images: tuple[Image, Image]) -> RegistrationResult:
    return register(*images, QUICK)


def test_moved_is_the_moving_image_through_the_transform(
    result: RegistrationResult, images: tuple[Image, Image]
) -> None:
    assert result.moved.grid.is_close(images[0].grid)
    assert torch.equal(result.moved.data, result.transform.warp(images[1]).data)
    assert not torch.equal(result.moved.data, images[1].data)
    assert torch.equal(result.moving.data, images[1].data)
    assert torch.equal(result.fixed.data, images[0].data)


def test_the_transform_lies_on_the_fixed_grid(result: RegistrationResult, images: tuple[Image, Image]) -> None:
    grid = images[0].grid
    assert result.transform.grid.shape == grid.shape
    np.testing.assert_array_equal(result.transform.grid.affine, grid.affine)
    assert result.transform.disp_mm.shape == (3, *grid.shape)
    assert result.transform.disp_mm.dtype == torch.float32
    assert bool(result.transform.disp_mm.isfinite().all())


@pytest.mark.parametrize("grid", [NativeGrid(), IsotropicGrid(spacing_mm=9.0), IsotropicGrid(max_voxels=2000)])
def test_the_grid_of_the_transform_does_not_depend_on_the_working_grid(grid: Any, images: tuple[Image, Image]) -> None:
    config = RegistrationConfig(grid=grid, discrete=SEARCH, continuous=None)
    transform = register(*images, config).transform
    np.testing.assert_array_equal(transform.grid.affine, images[0].grid.affine)
    assert transform.disp_mm.shape == (3, *images[0].grid.shape)


def test_the_displacement_is_within_the_range_of_the_search(images: tuple[Image, Image]) -> None:
    found = register(
        *images, RegistrationConfig(grid=NativeGrid(), linear=None, discrete=SEARCH, continuous=None)
    ).transform
    assert float(found.to_voxels().abs().max()) <= 3 * 2.5 + 1e-3  # two control points of three voxels, and half of one
    assert float(found.to_voxels().abs().max()) > 0.2


def test_the_report_is_json(result: RegistrationResult, images: tuple[Image, Image]) -> None:
    report = result.summary()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert set(report) == {
        *("config", "settings_toml", "timings", "linear", "diagnostics", "fixed", "moving", "device", "backend"),
        "versions",
    }
    assert RegistrationConfig.from_toml(report["settings_toml"]) == result.config
    assert report["config"]["discrete"]["type"] == "ConvexSearch"
    assert report["config"]["discrete"]["spacing"] == 3
    assert report["config"]["continuous"]["update_smoothing"] == {"type": "BoxSmoothing", "width": 3, "passes": 3}
    assert report["config"]["continuous"]["final_smoothing"] is None
    assert report["device"] == "cpu"
    assert report["backend"] == "cpu"
    assert set(report["versions"]) == {"convexadam", "torch", "numpy", "python"}
    assert report["versions"]["torch"] == torch.__version__
    assert report["versions"]["numpy"] == np.__version__
    assert report["fixed"]["shape"] == [24, 20, 30]
    assert report["moving"]["shape"] == [22, 20, 27]
    assert report["fixed"]["orientation"] == images[0].grid.orientation
    np.testing.assert_array_equal(report["moving"]["affine"], images[1].grid.affine)


def test_seconds_of_each_stage(result: RegistrationResult) -> None:
    assert list(result.timings) == STAGES
    assert all(0 < s < 60 for s in result.timings.values())
    seconds = result.summary()["timings"]
    assert seconds["total"] == pytest.approx(sum(result.timings.values()))


def test_diagnostics_describe_the_transform(result: RegistrationResult) -> None:
    found = result.diagnostics
    length = result.transform.disp_mm.norm(dim=0)
    jacobian = oracles.jacobian(result.transform.to_voxels().double().numpy())
    assert found["displacement_mean_mm"] == pytest.approx(float(length.mean()))
    assert found["displacement_max_mm"] == pytest.approx(float(length.max()))
    assert found["jacobian_min"] == pytest.approx(jacobian.min(), abs=1e-5)
    assert found["jacobian_max"] == pytest.approx(jacobian.max(), abs=1e-5)
    assert found["folded_percent"] == 100 * (jacobian <= 0).mean()
    assert found["dissimilarity_before"] > 0
    assert found["dissimilarity_after"] > 0


@pytest.mark.parametrize(
    ("plane", "folded", "low", "high"), [(0, 2, -2.0, 1.0), (5, 1, -0.5, 2.5)], ids=["border", "middle"]
)
def test_folding_and_volume_change_are_measured_at_every_voxel(
    plane: int, folded: int, low: float, high: float
) -> None:
    disp = torch.zeros(3, 12, 8, 8)
    disp[0, plane] = 3.0  # derivatives of 3 / 2 beside the plane, and of 3 at the border
    found = measure_field(DisplacementField(disp, Grid((12, 8, 8))))
    assert found["folded_percent"] == pytest.approx(100 * folded / 12)
    assert (found["jacobian_min"], found["jacobian_max"]) == (low, high)


def test_without_stages_nothing_moves(images: tuple[Image, Image]) -> None:
    found = register(*images, RegistrationConfig(linear=None, discrete=None, continuous=None))
    assert not found.transform.disp_mm.any()
    assert found.diagnostics["dissimilarity_after"] == found.diagnostics["dissimilarity_before"]
    assert found.summary()["config"]["discrete"] == {"type": "none"}
    assert list(found.timings) == STAGES


@pytest.mark.parametrize("contrasts", [("ct", "ct"), ("ct", "t1")])
def test_a_phantom_is_registered(contrasts: tuple[str, str]) -> None:
    pair = phantom_pair((48, 40, 36), contrasts=contrasts, displacement_mm=25.0, noise=0.3)
    search = ConvexSearch(spacing=3, radius=3)
    found = register(pair.fixed, pair.moving, RegistrationConfig(discrete=search, continuous=Refinement()))
    assert found.diagnostics["dissimilarity_after"] < 0.7 * found.diagnostics["dissimilarity_before"]
    scores = evaluate_transform(
        found.transform,
        fixed_labels=pair.fixed_labels,
        moving_labels=pair.moving_labels,
        fixed_landmarks_mm=pair.fixed_landmarks_mm,
        moving_landmarks_mm=pair.moving_landmarks_mm,
        surface=False,
    )
    assert scores["tre_mm"] < scores["tre_before_mm"] / 2
    assert scores["dice"] > scores["dice_before"]
    assert 5 < found.diagnostics["displacement_max_mm"] < 60
    assert found.diagnostics["folded_percent"] == pytest.approx(scores["folded_percent"])
    if contrasts == ("ct", "ct"):
        difference = [float((image.data - pair.fixed.data).abs().mean()) for image in (found.moved, pair.moving)]
        assert difference[0] < difference[1]


@pytest.mark.parametrize(
    ("discrete", "continuous"), [(SEARCH, None), (None, Refinement(levels=(Level(iterations=40),)))]
)
def test_each_stage_works_alone(discrete: Any, continuous: Any, images: tuple[Image, Image]) -> None:
    config = RegistrationConfig(discrete=discrete, continuous=continuous)
    found = register(*images, config)
    assert found.config == config
    assert found.diagnostics["displacement_max_mm"] > 0.1
    assert found.diagnostics["dissimilarity_after"] < found.diagnostics["dissimilarity_before"]


def test_a_function_as_features_is_named_in_the_report(images: tuple[Image, Image]) -> None:
    def gradient_magnitude(image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        i, j, k = torch.gradient(image.data[0] / 500)
        return (i**2 + j**2 + k**2).sqrt()[None]

    found = register(*images, RegistrationConfig(features=gradient_magnitude, discrete=SEARCH, continuous=None))
    name = found.summary()["config"]["features"]["type"]
    assert name.endswith("gradient_magnitude")
    assert found.diagnostics["displacement_max_mm"] > 0.1
    nested = RegistrationConfig(
        features=Concat(parts=(MindSSC(), gradient_magnitude), weights=(1.0, 0.5)), discrete=SEARCH, continuous=None
    )
    parts = register(*images, nested).summary()["config"]["features"]["parts"]
    assert parts[0] == {"type": "MindSSC", "radius": 1, "dilation": 2}
    assert parts[1]["type"].endswith("gradient_magnitude")


def test_precomputed_features_equal_those_extracted_on_the_way() -> None:
    pair = phantom_pair((24, 20, 16), displacement_mm=20.0)
    features = Intensity()
    maps = [Image(features(image), image.grid) for image in (pair.fixed, pair.moving)]
    common = {
        "grid": NativeGrid(),
        "linear": None,
        "discrete": SEARCH,
        "continuous": Refinement(levels=(Level(iterations=5),)),
    }
    extracted = register(pair.fixed, pair.moving, RegistrationConfig(features=features, **common))
    given = register(*maps, RegistrationConfig(features=Precomputed(), **common))
    assert torch.equal(extracted.transform.disp_mm, given.transform.disp_mm)
    assert given.moved.data.shape == (1, 24, 20, 16)


def test_save_summary(result: RegistrationResult, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for target in (path, str(path)):
        result.save_summary(target)
        assert json.loads(path.read_text(encoding="utf-8")) == result.summary()
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]
    result.save_summary(path, extra={"command": "convexadam register"})
    assert json.loads(path.read_text(encoding="utf-8")) == result.summary() | {"command": "convexadam register"}
    with pytest.raises(FileError, match="is not a folder; create it first"):
        result.save_summary(tmp_path / "missing" / "report.json")
    with pytest.raises(FileError, match="must be a file, got a folder"):
        result.save_summary(tmp_path)


def test_progress(images: tuple[Image, Image]) -> None:
    for config in (QUICK, RegistrationConfig(linear=None, discrete=None, continuous=None)):
        calls: list[tuple[str, float]] = []
        register(*images, config, progress=lambda stage, share, calls=calls: calls.append((stage, share)))
        assert [stage for stage, _ in calls] == [*STAGES, "done"]
        assert [share for _, share in calls] == pytest.approx([n / 6 for n in range(7)])


def test_errors_of_the_progress_function_propagate(images: tuple[Image, Image]) -> None:
    def stop(stage: str, share: float) -> None:
        if stage == "discrete":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        register(*images, QUICK, progress=stop)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_grad_modes(mode: Callable[[], Any], images: tuple[Image, Image], result: RegistrationResult) -> None:
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = register(*(Image(image.data.clone(), image.grid) for image in images), QUICK)
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert torch.equal(found.transform.disp_mm, result.transform.disp_mm)
    assert not found.transform.disp_mm.is_inference()
    assert not found.transform.disp_mm.requires_grad


def test_inputs_that_require_gradients(images: tuple[Image, Image], result: RegistrationResult) -> None:
    data = [image.data.clone().requires_grad_() for image in images]
    values = [Image(d, image.grid) for d, image in zip(data, images, strict=True)]
    found = register(*values, QUICK)
    assert torch.equal(found.transform.disp_mm, result.transform.disp_mm)
    assert not found.transform.disp_mm.requires_grad
    assert all(d.requires_grad and d.grad is None for d in data)


def test_moved_stays_differentiable(images: tuple[Image, Image]) -> None:
    data = images[1].data.clone().requires_grad_()
    found = register(images[0], Image(data, images[1].grid), QUICK)
    found.moved.data.sum().backward()
    assert data.grad is not None
    assert bool(data.grad.any())


def test_inputs_are_not_modified(images: tuple[Image, Image]) -> None:
    before = [image.data.clone() for image in images]
    affines = [image.grid.affine.copy() for image in images]
    register(*images, QUICK)
    for image, data, affine in zip(images, before, affines, strict=True):
        assert torch.equal(image.data, data)
        np.testing.assert_array_equal(image.grid.affine, affine)


def test_a_registration_is_reproducible(images: tuple[Image, Image], result: RegistrationResult) -> None:
    random_state = torch.get_rng_state()
    again = register(*images, QUICK)
    assert torch.equal(again.transform.disp_mm, result.transform.disp_mm)
    assert again.diagnostics == result.diagnostics
    assert torch.equal(torch.get_rng_state(), random_state)


class Failing:
    """Features that raise an error, such as that of an allocator."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self, image: Image, /, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        raise self.error


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["device", "CPU"])
def test_too_little_memory(error: RuntimeError, images: tuple[Image, Image]) -> None:
    with pytest.raises(OutOfMemoryError, match=r"^cpu has too little memory to register \(24, 20, 30\) .*raise ") as e:
        register(*images, RegistrationConfig(features=Failing(error)))
    assert isinstance(e.value, ConvexAdamError)
    assert e.value.__cause__ is error
    assert "discrete.spacing" in str(e.value)


class FailingRegulariser:
    """A regulariser that raises an error."""

    def __call__(self, displacement: Any, *, add_to: Any = None, soft_mask: Any = None) -> Any:
        raise OUT_OF_MEMORY[0]


def test_too_little_memory_in_the_refinement(images: tuple[Image, Image]) -> None:
    refinement = Refinement(levels=(Level(iterations=5),), regularisers=(FailingRegulariser(),))
    with pytest.raises(OutOfMemoryError, match="too little memory"):
        register(*images, RegistrationConfig(discrete=None, continuous=refinement))


@pytest.mark.parametrize("step", ["parse_images", "parse_mask"])
def test_too_little_memory_for_the_images(
    step: str, images: tuple[Image, Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OUT_OF_MEMORY[0]

    monkeypatch.setattr(importlib.import_module("convexadam.registration.register"), step, fail)
    with pytest.raises(OutOfMemoryError, match=r"^cpu has too little memory to hold the images; crop") as e:
        register(*images, QUICK, device="cpu")
    assert e.value.__cause__ is OUT_OF_MEMORY[0]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:116] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB)"),
        MemoryError("Unable to allocate 8.00 GiB"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
    ids=["Windows", "MPS", "numpy", "cuBLAS", "cuDNN"],
)
def test_other_messages_about_memory(error: Exception, images: tuple[Image, Image]) -> None:
    try:
        register(*images, RegistrationConfig(features=Failing(error)))
    except OutOfMemoryError:
        return
    except (RuntimeError, MemoryError):
        pytest.fail("the original error was raised")


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), KeyError("name"), ValueError("odd")], ids=repr)
def test_other_errors_name_the_features(error: Exception, images: tuple[Image, Image]) -> None:
    with pytest.raises(ConfigError, match=r"features must accept \(image, \*, weight=None\).*Failing") as caught:
        register(*images, RegistrationConfig(features=Failing(error)))
    assert caught.value.__cause__ is error


def test_the_smallest_report_is_finite() -> None:
    with pytest.warns(UserWarning, match="no more than one control point"):
        report = register(torch.zeros(1, 1, 1), torch.ones(1, 1, 1)).summary()
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert all(math.isfinite(v) for v in report["diagnostics"].values())


def test_moved_has_the_type_of_the_moving_image(images: tuple[Image, Image]) -> None:
    fixed, moving = images
    nifti: Any = nibabel.Nifti1Image(moving.numpy(), moving.grid.affine)
    result = register(fixed, nifti, QUICK)
    moved: Any = result.to_type()
    assert type(moved) is nibabel.Nifti1Image
    np.testing.assert_array_equal(moved.get_fdata(), result.moved.numpy())
    np.testing.assert_allclose(moved.affine, fixed.grid.affine, atol=1e-5)
    assert torch.equal(result.to_type(torch.Tensor), result.moved.data[0])
    assert isinstance(result.to_type(np.ndarray), np.ndarray)
    with pytest.raises(ConfigError, match="write_image"):
        result.to_type(str)


def test_moved_of_a_file_is_an_image(images: tuple[Image, Image], tmp_path: Path) -> None:
    write_image(images[1], tmp_path / "moving.nii")
    result = register(images[0], tmp_path / "moving.nii", QUICK)
    assert isinstance(result.to_type(), Image)
