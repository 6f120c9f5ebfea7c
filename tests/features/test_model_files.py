"""Model files that would execute code, read files or claim what they do not hold."""

from __future__ import annotations

import collections
import json
import os
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_nnunet
import torch

from convexadam import FileError
from convexadam.features.model_files import check_checkpoint, check_plans, check_torchscript


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


PLAIN = {
    "trainer_name": "nnUNetTrainer",
    "init_args": {"configuration": "3d_fullres", "fold": 0},
    "network_weights": collections.OrderedDict(w=torch.zeros(3)),
    "inference_allowed_mirroring_axes": (0, 1, 2),
    "logging": {"ema_fg_dice": [np.float64(0.5), np.float32(0.1)], "n": np.int64(3), "all": np.zeros(4)},
    "_best_ema": np.float64(0.7),
    "grad_scaler_state": {"scale": 65536.0},
}


def test_what_nnunet_writes_is_loaded(tmp_path: Path) -> None:
    torch.save(PLAIN, tmp_path / "a.pth")
    check_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize("function", [os.system, eval, exec, __import__, Path.touch])
def test_no_code_runs_from_a_checkpoint(function: Any, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    arguments: dict[Any, Any] = {Path.touch: mark, os.system: f"touch {mark}"}
    argument = arguments.get(function, f"open({str(mark)!r}, 'w')")
    torch.save(PLAIN | {"optimizer_state": Payload(function, argument)}, tmp_path / "a.pth")
    with pytest.raises(FileError, match="execute no code"):
        check_checkpoint(tmp_path / "a.pth")
    assert not mark.exists()


def test_the_features_refuse_it_too(tmp_path: Path) -> None:
    pytest.importorskip("nnunetv2")
    from convexadam import Image
    from convexadam.features import NNUNetFeatures

    mark = tmp_path / "ran"
    (tmp_path / "fold_0").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps(small_nnunet.dataset()))
    (tmp_path / "plans.json").write_text(json.dumps(small_nnunet.plans((16, 16, 16), (1.0, 1.0, 1.0))))
    torch.save(PLAIN | {"x": Payload(os.system, f"touch {mark}")}, tmp_path / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(FileError, match=r"it holds (posix|nt)\.system"):
        NNUNetFeatures(model_folder=str(tmp_path)).predict(Image.from_array(torch.rand(16, 16, 16)))
    assert not mark.exists()


@pytest.mark.parametrize("name", ["os.system", "torch.nn.functional.importlib.import_module", "torch.nn", 3])
def test_plans_name_networks_and_layers_only(name: Any, tmp_path: Path) -> None:
    plans = small_nnunet.plans((16, 16, 16), (1.0, 1.0, 1.0))
    check_plans(plans, tmp_path)
    architecture = next(iter(plans["configurations"].values()))["architecture"]
    kept = architecture["network_class_name"]
    architecture["network_class_name"] = name
    with pytest.raises(FileError, match="must be a network of nnU-Net"):
        check_plans(plans, tmp_path)
    architecture["network_class_name"] = kept
    architecture["arch_kwargs"]["nonlin"] = name
    with pytest.raises(FileError, match=r"must be a layer of torch\.nn"):
        check_plans(plans, tmp_path)


class Reads(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/hostname", False, 1).sum()


class Writes(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "convexadam-was-here")
        return x


class Convolves(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.conv3d(x, torch.ones(2, 1, 1, 1, 1))


@pytest.mark.parametrize(("kind", "word"), [(Reads, "from_file"), (Writes, "save"), (Convolves, None)])
def test_networks_that_touch_files_are_refused(kind: Any, word: str | None, tmp_path: Path) -> None:
    path = str(tmp_path / "a.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        script: Any = torch.jit.script
        script(kind()).save(path)
    if word is None:
        check_torchscript(path)
    else:
        with pytest.raises(FileError, match=f"touches no files, got a call of torch.{word}"):
            check_torchscript(path)


def test_a_zip_bomb_is_left_unread(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/code/__torch__.py", bytes(2**25))
    with pytest.raises(FileError, match="must take at most"):
        check_torchscript(str(tmp_path / "a.pt"))
    with zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a/code/__torch__.py", bytes(100))
    with pytest.raises(FileError, match="stored or deflated"):
        check_torchscript(str(tmp_path / "b.pt"))
