"""The other tools, each with an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import harness  # noqa: E402 - the folder above is no package


@dataclass(frozen=True, kw_only=True)
class Tool:
    """A tool and the command of its worker; ``error`` tells why it cannot run."""

    name: str
    version: str
    command: tuple[str, ...] = ()
    options: Mapping[str, str] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A package of PyPI, the folder of its environment, and the worker that runs it.

    ``name`` is that in the results, ``needs`` is installed before the package.
    """

    name: str
    package: str
    version: str
    folder: str
    script: str
    needs: tuple[str, ...] = ("nibabel",)
    options: Mapping[str, str] = field(default_factory=dict)


PUBLISHED = "convexAdam 0.2.0"
_GREEDY = {"package": "picsl-greedy", "version": "1.4.0.3", "folder": "greedy", "script": "greedy.py"}
_ANTS = {"package": "antspyx", "version": "0.6.3", "folder": "ants", "script": "ants.py"}
_TORCH = ("torch", "nibabel")
_FIREANTS = {"package": "fireants", "version": "1.5.0", "folder": "fireants", "script": "fireants.py", "needs": _TORCH}
_LONG = "100x100x50"

PEERS: Mapping[str, Peer] = {
    "convexadam": Peer(
        name=PUBLISHED,
        package="convexAdam",
        version="0.2.0",
        folder="convexadam",
        script="published.py",
        needs=("torch",),
    ),
    "greedy": Peer(name="greedy NCC", options={"metric": "NCC 2x2x2", "iterations": "100x50x10"}, **_GREEDY),
    "greedy-nmi": Peer(name="greedy NMI", options={"metric": "NMI", "iterations": "100x50x10"}, **_GREEDY),
    "ants": Peer(name="ANTs SyNOnly", options={"transform": "SyNOnly"}, **_ANTS),
    "demons": Peer(name="SimpleITK demons", package="SimpleITK", version="2.5.7", folder="demons", script="demons.py"),
    "convexadam-tuned": Peer(
        name=f"{PUBLISHED} tuned",
        package="convexAdam",
        version="0.2.0",
        folder="convexadam",
        script="published.py",
        needs=("torch",),
        options={"settings": "tuned"},
    ),
    "greedy-ncc2": Peer(
        name=f"greedy NCC 2x2x2 {_LONG}", options={"metric": "NCC 2x2x2", "iterations": _LONG}, **_GREEDY
    ),
    "greedy-ncc4": Peer(
        name=f"greedy NCC 4x4x4 {_LONG}", options={"metric": "NCC 4x4x4", "iterations": _LONG}, **_GREEDY
    ),
    "ants-cc": Peer(name="ANTs SyN CC", options={"transform": "antsRegistrationSyN[so]"}, **_ANTS),
    "fireants": Peer(name="FireANTs greedy", options={"model": "greedy"}, **_FIREANTS),
    "fireants-syn": Peer(name="FireANTs SyN", options={"model": "syn"}, **_FIREANTS),
    "syntx": Peer(
        name="syntx TVF", package="syntx", version="5.4.15", folder="syntx", script="syntx_tvf.py", needs=_TORCH
    ),
}
"""All tools, in the order in which they run."""

AT_THEIR_BEST = ("convexadam-tuned", "greedy-ncc2", "greedy-ncc4", "fireants", "fireants-syn", "syntx", "ants-cc")
"""The tools with the settings that their authors use for accuracy; slow."""


def make_peer_tool(peer: Peer, folder: Path) -> Tool:
    """Return a tool in an environment of its own, which is created if it is missing."""
    try:
        python = set_up_environment(peer, folder)
    except (OSError, subprocess.CalledProcessError) as error:
        harness.progress(str(error))  # not in the results, because it contains folder names
        return Tool(name=peer.name, version=peer.version, error="its environment could not be created")
    # -I excludes PYTHONPATH, packages of the user and this folder, whose ants.py would hide the package
    command = (str(python), "-I", str(HERE / peer.script))
    return Tool(name=peer.name, version=peer.version, command=command, options=peer.options)


def set_up_environment(peer: Peer, folder: Path) -> Path:
    """Return the interpreter of a tool's environment; install missing packages, with the project's version of torch."""
    venv = folder.resolve() / peer.folder
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.is_file():
        harness.progress(f"creating an environment for {peer.package} {peer.version} in {folder / peer.folder}")
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True, stdout=subprocess.DEVNULL)
    check = f"from importlib.metadata import version as v; raise SystemExit(v({peer.package!r}) != {peer.version!r})"
    if subprocess.run([str(python), "-I", "-c", check], stderr=subprocess.DEVNULL, check=False).returncode != 0:
        constraints = str(HERE.parents[1] / "constraints.txt")
        for wanted in (*peer.needs, f"{peer.package}=={peer.version}"):
            command = [str(python), "-m", "pip", "install", "--quiet", "--constraint", constraints, wanted]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return python
