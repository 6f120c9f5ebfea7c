"""Inputs: forms, types, sizes, masks, and what cannot be registered."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from foreign import look_alike_tensor

from convexadam import (
    Affine,
    ConfigError,
    ConvexAdamError,
    ConvexSearch,
    FileError,
    GeometryError,
    Grid,
    Image,
    InputError,
    Intensity,
    MindSSC,
    NativeGrid,
    Precomputed,
    Refinement,
    RegistrationConfig,
    RegistrationResult,
    as_image,
    preset,
    register,
    write_image,
    write_transform,
)
from convexadam.continuous import Level
from convexadam.io import convert_image
from convexadam.registration.inputs import parse_initial, parse_mask

SHAPE = (24, 20, 16)
SEARCH = ConvexSearch(spacing=3, radius=2)
QUICK = RegistrationConfig(
    grid=NativeGrid(), linear=None, discrete=SEARCH, continuous=Refinement(levels=(Level(iterations=5),))
)
TRUE_VOX = (2.0, -1.0, 1.0)

# exact in float32, the precision of headers, so that the results of all forms are bit-equal
AFFINE = np.array([[0, 0, 2.5, -20], [-1.5, 0, 0, 10.25], [0, 2, 0, 5], [0, 0, 0, 1]])


def waves(points: torch.Tensor) -> torch.Tensor:
    """Texture at positions ``[3, ...]``: a sum of 30 plane waves of 7 to 16 units."""
    generator = torch.Generator().manual_seed(3)
    total = torch.zeros(points.shape[1:], dtype=torch.float64)
    for _ in range(30):
        direction = torch.randn(3, generator=generator, dtype=torch.float64)
        length, phase = 7 + 9 * torch.rand(2, generator=generator, dtype=torch.float64)
        wave = direction * (2 * math.pi / (direction.norm() * length))
        total += torch.cos(torch.tensordot(wave, points, dims=1) + phase)
    return total


def indices(shape: tuple[int, int, int]) -> torch.Tensor:
    axes = [torch.arange(n, dtype=torch.float64) for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


@functools.cache
def volume(shape: tuple[int, int, int] = SHAPE, *, moved: bool = False) -> torch.Tensor:
    """Float32 texture; the moved one is exactly ``TRUE_VOX`` away."""
    points = indices(shape)
    if moved:
        points = points - torch.tensor(TRUE_VOX, dtype=torch.float64).reshape(3, 1, 1, 1)
    return waves(points).float()


def pair(shape: tuple[int, int, int] = SHAPE) -> tuple[torch.Tensor, torch.Tensor]:
    return volume(shape).clone(), volume(shape, moved=True).clone()


def field(*args: Any, config: RegistrationConfig = QUICK, **options: Any) -> torch.Tensor:
    return register(*args, config, **options).transform.disp_mm


@functools.cache
def expected() -> torch.Tensor:
    return field(Image(volume()[None], Grid(SHAPE, AFFINE)), Image(volume(moved=True)[None], Grid(SHAPE, AFFINE)))


def as_sitk(array: np.ndarray, affine: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def as_path(values: torch.Tensor, folder: Path, ending: str) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}{ending}"
    nibabel.save(nibabel.Nifti1Image(values.numpy(), AFFINE), path)
    return path


# each returns the value of an argument, and whether it needs an affine
Form = Callable[[torch.Tensor, Path], tuple[Any, bool]]
FORMS: dict[str, Form] = {
    "path": lambda values, folder: (as_path(values, folder, ".nii.gz"), False),
    "string": lambda values, folder: (str(as_path(values, folder, ".nii")), False),
    "nibabel": lambda values, folder: (nibabel.Nifti1Image(values.numpy(), AFFINE), False),
    "nibabel from file": lambda values, folder: (nibabel.load(as_path(values, folder, ".nii")), False),
    "SimpleITK": lambda values, folder: (as_sitk(values.numpy(), AFFINE), False),
    "Image": lambda values, folder: (Image(values[None], Grid(SHAPE, AFFINE)), False),
    "tensor": lambda values, folder: (values, True),
    "tensor with a channel": lambda values, folder: (values[None], True),
    "array": lambda values, folder: (values.numpy(), True),
    "array in Fortran order": lambda values, folder: (np.asfortranarray(values.numpy()), True),
    "big-endian array": lambda values, folder: (values.numpy().astype(values.numpy().dtype.newbyteorder(">")), True),
    "read-only array": lambda values, folder: (np.broadcast_to(values.numpy(), SHAPE), True),
    "view": lambda values, folder: (values.flip(1).contiguous().numpy()[:, ::-1], True),
    "strided tensor": lambda values, folder: (values.permute(2, 0, 1).contiguous().permute(1, 2, 0), True),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same(name: str, tmp_path: Path) -> None:
    options = {}
    values = []
    for which, tensor in zip(("fixed", "moving"), pair(), strict=True):
        value, needs_affine = FORMS[name](tensor, tmp_path)
        values.append(value)
        if needs_affine:
            options[f"{which}_affine"] = AFFINE
    result = register(*values, QUICK, **options)
    assert torch.equal(result.transform.disp_mm, expected())
    np.testing.assert_array_equal(result.transform.grid.affine, AFFINE)
    assert torch.equal(result.fixed.data[0], volume())


def test_images_of_several_channels() -> None:
    config = dataclasses.replace(QUICK, features=Intensity())
    images = [Image(torch.stack([values, values.square()]), Grid(SHAPE, AFFINE)) for values in pair()]
    in_nibabel = [convert_image(image, nibabel.Nifti1Image) for image in images]
    of_images = register(*images, config).transform.disp_mm
    found = register(*(as_image(value, channels=True) for value in in_nibabel), config).transform.disp_mm
    assert torch.equal(found, of_images)
    assert not torch.equal(of_images, field(*pair(), config=config, fixed_affine=AFFINE, moving_affine=AFFINE))
    with pytest.raises(InputError, match="channels=True"):
        register(*in_nibabel, config)


def test_forms_can_be_mixed(tmp_path: Path) -> None:
    fixed, moving = pair()
    found = field(fixed.numpy(), as_path(moving, tmp_path, ".nii.gz"), fixed_affine=AFFINE.copy())
    assert torch.equal(found, expected())
    assert torch.equal(field(as_sitk(fixed.numpy(), AFFINE), moving, moving_affine=AFFINE.tolist()), expected())


def test_without_an_affine_voxels_are_millimetres() -> None:
    fixed, moving = pair()
    result = register(fixed.numpy(), moving, QUICK)
    assert result.transform.grid.is_close(Grid(SHAPE))
    assert torch.equal(result.transform.disp_mm, field(fixed, moving, fixed_affine=np.eye(4), moving_affine=np.eye(4)))


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_device(device: Any) -> None:
    fixed, moving = pair()
    result = register(fixed, moving, QUICK, device=device)
    assert result.transform.disp_mm.device == result.moved.data.device == torch.device("cpu")
    assert torch.equal(result.transform.disp_mm.cpu(), field(fixed, moving))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device")
def test_the_device_is_that_of_the_fixed_image_or_the_given_one() -> None:
    fixed, moving = pair()
    on_cpu = field(fixed, moving)
    for values, options in (((fixed, moving), {"device": "cuda"}), ((fixed.cuda(), moving), {})):
        result = register(*values, QUICK, **options)
        assert result.transform.disp_mm.device.type == "cuda"
        assert float((result.transform.disp_mm.cpu() - on_cpu).norm(dim=0).mean()) < 0.05


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", "cpu:0:1"])
def test_an_unusable_device(device: str) -> None:
    with pytest.raises(ConfigError, match=r"device must be one that torch can use here, got .*; use 'cpu'"):
        register(*pair(), QUICK, device=device)


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_orientation_of_the_voxels_does_not_matter(which: str) -> None:
    fixed, moving = (Image(v[None], Grid(SHAPE, AFFINE)) for v in pair())
    images = {"fixed": fixed, "moving": moving}
    images[which] = images[which].canonical()
    assert images[which].grid.shape != SHAPE
    result = register(images["fixed"], images["moving"], QUICK)
    assert torch.equal(result.transform.to_displacement_field(fixed.grid).disp_mm, expected())
    assert result.transform.grid.is_close(images["fixed"].grid)


def rotated_grid(shape: tuple[int, int, int], spacing: tuple[float, float, float], degrees: float) -> Grid:
    """Grid around the origin, with the first axis to the left, rotated about S."""
    angle = math.radians(degrees)
    affine = np.eye(4)
    affine[:3, :3] = [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    affine[:3, :3] = affine[:3, :3] @ np.diag([-1, 1, 1]) * spacing
    affine[:3, 3] = -affine[:3, :3] @ [(n - 1) / 2 for n in shape]
    return Grid(shape, affine)


@pytest.mark.parametrize(
    "moving_grid",
    [
        rotated_grid((48, 40, 36), (1.0, 1.0, 1.0), 0),
        rotated_grid((44, 30, 20), (1.1, 1.4, 1.9), 0),
        rotated_grid((52, 48, 30), (1.2, 1.0, 1.5), 25),
    ],
    ids=["flipped and larger", "other spacing", "oblique"],
)
def test_the_moving_image_may_lie_on_any_grid(moving_grid: Grid) -> None:
    true_mm = torch.tensor([2.0, -1.5, 1.0], dtype=torch.float64)
    fixed_grid = rotated_grid((36, 32, 28), (1.0, 1.0, 1.0), 0)

    def make_image(grid: Grid, shift_mm: torch.Tensor) -> Image:
        points = grid.index_to_world(indices(grid.shape).reshape(3, -1).T) - shift_mm
        return Image(waves(points.T).reshape(1, *grid.shape).float(), grid)

    config = RegistrationConfig(discrete=SEARCH, continuous=Refinement(levels=(Level(iterations=40),)))
    found = register(make_image(fixed_grid, 0 * true_mm), make_image(moving_grid, true_mm), config).transform
    assert found.grid.is_close(fixed_grid)
    # within both images, away from their borders
    mapped = moving_grid.world_to_index(fixed_grid.index_to_world(indices(fixed_grid.shape).reshape(3, -1).T) + true_mm)
    visible = ((mapped >= 4) & (mapped <= torch.tensor(moving_grid.shape) - 5)).all(1).reshape(fixed_grid.shape)
    inner = torch.zeros(fixed_grid.shape, dtype=torch.bool)
    inner[4:-4, 4:-4, 4:-4] = True
    assert int((visible & inner).sum()) > 6000
    error = (found.disp_mm - true_mm.reshape(3, 1, 1, 1)).norm(dim=0)[visible & inner]
    assert float(error.mean()) < float(true_mm.norm()) / 10


TYPES = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_types(dtype: torch.dtype) -> None:
    fixed, moving = ((v * 2 + 40).to(dtype) for v in pair())
    result = register(fixed, moving, QUICK)
    assert torch.equal(result.transform.disp_mm, field(fixed.double(), moving.double()))
    assert result.transform.disp_mm.dtype == torch.float32
    assert result.moved.data.dtype == dtype
    assert float(result.transform.disp_mm.abs().max()) > 1


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i1", ">i2", "f2", "<f4", ">f8", "longdouble"])
def test_types_of_arrays(dtype: str) -> None:
    fixed, moving = ((v * 2 + 40).numpy().astype(dtype) for v in pair())
    found = field(fixed, moving)
    assert torch.equal(found, field(fixed.astype("f8"), moving.astype("f8")))


def test_boolean_images() -> None:
    fixed, moving = (v > 0 for v in pair())
    found = field(fixed, moving)
    assert torch.equal(found, field(fixed.float(), moving.float()))
    assert torch.equal(found, field(fixed.numpy(), moving.numpy()))
    assert float(found.abs().max()) > 1


@pytest.mark.parametrize("levels", [1, 4])
def test_whole_numbers_on_an_anisotropic_grid(levels: int) -> None:
    affine = np.diag([1.0, 1.0, 2.5, 1.0])
    fixed, moving = (((v - v.min()) / (v.max() - v.min()) * levels).round().to(torch.uint8) for v in pair())
    config = RegistrationConfig(linear=None, discrete=SEARCH, continuous=Refinement(levels=(Level(iterations=5),)))
    whole, real = (
        field(convert(fixed), convert(moving), config=config, fixed_affine=affine, moving_affine=affine)
        for convert in (torch.clone, torch.Tensor.float)
    )
    torch.testing.assert_close(whole, real, atol=1e-3, rtol=0)


@pytest.mark.parametrize("features", [MindSSC(), Intensity()], ids=["MindSSC", "Intensity"])
@pytest.mark.parametrize("power", [-100, 100, 900])
def test_scale_of_the_intensities_does_not_matter(power: int, features: Any) -> None:
    # powers of two, so that rounding is the same; 2^100 is about 1e30
    config = dataclasses.replace(QUICK, features=features)
    fixed, moving = (v.double() for v in pair())
    plain = field(fixed, moving, config=config)
    assert torch.equal(field(fixed * 2.0**power, moving * 2.0**power, config=config), plain)
    if power == 100:
        assert torch.equal(field(fixed.float() * 2.0**power, moving.float(), config=config), plain)


def test_millimetres_are_those_of_the_working_grid() -> None:
    # AFFINE has voxels of 1.5, 2 and 2.5 mm, along -A, S and R
    in_mm = ConvexSearch(spacing=(7.5, 3.0, 4.0), radius=(15.0, 6.0, 8.0), unit="mm")
    scale_to_voxels = ConvexSearch(spacing=(3, 2, 2), radius=2)
    found, wanted, other = (
        field(
            *pair(),
            config=RegistrationConfig(grid=NativeGrid(), discrete=search, continuous=None),
            fixed_affine=AFFINE,
            moving_affine=AFFINE,
        )
        for search in (in_mm, scale_to_voxels, SEARCH)
    )
    assert torch.equal(found, wanted)
    assert not torch.equal(found, other)


def test_huge_whole_numbers() -> None:
    fixed, moving = ((v.double() * 1e13).to(torch.int64) for v in pair())
    assert int(fixed.abs().max()) > 10**14
    assert torch.equal(field(fixed, moving), field(fixed.double(), moving.double()))


def test_inputs_are_not_modified() -> None:
    for convert in (torch.clone, lambda v: (v * 9).short(), lambda v: v.numpy().copy()):
        values = [convert(v) for v in pair()]
        masks = [torch.ones(SHAPE), np.ones(SHAPE)]
        before = [torch.as_tensor(v).clone() for v in (*values, *masks)]
        register(*values, QUICK, fixed_mask=masks[0], moving_mask=masks[1])
        assert all(torch.equal(torch.as_tensor(v), copy) for v, copy in zip((*values, *masks), before, strict=True))


# What cannot be registered ---------------------------------------------------------------------------------------


def corrupted_volume(*values: float) -> torch.Tensor:
    data = volume().clone()
    data.view(-1)[100 : 100 + len(values)] = torch.tensor(values)
    return data


NAN = math.nan


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_nan_and_infinity_are_counted(which: str) -> None:
    images = {"fixed": volume(), "moving": volume(moved=True)}
    for values in ((NAN,), (math.inf, -math.inf, NAN)):
        bad = {**images, which: corrupted_volume(*values)}
        with pytest.raises(
            InputError, match=rf"the {which} image must be finite, got {len(values)} NaN or Inf in 7680 .*repl"
        ):
            register(bad["fixed"], bad["moving"], QUICK)
        inside = torch.ones(SHAPE)  # masks do not permit them
        inside.view(-1)[100:110] = 0
        with pytest.raises(InputError, match="must be finite, got"):
            register(bad["fixed"], bad["moving"], QUICK, fixed_mask=inside, moving_mask=inside)


@pytest.mark.parametrize("value", [0.0, -5.0, 1e30])
def test_two_constant_images_do_not_move(value: float) -> None:
    for config in (QUICK, preset("default"), preset("published")):
        short = config.with_settings("continuous.levels.0.iterations = 5")
        with pytest.warns(UserWarning, match="an image has no contrast within its field of view and mask"):
            found = field(torch.full(SHAPE, value), torch.full(SHAPE, 3.0), config=short)
        assert not found.any()


@pytest.mark.parametrize("constant", ["fixed", "moving"])
def test_one_constant_image_does_not_move(constant: str) -> None:
    flat = torch.full(SHAPE, 3.0)
    images = (flat, volume()) if constant == "fixed" else (volume(), flat)
    with pytest.warns(UserWarning, match="an image has no contrast within its field of view and mask"):
        assert float(field(*images).abs().max()) < 0.1


UNUSABLE: dict[str, tuple[Any, type[ConvexAdamError], str]] = {
    "empty": (torch.zeros(0, 3, 3), InputError, r"shape .*\(0, 3, 3\)"),
    "no channel": (torch.zeros(0, *SHAPE), InputError, r"shape .*\(0, 24, 20, 16\)"),
    "two axes": (torch.zeros(5, 6), InputError, "three axes .*pass one 3-D volume"),
    "five axes": (torch.zeros(1, 1, 5, 6, 7), InputError, "three axes"),
    "an array with four axes": (np.zeros((5, 6, 7, 3)), InputError, "three axes"),
    "a scalar": (np.float32(3), InputError, "a path, an Image, .*float32"),
    "complex tensor": (torch.zeros(SHAPE, dtype=torch.complex64), InputError, "real numbers.*complex64"),
    "complex array": (np.zeros(SHAPE, complex), InputError, "real numbers.*complex128"),
    "objects": (np.full(SHAPE, None), InputError, "real numbers.*object"),
    "text": (np.full(SHAPE, "a"), InputError, "real numbers.*U1"),
    "None": (None, InputError, "a path, an Image, a tensor, a numpy array, .*NoneType"),
    "a list": ([[[1.0]]], InputError, "a path, an Image, .*list"),
    "a missing file": ("nowhere.nii.gz", FileError, "nowhere.nii.gz"),
    "frames": (nibabel.Nifti1Image(np.ones((5, 6, 7, 2), np.float32), np.eye(4)), InputError, "one volume"),
    "2-D of SimpleITK": (
        sitk.Image(4, 5, sitk.sitkFloat32),
        InputError,
        "three axes and one value per voxel, got 2 axes",
    ),
    "vectors of SimpleITK": (
        sitk.Image([4, 5, 6], sitk.sitkVectorFloat32),
        InputError,
        "one value per voxel, got 3 axes and 3 values",
    ),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_unusable_images(name: str) -> None:
    value, error, message = UNUSABLE[name]
    for images in ((value, volume()), (volume(), value)):
        with pytest.raises(error, match=message) as caught:
            register(*images, QUICK)
        assert isinstance(caught.value, ConvexAdamError)
        assert isinstance(caught.value, ValueError)


def test_unusable_files(tmp_path: Path) -> None:
    good = as_path(volume(), tmp_path, ".nii.gz")
    (tmp_path / "cut.nii.gz").write_bytes(good.read_bytes()[:2000])
    (tmp_path / "text.nii.gz").write_text("not an image")
    (tmp_path / "text.nii").write_text("not an image either, and long enough for a header" * 10)
    (tmp_path / "empty.nii").touch()
    flat = as_path(volume(), tmp_path, ".nii")
    (tmp_path / "cut.nii").write_bytes(flat.read_bytes()[:5000])
    for name in ("cut.nii.gz", "text.nii.gz", "text.nii", "empty.nii", ".", "missing.nii", "cut.nii"):
        for images in ((tmp_path / name, good), (good, tmp_path / name)):
            with pytest.raises(FileError, match=r".*") as caught:
                register(*images, QUICK)
            assert str(tmp_path / name) in str(caught.value)
            assert name == "cut.nii" or "\n" not in str(caught.value)
        with pytest.raises(FileError, match=r".*"):
            register(good, good, QUICK, fixed_mask=tmp_path / name)


def test_a_file_that_is_cut_short_is_told_of_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cut.nii"
    path.write_bytes(as_path(volume(), tmp_path, ".nii").read_bytes()[:5000])
    with pytest.raises(FileError, match="damaged or truncated") as caught:
        register(path, volume(), QUICK)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.zeros((4, 4)), "last row .*0 0 0 1"),
        (np.diag([0.0, 0.0, 0.0, 1.0]), "singular"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular.*correct the header, or pass an affine"),
        (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.full((4, 4), NAN), "affine .*NaN or Inf"),
        (np.diag([1.0, math.inf, 1.0, 1.0]), "affine .*NaN or Inf"),
        (np.eye(3), r"affine .*\(3, 3\)"),
    ],
)
def test_unusable_affines(affine: np.ndarray, message: str) -> None:
    for which in ("fixed", "moving"):
        with pytest.raises(GeometryError, match=message):
            register(*pair(), QUICK, **{f"{which}_affine": affine})


@pytest.mark.parametrize("affine", ["RAS", [[1, 2], [3]]])
def test_an_affine_that_is_not_a_matrix(affine: Any) -> None:
    with pytest.raises(GeometryError, match="affine"):
        register(*pair(), QUICK, fixed_affine=affine)


def test_an_affine_for_an_image_that_has_its_own(tmp_path: Path) -> None:
    path = as_path(volume(), tmp_path, ".nii")
    for value in (path, nibabel.load(path), Image(volume()[None], Grid(SHAPE)), as_sitk(volume().numpy(), AFFINE)):
        with pytest.raises(ConfigError, match=r"affine .*has its own"):
            register(value, volume(), QUICK, fixed_affine=AFFINE)


@pytest.mark.parametrize("shift", [(500.0, 0, 0), (0, -30.0, 0), (0, 0, 15.5), (1e6, 1e6, 1e6)])
def test_images_that_do_not_overlap(shift: tuple[float, float, float]) -> None:
    affine = np.eye(4)
    affine[:3, 3] = shift
    with pytest.raises(InputError, match=r"the images must overlap .*, got no voxel in both; check affines and masks"):
        register(*pair(), QUICK, moving_affine=affine)


def with_features(extract: Callable[[Image], Any]) -> RegistrationConfig:
    def features(image: Image, *, weight: torch.Tensor | None = None) -> Any:
        return extract(image)

    return RegistrationConfig(grid=NativeGrid(), linear=None, features=features, discrete=SEARCH, continuous=None)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda image: image.data[0], r"features .*\[f, i, j, k\] with \(24, 20, 16\) voxels, .*\(24, 20, 16\)"),
        (lambda image: image.data[:, 1:], r"features .*\(1, 23, 20, 16\)"),
        (lambda image: image.data.numpy(), "features .*ndarray"),
        (lambda image: None, "features .*NoneType"),
        (lambda image: image.data.to("meta"), "cpu.*meta"),
        (lambda image: image.data[:0], "at least one channel"),
        (lambda image: image.data * NAN, "features must be finite, got NaN or Inf from"),
        (lambda image: image.data / 0, "features must be finite, got NaN or Inf from"),
    ],
)
def test_unusable_features(made: Callable[[Image], Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        register(*pair(), with_features(made))


def test_features_with_other_channels() -> None:
    counts = iter([2, 3])
    with pytest.raises(ConfigError, match="features must have as many channels for both images, got 2 and 3 from"):
        register(*pair(), with_features(lambda image: image.data.expand(next(counts), -1, -1, -1)))
    with pytest.raises(
        ConfigError, match="features must have as many channels for both images, got 24 and 12 from MindSSC"
    ):
        register(volume()[None].expand(2, -1, -1, -1), volume(), QUICK)


def test_features_whose_squares_overflow() -> None:
    config = with_features(lambda image: image.data * 1e30)
    with pytest.raises(ConfigError, match=r"features must be small enough to square, got up to .*e\+3\d from"):
        register(*pair(), dataclasses.replace(config, continuous=Refinement(levels=(Level(iterations=5),))))


@pytest.mark.parametrize("config", [3, {}, MindSSC()])
def test_a_config_of_another_type(config: Any) -> None:
    with pytest.raises(ConfigError, match="RegistrationConfig"):
        register(*pair(), config)


# Sizes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(60, 60, 6), (60, 60, 1), (1, 40, 40), (8, 8, 8), (2, 3, 40), (1, 1, 1), (7, 11, 13)], ids=str
)
@pytest.mark.parametrize("config", [QUICK, preset("published")], ids=["quick", "published"])
@pytest.mark.filterwarnings("ignore:masks and fields of view leave no control point")  # the smallest have no inner one
@pytest.mark.filterwarnings("ignore:an image has no contrast")  # or one control point
def test_thin_and_tiny_volumes(shape: tuple[int, int, int], config: RegistrationConfig) -> None:
    generator = torch.Generator().manual_seed(0)
    fixed, moving = torch.rand(2, *shape, generator=generator)
    for options in ({}, {"fixed_mask": torch.ones(shape), "moving_mask": torch.ones(shape)}):
        result = register(fixed, moving, config, **options)
        assert result.transform.disp_mm.shape == (3, *shape)
        assert bool(result.transform.disp_mm.isfinite().all())
        assert all(math.isfinite(v) for v in result.diagnostics.values())
        for axis, size in enumerate(shape):
            if size == 1:  # no motion along a single voxel
                assert float(result.transform.disp_mm[axis].abs().max()) < 0.5


def test_thin_volumes_are_registered() -> None:
    # several voxels thick, with motion in the plane
    points = indices((60, 60, 6))
    shift = torch.tensor([2.0, -1.0, 0.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    config = RegistrationConfig(
        grid=NativeGrid(), discrete=SEARCH, continuous=Refinement(levels=(Level(iterations=40),))
    )
    found = field(waves(points).float(), waves(points - shift).float(), config=config)
    error = (found - shift).abs()[:, 8:-8, 8:-8].mean((1, 2, 3))
    assert float(error[:2].max()) < 0.15
    assert float(error[2]) < 0.5  # six voxels determine motion across them poorly


def test_volumes_of_different_size() -> None:
    fixed, moving = volume((24, 20, 16)), volume((31, 17, 19))
    result = register(fixed, moving, QUICK)
    assert result.moved.data.shape == (1, 24, 20, 16)
    padded = torch.zeros(24, 20, 17)
    padded[..., :16] = fixed
    assert register(padded, fixed, QUICK).transform.grid.shape == (24, 20, 17)


# Masks ------------------------------------------------------------------------------------------------------------


def half() -> torch.Tensor:
    mask = torch.zeros(SHAPE)
    mask[:15] = 1
    return mask


@functools.cache
def expected_masked() -> torch.Tensor:
    masks = {f"{which}_mask": Image(half()[None], Grid(SHAPE, AFFINE)) for which in ("fixed", "moving")}
    fixed, moving = (Image(v[None], Grid(SHAPE, AFFINE)) for v in pair())
    return field(fixed, moving, **masks)


@pytest.mark.parametrize("name", [name for name in FORMS if name != "tensor with a channel"])
def test_every_form_of_a_mask_gives_the_same(name: str, tmp_path: Path) -> None:
    fixed, moving = (Image(v[None], Grid(SHAPE, AFFINE)) for v in pair())
    mask, _ = FORMS[name](half(), tmp_path)  # an array has the grid of its image
    assert torch.equal(field(fixed, moving, fixed_mask=mask, moving_mask=mask), expected_masked())
    assert not torch.equal(expected_masked(), expected())


class Named(np.ndarray):
    """An array subclass, as some packages have."""


@pytest.mark.parametrize("convert", [np.ma.masked_array, lambda array: array.view(Named)], ids=["masked", "subclass"])
def test_every_kind_of_array_has_the_grid_of_its_image(convert: Callable[[np.ndarray], np.ndarray]) -> None:
    fixed, moving = (Image(v[None], Grid(SHAPE, AFFINE)) for v in pair())
    mask = convert(half().numpy())
    assert torch.equal(field(fixed, moving, fixed_mask=mask, moving_mask=mask), expected_masked())


def test_arrays_with_masked_values() -> None:
    masked = np.ma.masked_less(volume().numpy(), 0.0)
    for images, options in (((masked, volume()), {}), ((volume(), volume()), {"fixed_mask": masked})):
        with pytest.raises(InputError, match=r"\d+ of 7680"):
            register(*images, QUICK, **options)


@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.bool,
        torch.Tensor.byte,
        torch.Tensor.long,
        torch.Tensor.double,
        torch.Tensor.half,
        lambda mask: mask.int() * 1000 - 1,  # above 0 is inside, whatever the number
        lambda mask: mask.numpy().astype(bool),
        lambda mask: mask.numpy().astype(">u2"),
    ],
)
def test_every_type_of_a_mask_gives_the_same(convert: Callable[[torch.Tensor], Any]) -> None:
    options = {"fixed_affine": AFFINE, "moving_affine": AFFINE}
    mask = convert(half())
    assert torch.equal(field(*pair(), fixed_mask=mask, moving_mask=mask, **options), expected_masked())


def test_a_mask_may_have_another_grid() -> None:
    fixed, moving = (Image(v[None], Grid(SHAPE, AFFINE)) for v in pair())
    mask = Image(half()[None], Grid(SHAPE, AFFINE)).canonical()
    found = field(fixed, moving, fixed_mask=mask, moving_mask=mask)
    torch.testing.assert_close(found, expected_masked(), atol=1e-3, rtol=0)
    cropped = Image(torch.ones(1, 15, 20, 16), Grid((15, 20, 16), AFFINE))  # 0 outside its grid
    found = field(fixed, moving, fixed_mask=cropped, moving_mask=cropped)
    torch.testing.assert_close(found, expected_masked(), atol=1e-3, rtol=0)


def test_features_get_the_mask_as_weight() -> None:
    weights: list[torch.Tensor] = []

    def features(image: Image, *, weight: torch.Tensor) -> torch.Tensor:
        weights.append(weight)
        return image.data

    config = RegistrationConfig(grid=NativeGrid(), linear=None, features=features, discrete=None, continuous=None)
    fixed, moving = (Image(v[None], Grid(SHAPE, AFFINE)) for v in pair())
    field(fixed, moving, config=config, fixed_mask=half(), moving_mask=half())
    assert [weight.unique().tolist() for weight in weights] == [[0.0, 1.0]] * 2


def test_a_mask_of_everything_changes_nothing() -> None:
    fixed, moving = (Image(v[None], Grid(SHAPE, AFFINE)) for v in pair())
    full = torch.ones(SHAPE)
    forms = (full, full.numpy() > 0, full[None])
    for masks in [{"moving_mask": full}, *({"fixed_mask": form} for form in forms)]:
        assert torch.equal(field(fixed, moving, **masks), expected())


CORNER = (slice(0, 14), slice(0, 14), slice(0, 12))
AROUND = (slice(0, 17), slice(0, 17), slice(0, 15))  # enlarged by the receptive radius of MindSSC
BOX = (40, 32, 24)


def corrupted(image: torch.Tensor) -> torch.Tensor:
    """Replace a corner by noise in the range of the image."""
    noise = torch.rand(image.shape, generator=torch.Generator().manual_seed(0)) * 0.99
    result = image.clone()
    result[CORNER] = (image.min() + (image.max() - image.min()) * noise)[CORNER]
    return result


def outside_of_corner() -> torch.Tensor:
    mask = torch.ones(BOX)
    mask[AROUND] = 0
    return mask


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_voxels_outside_the_mask_have_no_influence(which: str) -> None:
    clean = dict(zip(("fixed", "moving"), pair(BOX), strict=True))
    corrupted_pair = {**clean, which: corrupted(clean[which])}
    mask = {f"{which}_mask": outside_of_corner()}
    found, wanted = (field(p["fixed"], p["moving"], **mask) for p in (corrupted_pair, clean))
    assert torch.equal(found, wanted)
    assert not torch.equal(
        field(corrupted_pair["fixed"], corrupted_pair["moving"]), field(clean["fixed"], clean["moving"])
    )


@pytest.mark.parametrize("which", ["fixed", "moving"])
def test_excluding_a_corrupted_corner_restores_the_result(which: str) -> None:
    clean = dict(zip(("fixed", "moving"), pair(BOX), strict=True))
    corrupted_pair = {**clean, which: corrupted(clean[which])}
    config = RegistrationConfig(
        grid=NativeGrid(), discrete=SEARCH, continuous=Refinement(levels=(Level(iterations=60),))
    )

    def error(images: dict[str, torch.Tensor], **masks: torch.Tensor) -> torch.Tensor:
        found = field(images["fixed"], images["moving"], config=config, **masks)
        return (found - torch.tensor(TRUE_VOX).reshape(3, 1, 1, 1)).norm(dim=0)

    undisturbed, disturbed = error(clean), error(corrupted_pair)
    restored = error(corrupted_pair, **{f"{which}_mask": outside_of_corner()})
    elsewhere = outside_of_corner() > 0
    assert float(disturbed[CORNER].mean()) > 4 * float(undisturbed[CORNER].mean())
    assert float(restored[CORNER].mean()) < float(disturbed[CORNER].mean()) / 4
    assert float(restored[elsewhere].mean()) < float(undisturbed[elsewhere].mean()) + 0.02
    assert float(restored[elsewhere].mean()) < float(disturbed[elsewhere].mean())


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            torch.ones(3, 4, 5),
            r"{0}_mask must have the shape of the {0} image, \(24, 20, 16\), got \(3, 4, 5\); pass an array",
        ),
        (np.ones(SHAPE[:2]), r"{0}_mask must have the shape .*, got \(24, 20\)"),
        (np.array(1.0), r"{0}_mask must have the shape .*, got \(\)"),
        (torch.zeros(SHAPE), "{0}_mask must have a value above 0, got an empty mask; omit it"),
        (-torch.ones(SHAPE), "{0}_mask must have a value above 0"),
        (np.zeros(SHAPE, bool), "{0}_mask must have a value above 0"),
        (corrupted_volume(NAN), "{0}_mask must be finite, got NaN or Inf"),
        (corrupted_volume(math.inf), "{0}_mask must be finite, got NaN or Inf"),
        (Image(torch.ones(2, *SHAPE), Grid(SHAPE)), "{0}_mask must have one channel, got 2"),
        (torch.ones(SHAPE, dtype=torch.complex64), "real numbers"),
        (True, "a path, an Image, .*bool"),
    ],
)
def test_unusable_masks(mask: Any, message: str) -> None:
    for which in ("fixed", "moving"):
        with pytest.raises(InputError, match=message.format(which)):
            register(*pair(), QUICK, **{f"{which}_mask": mask})


def test_a_mask_outside_its_image() -> None:
    affine = np.eye(4)
    affine[0, 3] = 100
    mask = Image(torch.ones(1, 4, 4, 4), Grid((4, 4, 4), affine))
    for which in ("fixed", "moving"):
        with (
            pytest.warns(UserWarning, match=rf"{which}_mask covers 0\.\d+ % of the {which} image"),
            pytest.raises(
                InputError, match=r"the images must overlap within .* the masks, got no voxel in both; check aff"
            ),
        ):
            register(*pair(), QUICK, **{f"{which}_mask": mask})


def test_masks_that_do_not_overlap() -> None:
    # farther apart than search and refinement can bridge
    fixed_mask, moving_mask = torch.zeros(SHAPE), torch.zeros(SHAPE)
    fixed_mask[:6] = moving_mask[-6:] = 1
    with pytest.raises(InputError, match="the masks must overlap within the reach of the search, got no overlap"):
        register(*pair(), QUICK, fixed_mask=fixed_mask, moving_mask=moving_mask)


# Other features ---------------------------------------------------------------------------------------------------


def test_functions_and_precomputed_features() -> None:
    calls: list[tuple[Image, torch.Tensor | None]] = []

    def features(image: Image, *, weight: torch.Tensor | None = None) -> torch.Tensor:
        calls.append((image, weight))
        return torch.cat([image.data, image.data.square()]).double()

    config = RegistrationConfig(grid=NativeGrid(), linear=None, features=features, discrete=SEARCH, continuous=None)
    fixed, moving = (v / 10 for v in pair())
    found = field(fixed, moving, config=config, moving_mask=half())
    assert [image.data.shape for image, _ in calls] == [(1, *SHAPE)] * 2
    assert calls[0][1] is None
    assert calls[1][1] is not None
    assert torch.equal(calls[1][1], half())
    stacked = [torch.stack([v, v.square()]) for v in (fixed, moving)]
    precomputed = RegistrationConfig(
        grid=NativeGrid(), linear=None, features=Precomputed(), discrete=SEARCH, continuous=None
    )
    assert torch.equal(found, field(*stacked, config=precomputed, moving_mask=half()))


def test_files_and_images_give_the_same_result(tmp_path: Path) -> None:
    fixed, moving = (Image(v[None], Grid(SHAPE, AFFINE)) for v in pair())
    write_image(fixed, tmp_path / "fixed.nii.gz")
    write_image(moving, tmp_path / "moving.nii.gz")
    result: RegistrationResult = register(tmp_path / "fixed.nii.gz", tmp_path / "moving.nii.gz", QUICK)
    assert torch.equal(result.transform.disp_mm, expected())


@pytest.mark.parametrize("name", ["start.npz", "start.nii.gz", "start.x5"])
def test_an_initial_transform_may_be_a_file(name: str, tmp_path: Path) -> None:
    if name.endswith(".x5"):
        pytest.importorskip("nitransforms")
    shift = np.eye(4)
    shift[:3, 3] = 3.0, -2.0, 1.5
    fixed, moving = (Image(torch.zeros(1, 6, 7, 8), Grid((6, 7, 8), np.diag([2.0, 2, 3, 1]))) for _ in range(2))
    write_transform(Affine(shift), tmp_path / name, fixed=fixed)
    found = parse_initial(tmp_path / name, fixed, moving)
    assert found is not None
    expected = torch.tensor([[3.0, -2.0, 1.5]], dtype=torch.float64)
    torch.testing.assert_close(found(torch.zeros(1, 3)), expected, atol=5e-3, rtol=0)  # float16 of 1.5 voxels
    with pytest.raises(FileError, match=r"absent\.h5"):
        parse_initial(tmp_path / "absent.h5", fixed, moving)


def test_a_mask_of_monai_keeps_its_own_grid() -> None:
    image = Image(torch.zeros(1, 6, 7, 8), Grid((6, 7, 8), np.diag([2.0, 2, 3, 1])))
    made: Any = look_alike_tensor()
    mask = made(torch.ones(1, 3, 4, 5), affine=torch.diag(torch.tensor([4.0, 4, 5, 1])))
    found = parse_mask(mask, image, "fixed_mask")
    assert found is not None
    assert found.grid.is_close(Grid((3, 4, 5), np.diag([4.0, 4, 5, 1])))
