"""Build hook: a wheel that brings the CPU kernels along compiled, for this version of Python; `make wheel` enables it.

Without the hook, which is the default, the wheel is one for all platforms, and its kernels are compiled at first use.
"""

from __future__ import annotations

import os
import pkgutil
import platform
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = Path(__file__).resolve().parent / "src"


class CompiledKernels(BuildHookInterface[Any]):
    """Compiles the kernels in a process of its own and adds them to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folder of compiled kernels; an editable install, whose sources change, has none."""
        if version == "editable":
            return
        self._temporary = tempfile.TemporaryDirectory()
        folder = Path(self._temporary.name) / "prebuilt"
        compile_kernels(folder)
        build_data["force_include"][str(folder)] = "convexadam/kernels/prebuilt"
        build_data["pure_python"] = False
        tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
        build_data["tag"] = f"{tag}-{tag}-{sysconfig.get_platform().replace('-', '_').replace('.', '_')}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the folder."""
        if version != "editable":
            self._temporary.cleanup()


def compile_kernels(folder: Path) -> None:
    """Compile the kernels of all presets into a folder, for the level of processors that this machine belongs to."""
    sys.path.insert(0, str(SOURCE))
    from convexadam.kernels._prebuilt import LEVELS

    if platform.machine() not in LEVELS:
        raise RuntimeError(
            f"the machine must be one of {', '.join(LEVELS)}, got {platform.machine()}; build without the hook"
        )
    with tempfile.TemporaryDirectory() as cache:
        settings = {**LEVELS[platform.machine()].environment, "NUMBA_CACHE_DIR": cache, "PYTHONPATH": str(SOURCE)}
        command = [sys.executable, __file__, str(folder)]
        subprocess.run(command, check=True, env={**os.environ, **settings})


def save_kernels(folder: Path) -> None:
    """Run ``convexadam warmup`` and write what it has compiled."""
    from numba.core.dispatcher import Dispatcher

    import convexadam.kernels
    from convexadam.cli.warming import Warmup
    from convexadam.kernels._prebuilt import save_prebuilt

    Warmup().run()
    names = [found.name for found in pkgutil.walk_packages(convexadam.kernels.__path__, "convexadam.kernels.")]
    modules = [sys.modules[name] for name in names if name in sys.modules]
    found = {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}
    saved = sum(save_prebuilt(dispatcher, folder) for dispatcher in found)
    if not saved:
        raise RuntimeError(f"{folder} must get at least one compiled kernel, got none; see the output above")


if __name__ == "__main__":
    save_kernels(Path(sys.argv[1]))
