"""The benchmarks of pairs, scaling and kernels, on small volumes and without other tools."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.util
import mmap
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import forked
import numpy as np
import pytest
import torch

from convexadam import RegistrationConfig, preset, register
from convexadam.continuous import (
    Adam,
    AdaptiveSmoothing,
    Compositional,
    DifferentContrasts,
    GaussianSmoothing,
    GaussNewton,
    Level,
    Refinement,
    Ssd,
)
from convexadam.data import phantom_pair
from convexadam.discrete import ConvexSearch
from convexadam.geometry import DisplacementField, Image
from convexadam.io import convert_image, write_image, write_landmarks, write_learn2reg
from convexadam.kernels.feature_level import FeatureLevel, ForwardBackward
from convexadam.registration.working_grid import IsotropicGrid

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
SCRIPT = BENCHMARKS / "pairs" / "run.py"


@contextmanager
def load_script(path: Path) -> Iterator[Any]:
    """Import a script as a module; remove the folders and modules that it adds afterwards."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = dict(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
        patch.setitem(sys.modules, spec.name, module)  # dataclasses need their module there
        spec.loader.exec_module(module)
        yield module
        for name, other in list(sys.modules.items()):
            if name not in before and BENCHMARKS in Path(getattr(other, "__file__", None) or "/").parents:
                del sys.modules[name]


@pytest.fixture(scope="module")
def bench() -> Iterator[Any]:
    with load_script(SCRIPT) as module:
        yield module


@pytest.fixture(scope="module")
def scaling() -> Iterator[Any]:
    with load_script(BENCHMARKS / "scaling.py") as module:
        yield module


@pytest.fixture(scope="module")
def linear() -> Iterator[Any]:
    with load_script(BENCHMARKS / "linear.py") as module:
        yield module


@pytest.fixture(scope="module")
def tuning() -> Iterator[Any]:
    pytest.importorskip("optuna")
    with load_script(BENCHMARKS / "tuning.py") as module:
        yield module


@pytest.fixture(scope="module")
def kernels() -> Iterator[Any]:
    with load_script(BENCHMARKS / "kernels" / "run.py") as module:
        yield module


@pytest.fixture(scope="module")
def ablation() -> Iterator[Any]:
    with load_script(BENCHMARKS / "pairs" / "ablation.py") as module:
        yield module


@pytest.fixture(scope="module")
def optimisers() -> Iterator[Any]:
    with load_script(BENCHMARKS / "pairs" / "optimisers.py") as module:
        yield module


