"""Add the examples to the site: a page and a notebook to download for each.

With ``DOCS_EXECUTE=1`` they are executed, and pages show the output; the results are kept in ``build/tutorials`` until
the example or the library changes.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from traitlets.config import Config

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "build" / "tutorials"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Append the pages, their pictures and their notebooks."""
    for script in sorted((ROOT / "examples").glob("*.py")):
        notebook = jupytext.read(script, fmt="py:percent")
        if os.environ.get("DOCS_EXECUTE") == "1":
            notebook = execute(notebook, script.read_bytes())
        body, resources = MarkdownExporter().from_notebook_node(
            notebook, resources={"unique_key": script.stem, "output_files_dir": f"{script.stem}_files"}
        )
        body += f"\n[Download this notebook]({script.stem}.ipynb)\n"
        contents = {
            f"{script.stem}.md": body,
            f"{script.stem}.ipynb": nbformat.writes(notebook),
            **resources["outputs"],
        }
        for name, content in contents.items():
            files.append(File.generated(config, f"tutorials/{name}", content=content))
    return files


def execute(notebook: Any, source: bytes) -> Any:
    """Return the notebook of a source with the output of its cells."""
    digest = hashlib.sha256(source)
    for path in sorted((ROOT / "src").rglob("*.py")):
        digest.update(path.read_bytes())
    kept = KEPT / f"{digest.hexdigest()[:16]}.ipynb"
    if kept.exists():
        return nbformat.read(kept, as_version=4)
    config = Config(KernelManager={"transport": "ipc"})  # no open ports
    notebook = NotebookClient(notebook, timeout=600, kernel_name="python3", config=config).execute()
    KEPT.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, kept)
    return notebook
