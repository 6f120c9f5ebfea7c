"""Which implementation runs: chosen openly, kept to where it was asked for, and recorded."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import jaxtyping
import oracles
import pytest
import torch
from compiled import noise

from convexadam import ConfigError, Image, RegistrationConfig, RegistrationResult, preset, register, use_backend
from convexadam.continuous import Level, Refinement
from convexadam.data import phantom_pair
from convexadam.discrete import ConvexSearch
from convexadam.kernels import _backend, backend_for, check_backend, requested_backend
from convexadam.kernels.adam import adam_step
from convexadam.kernels.cost_volume import Window, cost_volume
from convexadam.kernels.coupled_argmin import coupled_argmin
from convexadam.kernels.damped_step import damped_step
from convexadam.kernels.interpolate import interpolate
from convexadam.kernels.invert import origins
from convexadam.kernels.jacobian import jacobian_determinant
from convexadam.kernels.lncc import prepare_lncc
from convexadam.kernels.mind_ssc import mind_ssc, pooled_mind_ssc
from convexadam.kernels.smooth import smooth
from convexadam.kernels.warp import add_step
from convexadam.kernels.warp_ssd import overlap_weight, prepare_ssd

BACKENDS: list[Any] = ["auto", "reference", "cpu", "triton"]
QUICK = RegistrationConfig(
    discrete=ConvexSearch(spacing=3, radius=2), continuous=Refinement(levels=(Level(iterations=3),))
)

WINDOW = Window((0, 0, 1))
FIELD = noise(3, 4, 5, 6)
VOLUME = FIELD[0]
POSITIONS = tuple(torch.arange(n, dtype=torch.float64) for n in VOLUME.shape)
OPERATIONS: dict[str, Callable[..., Any]] = {
    "adam_step": lambda t: adam_step(t(FIELD), t(FIELD), t(FIELD), t(FIELD), step=1, learning_rate=0.0, eps=1.0),
    "damped_step": lambda t: damped_step(t(torch.cat([FIELD, FIELD[:1]])), t(torch.ones(4, 4, 5, 6)), damping=1.0),
    "interpolate": lambda t: interpolate(t(FIELD), POSITIONS),
    "origins": lambda t: origins(t(FIELD), t(FIELD[:, 0, 0]), t(FIELD[:, 0, 0])),
    "jacobian_determinant": lambda t: jacobian_determinant(t(FIELD)),
    "mind_ssc": lambda t: mind_ssc(t(VOLUME)),
    "pooled_mind_ssc": lambda t: pooled_mind_ssc(t(VOLUME), [(2, 2, 2)]),
    "smooth": lambda t: smooth(t(FIELD), [0.25, 0.5, 0.25]),
    "add_step": lambda t: add_step(t(FIELD), t(FIELD), longest=0.5),
    "cost_volume": lambda t: cost_volume(t(FIELD), t(FIELD), WINDOW, fixed_weight=t(VOLUME).abs()),
    "coupled_argmin": lambda t: coupled_argmin(t(FIELD), WINDOW, toward=t(FIELD), theta=1.0),
    "prepare_lncc": lambda t: prepare_lncc(t(FIELD), t(FIELD)),
    "prepare_ssd": lambda t: prepare_ssd(t(FIELD), t(FIELD)),
    "overlap_weight": lambda t: overlap_weight(t(FIELD), t(VOLUME), None),
}


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users have it: what checks annotations in the tests would raise before the library does."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the modules that were asked for, as they are asked for."""
    names: list[str] = []
    load = importlib.import_module

    def noted(name: str, package: str | None = None) -> ModuleType:
        names.append(name)
        return load(name, package)

    monkeypatch.setattr(
        _backend, "importlib", type("Noted", (), {"import_module": staticmethod(noted), "util": importlib.util})
    )
    return names


def _kinds(names: list[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in names}


def test_auto_takes_kernels_for_float32_on_the_cpu() -> None:
    plain = torch.zeros(2)
    assert backend_for(plain) == "cpu"
    assert backend_for(plain, None, plain) == "cpu"
    assert backend_for(None, plain) == "cpu"


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.bool])
def test_auto_takes_torch_for_other_types(dtype: torch.dtype) -> None:
    plain, other = torch.zeros(2), torch.zeros(2, dtype=dtype)
    assert backend_for(other) == "reference"
    assert backend_for(plain, other) == "reference"
    assert backend_for(other, plain) == "reference"


def test_auto_takes_torch_where_a_gradient_has_to_flow() -> None:
    plain, variable = torch.zeros(2), torch.zeros(2, requires_grad=True)
    assert backend_for(variable) == "reference"
    assert backend_for(plain, variable) == "reference"
    assert backend_for(plain, variable * 2) == "reference"
    assert backend_for(variable.detach()) == "cpu"
    with torch.no_grad():
        assert backend_for(variable) == "cpu"
    with torch.inference_mode():
        assert backend_for(plain * 2) == "cpu"


