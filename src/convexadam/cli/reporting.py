"""``convexadam report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from convexadam.cli.common import say
from convexadam.report import write_report


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write report.html, a page that shows the quality of a registration, or of a cohort and each of its pairs.

    Attributes
    ----------
    folder
        The --output-dir of convexadam register or convexadam cohort.
    all
        Write the pages of all pairs of a cohort again, also those that are newer than their results.
    quiet
        Do not print the name of each page.
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
    all: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    quiet: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False

    def run(self) -> None:
        """Run the command."""
        for page in write_report(self.folder, all_pages=self.all):
            if not self.quiet:
                say(f"wrote {page}")
