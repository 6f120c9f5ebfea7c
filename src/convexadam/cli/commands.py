"""All commands, and how one of them is run."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Any

import tyro

from convexadam import __version__
from convexadam.cli.common import WrongUse, say
from convexadam.cli.demo import Demo
from convexadam.cli.describing import Info
from convexadam.cli.evaluating import Evaluate
from convexadam.cli.learn2reg import Learn2Reg
from convexadam.cli.registering import register_command
from convexadam.cli.transforms import Compose, Convert, Invert
from convexadam.cli.tuning import Tune
from convexadam.cli.warping import Warp
from convexadam.errors import ConvexAdamError

_COMMANDS: dict[str, Any] = {
    "warp": Warp,
    "invert": Invert,
    "compose": Compose,
    "convert": Convert,
    "info": Info,
    "evaluate": Evaluate,
    "tune": Tune,
    "learn2reg": Learn2Reg,
    "demo": Demo,
}

_STYLE = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    The exit status is 0 if it did its work, 1 if it could not, 2 if it was called wrongly, 130 if it was interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments == ["--version"]:
        sys.stdout.write(f"convexadam {__version__}\n")
        return 0
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("always", module="convexadam", category=UserWarning)
            warnings.showwarning = _said_warning
            _parsed(arguments).run()
    except WrongUse as error:
        say(f"convexadam: {error}")
        return 2
    except ConvexAdamError as error:
        say(f"convexadam: {' '.join(str(error).split())}")
        return 1
    except KeyboardInterrupt:
        say("convexadam: interrupted")
        return 130
    return 0


def _parsed(arguments: list[str]) -> Any:
    """Make the command that the arguments ask for; exits for help and for wrong use."""
    name, *options = arguments or [""]
    if name == "register" or name in _COMMANDS:
        command = register_command(options) if name == "register" else _COMMANDS[name]
        return tyro.cli(command, prog=f"convexadam {name}", args=options, config=_STYLE)
    return tyro.extras.subcommand_cli_from_dict(
        {"register": register_command([]), **_COMMANDS},
        prog="convexadam",
        description="Deformable registration of 3-D medical images.",
        args=arguments,
        config=_STYLE,
    )


def _said_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Take the place of `warnings.showwarning`: one line, without the place in the code."""
    say(f"convexadam: warning: {' '.join(str(message).split())}")
