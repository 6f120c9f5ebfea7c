"""A GPU that is only pretended: tensors that say ``cuda:1`` while their values lie on the CPU.

Every torch operation, launch of a Triton kernel, wait for the device, copy to it and byte alive is counted, and every
mixture of devices and launch on a device that is not current is noted. What the code would do on a GPU can so be seen
without one; how fast and how exact it is there cannot.

The second of two devices is pretended, because code that forgets to select its device runs on the first.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

import convexadam

DEVICE = torch.device("cuda", 1)

_PACKAGE = str(Path(convexadam.__file__).parent) + os.sep
_PAGE = 512
"""Bytes to which torch rounds up an allocation on a GPU."""

_WAITING = {  # operations whose result has a size, or a value, that the host has to know
    "aten._local_scalar_dense",
    "aten.nonzero",
    "aten.masked_select",
    "aten.equal",
    "aten.is_nonzero",
    "aten._unique2",
    "aten.unique_dim",
    "aten.unique_consecutive",
    "aten.bincount",
    "aten.repeat_interleave",
}
_INDEXING = {"aten.index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_"}
_COPYING = {"aten._to_copy", "aten.copy_", "aten.copy", "aten._copy_from"}
_FREE = {  # no kernel runs
    "aten.empty",
    "aten.empty_like",
    "aten.new_empty",
    "aten.empty_strided",
    "aten.new_empty_strided",
    "aten.detach",
    "aten.lift_fresh",
    "aten.alias",
    "aten._unsafe_view",
    "aten.set_",
    "aten._local_scalar_dense",
}


@dataclass
class Record:
    """What ran on the pretended device, each with the line of the library that asked for it.

    ``waits`` are those of the host for the device, copies from it included. ``launches`` of ``replay`` are those of
    recordings, which the host asks for once, and ``replayed`` the operations and kernels that the device runs for them.
    """

    operations: Counter[str] = field(default_factory=Counter)
    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    copies_to_device: Counter[str] = field(default_factory=Counter)
    mixed: Counter[str] = field(default_factory=Counter)
    unguarded: Counter[str] = field(default_factory=Counter)
    signatures: Counter[Any] = field(default_factory=Counter)
    replayed: int = 0
    bytes_alive: int = 0
    bytes_peak: int = 0
    peak_at: str = ""

    def start(self) -> None:
        """Forget what ran until now; what is alive stays."""
        for counter in vars(self).values():
            if isinstance(counter, Counter):
                counter.clear()
        self.replayed, self.bytes_peak, self.peak_at = 0, self.bytes_alive, ""

    def faults(self) -> list[str]:
        """Mixtures of devices, and launches on a device that is not current."""
        return sorted({*self.mixed, *self.unguarded})


Memory: TypeAlias = list[tuple[torch.UntypedStorage, torch.UntypedStorage]]
"""Storages, and copies of their values."""


class PretendedTensor(torch.Tensor):
    """A tensor on `DEVICE`, whose values are those of ``inner``, on the CPU."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: torch.Tensor, gpu: PretendedGpu) -> PretendedTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=DEVICE,
            requires_grad=inner.requires_grad,
        )

    def __init__(self, inner: torch.Tensor, gpu: PretendedGpu) -> None:
        self.inner, self._gpu = inner, gpu
        gpu.register(self)
        weakref.finalize(self, gpu.release, gpu.hold(inner))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        gpu = next(t for t in tree_flatten((args, kwargs))[0] if isinstance(t, PretendedTensor))._gpu
        return gpu.dispatch(func, args, kwargs or {})

    def __repr__(self) -> str:
        return f"PretendedTensor({self.inner!r})"

    def tolist(self) -> Any:
        self._gpu.note_wait(f"tolist {_caller()}")
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("numpy cannot read a tensor on a GPU")

    __array__ = numpy


