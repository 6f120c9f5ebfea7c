"""Triton's interpreter without work that it does again and again: what it computes stays the same."""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MARK = "convexadam_hastened"
"""Attribute of the interpreter's module after the first call."""

PACKAGE = "convexadam.kernels"


def hasten() -> None:
    """Save a third of the interpreter's time, if it has been imported; what this version lacks is left as it is."""
    interpreter = sys.modules.get("triton.runtime.interpreter")
    if interpreter is None or hasattr(interpreter, MARK):
        return
    setattr(interpreter, MARK, True)
    builder, core = interpreter.interpreter_builder, interpreter.tl.core
    object.__setattr__(builder.options, "sanitize_overflow", False)  # no index of a small volume exceeds 32 bits
    if hasattr(interpreter, "_patch_builtin") and hasattr(interpreter, "_patch_attr"):
        _remember_builtins(interpreter)
    if hasattr(interpreter, "_get_np_dtype"):
        interpreter._get_np_dtype = _remember(interpreter._get_np_dtype)
    if hasattr(core.block_type, "with_element_ty"):
        core.block_type.with_element_ty = _remember(core.block_type.with_element_ty)
    if list(inspect.signature(core.tensor.__init__).parameters) == ["self", "handle", "type"]:
        _remember_shapes(core)


def _remember(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function once for each list of types; types of one name are equal, and have no hash themselves."""
    results = dict[tuple[str, ...], Any]()

    @functools.wraps(function)
    def look_up(*types: Any) -> Any:
        key = tuple(given.name for given in types)
        if key not in results:
            results[key] = function(*types)
        return results[key]

    return look_up


def _remember_shapes(core: Any) -> None:
    """Derive the attributes of a tensor from its type once, not for each tensor."""
    attributes, initialise = dict[str, dict[str, Any]](), core.tensor.__init__

    @functools.wraps(initialise)
    def look_up(self: Any, handle: Any, type: Any) -> None:  # noqa: A002  # its name there
        known = attributes.get(type.name)
        if known is None:
            initialise(self, handle, type)
            attributes[type.name] = dict(vars(self))
        else:
            vars(self).update(known, handle=handle, type=type)

    core.tensor.__init__ = look_up


def _remember_builtins(interpreter: Any) -> None:
    """Look for the functions of the language once, not at each call of a function within a kernel."""
    language, names = interpreter.tl, dict[Any, list[str]]()
    for package in (language, language.core, language.math, language.tensor):
        names[package] = [name for name, member in inspect.getmembers(package) if language.core.is_builtin(member)]
    search = interpreter._patch_builtin

    def patch_builtin(package: Any, *scope: Any) -> None:
        if package not in names:
            search(package, *scope)
        elif language.core.is_builtin(getattr(package, names[package][0])):  # not patched by an outer call, as a whole
            for name in names[package]:
                interpreter._patch_attr(package, name, getattr(package, name), *scope)

    interpreter._patch_builtin = patch_builtin


FEW_PROGRAMS = {
    "_BOX": (8, 8, 16),
    "_LONG_BOX": (8, 8, 16),
    "_WINDOW_BOX": (8, 8, 16),
    "_ACROSS": (4, 16, 64),
    "_ALONG": (64, 16, 1),
    "_COLUMN": (32, 8, 16),
    "local_normalisation._PARTS": 2,
}
"""Values per program of which a small volume needs one program only, by the name of the constant in any module."""


def run_few_programs(patch: pytest.MonkeyPatch) -> None:
    """Let a program compute more values: it takes the interpreter as long as one with few."""
    for name, module in list(sys.modules.items()):
        if name.startswith(PACKAGE) and name.endswith(".triton"):
            for key, value in FEW_PROGRAMS.items():
                folder, _, constant = key.rpartition(".")
                if hasattr(module, constant) and folder in ("", name.split(".")[-2]):
                    patch.setattr(module, constant, value)


def import_kernels() -> None:
    """Import the kernels for GPUs, which registrations import when they need them."""
    import convexadam.kernels  # late: its annotations are checked only if pytest has begun when it is imported

    for path in Path(*convexadam.kernels.__path__).glob("*/triton.py"):
        importlib.import_module(f"{PACKAGE}.{path.parent.name}.triton")
