"""Registrations on a real GPU; nothing is imported beyond torch and what the library needs without its extras."""

from __future__ import annotations

import pytest
import torch

from convexadam import preset, register

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm device"),
]

SIZE = (48, 44, 40)


def _volumes() -> tuple[torch.Tensor, torch.Tensor]:
    """A smooth random volume, and the same moved by two voxels."""
    coarse = torch.randn(1, 1, 9, 9, 9, generator=torch.Generator().manual_seed(0))
    fixed = torch.nn.functional.interpolate(coarse, size=SIZE, mode="trilinear", align_corners=True)[0, 0]
    return fixed, fixed.roll(2, 0)


@pytest.mark.parametrize("name", ["published", "default", "best"])
def test_the_field_is_that_of_the_cpu(name: str) -> None:
    volumes = _volumes()
    on_gpu, on_cpu = (register(*(v.to(device) for v in volumes), preset(name)) for device in ("cuda", "cpu"))
    assert on_gpu.backend == "triton"
    assert on_gpu.transform.disp_mm.is_cuda
    apart = (on_gpu.transform.disp_mm.cpu() - on_cpu.transform.disp_mm).norm(dim=0)
    assert on_cpu.transform.disp_mm.abs().max() > 1
    assert apart.mean() <= 0.02
    assert apart.max() <= 0.3
    found, expected = (result.diagnostics["dissimilarity_after"] for result in (on_gpu, on_cpu))
    assert found == pytest.approx(expected, rel=0.02)


def test_recorded_steps_give_the_field_of_steps_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = [v.cuda() for v in _volumes()]
    for name in ("published", "best"):
        monkeypatch.delenv("CONVEXADAM_CUDA_GRAPH", raising=False)
        recorded = register(*volumes, preset(name)).transform.disp_mm
        monkeypatch.setenv("CONVEXADAM_CUDA_GRAPH", "0")
        plain = register(*volumes, preset(name)).transform.disp_mm
        assert (recorded - plain).norm(dim=0).mean() <= 0.01


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two devices")
def test_the_second_device() -> None:
    volumes = [v.to("cuda:1") for v in _volumes()]
    assert register(*volumes, preset("default")).transform.disp_mm.device == torch.device("cuda", 1)
