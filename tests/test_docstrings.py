"""Public functions and classes have an example, which the tests of docstrings run."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path
from typing import Any

import convexadam

PACKAGES = {path.parent.name for path in Path(convexadam.__file__).parent.glob("*/__init__.py")} - {"cli"} | {"viz"}


def public_callables() -> dict[str, Any]:
    found = {}
    for name in ("convexadam", *(f"convexadam.{package}" for package in sorted(PACKAGES))):
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", []):
            value = getattr(module, public)
            if not (inspect.isclass(value) or inspect.isfunction(value)):
                continue
            if inspect.isclass(value) and (getattr(value, "_is_protocol", False) or issubclass(value, Exception)):
                continue
            if value.__module__.startswith("convexadam."):
                found[public] = value
    return found


def has_example(value: Any) -> bool:
    own = vars(value).get("__doc__") if inspect.isclass(value) else inspect.unwrap(value).__doc__
    return bool(doctest.DocTestParser().get_examples(own or ""))


def test_public_callables_have_an_example() -> None:
    without = {name for name, value in public_callables().items() if not has_example(value)}
    assert len(public_callables()) > 180
    assert without == set(), "give it an example, which a reader can paste"


def test_most_examples_run() -> None:
    """All but those that need files, clusters or networks of the reader; lower the number, do not raise it."""
    skipped = set()
    for name, value in public_callables().items():
        examples = doctest.DocTestParser().get_examples(value.__doc__ or "")
        beyond_imports = [one for one in examples if not one.source.startswith(("import ", "from "))]
        if beyond_imports and all(one.options.get(doctest.SKIP) for one in beyond_imports):
            skipped.add(name)
    assert len(skipped) <= 14, skipped
