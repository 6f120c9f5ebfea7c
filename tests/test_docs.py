"""The documentation is true: links, names, code, commands, settings files and generated tables.

Every block of code in README.md and docs/*.md is run, unless the line before it is ``<!-- not run: REASON -->``. The
blocks that are not run are listed in `NOT_RUN`, so that a new one is a decision.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import re
import runpy
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convexadam
from convexadam import Affine, Image, RegistrationConfig, write_image
from convexadam.cli import main
from convexadam.data import phantom_pair
from convexadam.io import formats, write_landmarks
from convexadam.registration import presets
from convexadam.series import FrameSeries, write_series
from convexadam.tuning import Space

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = ROOT / "docs" / "reference"
"""Pages that docs/generate.py writes of docstrings; the strict build of the site checks their links."""
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])
TUTORIALS = ROOT / "docs" / "tutorials"
named = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))

NOT_RUN = {
    "README.md": 1,
    "cohort.md": 6,
    "extending.md": 3,
    "features.md": 1,
    "index.md": 1,
    "learn2reg.md": 2,
    "performance.md": 1,
    "recipes.md": 7,
    "tuning.md": 3,
}
"""Blocks of code of each page that cannot be run here."""

OTHERS = {"--build-arg", "--gpus", "--withaff"}
"""Options of other programs, in the text."""

DATA = {"csv", "text"}
"""Languages of blocks that are no code."""

SHAPE = (32, 28, 24)


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    page: str
    line: int
    language: str
    text: str
    reason: str
    """Why it is not run; empty if it is."""


def blocks(path: Path) -> list[Block]:
    found, language, reason, begin = [], None, "", 0
    lines: list[str] = []
    text = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(text, start=1):
        if line.startswith("```") and language is None:
            language, lines, begin = line.removeprefix("```").partition(" ")[0], [], number
            comment = re.fullmatch(r"<!-- not run: (.+) -->", text[number - 2]) if number > 1 else None
            reason = comment[1] if comment else ""
        elif line.startswith("```"):
            assert language is not None
            found.append(Block(path.name, begin, language, "\n".join(lines) + "\n", reason))
            language = None
        else:
            lines.append(line)
    assert language is None, f"{path.name}: a block of code does not end"
    return found


BLOCKS = [block for path in PAGES for block in blocks(path)]


def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Links and names


def test_there_are_documents() -> None:
    assert {"README.md", "how-do-i.md", "glossary.md", "settings.md"} <= {path.name for path in DOCUMENTS}


def anchors(path: Path) -> set[str]:
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w -]", "", line.lstrip("# ")).strip().lower().replace(" ", "-") for line in lines}


@named
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    for file, _, anchor in (target.partition("#") for target in targets):
        target = path.parent / file if file else path
        if target.parent == TUTORIALS:  # docs/hooks.py makes them of the examples
            target = ROOT / "examples" / f"{target.stem}.py"
        assert target.exists(), file
        assert "docs" not in path.parent.parts or not file.startswith(".."), f"{file} is no page of the documentation"
        if anchor and target.parent == REFERENCE:
            assert f"::: {anchor}\n" in target.read_text(encoding="utf-8"), f"{file}#{anchor}"
        elif anchor:
            assert anchor in anchors(target), f"{file}#{anchor}"


def test_every_page_is_in_the_navigation() -> None:
    listed = re.findall(r"([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    tutorials = {f"tutorials/{path.stem}.md" for path in (ROOT / "examples").glob("*.py")}
    assert Counter(listed) == Counter(pages | tutorials)


def test_every_page_is_linked_from_another_one() -> None:
    """A page that only the navigation names is found by nobody who reads the pages in the repository."""
    texts = {path: path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]}
    for page in texts:
        others = "\n".join(text for path, text in texts.items() if path != page)
        assert page.name == "README.md" or re.search(rf"\]\([\w/.-]*\b{page.name}[)#]", others), page.name


@named
def test_public_names_exist(path: Path) -> None:
    if path.name == "CHANGELOG.md":
        return  # it also has the names of before
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"\bca\.(\w+)", text):
        assert name in convexadam.__all__
    packages = (
        "io|metrics|data|geometry|linear|discrete|features|continuous|learn2reg|tuning|cohort|executors|registration|report"
        "|template|segmentation|series"
    )
    for module, name in re.findall(rf"\bconvexadam\.({packages})\.(\w+)", text):
        assert hasattr(importlib.import_module(f"convexadam.{module}"), name), (module, name)


def public() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for module in ("continuous", "discrete", "features", "linear", "geometry", "registration", "segmentation"):
        part = importlib.import_module(f"convexadam.{module}")
        names |= {name: getattr(part, name) for name in part.__all__}
    return names


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_components_in_the_text_can_be_made(path: Path) -> None:
    """`ConvexSearch(spacing=4)` in the text names a component and settings that exist, with values that are allowed."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    known = public()
    for found in re.findall(r"`(?:ca\.)?([A-Z]\w+\([^`]*\))`", text):
        if "..." in found or "…" in found or found.startswith(("MetaTensor", "Warp", "Image(", "DisplacementField")):
            continue
        if re.search(r"\b(matrix|image)\b", found):  # of the reader
            continue
        eval(found, {}, known)


