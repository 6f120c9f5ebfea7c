"""The modules of the benchmark of the GPU, which are no package, for the tests."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "gpu"


def load_benchmark(name: str, patch: pytest.MonkeyPatch) -> Any:
    """Load ``run`` or ``work`` anew."""
    patch.setattr(sys, "path", [str(FOLDER), *sys.path])
    patch.delitem(sys.modules, "work", raising=False)
    spec = importlib.util.spec_from_file_location(f"gpu_benchmark_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