@pytest.fixture
def quick_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fork the workers, whose times are not looked at, from a process that has imported the library."""
    monkeypatch.setattr(subprocess, "run", forked.run)


def write_pair(folder: Path, *, outside: bool = True) -> Any:
    """Write a phantom with labels and landmarks, and with values below air as in CT files."""
    pair = phantom_pair((24, 22, 20), displacement_mm=20.0, noise=0.0)
    folder.mkdir()
    for side, image, labels, points in (
        ("fixed", pair.fixed, pair.fixed_labels, pair.fixed_landmarks_mm),
        ("moving", pair.moving, pair.moving_labels, pair.moving_landmarks_mm),
    ):
        data = image.data.clone()
        data[:, 0] = -2048
        write_image(Image(data, image.grid), folder / f"{side}.nii.gz")
        write_image(labels, folder / f"{side}_label.nii.gz")
        write_landmarks(image.grid.world_to_index(points), folder / f"{side}_landmarks.csv")
        if outside:
            write_landmarks(image.grid.world_to_index(points[:2]), folder / f"{side}_landmarks_outside.csv")
    return pair


def test_finds_pairs_of_any_name(bench: Any, tmp_path: Path) -> None:
    for name in ("b", "a", "no_moving"):
        (tmp_path / name).mkdir()
        for side in ("fixed", "moving")[: 1 if name == "no_moving" else 2]:
            (tmp_path / name / f"{side}.nii.gz").touch()
    assert list(bench.truth.find_pairs(tmp_path)) == ["a", "b"]
    assert list(bench.truth.find_pairs(tmp_path / "a")) == ["a"]  # the pair itself


def test_values_below_air_are_clipped(bench: Any, tmp_path: Path) -> None:
    values = torch.tensor([-2048, -1001, -1000, 7], dtype=torch.int16).reshape(1, 1, 1, 4)
    image = Image.from_array(values)
    write_image(image, tmp_path / "ct.nii.gz")
    found = bench.truth.read_volume(tmp_path / "ct.nii.gz").data
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == [-1000, -1000, -1000, 7]


def test_the_true_field_has_a_small_error(bench: Any, tmp_path: Path) -> None:
    pair = write_pair(tmp_path / "phantom")
    (tmp_path / "phantom" / "eval_labels.txt").write_text("1\n2\n")
    truth = bench.truth.read_truth(tmp_path / "phantom", pair.fixed.grid, pair.moving.grid)
    write_learn2reg(DisplacementField.from_voxels(pair.disp_vox, pair.fixed.grid), tmp_path / "field.nii.gz")
    found = bench.truth.evaluate(tmp_path / "field.nii.gz", truth)
    assert set(found) == set(bench.truth.METRICS)
    assert truth.arguments["labels"] == [1, 2]
    assert found["tre_before_mm"] > 3
    assert found["tre_mm"] < 0.3 * found["tre_before_mm"]
    assert found["tre_outside_mm"] < 0.3 * found["tre_before_mm"]
    assert found["folded_percent"] == 0


def test_rows_replace_those_of_the_same_pair_and_tool(bench: Any, tmp_path: Path) -> None:
    def row(pair: str, tool: str, dice: str) -> dict[str, str]:
        return dict.fromkeys(bench.COLUMNS, "") | {"pair": pair, "tool": tool, "dice": dice}

    path = tmp_path / "new" / "pairs.csv"
    bench.harness.write_rows(path, bench.COLUMNS, [row("b", "y", "1"), row("a", "y", "2")])
    old = bench.harness.read_rows(path, bench.COLUMNS)
    merged = bench.harness.merged_rows(old, [row("b", "y", "3"), row("a", "x", "4")], bench.KEY)
    assert [(r["pair"], r["tool"], r["dice"]) for r in merged] == [("a", "x", "4"), ("a", "y", "2"), ("b", "y", "3")]
    assert [p.name for p in path.parent.iterdir()] == ["pairs.csv"]


def test_a_file_with_other_columns_is_not_modified(bench: Any, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "other.csv").write_text("name,value\n")
    write_pair(tmp_path / "phantom")
    with pytest.raises(SystemExit, match="2"):
        bench.main(["--data", str(tmp_path), "--output", str(tmp_path / "other.csv")])
    assert "must have the columns of this benchmark" in capsys.readouterr().err
    assert (tmp_path / "other.csv").read_text() == "name,value\n"


def test_comparisons_depend_on_the_direction_of_the_measure(bench: Any) -> None:
    def row(tool: str, **values: str) -> dict[str, str]:
        return dict.fromkeys(bench.COLUMNS, "") | {"pair": "p", "tool": tool, "folded_percent": "0"} | values

    library = row(bench.library_name("default"), dice="0.77", tre_mm="1.1")
    peer = row(bench.PUBLISHED, dice="0.7", tre_mm="1")
    found = bench.compare([library, peer], ["default", "published"])
    assert [(line[2], line[5], line[6]) for line in found] == [
        ("dice", "+10.0 %", "better"),
        ("tre_mm", "+10.0 %", "worse"),
    ]
    assert bench.compare([library], ["default"]) == []
    assert bench.compare([library, row(bench.PUBLISHED, error="failed")], ["default"]) == []


def test_only_components_of_the_settings_are_removed(ablation: Any) -> None:
    assert list(ablation.make_variants(RegistrationConfig(linear=None))) == [
        "nothing",
        "field smoothing",
        "composition",
    ]
    level = Level(
        spacing=2, update_smoothing=GaussianSmoothing(sigma=3.0), total_smoothing=AdaptiveSmoothing(sigma=0.5)
    )
    config = RegistrationConfig(
        grid=IsotropicGrid(max_anisotropy=2.0),
        discrete=(ConvexSearch(spacing=4), ConvexSearch(spacing=2)),
        symmetric=True,
        continuous=Refinement(
            levels=(level, Level(spacing=1)),
            similarity=Ssd(robust_scale=1.0),
            optimiser=GaussNewton(momentum=0.4),
            parametrisation=Compositional(),
            different_contrasts=DifferentContrasts(levels=(level, Level(spacing=1)), similarity=Ssd()),
        ),
    )
    found = ablation.make_variants(config)
    assert set(found) == {"nothing", *ablation.CHANGES}
    assert found["nothing"] == config
    assert found["second search"].discrete == ConvexSearch(spacing=4)
    assert found["full-resolution level"].continuous.levels == (level,)
    assert found["coarse level"].continuous.levels == (Level(spacing=1),)
    assert found["coarse level"].continuous.different_contrasts.levels == (Level(spacing=1),)
    assert found["outlier weights"].continuous.similarity == Ssd()
    assert found["update windows"].continuous.levels[0] == dataclasses.replace(level, update_smoothing=None)
    assert found["adaptive smoothing"].continuous.levels[0].total_smoothing == GaussianSmoothing(sigma=0.5)
    assert found["momentum"].continuous.optimiser == GaussNewton(momentum=0.0)
    assert found["Gauss-Newton"].continuous.optimiser == Adam()
    assert [level.iterations for level in found["Gauss-Newton"].continuous.levels] == [50, 30]
    assert [config.grid.max_anisotropy for config in found.values()].count(1.0) == 1


def test_a_part_of_the_similarity_is_removed(ablation: Any) -> None:
    best = preset("best").continuous.similarity.parts
    found = ablation.make_variants(preset("best"))
    assert set(ablation.PARTS) < set(found)
    assert found["descriptors"].continuous.similarity.parts == best[:-1]
    assert found["intensities"].continuous.similarity.parts == best[1:]


def test_the_start_of_optimisers_is_the_search_of_a_registration(optimisers: Any, tmp_path: Path) -> None:
    pair = phantom_pair((24, 22, 20), displacement_mm=20.0, noise=0.0)
    config = optimisers.make_config()
    start = optimisers.prepare_start(pair.fixed, pair.moving, config)
    assert start.fields.forward.shape == (3, *start.features.shape) == (3, 12, 11, 10)
    job = start.write(tmp_path)
    arrays = {name: torch.from_numpy(np.load(path)) for name, path in job["arrays"].items()}
    fields = ForwardBackward(forward=arrays.pop("start"), spacing=job["spacing"])
    features = FeatureLevel(**arrays, spacing=job["spacing"])
    with torch.no_grad():
        *_, last = optimisers.ADAM.refine(lambda _: features, fields, job["shape"])
        found = start.transform(last.fields.forward)
    torch.testing.assert_close(found.disp_mm, register(pair.fixed, pair.moving, config).transform.disp_mm)


def imported_names(path: Path) -> Iterator[str]:
    """Full names of all that a script imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(name: str) -> bool:
    """Whether any part of a dotted name begins with one underscore."""
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def test_benchmarks_use_public_names_only() -> None:
    switching = {"cohort_worker.py"}  # compares with parts of the library switched off or replaced
    for script in sorted(path for path in BENCHMARKS.rglob("*.py") if path.name not in switching):
        names = list(imported_names(script))
        assert [name for name in names if is_private(name)] == [], script
        assert [name for name in names if name.startswith("unittest") or name.endswith(".mock")] == [], script


