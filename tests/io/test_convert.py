"""Everything a caller may have, as the same image."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from foreign import look_alike_image, look_alike_tensor
from torch._subclasses import FakeTensorMode

from convexadam.errors import ConfigError, FileError, GeometryError, InputError
from convexadam.geometry import Grid, Image
from convexadam.io import as_image, convert_image, read_image, write_image

SHAPE = (5, 7, 4)


def oblique() -> Grid:
    turn = np.deg2rad(30)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, np.sin(turn), np.cos(turn)], [-1, 0, 0], [0, -np.cos(turn), np.sin(turn)]])
    affine[:3, :3] *= (1.3, 0.7, 3.0)
    affine[:3, 3] = (-80.5, 33.25, 120)
    return Grid(SHAPE, affine)


def values(dtype: str = "float32") -> np.ndarray:
    return np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(dtype)


def test_tensors_and_arrays() -> None:
    affine = oblique().affine
    for value in (values(), torch.from_numpy(values()), torch.from_numpy(values())[None], values()[..., None]):
        image = as_image(value, affine)
        assert image.grid.is_close(oblique())
        np.testing.assert_array_equal(image.numpy(), values())
    assert as_image(torch.zeros(3, 5, 7, 4)).data.shape == (3, 5, 7, 4)
    assert as_image(values()).grid.is_close(Grid(SHAPE))


def test_paths_and_nibabel(tmp_path: Path) -> None:
    image = Image(torch.from_numpy(values())[None], oblique())
    write_image(image, tmp_path / "a.nii.gz")
    header: Any = nibabel.load(tmp_path / "a.nii.gz")
    in_memory = nibabel.Nifti1Image(values(), oblique().affine)
    for value in (tmp_path / "a.nii.gz", str(tmp_path / "a.nii.gz"), header, in_memory):
        found = as_image(value)
        assert torch.equal(found.data, image.data)
        assert found.grid.is_close(image.grid)


def test_nibabel_keeps_the_rules_of_files() -> None:
    labels: Any = nibabel.Nifti1Image(values("uint16"), np.eye(4))
    assert as_image(labels).data.dtype == torch.int32
    assert as_image(labels).is_label
    with pytest.raises(InputError, match="extract a frame"):
        as_image(nibabel.Nifti1Image(np.ones((5, 7, 4, 2), np.float32), np.eye(4)))
    with pytest.raises(InputError, match="Spm2AnalyzeImage"):
        as_image(nibabel.Spm2AnalyzeImage(np.ones(SHAPE, np.float32), np.eye(4)))
    with pytest.raises(InputError, match="Nifti1Header"):
        as_image(nibabel.Nifti1Header())
    with pytest.raises(GeometryError, match="affine"):
        as_image(nibabel.Nifti1Image(values(), None))


def several(number: int = 3) -> torch.Tensor:
    """Channels that differ, ``[c, i, j, k]``."""
    return torch.stack([torch.from_numpy(values()) * (n + 1) for n in range(number)])


def test_several_channels_of_nibabel(tmp_path: Path) -> None:
    last = np.moveaxis(several().numpy(), 0, -1)
    for array in (last, last[:, :, :, None], last[..., None]):
        made = nibabel.Nifti1Image(array, oblique().affine)
        nibabel.save(made, tmp_path / "a.nii")
        for value, error in ((made, InputError), (tmp_path / "a.nii", FileError)):
            with pytest.raises(error, match=r"as_image\(\.\.\., channels=True\)"):
                as_image(value)
            found = as_image(value, channels=True)
            assert torch.equal(found.data, several())
            assert found.grid.is_close(oblique())
    with pytest.raises(InputError, match="one volume"):  # which of the two axes are channels?
        as_image(nibabel.Nifti1Image(np.ones((*SHAPE, 2, 3), np.float32), np.eye(4)), channels=True)


def test_several_channels_of_simpleitk() -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    image = sitk.Image([2, 3, 4], sitk.sitkVectorFloat32, 2)
    image[1, 2, 3] = (7, 8)
    with pytest.raises(InputError, match=r"2 values per voxel.*as_image\(\.\.\., channels=True\)"):
        as_image(image)
    found = as_image(image, channels=True)
    assert found.data.shape == (2, 2, 3, 4)
    assert found.data.nonzero().tolist() == [[0, 1, 2, 3], [1, 1, 2, 3]]
    assert found.data[:, 1, 2, 3].tolist() == [7, 8]
    assert found.grid.is_close(as_image(sitk.VectorIndexSelectionCast(image, 0)).grid)
    with pytest.raises(InputError, match="2 axes"):
        as_image(sitk.Image([4, 4], sitk.sitkVectorFloat32, 2), channels=True)


def test_one_channel_is_the_same_with_and_without_leave(tmp_path: Path) -> None:
    write_image(Image(several(1), oblique()), tmp_path / "a.nii.gz")
    for value in (values(), several(1), several(), nibabel.Nifti1Image(values(), np.eye(4)), tmp_path / "a.nii.gz"):
        assert torch.equal(as_image(value, channels=True).data, as_image(value).data)
    for channels in (False, True):
        with pytest.raises(InputError, match="three axes"):  # an array does not say where its channels are
            as_image(several().numpy(), channels=channels)


def test_memory_of_a_nibabel_image_is_not_shared() -> None:
    array = values()
    image = as_image(nibabel.Nifti1Image(array, np.eye(4)))
    array[:] = -1
    assert float(image.data.min()) == 0


def test_images_pass_through() -> None:
    image = Image(torch.zeros(1, *SHAPE), oblique())
    assert as_image(image) is image
    assert as_image(image, device="cpu").grid is image.grid


def test_simpleitk_by_hand() -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    image = sitk.Image(2, 3, 4, sitk.sitkInt16)
    image.SetSpacing((2.0, 3.0, 5.0))
    image.SetOrigin((10.0, 20.0, 30.0))
    image.SetDirection((0, 1, 0, 1, 0, 0, 0, 0, -1))  # i runs along +P, j along +L, k along -S
    image[1, 2, 3] = 7
    found = as_image(image)
    assert found.data.dtype == torch.int16
    assert found.grid.shape == (2, 3, 4)
    assert found.data.nonzero().tolist() == [[0, 1, 2, 3]]
    expected = [[0, -3, 0, -10], [-2, 0, 0, -20], [0, 0, -5, 30], [0, 0, 0, 1]]
    np.testing.assert_array_equal(found.grid.affine, expected)


def test_simpleitk_agrees_with_the_file(tmp_path: Path) -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    write_image(Image(torch.from_numpy(values())[None], oblique()), tmp_path / "a.nii.gz")
    found, expected = as_image(sitk.ReadImage(str(tmp_path / "a.nii.gz"))), read_image(tmp_path / "a.nii.gz")
    assert torch.equal(found.data, expected.data)
    assert found.grid.is_close(expected.grid)


def test_simpleitk_refusals() -> None:
    sitk: Any = pytest.importorskip("SimpleITK")
    with pytest.raises(InputError, match="2 axes"):
        as_image(sitk.Image(4, 4, sitk.sitkFloat32))
    with pytest.raises(InputError, match="3 values per voxel"):
        as_image(sitk.Image([4, 4, 4], sitk.sitkVectorFloat32, 3))
    with pytest.raises(InputError, match="real numbers"):
        as_image(sitk.Image([4, 4, 4], sitk.sitkComplexFloat32))
    with pytest.raises(InputError, match=r"must be a SimpleITK\.Image, got SimpleITK\.Euler3DTransform"):
        as_image(sitk.Euler3DTransform())


def test_simpleitk_is_not_imported_to_recognise_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "SimpleITK", None)  # importing it would raise
    as_image(nibabel.Nifti1Image(values(), np.eye(4)))
    with pytest.raises(InputError, match=r"got builtins\.dict"):
        as_image({})


def test_refusals(tmp_path: Path) -> None:
    image = Image(torch.zeros(1, *SHAPE), oblique())
    for value in (tmp_path / "a.nii", nibabel.Nifti1Image(values(), np.eye(4)), image):
        with pytest.raises(ConfigError, match="has its own"):
            as_image(value, np.eye(4))
    for value in (None, 3, [[1, 2]]):
        with pytest.raises(InputError, match="must be a path"):
            as_image(value)
    with pytest.raises(InputError, match="three axes"):
        as_image(np.zeros((4, 4)))
    with pytest.raises(FileError, match="no file"):
        as_image(tmp_path / "missing.nii")


def every_kind() -> dict[str, Any]:
    sitk: Any = pytest.importorskip("SimpleITK")
    return {
        "nibabel": nibabel.Nifti1Image, "nibabel 2": nibabel.Nifti2Image, "SimpleITK": sitk.Image,
        "monai": look_alike_tensor(), "torchio": look_alike_image(),
    }  # fmt: skip


def real_or_alike(package: str) -> type:
    """Return the real class where the package is installed, without its warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if package == "monai":
            return pytest.importorskip("monai.data").MetaTensor  # type: ignore[no-any-return]
        return pytest.importorskip("torchio").ScalarImage  # type: ignore[no-any-return]


