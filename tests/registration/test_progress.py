"""Bars, functions and silence: who sees the progress of a registration."""

from __future__ import annotations

import io
import sys
import types
from typing import Any

import pytest
import torch

from convexadam import ConfigError, RegistrationConfig, register
from convexadam.registration import prepare

NOTHING = RegistrationConfig(linear=None, discrete=None, continuous=None)
VOLUME = torch.rand(12, 11, 10, generator=torch.Generator().manual_seed(0))


class Terminal(io.StringIO):
    """A standard error that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Output:
    """A display of a notebook, which remembers what it showed."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def display(self, page: str, *, display_id: bool) -> Output:
        assert display_id
        self.update(page)
        return self

    def update(self, page: str) -> None:
        self.shown.append(page)


def open_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return the new standard error; in a fixture it would be replaced before the test."""
    found = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", found)
    return found


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Output:
    found, ipython = Output(), types.ModuleType("IPython")
    shown: Any = types.ModuleType("IPython.display")
    shown.HTML, shown.display = str, found.display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", shown)
    monkeypatch.setattr(ipython, "get_ipython", lambda: types.SimpleNamespace(kernel=object()), raising=False)
    return found


@pytest.mark.parametrize("progress", [None, True])
def test_a_terminal_shows_a_bar(progress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    register(VOLUME, VOLUME, NOTHING, progress=progress)
    assert "\x1b[2K" in terminal.getvalue()  # the line of the bar, which is erased at the end


def test_a_terminal_shows_nothing_if_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = open_terminal(monkeypatch)
    register(VOLUME, VOLUME, NOTHING, progress=False)
    prepare(VOLUME, NOTHING).register(VOLUME)
    assert terminal.getvalue() == ""


def test_files_and_pipes_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    register(VOLUME, VOLUME, NOTHING)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_shows_a_bar_that_is_gone_at_the_end(notebook: Output) -> None:
    register(VOLUME, VOLUME, NOTHING)
    assert notebook.shown[0] == notebook.shown[-1] == ""
    assert notebook.shown[3] == '<progress value="0.333"></progress> features'
    with pytest.raises(ConfigError, match="features must accept"):
        register(VOLUME, VOLUME, RegistrationConfig(features=lambda image, *, weight=None: 1 / 0))
    assert notebook.shown[-1] == ""
    count = len(notebook.shown)
    register(VOLUME, VOLUME, NOTHING, progress=False)
    assert len(notebook.shown) == count


@pytest.mark.parametrize("progress", ["yes", 1, object()])
def test_what_is_no_progress(progress: Any) -> None:
    with pytest.raises(ConfigError, match="progress must be a function"):
        register(VOLUME, VOLUME, NOTHING, progress=progress)
