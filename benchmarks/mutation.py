"""How many faults the tests find: random mutants of kernels, geometry and file formats.

    make mutation                                        # its own environment, about an hour on one core
    python benchmarks/mutation.py --only kernels --sample 20
    python benchmarks/mutation.py --larger ../other-checkout/tests

Cosmic Ray makes the mutants (one changed operator, number, comparison, ... each) in a copy of the checkout. A mutant is
killed if a test of its area fails, or does not end in time. Mutants within annotations are left out: nothing evaluates
those.
"""

from __future__ import annotations

import argparse
import ast
import csv
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_item import MutationSpec

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path("src/convexadam")
FILES = {  # compiled bodies are compared with the references by the tests, and a mutant of them takes long to compile
    "kernels": ("kernels/*/reference.py", "kernels/*/__init__.py"),
    "geometry": ("geometry/*.py",),
    "io": ("io/*.py",),
}
PYTEST = (sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider")
SECONDS = 300


def main() -> int:
    """Judge a sample of mutants of each area, and write the rows of its modules."""
    arguments = parse_arguments()
    places = {area: sample(area, arguments.sample, arguments.seed) for area in arguments.only}
    with tempfile.TemporaryDirectory() as folder:
        suites = {"these": copy_checkout(Path(folder) / "these", ROOT / "tests")}
        if arguments.larger:
            suites["larger"] = copy_checkout(Path(folder) / "larger", arguments.larger)
        check_that_tests_pass(suites, sorted({m.module_path for chosen in places.values() for m in chosen}))
        counts = judge([mutant for chosen in places.values() for mutant in chosen], suites)
    write_rows(arguments.output, counts, arguments.seed)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=FILES, default=list(FILES))
    parser.add_argument("--sample", type=int, default=50, help="mutants of each area")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--larger", type=Path, help="folder of tests that hold these and more: run where these find nothing"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks/results/mutation.csv")
    return parser.parse_args()


def sample(area: str, count: int, seed: int) -> list[MutationSpec]:
    """Return mutants at ``count`` random places of an area, one of those that a kind of operator makes there.

    Otherwise the eleven other binary operators that each ``+`` can become would be most of the sample.
    """
    modules = sorted({path for pattern in FILES[area] for path in (ROOT / SOURCE).glob(pattern)})
    places: dict[tuple[object, ...], list[MutationSpec]] = {}
    for mutant in (m for module in modules for m in mutants(module)):
        kind = mutant.operator_name.split("_")[0]
        places.setdefault((str(mutant.module_path), mutant.start_pos, kind), []).append(mutant)
    chance = random.Random(f"{seed} {area}")
    return [chance.choice(places[place]) for place in sorted(chance.sample(sorted(places), min(count, len(places))))]


def mutants(module: Path) -> Iterator[MutationSpec]:
    """All mutants of a file but those within annotations."""
    nodes, ignored = list(ast_nodes(get_ast_from_path(module))), annotations(module)
    for name in cosmic_ray.plugins.operator_names():
        kind = cosmic_ray.plugins.get_operator(name)
        if kind.arguments():
            continue
        places = (place for node in nodes for place in kind().mutation_positions(node))
        for occurrence, (start, end) in enumerate(places):
            if not any(first <= start and end <= last for first, last in ignored):
                yield MutationSpec(
                    module_path=module.relative_to(ROOT),
                    operator_name=name,
                    occurrence=occurrence,
                    start_pos=start,
                    end_pos=end,
                )


def annotations(module: Path) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and end, each (line, column), of all annotations in a file."""
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            found.append(node.returns)
        elif isinstance(node, (ast.arg, ast.AnnAssign)):
            found.append(node.annotation)
    return [((n.lineno, n.col_offset), (n.end_lineno or 0, n.end_col_offset or 0)) for n in found if n is not None]


def copy_checkout(target: Path, tests: Path) -> Path:
    """Copy sources and tests; modification times stay, so that the compiled CPU kernels need not be compiled anew."""
    for name in ("src", "examples", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, target / name)
    shutil.copytree(tests, target / "tests")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy2(ROOT / name, target)
    return target


def tests_of(module: Path, tree: Path) -> list[str]:
    """Test files of a module: for a kernel its own but those in an interpreter, else the folder, its own file first."""
    area, name = module.relative_to(SOURCE).parts[:2]
    folder = tree / "tests" / area
    if area == "kernels":
        operation = {"adam": "adam", "damped_step": "damped", "interpolate": "interpolate"}.get(name, name)
        return [str(p) for p in sorted(folder.glob(f"test_{operation}*.py")) if not p.stem.endswith("_triton")]
    own = Path(name).stem.removesuffix("_transforms")
    return [str(p) for p in sorted(folder.glob("test_*.py"), key=lambda p: (own not in p.stem, p.name))]


def command(module: Path, tree: Path) -> str:
    """Return the command that judges a mutant of a module."""
    return shlex.join([*PYTEST, *tests_of(module, tree)])


def check_that_tests_pass(suites: dict[str, Path], modules: list[Path]) -> None:
    """Raise if tests fail without a mutant; this also fills the caches of compiled code, Python's and numba's."""
    for tree in suites.values():
        areas = {frozenset(tests_of(module, tree)) for module in modules}
        for files in sorted(sorted(area) for area in areas):
            environment = os.environ | {"PYTHONPATH": str(tree / "src")}
            ran = subprocess.run(
                [*PYTEST, *files], cwd=tree, env=environment, capture_output=True, text=True, check=False
            )
            if ran.returncode:
                raise SystemExit(f"without any mutant this fails:\n{ran.stdout[-3000:]}")


def judge(chosen: list[MutationSpec], suites: dict[str, Path]) -> dict[str, dict[str, int]]:
    """Run the tests on each mutant; return the counts of each module, and print the mutants that survive."""
    counts: dict[str, dict[str, int]] = {}
    for number, mutant in enumerate(chosen, 1):
        count = counts.setdefault(str(mutant.module_path), {"mutants": 0, "these": 0, "larger": 0})
        count["mutants"] += 1
        killed = False
        for suite, tree in suites.items():
            if not killed:  # what a part of the tests finds, all of them find
                os.chdir(tree)
                os.environ["PYTHONPATH"] = str(tree / "src")
                result = mutate_and_test([mutant], command(mutant.module_path, tree), SECONDS)
                killed = result.is_killed
                line, column = mutant.start_pos
                outcome = f"{'killed' if killed else 'survived'} ({suite})"
                sys.stderr.write(f"{number}/{len(chosen)} {mutant.module_path}:{line}:{column} {outcome}\n")
                if not killed:
                    sys.stdout.write(f"survived ({suite}):\n{result.diff}\n")
                    sys.stdout.flush()
            count[suite] += killed
    return counts


def write_rows(path: Path, counts: dict[str, dict[str, int]], seed: int) -> None:
    """Write one row for each module, and the sum of all."""
    total = {key: sum(count[key] for count in counts.values()) for key in ("mutants", "these", "larger")}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["module", "mutants", "killed", "killed_by_larger", "seed", "cosmic_ray"])
        for module, count in [*sorted(counts.items()), ("all", total)]:
            writer.writerow([module, *count.values(), seed, version("cosmic-ray")])


if __name__ == "__main__":
    raise SystemExit(main())
