"""The command line: ``convexadam register | warp | invert | compose | convert | info | evaluate | learn2reg | ...``."""

from convexadam.cli.commands import main

__all__ = ["main"]
