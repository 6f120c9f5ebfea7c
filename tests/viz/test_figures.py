"""Figures are checked by what their axes hold, and by the file that appears."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from convexadam.data import phantom_pair
from convexadam.errors import FileError, GeometryError, InputError, MissingExtraError
from convexadam.geometry import DisplacementField, Grid, Image
from convexadam.viz import registration_figure
from convexadam.viz.slices import robust_window

pytest.importorskip("matplotlib")

SHAPE = (9, 12, 7)
LIA = np.array([[-3.0, 0, 0, 9], [0, 0, 1.0, 4], [0, -2.0, 0, 1], [0, 0, 0, 1]])  # i to L, j to I, k to A
ROWS = 3


def image_of(values: torch.Tensor, affine: np.ndarray | None = None) -> Image:
    return Image.from_array(values, affine)


def ramp(axis: int) -> torch.Tensor:
    size = [1, 1, 1]
    size[axis] = SHAPE[axis]
    return torch.arange(SHAPE[axis], dtype=torch.float32).reshape(size).expand(SHAPE).contiguous()


def pictures(figure: object, column: int, columns: int) -> list[np.ndarray]:
    return [np.asarray(figure.axes[row * columns + column].images[0].get_array()) for row in range(ROWS)]  # type: ignore[attr-defined]


def test_a_png_appears_and_nothing_else(tmp_path: Path) -> None:
    image = image_of(torch.rand(SHAPE))
    target = tmp_path / "figure.png"
    target.write_bytes(b"old")
    registration_figure(image, image, image, torch.zeros(3, *SHAPE), path=target)
    assert target.read_bytes().startswith(b"\x89PNG")
    assert list(tmp_path.iterdir()) == [target]


def test_rows_and_columns() -> None:
    image = image_of(torch.rand(SHAPE))
    assert len(registration_figure(image, image, image).axes) == 3 * 6
    figure = registration_figure(image, image, image, torch.ones(3, *SHAPE))
    assert len(figure.axes) == 3 * 7 + 3  # and three colour bars
    assert [figure.axes[row * 7].get_ylabel() for row in range(3)] == ["axial", "coronal", "sagittal"]
    assert "mm" in figure.axes[6].get_title()


def test_patient_right_is_left_and_anterior_and_head_are_up() -> None:
    # Canonical axes of LIA: R is -i, A is k, S is -j. Each ramp grows along one patient direction.
    right, anterior, head = -ramp(0), ramp(2), -ramp(1)
    shown = [pictures(registration_figure(*[image_of(v, LIA)] * 3), 0, 6) for v in (right, anterior, head)]
    axial, coronal, sagittal = range(3)
    assert bool((np.diff(shown[0][axial], axis=1) <= 0).all())
    assert shown[0][axial][0, 0] > shown[0][axial][0, -1]
    assert shown[1][axial][0, 0] > shown[1][axial][-1, 0]
    assert shown[0][coronal][0, 0] > shown[0][coronal][0, -1]
    assert shown[2][coronal][0, 0] > shown[2][coronal][-1, 0]
    assert shown[1][sagittal][0, 0] > shown[1][sagittal][0, -1]
    assert shown[2][sagittal][0, 0] > shown[2][sagittal][-1, 0]


def test_aspect_follows_the_spacing() -> None:
    figure = registration_figure(*[image_of(torch.rand(SHAPE), LIA)] * 3)  # R 3 mm, A 1 mm, S 2 mm
    assert [figure.axes[row * 6].get_aspect() for row in range(3)] == pytest.approx([1 / 3, 2 / 3, 2.0])


def test_differences_vanish_for_a_perfect_result() -> None:
    fixed, moving = image_of(torch.rand(SHAPE)), image_of(torch.rand(SHAPE))
    figure = registration_figure(fixed, moving, Image(fixed.data.clone(), fixed.grid))
    before, after = pictures(figure, 4, 6), pictures(figure, 5, 6)
    assert all(float(p.mean()) > 0.1 for p in before)
    # moved is shown in the window of moving, which has nearly the same distribution here
    assert all(float(p.mean()) < 0.05 for p in after)


@pytest.mark.parametrize("affine", [None, LIA])
def test_the_grid_is_drawn_where_the_transform_takes_it(affine: np.ndarray | None) -> None:
    image = image_of(torch.rand(SHAPE), affine)
    shift_mm = torch.tensor([6.0, 2.0, -4.0])[:, None, None, None].expand(3, *SHAPE)
    figure = registration_figure(image, image, image, shift_mm)
    spacing = image.grid.canonical().spacing_mm
    first = figure.axes[6].lines[0].get_xydata()  # top line of the axial slice, which starts at pixel (0, 0)
    assert first[0].tolist() == pytest.approx([-6 / spacing[0], -2 / spacing[1]])
    head = figure.axes[13].lines[0].get_xydata()[0]
    assert head.tolist() == pytest.approx([-6 / spacing[0], 4 / spacing[2]])
    assert np.asarray(figure.axes[6].images[0].get_array()).max() == pytest.approx(56**0.5)


def test_an_oblique_volume_decomposes_the_field_along_its_own_axes() -> None:
    c, s = np.cos(0.4), np.sin(0.4)
    affine = np.array([[2 * c, -3 * s, 0, 0], [2 * s, 3 * c, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1]])
    image = image_of(torch.rand(SHAPE), affine)
    along_i = torch.tensor([8 * c, 8 * s, 0.0], dtype=torch.float32)[:, None, None, None].expand(3, *SHAPE)
    figure = registration_figure(image, image, image, along_i)
    start = figure.axes[6].lines[0].get_xydata()[0]
    assert start.tolist() == pytest.approx([-4.0, 0.0], abs=1e-5)


def test_windows_are_robust() -> None:
    values = np.concatenate([np.full(5000, -1000.0), np.linspace(-100, 200, 4000), [30000.0, np.nan]])
    black, white = robust_window(values)
    assert -300 < black < -80
    assert 150 < white < 250
    assert robust_window(np.full((3, 3), 7.0)) == (7.0, 8.0)


def test_labels_several_channels_and_nan_are_drawn() -> None:
    values = torch.rand(2, *SHAPE)
    values[0, 0, 0, 0] = torch.nan
    image = Image(values, Grid(SHAPE))
    labels = Image(torch.randint(0, 4, (1, *SHAPE), dtype=torch.int32), image.grid)
    assert len(registration_figure(image, labels, labels).axes) == 21  # they are unrelated, as two contrasts are


def test_pyplot_is_not_used() -> None:
    image = image_of(torch.rand(SHAPE))
    before = "matplotlib.pyplot" in sys.modules
    registration_figure(image, image, image)
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_images_on_other_grids_are_resampled() -> None:
    values = torch.rand(SHAPE[0] + 3, SHAPE[1] + 1, SHAPE[2])
    shift = np.eye(4)
    shift[:3, 3] = -2, -1, 0
    fixed, moving = image_of(torch.rand(SHAPE)), image_of(values, shift)
    found = registration_figure(fixed, moving, moving, torch.zeros(3, *SHAPE))
    window = robust_window(values.numpy())
    slab = np.clip((values[2:-1, 1:, SHAPE[2] // 2].numpy()[::-1, ::-1].T - window[0]) / (window[1] - window[0]), 0, 1)
    np.testing.assert_allclose(np.asarray(found.axes[1].images[0].get_array()), slab, atol=1e-5)
    with pytest.raises(GeometryError, match="disp_mm"):
        registration_figure(fixed, moving, fixed, torch.zeros(3, 4, 5, 6))


def test_two_contrasts_have_no_difference() -> None:
    pair = phantom_pair((32, 28, 24), contrasts=("ct", "t1"), noise=0.2)
    truth = DisplacementField.from_voxels(pair.disp_vox, pair.fixed.grid)
    figure = registration_figure(pair.fixed, pair.moving, truth.warp(pair.moving), truth.disp_mm)
    titles = [axis.get_title().partition("\n")[0] for axis in figure.axes[:8]]
    assert titles == [
        *("fixed", "moving", "moved", "fixed / moving", "fixed / moved", "local dissimilarity", "local dissimilarity"),
        "displacement, mm",
    ]
    for row in range(ROWS):
        before, after = (float(np.asarray(figure.axes[8 * row + c].images[0].get_array()).mean()) for c in (5, 6))
        assert after < before
    one = phantom_pair((32, 28, 24), contrasts=("t1", "t1"), noise=0.2)
    titles = [axis.get_title() for axis in registration_figure(one.fixed, one.moving, truth.warp(one.moving)).axes[:6]]
    assert [title[0] for title in titles[4:]] == ["|", "|"]


def test_labels_are_outlined() -> None:
    image = image_of(torch.rand(SHAPE))
    maps = torch.zeros(SHAPE, dtype=torch.int32), torch.zeros(SHAPE, dtype=torch.int32)
    maps[0][3:6, 4:8, 2:5], maps[1][3:7, 4:8, 2:5] = 5, 5
    figure = registration_figure(image, image, image, labels=(image_of(maps[0]), image_of(maps[1])))
    assert [len(figure.axes[column].collections) for column in range(4)] == [0, 1, 2, 0]
    outline = figure.axes[1].collections[0].get_paths()[0].vertices
    # i from 3 to 5 and j from 4 to 7, counted from the other end, with half a voxel around
    assert outline.min(axis=0).tolist() == [8 - 5.5, 11 - 7.5]
    assert outline.max(axis=0).tolist() == [8 - 2.5, 11 - 3.5]


def test_figures_draw_themselves_in_notebooks() -> None:
    image = image_of(torch.rand(SHAPE))
    assert registration_figure(image, image, image)._repr_png_().startswith(b"\x89PNG")


def test_an_image_without_values_is_refused() -> None:
    image = image_of(torch.rand(SHAPE))
    with pytest.raises(InputError, match="moved must have a finite value"):
        registration_figure(image, image, image_of(torch.full(SHAPE, torch.nan)))


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    image = image_of(torch.rand(SHAPE))
    with pytest.raises(FileError, match="cannot write"):
        registration_figure(image, image, image, path=tmp_path / "missing" / "figure.png")
    folder = tmp_path / "figure.png"
    folder.mkdir()
    with pytest.raises(FileError, match="got a folder"):
        registration_figure(image, image, image, path=folder)
    assert list(tmp_path.iterdir()) == [folder]


def test_missing_matplotlib_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(torch.rand(SHAPE))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r'pip install "convexadam-torch\[report\]"'):
        registration_figure(image, image, image)


def test_a_single_slice_has_one_row(tmp_path: Path) -> None:
    flat = Image(torch.rand(1, 20, 16, 1), Grid((20, 16, 1)))
    figure = registration_figure(flat, flat.numpy(), flat, torch.zeros(3, 20, 16, 1))
    assert len(figure.axes) == 7 + 1  # and a colour bar
    assert figure.axes[0].get_ylabel() == "axial"
    assert figure._repr_png_()
