"""One row of docs/reliability.md, which is also a test.

Modules ``cases_*.py`` beside this file list theirs as ``CASES``; ``test_cases.py`` runs all of them, and
``docs/generate.py`` prints them as a table.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final


@final
@dataclass(frozen=True, kw_only=True)
class Case:
    """What comes of an input.

    Attributes
    ----------
    kind
        Title of the table in which the row stands.
    given
        The input, as a noun phrase.
    outcome
        ``"result"``: neither warning nor error; ``"warning"``: a result, and a warning; ``"error"``: an error of the
        library and nothing else.
    says
        Of a result: what it is. Of a warning or an error: words of its message.
    run
        Uses the input, with a folder for files. It asserts that a result is right, by an independent witness.
    needs
        Packages without which the case is skipped.
    """

    kind: str
    given: str
    outcome: Literal["result", "warning", "error"]
    says: str
    run: Callable[[Path], Any]
    needs: tuple[str, ...] = ()


def collect_cases() -> list[Case]:
    """Return the cases of all modules, in the order of their names."""
    modules = sorted(path.stem for path in Path(__file__).parent.glob("cases_*.py"))
    return [case for module in modules for case in importlib.import_module(module).CASES]
