"""``convexadam.view``: what its pictures show, and that its controls change them."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import Grid, Image, InputError, MissingExtraError, view
from convexadam.viz.viewer import ViewScene

Pillow = pytest.importorskip("PIL.Image")

SHAPE = (16, 12, 10)
LIA = np.array([[-3.0, 0, 0, 9], [0, 0, 1.0, 4], [0, -2.0, 0, 1], [0, 0, 0, 1]])  # i to L, j to I, k to A
VALUES = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))
PLANES = ("axial", "coronal", "sagittal")


def find(widget: Any, kind: str) -> list[Any]:
    """Return the widgets of a class, in the order in which they are shown."""
    own = [widget] if type(widget).__name__ == kind else []
    return own + [found for child in getattr(widget, "children", ()) for found in find(child, kind)]


def pictures(widget: Any) -> list[np.ndarray]:
    return [np.asarray(Pillow.open(io.BytesIO(image.value))).astype(int) for image in find(widget, "Image")]


def test_the_cursor_crosses_in_all_planes() -> None:
    i, j, k = torch.meshgrid(*(torch.arange(float(n)) for n in SHAPE), indexing="ij")
    blob = torch.exp(-((i - 3) ** 2 + (j - 4) ** 2 + (k - 5) ** 2) / 8)
    scene = ViewScene.prepare(Image.from_array(blob, LIA), None, None)
    cursor = (15 - 3, 5, 11 - 4)  # R is -i, A is k, S is -j
    assert scene.describe(cursor).startswith("(0.0, 9.0, -7.0) mm RAS, image 1")
    for plane, picture in scene.draw(cursor, "image").items():
        crossed = (picture == (86, 180, 233)).all(axis=2)
        row, column = int(crossed.sum(axis=1).argmax()), int(crossed.sum(axis=0).argmax())
        assert crossed[row].all()
        assert crossed[:, column].all()
        weight = np.where(crossed, 0, np.maximum(picture[..., 0].astype(float) - 100, 0))
        centre = [float((weight * index).sum() / weight.sum()) for index in np.indices(weight.shape)]
        pixels = picture.shape[1] / SHAPE[{"sagittal": 2}.get(plane, 0)]  # of a voxel
        assert centre == pytest.approx([row, column], abs=pixels), plane  # the blob is under the cross


def test_images_are_compared() -> None:
    first = Image.from_array(VALUES, LIA)
    coarse = Image(1 - VALUES[None], Grid(SHAPE, LIA))
    scene = ViewScene.prepare(first, coarse, None)
    drawn = {mode: scene.draw((8, 5, 6), mode)["axial"].astype(float) for mode in ("image", "overlay", "both")}
    assert np.corrcoef(drawn["image"].ravel(), drawn["overlay"].ravel())[0, 1] < -0.8
    inner = drawn["both"][20:60, 20:60]
    assert inner.std() < 0.3 * drawn["image"][20:60, 20:60].std()
    board = scene.draw((8, 5, 6), "checkerboard")["axial"].astype(float)
    agrees = np.abs(board - drawn["image"]) < np.abs(board - drawn["overlay"])
    assert 0.3 < agrees.mean() < 0.7


def test_labels_are_outlined_and_named() -> None:
    labels = torch.zeros(SHAPE, dtype=torch.int32)
    labels[4:8, 3:9, 2:6] = 7
    scene = ViewScene.prepare(Image.from_array(VALUES, LIA), None, labels)
    with_lines, without = (scene.draw((15 - 5, 3, 11 - 5), "image", outlines=on)["axial"] for on in (True, False))
    changed = (with_lines != without).any(axis=2)
    assert 50 < int(changed.sum()) < changed.size / 4
    assert scene.describe((15 - 5, 3, 11 - 5)).endswith("label 7")
    assert scene.describe((0, 0, 0)).endswith("label 0")


def test_what_cannot_be_viewed() -> None:
    with pytest.raises(InputError, match="two voxels along two axes"):
        ViewScene.prepare(torch.rand(1, 1, 9), None, None)
    with pytest.raises(InputError, match="labels must have the shape of the shown image"):
        ViewScene.prepare(VALUES, None, torch.zeros(3, 4, 5))


def test_missing_ipywidgets_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(MissingExtraError, match=r"\[notebook\]"):
        view(VALUES)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_controls_change_the_pictures() -> None:
    pytest.importorskip("ipywidgets")
    labels = (VALUES > 0.5).to(torch.int32)
    widget = view(VALUES, 1 - VALUES, labels=labels)
    sliders, images = find(widget, "IntSlider"), find(widget, "Image")
    assert [slider.description for slider in sliders] == list(PLANES)
    assert [slider.max for slider in sliders] == [9, 11, 15]
    before, text = pictures(widget), find(widget, "Label")[0].value
    sliders[0].value = 2
    after = pictures(widget)
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))  # the cursor is in all of them
    assert find(widget, "Label")[0].value != text
    find(widget, "Checkbox")[0].value = False
    plain = [image.value for image in images]
    find(widget, "Play")[0].value = 1
    assert find(widget, "Dropdown")[0].value == "overlay"
    assert [image.value for image in images] != plain
    find(widget, "Play")[0].value = 0
    assert [image.value for image in images] == plain


def test_a_single_image_has_no_controls_of_two() -> None:
    pytest.importorskip("ipywidgets")
    widget = view(VALUES[:, :, :1])
    assert len(find(widget, "Image")) == 1
    assert find(widget, "Dropdown") == find(widget, "Play") == find(widget, "Checkbox") == []