@pytest.mark.parametrize("source", ["alike", "real"])
def test_tensors_of_monai(source: str) -> None:
    kind: Any = look_alike_tensor() if source == "alike" else real_or_alike("monai")
    affine = torch.from_numpy(oblique().affine.copy())
    for data in (torch.from_numpy(values())[None], torch.from_numpy(values())):
        found = as_image(kind(data, affine=affine))
        assert type(found.data) is torch.Tensor
        np.testing.assert_array_equal(found.numpy(), values())
        assert found.grid.is_close(oblique())
    flip = torch.diag(torch.tensor([-1.0, -1, 1, 1], dtype=torch.float64))
    in_lps = kind(torch.from_numpy(values())[None], affine=flip @ affine, meta={"space": "LPS"})
    assert as_image(in_lps).grid.is_close(oblique())
    with pytest.raises(ConfigError, match="for a MetaTensor, which has its own"):
        as_image(in_lps, np.eye(4))
    made = convert_image(found, kind)
    assert type(made) is kind
    assert made.shape == (1, *SHAPE)
    np.testing.assert_array_equal(np.asarray(made.affine), oblique().affine)


@pytest.mark.parametrize("source", ["alike", "real"])
def test_images_of_torchio(source: str) -> None:
    kind: Any = look_alike_image() if source == "alike" else real_or_alike("torchio")
    found = as_image(kind(tensor=torch.from_numpy(values())[None], affine=oblique().affine))
    np.testing.assert_array_equal(found.numpy(), values())
    assert found.grid.is_close(oblique())
    made = convert_image(found, kind)
    assert type(made) is kind
    assert made.data.shape == (1, *SHAPE)
    np.testing.assert_allclose(made.affine, oblique().affine, atol=1e-12)
    with pytest.raises(InputError, match="TorchIO"):
        as_image(look_alike_image()(tensor=None, affine=None))


