"""2-D images of files and of other packages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from convexadam import ConfigError, InputError, as_image, read_image

VALUES = np.arange(30, dtype=np.float32).reshape(5, 6)
AFFINE = np.array([[2.0, 0, 0, 5], [0, 0, 4.0, 7], [0, 3.0, 0, -4], [0, 0, 0, 1]])


def remove_third_axis(path: Path, form: str) -> None:
    """Change a header so that it says nothing of the direction across, as some programs write it."""
    content = path.read_bytes()
    header: Any = nibabel.Nifti1Header(content[:348])
    header["pixdim"][3] = 0
    header["qform_code"], header["sform_code"] = (0, 1) if form == "sform" else (1, 0)
    for name in ("srow_x", "srow_y", "srow_z"):
        header[name][2] = 0
    path.write_bytes(header.binaryblock + content[348:])


@pytest.mark.parametrize("form", ["both", "sform", "qform"])
def test_nifti_of_two_axes(form: str, tmp_path: Path) -> None:
    nifti: Any = nibabel.Nifti1Image(VALUES, AFFINE)
    nifti.set_qform(AFFINE, 1)
    nifti.set_sform(AFFINE, 1)
    path = tmp_path / "plane.nii"
    nibabel.save(nifti, path)
    if form != "both":
        remove_third_axis(path, form)
    assert int(nibabel.load(path).header["dim"][0]) == 2  # type: ignore[attr-defined]
    image = read_image(path)
    assert image.grid.shape == (5, 6, 1)
    assert np.array_equal(image.numpy()[:, :, 0], VALUES)
    np.testing.assert_allclose(image.grid.affine[:, [0, 1, 3]], AFFINE[:, [0, 1, 3]], atol=1e-6)
    across = image.grid.affine[:3, 2]
    np.testing.assert_allclose(np.abs(across), [0, 4 if form == "both" else 1, 0], atol=1e-6)
    loaded = as_image(nibabel.load(path))
    assert loaded.grid.is_close(image.grid)


@pytest.mark.parametrize("form", [VALUES, torch.from_numpy(VALUES)], ids=["array", "tensor"])
def test_arrays_of_two_axes(form: Any) -> None:
    image = as_image(form, AFFINE, dims=2)
    assert image.grid.shape == (5, 6, 1)
    assert image.grid.dims == 2
    assert np.array_equal(image.numpy()[:, :, 0], VALUES)
    with pytest.raises(InputError, match=r"three axes .*dims=2"):
        as_image(form, AFFINE)


def test_channels_come_first_in_tensors() -> None:
    image = as_image(torch.zeros(3, 5, 6), dims=2)
    assert image.data.shape == (3, 5, 6, 1)


def test_simpleitk_images_of_two_axes() -> None:
    sitk = pytest.importorskip("SimpleITK")
    plane = sitk.GetImageFromArray(VALUES.T)
    plane.SetSpacing((2.0, 3.0))
    plane.SetOrigin((5.0, -7.0))
    plane.SetDirection((0.0, 1.0, 1.0, 0.0))
    image = as_image(plane, dims=2)
    assert np.array_equal(image.numpy()[:, :, 0], VALUES)
    for index in ((0, 0), (4, 5)):
        x, y = plane.TransformIndexToPhysicalPoint(index)
        found = image.grid.index_to_world(torch.tensor([[*index, 0.0]]))[0]
        assert found.tolist() == [-x, -y, 0.0]  # LPS to RAS
    with pytest.raises(InputError, match="got 2 axes"):
        as_image(plane)


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (np.zeros((4, 5, 6)), InputError, r"2-D image must be an array or tensor \[i, j\].* got shape \(4, 5, 6\)"),
        (torch.zeros(1, 4, 5, 6), InputError, "omit dims=2 for a volume"),
        (nibabel.Nifti1Image(np.zeros((4, 5, 6), np.float32), np.eye(4)), InputError, "single slice for dims=2, got"),
    ],
)
def test_volumes_are_no_slices(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        as_image(value, dims=2)


def test_dimensions_are_two_or_three(monkeypatch: pytest.MonkeyPatch) -> None:
    import jaxtyping

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    bad: Any = 4
    with pytest.raises(ConfigError, match="dims must be 2 or 3, got 4"):
        as_image(VALUES, dims=bad)