def test_auto_takes_torch_on_other_devices_and_without_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.zeros(2)
    assert backend_for(plain.to("meta")) == "reference"
    assert backend_for(plain, plain.to("meta")) == "reference"
    monkeypatch.setattr(_backend, "_is_installed", lambda package: package != "numba")
    assert backend_for(plain) == "reference"


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_asks(name: str, ran: list[str]) -> None:
    run = OPERATIONS[name]
    run(lambda t: t.clone())
    assert _kinds(ran) == {"cpu"}
    ran.clear()
    run(lambda t: t.double())
    with use_backend("reference"):
        run(lambda t: t.clone())
    assert _kinds(ran) == {"reference"}
    with use_backend("cpu"), pytest.raises(ConfigError, match="float64"):
        run(lambda t: t.double())


def test_costs_in_half_precision_are_for_kernels(ran: list[str]) -> None:
    coupled_argmin(FIELD.half(), WINDOW, toward=FIELD)
    assert _kinds(ran) == {"cpu"}
    with use_backend("cpu"):
        coupled_argmin(FIELD.bfloat16(), WINDOW)
        assert cost_volume(FIELD, FIELD, WINDOW, dtype=torch.float16).dtype == torch.float16


@pytest.mark.parametrize(
    "operate", [jacobian_determinant, lambda u: interpolate(u, POSITIONS), lambda u: smooth(u, [1.0])]
)
def test_gradients_flow(operate: Callable[[torch.Tensor], torch.Tensor]) -> None:
    variable = FIELD.clone().requires_grad_()
    operate(variable).sum().backward()
    assert variable.grad is not None
    with use_backend("cpu"), pytest.raises(ConfigError, match="gradient"):
        operate(variable)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_is_chosen_outside_the_block(backend: Any) -> None:
    assert requested_backend() == "auto"
    with use_backend(backend):
        assert requested_backend() == backend
        with use_backend("reference"):
            assert requested_backend() == "reference"
            with pytest.raises(KeyError), use_backend("cpu"):
                assert requested_backend() == "cpu"
                raise KeyError
            assert requested_backend() == "reference"
        assert requested_backend() == backend
        with pytest.raises(ConfigError), use_backend("numba"):  # type: ignore[arg-type]
            raise AssertionError("there is no such backend")
        assert requested_backend() == backend
    assert requested_backend() == "auto"


def test_other_threads_choose_for_themselves() -> None:
    def chosen() -> str:
        return requested_backend()

    with ThreadPoolExecutor(1) as pool, use_backend("reference"):
        assert pool.submit(chosen).result() == "auto"
        assert chosen() == "reference"


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", ["", "CPU", "numba", "cuda", None, 3, ["cpu"]])
def test_unknown_names_raise(name: Any) -> None:
    for choose in (check_backend, lambda n: RegistrationConfig(backend=n), lambda n: use_backend(n).__enter__()):
        with pytest.raises(ConfigError, match="auto, reference, cpu, triton"):
            choose(name)


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (torch.zeros(2, dtype=torch.float64), "float64"),
        (torch.zeros(2, dtype=torch.float16), "float16"),
        (torch.zeros(2, device="meta"), "on cpu for the backend 'cpu', got one on meta"),
        (torch.zeros(2, requires_grad=True), "must not require a gradient"),
    ],
)
def test_a_request_that_cannot_be_met_raises_and_says_why(tensor: torch.Tensor, reason: str) -> None:
    for given in ([tensor], [torch.zeros(2), None, tensor]):
        with use_backend("cpu"), pytest.raises(ConfigError, match=reason) as raised:
            backend_for(*given)
        assert "'cpu'" in str(raised.value)
        assert "reference" in str(raised.value)  # what to do instead


def test_triton_needs_a_device_or_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "_is_installed", lambda package: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with use_backend("triton"):
        with pytest.raises(ConfigError, match="tensors must be on cuda for the backend 'triton', got one on cpu"):
            backend_for(torch.zeros(2))
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        assert backend_for(torch.zeros(2)) == "triton"
    assert backend_for(torch.zeros(2)) == "cpu"  # interpreted kernels are for tests: nobody gets them unasked


@pytest.mark.parametrize(("backend", "package"), [("cpu", "numba"), ("triton", "triton")])
def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch, backend: Any, package: str) -> None:
    monkeypatch.setattr(_backend, "_is_installed", lambda name: name != package)
    with use_backend(backend), pytest.raises(ConfigError, match=f"{package} must be installed for the backend"):
        backend_for(torch.zeros(2))


def test_an_old_triton_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "_triton_version", lambda: (3, 2))
    monkeypatch.setattr(_backend, "_is_installed", lambda package: True)
    with use_backend("triton"), pytest.raises(ConfigError, match=r"triton must be 3\.3 or newer .*, got 3\.2"):
        backend_for(torch.zeros(2))


