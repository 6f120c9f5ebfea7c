"""Count the instructions that launches of kernels execute, from machine code for a GPU that is not there.

    python machine_code.py LAUNCHES.pkl 90 > counts.json

Prints one row for each launch: what one warp executes. In a process of its own, because the interpreter that records
launches cannot be switched off.
"""

from __future__ import annotations

import importlib
import json
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "gpu"))

import compile_kernels
import triton
from triton.backends.compiler import GPUTarget

Arguments = dict[str, Any]

_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]+)\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)(.*?);", re.MULTILINE)
_LABEL = re.compile(r"^(\.L_\w+):", re.MULTILINE)
_BITS = {"64": 2, "128": 4}


def _cdiv(a: int, b: int) -> int:
    return -(-a // b)


def _count_trips_of_fit(blocks: int, points: int, a: Arguments) -> list[int]:
    """Return how often the loops over blocks, fits, bits, points and squarings run, if no fit converges."""
    pass_, padding = _cdiv(points, a["block"]), _cdiv(-points % a["wide"], a["block"])
    return [
        blocks,
        blocks,
        padding,
        a["iterations"] + 1,
        31,
        _cdiv(points, a["wide"]),
        *[pass_] * 2,
        a["squarings"],
        pass_,
    ]


TRIPS: dict[str, Callable[[Arguments], list[int]]] = {
    "block_mean._average_blocks": lambda a: [
        *[a["channels"], a["s0"], a["s1"], a["s2"] // 4, a["s2"] % 4],  # four at a time, and the rest
        *[0] * 4,  # blocks of no voxels
    ],
    "block_mean._average_weights": lambda a: [a["s0"], a["s1"], a["s2"] // 4, a["s2"] % 4],
    "block_mean._select_complete": lambda a: [_cdiv(a["count"], a["wide"])],
    "box_mean._average_box": lambda a: [a["channels"], 3],
    "cost_volume._distances": lambda a: [min(a["segment"], a["n0"]) + 4, a["channels"] // a["unrolled"]],
    "cost_volume._fill_gaps": lambda a: [_cdiv(a["labels"], a["block_labels"])] * 2,
    "cost_volume._means": lambda a: [a["n1"] + 2],
    "coupled_argmin._find_minima": lambda a: [
        *[3] * (3 * a["average"]),  # neighbours along i, for each component
        _cdiv(a["labels"], a["block_labels"]),
    ],
    "dissimilarity._divide": lambda a: [a["channels"] // 4, a["channels"] % 4],  # four at a time, and the rest
    "dissimilarity._find_unit": lambda a: [
        *[_cdiv(a["parts"], a["block"])] * 2,
        a["channels"],
        *[_cdiv(a["parts"], a["block"])] * 4,
    ],
    "dissimilarity._sum_moments": lambda a: [a["channels"]],
    "feature_range._find_ends": lambda a: [a["steps"], a["channels"], a["steps"], a["steps"]],
    "feature_range._summarise": lambda a: [a["channels"]],
    "field_summary._add_parts": lambda a: [_cdiv(a["count"], a["block"])],
    "linear_choice._compute_mean": lambda a: [_cdiv(a["points"], a["block"])],
    "linear_choice._keep_better": lambda a: [_cdiv(a["points"], a["block"])] * 2,
    "mass_moments._add_rows": lambda a: [_cdiv(a["count"], a["block"])],
    "mind_ssc._average": lambda a: [_cdiv(a["parts"], a["block"])],
    "mind_ssc._sum_variance": lambda a: [
        2 * a["radius"],
        2 * a["radius"] + 1,
        min(a["segment"], a["n0"]),
        2 * a["radius"] + 1,
    ],
    "mind_ssc._write_descriptors": lambda a: [
        2 * a["radius"],
        2 * a["radius"] + 1,
        min(a["segment"], a["m0"]),
        a["spacing0"],
        2 * a["radius"] + 1,
    ],
    "resample_affine._resample": lambda a: [a["channels"]],
    "rescale._find_range": lambda a: [a["steps"]],
    "rescale._scale": lambda a: [a["steps"]],
    "smooth._filter_all_axes": lambda a: [2 * a["radius"] + 1],  # the loop inside it is unrolled
    "smooth._filter_columns": lambda a: [min(a["length"], a["n0"]) + 2 * a["radius"]],
    "structure._sum_differences": lambda a: [a["channels"]],
    "trimmed_fit._fit_displacements": lambda a: _count_trips_of_fit(
        _cdiv(a["n"], a["block"]), min(a["n"], a["most"]), a
    ),
    "warp._sample": lambda a: [a["channels"]],
}
"""How often each loop of a kernel runs, in the order in which loops begin in the machine code."""


@dataclass
class Counts:
    """What one warp executes in a launch: instructions, cycles of the load-store unit, and special functions."""

    instructions: int = 0
    memory: int = 0
    special: int = 0


def count(code: str, kernel: str, arguments: Arguments) -> Counts:
    """Count instructions in disassembled code; raise `ValueError` where its loops are not those of `TRIPS`."""
    instructions = [(int(m[1], 16), m[2], m[3]) for m in _INSTRUCTION.finditer(code) if not m[2].startswith("NOP")]
    loops = _find_loops(code, instructions)
    trips = TRIPS.get(kernel, lambda _: [])(arguments)
    if len(loops) != len(trips):
        raise ValueError(f"TRIPS must have {len(loops)} loops of {kernel}, got {len(trips)}; compare the machine code")
    counts = Counts()
    for address, name, _ in instructions:
        times = 1
        for (first, last), trip in zip(loops, trips, strict=True):
            times *= trip if first <= address <= last else 1
        operation, *modifiers = name.split(".")
        counts.instructions += times
        if operation in ("LDG", "STG", "LDS", "STS", "SHFL"):
            counts.memory += times * max((_BITS.get(m, 1) for m in modifiers), default=1)
        if operation == "MUFU":
            counts.special += times
    return counts


def _find_loops(code: str, instructions: list[tuple[int, str, str]]) -> list[tuple[int, int]]:
    """Return the addresses between which a branch goes backwards, but for the endless loop after the end."""
    labels = {}
    for match in _LABEL.finditer(code):
        following = _INSTRUCTION.search(code, match.end())
        if following is not None:
            labels[match[1]] = int(following[1], 16)
    found = set()
    for address, name, operands in instructions:
        target = re.search(r"`\((\.L_\w+)\)", operands) if name.startswith("BRA") else None
        if target is not None and labels.get(target[1], address) < address:
            found.add((labels[target[1]], address))
    return sorted(found)


def _disassemble(cubin: bytes) -> str:
    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        command = [str(tools / "nvdisasm"), "-c", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Compile the kernels of all launches, and print what each executes."""
    compile_kernels.set_target(GPUTarget("cuda", int(sys.argv[2]), 32))
    code: dict[str, str] = {}
    rows = []
    for module, name, args, kwargs in pickle.loads(Path(sys.argv[1]).read_bytes()):
        kernel = getattr(importlib.import_module(module), name)
        compiled = compile_kernels.compile_signature(module, name, args, kwargs)
        if compiled.hash not in code:
            code[compiled.hash] = _disassemble(compiled.asm["cubin"])
        values = {n: v[1] for n, v in (*zip(kernel.arg_names, args, strict=False), *kwargs)}
        counts = count(code[compiled.hash], f"{module.split('.')[-2]}.{name}", values)
        rows.append({**vars(counts), "warps": compiled.metadata.num_warps})
    json.dump({"triton": triton.__version__, "rows": rows}, sys.stdout)


if __name__ == "__main__":
    main()
