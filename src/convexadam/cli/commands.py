"""The table of commands, and the entry point."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Union

import tyro

from convexadam import __version__
from convexadam.cli.cohort import Cohort
from convexadam.cli.common import UsageError, log_to_stderr
from convexadam.cli.demo import Demo
from convexadam.cli.describing import Info
from convexadam.cli.evaluating import Evaluate
from convexadam.cli.learn2reg import Learn2Reg
from convexadam.cli.registering import HELP_ALL, Register, make_register_command
from convexadam.cli.reporting import Report
from convexadam.cli.segmenting import Segment
from convexadam.cli.series import Series
from convexadam.cli.settings import Config
from convexadam.cli.templating import Template
from convexadam.cli.transforms import Compose, Convert, Invert
from convexadam.cli.tuning import Tune
from convexadam.cli.warming import Warmup
from convexadam.cli.warping import Warp
from convexadam.errors import ConvexAdamError
from convexadam.io import use_header
from convexadam.kernels._waiting import passive_waiting

_COMMANDS: dict[str, Any] = {
    "warp": Warp,
    "invert": Invert,
    "compose": Compose,
    "convert": Convert,
    "info": Info,
    "config": Config,
    "evaluate": Evaluate,
    "cohort": Cohort,
    "report": Report,
    "template": Template,
    "segment": Segment,
    "series": Series,
    "tune": Tune,
    "learn2reg": Learn2Reg,
    "demo": Demo,
    "warmup": Warmup,
}

_STYLE = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit status: 0 for success, 1 for an error, 2 for wrong usage, 130 if interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        sys.stdout.write(f"convexadam {__version__}\n")
        return 0
    with log_to_stderr() as logger:
        try:
            with _flush_output(), warnings.catch_warnings():
                warnings.filterwarnings("always", module="convexadam", category=UserWarning)
                warnings.showwarning = partial(_show_warning, logger)
                command = _parse_command(arguments)
                if getattr(command, "quiet", False):
                    logger.setLevel(logging.ERROR)
                with use_header(getattr(command, "header", None)), passive_waiting():
                    command.run()
        except UsageError as error:
            logger.error("convexadam: %s", error)
            return 2
        except KeyboardInterrupt:
            logger.error("convexadam: interrupted")
            return 130
        except BrokenPipeError:  # the reader, such as head, has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python flushes, and fails, once more
            return 1
        except (ConvexAdamError, OSError) as error:
            logger.error("convexadam: %s", _describe(error))
            return 1
        return 0


def _describe(error: ConvexAdamError | OSError) -> str:
    """Return the message of an error on one line; those of the system are of names and folders that it refuses."""
    if isinstance(error, ConvexAdamError):
        return " ".join(str(error).split())
    return f"cannot use {error.filename}: {error.strerror}; choose another path"


@contextmanager
def _flush_output() -> Iterator[None]:
    """Write what is buffered, also if the context is left by `SystemExit`, where failure is still caught."""
    try:
        yield
    finally:
        sys.stdout.flush()


def _parse_command(arguments: list[str]) -> Any:
    """Return the command of the arguments; exits for help and for wrong usage."""
    if "" in arguments:  # which would be the current folder, or be left out
        raise UsageError("arguments must not be empty, got ''; check the variables of the shell")
    name, *options = arguments or [""]
    if name not in ("register", *_COMMANDS):
        arguments = ["--help" if argument == HELP_ALL else argument for argument in arguments]
        return tyro.cli(
            _list_commands(),
            prog="convexadam",
            description="Deformable registration of 3-D medical images. Options: convexadam COMMAND --help.",
            args=arguments,
            config=_STYLE,
        )
    show_all = HELP_ALL in options
    if show_all:
        options = ["--help" if option == HELP_ALL else option for option in options]
    if name != "register":
        return tyro.cli(_COMMANDS[name], prog=f"convexadam {name}", args=options, config=_STYLE)
    show_common = not show_all and not {"-h", "--help"}.isdisjoint(options)
    command = make_register_command(options, all_options=not show_common)
    description = None
    if show_common:
        purpose = (Register.__doc__ or "").partition(";")[0]  # --output-dir says what is written
        description = f"{purpose}. All settings: convexadam register {HELP_ALL}"
    return tyro.cli(command, prog=f"convexadam {name}", description=description, args=options, config=_STYLE)


def _list_commands() -> Any:
    """Return the type of all commands; each has the beginning of its docstring, up to a semicolon, as description."""
    kinds = []
    for name, command in {"register": Register, **_COMMANDS}.items():
        summary = (command.__doc__ or "").partition("\n\n")[0].partition(";")[0].removesuffix(".")
        kinds.append(Annotated[command, tyro.conf.subcommand(name, description=f"{summary}.")])
    return Union[tuple(kinds)]  # noqa: UP007 - made of a list


def _show_warning(logger: logging.Logger, message: Warning | str, *_: Any, **__: Any) -> None:
    """Replace `warnings.showwarning`: one line, without the position in the source."""
    logger.warning("convexadam: warning: %s", " ".join(str(message).split()))
