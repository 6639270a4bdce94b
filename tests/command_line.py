"""The command line with notebooks of a test."""

import sys


def command(notebooks, *args, first=""):
    """The words of the command line; `first`: code that runs before it in its process."""
    code = f"import sys, run_all; from pathlib import Path\n{first}\n"
    code += f"sys.exit(run_all.main(sys.argv[1:], Path({str(notebooks)!r})))"
    return [sys.executable, "-c", code, *map(str, args)]