def test_private_names_are_recognised(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from __future__ import annotations\n"
        "import convexadam._axes\n"
        "from convexadam import __version__, register\n"
        "from convexadam.kernels._backend import use_backend\n"
        "def inner():\n    from convexadam.registration.pair import _release_in_order\n"
    )
    assert [name for name in imported_names(script) if is_private(name)] == [
        "convexadam._axes",
        "convexadam.kernels._backend.use_backend",
        "convexadam.registration.pair._release_in_order",
    ]


def test_the_error_of_a_worker_is_its_last_line(bench: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-I", "-c", f"raise ValueError('cannot read {tmp_path}/fixed.npy')"]
    with pytest.raises(RuntimeError, match=r"^ValueError: cannot read fixed\.npy$"):
        bench.harness.run_worker(command, {}, tmp_path, {})


def test_peak_memory_is_that_of_the_worker_alone(bench: Any) -> None:
    block = np.ones(2**25)  # 268 MB in this process, which must not count in its child
    code = "import sys; sys.path.insert(0, sys.argv[1]); import harness; print(harness.peak_mb())"
    done = subprocess.run(
        [sys.executable, "-I", "-c", code, str(SCRIPT.parents[1])], capture_output=True, text=True, check=True
    )
    own = bench.harness.peak_mb()
    if own is None:
        pytest.skip("this system does not report the peak memory")
    assert own > block.nbytes / 1e6
    assert 1 < float(done.stdout) < 100


@pytest.mark.parametrize("options", [["--repeat", "-1"], ["--threads", "0"], ["--presets"], ["--peers", "elastix"]])
def test_invalid_options_exit(bench: Any, tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "pair").mkdir()
    for side in ("fixed", "moving"):
        (tmp_path / "pair" / f"{side}.nii.gz").touch()
    given = ["--data", str(tmp_path), "--output", str(tmp_path / "new.csv")]
    assert bench.parse_options(given)[0].repeat == 1
    with pytest.raises(SystemExit, match="2"):
        bench.parse_options([*given, *options])


def test_each_peer_has_a_pinned_version_a_worker_and_a_name_of_its_own(bench: Any) -> None:
    peers = bench.PEERS.values()
    assert list(bench.PEERS)[:5] == ["convexadam", "greedy", "greedy-nmi", "ants", "demons"]
    assert set(bench.AT_THEIR_BEST) == set(list(bench.PEERS)[5:])
    assert len({peer.name for peer in peers}) == len(peers)
    for peer in peers:
        assert (SCRIPT.parent / peer.script).is_file()
        assert all(part.isdigit() for part in peer.version.split("."))


def test_an_environment_that_cannot_be_created_is_the_error_of_the_tool(bench: Any, tmp_path: Path) -> None:
    (tmp_path / "greedy").touch()  # a file instead of a folder
    tool = bench.make_peer_tool(bench.PEERS["greedy"], tmp_path)
    assert tool.error == "its environment could not be created"
    assert tool.command == ()


def test_the_number_of_threads_is_set_for_all_libraries(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = bench.harness.thread_environment(3)
    assert {found["OMP_NUM_THREADS"], found["NUMBA_NUM_THREADS"], found[bench.harness.ITK_THREADS]} == {"3"}
    assert bench.harness.thread_environment(None) == {}
    monkeypatch.delenv(bench.harness.ITK_THREADS, raising=False)
    assert bench.harness.itk_threads() == bench.harness.cores()
    monkeypatch.setenv(bench.harness.ITK_THREADS, "5")
    assert bench.harness.itk_threads() == 5


def test_seconds_are_the_median_and_the_result_is_the_last(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 10.0, 12.0, 20.0, 23.0])  # 9, 2 and 3 seconds
    monkeypatch.setattr(bench.harness.time, "perf_counter", lambda: next(clock))
    results = iter("abc")
    result, measured = bench.harness.timed(lambda: next(results), 3)
    assert (result, measured["seconds"], measured["runs"]) == ("c", 3.0, 3)


def test_calls_alternate_and_the_first_ones_do_not_count(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], []

    def call(name: str, seconds: list[float]) -> Any:
        def called() -> None:
            order.append(name)
            clock[0] += seconds.pop(0)

        return called

    monkeypatch.setattr(bench.harness.time, "perf_counter", lambda: clock[0])
    calls = {"a": call("a", [100, 1, 5, 2]), "b": call("b", [100, 7, 7, 8])}
    assert bench.harness.interleaved_ms(calls, 3) == pytest.approx({"a": 2000, "b": 7000})
    assert "".join(order) == "abababab"


@pytest.mark.parametrize("kept", [True, False], ids=["kernel keeps the peak", "sampled"])
def test_memory_above_is_the_peak_of_the_call(bench: Any, monkeypatch: pytest.MonkeyPatch, kept: bool) -> None:
    resident = [10]

    def status(name: str) -> int | None:
        return resident[0] if name == "VmRSS" else 90 if kept else None

    def hold() -> None:
        resident[0] = 70
        time.sleep(0.1)
        resident[0] = 20

    def reset(*_: Any, **__: Any) -> None:
        if not kept:
            raise PermissionError

    monkeypatch.setattr(bench.harness, "_status_bytes", status)
    monkeypatch.setattr(Path, "write_text", reset)
    assert bench.harness.memory_above(hold) == (80 if kept else 60)


@contextmanager
def pages(size: int) -> Iterator[None]:
    """Hold memory from the system, without an allocator, which may keep and reuse freed memory."""
    with mmap.mmap(-1, size) as block:
        for start in range(0, size, mmap.PAGESIZE):
            block[start] = 1
        yield


def test_memory_above_on_this_system(bench: Any) -> None:
    def resident() -> int:
        return bench.harness._status_bytes("VmRSS") or 0

    def hold() -> None:  # 64 MiB, twice in a row
        with pages(2**26):
            time.sleep(0.05)
        with pages(2**26):
            pass

    before = resident()
    with pages(2**26):
        during = resident()
    if min(during - before, during - resident()) < 0.9 * 2**26:
        pytest.skip("this system reports the memory of a process with a delay")
    assert bench.harness.memory_above(hold) == pytest.approx(2**26, rel=0.1)


def test_fits_by_hand(bench: Any) -> None:
    # means 2 and 4; deviations -1, 0, 1 and -3, -1, 4: slope 7 / 2
    assert bench.harness.straight_line([1, 2, 3], [1, 3, 8]) == pytest.approx((-3, 3.5))
    assert bench.harness.exponent([1, 10, 100], [5, 5 * 10**1.5, 5 * 10**3]) == pytest.approx(1.5)


def test_fits_exclude_coarsened_sizes(scaling: Any) -> None:
    def row(voxels: str, working: str, seconds: str) -> dict[str, str]:
        return dict.fromkeys(scaling.COLUMNS, "") | {"voxels": voxels, "working_voxels": working, "seconds": seconds}

    rows = [row("1", "1", "3"), row("2", "2", "5"), row("4", "4", "9"), row("9", "4", "9"), row("8", "8", "")]
    assert scaling.fit_line(rows) == pytest.approx({"intercept": 1, "slope": 2, "exponent": 0.7917}, rel=1e-3)
    assert scaling.fit_line(rows[:1]) == {}


@pytest.mark.parametrize("options", [["--sizes", "8"], ["--repeat", "-1"], ["--threads", "0"], ["--presets", "fast"]])
def test_invalid_sizes_exit(scaling: Any, tmp_path: Path, options: list[str]) -> None:
    given = ["--output", str(tmp_path / "new.csv")]
    assert scaling.parse_options([*given, "--sizes"]).sizes == []
    with pytest.raises(SystemExit, match="2"):
        scaling.parse_options([*given, *options])


def test_memory_is_compared_with_the_estimate_and_a_bound(scaling: Any) -> None:
    def row(edge: str, estimated: int, measured: int) -> dict[str, str]:
        voxels = int(edge) ** 3
        found = {"preset": "default", "edge": edge, "bytes_per_voxel": f"{measured / voxels:.1f}"}
        numbers = {"estimated_bytes": str(estimated), "memory_bytes": str(measured)}
        return dict.fromkeys(scaling.COLUMNS, "") | found | numbers

    assert scaling.find_problems([row("128", 8 * 10**7, 7 * 10**7), row("064", 10**9, 10**6)]) == []
    (error,) = scaling.find_problems([row("128", 8 * 10**7, 6 * 10**7)])
    assert error.endswith("within 15% of 1, got 1.33")
    (bound,) = scaling.find_problems([row("128", 9 * 10**7, 9 * 10**7)])
    assert bound.endswith("at most 42 bytes per voxel, got 42.9")
    assert set(scaling.BYTES_PER_VOXEL) == set(scaling.preset_names())


def test_seconds_on_file_are_kept_where_memory_alone_is_measured(scaling: Any) -> None:
    old = dict.fromkeys(scaling.COLUMNS, "") | {"preset": "a", "edge": "128", "seconds": "2", "runs": "3"}
    assert scaling.keep_seconds(old | {"seconds": "", "runs": ""}, [old]) == old
    assert scaling.keep_seconds(old | {"seconds": "4"}, [old])["seconds"] == "4"
    elsewhere = old | {"seconds": "", "runs": "", "environment": "another machine"}
    assert scaling.keep_seconds(elsewhere, [old]) == elsewhere


@pytest.mark.long
@pytest.mark.usefixtures("quick_workers")
def test_scaling_of_two_small_sizes(scaling: Any, tmp_path: Path, capsys: Any) -> None:
    output, plot = tmp_path / "scaling.csv", tmp_path / "images" / "scaling.png"
    options = ["--presets", "published", "--output", str(output), "--plot", str(plot), "--threads", "1"]
    assert scaling.main([*options, "--sizes", "20", "28", "--repeat", "1"]) == 0
    rows = scaling.harness.read_rows(output, scaling.COLUMNS)
    assert [(row["edge"], row["voxels"], row["error"]) for row in rows] == [("020", "8000", ""), ("028", "21952", "")]
    assert all(float(row["seconds"]) > 0 and int(row["estimated_bytes"]) > 0 for row in rows)
    assert "to the power" in capsys.readouterr().out
    assert plot.stat().st_size > 1000


@pytest.fixture
def small_phantoms(linear: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module of the cases, whose phantoms have few voxels, with two cases."""
    cases = sys.modules[linear.make_pair.__module__]
    monkeypatch.setattr(cases, "PHANTOM_SHAPE", (40, 32, 32))
    two = [cases.Case(f"phantom {name}", 12, cases.Motion(4, 8)) for name in ("ct ct", "ct t1")]
    monkeypatch.setattr(linear, "CASES", two)
    cases.load_source.cache_clear()
    yield cases
    cases.load_source.cache_clear()


@pytest.mark.parametrize("model", ["rigid", "affine"])
@pytest.mark.parametrize("overlap", [1.0, 0.6])
def test_the_truth_of_linear_cases(linear: Any, small_phantoms: Any, model: str, overlap: float) -> None:
    sitk = pytest.importorskip("SimpleITK")
    case = dataclasses.replace(linear.CASES[0], overlap=overlap)
    pair = linear.make_pair(case, model, None)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    matrix = lps @ pair.truth @ lps
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(matrix[:3, :3].ravel().tolist())
    transform.SetTranslation(matrix[:3, 3].tolist())
    fixed, moving = (convert_image(image, sitk.Image) for image in (pair.fixed, pair.moving))
    ones = sitk.Resample(moving * 0 + 1, fixed, transform)
    seen = sitk.GetArrayFromImage(ones) > 0.5
    values = sitk.GetArrayFromImage(fixed)[seen]

    def correlate(chosen: Any) -> float:
        return float(np.corrcoef(values, sitk.GetArrayFromImage(sitk.Resample(moving, fixed, chosen))[seen])[0, 1])

    best = correlate(transform)
    assert best > 0.95
    for axis in range(3):
        for step in (-6.0, 6.0):  # half a voxel
            shift = sitk.TranslationTransform(3, np.eye(3)[axis] * step)
            assert correlate(sitk.CompositeTransform([shift, transform])) < best
    assert pair.measure(pair.truth) == 0
    moved = pair.truth.copy()
    moved[0, 3] += 6.0
    assert pair.measure(moved) == pytest.approx(0.5)
    assert pair.measure(np.eye(4)) > 0.5
    assert seen.mean() == pytest.approx(overlap, abs=0.15)


def test_linear_registrations_of_two_small_phantoms(linear: Any, small_phantoms: Any, tmp_path: Path) -> None:
    output = tmp_path / "new.csv"
    options = ["--cases", "ct ct", "--models", "rigid", "--frames", "3", "--threads", "1", "--output", str(output)]
    assert linear.main([*options, "--peers", str(tmp_path / "none")]) == 0
    one, *series = linear.harness.read_rows(output, linear.COLUMNS)
    assert one["case"] == "phantom ct ct, 12 mm voxels: 4°, 8 mm"
    assert float(one["convexadam_voxels"]) < 0.3 < float(one["before_voxels"])
    assert (one["ants_voxels"], one["greedy_seconds"]) == ("", "")
    largest, mean = (float(row["convexadam_voxels"]) for row in series)
    assert mean <= largest < 0.3


@pytest.mark.parametrize("options", [["--threads", "0"], ["--frames", "1"], ["--models", "elastic"]])
def test_invalid_options_of_linear_registrations_exit(linear: Any, options: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        linear.parse_options(options)


@pytest.mark.long
@pytest.mark.usefixtures("quick_workers")
def test_the_time_of_a_search_is_extrapolated_from_some_samples(
    tuning: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "measure_seconds", lambda call: (call(), 2.0)[1])
    options = ["--shape", "24", "22", "20", "--measure", "1", "1", "--output", str(tmp_path / "new.csv")]
    tuning.main([*options, "--judged-by", "landmarks"])
    [row] = tuning.harness.read_rows(tmp_path / "new.csv", tuning.COLUMNS)
    assert (row["samples"], row["settings"]) == ("100+75", "1300")
    # two seconds for each draw, and for each setting alone, on four pairs
    assert (row["shared_seconds"], row["separate_seconds"]) == ("1400", "10400")
    assert row["times"] == row["times_with_start"] == "7.4"  # where a start takes as long as a call, none


@pytest.mark.parametrize("options", [["--repeats", "4"], ["--threads", "0"], ["--only", "sort"], ["--size", "4x9x9"]])
def test_invalid_options_of_the_kernels_exit(kernels: Any, tmp_path: Path, options: list[str]) -> None:
    given = ["--output", str(tmp_path / "new.csv")]
    assert kernels.parse_arguments(given).size == (160, 192, 224)
    with pytest.raises(SystemExit, match="2"):
        kernels.parse_arguments([*given, *options])


def test_every_operation_with_kernels_has_a_file(kernels: Any) -> None:
    found = {path.stem.removeprefix("bench_") for path in (BENCHMARKS / "kernels").glob("bench_*.py")}
    assert found == set(kernels.OPERATIONS)
    files = Path(kernels.convexadam.__file__).parent.glob("kernels/*/cpu.py")
    folders = {path.parent.name for path in files if "compile_kernel" in path.read_text(encoding="utf-8")}
    assert found - {"add_step"} == folders - {"warp"}  # the only operation of that folder


def test_counts_of_interpolation_inverses_and_determinants_by_hand(kernels: Any) -> None:
    interpolate, jacobian = (importlib.import_module(f"bench_{name}") for name in ("interpolate", "jacobian"))
    # 2 x 3 x 4 = 24 nodes to 4 x 6 x 8 = 192 voxels; 4 x 3 x 4 = 48 values after one axis, 4 x 6 x 4 = 96 after two
    counted = interpolate.count_work((2, 3, 4), (4, 6, 8))
    assert (counted.bytes, counted.operations) == (4 * 3 * (24 + 192), 3 * 3 * (48 + 96 + 192))
    # 19 floats for each of ten points; both maps and interpolations, 16 bins once and 16 twice, 72 sums
    counted = importlib.import_module("bench_mutual_information").count_work(10)
    assert (counted.bytes, counted.operations) == (4 * 19 * 10, 10 * (120 + 32 + 64 + 144))
    # fifteen floats for each of 24 voxels; a read takes 7 means of two (3) for each of 3 components, and 15 around
    counted = importlib.import_module("bench_invert").count_work((2, 3, 4))
    assert (counted.bytes, counted.operations) == (4 * 15 * 24, 3 * 24 * (63 + 15))
    # three floats in and one out for each of 24 voxels; nine differences and factors, three sums, 9 products and 5 sums
    counted = jacobian.count_work((2, 3, 4))
    assert (counted.bytes, counted.operations) == (4 * 4 * 24, 24 * (18 + 3 + 14))


def test_counts_of_correlation_by_hand(kernels: Any) -> None:
    correlation = importlib.import_module("bench_lncc").count_work
    # two maps, two fields, two weights and a curvature; nine sums of 2 x 3 more along three axes, a weighted square
    counted = correlation((2, 3, 4), radius=3, weights=2, curved=1)
    assert counted.bytes == 24 * 4 * (2 + 6 + 2 + 1)
    assert counted.operations == 24 * (50 + 28 + 5 + 24 + 9 + 36 + 9 * 6 * 3 + 8)


def test_counts_of_a_curvature_by_hand(kernels: Any) -> None:
    bench = importlib.import_module("bench_warp_ssd")
    # squares of three slopes of five channels and their sums; three of the sums are left, weighed and added up
    counted = bench.count_curvature_work((2, 3, 4), bench.Work(100, 1000), channels=5)
    assert (counted.bytes, counted.operations) == (100 + 4 * 24, 1000 + 24 * (3 * 5 + 3 * 5 + 3 + 2 + 2))


def test_counts_of_regularisers_by_hand(kernels: Any) -> None:
    names = ("diffusion", "bending", "volume_change", "bilateral")
    diffusion, bending, volume_change, bilateral = (importlib.import_module(f"bench_{name}") for name in names)
    # 72 values of 24 voxels: in, and their gradient in and out
    assert diffusion.count_work((2, 3, 4)).bytes == bending.count_work((2, 3, 4)).bytes == 4 * 3 * 72
    # 6 differences, 6 sums, a factor; and 3 squares of differences
    assert diffusion.count_work((2, 3, 4), valued=False).operations == 72 * 13
    assert diffusion.count_work((2, 3, 4)).operations == 72 * (13 + 9)
    # 11 and a sum, or a factor and a sum; and 6 squares of second differences
    assert bending.count_work((2, 3, 4), valued=False).operations == 72 * 26
    assert bending.count_work((2, 3, 4)).operations == 72 * (26 + 30)
    counted = volume_change.count_work((2, 3, 4), weights=1)
    assert (counted.bytes, counted.operations) == (4 * 10 * 24, 24 * (18 + 3 + 27 + 5 + 7 + 45))
    counted = bilateral.count_work((2, 3, 4), 1, channels=2)
    assert (counted.bytes, counted.operations) == (4 * 8 * 24, 24 * (26 * 20 + 6))


def test_counts_of_steps_by_hand(kernels: Any) -> None:
    counted = importlib.import_module("bench_damped_step").count_work((2, 3, 4))
    assert (counted.bytes, counted.operations) == (4 * (8 + 3) * 24, 24 * (2 + 3 + 5 + 4 + 3 + 6 + 5 + 2 + 2))


@pytest.mark.long
def test_kernels_beside_their_references(kernels: Any, tmp_path: Path, capsys: Any) -> None:
    output = tmp_path / "kernels.csv"
    assert kernels.main(["--size", "12x10x9", "--repeats", "5", "--output", str(output)]) == 0
    rows = kernels.harness.read_rows(output, kernels.COLUMNS)
    assert {row["operation"] for row in rows} == set(kernels.OPERATIONS)
    for row in rows:
        assert float(row["ratio"]) == pytest.approx(float(row["reference_ms"]) / float(row["kernel_ms"]), rel=0.02)
        assert float(row["floor_ms"]) > 0
    assert "GB/s" in capsys.readouterr().out


@pytest.mark.long
@pytest.mark.usefixtures("quick_workers")
def test_pairs_run_although_one_fails(bench: Any, tmp_path: Path, capsys: Any) -> None:
    data, output = tmp_path / "data", tmp_path / "results" / "pairs.csv"
    data.mkdir()
    pair = write_pair(data / "phantom")
    (data / "broken").mkdir()
    write_image(pair.fixed, data / "broken" / "fixed.nii.gz")
    write_image(Image(pair.moving.data * float("nan"), pair.moving.grid), data / "broken" / "moving.nii.gz")
    options = [
        "--data",
        str(data),
        "--output",
        str(output),
        "--threads",
        "1",
        "--presets",
        "published",
        "--repeat",
        "2",
    ]
    threads = torch.get_num_threads()
    try:
        assert bench.main(options) == 1
        good, bad = sorted(bench.harness.read_rows(output, bench.COLUMNS), key=lambda row: bool(row["error"]))
        assert bench.main([*options, "--pairs", "phantom"]) == 0  # replaces its row and keeps the other
    finally:
        torch.set_num_threads(threads)
    again = bench.harness.read_rows(output, bench.COLUMNS)
    assert [row["pair"] for row in again] == ["broken", "phantom"]
    assert again[0] == bad
    assert {name: again[1][name] for name in bench.truth.METRICS} == {name: good[name] for name in bench.truth.METRICS}
    assert (good["pair"], good["tool"], good["threads"], good["runs"]) == (
        "phantom",
        "convexadam-torch published",
        "1",
        "2",
    )
    assert all(good[name] for name in bench.COLUMNS if name not in ("error", "peak_mb"))
    assert float(good["tre_mm"]) < float(good["tre_before_mm"])
    assert "NaN" in bad["error"]
    assert str(tmp_path) not in output.read_text()
    printed = capsys.readouterr()
    assert "tre_mm" in printed.out
    assert "phantom: convexadam-torch published" in printed.err


@pytest.mark.long
@pytest.mark.usefixtures("quick_workers")
def test_a_preset_without_one_component(ablation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path / "phantom")
    output = tmp_path / "ablation.csv"
    monkeypatch.setattr(ablation, "CHANGES", {"coarse level": ablation.CHANGES["coarse level"]})
    monkeypatch.setattr(ablation, "PARTS", ())
    assert ablation.main(["--data", str(tmp_path), "--output", str(output)]) == 0
    rows = ablation.runs.harness.read_rows(output, ablation.COLUMNS)
    assert [(row["pair"], row["preset"], row["without"]) for row in rows] == [
        ("phantom", "best", "coarse level"),
        ("phantom", "best", "nothing"),
    ]
    assert all(row[name] for row in rows for name in ablation.COLUMNS if name != "error")
    assert rows[0]["tre_mm"] != rows[1]["tre_mm"]


@pytest.mark.long
@pytest.mark.usefixtures("quick_workers")
def test_optimisers_from_one_start(optimisers: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_pair(tmp_path / "phantom")
    output = tmp_path / "optimisers.csv"
    adam = dataclasses.replace(optimisers.ADAM, levels=(Level(spacing=2, iterations=40),))
    early = dataclasses.replace(adam, tolerance=1.0)  # no five steps lower the value to 0
    monkeypatch.setattr(optimisers, "STAGES", {"early": early, "late": adam})
    assert optimisers.main(["--data", str(tmp_path), "--output", str(output), "--repeat", "1"]) == 0
    rows = optimisers.runs.harness.read_rows(output, optimisers.COLUMNS)
    found = {row["optimiser"]: row["iterations"] for row in rows}
    assert found == {
        "early": "6",
        "late": "40",
        optimisers.START: "0",
    }  # the value counts before the first and the sixth
    assert all(row["tre_mm"] and row["dice"] and row["sdlogj"] for row in rows)
    assert len({row["tre_mm"] for row in rows}) == 3
