"""Compile kernels for GPUs that are not there, from the signatures with which they were launched.

    python compile_kernels.py SIGNATURES.pkl cuda:90 > rows.json

Prints one row for each variant: registers, bytes spilled, shared memory. In a process of its own, because the
interpreter of the other tests cannot be switched off.
"""

from __future__ import annotations

import importlib
import json
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
        return 0

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
    """Compile for a device from now on."""
    triton.runtime.driver.set_active(_Driver(target))


def compile_signature(module: str, name: str, args: Any, kwargs: Any) -> Any:
    """Compile a kernel for the arguments with which it was launched."""
    kernel = getattr(importlib.import_module(module), name)
    return kernel[(1,)](*map(_restore, args), **{key: _restore(value) for key, value in kwargs})


def compile_signatures(signatures: list[Any], target: GPUTarget) -> list[dict[str, Any]]:
    """Compile each signature, and return what the variants need."""
    set_target(target)
    rows: dict[str, dict[str, Any]] = {}
    for module, name, args, kwargs in signatures:
        compiled = compile_signature(module, name, args, kwargs)
        if compiled.hash not in rows:
            needs = {"kernel": f"{module.split('.')[-2]}.{name}", **_measure(compiled, target)}
            rows[compiled.hash] = {**needs, "triton": triton.__version__}
    return list(rows.values())


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
    backend, capability = sys.argv[2].split(":")
    wanted = GPUTarget(backend, int(capability) if backend == "cuda" else capability, 32 if backend == "cuda" else 64)
    json.dump(compile_signatures(pickle.loads(Path(sys.argv[1]).read_bytes()), wanted), sys.stdout)