class PretendedGpu(TorchDispatchMode):
    """The device, as a context manager: within it, ``tensor.to(DEVICE)`` and all that follows is pretended.

    Parameters
    ----------
    guard
        Library made by `build_guard`.
    execute
        Runs a kernel, from its name and arguments by name; ``None`` interprets it, which takes seconds.
    """

    def __init__(self, guard: Path, execute: Callable[[str, dict[str, Any]], None] | None = None) -> None:
        super().__init__()
        self.record, self._execute = Record(), execute
        self._guard, self._current = guard, 0
        self._alive: dict[int, list[int]] = {}
        self._tensors: weakref.WeakSet[PretendedTensor] = weakref.WeakSet()
        self._captured: list[Callable[[], None]] | None = None
        self._stack = contextlib.ExitStack()

    # The device ------------------------------------------------------------------------------------------------

    def __enter__(self) -> PretendedGpu:
        self._library = ctypes.CDLL(str(self._guard))
        before = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, before)
        cuda = {
            "_lazy_init": lambda: None,
            "device": self._select,
            "device_of": lambda tensor: self._select(tensor.device if tensor.is_cuda else None),
            "synchronize": self._synchronize,
            "current_device": lambda: self._current,
            "device_count": lambda: 2,
            "get_device_properties": lambda *_: _Properties(),
            "Event": _Event,
            "Stream": _Stream,
            "stream": lambda _: contextlib.nullcontext(),
            "current_stream": lambda *_: _Stream(self),
            "CUDAGraph": lambda: _Graph(self),
            "is_current_stream_capturing": lambda: self._captured is not None,
        }
        self._replace(torch.Tensor, "pin_memory", _pin)
        for name, value in cuda.items():
            self._replace(torch.cuda, name, value)
        self._pretend_compiler()
        _forget_constants()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def hold(self, inner: torch.Tensor) -> int:
        """Count the bytes of a tensor, once for all views of them; return by what to `release` them."""
        storage = inner.untyped_storage()
        key = storage.data_ptr() or id(storage)
        held = self._alive.setdefault(key, [0, -(-storage.nbytes() // _PAGE) * _PAGE])
        held[0] += 1
        if held[0] == 1:
            self.record.bytes_alive += held[1]
            if self.record.bytes_alive > self.record.bytes_peak:
                self.record.bytes_peak, self.record.peak_at = self.record.bytes_alive, _caller()
        return key

    def register(self, tensor: PretendedTensor) -> None:
        """Know of a tensor, whose values a recording must not change."""
        self._tensors.add(tensor)

    def note_wait(self, at: str) -> None:
        """Note that the host waits, which no recording can."""
        self.record.waits[at] += 1
        if self._captured is not None:
            self.record.unguarded[f"{at}: waits within a recording"] += 1
            raise RuntimeError(f"{at} is not permitted when stream is capturing")

    # Recordings ------------------------------------------------------------------------------------------------

    def begin_recording(self) -> Memory:
        """Record what follows; return what was in memory, because recording it must not run it."""
        self._captured = []
        if self._execute is not None:  # stand-ins write no meaningful values
            return []
        storages = {t.inner.untyped_storage().data_ptr(): t.inner.untyped_storage() for t in list(self._tensors)}
        return [(storage, storage.clone()) for storage in storages.values()]

    def end_recording(self, before: Memory) -> list[Callable[[], None]]:
        """Restore the memory, and return what was recorded."""
        recorded, self._captured = self._captured or [], None
        for storage, values in before:
            storage.copy_(values)
        return recorded

    def replay(self, recorded: list[Callable[[], None]]) -> None:
        """Run a recording, with one launch."""
        self.record.launches["replay"] += 1
        self.record.replayed += len(recorded)
        if self._execute is None:
            for run in recorded:
                run()

    def _capture(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        assert self._captured is not None
        outputs, mutable = tree_flatten(result)[0], func._schema.is_mutable

        def run() -> None:
            with torch._C._DisableTorchDispatch():
                found = tree_flatten(func(*args, **kwargs))[0]
            for out, values in zip(outputs, found, strict=True):
                if not mutable and isinstance(out, torch.Tensor):
                    out.copy_(values)

        self._captured.append(run)

    # Memory ----------------------------------------------------------------------------------------------------

    def release(self, key: int) -> None:
        """Count a tensor as freed."""
        held = self._alive[key]
        held[0] -= 1
        if held[0] == 0:
            self.record.bytes_alive -= held[1]
            del self._alive[key]

    @contextlib.contextmanager
    def _select(self, device: Any = None) -> Iterator[None]:
        index = device if isinstance(device, int) else None if device is None else torch.device(device).index
        before = self._current
        self._make_current(before if index is None or index < 0 else index)
        try:
            yield
        finally:
            self._make_current(before)

    def _make_current(self, index: int) -> None:
        self._current = index
        self._library.select_device(index)

    def _synchronize(self, *_: Any) -> None:
        self.note_wait(f"synchronize {_caller()}")

    def _replace(self, owner: Any, name: str, value: Any) -> None:
        self._stack.callback(setattr, owner, name, getattr(owner, name))
        setattr(owner, name, value)

    # Operations of torch ---------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.dispatch(func, args, kwargs or {})

    def dispatch(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation on the CPU, and note what it would do on the device."""
        given = tree_flatten((args, kwargs))[0]
        ours = [t for t in given if isinstance(t, PretendedTensor)]
        target = None if kwargs.get("device") is None else torch.device(kwargs["device"])
        to_device = target is not None and target.type == "cuda"
        if not ours and not to_device:
            return func(*args, **kwargs)
        name = str(func.overloadpacket)
        self._note(name, func, given, ours, target)
        plain = {**_unwrap(kwargs), **({} if target is None else {"device": torch.device("cpu")})}
        with torch._C._DisableTorchDispatch():
            if name == "aten._to_copy" and target is not None:
                plain["non_blocking"] = False
            result = func(*_unwrap(args), **plain)
        if self._captured is not None and not _is_view(func) and name not in _FREE:
            self._capture(func, _unwrap(args), plain, result)
        if name == "aten._local_scalar_dense" or (name == "aten._to_copy" and target is not None and not to_device):
            return result
        if func._schema.is_mutable:
            return _pick_written(func, args, kwargs)
        wrapped = tree_map(self._wrap, result)
        return return_and_correct_aliasing(func, args, kwargs, wrapped) if _is_view(func) else wrapped

    def _wrap(self, value: Any) -> Any:
        is_plain = isinstance(value, torch.Tensor) and not isinstance(value, PretendedTensor)
        return PretendedTensor(value, self) if is_plain else value

    def _note(
        self, name: str, func: Any, given: list[Any], ours: list[PretendedTensor], target: torch.device | None
    ) -> None:
        others = [t for t in given if isinstance(t, torch.Tensor) and not isinstance(t, PretendedTensor)]
        at, record = f"{name} {_caller()}", self.record
        if target is not None and target.type == "cuda":
            if target.index is None and self._current != DEVICE.index:
                record.unguarded[f"{at}: on cuda:{self._current}"] += 1
            if target.index not in (None, DEVICE.index):
                record.mixed[f"{at}: on {target}"] += 1
        if name in _COPYING:
            if ours and target is not None and target.type == "cpu":
                self.note_wait(at)
            arrives = name != "aten._to_copy" or (target is not None and target.type == "cuda")
            if any(not hasattr(t, "is_pinned_here") for t in others) and arrives:
                record.copies_to_device[at] += 1
        elif ours and any(t.dim() for t in others):  # a number on the CPU is passed by value
            record.mixed[f"{at}: {[tuple(t.shape) for t in others]}"] += 1
        by_mask = name in _INDEXING and any(t.dtype in (torch.bool, torch.uint8) for t in ours[1:])
        if ours and (name in _WAITING or by_mask):
            self.note_wait(at)
        if name not in _FREE and not _is_view(func):
            record.operations[at] += 1

    # Kernels of Triton -----------------------------------------------------------------------------------------

    def _pretend_compiler(self) -> None:
        from triton.runtime.interpreter import GridExecutor

        from convexadam.kernels import _backend

        find_obstacle, interpret = _backend._find_obstacle, GridExecutor.__call__

        def without_interpreter(backend: Any, tensors: Any) -> str:
            asked = os.environ.pop("TRITON_INTERPRET", None)
            try:
                return find_obstacle(backend, tensors)
            finally:
                if asked is not None:
                    os.environ["TRITON_INTERPRET"] = asked

        def launch(executor: Any, *args: Any, **kwargs: Any) -> None:
            self._note_launch(executor.fn, args, kwargs)
            plain, named = _unwrap(args), _unwrap(kwargs)

            def run() -> None:
                with torch._C._DisableTorchDispatch():
                    if self._execute is None:
                        interpret(executor, *plain, **named)
                    else:
                        self._execute(executor.fn.__name__, dict(zip(executor.arg_names, plain, strict=False)) | named)

            run()
            if self._captured is not None:
                self._captured.append(run)

        self._replace(_backend, "_find_obstacle", without_interpreter)
        self._replace(GridExecutor, "__call__", launch)

    def _note_launch(self, function: Any, args: Any, kwargs: Any) -> None:
        module = function.__module__
        at = f"{module.split('.')[-2]}.{function.__name__}"
        values = (*args, *kwargs.values())
        self.record.launches[at] += 1
        described = tuple(map(describe, args)), tuple((key, describe(value)) for key, value in kwargs.items())
        self.record.signatures[(module, function.__name__, *described)] += 1
        if self._current != DEVICE.index:
            self.record.unguarded[f"{at} {_caller()}: on cuda:{self._current}"] += 1
        for value in values:
            if isinstance(value, torch.Tensor) and not isinstance(value, PretendedTensor):
                self.record.mixed[f"{at} {_caller()}: {tuple(value.shape)} on the CPU"] += 1
            if isinstance(value, PretendedTensor) and not value.inner.is_contiguous():
                self.record.mixed[f"{at} {_caller()}: {tuple(value.shape)} is not contiguous"] += 1


class _Graph:
    """A recording."""

    def __init__(self, gpu: PretendedGpu) -> None:
        self._gpu = gpu

    def capture_begin(self, **_: Any) -> None:
        self._before = self._gpu.begin_recording()

    def capture_end(self) -> None:
        self._recorded = self._gpu.end_recording(self._before)

    def replay(self) -> None:
        self._gpu.replay(self._recorded)


class _Stream:
    """A queue of the device, which is never behind."""

    def __init__(self, gpu: PretendedGpu | None = None) -> None:
        self._gpu = gpu

    def wait_stream(self, _: _Stream) -> None:
        pass

    def synchronize(self) -> None:
        assert self._gpu is not None
        self._gpu.note_wait(f"synchronize {_caller()}")


class _Event:
    """A mark among what the device has to do."""

    def __init__(self, **_: Any) -> None:
        pass

    def record(self) -> None:
        pass

    def elapsed_time(self, _: _Event) -> float:
        return 1.0


def _forget_constants() -> None:
    """Forget what was sent to another pretended device, so that each one counts what is sent in a new process."""
    from convexadam.kernels import _device
    from convexadam.kernels.cost_volume import triton as cost_volume
    from convexadam.kernels.coupled_argmin import triton as coupled_argmin
    from convexadam.kernels.smooth import triton as smooth

    for kept in (_device._send_once, cost_volume._steps, coupled_argmin._table, smooth._taps_on_device):
        kept.cache_clear()


def _pin(tensor: torch.Tensor) -> torch.Tensor:
    """Copy to memory that the device can read by itself."""
    pinned = tensor.clone()
    pinned.is_pinned_here = True  # type: ignore[attr-defined]
    return pinned


@dataclass(frozen=True)
class _Properties:
    """Of the device, as far as the library asks."""

    multi_processor_count: int = 132
    total_memory: int = 139 * 2**30


def build_guard(folder: Path) -> Path:
    """Compile the library by which torch knows of the device; raise `OSError` where there is no compiler."""
    root, library = Path(torch.__file__).parent, folder / "libguard.so"
    source = Path(__file__).with_name("guard.cpp")
    command = [
        "g++",
        "-shared",
        "-fPIC",
        "-O1",
        "-std=c++17",
        f"-I{root / 'include'}",
        str(source),
        f"-L{root / 'lib'}",
    ]
    subprocess.run([*command, "-lc10", "-o", str(library)], check=True, capture_output=True)
    return library


def _unwrap(values: Any) -> Any:
    return tree_map(lambda value: value.inner if isinstance(value, PretendedTensor) else value, values)


def _is_view(func: Any) -> bool:
    returned = (r.alias_info for r in func._schema.returns)
    return bool(getattr(func, "is_view", False)) or any(info is not None and not info.is_write for info in returned)


def _pick_written(func: Any, args: Any, kwargs: Any) -> Any:
    """Return the tensors that an operation wrote into, which are what it returns."""
    named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
    schema = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    written = [named[name] for name in schema if name in named]
    count = len(func._schema.returns)
    return None if count == 0 else written[0] if count == 1 else tuple(written)


def flatten_tensors(values: Any) -> list[torch.Tensor]:
    """Return the tensors in nested containers."""
    return [value for value in tree_flatten(values)[0] if isinstance(value, torch.Tensor)]


def describe(value: Any) -> Any:
    """Return what the compiler sees of an argument: the type and alignment of a tensor, or the value itself."""
    if isinstance(value, torch.Tensor):
        return "tensor", str(value.dtype).removeprefix("torch."), value.data_ptr() % 16
    return type(value).__name__, value


def _caller() -> str:
    """Return the innermost line of the library that runs."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_PACKAGE):
            return f"{name[len(_PACKAGE) :]}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "outside"
