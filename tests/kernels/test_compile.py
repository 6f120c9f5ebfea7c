"""The cache of compiled CPU kernels: damaged, without a folder, and shared by two processes."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("numba")

MODULE = Path(find_spec("convexadam").origin).parent / "kernels" / "_compile.py"  # type: ignore[union-attr, arg-type]
SOURCE = f"""
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("_compile", {str(MODULE)!r})
_compile = module_from_spec(spec)  # without the package, whose import takes longer than all else here
spec.loader.exec_module(_compile)
%s
def double(x):
    return 2 * x
kernel = _compile.compile_cached(double, nogil=True)
print(kernel(21), sum(kernel.stats.cache_hits.values()))
"""
NO_FOLDER = """
def refuse(self, *_):
    raise RuntimeError("cannot cache function: no locator available")
_compile._SafeCache.__init__ = refuse
"""
FULL_DISK = """
from numba.core.caching import FunctionCache
def fill(self, *_):
    raise OSError(28, "No space left on device")
FunctionCache.save_overload = fill
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "kernel.py"
    path.write_text(SOURCE % "", encoding="utf-8")
    return path


def start(script: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(script.parent / "cache")}
    return subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )


def run(script: Path) -> tuple[list[str], str]:
    process = start(script)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output.split(), errors


def test_a_damaged_cache_is_made_again(script: Path) -> None:
    assert run(script)[0] == ["42", "0"]
    assert run(script)[0] == ["42", "1"]
    for ending in ("*.nbi", "*.nbc"):
        for file in (script.parent / "cache").rglob(ending):
            file.write_bytes(file.read_bytes()[:20])
        found, errors = run(script)
        assert found == ["42", "0"]
        assert "cannot be read" in errors
        assert "made again" in errors
        assert run(script)[0] == ["42", "1"]


@pytest.mark.parametrize(
    ("change", "message"), [(NO_FOLDER, "set NUMBA_CACHE_DIR to one that can"), (FULL_DISK, "cannot be kept in")]
)
def test_without_room_for_a_cache(script: Path, change: str, message: str) -> None:
    script.write_text(SOURCE % change, encoding="utf-8")
    for _ in range(2):
        found, errors = run(script)
        assert found == ["42", "0"]
        assert message in errors


def test_of_two_processes_one_compiles(script: Path) -> None:
    both = [start(script), start(script)]
    outputs = [process.communicate(timeout=120)[0].split() for process in both]
    assert sorted(outputs) == [["42", "0"], ["42", "1"]]
