"""Python processes that start at once: forked from one that has imported the library, which takes seconds.

For tests of what several processes do, are told, or leave behind when they are killed; not for those of how a process
begins. Without `os.fork` and packets over sockets (Linux), processes begin as usual.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any

PRELOADED = ("torch", "convexadam", "convexadam.cohort", "convexadam.data", "convexadam.tuning")

PACKET = 2**17


class Process:
    """A forked process, as far as it is like `subprocess.Popen`."""

    def __init__(self, pid: int, server: _Server) -> None:
        self.pid, self._server, self.returncode = pid, server, None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask({"wait": self.pid})
        return self.returncode

    def wait(self, timeout: float = 600.0) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a forked process", timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class _Server:
    """The process that forks; it ends with this one."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        with other:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())], pass_fds=[other.fileno()], env=environment
            )
        atexit.register(self.close)

    def ask(self, request: Mapping[str, Any], files: Sequence[int] = ()) -> Any:
        socket.send_fds(self._socket, [json.dumps(request).encode()], files)
        return json.loads(self._socket.recv(PACKET))

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


_get_server = functools.cache(_Server)


def start(arguments: Sequence[str], env: Mapping[str, str], *, stdout: int = 1, stderr: int = 2) -> Any:
    """Start ``python *arguments``, which are ``-c CODE`` or a script, with files by their numbers."""
    if sys.platform != "linux":
        return subprocess.Popen([sys.executable, *arguments], env=env, stdout=stdout, stderr=stderr)
    server = _get_server()
    request = {"arguments": list(arguments), "env": dict(env), "folder": str(os.getcwd())}  # noqa: PTH109
    return Process(server.ask(request, (stdout, stderr)), server)


def run(command: Sequence[str], *, env: Mapping[str, str], check: bool = False, **options: Any) -> Any:
    """Stand in for `subprocess.run` where the command is Python, and its output is text or not read."""
    plain = command[0] == sys.executable and (command[1] == "-c" or command[1].endswith(".py"))
    if not plain or not set(options) <= {"stdout", "stderr", "text"}:
        return subprocess_run(command, env=env, check=check, **options)
    reader, writer = os.pipe()
    with open(os.devnull, "wb") as nowhere, open(reader, encoding="utf-8") as read:  # noqa: PTH123
        process = start(command[1:], env, stdout=nowhere.fileno(), stderr=writer)
        os.close(writer)
        errors = read.read()
    done = subprocess.CompletedProcess(command, process.wait(), stderr=errors)
    if check:
        done.check_returncode()
    return done


subprocess_run = subprocess.run  # before tests replace it


def _serve(server: socket.socket) -> Sequence[str]:
    """Fork on request; return in the new process, with its arguments."""
    while True:
        message, files, *_ = socket.recv_fds(server, PACKET, 2)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if "wait" in request:
            pid, status = os.waitpid(request["wait"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := os.fork()) == 0:
            server.close()
            for number, file in enumerate(files, start=1):
                os.dup2(file, number)
                os.close(file)
            os.environ.clear()
            os.environ.update(request["env"])
            os.chdir(request["folder"])
            return list(request["arguments"])
        for file in files:
            os.close(file)
        server.send(json.dumps(answer).encode())


def _run(arguments: Sequence[str]) -> None:
    """Do what Python does with its arguments."""
    import torch

    with contextlib.suppress(KeyError):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*added, *(path for path in sys.path if path not in added)]
    first, *others = arguments
    if first == "-c":
        sys.argv = ["-c", *others[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(others[0], "<string>", "exec"), vars(main))
    else:
        sys.argv = list(arguments)
        sys.path.insert(0, os.path.dirname(first))  # noqa: PTH120
        runpy.run_path(first, run_name="__main__")


if __name__ == "__main__":
    connection = socket.socket(fileno=int(sys.argv[1]))
    for name in PRELOADED:
        importlib.import_module(name)
    _run(_serve(connection))
