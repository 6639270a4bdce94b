"""The command line with notebooks of a test."""

import sys


def command(notebooks, *args):
    code = (
        f"import sys, run_all; from pathlib import Path; sys.exit(run_all.main(sys.argv[1:], Path({str(notebooks)!r})))"
    )
    return [sys.executable, "-c", code, *map(str, args)]