def test_reference_takes_everything() -> None:
    with use_backend("reference"):
        for tensor in (torch.zeros(2), torch.zeros(2).double(), torch.zeros(2, device="meta")):
            assert backend_for(tensor) == "reference"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_choice_is_saved(backend: Any, tmp_path: Path) -> None:
    config = RegistrationConfig(backend=backend)
    assert f'backend = "{backend}"' in config.to_toml()
    assert RegistrationConfig.from_toml(config.to_toml()) == config
    config.save(tmp_path / "config.toml")
    assert RegistrationConfig.load(tmp_path / "config.toml").backend == backend
    assert RegistrationConfig().with_settings(f'backend = "{backend}"') == config


def test_settings_without_a_backend_are_auto_and_wrong_ones_raise() -> None:
    text = RegistrationConfig(backend="cpu").to_toml()
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("backend"))
    assert RegistrationConfig.from_toml(kept).backend == "auto"
    for wrong in ('"numba"', "3", '"none"', "true"):
        with pytest.raises(ConfigError, match="backend"):
            RegistrationConfig.from_toml(text.replace('backend = "cpu"', f"backend = {wrong}"))


@pytest.fixture(scope="module")
def images() -> tuple[Image, Image]:
    affine = oracles.oblique_affine((7.0, 7.5, 8.0))
    pair = phantom_pair((36, 30, 33), affine=affine, displacement_mm=18.0)
    return pair.fixed, pair.moving


@pytest.mark.parametrize(
    ("asked", "around", "expected"),
    [
        ("auto", "auto", "cpu"),
        ("auto", "reference", "reference"),
        ("auto", "cpu", "cpu"),
        ("reference", "cpu", "reference"),
        ("cpu", "reference", "cpu"),
    ],
)
def test_what_ran_is_what_the_result_says(
    asked: Any, around: Any, expected: str, images: tuple[Image, Image], ran: list[str]
) -> None:
    config = RegistrationConfig(discrete=QUICK.discrete, continuous=QUICK.continuous, backend=asked)
    with use_backend(around):
        result = register(*images, config)
        assert requested_backend() == around
    assert result.backend == expected
    assert _kinds(ran) == {expected}
    assert len(set(ran)) >= 7  # the operations of all stages
    report = result.summary()
    assert report["backend"] == expected
    assert report["config"]["backend"] == asked


def _by_both(config: RegistrationConfig, images: tuple[Image, Image]) -> tuple[RegistrationResult, RegistrationResult]:
    plain = register(*images, config.with_settings('backend = "reference"'))
    fused = register(*images, config.with_settings('backend = "cpu"'))
    assert (plain.backend, fused.backend) == ("reference", "cpu")
    return plain, fused


def _apart(results: tuple[RegistrationResult, RegistrationResult]) -> torch.Tensor:
    """Distance of two transforms at each voxel, in voxels."""
    plain, fused = (result.transform.to_voxels() for result in results)
    assert torch.linalg.vector_norm(fused, dim=0).max() > 0.5  # there is something to find
    return torch.linalg.vector_norm(fused - plain, dim=0)


@pytest.mark.parametrize("name", [pytest.param("default", marks=pytest.mark.long), "published"])
def test_backends_agree(name: str, images: tuple[Image, Image], monkeypatch: pytest.MonkeyPatch) -> None:
    # Kernels keep costs in half precision, torch does not: here neither does.
    monkeypatch.setattr(importlib.import_module("convexadam.discrete.search"), "backend_for", lambda *_: "reference")
    apart = _apart(_by_both(preset(name).with_settings("discrete.parabolic_fit = true"), images))
    assert (apart <= 0.02).float().mean() >= 0.999


@pytest.mark.parametrize("name", [pytest.param("default", marks=pytest.mark.long), "published"])
@pytest.mark.parametrize("parabolic_fit", ["true", "false"])
def test_backends_agree_as_well_as_digits_let_them(name: str, parabolic_fit: str, images: tuple[Image, Image]) -> None:
    # Costs in half precision are wrong by 2^-11, and so are the fractions of cells that come of them. A search of whole
    # cells starts the refinement on the kinks of linear interpolation, where the slope has two values and the last
    # digit takes its pick: float32 and float64 part there as much as the implementations do.
    results = _by_both(preset(name).with_settings(f"discrete.parabolic_fit = {parabolic_fit}"), images)
    assert (_apart(results) <= 0.2).float().mean() >= 0.999
    plain, fused = (result.diagnostics["dissimilarity_after"] for result in results)
    assert fused == pytest.approx(plain, rel=0.01)


def test_doubles_can_be_registered_with_kernels(images: tuple[Image, Image]) -> None:
    arrays = [image.data[0].double().numpy() for image in images]
    config = QUICK.with_settings('backend = "cpu"')
    result = register(*arrays, config, fixed_affine=images[0].grid.affine, moving_affine=images[1].grid.affine)
    assert result.backend == "cpu"


def test_a_registration_that_cannot_run_where_it_is_asked_to_raises(
    images: tuple[Image, Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ConfigError, match="triton"):
        register(*images, QUICK.with_settings('backend = "triton"'))
    assert requested_backend() == "auto"
