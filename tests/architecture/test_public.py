"""What the package shows, what importing it costs, and rules that hold for every file."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import convexadam

SOURCE = Path(convexadam.__file__).parent
FILES = sorted(SOURCE.rglob("*.py"))

# A change here is a change for users: announce it in CHANGELOG.md.
PUBLIC = [
    "Affine",
    "Composite",
    "Concat",
    "ConfigError",
    "ConvexAdamError",
    "ConvexSearch",
    "DisplacementField",
    "Features",
    "FileError",
    "GeometryError",
    "Grid",
    "Image",
    "InputError",
    "Intensity",
    "IsotropicGrid",
    "LandmarkTerm",
    "MindSSC",
    "MissingExtraError",
    "NativeGrid",
    "OutOfMemoryError",
    "Precomputed",
    "Refinement",
    "RegistrationConfig",
    "RegistrationResult",
    "as_image",
    "compose",
    "estimate_memory",
    "preset",
    "read_image",
    "read_transform",
    "register",
    "register_batch",
    "use_backend",
    "view",
    "write_image",
    "write_transform",
]

NOT_ON_IMPORT = (
    "SimpleITK",
    "h5py",
    "matplotlib",
    "monai",
    "nibabel",
    "nitransforms",
    "numba",
    "rich",
    "scipy",
    "triton",
    "tyro",
)

# Only what convexadam adds counts: torch may bring in some of them itself.
MEASURE = """
import gc, sys, time
import torch
of_torch = time.process_time()  # since the process began
gc.collect()  # of what torch has left: otherwise it may happen to be due while this package is imported
before = set(sys.modules)
start = time.process_time()
import convexadam
seconds = time.process_time() - start
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
sys.stdout.write(f"{seconds} {of_torch} {' '.join(sorted(loaded))}")
"""


# All but the command line and what is compiled; then an operation as torch does it.
IMPORT_ALL = """
import importlib, sys
import torch
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
from convexadam import use_backend
from convexadam.kernels.jacobian import jacobian_determinant
with use_backend("reference"):
    jacobian_determinant(torch.zeros(3, 4, 5, 6))
sys.stdout.write(" ".join(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def measured() -> tuple[float, float, set[str]]:
    # with the bytecode that pip writes when it installs the package, whatever this environment is told to do
    environment = os.environ | {"PYTHONPATH": str(SOURCE.parent)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    found = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    return float(found[0]), float(found[1]), set(found[2:])


def test_the_public_names_are_counted() -> None:
    assert convexadam.__all__ == PUBLIC
    assert sorted(PUBLIC) == PUBLIC
    assert len(PUBLIC) <= 36


def test_each_public_name_is_documented() -> None:
    for name in PUBLIC:
        value = getattr(convexadam, name)
        # A dataclass without a docstring gets its signature for one.
        text = (vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__) or ""
        assert len(text.split()) >= 3, name
        assert not text.startswith(f"{name}("), name
        assert value.__module__.startswith("convexadam."), name


def test_public_methods_are_documented() -> None:
    for name in PUBLIC:
        cls = getattr(convexadam, name)
        for member, value in vars(cls).items() if inspect.isclass(cls) else ():
            if not member.startswith("_") and (callable(value) or isinstance(value, (property, classmethod))):
                assert inspect.getdoc(value), f"{name}.{member}"


@pytest.mark.long
def test_import_is_quick_and_loads_no_heavy_package() -> None:
    runs = [measured() for _ in range(4)]
    own, of_torch, loaded = zip(*runs, strict=True)
    assert {"convexadam", "jaxtyping"} <= loaded[0]  # it does see what is loaded
    assert not set(NOT_ON_IMPORT) & loaded[0]
    # 0.2 s where torch takes 1.5 s, as a ratio since machines differ and are busy; the first run writes the bytecode
    assert min(own) < min(of_torch) * 0.2 / 1.5


def test_the_parts_load_no_heavy_package_either() -> None:
    paths = [
        path.relative_to(SOURCE.parent)
        for path in FILES
        if path.stem not in ("_compile", "_prebuilt", "_cpu", "_half", "cpu", "triton", "triton_rotation", "__main__")
        and path.parent.name != "cli"
    ]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in paths]
    assert "convexadam.kernels.jacobian" in names
    environment = os.environ | {"PYTHONPATH": str(SOURCE.parent)}
    command = [sys.executable, "-c", IMPORT_ALL, *names]
    loaded = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert "convexadam" in loaded
    assert not set(NOT_ON_IMPORT) & set(loaded)


def test_the_package_is_marked_as_typed() -> None:
    assert (SOURCE / "py.typed").is_file()


def test_files_are_short_and_do_not_print() -> None:
    assert len(FILES) > 100
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 400, path
        tree = ast.parse(text)
        assert ast.get_docstring(tree), path
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        assert not [call.lineno for call in calls if isinstance(call, ast.Name) and call.id == "print"], path


def test_one_place_knows_grid_sample() -> None:
    using = []
    for path in FILES:
        with tokenize.open(path) as file:  # names only: a docstring may speak of it
            if any(
                t.type == tokenize.NAME and t.string == "grid_sample" for t in tokenize.generate_tokens(file.readline)
            ):
                using.append(path.relative_to(SOURCE).as_posix())
    assert using == ["kernels/warp/reference.py"]
