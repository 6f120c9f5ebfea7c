"""A process of `ProcessExecutor`: it reads pickled jobs from its standard input, and writes their results.

It is run as a file, without the packages around it, so that a process imports what its jobs need and nothing else.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import struct
import sys
import threading
from typing import IO, Any

_LENGTH = struct.Struct(">Q")


def send(stream: IO[bytes], message: bytes) -> None:
    """Write a message, after its length."""
    stream.write(_LENGTH.pack(len(message)))
    stream.write(message)
    stream.flush()


def receive(stream: IO[bytes]) -> bytes:
    """Return the next message.

    Raises
    ------
    EOFError
        If the stream ends.
    """
    (length,) = _LENGTH.unpack(_read(stream, _LENGTH.size))
    return _read(stream, length)


def _read(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise EOFError
    return data


def main() -> None:
    """Run jobs until the standard input ends, because the process at its other end does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process at the other end decides
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not get between the results
    messages: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive_all, args=(messages,), daemon=True).start()
    function = pickle.loads(messages.get())
    while True:
        send(results, _run(function, messages.get()))


def _receive_all(messages: queue.SimpleQueue[bytes]) -> None:
    """Pass on messages; end the process at once when there are no more, since nobody waits for its results."""
    try:
        while True:
            messages.put(receive(sys.stdin.buffer))
    except (EOFError, OSError):
        os._exit(0)


def _run(function: Any, message: bytes) -> bytes:
    """Return the pickled result of a job, or its exception."""
    try:
        return pickle.dumps(function(pickle.loads(message)))
    except Exception as error:
        try:
            answer = pickle.dumps(error)
            pickle.loads(answer)  # the constructor of an exception may need other arguments than it keeps
        except Exception:
            answer = pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
        return answer


if __name__ == "__main__":
    main()
