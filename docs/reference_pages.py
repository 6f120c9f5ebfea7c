"""Pages of the reference: one for each package, with the names of its ``__all__``; written by generate.py."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent

PACKAGES = {
    "registration": "Register two images: settings, presets, results, memory",
    "geometry": "Images, grids and transforms in millimetres",
    "io": "Files, and objects of other packages",
    "features": "Features that are compared",
    "linear": "Rigid, similarity and affine alignment",
    "discrete": "The discrete search",
    "continuous": "The refinement: similarities, regularisers, optimisers, parametrisations",
    "metrics": "Overlap, surface distance, landmark error, regularity",
    "report": "Quality measures, verdicts and pages",
    "viz": "Figures",
    "cohort": "Many pairs",
    "template": "Unbiased templates",
    "segmentation": "Segmentation by atlases",
    "series": "Time series",
    "tuning": "Self-configuration",
    "learn2reg": "Tasks of the Learn2Reg challenge",
    "executors": "Where jobs run",
    "data": "The phantom",
    "kernels": "Implementations of the kernels",
    "errors": "Errors",
}
"""Packages and modules with public names, and what they are about."""

MODULES = {
    "viz": ["registration_figure"],
    "errors": [
        "ConvexAdamError",
        "ConfigError",
        "FileError",
        "GeometryError",
        "InputError",
        "MissingExtraError",
        "OutOfMemoryError",
    ],
}
"""Modules without ``__all__``, and their public names."""


def names_of(package: str) -> list[str]:
    """Return the public names of a package."""
    return list(getattr(importlib.import_module(f"convexadam.{package}"), "__all__", MODULES.get(package, [])))


def homes() -> dict[str, str]:
    """Return the package on whose page each public name is: that which defines it, else the first that exports it."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        module = importlib.import_module(f"convexadam.{package}")
        for name in names_of(package):
            defined_in = str(getattr(getattr(module, name), "__module__", ""))
            if name not in found or f"{defined_in}.".startswith(f"convexadam.{package}."):
                found[name] = package
    return found


def summary(value: Any) -> str:
    """Return the first sentence of a docstring; nothing for values without one of their own, such as type aliases."""
    own = inspect.isclass(value) or inspect.isroutine(value)
    first = (inspect.getdoc(value) or "").partition("\n\n")[0] if own else ""
    return " ".join(first.split()).replace("``", "`")  # a | within code does not end a cell of a table


def table(names: list[str], value_of: Any, where: dict[str, str], *, page: str) -> str:
    """Return a table of names that lead to their entries, with their first sentences."""
    lines = ["| name | what it is |", "| --- | --- |"]
    for name in names:
        target = f"{'' if where[name] == page else where[name] + '.md'}#convexadam.{where[name]}.{name}"
        lines.append(f"| [`{name}`]({target}) | {summary(value_of(name))} |")
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Return the text of each page of the reference."""
    import convexadam

    where = homes()
    listed = "".join(f"| [`convexadam.{name}`]({name}.md) | {about} |\n" for name, about in PACKAGES.items())
    exported = table(list(convexadam.__all__), lambda name: getattr(convexadam, name), where, page="index")
    found = {
        DOCS / "reference" / "index.md": "# Public names\n\nWhat `import convexadam` shows, and the packages with "
        "everything else. Names that begin with an underscore, and modules that are not listed here, may change "
        f"without notice.\n\n{exported}\n## Packages\n\n| package | content |\n| --- | --- |\n{listed}"
    }
    for package, about in PACKAGES.items():
        module = importlib.import_module(f"convexadam.{package}")
        names = sorted(names_of(package), key=lambda name: (where[name] != package, name.lower()))
        entries = [f"::: convexadam.{package}.{name}\n" for name in names if where[name] == package]
        short = table(names, lambda name, module=module: getattr(module, name), where, page=package)
        text = f"# convexadam.{package}\n\n{about}.\n\n{short}\n" + "\n".join(entries)
        found[DOCS / "reference" / f"{package}.md"] = text
    return found