def test_tests_that_the_text_names_exist() -> None:
    defined = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    made = generator().MARKED
    for path in PAGES:
        text = made.sub("", path.read_text(encoding="utf-8"))
        assert set(re.findall(r"`(test_\w+)`", text)) <= defined, path.name
        for place in re.findall(r"\b((?:tests|benchmarks|examples)/[\w./-]*\w)(?!<|\w)", text):
            assert (ROOT / place).exists(), f"{path.name}: {place}"


def test_commands_and_options_in_the_text_exist() -> None:
    commands = ("register", "warp", "invert", "compose", "convert", "info", "evaluate", "cohort", "report", "tune")
    commands += ("config", "demo", "template", "segment", "series", "warmup")
    asked = [[name] for name in commands] + [["learn2reg", name] for name in ("run", "validate", "submit", "evaluate")]
    options: set[str] = {"--help", "--version"}
    for words in asked:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            main([*words, "--help-all"])
        options |= set(re.findall(r"--[a-z][\w.-]*", out.getvalue()))
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        code = re.findall(r"`((?:convexadam |--)[^`\n]+)`", text)
        lines = "\n".join(b.text for b in blocks(path) if b.language == "sh").replace("\\\n", " ").splitlines()
        code += [line.partition("#")[0] for line in lines if line.startswith("convexadam ")]
        for name in re.findall(r"\bconvexadam ([a-z]\w+)\b", "\n".join(code)):
            assert name in {*commands, "learn2reg"}, f"{path.name}: there is no command convexadam {name}"
        for option in re.findall(r"(?<!\S)--[a-z][\w.-]*", "\n".join(code)):
            assert option in options or option in OTHERS, f"{path.name}: {option}"


# Code


def test_blocks_say_what_they_are() -> None:
    """Each block has a language, and what is not run says why and is known."""
    for block in BLOCKS:
        assert block.language in {"python", "sh", "toml", *DATA}, f"{block.page}, line {block.line}"
        assert not (block.reason and block.language in DATA), f"{block.page}, line {block.line} is no code"
    assert Counter(block.page for block in BLOCKS if block.reason) == NOT_RUN


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder with the files that the pages name, made of a small phantom, and the same as variables."""
    folder = tmp_path_factory.mktemp("docs")
    pair = phantom_pair(SHAPE, contrasts=("ct", "t1"), displacement_mm=15)
    for name in ("fixed", "moving", "fixed_labels", "moving_labels"):
        write_image(getattr(pair, name), folder / f"{name}.nii.gz")
    for name in ("fixed", "moving"):
        points = pair.fixed.grid.world_to_index(getattr(pair, f"{name}_landmarks_mm"))
        write_landmarks(points, folder / f"{name}.csv")
    write_landmarks(pair.fixed_landmarks_mm, folder / "landmarks.csv")
    write_image(pair.fixed, folder / "target.nii.gz")
    shift = np.eye(4)
    shift[0, 3] = 5
    frames = (pair.fixed, Affine(shift).warp(pair.fixed, pair.fixed.grid))
    write_series(FrameSeries(frames=frames, step_s=2), folder / "series.nii.gz")
    (folder / "scans").mkdir()
    for scan, side in (("a", "fixed"), ("b", "moving")):
        write_image(getattr(pair, side), folder / "scans" / f"{scan}.nii.gz")
        write_image(getattr(pair, f"{side}_labels"), folder / "scans" / f"{scan}_labels.nii.gz")
    rows = [f"{scan},scans/{scan}.nii.gz,scans/{scan}_labels.nii.gz" for scan in "ab"]
    for name in ("atlases", "scans"):
        (folder / f"{name}.csv").write_text("\n".join(["id,image,labels", *rows]) + "\n", encoding="utf-8")
    known = {
        "ca": convexadam,
        "fixed": pair.fixed,
        "moving": pair.moving,
        "fixed_labels": pair.fixed_labels,
        "moving_labels": pair.moving_labels,
        "points": pair.fixed_landmarks_mm,
        "partners": pair.moving_landmarks_mm,
        "tumour": Image((pair.fixed_labels.data == 2).to(torch.uint8), pair.fixed.grid),
    }
    return folder, known


PAGES_WITH_CODE = sorted({b.page for b in BLOCKS if not b.reason and b.language in {"python", "sh"}})


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("page", PAGES_WITH_CODE)
def test_code_and_commands_run(
    page: str,
    prepared: tuple[Path, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Blocks of a page run one after the other, as a reader would paste them."""
    folder, known = prepared
    monkeypatch.chdir(folder)
    monkeypatch.setattr(presets, "_registered", {})  # what a page adds is for that page alone
    monkeypatch.setattr(formats, "_REGISTERED", {})
    if not (folder / "out").exists():
        assert main(shlex.split("register fixed.nii.gz moving.nii.gz --output-dir out --quiet")) == 0
    variables = dict(known)
    for block in (b for b in BLOCKS if b.page == page and not b.reason):
        if block.language == "python":
            source = "\n" * block.line + block.text  # so that errors name the line of the page
            exec(compile(source, str(block.page), "exec"), variables)
        elif block.language == "sh":
            for command in commands_of(block):
                assert command[0] == "convexadam", f"{page}, line {block.line}: {command[0]} is not run; say why"
                assert main(command[1:]) == 0, f"{page}: {shlex.join(command)}\n{capsys.readouterr().err}"


