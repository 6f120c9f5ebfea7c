"""Compiled kernels that a wheel brings along: used where they fit, and nowhere else."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("numba")

from convexadam.kernels import _prebuilt

LEVEL = _prebuilt.LEVELS.get(platform.machine())
pytestmark = pytest.mark.skipif(LEVEL is None, reason="kernels are not compiled ahead for this type of machine")

CALL = """
import sys
from pathlib import Path
import numpy as np
from numba.core import event
compiled = []
class Listener(event.Listener):
    def on_start(self, event):
        compiled.append(event.data["dispatcher"].py_func.__name__)
    def on_end(self, event):
        pass
event.register("numba:compile", Listener())
from convexadam.kernels import _prebuilt
_prebuilt.FOLDER = Path(sys.argv[1])
from convexadam.kernels.warp_ssd.cpu import _find_uniform_rows as kernel
weight, out = np.ones((3, 4, 5), np.float32), np.zeros((3, 4, 5), np.float32)
weight[1, 2, 3] = 0.5
kernel(0, 3, weight, out)
print("_find_uniform_rows" in compiled, out.sum())
"""
SAVE = "print(_prebuilt.save_prebuilt(kernel, _prebuilt.FOLDER))\n"


def run(source: str, folder: Path, cache: Path, **environment: str) -> list[str]:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), **environment}
    command = [sys.executable, "-c", source, str(folder)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.long
def test_a_saved_kernel_is_not_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "prebuilt"
    compiled, result, signatures = run(CALL + SAVE, folder, tmp_path / "a", **LEVEL.environment)
    assert (compiled, signatures) == ("True", "1")
    assert run(CALL, folder, tmp_path / "b") == ["False", result]
    # a folder that cannot be written, as in a container without a home
    blocked = tmp_path / "file"
    blocked.touch()
    assert run(CALL, folder, blocked) == ["False", result]
    for file in folder.rglob("*.nbc"):
        file.write_bytes(file.read_bytes()[:100])
    assert run(CALL, folder, tmp_path / "c") == ["True", result]


def make_context(features: str) -> SimpleNamespace:
    return SimpleNamespace(codegen=lambda: SimpleNamespace(magic_tuple=lambda: ("triple", "processor", features)))


@pytest.mark.parametrize(
    ("features", "fits"),
    [("", False), ("+avx,+avx2", False), (",".join(f"+{f}" for f in LEVEL.features) if LEVEL else "", True)],
)
def test_a_processor_has_to_have_all_instruction_sets(features: str, fits: bool) -> None:
    assert _prebuilt._can_run(make_context(features)) is fits
    more = features.replace("+fma", "-fma") if fits else features
    assert not _prebuilt._can_run(make_context(more))
    assert _prebuilt._can_run(make_context(f"{features},+avx512f")) is fits


def test_another_machine_type_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert not _prebuilt._can_run(make_context(",".join(f"+{f}" for f in LEVEL.features)))


def test_changed_sources_are_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("a.py", "x = 1"), ("b/cpu.py", "y = 2")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(_prebuilt, "_KERNELS", tmp_path)
    before = _prebuilt._digest_sources.__wrapped__()
    assert _prebuilt._digest_sources.__wrapped__() == before
    (tmp_path / "b" / "cpu.py").write_text("y = 3")
    assert _prebuilt._digest_sources.__wrapped__() != before