@pytest.mark.parametrize("channels", [1, 3])
def test_there_and_back(channels: int) -> None:
    data = several(channels)
    image = Image(data, oblique())
    for name, kind in every_kind().items():
        made = convert_image(image, kind)
        assert type(made) is kind, name
        has_channels_first = name in ("monai", "torchio")
        found = as_image(made, channels=channels > 1 and not has_channels_first)
        assert torch.equal(found.data, data), name
        assert found.grid.is_close(oblique()), name


def test_tensors_and_arrays_of_images() -> None:
    one, two = (Image(torch.from_numpy(values()).expand(n, *SHAPE), oblique()) for n in (1, 2))
    for image, shape in ((one, SHAPE), (two, (2, *SHAPE))):
        assert convert_image(image, Image) is image
        assert tuple(convert_image(image, torch.Tensor).shape) == shape
        assert type(convert_image(image, torch.nn.Parameter)) is torch.Tensor
        assert convert_image(image, np.ndarray).shape == shape
        assert convert_image(image, np.ma.MaskedArray).shape == shape


@pytest.mark.parametrize("kind", [str, Path, dict, nibabel.Nifti1Header, np.int16, 3, "nibabel"])
def test_kinds_that_cannot_be_made(kind: Any) -> None:
    with pytest.raises(ConfigError, match="kind must be"):
        convert_image(Image(torch.zeros(1, *SHAPE), oblique()), kind)


# nibabel itself leaves a file of MGH open
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.parametrize("kind", ["NIfTI", "MGH"])
@pytest.mark.parametrize("change", ["gone", "truncated"])
def test_values_that_nibabel_cannot_read_any_more(tmp_path: Path, kind: str, change: str) -> None:
    path = tmp_path / ("image.nii" if kind == "NIfTI" else "image.mgh")
    make = nibabel.Nifti1Image if kind == "NIfTI" else nibabel.MGHImage
    nibabel.save(make(values(), oblique().affine), path)
    opened = nibabel.load(path)
    if change == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(FileError, match=rf"cannot read an? {kind} image from .*image.*; check whether"):
        as_image(opened)


def test_tensors_without_values_of_their_own_are_refused() -> None:
    with pytest.raises(InputError, match=r"got all of torch\.vmap"):
        torch.vmap(lambda volume: as_image(volume).data)(torch.zeros(2, *SHAPE))
    with FakeTensorMode(), pytest.raises(InputError, match="got a FakeTensor"):
        as_image(torch.zeros(SHAPE))
