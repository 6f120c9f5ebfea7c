"""``python -m convexadam``."""

import sys

from convexadam.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
