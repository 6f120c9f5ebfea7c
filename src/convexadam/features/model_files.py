"""Checks of model files of unknown origin, before anything in them is executed."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from convexadam._claims import check_archive
from convexadam.errors import FileError, MissingExtraError

_MAX_CODE_BYTES = 2**24

_FILE_OPERATORS = re.compile(
    rb"\b(?:torch|ops\s*\.\s*\w+)\s*\.\s*(?:save|from_file|load_tensor)\b|\bops\s*\.\s*(?:_?c10d\w*|symm_mem|debugprims)\b"
)
"""Operators of torch that read or write files or talk to other processes, as TorchScript spells them."""

_ENTRIES = ("trainer_name", "init_args", "network_weights")
_REFUSED = re.compile(r"GLOBAL (\S+)")
_NETWORK_CLASS = re.compile(r"(?:dynamic_network_architectures|nnunetv2)(?:\.\w+)*\.[A-Z]\w*|[A-Z]\w*")
_LAYER_CLASS = re.compile(
    r"torch\.nn(?:\.modules\.\w+)?\.[A-Z]\w*|dynamic_network_architectures(?:\.[a-z]\w*)*\.[A-Z]\w*"
)


def check_torchscript(path: str) -> None:
    """Raise `FileError` if the code of a TorchScript file calls operators that read or write files.

    The archive must be a TorchScript file already.
    """
    check_archive(Path(path))
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if not member.filename.endswith(".py"):
                continue
            if member.file_size > _MAX_CODE_BYTES:
                raise FileError(f"code in {path} must take at most {_MAX_CODE_BYTES} bytes, got {member.file_size}")
            if found := _FILE_OPERATORS.search(archive.read(member)):
                raise FileError(
                    f"{path} must be a network that touches no files, got a call of {found[0].decode()}; do not use "
                    "it, or export it without that call"
                )


def check_checkpoint(path: Path) -> None:
    """Raise `FileError` unless a checkpoint holds tensors, numbers and plain containers only.

    It is loaded by torch's restricted unpickler, which executes no code.

    Raises
    ------
    FileError
        If it holds anything else, or is damaged.
    MissingExtraError
        If torch is older than 2.5 and has no such check with additional types.
    """
    if not hasattr(torch.serialization, "safe_globals"):
        raise MissingExtraError("nnU-Net models need torch 2.5 or newer: pip install -U torch")
    try:
        with torch.serialization.safe_globals(_plain_types()):
            found = torch.load(path, map_location="cpu", weights_only=True)
        if missing := [key for key in _ENTRIES if key not in found]:
            raise KeyError(missing[0])
    except Exception as error:  # a damaged checkpoint may raise anything
        text = " ".join(str(error).split())
        refused = _REFUSED.search(text)
        reason = f"it holds {refused[1]}" if refused else text.partition("WeightsUnpickler error: ")[2] or text
        raise FileError(
            f"cannot load {path}: {type(error).__name__}: {reason[:200]}; it must hold weights and plain values only, "
            "which execute no code: check that nnU-Net wrote it, and that no file is damaged"
        ) from error


def check_plans(plans: dict[str, Any], path: Path) -> None:
    """Raise `FileError` if plans of nnU-Net name classes to import that are no networks or layers."""
    configurations = plans.get("configurations")
    for configuration in configurations.values() if isinstance(configurations, dict) else ():
        architecture = configuration.get("architecture") if isinstance(configuration, dict) else None
        if not isinstance(architecture, dict):
            continue
        arguments, imported = architecture.get("arch_kwargs", {}), architecture.get("_kw_requires_import", ())
        names = {key: arguments.get(key) for key in imported} if isinstance(arguments, dict) else {}
        for name in (name for name in names.values() if name is not None):
            _check_class(name, _LAYER_CLASS, "a layer of torch.nn", path)
        _check_class(architecture.get("network_class_name", ""), _NETWORK_CLASS, "a network of nnU-Net", path)


def _check_class(name: Any, allowed: re.Pattern[str], what: str, path: Path) -> None:
    if not isinstance(name, str) or not allowed.fullmatch(name):
        raise FileError(f"cannot read {path}: a class in it must be {what}, got {name!r}; copy the model again")


def _plain_types() -> list[Any]:
    """Return what nnU-Net stores beside weights: numbers and arrays of numpy, and paths."""
    from pathlib import PosixPath, PurePosixPath, PureWindowsPath, WindowsPath

    core: Any = np.core if np.lib.NumpyVersion(np.__version__) < "2.0.0" else np._core  # type: ignore[attr-defined]
    scalar, rebuild = core.multiarray.scalar, core.multiarray._reconstruct
    renamed = [
        (function, f"numpy.{package}.multiarray.{name}")
        for function, name in ((scalar, "scalar"), (rebuild, "_reconstruct"))
        for package in ("core", "_core")
    ]
    kinds = {type(np.dtype(code)) for code in "?bhilqBHILQefd"}
    return [*renamed, np.dtype, np.ndarray, *kinds, PosixPath, PurePosixPath, WindowsPath, PureWindowsPath]
