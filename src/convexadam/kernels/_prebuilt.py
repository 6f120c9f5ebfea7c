"""Compiled CPU kernels that a wheel brings along, for one version of Python and of numba.

`hatch_build.py` compiles them for the processors of a level, so that all of these run the same code. They are files of
numba's cache, each beside the name of its kernel's folder, and valid for the sources that they were made of alone.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import platform
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numba.core.caching import IndexDataCacheFile
from numba.core.compiler import CompileResult
from numba.core.sigutils import normalize_signature

_LOGGER = logging.getLogger("convexadam")

_KERNELS = Path(__file__).parent
FOLDER = _KERNELS / "prebuilt"


@dataclass(frozen=True, kw_only=True)
class Level:
    """Processors for which kernels are compiled: their name for LLVM, and the instruction sets that they have."""

    processor: str
    features: tuple[str, ...]

    @property
    def environment(self) -> Mapping[str, str]:
        """Return the variables with which numba compiles for these processors."""
        features = ",".join(f"+{feature}" for feature in self.features)
        return {"NUMBA_CPU_NAME": self.processor, "NUMBA_CPU_FEATURES": features}


_X86_64_V3 = Level(
    processor="x86-64-v3",
    features=(
        *("cmov", "cx8", "fxsr", "mmx", "sse", "sse2", "cx16", "sahf", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"),
        *("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"),
    ),
)
LEVELS: Mapping[str, Level] = {"x86_64": _X86_64_V3, "AMD64": _X86_64_V3}
"""The level of each machine type (`platform.machine`); Intel since Haswell (2013), AMD since Zen (2017)."""


def load_prebuilt(function: Callable[..., Any], signature: Any, target_context: Any) -> CompileResult | None:
    """Return the compiled kernel for a signature, or ``None`` if there is none that this machine can run."""
    if not (FOLDER.is_dir() and _can_run(target_context)):
        return None
    arguments, _ = normalize_signature(signature)  # type: ignore[no-untyped-call]
    try:
        payload = _file_of(function, FOLDER).load(tuple(arguments))
        return None if payload is None else CompileResult._rebuild(target_context, *payload)  # type: ignore[no-untyped-call]
    except Exception as error:  # of any type, depending on how a file is damaged
        _LOGGER.debug("convexadam: a compiled CPU kernel in %s cannot be read (%r)", FOLDER, error)
        return None


def save_prebuilt(dispatcher: Any, folder: Path) -> int:
    """Write all that a dispatcher has compiled in this process, and return the number of signatures."""
    file = _file_of(dispatcher.py_func, folder)
    _folder_of(dispatcher.py_func, folder).mkdir(parents=True, exist_ok=True)
    for arguments, compiled in dispatcher.overloads.items():
        file.save(arguments, compiled._reduce())
    return len(dispatcher.overloads)


def _file_of(function: Callable[..., Any], folder: Path) -> Any:
    code = function.__code__
    name = f"{Path(code.co_filename).stem}.{function.__qualname__}-{code.co_firstlineno}.{sys.implementation.cache_tag}"
    return IndexDataCacheFile(str(_folder_of(function, folder)), name, _digest_sources())  # type: ignore[no-untyped-call]


def _folder_of(function: Callable[..., Any], folder: Path) -> Path:
    return folder / Path(function.__code__.co_filename).parent.relative_to(_KERNELS)


def _can_run(target_context: Any) -> bool:
    """Whether numba compiles for a processor of the level; settings of numba that name another one are respected."""
    level = LEVELS.get(platform.machine())
    features = target_context.codegen().magic_tuple()[2].split(",")
    return level is not None and {f"+{feature}" for feature in level.features} <= set(features)


@functools.cache
def _digest_sources() -> str:
    """Return a digest of the sources of all kernels: changed ones are compiled again."""
    digest = hashlib.sha256()
    for path in sorted(_KERNELS.rglob("*.py")):
        digest.update(path.relative_to(_KERNELS).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
