"""The structure of pages, read with the parser of the standard library."""

from __future__ import annotations

import base64
import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from convexadam import Affine, DisplacementField, FileError, Grid, Image, MissingExtraError, RegistrationResult
from convexadam.data import PhantomPair, phantom_pair
from convexadam.report import PairReport, QualityMeasures, judge_quality, write_pair_page, write_report
from convexadam.report.lattice import LatticePair
from convexadam.report.slices import choose_slices
from convexadam.viz.contrast import correlation_ratio, have_one_contrast
from convexadam.viz.pictures import colour_jacobian, draw_outlines, fit_size

VOID = {"meta", "link", "img", "input", "br"}


class Page(HTMLParser):
    """Elements of a page as (tag, attributes), and its text; fails where tags do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text, self._open = "", list[str]()
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.text += data

    def find(self, tag: str, **wanted: str) -> list[dict[str, str]]:
        names = {name.removesuffix("_"): value for name, value in wanted.items()}
        return [found for name, found in self.elements if name == tag and names.items() <= found.items()]


def read_page(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def decode(uri: str) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"), dtype=float)


@pytest.fixture(scope="module")
def pair_page(phantom: PhantomPair, registered: RegistrationResult, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("page") / "torso <3>.html"
    registered.report(path, labels=(phantom.fixed_labels, phantom.moving_labels))
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    return read_page(path)


def test_a_page_needs_nothing_else(pair_page: Page, cohort: Path) -> None:
    for page in (pair_page, read_page(cohort / "report.html")):
        for tag, attributes in page.elements:
            for name in ("src", "data-src", "href"):
                if name in attributes:
                    assert attributes[name].startswith(("data:", "pairs/")), tag
        assert [tag for tag, found in page.elements if tag == "script" and "src" in found] == []
    for text in ("http://", "https://", "@import", "url("):
        assert text not in (cohort / "report.html").read_text(encoding="utf-8")


def test_titles_are_escaped(pair_page: Page, cohort: Path) -> None:
    assert "torso <3>" in pair_page.text
    page = read_page(cohort / "report.html")
    assert "study <1>" in page.text
    assert "convexadam cohort '<x>'" in page.text


def test_ids_are_unique_and_pictures_have_a_text(pair_page: Page, cohort: Path) -> None:
    for page in (pair_page, read_page(cohort / "report.html")):
        ids = [found["id"] for _, found in page.elements if "id" in found]
        assert len(ids) == len(set(ids))
        assert all(found["alt"] for found in page.find("img"))
        assert page.elements[0] == ("html", {"lang": "en"})


def test_the_slices_of_a_pair(pair_page: Page) -> None:
    slices = pair_page.find("button", class_="slice")
    assert len(slices) == 9
    assert {label["aria-label"].split()[0] for label in slices} == {"axial", "coronal", "sagittal"}
    for reason in ("largest motion", "largest residual", "middle"):
        assert sum(reason in found["aria-label"] for found in slices) == 3
    layers = ("fixed", "before", "after", "outlines", "jacobian", "difference-before", "difference-after")
    assert all(len(pair_page.find("img", class_=name)) == 9 for name in layers)
    assert pair_page.find("img", class_="correlation") == []
    assert all(path["d"].startswith("M") for path in pair_page.find("path"))


def test_right_is_on_the_left(phantom: PhantomPair, measures: QualityMeasures, tmp_path: Path) -> None:
    grid = phantom.fixed.grid
    bright = torch.zeros(1, *grid.shape)
    bright[:, 20:] = 1000  # the patient's right: i goes to R
    bright[:, :, 25:] += 500  # and anterior
    image = Image(bright, grid)
    report = PairReport(
        title="x", transform=Affine(), fixed=image, moving=image, measures=measures, verdict=judge_quality(measures)
    )
    write_pair_page(report, tmp_path / "x.html")
    page = read_page(tmp_path / "x.html")
    axial = decode(next(found["src"] for found in page.find("img", class_="fixed") if "axial" in found["alt"]))[..., 0]
    half = axial.shape[1] // 3
    assert axial[:, :half].mean() > axial[:, -half:].mean() + 50
    assert axial[:30].mean() > axial[-30:].mean() + 20
    sides = [found["class"] for found in page.find("span") if found.get("class", "").startswith("edge")][:4]
    assert sides == ["edge left", "edge right", "edge up", "edge down"]
    assert "RLAP" in page.text.replace("\n", "")


def test_the_figures_have_what_is_usual_beside_them(pair_page: Page) -> None:
    for text in ("matched points", "above", "SDlogJ", "folded voxels", "below 1 %", "settings.toml", "torch"):
        assert text in pair_page.text
    assert "convexadam register fixed.nii.gz moving.nii.gz --output-dir OUT --config settings.toml" in pair_page.text


def test_two_contrasts_have_no_difference(measures: QualityMeasures, tmp_path: Path) -> None:
    pair = phantom_pair((36, 30, 26), contrasts=("ct", "t2"), seed=3)
    report = PairReport(
        title="x",
        transform=Affine(),
        fixed=pair.fixed,
        moving=pair.moving,
        measures=measures,
        verdict=judge_quality(measures),
    )
    write_pair_page(report, tmp_path / "x.html")
    page = read_page(tmp_path / "x.html")
    assert page.find("img", class_="difference-after") == []
    assert len(page.find("img", class_="correlation")) == 9
    assert {found["value"] for found in page.find("input", name="overlay")} == {
        "none",
        "checkerboard",
        "outlines",
        "grid",
        "jacobian",
        "correlation",
    }
    assert "iso-contours" in page.text


def test_folds_are_marked(phantom: PhantomPair, measures: QualityMeasures, tmp_path: Path) -> None:
    disp = torch.zeros(3, *phantom.fixed.grid.shape)
    disp[0, 12:18] = torch.arange(6.0)[:, None, None] * -2
    report = PairReport(
        title="x",
        transform=DisplacementField.from_voxels(disp, phantom.fixed.grid),
        fixed=phantom.fixed,
        moving=phantom.moving,
        measures=measures,
        verdict=judge_quality(measures),
    )
    write_pair_page(report, tmp_path / "x.html")
    assert "folded voxels" in "".join(read_page(tmp_path / "x.html").text.split("Figures")[0])


def test_the_colours_of_the_jacobian() -> None:
    colours = colour_jacobian(np.array([[1.0, 0.25, 4.0, -0.1, 0.0, 0.5, 2.0]]))[0].astype(int)
    assert colours[0].min() > 235, "1 is white"
    assert colours[3].tolist() == colours[4].tolist() == [0, 0, 0], "folds are black"
    assert colours[1][2] > colours[1][0] > colours[1][1], "a quarter is purple"
    assert colours[2][0] > colours[2][1] > colours[2][2], "four times is orange"
    assert (colours[1] > 0).any()
    assert colours[5][2] > colours[5][0]
    assert colours[6][0] > colours[6][2]


def test_outlines_are_the_boundaries_of_regions() -> None:
    regions = np.zeros((6, 7), int)
    regions[2:4, 3:] = 5
    picture = draw_outlines(regions, (230, 159, 0))
    edge = picture[..., 3] > 0
    assert edge[1, 3:].all()
    assert edge[3, 3:].all()
    assert edge[2:4, 2].all()
    assert edge.sum() == 4 + 4 + 2
    assert picture[1, 4].tolist() == [230, 159, 0, 255]


def test_pictures_have_the_aspect_of_the_patient() -> None:
    assert fit_size((10, 20), 4.0, 400) == (200, 400)
    assert fit_size((20, 10), 0.25, 400) == (400, 200)


def shift_grid(grid: Grid, k: int) -> Grid:
    """Return the grid of the voxels from index k on along the last axis."""
    affine = grid.affine.copy()
    affine[:3, 3] += k * affine[:3, 2]
    return Grid((grid.shape[0], grid.shape[1], grid.shape[2] - k), affine)


def test_slices_go_where_motion_and_residual_are() -> None:
    grid = Grid((40, 40, 40), np.diag([2.0, 2, 2, 1]))
    values = torch.rand(1, 40, 40, 40, generator=torch.Generator().manual_seed(0))
    other = values.clone()
    other[..., 30:33] = torch.rand(1, 40, 40, 3, generator=torch.Generator().manual_seed(1))
    pair = LatticePair.sample(Affine(), Image(values, grid), Image(other, grid), (None, None))
    motion = np.zeros(pair.grid.shape)
    motion[:, :, 10] = 3
    chosen = {c.reason: c.index for c in choose_slices(pair, motion, grid) if c.plane == "axial"}
    assert chosen["largest motion"] == pytest.approx(10, abs=1)
    assert chosen["largest residual"] == pytest.approx(31, abs=2)
    assert chosen["middle"] == pytest.approx(20, abs=2)
    half = LatticePair.sample(Affine(), Image(values, grid), Image(other[..., 15:], shift_grid(grid, 15)), (None, None))
    chosen = {c.reason: c.index for c in choose_slices(half, motion, grid) if c.plane == "axial"}
    assert chosen["largest residual"] == pytest.approx(31, abs=2), "not where the moving image does not reach"


def test_a_single_slice(measures: QualityMeasures, tmp_path: Path) -> None:
    image = Image(torch.rand(1, 30, 26, 1), Grid((30, 26, 1)))
    report = PairReport(
        title="x", transform=Affine(), fixed=image, moving=image, measures=measures, verdict=judge_quality(measures)
    )
    write_pair_page(report, tmp_path / "x.html")
    labels = [found["aria-label"] for found in read_page(tmp_path / "x.html").find("button", class_="slice")]
    assert [label.split()[0] for label in labels] == ["axial"]


def test_the_page_of_a_cohort(cohort: Path) -> None:
    page = read_page(cohort / "report.html")
    rows = page.find("tr", **{"data-grade": "failed"})
    assert len(page.find("tr", **{"data-grade": "ok"})) == 5
    assert [row["data-text"].split()[0] for row in rows] == ["sub-6", "sub-3"], "the most unusual first"
    assert 'inputerror: "no" overlap, at all' in rows[0]["data-text"]
    links = {found["href"] for found in page.find("a") if not found["href"].startswith("data:")}
    assert links == {f"pairs/sub-{number}/report.html" for number in range(6)}
    assert all((cohort / link).is_file() for link in links)
    assert len(page.find("input", name="exclude")) == 7
    assert page.find("th", **{"data-column": "dice"})
    assert page.find("th", **{"data-column": "seconds"})
    plots = [found["aria-label"].split(":")[0] for found in page.find("svg", role="img")]
    assert plots == ["Dice", "matched points", "seconds"], "the others do not differ between the pairs"
    thumbnails = page.find("img")
    assert len(thumbnails) == 6
    assert all("src" not in found and found["data-src"].startswith("data:image/webp") for found in thumbnails)
    pair = read_page(cohort / "pairs" / "sub-0" / "report.html")
    assert "median of 5 others" in pair.text
    assert (cohort / "pairs" / "sub-0" / pair.find("a")[0]["href"]).resolve() == cohort / "report.html"


def test_pages_that_are_new_enough_are_kept(cohort: Path) -> None:
    assert list(write_report(cohort)) == [cohort / "report.html"]


def test_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"folder must hold a report.json or a cohort.csv, got .* with neither"):
        list(write_report(tmp_path))
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FileError, match=r"must name the files of both images under inputs, got none"):
        list(write_report(tmp_path))
    inputs = {"inputs": {"fixed": str(tmp_path / "a.nii"), "moving": str(tmp_path / "b.nii")}}
    (tmp_path / "report.json").write_text(json.dumps(inputs), encoding="utf-8")
    with pytest.raises(FileError, match=r"the fixed image of .* must be where it was, got no file"):
        list(write_report(tmp_path))
    (tmp_path / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(FileError, match="must hold JSON, got an error"):
        list(write_report(tmp_path))
    (tmp_path / "cohort.csv").write_text("name\nx\n", encoding="utf-8")
    with pytest.raises(FileError, match="must have a column id, got none"):
        list(write_report(tmp_path))


@pytest.mark.parametrize("package", ["PIL", "matplotlib"])
def test_without_the_extra(
    package: str, registered: RegistrationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=r"must be installed .*pip install \"convexadam-torch\[report\]\""):
        registered.report(tmp_path / "x.html")
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written(registered: RegistrationResult, tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not a folder; create it first"):
        registered.report(tmp_path / "missing" / "x.html")


def test_one_contrast_or_two() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=5000)
    noise = 0.3 * rng.normal(size=5000)
    assert have_one_contrast(first, 3 * first + 7 + noise)
    assert have_one_contrast(first, -first + noise), "an inverted image is a linear one"
    assert not have_one_contrast(first, first**2 + noise)
    assert not have_one_contrast(first, np.sin(2 * first) + noise)
    assert not have_one_contrast(first, np.zeros(5000))


def test_the_correlation_ratio_is_the_share_of_groups() -> None:
    groups = np.repeat(np.arange(32), 10)
    values = np.random.default_rng(1).normal(size=320) + groups % 3
    between = sum(10 * (values[groups == g].mean() - values.mean()) ** 2 for g in range(32))
    assert correlation_ratio(groups.astype(float), values) == pytest.approx(between / (320 * values.var()))
