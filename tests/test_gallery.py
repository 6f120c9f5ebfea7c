"""The pictures of the gallery are those that its script draws now: as many panels, of the same size."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as Pillow

pytest.importorskip("matplotlib")

DOCS = Path(__file__).resolve().parents[1] / "docs"
SMALL = (24, 20, 18)
SLOW = {"deformable", "two_contrasts", "template", "atlases", "series", "jacobian", "inverse"}


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(DOCS / "gallery.py"))


FIGURES = ["features", "costs", "coupling", "refinement"]
NAMES = ["deformable", "two_contrasts", "labels", "linear", "template", "atlases", "series", "jacobian", "inverse"]


def test_every_picture_has_a_file_and_a_place(script: dict[str, Any]) -> None:
    files = {path.stem for path in (DOCS / "images" / "gallery").glob("*.png")}
    assert list(script["PICTURES"]) == NAMES
    assert files == set(NAMES)
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    assert all(f"(images/gallery/{name}.png)" in page for name in NAMES)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.long] * (n in SLOW)) for n in NAMES])
@pytest.mark.filterwarnings("ignore:the linear alignment found no transform:UserWarning")
@pytest.mark.filterwarnings("ignore:No contour levels:UserWarning")
def test_the_file_has_the_structure_of_the_picture(name: str, script: dict[str, Any], tmp_path: Path) -> None:
    kept = DOCS / "images" / "gallery" / f"{name}.png"
    script["save"](script["PICTURES"][name](SMALL), tmp_path / "new.png")
    compare(kept, tmp_path / "new.png")


def compare(kept: Path, drawn: Path) -> None:
    with Pillow.open(kept) as old, Pillow.open(drawn) as new:
        assert old.size == new.size
        assert old.info["Panels"] == new.info["Panels"]
        assert len(old.convert("RGB").getcolors(1 << 20)) > 16  # it shows something
    assert kept.stat().st_size < 100_000


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:No contour levels:UserWarning")
def test_the_figures_of_the_method_are_those_of_the_script(tmp_path: Path) -> None:
    script = runpy.run_path(str(DOCS / "method.py"))
    kept = DOCS / "images" / "method"
    assert list(script["FIGURES"]) == FIGURES
    assert {path.stem for path in kept.glob("*.png")} == set(FIGURES)
    stages = script["Stages"].of((32, 28, 24))
    for name, draw in script["FIGURES"].items():
        script["save"](draw(stages), tmp_path / f"{name}.png")
        compare(kept / f"{name}.png", tmp_path / f"{name}.png")
