"""Run a scenario from the command line: `python run_all.py --scenario bert` (see --help)."""

import sys

from icd_lib.execute.command_line import build_parser, main

__all__ = ["build_parser", "main"]

if __name__ == "__main__":
    sys.exit(main())
