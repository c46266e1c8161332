"""Entry point of the `medddpm` command and of `python -m medddpm`."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command; an interrupt while it still loads ends it quietly, too."""
    try:
        from medddpm.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
