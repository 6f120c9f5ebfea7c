"""Compile kernels for GPUs that are not there, from the signatures with which they were launched.

    python compile_kernels.py SIGNATURES.pkl > rows.json

The file holds the signatures for each preset. A kernel has as many variants as there are signatures between which the
compiler distinguishes. Each variant is compiled for one of the `TARGETS`, and each kernel for NVIDIA and for AMD; with
``CONVEXADAM_COMPILE_ALL=1`` each variant is compiled for all targets.
Prints how many variants each preset needs, and one row for each that was compiled: registers, bytes spilled, shared
memory. In a process of its own, because the interpreter of the other tests cannot be switched off.
"""

from __future__ import annotations

import importlib
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget

NVIDIA = tuple(GPUTarget("cuda", capability, 32) for capability in (80, 90, 100))
AMD = GPUTarget("hip", "gfx942", 64)
TARGETS = (*NVIDIA, AMD)

COMPILE_ALL = "CONVEXADAM_COMPILE_ALL"
"""Environment variable by which ("1") every variant is compiled for every target."""


class _Utils:
    """What the compiler asks of a driver about a device."""

    def load_binary(self, *_: Any) -> tuple[int, ...]:
        return 1, 1, 0, 0, 1024

    def get_device_properties(self, _: int) -> dict[str, int]:
        return {"max_shared_mem": 2**18, "max_num_regs": 2**16, "multiprocessor_count": 132, "warpSize": 32}


class _Driver:
    """A driver of a device that compiles, and launches nothing."""

    def __init__(self, target: GPUTarget) -> None:
        self._target, self.utils = target, _Utils()
        self.launcher_cls = lambda *_: lambda *__, **___: None

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return TARGETS.index(self._target)  # triton keeps what it compiled by device

    def set_current_device(self, _: int) -> None:
        pass

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", 0)

    def map_python_to_cpp_type(self, _: str) -> str:
        return "int"

    def get_device_interface(self) -> Any:
        return torch.cuda

    @staticmethod
    def is_active() -> bool:
        return True


class _Pointer:
    """A tensor, as far as the compiler looks at one."""

    def __init__(self, dtype: str, alignment: int) -> None:
        self.dtype, self._alignment, self.device = getattr(torch, dtype), alignment, torch.device("cuda", 0)

    def data_ptr(self) -> int:
        return 2**40 + self._alignment


def set_target(target: GPUTarget) -> None:
    """Compile for one of the `TARGETS` from now on."""
    triton.runtime.driver.set_active(_Driver(target))


def compile_signature(module: str, name: str, args: Any, kwargs: Any) -> Any:
    """Compile a kernel for the arguments with which it was launched."""
    kernel = getattr(importlib.import_module(module), name)
    return kernel[(1,)](*map(_restore, args), **{key: _restore(value) for key, value in kwargs})


def find_variants(signatures: list[Any]) -> dict[str, Any]:
    """Return the first signature of each variant, by name of the kernel and what the compiler distinguishes."""
    variants: dict[str, Any] = {}
    found: list[str] = []

    def note_key(*, key: str, **_: Any) -> bool:
        found.append(key)
        return True  # do not compile

    set_target(NVIDIA[0])
    triton.knobs.runtime.jit_cache_hook = note_key
    try:
        for signature in signatures:
            compile_signature(*signature)
            variants.setdefault(f"{_name(signature)} {found[-1]}", signature)
    finally:
        triton.knobs.runtime.jit_cache_hook = None
    return variants


def choose_targets(variants: list[Any]) -> list[tuple[GPUTarget, Any]]:
    """Return what to compile: each variant for at least one device, and each kernel for both manufacturers."""
    if os.environ.get(COMPILE_ALL, "0") == "1":
        return [(target, signature) for target in TARGETS for signature in variants]
    chosen, kernels = [], list(dict.fromkeys(map(_name, variants)))
    for number, kernel in enumerate(kernels):
        first, *others = [signature for signature in variants if _name(signature) == kernel]
        chosen += [(AMD, first)]
        for n, signature in enumerate(others or [first]):
            chosen += [(NVIDIA[(number + n) % len(NVIDIA)], signature)]
    return chosen


def compile_all(jobs: list[tuple[GPUTarget, Any]]) -> list[dict[str, Any]]:
    """Compile each signature for its target, and return what the variants need."""
    rows = []
    for target, signature in jobs:
        set_target(target)
        row = {"kernel": _name(signature), "target": f"{target.backend}:{target.arch}"}
        rows.append(row | _measure(compile_signature(*signature), target))
    return rows


def _name(signature: Any) -> str:
    module, kernel, *_ = signature
    return f"{module.split('.')[-2]}.{kernel}"


def _restore(described: tuple[Any, ...]) -> Any:
    kind, value, *rest = described
    return _Pointer(value, rest[0]) if kind == "tensor" else value


def _measure(compiled: Any, target: GPUTarget) -> dict[str, Any]:
    if target.backend == "hip":
        found = dict(re.findall(r"\.(vgpr_count|vgpr_spill_count):\s+(\d+)", compiled.asm["amdgcn"]))
        return {
            "registers": int(found["vgpr_count"]),
            "spills": int(found["vgpr_spill_count"]),
            "shared": compiled.metadata.shared,
        }
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(compiled.asm["cubin"])
        command = [str(tools / "cuobjdump"), "--dump-resource-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    return {
        "registers": int(found["REG"]),
        "spills": int(found["LOCAL"]) + int(found["STACK"]),
        "shared": compiled.metadata.shared,
    }


if __name__ == "__main__":
    presets = pickle.loads(Path(sys.argv[1]).read_bytes())
    of_presets = {name: find_variants(signatures) for name, signatures in presets.items()}
    every = {key: signature for variants in of_presets.values() for key, signature in variants.items()}
    rows = compile_all(choose_targets(list(every.values())))
    counts = {name: len(variants) for name, variants in of_presets.items()}
    json.dump({"variants": counts, "rows": rows, "triton": triton.__version__}, sys.stdout)