def commands_of(block: Block) -> list[list[str]]:
    text = block.text.replace("\\\n", " ")
    return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language == "toml" and not b.reason], ids=lambda b: f"{b.page}:{b.line}"
)
def test_settings_files_can_be_read(block: Block) -> None:
    if block.page == "tuning.md":
        assert Space.from_toml(block.text).stages
    else:
        assert RegistrationConfig.from_toml(block.text)


# Tables and figures


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_generated_tables_are_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert generator().generated(text) == text, "run python docs/generate.py"


def test_the_reference_is_up_to_date() -> None:
    pages = generator().reference()
    assert set(pages) == set(REFERENCE.glob("*.md"))
    for path, text in pages.items():
        assert path.read_text(encoding="utf-8") == text, "run python docs/generate.py"


def test_the_reference_has_every_public_name() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md"))
    entries = Counter(name.rpartition(".")[2] for name in re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    packages = {path.parent.name for path in (ROOT / "src/convexadam").glob("*/__init__.py")} - {"cli"}
    names = set(convexadam.__all__)
    for package in packages:
        names |= set(getattr(importlib.import_module(f"convexadam.{package}"), "__all__", []))
    assert len(names) > 200
    assert {name for name in names if entries[name] != 1} == set()


def test_the_tables_that_must_be_generated_are() -> None:
    made = generator()
    found = {m["name"] for path in PAGES for m in made.MARKED.finditer(path.read_text(encoding="utf-8"))}
    assert found == set(made.MAKERS)


def test_the_table_of_formats_is_generated() -> None:
    body = generator().formats()
    if body is None:
        pytest.skip(
            "convexadam.io.formats.formats_markdown does not exist yet: the table of formats is written by hand"
        )
    assert body in (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")


def test_a_table_names_every_setting() -> None:
    made = generator()
    text = made.settings("ConvexSearch")
    assert "| `radius` | `4` |" in text
    assert text.count("\n") == 2 + len(convexadam.ConvexSearch.__dataclass_fields__)


def test_what_the_readme_says_first_is_in_the_results() -> None:
    made, text = generator(), (ROOT / "README.md").read_text(encoding="utf-8")
    seconds = {(row["pair"], row["tool"]): float(row["seconds"]) for row in made.rows_of("speed")}
    lung, brain = (
        (seconds[p, made.OWN + "default"], seconds[p, made.PUBLISHED]) for p in ("lung_ct_elastix", "brain_t1_vxm")
    )
    assert f"{lung[0]:.1f} s for a lung CT pair and {brain[0]:.1f} s for a brain MR pair on two CPU cores" in text
    assert f"{int(lung[1] / lung[0])} and {int(brain[1] / brain[0])} times as fast as the published package" in text
    for pair, (_, measure) in made.PAIRS.items():
        rows = {row["tool"]: row for row in made.rows_of("pairs") if row["pair"] == pair}
        sign = 1 if measure == "Dice" else -1
        own = sign * made.score(rows[made.OWN + "best"])
        others = [sign * made.score(row) for tool, row in rows.items() if not tool.startswith(made.OWN)]
        others += [sign * made.SEPARATE[pair][1]] if pair in made.SEPARATE else []
        assert own > max(others) + (0.002 if measure == "Dice" else 0.01)
        for name in ("default", "best"):
            assert float(rows[made.OWN + name]["folded_percent"]) == 0
    assert "With one preset, `best`, more accurate than every compared tool on all eight real pairs" in text


@pytest.mark.parametrize("name", ["conventions", "before_after"])
def test_figures_have_a_script(name: str) -> None:
    picture = ROOT / "docs" / "images" / f"{name}.png"
    assert picture.with_suffix(".py").is_file()
    assert picture.stat().st_size < 150_000


def test_the_script_of_the_picture_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    script = runpy.run_path(str(ROOT / "docs" / "images" / "before_after.py"))
    small = phantom_pair(SHAPE, contrasts=("ct", "t1"), displacement_mm=25)
    monkeypatch.setitem(script["main"].__globals__, "phantom_pair", lambda **_: small)
    script["main"](tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
