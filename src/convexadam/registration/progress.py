"""Progress of a registration: a function of the user, a bar in a terminal or a notebook, or none."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any, TypeAlias

from convexadam._checks import show
from convexadam.errors import ConfigError

Progress: TypeAlias = Callable[[str, float], None]
"""Called at the beginning of a stage with its name and the fraction of stages completed, in [0, 1]."""


@contextmanager
def open_progress(progress: Progress | bool | None) -> Iterator[Progress | None]:
    """Open what shows the progress, and close it at the end.

    Parameters
    ----------
    progress
        A function; ``True`` for a bar and ``False`` for none; ``None`` for a bar if the standard error is a terminal,
        or in a notebook.

    Raises
    ------
    ConfigError
        If it is something else.
    """
    if progress is not None and not isinstance(progress, bool) and not callable(progress):
        raise ConfigError(
            f"progress must be a function (stage, fraction), True, False or None, got {show(progress)}; pass print, say"
        )
    kernel = _find_notebook()
    if callable(progress):
        yield progress
    elif progress is False or (progress is None and kernel is None and not sys.stderr.isatty()):
        yield None
    elif kernel is not None:
        with _show_in_notebook() as report:
            yield report
    else:
        with show_bar() as report:
            yield report


@contextmanager
def show_bar() -> Iterator[Progress]:
    """Show a bar on the standard error, which disappears at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<12}"), BarColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("start", total=1.0)
        yield lambda stage, share: bar.update(task, description=stage, completed=share)


def _find_notebook() -> Any:
    """Return the kernel of a notebook that runs this code; ``None`` elsewhere, also in IPython on a terminal."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None)


@contextmanager
def _show_in_notebook() -> Iterator[Progress]:
    """Show a bar below the cell, which is empty at the end; it needs no ipywidgets."""
    from IPython.display import HTML, display

    output = display(HTML(""), display_id=True)
    try:
        yield lambda stage, share: output.update(HTML(f'<progress value="{share:.3f}"></progress> {escape(stage)}'))
    finally:
        output.update(HTML(""))
