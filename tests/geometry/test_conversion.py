"""Images of any package wherever a transform, a metric or a writer takes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from convexadam import (
    Affine,
    DisplacementField,
    FileError,
    Grid,
    Image,
    InputError,
    read_image,
    read_transform,
    write_image,
    write_transform,
)
from convexadam.geometry import resample
from convexadam.io import convert_image
from convexadam.metrics import evaluate_transform

SHAPE = (7, 6, 5)
AFFINE = np.array([[-2.0, 0, 0, 9], [0, 0, 1.5, 4], [0, -1.0, 0, 1], [0, 0, 0, 1]])
VALUES = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
LABELS = Image.from_array((4 * VALUES).int(), AFFINE)
IMAGE = Image.from_array(VALUES, AFFINE)
SHIFT = Affine(np.array([[1.0, 0, 0, 2], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]]))
FIELD = SHIFT.to_displacement_field(IMAGE)


def write(image: Image, folder: Path) -> Path:
    write_image(image, folder / "image.nii.gz")
    return folder / "image.nii.gz"


def to_itk(image: Image, _: Path) -> Any:
    return convert_image(image, pytest.importorskip("SimpleITK").Image)


def to_monai(image: Image, _: Path) -> Any:
    return convert_image(image, pytest.importorskip("monai.data").MetaTensor)


FORMS: dict[str, Callable[[Image, Path], Any]] = {
    "image": lambda image, _: image,
    "path": write,
    "text": lambda image, folder: str(write(image, folder)),
    "nibabel": lambda image, _: nibabel.Nifti1Image(image.numpy(), image.grid.affine),
    "SimpleITK": to_itk,
    "monai": to_monai,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_does(form: str, tmp_path: Path) -> None:
    given, labels = FORMS[form](IMAGE, tmp_path), FORMS[form](LABELS, tmp_path)
    if form in ("path", "text"):
        given = FORMS[form](IMAGE, tmp_path)  # the labels were written to the same file
    for transform in (SHIFT, FIELD):
        expected = transform.warp(IMAGE, IMAGE)
        torch.testing.assert_close(transform.warp(given, given).data, expected.data, atol=1e-5, rtol=0)
        assert transform.to_displacement_field(given).grid.is_close(IMAGE.grid)
        assert transform.jacobian(given).shape == SHAPE
        at = transform.warp_points([[1.0, 2, 3]], space="voxel", fixed=given, moving=given)
        torch.testing.assert_close(at, transform.warp_points([[1.0, 2, 3]], space="voxel", fixed=IMAGE, moving=IMAGE))
    assert FIELD.inverse(given).grid.is_close(IMAGE.grid)
    assert resample(given, given).grid.is_close(IMAGE.grid)
    write_image(given, tmp_path / "copy.nii.gz")
    torch.testing.assert_close(read_image(tmp_path / "copy.nii.gz").data, IMAGE.data)
    write_transform(SHIFT, tmp_path / "field.nii.gz", fixed=given)
    assert read_transform(tmp_path / "field.nii.gz").fixed_grid.is_close(IMAGE.grid)  # type: ignore[union-attr]
    labels = FORMS[form](LABELS, tmp_path)
    scores = evaluate_transform(Affine(), fixed_labels=labels, moving_labels=labels, mask=labels, surface=False)
    assert scores["dice"] == 1.0


def test_arrays_have_voxels_of_one_millimetre() -> None:
    plain = Image.from_array(VALUES)
    for array in (VALUES, VALUES.numpy()):
        assert torch.equal(SHIFT.warp(array, array).data, SHIFT.warp(plain, plain).data)


def test_a_transform_is_saved_and_read(tmp_path: Path) -> None:
    for transform, name in ((FIELD, "field.nii.gz"), (SHIFT, "shift.tfm")):
        transform.save(tmp_path / name)
        points = torch.tensor([[1.0, 2, 3]])
        torch.testing.assert_close(read_transform(tmp_path / name)(points), transform(points))
    SHIFT.save(tmp_path / "on_grid.nii.gz", fixed=IMAGE)
    FIELD.save(tmp_path / "flirt.nii.gz", format="fsl", moving=IMAGE.grid)
    found = read_transform(tmp_path / "flirt.nii.gz", format="fsl", fixed=IMAGE, moving=IMAGE)
    assert isinstance(found, DisplacementField)
    with pytest.raises(FileError, match="must end in"):
        FIELD.save(tmp_path / "field.jpg")


def test_errors_name_the_argument(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="image: there is no file"):
        FIELD.warp(tmp_path / "none.nii")
    with pytest.raises(FileError, match="reference: there is no file"):
        FIELD.warp(IMAGE, tmp_path / "none.nii")
    for call in (lambda: FIELD.warp(3), lambda: FIELD.warp(None), lambda: write_image(3, tmp_path / "a.nii")):
        with pytest.raises(InputError, match=r"image must be a path, an Image, a tensor"):
            call()
    with pytest.raises(InputError, match=r"reference must be a Grid or an image, got \(4, 5, 6\)"):
        FIELD.warp(IMAGE, (4, 5, 6))
    with pytest.raises(InputError, match="fixed_labels must be a path"):
        evaluate_transform(FIELD, fixed_labels=3, moving_labels=LABELS)
    with pytest.raises(InputError, match=r"moving: array must have three axes"):
        FIELD.warp_points([[1.0, 2, 3]], space="voxel", moving=np.eye(4))


def test_a_matrix_is_evaluated_on_a_grid() -> None:
    scores = evaluate_transform(SHIFT, reference=Grid((8, 9, 10)))
    assert scores["displacement_max_mm"] == pytest.approx(5**0.5)
