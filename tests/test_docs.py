"""Links between the documents lead somewhere, and what they call exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

import convexadam

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").rglob("*.md")])
named = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def test_there_are_documents() -> None:
    assert {"README.md", "how-do-i.md"} <= {path.name for path in DOCUMENTS}


@named
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    for file, _, anchor in (target.partition("#") for target in targets):
        assert (path.parent / file).exists(), file
        assert "docs" not in path.parent.parts or not file.startswith(".."), f"{file} is no page of the documentation"
        if anchor and not file:
            headings = [
                re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in text.splitlines()
            ]
            assert anchor in headings


@named
def test_public_names_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"\bca\.(\w+)", text):
        assert name in convexadam.__all__
    for module, name in re.findall(
        r"\bconvexadam\.(io|metrics|data|geometry|linear|discrete|features|continuous)\.(\w+)\(", text
    ):
        assert hasattr(importlib.import_module(f"convexadam.{module}"), name), (module, name)
