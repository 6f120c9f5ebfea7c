"""What notebooks show: pictures that open, decoded again, and text where nothing can be drawn."""

from __future__ import annotations

import base64
import io
import re
import sys
import time
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import torch

from convexadam import Affine, Composite, DisplacementField, Grid, Image, compose

pytest.importorskip("matplotlib")
Pillow = pytest.importorskip("PIL.Image")

SHAPE = (24, 20, 16)
LIA = np.array([[-3.0, 0, 0, 9], [0, 0, 1.0, 4], [0, -2.0, 0, 1], [0, 0, 0, 1]])  # i to L, j to I, k to A
LARGEST = 300_000
TURN = np.array([[0.0, -1, 0, 5], [1, 0, 0, -3], [0, 0, 1, 2], [0, 0, 0, 1]])


class Page(HTMLParser):
    """Pictures and words of a page; every element must be closed, and nothing is loaded from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures: list[np.ndarray] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open
        assert len(text) < LARGEST
        assert not re.search(r"<script|<link|url\(|https?:", text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag != "img":
            self._open.append(tag)
            return
        head, _, code = str(given["src"]).partition(",")
        assert re.fullmatch(r"data:image/(webp|png);base64", head)
        picture = np.asarray(Pillow.open(io.BytesIO(base64.b64decode(code))))
        assert picture.shape[:2] == (int(str(given["height"])), int(str(given["width"])))
        self.pictures.append(picture)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def page(value: Any) -> Page:
    return Page(value._repr_html_())


def ramp(axis: int) -> torch.Tensor:
    size = [1, 1, 1]
    size[axis] = SHAPE[axis]
    return torch.arange(SHAPE[axis], dtype=torch.float32).reshape(size).expand(SHAPE).contiguous()


def wave(amplitude_vox: float) -> DisplacementField:
    i = torch.linspace(0, 2 * torch.pi, SHAPE[0])[:, None, None].expand(SHAPE)
    return DisplacementField.from_voxels(torch.stack([amplitude_vox * i.sin(), 0 * i, 0 * i]), Grid(SHAPE))


def test_an_image_shows_three_planes_in_radiological_convention() -> None:
    for values, plane in ((-ramp(0), 0), (-ramp(0), 1), (ramp(2), 2)):  # patient right, right, anterior
        shown = page(Image.from_array(values, LIA))
        assert len(shown.pictures) == 3
        columns = shown.pictures[plane].astype(float).mean(axis=(0, 2))
        assert columns[0] > columns[-1] + 50
    rows = page(Image.from_array(-ramp(1), LIA)).pictures[1].astype(float).mean(axis=(1, 2))
    assert rows[0] > rows[-1] + 50
    assert any("24x20x16 voxels of 3x2x1 mm" in words for words in shown.words)


def test_pictures_have_the_proportions_of_the_anatomy() -> None:
    axial, coronal, sagittal = page(Image.from_array(ramp(0), LIA)).pictures
    for picture, (height_mm, width_mm) in ((axial, (16, 72)), (coronal, (40, 72)), (sagittal, (40, 16))):
        assert picture.shape[0] / picture.shape[1] == pytest.approx(height_mm / width_mm, rel=0.05)


@pytest.mark.parametrize(
    "data",
    [
        torch.full((1, 5, 6, 7), torch.nan),
        torch.zeros(1, 1, 1, 1),
        torch.rand(1, 1, 9, 1),
        torch.rand(1, 8, 9, 1),
        torch.rand(2, 4, 5, 6, dtype=torch.bfloat16),
        torch.rand(1, 4, 5, 6, dtype=torch.float64) * 1e300,
        torch.rand(1, 4, 5, 6) > 0.5,
        torch.randint(-9, 9, (1, 4, 5, 6), dtype=torch.int16),
        torch.rand(1, 4, 5, 6, requires_grad=True),
    ],
    ids=lambda data: f"{tuple(data.shape)} {data.dtype}",
)
def test_every_image_shows_something(data: torch.Tensor) -> None:
    image = Image(data, Grid(tuple(data.shape[1:])))
    planes = sum(min(n for a, n in enumerate(data.shape[1:]) if a != axis) > 1 for axis in range(3))
    shown = page(image)
    assert len(shown.pictures) == planes
    assert shown.words[0] == "Image"  # not the text that stands for a failure
    assert "\n" not in repr(image)


def test_a_field_shows_its_grid_and_its_volume_change() -> None:
    shown = page(wave(2.0))
    grids, maps = shown.pictures[:3], shown.pictures[3:]
    assert len(maps) == 3
    straight = page(wave(0.0)).pictures[0]
    assert not np.array_equal(grids[0], straight)
    # The derivative of the wave is positive at both ends along R, and negative in the middle: orange, purple, orange.
    red_minus_blue = (maps[0][..., 0].astype(int) - maps[0][..., 2].astype(int)).mean(axis=0)
    assert red_minus_blue[8] > 20 > -20 > red_minus_blue[len(red_minus_blue) // 2]
    assert red_minus_blue[-8] > 20
    folded = page(wave(8.0))
    assert any(re.search(r"[1-9]\d* folded", words) for words in folded.words)
    assert float(folded.pictures[3].min()) < 20  # black
    assert any(" 0 folded" in words for words in shown.words)


def test_an_affine_shows_its_matrix() -> None:
    words = page(Affine(TURN)).words
    assert "0 -1 0 5; 1 0 0 -3; 0 0 1 2 (mm RAS+)" in words
    assert "90°" in words


def test_a_chain_shows_its_parts() -> None:
    affine = Affine(TURN)
    chain = compose(affine, wave(2.0))
    assert repr(chain) == f"Composite({affine!r}, then {wave(2.0)!r})"
    assert not page(chain).pictures  # it has no grid in fixed space
    assert len(page(compose(wave(2.0), affine)).pictures) == 6
    assert {"part 1", "part 2"} <= set(page(chain).words)
    assert not page(Composite((affine, affine))).pictures


def test_without_pillow_there_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    image = Image.from_array(ramp(0))
    assert page(image).words == [repr(image)]
    assert page(wave(1.0)).words == [repr(wave(1.0))]
    assert "90°" in page(Affine(TURN)).words  # which needs no picture


def test_a_large_volume_takes_less_than_a_second() -> None:
    data = torch.rand(1, 192, 192, 192, generator=torch.Generator().manual_seed(0))
    grid = Grid((192, 192, 192))
    for value in (Image(data, grid), DisplacementField(data.expand(3, -1, -1, -1), grid)):
        page(value)  # imports what is needed
        start = time.process_time()
        assert len(page(value).pictures) >= 3
        assert time.process_time() - start < 1
